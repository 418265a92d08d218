"""Metrics: against independent implementations, their invariances, their chance floors, and their edges."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import yaml
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.cross_decomposition import CCA

from ivae_lab.core.exponential_family import ExponentialFamily
from ivae_lab.core.mixture_generator import Generator, ReluNetwork
from ivae_lab.metrics.elbo import ELBOTerms
from ivae_lab.metrics.linear_r2 import LinearR2, chance_r2, linear_r2
from ivae_lab.metrics.mcc import (
    MCC,
    Coefficient,
    canonical_weights,
    chance_correlation,
    match,
    mean_correlation,
    weak_chance_correlation,
    weak_mean_correlation,
)
from ivae_lab.metrics.resampling import CheckingMetric, Estimate, PairMetric, halves, shuffles
from ivae_lab.runs.agreement_csv import COLUMNS as PAIR_COLUMNS
from ivae_lab.runs.results_csv import COLUMNS

Array = NDArray[np.float64]
COEFFICIENTS: tuple[Coefficient, ...] = ("pearson", "spearman")
SEEDS = st.integers(0, 2**32 - 1)
CONF = Path(__file__).parents[2] / "conf" / "metric"
U = np.arange(60) % 3


def normals(seed: int, rows: int, *columns: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(rows, n)) for n in columns]


def related(seed: int, rows: int = 60, n: int = 4) -> tuple[Array, Array]:
    """Latents that are a noisy mixture of sources, and the sources."""
    sources, noise, mixing = (*normals(seed, rows, n, n), normals(seed + 1, n, n)[0])
    return sources @ mixing + 0.5 * noise, sources


def brute_force_mcc(a: Array, b: Array, coefficient: str) -> float:
    """Best mean over all one-to-one matchings, tried one after another, of SciPy's own coefficients."""
    correlate: Any = {"pearson": scipy.stats.pearsonr, "spearman": scipy.stats.spearmanr}[coefficient]
    strength = np.array([[abs(correlate(x, y).statistic) for y in b.T] for x in a.T])
    if len(strength) < strength.shape[1]:
        strength = strength.T
    rows, columns = strength.shape
    return float(max(strength[list(p), range(columns)].mean() for p in itertools.permutations(range(rows), columns)))


def centred(a: Array, b: Array) -> tuple[Array, Array]:
    return a - a.mean(0), b - b.mean(0)


def exact_canonical_correlations(a: Array, b: Array) -> Array:
    """SciPy's cosines of the principal angles between the two column spaces, the largest first."""
    return np.cos(scipy.linalg.subspace_angles(*centred(a, b)))[::-1]


def correlations_of_pairs(a: Array, b: Array, rank: int) -> Array:
    """Correlations within the pairs of canonical variates; checks that a variate correlates with its partner only."""
    a, b = centred(a, b)
    x, y = (table @ weights for table, weights in zip((a, b), canonical_weights(a, b, rank), strict=True))
    for variates in (x, y):
        assert variates.T @ variates == pytest.approx(np.eye(rank), abs=1e-9)
    crossed = x.T @ y
    assert crossed == pytest.approx(np.diag(np.diag(crossed)), abs=1e-9)
    return np.diag(crossed)


def estimate(**changes: Any) -> Estimate:
    mean, sources = related(0)
    given = {"mean": mean, "sample": mean + 0.1, "sources": sources, "u": None, "index": np.arange(len(mean))}
    return Estimate(**(given | {"terms": {"elbo": -2.0, "log_likelihood": -1.5, "kl": 0.5}} | changes))


def strong(**changes: Any) -> MCC:
    given: dict[str, Any] = {"latents": ["mean", "sample"], "coefficients": list(COEFFICIENTS), "alignment": "strong"}
    return MCC(**(given | {"rank": None, "chance_draws": 3, "half_seed": 0, "chance_seed": 0} | changes))


class TestStrong:
    @pytest.mark.parametrize("coefficient", COEFFICIENTS)
    @pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 5), (5, 3), (3, 5)])
    def test_equals_a_search_over_all_matchings(self, coefficient: Coefficient, n: int, k: int) -> None:
        sources, noise = normals(n + k, 40, k, n)
        latents = noise + 0.5 * np.resize(sources.T, (n, 40)).T
        assert mean_correlation(latents, sources, coefficient) == pytest.approx(
            brute_force_mcc(latents, sources, coefficient)
        )

    def test_spearman_with_ties_equals_scipy(self) -> None:
        a, b = (np.round(x) for x in related(3))
        assert mean_correlation(a, b, "spearman") == pytest.approx(brute_force_mcc(a, b, "spearman"))

    @given(SEEDS, st.sampled_from(COEFFICIENTS), st.data())
    def test_permutation_sign_scale_and_shift_do_not_matter(
        self, seed: int, coefficient: Coefficient, data: st.DataObject
    ) -> None:
        a, b = related(seed)
        order = data.draw(st.permutations(range(4)))
        scales = data.draw(st.lists(st.floats(0.01, 100), min_size=4, max_size=4))
        signs = data.draw(st.lists(st.sampled_from([-1, 1]), min_size=4, max_size=4))
        moved = a[:, order] * scales * signs + data.draw(st.floats(-10, 10))
        assert mean_correlation(moved, b, coefficient) == pytest.approx(mean_correlation(a, b, coefficient))

    @given(SEEDS, st.sampled_from(COEFFICIENTS))
    def test_is_symmetric_and_bounded(self, seed: int, coefficient: Coefficient) -> None:
        a, b = related(seed)
        assert mean_correlation(a, b, coefficient) == pytest.approx(mean_correlation(b, a, coefficient))
        assert 0 <= mean_correlation(a, b, coefficient) <= 1

    @given(SEEDS)
    def test_spearman_sees_ranks_only(self, seed: int) -> None:
        a, b = related(seed)
        assert mean_correlation(np.exp(a), b**3, "spearman") == pytest.approx(mean_correlation(a, b, "spearman"))
        assert mean_correlation(np.exp(a), a, "spearman") == pytest.approx(1)

    @pytest.mark.parametrize("coefficient", COEFFICIENTS)
    def test_of_itself_is_one(self, coefficient: Coefficient) -> None:
        a = normals(0, 50, 6)[0]
        assert mean_correlation(a, -a[:, ::-1], coefficient) == pytest.approx(1)

    @pytest.mark.parametrize("coefficient", COEFFICIENTS)
    def test_float32_far_from_zero_is_scored_in_double_precision(self, coefficient: Coefficient) -> None:
        a = normals(0, 500, 3)[0].astype(np.float32) * np.float32(0.01) + np.float32(100)
        assert mean_correlation(a, 1e-200 * a.astype(np.float64), coefficient) == pytest.approx(1)

    @pytest.mark.parametrize("coefficient", COEFFICIENTS)
    @pytest.mark.parametrize("constant", [0.0, 0.1, 1e6])
    def test_a_constant_column_correlates_with_nothing(self, coefficient: Coefficient, constant: float) -> None:
        a = normals(0, 50, 2)[0]
        collapsed = np.column_stack((a[:, 0], np.full(50, constant)))
        assert mean_correlation(collapsed, a, coefficient) == pytest.approx(0.5)

    def test_more_latents_than_sources_match_the_best(self) -> None:
        sources, noise = normals(0, 100, 2, 3)
        assert mean_correlation(np.hstack((noise, sources)), sources, "pearson") == pytest.approx(1)

    def test_fewer_latents_than_sources_average_over_the_matched(self) -> None:
        sources = normals(0, 100, 5)[0]
        assert mean_correlation(sources[:, 3:], sources, "pearson") == pytest.approx(1)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_a_diverged_seed_is_nan(self, bad: float) -> None:
        a, b = related(0)
        a[3, 1] = bad
        assert np.isnan(mean_correlation(a, b, "pearson"))
        assert np.isnan(chance_correlation(a, b, "spearman", 2, 0))
        assert np.isnan(list(weak_mean_correlation(a, b, "pearson", None, 0).values())).all()
        assert np.isnan(list(weak_chance_correlation(a, b, "pearson", None, 0, 2, 0).values())).all()
        assert np.isnan(linear_r2(a, b, 0))
        assert (match(a, b).columns == -1).all()

    @pytest.mark.parametrize(
        ("shapes", "message"),
        [
            (((1, 2), (1, 2)), "expected at least 2 rows, got 1"),
            (((5, 2), (6, 2)), r"expected as many rows of sources as of latents \(5\), got 6"),
            (((5,), (5, 2)), r"expected a table .* got shape \(5,\)"),
            (((5, 2), (5, 0)), r"expected a table .* at least one column, got shape \(5, 0\)"),
        ],
    )
    def test_refuses_what_can_not_be_compared(self, shapes: tuple[tuple[int, ...], ...], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            mean_correlation(np.zeros(shapes[0]), np.zeros(shapes[1]), "pearson")


class TestMatch:
    def test_gives_the_columns_and_signs(self) -> None:
        sources = normals(0, 200, 3)[0]
        matching = match(sources[:, [2, 0, 1]] * [1, -1, 1], sources)
        assert matching.columns.tolist() == [1, 2, 0]
        assert matching.correlations == pytest.approx([-1, 1, 1])

    @pytest.mark.parametrize("coefficient", COEFFICIENTS)
    def test_its_mean_is_the_mcc(self, coefficient: Coefficient) -> None:
        a, b = related(1)
        assert np.abs(match(a, b, coefficient).correlations).mean() == pytest.approx(
            mean_correlation(a, b, coefficient)
        )

    def test_says_which_source_has_no_latent(self) -> None:
        sources = normals(0, 200, 3)[0]
        matching = match(sources[:, [2, 0]], sources)
        assert matching.columns.tolist() == [1, -1, 0]
        assert np.isnan(matching.correlations).tolist() == [False, True, False]


class TestChance:
    @pytest.mark.parametrize(("points", "floor"), [(64, 0.18), (1000, 0.045)])
    @pytest.mark.parametrize("coefficient", COEFFICIENTS)
    def test_strong_floor_is_what_independent_gaussians_score(
        self, points: int, floor: float, coefficient: Coefficient
    ) -> None:
        pairs = [normals(seed, points, 5, 5) for seed in range(20)]
        scores = [mean_correlation(a, b, coefficient) for a, b in pairs]
        a, b = related(0, points, 5)  # the floor is that of unrelated data whatever the relation
        chance = chance_correlation(a, b, coefficient, draws=20, seed=0)
        assert chance == pytest.approx(np.mean(scores), rel=0.15)
        assert chance == pytest.approx(floor, rel=0.15)

    def test_weak_floor_is_high_in_sample_and_low_out_of_sample(self) -> None:
        a, b = normals(0, 10_000, 50, 50)  # 5000 rows are fitted
        floor = weak_chance_correlation(a, b, "pearson", rank=20, half_seed=0, draws=1, seed=0)
        assert floor["in"] == pytest.approx(0.14, abs=0.01)
        assert floor["out"] == pytest.approx(0.03, abs=0.01)

    @pytest.mark.parametrize("coefficient", COEFFICIENTS)
    def test_is_the_mean_over_re_paired_rows(self, coefficient: Coefficient) -> None:
        a, b = related(0)
        pairings = [b[order] for order in shuffles(60, 3, 5)]
        strong_scores = [mean_correlation(a, x, coefficient) for x in pairings]
        assert chance_correlation(a, b, coefficient, 3, 5) == pytest.approx(np.mean(strong_scores))
        weak_scores = [weak_mean_correlation(a, x, coefficient, 2, 1) for x in pairings]
        assert weak_chance_correlation(a, b, coefficient, 2, 1, 3, 5) == pytest.approx(
            {scored: np.mean([score[scored] for score in weak_scores]) for scored in ("in", "out")}
        )

    def test_draws_are_seeded_and_differ(self) -> None:
        a, b = related(0)
        assert chance_correlation(a, b, "pearson", 3, 0) == chance_correlation(a, b, "pearson", 3, 0)
        assert chance_correlation(a, b, "pearson", 3, 0) != chance_correlation(a, b, "pearson", 3, 1)
        first, second = shuffles(20, 2, 0)
        assert sorted(first) == sorted(second) == list(range(20))
        assert (first != second).any()

    def test_r2_floor_is_about_zero(self) -> None:
        assert chance_r2(*related(0, 2000), half_seed=0, draws=5, seed=0) == pytest.approx(0, abs=0.01)


class TestWeak:
    @given(SEEDS, st.integers(1, 6), st.integers(1, 6), st.integers(8, 80), st.data())
    def test_canonical_correlations_equal_the_exact_ones(
        self, seed: int, n: int, k: int, rows: int, data: st.DataObject
    ) -> None:
        a, b = normals(seed, rows, n, k)
        b[:, 0] += a[:, 0]
        rank = data.draw(st.integers(1, min(n, k)))
        assert correlations_of_pairs(a, b, rank) == pytest.approx(exact_canonical_correlations(a, b)[:rank], abs=1e-7)

    def test_correlations_that_lie_close_together_are_told_apart(self) -> None:
        a, b = normals(0, 500, 60, 60)
        assert correlations_of_pairs(a, b, 60) == pytest.approx(exact_canonical_correlations(a, b), abs=1e-7)

    @pytest.mark.parametrize(("n", "k"), [(4, 4), (6, 3), (3, 5)])
    def test_variates_equal_those_of_scikit_learn_up_to_sign(self, n: int, k: int) -> None:
        a, b = normals(n, 200, n, k)
        b[:, :3] += a[:, :3] * [2, 1, 0.5]  # correlations well apart, or the iterations stop short
        a, b = centred(a, b)
        fit = CCA(3, scale=False, max_iter=10_000, tol=1e-14).fit(a, b)
        for table, own, theirs in zip((a, b), canonical_weights(a, b, 3), fit.transform(a, b), strict=True):
            assert np.abs(np.corrcoef(table @ own, theirs, rowvar=False)[:3, 3:]) == pytest.approx(np.eye(3), abs=1e-6)

    @given(SEEDS, st.integers(1, 3), st.booleans())
    def test_collapsed_directions_change_nothing(self, seed: int, varying: int, copied: bool) -> None:
        a, b = centred(*normals(seed, 60, varying, 5))
        more = a @ normals(seed + 1, varying, 5 - varying)[0] if copied else np.zeros((60, 5 - varying))
        a_weights, b_weights = canonical_weights(np.hstack((a, more)), b, 5)
        a_few, b_few = canonical_weights(a, b, varying)
        assert np.abs(b_weights[:, :varying]) == pytest.approx(np.abs(b_few), abs=1e-8)
        assert np.abs(np.hstack((a, more)) @ a_weights[:, :varying]) == pytest.approx(np.abs(a @ a_few), abs=1e-8)
        assert not np.hstack((a_weights[:, varying:], b_weights[:, varying:])).any()

    def test_in_sample_is_the_mean_of_the_canonical_correlations(self) -> None:
        a, b = related(0, 400)
        fitted, _ = halves(400, 7)
        expected = exact_canonical_correlations(a[fitted], b[fitted])[:3].mean()
        assert weak_mean_correlation(a, b, "pearson", 3, 7)["in"] == pytest.approx(expected, abs=1e-9)

    @given(SEEDS, st.sampled_from([1, 3, None]), st.lists(st.floats(1e-3, 1e3), min_size=4, max_size=4))
    def test_affine_maps_do_not_matter(self, seed: int, rank: int | None, stretches: list[float]) -> None:
        a, b = related(seed)
        turns = [np.linalg.qr(x)[0] for x in normals(seed, 4, 4, 4)]
        moved = a @ (turns[0] * stretches) @ turns[1] + 5
        plain, other = (weak_mean_correlation(x, b, "pearson", rank, 0) for x in (a, moved))
        assert other == pytest.approx(plain, abs=1e-6)

    @given(SEEDS, st.sampled_from(COEFFICIENTS))
    def test_affinely_related_is_one(self, seed: int, coefficient: Coefficient) -> None:
        sources = normals(seed, 100, 4)[0]
        rotation = np.linalg.qr(normals(seed, 4, 4)[0])[0]
        latents = sources @ (rotation * [1, 2, 3, 4]) - 3
        assert weak_mean_correlation(latents, sources, coefficient, None, 0) == pytest.approx({"in": 1, "out": 1})

    def test_in_and_out_come_from_different_rows(self) -> None:
        a, b = normals(0, 200, 20, 20)
        scores = weak_mean_correlation(a, b, "pearson", None, 0)
        assert scores["in"] > scores["out"] + 0.1
        fitted, held_out = halves(200, 0)
        b[held_out] = normals(1, 100, 20)[0]
        assert weak_mean_correlation(a, b, "pearson", None, 0)["in"] == scores["in"]
        b[fitted] = a[fitted]
        assert weak_mean_correlation(a, b, "pearson", None, 0)["in"] == pytest.approx(1)

    @pytest.mark.parametrize("copied", [False, True])
    def test_collapsed_latents_count_as_zero(self, copied: bool) -> None:
        sources = normals(0, 200, 4)[0]
        latents = sources.copy()
        latents[:, 2:] = sources[:, :2] if copied else 0.1
        expected = {"in": pytest.approx(0.5, abs=0.01), "out": pytest.approx(0.5, abs=0.01)}
        assert weak_mean_correlation(latents, sources, "pearson", None, 0) == expected

    def test_all_latents_collapsed_is_zero(self) -> None:
        sources = normals(0, 50, 2)[0]
        assert weak_mean_correlation(np.ones((50, 2)), sources, "pearson", None, 0) == {"in": 0, "out": 0}

    def test_the_fewest_rows(self) -> None:
        a, b = normals(0, 4, 2, 3)
        assert weak_mean_correlation(a, b, "pearson", 1, 0) == pytest.approx({"in": 1, "out": 1})  # two points: a line

    def test_more_components_than_rows(self) -> None:
        a, b = normals(0, 10, 8, 8)
        assert weak_mean_correlation(a, b, "pearson", None, 0)["in"] == pytest.approx(0.5)  # 4 of 8 directions vary

    def test_refuses_a_rank_that_is_not_there(self) -> None:
        a, b = normals(0, 50, 4, 3)
        for rank in (0, 4):
            with pytest.raises(ValueError, match=f"expected a rank of 1 to 3, .* 4 latents and 3 sources, got {rank}"):
                weak_mean_correlation(a, b, "pearson", rank, 0)
        with pytest.raises(ValueError, match="expected at least 4 rows, got 3"):
            weak_mean_correlation(a[:3], b[:3], "pearson", 1, 0)

    @given(st.integers(0, 50), SEEDS)
    def test_halves_share_the_rows(self, rows: int, seed: int) -> None:
        first, second = halves(rows, seed)
        assert sorted([*first, *second]) == list(range(rows))
        assert len(first) - len(second) == rows % 2
        assert (first == halves(rows, seed)[0]).all()
        in_order = np.concatenate(halves(rows, None))
        assert len(halves(rows, None)[0]) == len(first)
        assert in_order.tolist() == list(range(rows))


class TestLinearR2:
    def test_equals_least_squares_on_the_held_out_half(self) -> None:
        a, b = related(0)
        fitted, held_out = halves(len(a), 5)
        design = np.column_stack((a, np.ones(len(a))))
        predicted = design @ np.linalg.lstsq(design[fitted], b[fitted])[0]
        residual, total = ((b - x)[held_out].var(0) for x in (predicted, 0))
        bias = (b - predicted)[held_out].mean(0) ** 2
        assert linear_r2(a, b, 5) == pytest.approx((1 - (residual + bias) / total).mean())

    @given(SEEDS)
    def test_affinely_related_is_one(self, seed: int) -> None:
        sources = normals(seed, 100, 3)[0]
        rotation = np.linalg.qr(normals(seed, 3, 3)[0])[0]
        assert linear_r2(sources @ rotation * 4 + 1, sources, 0) == pytest.approx(1)

    def test_rows(self) -> None:
        rows = LinearR2(["sample"], chance_draws=2, half_seed=0, chance_seed=0)(estimate())
        assert [(row["metric"], row["latents"], row["scored"], row["points"]) for row in rows] == [
            ("linear_r2", "sample", "out", 30)
        ]
        assert rows[0]["chance"] < 0.1 < 0.5 < rows[0]["value"]


class TestRows:
    def test_strong_rows_state_every_choice(self) -> None:
        rows = strong()(estimate(mean=related(0)[0][:, :3]))
        assert [(row["latents"], row["coefficient"]) for row in rows] == list(
            itertools.product(("mean", "sample"), COEFFICIENTS)
        )
        first = rows[0]
        assert first["value"] == mean_correlation(related(0)[0][:, :3], related(0)[1], "pearson")
        assert first["chance"] == chance_correlation(related(0)[0][:, :3], related(0)[1], "pearson", 3, 0)
        stated = {"metric": "mcc", "alignment": "strong", "rank": None, "scored": "all", "points": 60}
        assert stated | {"latent_dim": 3, "source_dim": 4, "state": "done"} == {
            key: first[key] for key in (*stated, "latent_dim", "source_dim", "state")
        }

    def test_weak_rows_say_where_they_were_scored(self) -> None:
        metric = strong(latents=["mean"], coefficients=["pearson"], alignment="weak", half_seed=3)
        rows = metric(estimate(mean=related(0)[0][:59], sources=related(0)[1][:59]))
        assert [(row["scored"], row["points"], row["rank"], row["alignment"]) for row in rows] == [
            ("in", 30, 4, "weak"),
            ("out", 29, 4, "weak"),
        ]
        values = weak_mean_correlation(related(0)[0][:59], related(0)[1][:59], "pearson", None, 3)
        assert [row["value"] for row in rows] == [values["in"], values["out"]]
        assert all(row["chance"] < row["value"] for row in rows)

    def test_each_half_has_the_chance_floor_of_its_own(self) -> None:
        """Of unrelated tables the MCC of either half is its floor, and that of the fitted half is the higher one."""
        weak = strong(latents=["mean"], coefficients=["pearson"], alignment="weak", rank=2, chance_draws=20)
        latents, sources = normals(5, 400, 10, 10)
        fitted, held_out = weak(estimate(mean=latents, sources=sources, index=np.arange(400)))
        assert fitted["chance"] > 3 * held_out["chance"] > 0
        for row in (fitted, held_out):
            assert row["value"] == pytest.approx(row["chance"], abs=0.1)

    def test_terms_are_rows_of_their_own(self) -> None:
        rows = ELBOTerms()(estimate(sources=None))
        assert [(row["metric"], row["value"]) for row in rows] == [("elbo", -2), ("log_likelihood", -1.5), ("kl", 0.5)]
        assert {row["source_dim"] for row in rows} == {None}

    def test_without_sources_there_is_no_score(self) -> None:
        assert strong()(estimate(sources=None)) == []
        assert LinearR2(["mean"], 2, 0, 0)(estimate(sources=None)) == []

    def test_a_diverged_seed_keeps_its_rows(self) -> None:
        rows = strong()(estimate(mean=np.full((60, 4), np.nan)))
        assert [(np.isnan(row["value"]), row["state"]) for row in rows] == [(True, "diverged")] * 2 + [
            (False, "diverged")
        ] * 2
        assert {row["state"] for row in ELBOTerms()(estimate(terms={"elbo": np.nan}))} == {"diverged"}

    def test_unknown_choices_and_a_rank_that_nothing_reads_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"expected choices among metric, .* got colour"):
            estimate().row("mcc", 0.5, colour="red")
        with pytest.raises(ValueError, match="expected no rank for the strong alignment, which has no CCA, got 3"):
            strong(rank=3)

    @pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
    @pytest.mark.slow
    def test_every_configured_metric_gives_rows_of_the_schema(self, path: Path) -> None:
        import importlib

        ((key, options),) = yaml.safe_load(path.read_text()).items()
        module, _, name = options.pop("_target_").rpartition(".")
        rng, (mean, _) = np.random.default_rng(0), related(0)
        network = ReluNetwork((rng.normal(size=(3, 2)), rng.normal(size=(2, 3))), (np.zeros(3), np.zeros(2)))
        truth = Generator(np.full(2, 0.5), rng.normal(size=(2, 2)), np.stack([np.eye(2), np.diag([1.0, 2.0])]), network)
        prior = ExponentialFamily(-rng.uniform(1, 2, (4, 2)), ("z^2",), hidden=True)
        known = {"log_density": -1.8, "generator": truth, "truth": truth, "prior": prior}
        given = estimate(u=U, clusters=U, mean=mean[:, :2], sample=mean[:, :2] + 0.1, sources=mean[:, 2:4], **known)
        metric = getattr(importlib.import_module(module), name)(**options)
        pairs = isinstance(metric, PairMetric)
        if isinstance(metric, CheckingMetric):
            rows = given.rows_of(metric.checks(given))
        else:
            rows = metric.pairs({0: given, 1: given}) if pairs else metric(given)
        assert key == path.stem
        assert rows
        added = {"data_seed", "split"} if pairs else {"seed", "data_seed", "split"}
        assert all({*row} | added == set(PAIR_COLUMNS if pairs else COLUMNS) for row in rows)
