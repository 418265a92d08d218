"""Tables and pictures of Sorrenson et al. (2020), on run folders made by hand: nothing is trained here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from ivae_lab.reproduction.definition import function
from ivae_lab.runs.arrays import read_latents
from ivae_lab.runs.results_csv import COLUMNS, write_results

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


class TestDigits:
    """A run of images of 4 x 4 in two classes, of which all is known."""

    SIDE, DRAWS = 4, 6

    @pytest.fixture
    def digits(self, tmp_path: Path) -> tuple[pd.DataFrame, dict[str, Path]]:
        """24 latents: the first 8 move both classes, the next 14 the second class only, the last two little."""
        moves = np.repeat([[0.25, 0.25], [0.0, 0.25], [0.01, 0.01]], [8, 14, 2], axis=0)  # (24, 2)
        steps = np.linspace(-2, 2, 9)
        pixel = np.zeros((24, 2, 9, 16))
        pixel[..., 5] = 0.5 + moves[:, :, None] * steps
        rng = np.random.default_rng(0)
        drawn = np.zeros((3, 2, self.DRAWS, 16))
        drawn[..., 5:] = rng.uniform(size=(1, 1, self.DRAWS, 11))  # the same in both classes
        drawn[:1, ..., :5] = rng.uniform(0, 0.1, (1, 2, self.DRAWS, 5))  # pixels that are black in all images
        x = np.zeros((10, 16), np.uint8)
        x[:, 5:] = 200
        (tmp_path / "run").mkdir()
        latents = rng.normal(size=(50, 16)) * np.r_[[10.0] * 3, [0.1] * 13]
        split = np.array(["train"] * 10 + ["test"] * 40)
        seed = np.array([3])
        np.savez(tmp_path / "run" / "latents.npz", mean=latents[None], split=split, seed=seed)
        moved = {"class_traversals": pixel[None], "class_drawn": drawn[None], "principal_std": np.arange(16.0)[::-1]}
        np.savez(tmp_path / "run" / "examples.npz", x=x, seed=seed, image=np.array([1, 4, 4]), **moved)  # type: ignore[arg-type]
        named = {"variant": "MNIST", "label": "GIN", "method": "gin", "data": "mnist", "data_seed": 1, "seed": 3}
        return pd.DataFrame([{**named, "run": "run"}]), {"run": tmp_path / "run"}

    def test_pixels_move_between_minus_one_and_one(self, digits: tuple[pd.DataFrame, dict[str, Path]]) -> None:
        moved = own("moved_pixels")(*digits).set_index(["rank", "digit"])["moved"]
        assert len(moved) == 48
        assert moved[1, 0] == pytest.approx(2 * 0.25 / 16)
        assert moved[9, 0] == 0
        assert moved[24, 1] == pytest.approx(2 * 0.01 / 16)

    def test_latents_of_all_digits_are_even_and_those_of_some_are_not(
        self, digits: tuple[pd.DataFrame, dict[str, Path]]
    ) -> None:
        bands = own("global_and_local")(*digits).set_index("band")
        assert bands["evenness"].to_dict() == pytest.approx({"1 to 8": 1, "9 to 22": 0, "23 and 24": 1})
        assert bands.loc["23 and 24", "share"] == pytest.approx(0.01 / 0.125)

    def test_style_and_noise_are_those_of_the_draws(self, digits: tuple[pd.DataFrame, dict[str, Path]]) -> None:
        found = own("styles")(*digits).set_index("part")
        assert found.loc["22 leading", ["noise", "style"]].tolist() == pytest.approx([0, 1])
        assert 0 < found.loc["all latents", "noise"] < 0.1
        assert found.loc["all latents", "style"] < 1

    def test_slant_is_the_shear_of_an_image(self) -> None:
        row, column = np.indices((9, 9)) - 4
        for shear in (-0.5, 0.0, 0.5):
            image = (np.abs(column - shear * row) < 1).astype(float)
            assert own("_slant")(image[None, None]).item() == pytest.approx(shear, abs=0.05)

    def test_a_spectrum_of_two_levels_is_sharp_and_a_straight_one_is_not(self) -> None:
        assert own("sharpness")(np.exp(-np.arange(50.0))) == pytest.approx(0, abs=1e-9)
        assert own("sharpness")(np.r_[[1.0] * 2, [0.01] * 98]) > 0.9

    def test_knees_are_of_test_rows_and_of_principal_components(
        self, digits: tuple[pd.DataFrame, dict[str, Path]]
    ) -> None:
        found = own("knees")(*digits).set_index("label")
        assert found.loc["GIN", "informative"] == 3
        spectra = own("image_spectra")(*digits)
        pca = spectra[spectra["label"] == "PCA on x"]["std"]
        assert pca.tolist() == pytest.approx(np.hypot(np.arange(16)[::-1], 0.01).tolist())
        arrays = read_latents(digits[1]["run"])
        of_test_rows = np.sort(arrays["mean"][0, arrays["split"] == "test"].std(0))[::-1]
        gin = spectra[spectra["label"] == "GIN"]["std"]
        assert gin.tolist() == pytest.approx(of_test_rows.tolist())

    def test_all_pictures_are_drawn(self, digits: tuple[pd.DataFrame, dict[str, Path]]) -> None:
        tables = {"spectra": own("image_spectra")(*digits), "knees": own("knees")(*digits)}
        tables |= {"moved": own("moved_pixels")(*digits), "bands": own("global_and_local")(*digits)}
        tables |= {"styles": own("styles")(*digits)}
        for name in ("spectra_with_knees", "map_of_moves", "styles_kept"):
            assert own(name)(tables).figure.axes, name
        for name in ("traversals", "samples"):
            assert own(name)(*digits).figure.axes, name
