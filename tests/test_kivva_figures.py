"""Tables and pictures of Kivva et al. (2022), on a run folder made by hand: nothing is trained here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ivae_lab.experiment import function
from ivae_lab.metrics.agreement import Agreement
from ivae_lab.metrics.estimate import Estimate
from ivae_lab.pairs import FILE, score_pairs, write_pairs

ROWS = 800
TURN = np.array([[0.6, -2.0], [0.8, 1.0]])
CELL = {"variant": "as it is", "label": "VaDE", "method": "vade", "data": "pinwheel", "data_seed": 1}


def own(name: str) -> Callable[..., Any]:
    return function("kivva2022", name)


@pytest.fixture
def made(tmp_path: Path) -> tuple[pd.DataFrame, dict[str, Path]]:
    """Four seeds: the first, its columns swapped and one turned over, a linear map of it, and one that diverged."""
    z = np.random.default_rng(0).laplace(size=(ROWS, 2))
    mean = np.stack([z, z[:, ::-1] * [2, -3] + 1, z @ TURN, np.full_like(z, np.nan)])
    split = np.where(np.arange(ROWS) < ROWS // 2, "train", "test")
    np.savez(
        tmp_path / "latents.npz", mean=mean, seed=range(4), index=np.arange(ROWS), split=split, u=np.arange(ROWS) % 3
    )
    metric = Agreement(["mean"], ["pearson"], [20, None], 1, half_seed=0, chance_seed=0)
    test = split == "test"
    estimates = {
        seed: Estimate(each[test], each[test], None, None, np.flatnonzero(test), {}) for seed, each in enumerate(mean)
    }
    write_pairs(tmp_path / FILE, score_pairs(metric, estimates, [3], {"data_seed": 1, "split": "test"}))
    return pd.DataFrame([{**CELL, "seed": seed, "run": "run"} for seed in range(4)]), {"run": tmp_path}


def test_pairs_are_named_by_their_alignment(made: tuple[pd.DataFrame, dict[str, Path]]) -> None:
    table = own("agreement_of_pairs")(*made).set_index(["seed_a", "seed_b", "score"])["value"]
    assert table[0, 1, "mcc_strong"] == pytest.approx(1)
    assert table[0, 2, "mcc_out"] == pytest.approx(1)
    assert table[0, 2, "mcc_strong"] < 0.95
    assert table.isna().sum() == 3 * 3  # pairs with the seed that diverged
    seeds = own("agreement_by_seed")(*made)
    assert seeds["mcc_out"].mean() == pytest.approx(1)
    assert seeds["mcc_out"].isna().tolist() == [False, False, False, True]


def test_aligned_spaces_lie_on_the_first(made: tuple[pd.DataFrame, dict[str, Path]]) -> None:
    table = own("spaces")(*made)
    by_seed = {seed: part.reset_index(drop=True) for seed, part in table.groupby("seed")}
    assert [*by_seed] == [0, 1, 2]
    permuted, affine = ["permuted_1", "permuted_2"], ["affine_1", "affine_2"]
    assert np.allclose(by_seed[1][permuted], by_seed[0][permuted], atol=2e-3)
    assert np.allclose(by_seed[2][affine], by_seed[0][affine], atol=2e-3)
    assert not np.allclose(by_seed[2][permuted], by_seed[0][permuted], atol=0.1)
    assert set(table["arm"]) == {0, 1, 2}


def test_pictures_have_a_panel_for_each_alignment(made: tuple[pd.DataFrame, dict[str, Path]]) -> None:
    tables = {"spaces": own("spaces")(*made), "pairs": own("agreement_of_pairs")(*made)}
    assert len(own("latent_spaces")(tables).figure.axes) == 2 * 3
    drawn = own("matrices")(tables)
    assert len(drawn.figure.axes) == 2
    assert "affine, out of sample 1.00" in drawn.alt
