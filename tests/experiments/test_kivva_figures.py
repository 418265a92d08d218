"""Tables and pictures of Kivva et al. (2022), on a run folder made by hand: nothing is trained here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ivae_lab.metrics.agreement import Agreement
from ivae_lab.metrics.resampling import Estimate
from ivae_lab.reproduction.definition import function
from ivae_lab.runs.agreement_csv import FILE, score_pairs, write_pairs
from ivae_lab.runs.results_csv import COLUMNS, write_results

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


# MNIST --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def digits(tmp_path: Path) -> tuple[pd.DataFrame, dict[str, Path]]:
    """Bars of five widths and ten labels; the clusters of one facet are the widths, those of the other the labels."""
    rng = np.random.default_rng(0)
    width, label = rng.permutation(np.arange(400) % 5), rng.permutation(np.arange(400) % 10)
    x = np.zeros((400, 28, 28), np.uint8)
    for image, bar in zip(x, width, strict=True):
        image[4:24, 10 : 11 + bar] = 255
    mean = rng.normal(size=(2, 400, 4))
    mean[1] = mean[0][:, [1, 0, 2, 3]]
    cluster = np.stack([np.stack([width, label], 1), np.stack([label, width], 1)])
    arrays: dict[str, Any] = {
        "mean": mean,
        "sample": mean,
        "cluster": cluster,
        "x": x.reshape(400, -1),
        "facets": 2,
        "u": label,
    }
    np.savez(tmp_path / "latents.npz", **arrays, seed=range(2), index=range(400), split=np.full(400, "test"))
    metric = Agreement(["mean"], ["pearson"], [None], 1, half_seed=0, chance_seed=0)
    estimates = {seed: Estimate(each, each, None, None, np.arange(400), {}, facets=2) for seed, each in enumerate(mean)}
    write_pairs(tmp_path / FILE, score_pairs(metric, estimates, [], {"data_seed": 1, "split": "test"}))
    cell = CELL | {"label": "MFCVAE", "method": "mfcvae", "data": "mnist"}
    return pd.DataFrame([{**cell, "seed": seed, "run": "run"} for seed in range(2)]), {"run": tmp_path}


@pytest.mark.parametrize(("width", "expected"), [(1, 20 / 21), (3, 60 / 23), (6, 120 / 26)])
def test_the_thickness_of_a_bar_is_its_area_over_half_its_boundary(width: int, expected: float) -> None:
    bar = np.zeros((2, 28, 28), np.uint8)
    bar[0, 4:24, 10 : 10 + width] = 255
    bar[1, 10 : 10 + width, 4:24] = 100  # lying, and grey
    assert own("thickness")(bar) == pytest.approx([expected, expected], rel=0.02)
    assert own("thickness")(np.zeros((1, 28, 28), np.uint8)) == [0]


def test_each_facet_has_its_clusters_and_its_agreement(digits: tuple[pd.DataFrame, dict[str, Path]]) -> None:
    table = own("clusterings")(*digits).set_index(["seed", "facet"])
    for found, stroke, digit in ((0, "shallow", "deep"), (1, "deep", "shallow")):
        assert table.loc[(found, stroke), "nmi_stroke"] == pytest.approx(1)
        assert table.loc[(found, digit), "nmi_digit"] == pytest.approx(1)
        assert table.loc[(found, digit), "nmi_stroke"] < 0.2
        assert table.loc[(found, digit), "clusters"] == 10
    assert table[["chance_digit", "chance_stroke"]].max(axis=None) < 0.2
    seeds = own("agreement_by_seed")(*digits)
    assert seeds["facet"].tolist() == ["shallow"] * 2 + ["deep"] * 2 + ["joint"] * 2
    assert seeds["mcc_strong"].dropna().tolist() == pytest.approx([1, 1, 1])


def test_pictures_of_facets_are_drawn(digits: tuple[pd.DataFrame, dict[str, Path]]) -> None:
    tables = {"pairs": own("agreement_of_pairs")(*digits), "clusters": own("clusterings")(*digits)}
    assert "joint" in own("boxes_by_facet")(tables).alt
    assert "digit" in own("digit_against_stroke")(tables).alt
    drawn = own("digits_by_cluster")(*digits).figure.axes
    assert [axis.get_title() for axis in drawn] == [
        "shallow facet: 5 clusters in use",
        "deep facet: 10 clusters in use",
    ]


def simulated(path: Path, divergences: list[float], distances: list[float], **truth: float) -> None:
    """A results.csv of one simulated model: a start for each divergence."""
    rows = []
    for seed, (divergence, distance) in enumerate(zip(divergences, distances, strict=True)):
        said = {"divergence": divergence, "prior_affine": distance / 2, "prior_scaled": distance} | truth
        said |= {"decoder_affine": 0.5, "decoder_scaled": 0.5}
        rows += [{"seed": seed, "metric": name, "value": value} for name, value in said.items()]
    fixed = {"data_seed": 1, "split": "test", "state": "done", "points": 10, "latent_dim": 1}
    write_results(path / "results.csv", [dict.fromkeys(COLUMNS) | fixed | row for row in rows])


@pytest.mark.parametrize(
    ("divergences", "distances", "found", "other", "unique", "alike"),
    [
        ([1e-12, 1e-2], [1e-6, 0.5], 1, 0, 1, 0),  # the truth, and a start that ends higher
        ([1e-12, 1e-12], [1e-6, 0.5], 1, 1, 0, 1),  # and another that is as likely
        ([1e-7, 1e-2], [0.5, 0.5], 0, 0, 0, 1),  # nearly as likely, which proves nothing
        ([1e-7, 1e-2], [0.01, 0.5], 1, 0, 1, 0),
        ([1e-3, np.nan], [0.01, np.nan], 0, 0, 0, 0),  # near the truth and not as likely; one that diverged
    ],
)
def test_a_minimiser_is_the_truth_or_another(
    tmp_path: Path, divergences: list[float], distances: list[float], found: int, other: int, unique: int, alike: int
) -> None:
    simulated(tmp_path, divergences, distances, true_F2=1, true_F3=0, true_P2=1)
    cell = {"variant": "search", "label": "1 to 1", "method": "exact", "data": "gmm_relu", "data_seed": 1}
    rows = pd.DataFrame([{**cell, "seed": seed, "run": "run", "elbo": -1.0, "state": "done"} for seed in range(2)])
    (row,) = own("simulations")(rows, {"run": tmp_path}).to_dict("records")
    assert (row["found"], row["other"], row["unique"], row["alike"]) == (found, other, unique, alike)
    assert (row["starts"], row["true_F3"]) == (2, 0)


def test_what_theorem_35_leaves_depends_on_what_holds_of_the_truth(tmp_path: Path) -> None:
    """Permutation and scales with (P2), else any affine map; the decoder too with (F3)."""
    cell = {"variant": "search", "label": "1 to 1", "method": "exact", "data": "gmm_relu", "data_seed": 1}
    rows = pd.DataFrame([{**cell, "seed": 0, "run": "run", "elbo": -1.0, "state": "done"}])
    for truth, distance in (((1, 0), 0.3), ((0, 0), 0.15), ((1, 1), 0.5)):
        simulated(tmp_path, [1e-12], [0.3], true_F2=1, true_P2=truth[0], true_F3=truth[1])
        assert own("starts")(rows, {"run": tmp_path})["distance"].tolist() == [distance]


def test_slices_are_named_by_what_they_vary(tmp_path: Path) -> None:
    numbers = 2 + 2 + 2 + 3 + 3 + 6 + 2  # K, K n, K n, H n, H, d H, d
    offset = np.linspace(-0.5, 0.5, 5)
    arrays = {
        "slice_offset": offset[None],
        "slice_nll": np.tile(3 + offset**2, (1, numbers, 1)),
        "slice_least": np.linspace(-1e-5, 1e-5, numbers)[None],
        "slice_error": np.array([1e-9]),
    }
    np.savez(tmp_path / "examples.npz", seed=[0], **arrays)  # type: ignore[arg-type]
    cell = {"variant": "slices", "label": "1 to 2", "method": "exact", "data": "gmm_relu", "data_seed": 1, "seed": 0}
    sizes = {"data.latent_dim": 1, "data.x_dim": 2, "data.components": 2, "data.hidden": 3}
    table = own("slices")(pd.DataFrame([{**cell, **sizes, "run": "run"}]), {"run": tmp_path})
    assert table.groupby("kind", sort=False)["parameter"].nunique().tolist() == [2, 2, 2, 3, 3, 6, 2]
    assert (table.groupby("parameter")["excess"].min() == 0).all()
    assert table["away"].max() == 1e-5
    picture = own("likelihood_slices")({"slices": table})
    assert "1e-09" in picture.caption
