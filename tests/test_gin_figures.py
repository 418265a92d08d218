"""Tables and pictures of Sorrenson et al. (2020), on run folders made by hand: nothing is trained here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from ivae_lab.experiment import function
from ivae_lab.results import COLUMNS, write_results

ROWS, SOURCES = 1500, 2
SETTING = {"data.points": ROWS, "data.gap": 1.0, "trainer.lr": 0.01}


def own(name: str) -> Callable[..., Any]:
    return function("sorrenson2020", name)


def run_of(folder: Path, latents: NDArray[np.float64], sources: NDArray[np.float64], informative: int) -> None:
    """A run folder of one seed, 3, with x a rotation of sources and faint noise."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    u = rng.integers(3, size=ROWS)
    np.savez(folder / "latents.npz", mean=latents[None], sources=sources, u=u, seed=np.array([3]))
    x = np.c_[sources, 0.01 * rng.normal(size=(ROWS, 2))] @ np.linalg.qr(rng.normal(size=(4, 4)))[0]
    np.savez(folder / "examples.npz", x=x, sources=sources, u=u, seed=np.array([3]))
    fixed = dict.fromkeys(COLUMNS) | {"seed": 3, "data_seed": 1, "split": "train", "points": ROWS, "state": "done"}
    fixed |= {"source_dim": SOURCES, "latents": "mean", "scored": "all"}
    write_results(
        folder / "results.csv",
        [
            {**fixed, "metric": "informative", "value": float(informative)},
            {**fixed, "metric": "mcc_informative", "value": 0.9},
            {**fixed, "metric": "elbo", "value": 1.0},
        ],
    )


@pytest.fixture
def made(tmp_path: Path) -> tuple[pd.DataFrame, dict[str, Path]]:
    """Two data seeds: in one two latents are informative, in the other three."""
    rng = np.random.default_rng(0)
    sources = rng.normal(size=(ROWS, SOURCES)) * [1.0, 2.0]
    records, paths = [], {}
    for data_seed, count in ((1, 2), (2, 3)):
        noise = rng.normal(size=(ROWS, 4)) * np.where(np.arange(4) < count - SOURCES, 1, 0.01)
        latents = np.c_[noise, -3 * sources[:, 1] + 5, sources[:, 0]]
        paths[f"run{data_seed}"] = tmp_path / f"run{data_seed}"
        run_of(paths[f"run{data_seed}"], latents, sources, count)
        named = {"variant": "released", "label": "GIN", "method": "gin", "data": "gin10d", "data_seed": data_seed}
        records.append(
            {**named, **SETTING, "seed": 3, "run": f"run{data_seed}", "chance": 0.1, "elbo": 1, "mcc_mean": 1}
        )
    return pd.DataFrame(records), paths


def test_what_is_found_is_what_the_runs_say_beside_principal_components(
    made: tuple[pd.DataFrame, dict[str, Path]],
) -> None:
    table = own("found")(*made)
    gin, pca = (table[table["method"] == method] for method in ("gin", "pca"))
    assert gin["informative"].tolist() == [2, 3]
    assert gin["success"].tolist() == [1, 0]
    assert gin["mcc_informative"].tolist() == [0.9, 0.9]
    assert len(pca) == 2
    assert pca["success"].tolist() == [1, 1]  # x is linear in the sources, and these are uncorrelated and unequal
    assert (pca["mcc_informative"] > 0.95).all()
    assert (pca["mcc_mean"] >= pca["mcc_informative"]).all()


def test_spectra_fall_and_count_every_latent(made: tuple[pd.DataFrame, dict[str, Path]]) -> None:
    table = own("spectra")(*made)
    for _, part in table.groupby("data_seed"):
        assert part["rank"].tolist() == [1, 2, 3, 4, 5, 6]
        assert (part["std"].diff().dropna() <= 0).all()
    assert table["std"].iloc[0] == pytest.approx(6, rel=0.1)


def test_clouds_lie_on_the_sources_of_the_first_data_seed(made: tuple[pd.DataFrame, dict[str, Path]]) -> None:
    table = own("clouds")(*made)
    assert set(table["data_seed"]) == {1}
    for source in ("1", "2"):
        np.testing.assert_allclose(table[f"recovered_{source}"], table[f"true_{source}"], atol=1e-6)
        assert table[f"r_{source}"].iloc[0] == pytest.approx(1)


def test_pictures_say_in_words_what_they_show(made: tuple[pd.DataFrame, dict[str, Path]]) -> None:
    tables = {name: own(name)(*made) for name in ("found", "spectra", "clouds")}
    said = own("reconstruction")(tables).alt
    assert "GIN" in said
    assert "0.5" in said  # two informative latents in one of two
    assert "PCA" not in own("success_grid")(tables).alt
    assert own("success_by_rate")(tables).figure.axes[0].get_xscale() == "log"
