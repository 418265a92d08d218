"""Agreement of seeds: its invariances, its chance floor, matching of rows, and intervals over seeds; clusters."""

from __future__ import annotations

import shutil
from dataclasses import replace
from io import StringIO
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sklearn.cross_decomposition import CCA
from sklearn.metrics import normalized_mutual_info_score

from ivae_lab.core.arrays import Floats
from ivae_lab.engine.options import Compute
from ivae_lab.metrics.agreement import Agreement
from ivae_lab.metrics.clustering import Clustering, cluster_accuracy, cluster_purity, nmi
from ivae_lab.metrics.mcc import mean_correlation, weak_mean_correlation
from ivae_lab.metrics.resampling import Estimate
from ivae_lab.plots.image_examples import tiled
from ivae_lab.runs.agreement_csv import (
    COLUMNS,
    interval_over_seeds,
    pairs_of,
    pseudo_values,
    read_pairs,
    summarise_pairs,
    write_pairs,
)
from ivae_lab.runs.arrays import read_latents
from ivae_lab.runs.folder import is_finished, read_status, unfinished_reason, write_status
from ivae_lab.runs.headlines import per_seed
from ivae_lab.runs.results_csv import read_results, write_results
from ivae_lab.runs.show import show
from ivae_lab.training.group import execute
from ivae_lab.training.run import prepare
from tests.running import make_run

ROWS, N = 400, 5


def agreement(**changes: Any) -> Agreement:
    given: dict[str, Any] = {"latents": ["mean"], "coefficients": ["pearson"], "ranks": [2, None], "chance_draws": 1}
    return Agreement(**(given | {"half_seed": 0, "chance_seed": 0} | changes))


def estimate(mean: Floats, **changes: Any) -> Estimate:
    given = Estimate(mean, mean + 0.1, None, None, np.arange(len(mean)), {})
    return replace(given, **changes)


def alike(seeds: int, noise: float = 0.5) -> dict[int, Estimate]:
    """Seeds whose latents are the same numbers, each with noise of its own."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(ROWS, N))
    return {seed: estimate(shared + noise * rng.normal(size=(ROWS, N))) for seed in range(seeds)}


def values(rows: list[dict[str, Any]], column: str = "value") -> dict[tuple[Any, ...], float]:
    """Numbers of a single pair by variant."""
    found = {(row["alignment"], row["rank"], row["scored"]): row[column] for row in rows}
    assert len(found) == len(rows)
    return found


def changed(table: Floats, **changes: Any) -> dict[tuple[Any, ...], float]:
    estimates = alike(2)
    return values(agreement().pairs({0: estimates[0], 1: estimate(table, **changes)}))


class TestOnePair:
    def test_is_the_mcc_of_the_two(self) -> None:
        a, b = (each.mean for each in alike(2).values())
        expected: dict[tuple[Any, ...], float] = {("strong", None, "all"): mean_correlation(a, b)}
        for rank in (2, N):
            weak = weak_mean_correlation(a, b, "pearson", rank, half_seed=0)
            expected |= {("weak", rank, scored): value for scored, value in weak.items()}
        assert values(agreement().pairs(alike(2))) == pytest.approx(expected)

    def test_without_a_seed_the_cca_is_fitted_on_the_first_half_by_the_row_ids(self) -> None:
        (a, b), order = (each.mean for each in alike(2).values()), np.random.default_rng(1).permutation(ROWS)
        given = {0: estimate(a), 1: estimate(b[order], index=order)}
        found = values(agreement(half_seed=None, ranks=[None]).pairs(given))
        cca = CCA(N, scale=False).fit(a[: ROWS // 2], b[: ROWS // 2])
        for scored, rows in (("in", slice(ROWS // 2)), ("out", slice(ROWS // 2, None))):
            assert found["weak", N, scored] == pytest.approx(
                mean_correlation(*cca.transform(a[rows], b[rows])), abs=1e-4
            )
        assert found["weak", N, "in"] != values(agreement(ranks=[None]).pairs(given))["weak", N, "in"]

    def test_permutation_sign_and_scale_do_not_matter_to_the_strong(self) -> None:
        b = alike(2)[1].mean
        moved = changed((b * [1, -2, 3, -0.4, 5])[:, [3, 1, 4, 0, 2]] + 7)
        assert moved == pytest.approx(values(agreement().pairs(alike(2))))

    def test_a_linear_map_does_not_matter_to_the_weak_at_any_rank(self) -> None:
        b, mixing = alike(2)[1].mean, np.random.default_rng(1).normal(size=(N, N))
        before, after = values(agreement().pairs(alike(2))), changed(b @ mixing)
        weak = [variant for variant in before if variant[0] == "weak"]
        assert {v: after[v] for v in weak} == pytest.approx({v: before[v] for v in weak})
        assert after["strong", None, "all"] < before["strong", None, "all"] - 0.1

    def test_rows_are_matched_by_their_ids(self) -> None:
        b, order = alike(2)[1].mean, np.random.default_rng(1).permutation(ROWS)
        assert changed(b[order], index=order) == pytest.approx(values(agreement().pairs(alike(2))))
        assert changed(b[order])["strong", None, "all"] < 0.2

    def test_only_common_rows_are_scored(self) -> None:
        both = alike(2)
        cut = {0: both[0], 1: estimate(both[1].mean[100:], index=np.arange(100, ROWS))}
        inner = {seed: estimate(each.mean[100:]) for seed, each in both.items()}
        rows = agreement().pairs(cut)
        assert values(rows) == pytest.approx(values(agreement().pairs(inner)))
        assert {row["scored"]: row["points"] for row in rows} == {"all": 300, "in": 150, "out": 150}
        with pytest.raises(ValueError, match="expected at least 4 rows, got 3"):
            agreement().pairs({0: both[0], 1: estimate(both[1].mean[:3])})

    @pytest.mark.parametrize("coefficient", ["pearson", "spearman"])
    def test_unrelated_latents_are_at_the_chance_floor(self, coefficient: str) -> None:
        a, b = np.random.default_rng(0).normal(size=(2, 2000, N))
        rows = agreement(coefficients=[coefficient], chance_draws=30).pairs({0: estimate(a), 1: estimate(b)})
        floors = values(rows, "chance")
        assert values(rows) == pytest.approx(floors, abs=0.03)
        assert floors["weak", 2, "in"] > 2 * floors["weak", 2, "out"] > 0

    def test_related_latents_have_the_floor_of_unrelated_ones(self) -> None:
        floors = values(agreement(chance_draws=30).pairs(alike(2, noise=0.1)), "chance")
        a, b = np.random.default_rng(0).normal(size=(2, ROWS, N))
        unrelated = agreement(chance_draws=30).pairs({0: estimate(a), 1: estimate(b)})
        assert floors == pytest.approx(values(unrelated, "chance"), abs=0.02)

    def test_a_rank_above_the_latents_is_lowered_and_said_once(self) -> None:
        assert values(agreement(ranks=[20, None]).pairs(alike(2))).keys() == {
            ("strong", None, "all"),
            ("weak", N, "in"),
            ("weak", N, "out"),
        }

    def test_each_position_of_a_grid_is_compared_with_the_same(self) -> None:
        grid = {seed: replace(each, positions=2) for seed, each in alike(2).items()}
        mean = {seed: np.hstack([each.mean, -each.mean[:, ::-1]]) for seed, each in grid.items()}
        mean[1][:, N:] = np.random.default_rng(5).normal(size=(ROWS, N))
        rows = agreement().pairs({seed: replace(each, mean=mean[seed]) for seed, each in grid.items()})
        first, second = ([row for row in rows if row["position"] == place] for place in (0, 1))
        assert values(first) == values(agreement().pairs(alike(2)))
        assert values(second)["strong", None, "all"] < 0.2
        assert {row["latent_dim"] for row in rows} == {N}


class TestManySeeds:
    def test_ten_seeds_are_45_pairs(self) -> None:
        rows = agreement(ranks=[2]).pairs(alike(10))
        assert len(rows) == 45 * 3
        assert {(row["seed_a"], row["seed_b"]) for row in rows} == set(combinations(range(10), 2))

    def test_a_pair_has_the_same_numbers_whoever_is_beside_it(self) -> None:
        estimates = alike(4)
        beside = [row for row in agreement().pairs(estimates) if (row["seed_a"], row["seed_b"]) == (1, 3)]
        assert agreement().pairs({3: estimates[3], 1: estimates[1]}) == beside
        assert agreement().pairs(estimates, [(3, 1)]) == beside

    def test_one_seed_has_no_pair(self) -> None:
        assert agreement().pairs(alike(1)) == []

    def test_a_diverged_seed_keeps_its_pairs(self) -> None:
        estimates = alike(3)
        estimates[1] = estimate(np.where(np.arange(ROWS)[:, None] == 7, np.nan, estimates[1].mean))
        rows = agreement().pairs(estimates)
        assert len(rows) == 3 * 5
        for row in rows:
            lost = 1 in (row["seed_a"], row["seed_b"])
            assert np.isnan([row["value"], row["chance"]]).all() == lost
            assert row["state"] == ("diverged" if lost else "done")

    def test_rows_are_written_and_read_and_summed_up(self, tmp_path: Path) -> None:
        estimates = alike(4)
        estimates[2] = estimate(np.full((ROWS, N), np.nan))
        rows = [{**row, "data_seed": 1, "split": "test"} for row in agreement().pairs(estimates)]
        write_pairs(tmp_path / "agreement.csv", rows)
        table = read_pairs(tmp_path)
        assert tuple(table.columns) == COLUMNS
        assert table["value"].tolist() == pytest.approx([row["value"] for row in rows], nan_ok=True)
        strong = summarise_pairs(table).iloc[0]
        finite = [row["value"] for row in rows if row["alignment"] == "strong" and row["state"] == "done"]
        assert strong["mean"] == pytest.approx(np.mean(finite))
        assert (strong["seeds"], strong["pairs"], strong["diverged"]) == (4, 6, 3)
        with pytest.raises(ValueError, match="expected one row per pair and variant, got 30 more"):
            summarise_pairs(pd.concat([table, table]))
        with pytest.raises(ValueError, match=r"expected the columns seed_a, .* got .*colour"):
            write_pairs(tmp_path / "agreement.csv", [{**rows[0], "colour": "red"}])

    def test_seeds_without_a_score_of_their_own_are_known_by_their_pairs(self, tmp_path: Path) -> None:
        estimates = {**alike(3), 2: estimate(np.full((ROWS, N), np.nan))}
        rows = [{**row, "data_seed": 1, "split": "test"} for row in agreement().pairs(estimates)]
        write_pairs(tmp_path / "agreement.csv", rows)
        write_results(tmp_path / "results.csv", [])
        table = per_seed(tmp_path)
        assert table["state"].to_dict() == {0: "done", 1: "done", 2: "diverged"}
        assert table[["mcc_mean", "elbo", "chance"]].isna().all(axis=None)
        assert (table["split"] == "test").all()
        (tmp_path / "agreement.csv").unlink()
        with pytest.raises(ValueError, match="expected as many rows for each seed, got other numbers or none"):
            per_seed(tmp_path)


def pairs_with_effects(seeds: int, rng: np.random.Generator, own: float = 0.1, shared: float = 0.02) -> pd.DataFrame:
    """A value of .5 for each pair, with an effect of either seed, and one of the pair."""
    effects = own * rng.normal(size=seeds)
    pairs = list(combinations(range(seeds), 2))
    value = [0.5 + effects[a] + effects[b] + shared * rng.normal() for a, b in pairs]
    return pd.DataFrame(pairs, columns=["seed_a", "seed_b"]).assign(value=value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of three seeds of images, trained for three steps."""
    return trained_folder(tmp_path_factory.mktemp("outputs"), "[0,1,2]")


def trained_folder(outputs: Path, seeds: str) -> Path:
    prepare(Compute("cpu", 1, False, 0))
    small = ("trainer.epochs=null", "trainer.steps=3", "model.latent_dim=4", "prior.components=3")
    rows = ("data.train_rows=80", "data.test_rows=40")
    run = make_run("data=digits", "model=vade_images", *small, *rows, f"seed={seeds}", f"outputs={outputs}")
    assert execute([run], Console(quiet=True)) == ["done"]
    return run.settings.folder


class TestRunFolder:
    @pytest.mark.slow
    def test_has_the_pairs_of_its_seeds(self, whole: Path) -> None:
        rows = read_pairs(whole)
        assert rows[["seed_a", "seed_b"]].drop_duplicates().to_numpy().tolist() == [[0, 1], [0, 2], [1, 2]]
        assert (rows["split"] == "test").all()
        assert (rows["data_seed"] == 1).all()
        assert rows["value"].between(0, 1).all()
        latents = read_latents(whole)
        first = rows[(rows["seed_a"] == 0) & (rows["seed_b"] == 2) & (rows["alignment"] == "strong")]
        assert first["value"].item() == pytest.approx(mean_correlation(latents["mean"][0], latents["mean"][2]))

    def test_says_its_agreement_and_has_clusters_and_pictures(self, whole: Path) -> None:
        said = StringIO()
        show(whole, Console(file=said, width=120))
        assert "MCC of 3 pairs of 3 seeds" in said.getvalue()
        assert "agreement.csv" in said.getvalue()
        assert set(read_results(whole)["metric"]) >= {"cluster_accuracy", "cluster_purity", "nmi", "elbo"}
        assert (whole / "examples.png").stat().st_size > 0

    @pytest.mark.slow
    def test_one_seed_has_no_file_and_a_lost_or_edited_one_is_missed(self, whole: Path, tmp_path: Path) -> None:
        alone = trained_folder(tmp_path, "0")
        assert not (alone / "agreement.csv").exists()
        assert is_finished(alone)
        copy = Path(shutil.copytree(whole, tmp_path / "copy"))
        text = (copy / "agreement.csv").read_text()
        (copy / "agreement.csv").write_text(text.replace("done", "diverged", 1))
        with pytest.raises(ValueError, match=r"expected agreement.csv as the run wrote it, got another checksum"):
            read_pairs(copy)
        (copy / "agreement.csv").unlink()
        assert unfinished_reason(copy) == "expected agreement.csv, got none"

    @pytest.mark.slow
    def test_pairs_across_folders_are_those_of_one(self, whole: Path, tmp_path: Path) -> None:
        one, two = trained_folder(tmp_path, "1"), trained_folder(tmp_path, "[2,0]")
        across = pairs_of({0: two, 1: one, 2: two})
        expected = read_pairs(whole)
        assert across.dtypes.to_dict() == expected.dtypes.to_dict()
        numbers = ["value", "chance"]
        pd.testing.assert_frame_equal(across.drop(columns=numbers), expected.drop(columns=numbers))
        assert across[numbers].to_numpy() == pytest.approx(expected[numbers].to_numpy(), abs=1e-3)
        kept = across[(across["seed_a"] == 0) & (across["seed_b"] == 2)]
        pd.testing.assert_frame_equal(kept.reset_index(drop=True), read_pairs(two))

    def test_pairs_of_a_seed_that_diverged_elsewhere_say_so(self, whole: Path, tmp_path: Path) -> None:
        copy = Path(shutil.copytree(whole, tmp_path / "copy"))
        write_status(copy, {**read_status(copy), "state": "diverged", "diverged": {"1": 2}})
        across = pairs_of({0: whole, 1: copy})
        assert set(across["state"]) == {"diverged"}
        with pytest.raises(ValueError, match=r"expected latents of seed 7, got those of \[0, 1, 2\]"):
            pairs_of({0: whole, 7: copy})

    def test_one_seed_is_no_pair(self, whole: Path) -> None:
        assert pairs_of({0: whole}).empty


class TestGallery:
    def test_images_lie_side_by_side_with_their_channels_last(self) -> None:
        images = np.random.default_rng(0).random((2, 3, 3 * 4 * 5))
        whole = tiled(images, (3, 4, 5))
        assert whole.shape == (2 * 4 + 1, 3 * 5 + 2, 3)
        assert np.array_equal(whole[5:, 12:], images[1, 2].reshape(3, 4, 5).transpose(1, 2, 0))
        assert (whole[4] == 1).all()
        assert tiled(images, (1, 6, 10)).shape == (13, 32)


class TestInterval:
    def test_covers_the_truth_where_an_interval_over_pairs_does_not(self) -> None:
        from ivae_lab.runs.summaries import interval

        rng = np.random.default_rng(0)
        draws = [pairs_with_effects(10, rng) for _ in range(150)]
        covered = {
            name: np.mean([low <= 0.5 <= high for low, high in found])
            for name, found in {
                "seeds": [interval_over_seeds(pairs, draws=500) for pairs in draws],
                "pairs": [interval(pairs["value"], draws=500) for pairs in draws],
            }.items()
        }
        assert covered["seeds"] > 0.85
        assert covered["pairs"] < 0.7

    def test_is_what_a_loop_over_resampled_seeds_gives(self) -> None:
        pairs = pairs_with_effects(8, np.random.default_rng(1))
        by_pair = {frozenset(pair): value for *pair, value in pairs.itertuples(index=False, name=None)}
        rng, means = np.random.default_rng(2), []
        for _ in range(20_000):
            drawn = rng.integers(8, size=8)
            found = [by_pair[frozenset((a, b))] for a, b in combinations(drawn.tolist(), 2) if a != b]
            means += [np.mean(found)] if found else []
        assert interval_over_seeds(pairs, draws=20_000) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.004)

    def test_is_the_same_each_time_in_any_order_and_around_the_mean(self) -> None:
        pairs = pairs_with_effects(6, np.random.default_rng(1))
        low, high = interval_over_seeds(pairs)
        assert (low, high) == pytest.approx(interval_over_seeds(pairs.iloc[::-1]))
        assert low < pairs["value"].mean() < high
        assert interval_over_seeds(pairs.assign(value=0.25)) == pytest.approx((0.25, 0.25))

    def test_diverged_seeds_are_left_out(self) -> None:
        pairs = pairs_with_effects(6, np.random.default_rng(1))
        lost = (pairs[["seed_a", "seed_b"]] == 2).any(axis=1)
        assert interval_over_seeds(pairs.assign(value=pairs["value"].mask(lost))) == interval_over_seeds(pairs[~lost])

    def test_two_seeds_have_none(self) -> None:
        assert np.isnan(interval_over_seeds(pairs_with_effects(2, np.random.default_rng(0)))).all()


CLUSTERS, LABELS = np.array([0, 0, 0, 4, 4, 9, 9, 9]), np.array([2, 2, 1, 1, 1, 1, 1, 2])


class TestClustering:
    def test_by_hand(self) -> None:
        assert cluster_accuracy(CLUSTERS, LABELS) == 4 / 8  # 0 is 2, 4 or 9 is 1, and no label is left for the third
        assert cluster_purity(CLUSTERS, LABELS) == 6 / 8
        assert nmi(CLUSTERS, LABELS) == pytest.approx(normalized_mutual_info_score(LABELS, CLUSTERS))

    def test_accuracy_is_the_best_of_all_matchings(self) -> None:
        clusters, labels = np.random.default_rng(0).integers(4, size=(2, 60))
        shares = [np.mean(np.array(names)[clusters] == labels) for names in permutations(range(4))]
        assert cluster_accuracy(clusters, labels) == max(shares) > min(shares)

    def test_names_of_clusters_do_not_matter(self) -> None:
        labels = np.arange(30) % 3
        for score in (cluster_accuracy, cluster_purity, nmi):
            assert score((labels + 1) % 3 * 7, labels) == pytest.approx(1)

    def test_rows_have_a_chance_floor(self) -> None:
        rng = np.random.default_rng(0)
        labels, clusters = np.arange(1000) % 10, rng.integers(40, size=1000)
        found = Clustering(10, 0)(estimate(np.zeros((1000, 2)), u=labels, clusters=clusters))
        assert [row["metric"] for row in found] == ["cluster_accuracy", "cluster_purity", "nmi"]
        for row in found:
            assert row["value"] == pytest.approx(row["chance"], abs=0.02)
            assert row["chance"] > 0.02

    def test_the_floor_of_perfect_clusters_is_that_of_unrelated_ones(self) -> None:
        labels = np.arange(1000) % 10
        clusters = {"perfect": labels, "unrelated": np.random.default_rng(1).permutation(labels)}
        perfect, unrelated = (
            Clustering(10, 0)(estimate(np.zeros((1000, 2)), u=labels, clusters=own)) for own in clusters.values()
        )
        assert [row["value"] for row in perfect] == pytest.approx([1, 1, 1])
        assert [row["chance"] for row in perfect] == pytest.approx([row["chance"] for row in unrelated], abs=0.02)

    def test_a_model_without_clusters_or_data_without_u_have_no_rows_and_a_diverged_seed_keeps_its(self) -> None:
        table = np.zeros((8, 2))
        assert Clustering(1, 0)(estimate(table, u=LABELS)) == []
        assert Clustering(1, 0)(estimate(table, clusters=CLUSTERS)) == []
        found = Clustering(1, 0)(estimate(table + np.nan, u=LABELS, clusters=CLUSTERS))
        assert [(np.isnan(row["value"]), row["state"]) for row in found] == [(True, "diverged")] * 3


class TestPseudoValues:
    def test_their_mean_is_the_mean_over_pairs(self) -> None:
        pairs = pairs_with_effects(7, np.random.default_rng(1))
        values = pseudo_values(pairs)
        assert list(values.index) == list(range(7))
        assert values.mean() == pytest.approx(pairs["value"].mean())

    @pytest.mark.slow
    def test_plain_intervals_over_them_cover_the_truth(self) -> None:
        from ivae_lab.runs.summaries import interval

        rng = np.random.default_rng(0)
        found = [interval(pseudo_values(pairs_with_effects(10, rng)), draws=300) for _ in range(80)]
        assert np.mean([low <= 0.5 <= high for low, high in found]) > 0.85

    def test_places_of_a_grid_are_averaged_first(self) -> None:
        pairs = pairs_with_effects(5, np.random.default_rng(1))
        grid = pd.concat(
            [pairs.assign(value=pairs["value"] + shift, position=n) for n, shift in enumerate((-0.2, 0.2))]
        )
        assert pseudo_values(grid).to_numpy() == pytest.approx(pseudo_values(pairs).to_numpy())

    def test_a_diverged_seed_has_none_and_leaves_the_others_as_they_are(self) -> None:
        pairs = pairs_with_effects(6, np.random.default_rng(1))
        lost = (pairs[["seed_a", "seed_b"]] == 2).any(axis=1)
        values = pseudo_values(pairs.assign(value=pairs["value"].mask(lost)))
        assert np.isnan(values[2])
        assert values.drop(2).to_numpy() == pytest.approx(pseudo_values(pairs[~lost]).to_numpy())

    def test_a_single_pair_is_one_number(self) -> None:
        pairs = pairs_with_effects(2, np.random.default_rng(1))
        assert pseudo_values(pairs).dropna().tolist() == pairs["value"].tolist()
