"""Verdicts: each test at its borders, what an interval is over, and what no verdict may depend on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivae_lab.reproduction import claims
from ivae_lab.reproduction.claims import (
    WORDS,
    Judgement,
    correlation,
    difference_interval,
    difference_slope,
    judge,
    picked,
    units,
)
from ivae_lab.reproduction.definition import ExperimentError, Figure, Reported

NAN = float("nan")
RANKS = ["not reproduced", "partly", "reproduced"]
SCORES = st.lists(st.integers(0, 100).map(lambda percent: percent / 100), min_size=1, max_size=5)
OTHERS = [{"label": "VAE"}]
Rows = pd.DataFrame


def seeds(scores: Iterable[float], label: str = "iVAE", data_seed: int = 1, **more: Any) -> Rows:
    """A row per model seed."""
    fixed = {"variant": "paper", "label": label, "data_seed": data_seed, "elbo": 0.0, **more}
    return Rows([fixed | {"seed": seed, "mcc_mean": float(score)} for seed, score in enumerate(scores)])


def over_data(scores: Sequence[Sequence[float]], label: str = "iVAE", first: int = 1) -> Rows:
    """Model seeds of several data seeds."""
    return pd.concat([seeds(each, label, data_seed) for data_seed, each in enumerate(scores, first)])


def judged(
    *rows: Rows, value: float | None = None, tolerance: float | None = None, known: str = "c", **claim: Any
) -> list[Judgement]:
    """All judgements on the rows of one claim, of which the paper states `value`."""
    content = {"title": "t", "where": "w", "claim": "c", "seeds": {"quick": 1, "paper": 1}, "draw": ["f"]}
    cells = [{"variant": "paper", "overrides": []}]
    stated = Reported(claim="c", figure="f", where="Figure 1", statement="s", value=value, tolerance=tolerance)
    figure = Figure.model_validate({**content, "cells": cells, "paper": "p", "claims": [{"claim": "c", **claim}]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims, "reported", lambda paper: {known: stated})
        return judge(figure, {"rows": pd.concat(rows, ignore_index=True)} if rows else {})


def one(*rows: Rows, **claim: Any) -> Judgement:
    (judgement,) = judged(*rows, **claim)
    return judgement


def above(a: Rows, b: Rows, test: str = "above") -> Judgement:
    return one(a, b, test=test, of={"label": "iVAE"}, than=OTHERS)


@pytest.mark.parametrize(
    ("test", "scores", "verdict"),
    [
        ("at_least", [0.96, 0.97, 0.99], "reproduced"),
        ("at_least", [0.95, 0.95], "reproduced"),
        ("at_least", [0.90, 0.99, 0.94], "partly"),
        ("at_least", [0.91, 0.92, 0.94], "not reproduced"),
        ("at_least", [0.95], "reproduced"),
        ("at_least", [0.94], "not reproduced"),  # one seed has no interval that could reach it
        ("at_most", [0.96, 0.97, 0.99], "not reproduced"),
        ("at_most", [0.95, 0.95], "reproduced"),
        ("at_most", [0.93, 1.0, 0.96], "partly"),
        ("at_most", [0.91, 0.92, 0.94], "reproduced"),
    ],
)
def test_a_mean_is_held_against_a_bound(test: str, scores: list[float], verdict: str) -> None:
    judgement = one(seeds(scores), test=test, value=0.95)
    assert judgement.verdict == verdict
    assert f"{np.mean(scores):.3f}" in judgement.ours
    assert f"asked {test.replace('_', ' ')} 0.95" in judgement.reason
    assert (judgement.theirs, judgement.seeds, judgement.data_seeds) == ("0.95", len(scores), 1)
    assert judgement.test == WORDS[test]


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [
        ([0.8, 0.8], "reproduced"),  # although .7 + .1 < .8 in floating point
        ([0.6, 0.6], "reproduced"),
        ([0.1, 1.0, 0.9], "reproduced"),
        ([0.81, 0.81], "not reproduced"),
        ([0.59, 0.59], "not reproduced"),
        ([0.79, 0.85], "partly"),
        ([0.61, 0.55], "partly"),
    ],
)
def test_a_mean_is_within_the_tolerance_or_its_interval_reaches_it(scores: list[float], verdict: str) -> None:
    judgement = one(seeds(scores), test="within", value=0.7, tolerance=0.1)
    assert (judgement.verdict, judgement.theirs) == (verdict, "0.7 ± 0.1")
    assert "asked 0.6 to 0.8" in judgement.reason


@pytest.mark.parametrize(
    ("test", "ours", "theirs", "verdict"),
    [
        ("above", [0.9, 0.91, 0.92], [0.5, 0.6, 0.55], "reproduced"),
        ("above", [0.5, 0.9, 0.6], [0.5, 0.7, 0.55], "partly"),
        ("above", [0.5, 0.6, 0.55], [0.9, 0.91, 0.92], "not reproduced"),
        ("above", [0.5, 0.5], [0.5, 0.5], "not reproduced"),
        ("above", [0.9], [0.5], "partly"),  # one seed each: no interval
        ("not_below", [0.9, 0.91, 0.92], [0.5, 0.6, 0.55], "reproduced"),
        ("not_below", [0.5, 0.5], [0.5, 0.5], "reproduced"),
        ("not_below", [0.48, 0.49, 0.47], [0.5, 0.5, 0.5], "reproduced"),  # lower, by less than the margin of .05
        ("not_below", [0.45, 0.45], [0.5, 0.5], "not reproduced"),  # the margin itself is not above it
        ("not_below", [0.42, 0.48, 0.45], [0.5, 0.5, 0.5], "not reproduced"),  # below 0, and beyond the margin
        ("not_below", [0.5, 0.7, 0.55], [0.5, 0.9, 0.6], "partly"),  # an interval wide enough to hold both
        ("not_below", [0.5, 0.9, 0.6], [0.5, 0.7, 0.55], "partly"),
        ("not_below", [0.5, 0.6, 0.55], [0.9, 0.91, 0.92], "not reproduced"),
        ("not_below", [0.5], [0.9], "partly"),  # one seed each, on either side
        ("not_below", [0.9], [0.5], "partly"),
    ],
)
def test_means_are_in_order(test: str, ours: list[float], theirs: list[float], verdict: str) -> None:
    judgement = above(seeds(ours), seeds(theirs, "VAE"), test)
    assert (judgement.verdict, judgement.theirs) == (verdict, "ordering")
    assert f"iVAE - VAE = {np.mean(ours) - np.mean(theirs):.3f}" in judgement.reason


class TestTheMargin:
    """Of not_below: a method that is as good as another may be a little below it, and must be shown to be."""

    ROWS = (seeds([0.48, 0.49, 0.47]), seeds([0.5, 0.5, 0.5], "VAE"))

    def judge(self, *rows: Rows, tolerance: float | None = None) -> Judgement:
        return one(*rows, test="not_below", of={"label": "iVAE"}, than=OTHERS, tolerance=tolerance)

    @pytest.mark.parametrize(
        ("tolerance", "asked", "verdict"),
        [(None, "-0.05", 2), (0.1, "-0.1", 2), (0.01, "-0.01", 0), (0.0, "-0", 0)],
    )
    def test_it_is_the_claims_tolerance_where_there_is_one_and_said(
        self, tolerance: float | None, asked: str, verdict: int
    ) -> None:
        judgement = self.judge(*self.ROWS, tolerance=tolerance)
        assert judgement.verdict == RANKS[verdict]
        assert judgement.reason.endswith(f"[-0.030, -0.010], asked above {asked}")
        assert judgement.theirs == "ordering"

    def test_fewer_seeds_do_not_make_it_easier(self) -> None:
        scores, others = [0.4, 0.6] * 20, [0.5] * 40
        assert self.judge(seeds(scores), seeds(others, "VAE")).verdict == "reproduced"
        assert self.judge(seeds(scores[:4]), seeds(others[:4], "VAE")).verdict == "partly"
        assert self.judge(seeds(scores[:1]), seeds(others[:1], "VAE")).verdict == "partly"

    def test_an_ordering_above_has_none(self) -> None:
        assert one(*self.ROWS, test="above", of={"label": "iVAE"}, than=OTHERS, tolerance=0.1).verdict == RANKS[0]


class TestWhatAnIntervalIsOver:
    def test_one_data_seed_gives_its_model_seeds(self) -> None:
        assert units(seeds([0.1, 0.2, 0.4]), "mcc_mean").tolist() == [0.1, 0.2, 0.4]

    def test_several_data_seeds_give_their_means_however_many_model_seeds_they_have(self) -> None:
        rows = over_data([[0.1, 0.3], [0.4, 0.5, 0.9, NAN], [1.0]])
        assert units(rows, "mcc_mean").tolist() == pytest.approx([0.2, 0.6, 1.0])
        judgement = one(rows, test="at_least", value=0.5)
        assert "0.600" in judgement.ours
        assert (judgement.seeds, judgement.data_seeds) == (1, 3)

    def test_pairs_of_data_seeds_show_what_their_spread_would_hide(self) -> None:
        levels = np.linspace(0.2, 0.8, 8)
        ours, theirs = (
            over_data([[level + 0.05] * 2 for level in levels]),
            over_data([[each] for each in levels], "VAE"),
        )
        assert above(ours, theirs).verdict == "reproduced"
        low, _ = difference_interval(units(ours, "mcc_mean"), units(theirs, "mcc_mean"), paired=False)
        assert low < 0

    def test_methods_are_compared_on_the_data_seeds_that_both_have(self) -> None:
        ours, theirs = over_data([[0.1], [0.5], [0.6]]), over_data([[0.4], [0.5]], "VAE", first=2)
        assert "iVAE - VAE = 0.100 [0.100, 0.100]" in above(ours, theirs).reason

    def test_a_data_seed_in_which_one_method_diverged_is_no_pair(self) -> None:
        ours, theirs = over_data([[0.9], [0.5], [0.6]]), over_data([[NAN], [0.4], [0.5]], "VAE")
        reason = above(ours, theirs).reason
        assert "iVAE - VAE = 0.100 [0.100, 0.100]" in reason
        assert "1 of 6 rows diverged" in reason

    def test_data_seeds_are_not_taken_for_model_seeds_of_the_only_one_that_both_have(self) -> None:
        ours = over_data([[0.9, 0.8, 0.85], [0.1, 0.1, 0.1], [0.1, 0.1, 0.1]])
        judgement = above(ours, seeds([0.5, 0.6, 0.55], "VAE"))
        assert "iVAE - VAE = 0.300" in judgement.reason
        assert judgement.verdict == "reproduced"

    def test_methods_without_a_common_data_seed_are_two_groups(self) -> None:
        judgement = above(seeds([0.9, 0.8, 0.85]), seeds([0.5, 0.6, 0.55], "VAE", data_seed=2))
        assert judgement.verdict == "reproduced"

    def test_the_interval_of_a_difference_is_that_of_the_normal_approximation_in_large_samples(self) -> None:
        generator = np.random.default_rng(3)
        a, b = pd.Series(generator.normal(0.5, 0.1, 200)), pd.Series(generator.normal(0.4, 0.2, 100))
        half = 1.96 * np.sqrt(a.var() / 200 + b.var() / 100)
        low, high = difference_interval(a, b, paired=False)
        middle = a.mean() - b.mean()
        assert [low, high] == pytest.approx([middle - half, middle + half], abs=0.1 * half)
        paired = difference_interval(a[:100], a[:100] - b, paired=True)
        half = 1.96 * b.std() / 10
        assert list(paired) == pytest.approx([b.mean() - half, b.mean() + half], abs=0.1 * half)


class TestWhatIsMissing:
    def test_without_rows_nothing_was_run(self) -> None:
        for judgement in (one(test="at_least", value=1), one(seeds([]), test="at_least", value=1)):
            assert (judgement.verdict, judgement.ours, judgement.seeds) == ("not run", "-", 0)
            assert judgement.reason == "no finished runs to compare"

    def test_a_claim_whose_method_has_no_rows_is_still_judged(self) -> None:
        judgement = one(seeds([0.5, 0.6], "VAE"), test="above", of={"label": "iVAE"}, than=OTHERS)
        assert (judgement.verdict, judgement.variant) == ("not run", "-")

    def test_a_claim_against_a_method_without_rows_is_not_run(self) -> None:
        judgement = one(seeds([0.5, 0.6]), test="above", of={"label": "iVAE"}, than=OTHERS)
        assert judgement.verdict == "not run"
        assert "no runs of VAE" in judgement.reason

    def test_one_of_several_methods_that_is_missing_keeps_a_claim_from_being_reproduced(self) -> None:
        than = [*OTHERS, {"label": "β-VAE"}]
        rows = (seeds([0.9, 0.91]), seeds([0.1, 0.2], "VAE"))
        judgement = one(*rows, test="above", of={"label": "iVAE"}, than=than)
        assert judgement.verdict == "partly"
        assert "iVAE - VAE = 0.755" in judgement.reason
        assert "no runs of β-VAE" in judgement.reason
        assert one(*rows, seeds([0.3, 0.4], "β-VAE"), test="above", of={"label": "iVAE"}, than=than).verdict == RANKS[2]

    def test_a_value_of_per_without_the_method_keeps_it_from_being_reproduced(self) -> None:
        rows = [seeds([0.9, 0.91], n=2), seeds([0.1, 0.2], "VAE", n=2), seeds([0.1, 0.2], "VAE", n=5)]
        judgement = one(*rows, test="above", of={"label": "iVAE"}, than=OTHERS, per="n")
        assert judgement.verdict == "partly"
        assert "n 5: not compared: no runs of iVAE" in judgement.reason

    def test_diverged_seeds_are_left_out_and_said(self) -> None:
        judgement = one(seeds([NAN, 0.96, 0.97]), test="at_least", value=0.95)
        assert judgement.verdict == "reproduced"
        assert "0.965" in judgement.ours
        assert judgement.reason.endswith("1 of 3 rows diverged and are left out")

    @pytest.mark.parametrize("ours", [[NAN, NAN], [0.9, 0.9]])
    def test_a_method_that_always_diverged_fails_every_test(self, ours: list[float]) -> None:
        judgement = above(seeds(ours), seeds([NAN, NAN], "VAE"))
        assert judgement.verdict == "not reproduced"
        assert f"{'VAE' if ours[0] == 0.9 else 'iVAE'} diverged" in judgement.ours
        if ours[0] != 0.9:
            assert one(seeds(ours), test="at_least", value=0.0).verdict == "not reproduced"


class TestComparisons:
    def test_each_value_of_per_is_one_and_all_must_hold(self) -> None:
        rows = [seeds([0.9, 0.91]).assign(**{"data.n": 2}), seeds([0.5, 0.51]).assign(**{"data.n": 5})]
        judgement = one(*rows, test="at_least", value=0.8, per="data.n")
        assert judgement.verdict == "partly"
        assert judgement.ours.split("; ") == ["n 2: 0.905 [0.900, 0.910]", "n 5: 0.505 [0.500, 0.510]"]
        assert one(*rows, test="at_least", value=0.4, per="data.n").verdict == "reproduced"
        assert one(*rows, test="at_least", value=0.95, per="data.n").verdict == "not reproduced"

    def test_many_are_counted_in_ours_and_all_are_in_the_reason(self) -> None:
        rows = [seeds([0.9, 0.9], n=n) for n in range(4)]
        judgement = one(*rows, test="at_least", value=0.8, per="n")
        assert judgement.ours == "holds in 4 of 4 comparisons"
        assert all(f"n {n}: 0.900" in judgement.reason for n in range(4))

    def test_of_many_only_those_that_were_made_are_counted(self) -> None:
        rows = [seeds([0.9, 0.9], n=n) for n in range(4)] + [seeds([0.5, 0.5], "VAE", n=n) for n in (0, 3)]
        judgement = one(*rows, test="above", of={"label": "iVAE"}, than=OTHERS, per="n")
        assert judgement.ours == "holds in 2 of 2 comparisons, 2 not run"
        assert judgement.verdict == "partly"

    def test_each_variant_is_judged_by_itself_in_the_order_of_the_rows(self) -> None:
        rows = [seeds([0.9, 0.9], variant="released"), seeds([0.1, 0.1], variant="ours")]
        judgements = judged(*rows, test="at_least", value=0.5)
        assert [(each.variant, each.verdict) for each in judgements] == [
            ("released", "reproduced"),
            ("ours", "not reproduced"),
        ]

    def test_selectors_take_values_and_lists(self) -> None:
        rows = pd.concat([seeds([0.1], n=2), seeds([0.2], n=3), seeds([0.3], "VAE", n=3)])
        assert picked(rows, {"n": [2, 3], "label": "iVAE"})["mcc_mean"].tolist() == [0.1, 0.2]
        assert picked(rows, {"n": 3})["mcc_mean"].tolist() == [0.2, 0.3]
        assert picked(rows, {})["mcc_mean"].tolist() == [0.1, 0.2, 0.3]

    def test_sides_of_one_label_are_told_apart_by_what_they_were_picked_by(self) -> None:
        few, many = seeds([0.5, 0.5], "GIN", **{"data.points": 100}), seeds([0.7, 0.7], "GIN", **{"data.points": 2000})
        of, than = {"label": "GIN", "data.points": [2000, 10_000]}, {"label": "GIN", "data.points": 100}
        judgement = one(few, many, test="above", of=of, than=[than])
        assert judgement.ours == "GIN (points 2000) 0.700, GIN (points 100) 0.500"
        assert judgement.reason.startswith("GIN (points 2000) - GIN (points 100) = 0.200")
        judgement = one(few, many, test="above", of={"label": "GIN"}, than=[than])
        assert judgement.ours == "GIN 0.600, GIN (points 100) 0.500"

    def test_small_numbers_are_not_shown_as_zero(self) -> None:
        judgement = one(seeds([2e-6, 2e-6]), test="at_most", value=1e-6)
        assert judgement.verdict == "not reproduced"
        assert "2e-06 [2e-06, 2e-06], asked at most 1e-06" in judgement.reason


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ({"test": "at_least"}, "expected a value"),
        ({"test": "within", "value": 0.5}, "expected a value .and tolerance."),
        ({"test": "at_least", "value": 0.5, "known": "d"}, "expected a claim of p/reported.csv, got c"),
        ({"test": "at_least", "value": 0.5, "score": "mcc"}, "expected columns of rows, got none called mcc"),
        ({"test": "at_least", "value": 0.5, "of": {"size": 1}}, "got none called size"),
        ({"test": "at_least", "value": 0.5, "per": "size"}, "got none called size"),
        ({"test": "correlated", "against": "kl"}, "got none called kl"),
    ],
)
def test_a_claim_that_cannot_be_tested_as_written_is_an_error(claim: dict[str, Any], expected: str) -> None:
    with pytest.raises(ExperimentError, match=expected):
        judged(seeds([0.5]), **claim)


def related(slope: float, noise: float, points: int = 12) -> Rows:
    generator = np.random.default_rng(0)
    rows = seeds(np.linspace(0, 1, points))
    return rows.assign(elbo=slope * rows["mcc_mean"] + noise * generator.normal(size=points))


class TestCorrelation:
    @pytest.mark.parametrize(
        ("rows", "verdict"),
        [
            (related(1, 0.1), "reproduced"),
            (related(1, 1.0), "partly"),
            (related(-1, 0.1), "not reproduced"),
            (related(0, 0), "not run"),
            (related(1, 0.1, points=2), "not run"),
        ],
        ids=["strong", "weak", "negative", "constant", "two seeds"],
    )
    def test_its_sign_and_interval_decide(self, rows: Rows, verdict: str) -> None:
        judgement = one(rows, test="correlated", against="elbo")
        assert judgement.verdict == verdict
        assert ("fewer than three" in judgement.reason) == (verdict == "not run")

    @pytest.mark.slow
    def test_it_is_numpys_and_its_interval_fishers_in_large_samples(self) -> None:
        generator = np.random.default_rng(1)
        x = generator.normal(size=400)
        y = 0.5 * x + generator.normal(size=400)
        r, low, high = correlation(x, y)
        assert r == pytest.approx(np.corrcoef(x, y)[0, 1])
        fisher = np.tanh(np.arctanh(r) + np.array([-1.96, 1.96]) / np.sqrt(397))
        assert [low, high] == pytest.approx(list(fisher), abs=0.02)

    def test_pairs_with_a_diverged_seed_are_left_out(self) -> None:
        x, y = np.array([1.0, 2, 3, 4, NAN, 6]), np.array([1.0, 3, 2, 5, 9, NAN])
        assert correlation(x, y) == correlation(x[:4], y[:4])

    @given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=3, max_size=5))
    def test_few_seeds_many_of_them_equal_give_no_warning_and_an_interval_within_its_range(
        self, pairs: list[tuple[int, int]]
    ) -> None:
        x, y = np.array(pairs, float).T
        r, low, high = correlation(x, y)
        if np.ptp(x) and np.ptp(y):
            assert -1 - 1e-9 <= low <= high <= 1 + 1e-9
            assert correlation(x, -y)[0] == pytest.approx(-r)
        else:
            assert np.isnan([r, low, high]).all()


def widening(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> Judgement:
    """Of scores at n = 2, 3, ..."""
    own = [seeds(scores, n=n) for n, scores in enumerate(ours, 2)]
    other = [seeds(scores, "VAE", n=n) for n, scores in enumerate(theirs, 2)]
    return one(*own, *other, test="widens", of={"label": "iVAE"}, than=OTHERS, against="n")


class TestWidening:
    FLAT = ([0.5, 0.51], [0.5, 0.52], [0.5, 0.51])

    @pytest.mark.parametrize(
        ("ours", "verdict"),
        [
            ([[0.6, 0.61], [0.7, 0.71], [0.8, 0.83]], "reproduced"),
            ([[0.5, 0.9], [0.7, 0.8], [0.5, 0.99]], "partly"),  # among seeds that spread more than it rises
            ([[0.9, 0.91], [0.7, 0.71], [0.6, 0.61]], "not reproduced"),
            ([[0.6], [0.7], [0.8]], "partly"),  # single seeds have no interval
            ([[0.6, 0.61]], "not run"),
            ([[NAN], [NAN], [NAN]], "not reproduced"),
            ([[NAN], [0.7, 0.71], [0.9, 0.91]], "reproduced"),  # where it did not diverge
        ],
        ids=["rises", "spreads", "falls", "single", "one value", "diverged", "diverged at one value"],
    )
    def test_the_slopes_sign_and_interval_decide(self, ours: list[list[float]], verdict: str) -> None:
        assert widening(ours, self.FLAT).verdict == verdict

    @given(shift=st.floats(-1, 1), values=st.lists(st.floats(0, 1), min_size=4, max_size=4))
    def test_it_is_numpys_slope_and_that_of_differences_only(self, shift: float, values: list[float]) -> None:
        own = pd.concat([seeds([score, score + 0.1], n=n) for n, score in enumerate(values, 2)])
        other = pd.concat([seeds([shift, shift + 0.2], "VAE", n=n) for n in range(2, 6)])
        slope, low, high = difference_slope(own, other, "n", "mcc_mean")
        assert slope == pytest.approx(np.polyfit(range(2, 6), values, 1)[0], abs=1e-9)
        assert low <= slope <= high

    def test_its_interval_is_that_of_the_normal_approximation_in_large_samples(self) -> None:
        generator = np.random.default_rng(1)
        own = pd.concat([seeds(generator.normal(0.1 * n, 1, 400), n=n) for n in (2, 3)])
        other = pd.concat([seeds(generator.normal(0, 1, 400), "VAE", n=n) for n in (2, 3)])
        _, low, high = difference_slope(own, other, "n", "mcc_mean")
        assert high - low == pytest.approx(2 * 1.96 * np.sqrt(4 / 400), rel=0.1)


def shuffled(rows: Rows, random: Any) -> Rows:
    order = list(range(len(rows)))
    random.shuffle(order)
    return rows.iloc[order]


CLAIMS: dict[str, dict[str, Any]] = {
    "at_least": {"value": 0.5},
    "at_most": {"value": 0.5},
    "within": {"value": 0.5, "tolerance": 0.1},
    "above": {"than": OTHERS},
    "not_below": {"than": OTHERS},
    "correlated": {"against": "elbo"},
    "widens": {"than": OTHERS, "against": "n"},
}


@pytest.mark.parametrize("test", CLAIMS)
@given(
    ours=st.lists(SCORES, min_size=1, max_size=3), theirs=st.lists(SCORES, min_size=1, max_size=3), random=st.randoms()
)
@pytest.mark.slow
def test_a_judgement_does_not_depend_on_the_order_of_rows(
    test: str, ours: list[list[float]], theirs: list[list[float]], random: Any
) -> None:
    rows = pd.concat([over_data(ours), over_data(theirs, "VAE")])
    rows = rows.assign(elbo=rows["mcc_mean"] ** 2 % 0.3, n=rows["seed"] % 2)
    claim = CLAIMS[test] | {"test": test, "of": {"label": "iVAE"}}
    assert one(shuffled(rows, random), **claim) == one(rows, **claim)


def rank(judgement: Judgement) -> int:
    return RANKS.index(judgement.verdict)


@pytest.mark.parametrize(
    "verdict_of",
    [
        lambda ours, other: rank(one(ours, test="at_least", value=0.5)),
        lambda ours, other: -rank(one(ours, test="at_most", value=0.5)),
        lambda ours, other: rank(above(ours, other)),
        lambda ours, other: rank(above(ours, other, "not_below")),
    ],
    ids=["at_least", "at_most", "above", "not_below"],
)
@given(ours=SCORES, other=SCORES, rises=st.lists(st.floats(0, 1), min_size=5, max_size=5))
@pytest.mark.slow
def test_higher_scores_make_no_verdict_of_high_scores_worse(
    verdict_of: Callable[[Rows, Rows], int], ours: list[float], other: list[float], rises: list[float]
) -> None:
    raised = [score + rise for score, rise in zip(ours, rises, strict=False)]
    assert verdict_of(seeds(raised), seeds(other, "VAE")) >= verdict_of(seeds(ours), seeds(other, "VAE"))


@given(a=SCORES, b=SCORES)
def test_of_two_methods_not_both_are_above_the_other(a: list[float], b: list[float]) -> None:
    one_way = above(seeds(a), seeds(b, "VAE")).verdict
    other_way = above(seeds(b), seeds(a, "VAE")).verdict
    assert "not reproduced" in (one_way, other_way)


# Multiples of 1/1024, of which there are 1, 2 or 4: neither their mean nor adding a whole number rounds.
EXACT = st.sampled_from([1, 2, 4]).flatmap(
    lambda count: st.lists(st.integers(0, 1024).map(lambda part: part / 1024), min_size=count, max_size=count)
)


@pytest.mark.parametrize("test", ["above", "not_below"])
@given(ours=EXACT, other=EXACT, shift=st.integers(-8, 8))
@pytest.mark.slow
def test_an_ordering_is_of_differences_only(test: str, ours: list[float], other: list[float], shift: int) -> None:
    before = above(seeds(ours), seeds(other, "VAE"), test)
    raised = [[score + shift for score in scores] for scores in (ours, other)]
    after = above(seeds(raised[0]), seeds(raised[1], "VAE"), test)
    assert (after.verdict, after.reason) == (before.verdict, before.reason)


@given(seed=st.integers(0, 999), rows=st.integers(12, 30))
@pytest.mark.slow
def test_the_correlations_sign_and_interval_flip_with_a_column(seed: int, rows: int) -> None:
    x, y = np.random.default_rng(seed).standard_normal((2, rows))
    r, low, high = correlation(x, y)
    flipped, lowest, highest = correlation(x, -y)
    assert flipped == pytest.approx(-r)
    assert r * flipped < 0
    # Resamples are drawn of the sorted pairs, which are others once y is flipped.
    assert [lowest, highest] == pytest.approx([-high, -low], abs=0.1)
