"""The numbers behind the figures of Khemakhem et al. (2020): Amari's index, the matrix A, alignment, rotations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from ivae_lab.plots.aligned_sources import align
from ivae_lab.plots.methods import PALETTE
from ivae_lab.plots.style import STYLE
from ivae_lab.reproduction.definition import function
from ivae_lab.runs.agreement_csv import COLUMNS as PAIR_COLUMNS
from ivae_lab.runs.agreement_csv import FILE as PAIRS
from ivae_lab.runs.agreement_csv import write_pairs
from ivae_lab.runs.folder import write_status
from ivae_lab.runs.results_csv import COLUMNS, write_results

Array = NDArray[np.float64]
SEEDS = st.integers(0, 2**32 - 1)


def own(name: str) -> Callable[..., Any]:
    return function("khemakhem2020", name)


def scaled_permutation(rng: np.random.Generator, n: int) -> Array:
    matrix = np.eye(n)[rng.permutation(n)] * rng.uniform(0.1, 10, n) * rng.choice([-1, 1], n)
    return np.asarray(matrix, np.float64)


def sources_of(rng: np.random.Generator, n: int, rows: int = 2000) -> Array:
    """Independent sources with variances that change along the rows, and means that are not 0."""
    scale = np.repeat(rng.uniform(0.5, 3, (20, n)), rows // 20, axis=0)
    return np.asarray(scale * rng.standard_normal((rows, n)) + rng.uniform(-2, 2, n), np.float64)


class TestAmari:
    @given(SEEDS, st.integers(2, 8))
    def test_is_0_for_a_scaled_permutation(self, seed: int, n: int) -> None:
        assert own("amari")(scaled_permutation(np.random.default_rng(seed), n)) == pytest.approx(0, abs=1e-12)

    @given(st.integers(2, 8), st.floats(1e-3, 1e3), SEEDS)
    def test_is_1_for_equal_entries_of_any_sign(self, n: int, value: float, seed: int) -> None:
        signs = np.random.default_rng(seed).choice([-1, 1], (n, n))
        assert own("amari")(value * signs) == pytest.approx(1)

    @given(SEEDS, st.integers(2, 6), st.floats(0.01, 100))
    def test_is_the_same_after_permuting_and_for_any_scale_of_the_whole(self, seed: int, n: int, scale: float) -> None:
        rng = np.random.default_rng(seed)
        matrix = rng.standard_normal((n, n))
        index = own("amari")(matrix)
        assert 0 < index <= 1
        assert own("amari")(scale * matrix) == pytest.approx(index)
        assert own("amari")(-matrix[rng.permutation(n)][:, rng.permutation(n)]) == pytest.approx(index)
        assert own("amari")(matrix.T) == pytest.approx(index)

    def test_of_two_by_two_by_hand(self) -> None:
        # Rows: (1 + .5) - 1 and (1 + .25) - 1; columns: (1 + .25) - 1 and (1 + .5) - 1; together 1.5 of at most 4.
        assert own("amari")(np.array([[2.0, 1.0], [-0.5, 2.0]])) == pytest.approx(1.5 / 4)

    def test_grows_as_a_permutation_is_mixed(self) -> None:
        indices = [own("amari")(np.eye(4) + share * (1 - np.eye(4))) for share in (0, 0.1, 0.3, 1)]
        assert indices == sorted(indices)
        assert indices == pytest.approx([0, 0.1, 0.3, 1])


class TestBlockNorms:
    def test_of_single_entries_are_their_sizes(self) -> None:
        matrix = np.random.default_rng(0).standard_normal((3, 3))
        np.testing.assert_allclose(own("block_norms")(matrix, 1), np.abs(matrix))

    @given(SEEDS, st.integers(1, 4), st.integers(1, 3))
    def test_are_frobenius_norms_of_each_block(self, seed: int, n: int, order: int) -> None:
        matrix = np.random.default_rng(seed).standard_normal((n * order, n * order))
        norms = own("block_norms")(matrix, order)
        assert norms.shape == (n, n)
        for i, j in np.ndindex(n, n):
            block = matrix[i * order : (i + 1) * order, j * order : (j + 1) * order]
            assert norms[i, j] == pytest.approx(np.linalg.norm(block))


class TestStatistics:
    def test_pairs_of_each_dimension_stand_together(self) -> None:
        z = np.random.default_rng(0).standard_normal((50, 2))
        first, second = own("statistics")(z, 1), own("statistics")(z, 2)
        assert (first.shape, second.shape) == ((50, 2), (50, 4))
        np.testing.assert_allclose(second[:, [1, 3]], first)
        np.testing.assert_allclose(second[:, [0, 2]], (z - z.mean(0)) / z.std(0))
        np.testing.assert_allclose(second.std(0), 1)

    def test_a_collapsed_latent_stays_finite(self) -> None:
        assert np.isfinite(own("statistics")(np.zeros((10, 2)), 2)).all()


class TestAffineMap:
    @given(SEEDS, st.integers(2, 5))
    def test_is_the_identity_for_permuted_and_scaled_sources_with_one_statistic(self, seed: int, n: int) -> None:
        rng = np.random.default_rng(seed)
        sources = sources_of(rng, n)
        matrix, explained = own("affine_map")(sources @ scaled_permutation(rng, n), sources, 1)
        np.testing.assert_allclose(matrix, np.eye(n), atol=1e-8)
        assert explained == pytest.approx(1)
        assert own("amari")(matrix) == pytest.approx(0, abs=1e-6)

    @given(SEEDS, st.integers(2, 5))
    def test_is_the_identity_up_to_signs_with_two_statistics(self, seed: int, n: int) -> None:
        rng = np.random.default_rng(seed)
        sources = sources_of(rng, n)
        matrix, explained = own("affine_map")(sources @ scaled_permutation(rng, n), sources, 2)
        np.testing.assert_allclose(np.abs(matrix), np.eye(2 * n), atol=1e-8)
        assert (np.diag(matrix)[1::2] > 0).all()  # a square has no sign
        assert explained == pytest.approx(1)
        assert own("amari")(own("block_norms")(matrix, 2)) == pytest.approx(0, abs=1e-6)

    def test_latents_that_are_moved_too_are_told_by_two_statistics_and_not_by_one(self) -> None:
        rng = np.random.default_rng(1)
        sources = sources_of(rng, 3)
        moved = 2 * sources[:, [2, 0, 1]] + 5
        two, explained = own("affine_map")(moved, sources, 2)
        assert explained == pytest.approx(1)
        assert own("amari")(own("block_norms")(two, 2)) == pytest.approx(0, abs=1e-6)
        assert own("affine_map")(moved, sources, 1)[1] < 0.9

    def test_recovers_a_known_matrix_between_statistics(self) -> None:
        """Sources whose squares are a known positive combination of the latents' squares."""
        rng = np.random.default_rng(2)
        latents = rng.standard_normal((5000, 2))
        a = np.array([[1.0, 0.2], [0.1, 0.8]])
        signs = np.sign(latents)
        sources = signs * np.sqrt(latents**2 @ a.T)
        matrix, explained = own("affine_map")(latents, sources, 1)
        deviation, deviations = (sources**2).std(0), (latents**2).std(0)
        np.testing.assert_allclose(matrix, a * deviations / deviation[:, None], atol=1e-8)
        assert explained == pytest.approx(1)

    def test_latents_that_know_nothing_explain_nothing(self) -> None:
        rng = np.random.default_rng(3)
        matrix, explained = own("affine_map")(rng.standard_normal((4000, 3)), rng.standard_normal((4000, 3)), 2)
        assert 0 <= explained < 0.02
        assert own("amari")(own("block_norms")(matrix, 2)) > 0.2


class TestAlign:
    @given(SEEDS, st.integers(2, 6))
    def test_restores_order_sign_scale_and_mean(self, seed: int, n: int) -> None:
        rng = np.random.default_rng(seed)
        sources = sources_of(rng, n, rows=400)
        latents = sources @ scaled_permutation(rng, n) + rng.uniform(-9, 9, n)
        aligned, correlations = align(latents, sources)
        np.testing.assert_allclose(aligned, sources, atol=1e-8)
        np.testing.assert_allclose(np.abs(correlations), 1)

    def test_other_points_go_through_the_same_map(self) -> None:
        rng = np.random.default_rng(0)
        sources = sources_of(rng, 3)
        shuffled = -2 * sources[:, [1, 2, 0]] + 1
        others = np.stack([shuffled[:5], shuffled[5:10]])
        aligned, _ = align(shuffled, sources, others)
        np.testing.assert_allclose(aligned, np.stack([sources[:5], sources[5:10]]), atol=1e-8)

    def test_noise_does_not_grow_the_scale_beyond_the_sources(self) -> None:
        rng = np.random.default_rng(0)
        sources = sources_of(rng, 2)
        aligned, correlations = align(-sources + rng.standard_normal(sources.shape), sources)
        np.testing.assert_allclose(aligned.std(0), sources.std(0))
        assert (correlations < 0).all()
        assert all(np.corrcoef(aligned[:, k], sources[:, k])[0, 1] > 0.5 for k in range(2))

    def test_a_latent_that_does_not_move_stays_finite(self) -> None:
        sources = sources_of(np.random.default_rng(0), 2)
        aligned, _ = align(np.column_stack([sources[:, 0], np.zeros(len(sources))]), sources)
        assert np.isfinite(aligned).all()


def run_of(folder: Path, z: Array, u: NDArray[np.int64], sources: Array) -> None:
    """A run folder with posterior samples (1, N, 2) of one seed."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "latents.npz",
        seed=np.array([3]),
        mean=z[None],
        sample=z[None],
        u=u,
        sources=sources,
        index=np.arange(len(z)),
        split=np.full(len(z), "train"),
    )


def row_of(method: str) -> dict[str, Any]:
    return {"variant": "ours", "label": method, "method": method, "data_seed": 1, "seed": 3, "run": "run"}


class TestRotations:
    def turned(self, folder: Path, method: str, z: Array, u: NDArray[np.int64]) -> pd.DataFrame:
        run_of(folder, z, u, z)
        table: pd.DataFrame = own("rotations")(pd.DataFrame([row_of(method)]), {"run": folder})
        return table

    def segments(self) -> tuple[Array, NDArray[np.int64]]:
        rng = np.random.default_rng(0)
        u = np.repeat(np.arange(10), 200)
        return rng.standard_normal((2000, 2)) * rng.uniform(0.2, 3, (10, 2))[u], u

    def test_cost_a_factorial_gaussian_nothing_at_any_angle(self, tmp_path: Path) -> None:
        z, u = self.segments()
        table = self.turned(tmp_path, "vae", z, u)
        assert table["angle"].tolist() == list(range(0, 91, 5))
        assert table["change"].abs().max() < 1e-9

    def test_cost_likelihood_where_variances_change_with_u(self, tmp_path: Path) -> None:
        z, u = self.segments()
        change = self.turned(tmp_path, "ivae", z, u).set_index("angle")["change"]
        assert change[45] < -0.1
        assert change[[0, 90]].abs().max() < 1e-9  # a permutation
        assert (change[list(range(5, 90, 5))] < 0).all()

    def test_change_the_latents_as_the_cosine_of_the_angle(self, tmp_path: Path) -> None:
        z = np.random.default_rng(0).standard_normal((40_000, 2))
        table = self.turned(tmp_path, "vae", z, np.zeros(len(z), np.int64)).set_index("angle")
        angles = np.deg2rad(np.asarray(table.index, float))
        np.testing.assert_allclose(table["same"], np.maximum(np.cos(angles), np.sin(angles)), atol=0.02)
        np.testing.assert_allclose(table["mcc"], table["same"])

    def test_losses_are_those_at_45_degrees(self, tmp_path: Path) -> None:
        z, u = self.segments()
        table = self.turned(tmp_path, "ivae", z, u)
        losses = own("rotation_losses")(pd.DataFrame([row_of("ivae")]), {"run": tmp_path})
        assert len(losses) == 1
        assert losses["loss"].item() == -table.set_index("angle")["change"][45]
        assert losses["same"].item() == table.set_index("angle")["same"][45]
        assert not {"change", "angle"} & set(losses)

    def test_log_prior_is_the_density_of_the_best_gaussians(self) -> None:
        from scipy.stats import norm

        z, u = self.segments()
        best = np.sqrt(np.stack([(z[u == segment] ** 2).mean(0) for segment in range(10)]))
        assert own("_log_prior")(z, None) == pytest.approx(norm.logpdf(z).sum(1).mean())
        assert own("_log_prior")(z, u) == pytest.approx(norm.logpdf(z, scale=best[u]).sum(1).mean())
        assert own("_log_prior")(z, u) > own("_log_prior")(z, None)


class TestTablesOfRuns:
    def test_distances_are_zero_where_the_sources_are_recovered(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        sources = sources_of(rng, 2)
        run_of(tmp_path / "good", -3 * sources[:, ::-1], np.zeros(2000, np.int64), sources)
        run_of(tmp_path / "bad", sources @ np.array([[1.0, 1.0], [-1.0, 1.0]]), np.zeros(2000, np.int64), sources)
        rows = pd.DataFrame(
            [
                {**row_of("ivae"), "variant": f"k = {order}", "run": run, "data.source_dim": 2, "mcc_mean": 0.9}
                for order in (1, 2)
                for run in ("good", "bad")
            ]
        )
        paths = {run: tmp_path / run for run in ("good", "bad")}
        distances = own("permutation_distances")(rows, paths).assign(run=rows["run"])
        good, bad = (distances[distances["run"] == run] for run in ("good", "bad"))
        assert good["amari"].max() < 1e-6
        assert good["explained"].min() > 1 - 1e-9
        assert bad["amari"].min() > 0.3
        entries = own("affine_maps")(rows, paths)
        assert entries.groupby("variant").size().to_dict() == {"k = 1": 4, "k = 2": 16}
        diagonal = entries[entries["row"] == entries["column"]]
        np.testing.assert_allclose(diagonal["value"].abs(), 1, atol=1e-8)

    def test_a_stretch_of_signals_is_contiguous_and_of_the_first_seed(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        sources = sources_of(rng, 2)
        run_of(tmp_path, -2 * sources[:, ::-1] + 1, np.zeros(2000, np.int64), sources)
        table = own("signals")(pd.DataFrame([row_of("ivae")]), {"run": tmp_path})
        np.testing.assert_allclose(table["recovered"], table["true"], atol=1e-8)
        for source, part in table.groupby("source"):
            times = part["time"].to_numpy()
            assert (np.diff(times) == 1).all()
            np.testing.assert_array_equal(part["true"], sources[times, int(str(source)) - 1])
        assert (table["correlation"] > 1 - 1e-9).all()

    def test_the_true_signal_is_dashed_and_dark_and_the_legend_is_on_no_panel(self) -> None:
        stretch = pd.DataFrame({"time": range(9), "true": range(9), "recovered": 1.0, "correlation": 0.5})
        named = [{"variant": "paper", "label": name, "method": name.lower()} for name in ("iVAE", "VAE")]
        table = pd.concat([stretch.assign(source=source, **each) for each in named for source in (1, 2)])
        with rc_context(STYLE):
            figure = own("stretch_of_signals")({"signals": table}).figure
            figure.draw_without_rendering()
        for axis, method in zip(figure.axes, ["ivae", "vae"] * 2, strict=True):
            recovered, true = axis.get_lines()
            assert (true.get_linestyle(), recovered.get_color()) == ("--", PALETTE[method])
            assert max(to_rgb(true.get_color())) < 0.1
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == ["recovered, iVAE", "recovered, VAE", "true"]
        assert not any(legend.get_window_extent().overlaps(axis.get_tightbbox()) for axis in figure.axes)

    def test_many_models_have_a_block_per_variant(self) -> None:
        stretch = pd.DataFrame({"time": range(9), "true": range(9), "recovered": 1.0, "correlation": 0.5, "source": 1})
        named = [("paper", name) for name in "abcd"] + [("ours", name) for name in "abc"]
        parts = [stretch.assign(variant=variant, label=label, method="vae") for variant, label in named]
        figure = own("stretch_of_signals")({"signals": pd.concat(parts)}).figure
        blocks = [[axis.texts[0].get_text() for axis in part.axes] for part in figure.subfigs]
        assert blocks == [
            [f"{label}\n({variant})" for label in labels] for variant, labels in (("paper", "abcd"), ("ours", "abc"))
        ]


@pytest.mark.parametrize(("variant", "order"), [("k = 1", 1), ("k = 2", 2), ("k = 2, means within 1", 2)])
def test_k_is_read_where_a_variant_begins(variant: str, order: int) -> None:
    assert own("_order")(variant) == order


class TestRecipe:
    @staticmethod
    def rows() -> pd.DataFrame:
        """Two data seeds of two variants; `better` gains 1 nat and .1, `standardised` has no counterpart."""
        fixed = {"method": "ivae", "seed": 0}
        values = {"as it is": (-4.0, 0.8), "better": (-3.0, 0.9)}
        rows = [
            {**fixed, "variant": variant, "label": label, "data_seed": at, "elbo": elbo - at, "mcc_mean": mcc - at / 10}
            for variant in ("ours, a", "ours, b")
            for label, (elbo, mcc) in values.items()
            for at in (1, 2)
        ]
        alone = {**fixed, "variant": "c", "label": "standardised", "data_seed": 1, "elbo": 0.0, "mcc_mean": 0.5}
        return pd.DataFrame([*rows, alone])

    def test_gains_are_over_the_same_data_set_and_variant(self) -> None:
        gains = own("gains")(self.rows(), {})
        assert gains["label"].tolist() == ["better"] * 4
        np.testing.assert_allclose(gains[["elbo", "mcc_mean"]], [[1, 0.1]] * 4)

    def test_the_picture_has_a_panel_per_variant_and_means_in_words(self) -> None:
        picture = own("mcc_against_elbo")({"gains": own("gains")(self.rows(), {})})
        assert [axis.get_title() for axis in picture.figure.axes] == ["ours, a", "ours, b"]
        assert "ours, b, better: ELBO +1.00, MCC +0.10" in picture.alt


def test_a_curve_is_the_mean_over_the_seeds_of_a_label_between_the_least_and_the_largest(tmp_path: Path) -> None:
    scores = {("a", 0): [0.1, 0.5], ("a", 1): [0.2, 0.9], ("b", 0): [0.6, 1.0]}
    paths = {run: tmp_path / run for run in "ab"}
    for run, path in paths.items():
        path.mkdir()
        found = {seed: values for (of, seed), values in scores.items() if of == run}
        history = [{"step": 10 * n, "seed": s, "mcc": found[s][n], "elbo": 0.0} for n in range(2) for s in found]
        pd.DataFrame(history).to_csv(path / "history.csv", index=False)
    cells = [{"variant": "v", "label": "iVAE", "method": "ivae", "run": run, "seed": seed} for run, seed in scores]
    curve = own("training_curves")(pd.DataFrame(cells), paths)
    assert curve["step"].tolist() == [0, 10]
    assert curve["seeds"].tolist() == [3, 3]
    np.testing.assert_allclose(curve[["mean", "least", "largest"]], [[0.3, 0.1, 0.6], [0.8, 0.5, 1.0]])


def test_hours_are_of_all_runs_and_seconds_of_one(tmp_path: Path) -> None:
    """A folder of two seeds took two hours, and one of a single seed one."""
    for run, seeds, seconds in (("a", [0, 1], 7200.0), ("b", [2], 3600.0)):
        (tmp_path / run).mkdir()
        write_status(tmp_path / run, {"state": "done", "seconds": seconds, "seeds": seeds})
    cell = {"variant": "v", "label": "VaDE", "method": "vade"}
    rows = pd.DataFrame([{**cell, "run": run, "seed": seed} for run, seed in (("a", 0), ("a", 1), ("b", 2))])
    (found,) = function("willetts2021", "hours")(rows, {run: tmp_path / run for run in "ab"}).to_dict("records")
    assert (found["runs"], found["hours"], found["seconds_a_run"]) == (3, 3.0, 3600.0)


def test_hours_and_seconds_of_a_run_stand_beside_the_papers() -> None:
    hours = {"variant": "paper", "label": "VaDE", "method": "vade", "hours": 0.5, "seconds_a_run": 36.0}
    picture = function("willetts2021", "hours_by_model")({"hours": pd.DataFrame([hours])})
    assert "VaDE, paper 0.50 h, 36 s a run; the paper says 6 h, 432 s a run" in picture.alt
    (axis,) = picture.figure.axes
    assert [text.get_text().strip() for text in axis.texts] == ["0.50 h, 36 s a run", "the paper's 6 h, 432 s a run"]


class TestClustering:
    """The table of clusters of Willetts and Paige's images, of run folders made by hand."""

    @staticmethod
    def made(folder: Path, clusters: bool, values: dict[int, float]) -> Path:
        folder.mkdir()
        names = ("cluster_accuracy", "cluster_purity", "nmi", "elbo") if clusters else ("elbo",)
        numbers = [(seed, place, name) for seed in values for place, name in enumerate(names)]
        rows = [
            {**dict.fromkeys(COLUMNS), "seed": seed, "split": split, "metric": name, "state": "done"}
            | {"value": values[seed] + place + (10 if split == "train" else 0), "chance": 0.1 * (place + 1)}
            for seed, place, name in numbers
            for split in ("train", "test")
        ]
        write_results(folder / "results.csv", rows)
        return folder

    @staticmethod
    def rows(run: str, label: str, seeds: list[int], variant: str = "clean") -> pd.DataFrame:
        cell = {"variant": variant, "label": label, "method": label.lower(), "data": "mnist", "data_seed": 1}
        return pd.DataFrame([{**cell, "model.latent_dim": 50, "seed": seed, "run": run} for seed in seeds])

    def test_is_of_each_seed_on_test_rows(self, tmp_path: Path) -> None:
        paths = {
            "a": self.made(tmp_path / "a", True, {0: 0.25, 1: 0.5}),
            "b": self.made(tmp_path / "b", True, {0: 0.75, 1: float("nan"), 2: 0.125}),
            "c": self.made(tmp_path / "c", False, {0: 0.5}),
        }
        parts = [self.rows("b", "VaDE", [2, 1]), self.rows("c", "iVAE", [0]), self.rows("a", "VaDE", [0], "released")]
        table = function("willetts2021", "clustering")(pd.concat(parts), paths)
        assert table[["variant", "label", "data", "data_seed", "model.latent_dim", "seed"]].values.tolist() == [
            ["clean", "VaDE", "mnist", 1, 50, 2],
            ["clean", "VaDE", "mnist", 1, 50, 1],
            ["released", "VaDE", "mnist", 1, 50, 0],
        ]
        expected = [[0.125, 1.125, 2.125, 0.1, 0.3], [*[np.nan] * 3, 0.1, 0.3], [0.25, 1.25, 2.25, 0.1, 0.3]]
        columns = ["accuracy", "purity", "nmi", "chance", "nmi_chance"]
        np.testing.assert_allclose(table[columns].to_numpy(float), expected)

    def test_no_clusters_no_rows(self, tmp_path: Path) -> None:
        paths = {"c": self.made(tmp_path / "c", False, {0: 0.5})}
        table = function("willetts2021", "clustering")(self.rows("c", "iVAE", [0]), paths)
        assert table.empty
        assert {"variant", "seed", "accuracy", "purity", "nmi", "chance", "nmi_chance"} <= set(table)


class TestAgreement:
    """The tables of agreement of Willetts and Paige's images, of run folders made by hand."""

    @staticmethod
    def made(folder: Path, n: int, seeds: int = 3) -> tuple[pd.DataFrame, dict[str, Path]]:
        """The file has what `metric=agreement` with ranks 20 and full writes of n latents: value is rank / 100."""
        folder.mkdir()
        shared = {"data_seed": 1, "split": "test", "latents": "mean", "latent_dim": n, "state": "done", "chance": 0.0}
        ranks = [("all", None, 0.01), *((part, k, k / 100) for k in sorted({min(20, n), n}) for part in ("in", "out"))]
        rows = [
            {**dict.fromkeys(PAIR_COLUMNS), **shared, "seed_a": a, "seed_b": b}
            | {"scored": scored, "rank": rank, "value": value}
            for a in range(seeds)
            for b in range(a + 1, seeds)
            for scored, rank, value in ranks
        ]
        write_pairs(folder / PAIRS, rows)
        return TestClustering.rows("a", "VaDE", [*range(seeds)]).assign(**{"model.latent_dim": n}), {"a": folder}

    @pytest.mark.parametrize(("n", "full", "of_20"), [(50, 0.5, 0.2), (21, 0.21, 0.2), (20, 0.2, 0.2), (10, 0.1, 0.1)])
    def test_up_to_20_latents_have_both_ranks_in_one(self, tmp_path: Path, n: int, full: float, of_20: float) -> None:
        rows, paths = self.made(tmp_path / "a", n)
        pairs = function("willetts2021", "agreement_pairs")(rows, paths)
        found = {score: part["value"].tolist() for score, part in pairs.groupby("score", sort=False)}
        both = {"mcc_in": full, "mcc_out": full, "mcc_in_20": of_20, "mcc_out_20": of_20}
        assert found == {"mcc_strong": [0.01] * 3, **{score: [value] * 3 for score, value in both.items()}}
        seeds = function("willetts2021", "agreement_by_seed")(rows, paths)
        assert seeds[[*both]].to_numpy(float).tolist() == [pytest.approx([*both.values()])] * 3

    def test_one_seed_has_no_pairs(self, tmp_path: Path) -> None:
        rows, paths = self.made(tmp_path / "a", 50, seeds=1)
        assert function("willetts2021", "agreement_pairs")(rows, paths).empty
