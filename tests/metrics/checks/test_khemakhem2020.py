"""Assumptions of the iVAE's theorems: built cases that satisfy or break each, and what real runs leave of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from scipy.integrate import quad
from scipy.stats import norm

from ivae_lab.config.build import build
from ivae_lab.config.paths import CONFIG
from ivae_lab.core.arrays import Floats
from ivae_lab.core.exponential_family import ExponentialFamily
from ivae_lab.metrics.check import Check
from ivae_lab.metrics.checks.ivae import active, components, overlap, rank, statistic, u_count
from ivae_lab.metrics.checks.khemakhem2020 import Assumptions
from ivae_lab.metrics.checks.variability import Modulation, best_values, carried, overlaps, told_apart
from ivae_lab.metrics.resampling import Estimate
from ivae_lab.priors.conditional import TablePrior
from ivae_lab.priors.standard import StandardLaplace, StandardNormal
from ivae_lab.runs.results_csv import read_results
from tests.running import TINY, here, run_folder

SEEDS = st.integers(0, 10_000)
OPTIONS = yaml.safe_load((CONFIG / "metric" / "assumptions.yaml").read_text())["assumptions"]
LIMITS: dict[str, Any] = {"whole": 0.95, "least_rows": 10, "most_values": 100}
REAL = np.random.default_rng(0).normal(size=(60, 2))  # a u of two real-valued columns


def family(natural: Any, *statistics: Any, hidden: bool = False) -> ExponentialFamily:
    return ExponentialFamily(np.asarray(natural, float), statistics or ("z^2",), hidden)


def drawn(seed: int, values: int, size: int) -> Floats:
    return -np.random.default_rng(seed).uniform(0.1, 2, (values, size))


def data_of(config: DictConfig) -> Any:
    return build(OmegaConf.masked_copy(config.data, [key for key in config.data if key != "seed"]), "data")


def metric(**changes: Any) -> Assumptions:
    options = {key: value for key, value in OPTIONS.items() if key != "_target_"}
    return Assumptions(**(options | changes))


def estimate(**changes: Any) -> Estimate:
    """Six values of u, 20 rows each, that move and scale two latents."""
    rng, u = np.random.default_rng(0), np.repeat(np.arange(6), 20)
    mean = rng.normal(size=(120, 2)) * rng.uniform(0.5, 2, (6, 2))[u] + 5 * rng.normal(size=(6, 2))[u]
    given: dict[str, Any] = {"mean": mean, "sample": mean + 0.1 * rng.normal(size=mean.shape), "sources": None, "u": u}
    given |= {"index": np.arange(120), "terms": {}, "prior": family(drawn(0, 6, 2))}
    return Estimate(**(given | changes))


def verdicts(of: Estimate, **changes: Any) -> dict[str, bool | None]:
    return {check.name.removeprefix("assumption_"): check.passed for check in metric(**changes).checks(of)}


class TestCountOfU:
    @pytest.mark.parametrize(("values", "passed"), [(2, False), (3, True), (4, True)])
    def test_takes_one_more_than_there_are_natural_parameters(self, values: int, passed: bool) -> None:
        check = u_count(family(drawn(0, 4, 2)), np.arange(12) % values)
        assert check.passed is passed
        assert check.numbers == {"u_values": values}
        assert check.evidence["needed"] == 3
        assert bool(check.witness) is not passed

    def test_counts_the_rows_of_the_rarest(self) -> None:
        assert u_count(family(drawn(0, 4, 2)), np.array([3, 3, 3, 0, 0, 1])).evidence["fewest_rows"] == 1

    def test_no_u_is_too_few(self) -> None:
        assert u_count(family(drawn(0, 1, 2)), None).passed is False

    @pytest.mark.parametrize("labels", [None, REAL])
    def test_is_undecided_without_values(self, labels: Any) -> None:
        check = u_count(family(drawn(0, 4, 2), hidden=True), labels)
        assert check.passed is None
        assert np.isnan(check.numbers["u_values"])

    def test_of_an_unknown_family_is_counted_and_undecided(self) -> None:
        check = u_count(None, np.arange(5))
        assert (check.passed, check.numbers) == (None, {"u_values": 5})


class TestRank:
    @given(SEEDS, st.integers(1, 5), st.data())
    def test_is_the_dimension_that_lambda_spans(self, seed: int, size: int, data: st.DataObject) -> None:
        """A product of random factors has a known rank; in other units and about another origin it has the same."""
        known = data.draw(st.integers(1, size))
        rng = np.random.default_rng(seed)
        natural = rng.normal(size=(size + 4, known)) @ rng.normal(size=(known, size))
        moved = natural * 10 ** rng.uniform(-2, 2, size) + rng.normal(size=size)
        assert Modulation.of(natural).rank == Modulation.of(moved).rank == known
        check = rank(family(moved), np.arange(len(moved)), 1e12)
        assert check.passed is (known == size)
        assert bool(check.witness) is not (known == size)

    def test_numbers_are_those_of_l(self) -> None:
        natural = drawn(3, 7, 3)
        found = Modulation.of(natural)
        assert found.condition == pytest.approx(np.linalg.cond((natural[1:] - natural[0]).T))
        scaled = (natural - natural.mean(0)) / natural.std(0)
        square = scaled[found.best[1:]] - scaled[found.best[0]]
        assert found.best_condition == pytest.approx(np.linalg.cond(square))
        assert len({*found.best.tolist()}) == 4

    @pytest.mark.parametrize("seed", range(5))
    def test_best_values_are_nearly_as_good_as_any(self, seed: int) -> None:
        points = np.random.default_rng(seed).normal(size=(9, 2))

        def volume(rows: Any) -> float:
            return float(abs(np.linalg.det(points[list(rows[1:])] - points[rows[0]])))

        largest = max(volume(rows) for rows in combinations(range(9), 3))
        assert volume(best_values(points)) > largest / 2

    def test_best_values_are_the_corners(self) -> None:
        corners = np.array([[0, 0], [4, 0], [0, 4]])
        assert sorted(best_values(np.vstack([np.full((5, 2), 1.0) + np.eye(5, 2) / 9, corners]))) == [5, 6, 7]

    def test_values_that_share_lambda_are_one(self) -> None:
        natural = drawn(0, 3, 2)
        assert rank(family(natural), np.arange(3), 1e4).passed is True
        natural[2] = natural[1]
        check = rank(family(natural), np.arange(3), 1e4)
        assert (check.passed, check.numbers["l_rank"]) == (False, 1)
        assert check.numbers["best_condition"] == np.inf

    def test_only_values_that_rows_have_count(self) -> None:
        natural = drawn(0, 6, 2)
        check = rank(family(natural), np.array([1, 1, 4, 5]), 1e4)
        assert check.passed is True
        assert sorted(check.evidence["best_u"]) == [1, 4, 5]
        assert rank(family(natural), np.array([1, 1, 4]), 1e4).passed is False

    def test_a_parameter_that_varies_by_rounding_only_is_constant(self) -> None:
        natural = np.hstack([drawn(0, 6, 1), np.full((6, 1), -0.5) * (1 + 1e-8 * np.arange(6)[:, None])])
        assert Modulation.of(natural).rank == 1

    def test_near_to_lower_rank_is_undecided(self) -> None:
        natural = drawn(0, 6, 2)
        natural[:, 1] = natural[:, 0] + 1e-3 * natural[:, 1]
        check = rank(family(natural), None, 100)
        assert (check.passed, check.numbers["l_rank"]) == (None, 2)
        assert "condition number" in check.witness
        assert rank(family(natural), None, 1e5).passed is True
        assert rank(family(natural), None).passed is True, "of the truth, which is exact"

    def test_one_density_for_all_u_is_of_rank_0(self) -> None:
        for prior in (StandardNormal(3, 5).exponential_family(), StandardLaplace(3, 5).exponential_family()):
            check = rank(prior, np.arange(5), 1e4)
            assert (check.passed, check.numbers["l_rank"]) == (False, 0)

    @pytest.mark.parametrize(
        ("prior", "labels"),
        [(None, np.arange(4)), (family(drawn(0, 60, 2)), REAL), (family(np.full((4, 2), -np.inf)), np.arange(4))],
    )
    def test_is_undecided_where_lambda_is_not_known(self, prior: Any, labels: Any) -> None:
        check = rank(prior, labels, 1e4)
        assert (check.passed, [*map(np.isnan, check.numbers.values())]) == (None, [True] * 3)
        assert check.witness


class TestOverlap:
    @pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (1.0, 1.0), (0.0, 3.0), (2.0, 0.5)])
    def test_is_the_integral_of_the_geometric_mean(self, shift: float, scale: float) -> None:
        rng = np.random.default_rng(0)
        rows = np.concatenate([rng.normal(size=40_000), rng.normal(shift, scale, 40_000)])[:, None]
        expected, _ = quad(lambda z: (norm.pdf(z) * norm.pdf(z, shift, scale)) ** 0.5, -20, 20)
        groups = [np.arange(40_000), np.arange(40_000, 80_000)]
        assert overlaps(rows, groups)[0, 1] == pytest.approx(expected, abs=0.01)

    def test_of_the_same_distribution_is_1_however_few_the_rows(self) -> None:
        rng = np.random.default_rng(0)
        found = [overlaps(rng.normal(size=(40, 3)), [np.arange(20), np.arange(20, 40)])[0, 1] for _ in range(200)]
        assert np.median(found) > 0.99

    def test_a_pair_that_is_not_told_apart_is_named_and_counts_once(self) -> None:
        rng, u = np.random.default_rng(0), np.repeat(np.arange(4), 200)
        means = np.array([[0, 0], [5, 0], [0, 5], [5, 0]])
        samples = means[u] + rng.normal(size=(800, 2))
        check = overlap(samples, u, family(drawn(0, 4, 2)), **LIMITS)
        assert check.evidence["pair"] == [1, 3]
        assert check.numbers["largest_overlap"] > 0.97
        assert check.numbers["overlapping_pairs"] == pytest.approx(1 / 6)
        assert (check.numbers["told_apart"], check.passed) == (3, True)
        check = overlap(samples, u, family(drawn(0, 4, 3)), **LIMITS)
        assert (check.passed, check.witness) == (False, "3 values are told apart, 4 are needed.")

    def test_values_left_out_leave_it_undecided(self) -> None:
        u = np.repeat(np.arange(6), 20)
        samples = 9.0 * u[:, None] + np.random.default_rng(0).normal(size=(120, 1))
        prior = family(drawn(0, 6, 3))
        assert overlap(samples, u, prior, **LIMITS).passed is True
        check = overlap(samples, u, prior, **(LIMITS | {"most_values": 3}))
        assert (check.passed, check.evidence["values"], check.evidence["left_out"]) == (None, 3, 3)

    def test_values_with_few_rows_are_no_case(self) -> None:
        u = np.array([0] * 30 + [1] * 9 + [2] * 9)
        check = overlap(np.random.default_rng(0).normal(size=(48, 1)), u, family(drawn(0, 3, 1)), **LIMITS)
        assert check.passed is None
        assert check.witness.startswith("1 of 3 values of u have 10 rows")
        u = np.array([0] * 9 + [1] * 30 + [2] * 30)
        check = overlap(np.random.default_rng(0).normal(size=(69, 1)), u, family(drawn(0, 3, 1)), **LIMITS)
        assert check.evidence == {"pair": [1, 2], "values": 2, "left_out": 1}

    @pytest.mark.parametrize("labels", [None, REAL])
    def test_is_undecided_without_values(self, labels: Any) -> None:
        check = overlap(REAL, labels, family(drawn(0, 3, 1)), **LIMITS)
        assert (check.passed, [*map(np.isnan, check.numbers.values())]) == (None, [True] * 3)

    def test_constant_latents_are_not_told_apart(self) -> None:
        assert (overlaps(np.ones((40, 2)), [np.arange(20), np.arange(20, 40)]) == 1).all()

    def test_no_two_of_those_kept_are_the_same(self) -> None:
        chain = np.abs(np.subtract.outer(np.arange(5), np.arange(5))) <= 1
        assert told_apart(chain) == [0, 2, 4]


class TestActive:
    def test_a_collapsed_latent_is_named(self) -> None:
        rng = np.random.default_rng(0)
        mean = rng.normal(size=(500, 3)) * [1, 0.001, 2]
        sample = mean + rng.normal(size=mean.shape) * [0.1, 1, 0.1]
        check = active(mean, sample, None, 0.01)
        assert (check.passed, check.evidence["collapsed"], check.numbers) == (False, [1], {"active_latents": 2})
        assert "latents 1." in check.witness
        assert active(mean[:, ::2], sample[:, ::2], None, 0.01).passed is True

    def test_units_do_not_matter(self) -> None:
        rng = np.random.default_rng(0)
        mean, noise = rng.normal(size=(500, 2)), rng.normal(size=(500, 2))
        shares = carried(mean, mean + noise, None)
        assert shares == pytest.approx([0.5, 0.5], abs=0.05)
        assert carried(1e-6 * mean, 1e-6 * (mean + noise), None) == pytest.approx(shares)

    def test_what_the_prior_knows_of_u_is_no_information_on_x(self) -> None:
        rng, u = np.random.default_rng(0), np.repeat(np.arange(5), 100)
        mean = np.stack([3.0 * u, 3.0 * u + rng.normal(size=500)], 1)
        sample = mean + rng.normal(size=mean.shape)
        assert active(mean, sample, None, 0.01).passed is True
        assert active(mean, sample, u, 0.01).evidence["collapsed"] == [0]

    def test_a_latent_that_is_constant_and_certain_has_collapsed(self) -> None:
        mean = np.stack([np.ones(50), np.arange(50.0)], 1)
        assert active(mean, mean, None, 0.01).evidence["share"] == [0, 1]

    def test_is_undecided_where_no_two_rows_share_u(self) -> None:
        assert active(REAL, REAL, np.arange(60), 0.01).passed is None


def test_dead_components_are_named() -> None:
    assert components(3, np.array([0, 1, 1, 2])).passed is True
    check = components(4, np.array([0, 1, 1, 1]))
    assert (check.passed, check.evidence["dead"], check.numbers) == (False, [2, 3], {"dead_components": 2})


class TestStatistic:
    @pytest.mark.parametrize(
        ("kind", "named", "passed"),
        [
            ({"family": "gaussian", "mean": "zero", "scale": "learned"}, ("z^2",), True),
            ({"family": "laplace", "mean": "zero", "scale": "learned"}, ("|z|",), True),
            ({"family": "gaussian", "mean": "learned", "scale": "one"}, ("z",), False),
            ({"family": "gaussian", "mean": "learned", "scale": "learned"}, ("z", "z^2"), False),
        ],
    )
    def test_of_a_prior(self, kind: dict[str, Any], named: tuple[str, ...], passed: bool) -> None:
        prior = TablePrior(3, 5, init="xavier_normal", **kind)
        found = prior.exponential_family()
        assert found is not None
        natural = prior.natural_parameters()
        assert natural is not None
        assert found.natural == pytest.approx(natural.detach().numpy())
        assert (found.statistics, found.needed) == (named, 3 * len(named) + 1)
        check = statistic(found)
        assert check.passed is passed
        assert bool(check.witness) is not passed

    @pytest.mark.parametrize(
        ("prior", "named", "natural"), [(StandardNormal(3, 0), "z^2", -0.5), (StandardLaplace(3, 0), "|z|", -1.0)]
    )
    def test_of_a_prior_without_parameters(self, prior: Any, named: str, natural: float) -> None:
        """p(z) is proportional to exp(natural statistic(z)), of each latent."""
        found = prior.exponential_family()
        assert found.statistics == (named,)
        assert found.natural.tolist() == [pytest.approx([natural] * 3)]
        assert statistic(found).passed is True

    def test_is_undecided_of_no_exponential_family(self) -> None:
        prior = TablePrior(2, 3, family="laplace", mean="learned", scale="learned", init="torch")
        assert prior.exponential_family() is None
        assert statistic(None).passed is None


class TestMetric:
    def test_all_may_hold(self) -> None:
        assert verdicts(estimate()) == dict.fromkeys(("u_count", "rank", "overlap", "active", "statistic"), True)

    def test_of_a_mixture_u_is_the_component(self) -> None:
        given = estimate()
        prior = family(drawn(0, 8, 4), "z", "z^2", hidden=True)
        found = verdicts(estimate(prior=prior, clusters=given.u, u=np.zeros(120, int)))
        assert found == {**verdicts(given), "components": False, "statistic": False}

    @pytest.mark.parametrize("hidden", [False, True])
    def test_of_a_real_valued_u_it_can_not_tell(self, hidden: bool) -> None:
        prior, u = family(drawn(0, 120, 2), hidden=hidden), np.random.default_rng(0).normal(size=(120, 2))
        clusters = np.repeat(np.arange(6), 20) if hidden else None
        found = verdicts(estimate(prior=prior, u=u, clusters=clusters))
        expected = True if hidden else None  # the component is no such u
        assert [found[name] for name in ("u_count", "rank", "overlap")] == [expected] * 3
        assert found["active"] is True

    def test_rows_are_the_verdicts_and_their_numbers(self) -> None:
        given = estimate(prior=None, true_prior=family(drawn(1, 6, 2)))
        rows = {row["metric"]: row["value"] for row in given.rows_of(metric().checks(given))}
        assert np.isnan(rows["assumption_rank"])
        assert (rows["true_assumption_rank"], rows["true_l_rank"], rows["u_values"]) == (1, 2, 6)
        assert rows["assumption_active"] == 1

    def test_of_a_seed_that_diverged_only_the_truth_is_checked(self) -> None:
        given = estimate(mean=np.full((120, 2), np.nan), true_prior=family(drawn(1, 6, 2)))
        assert {check.name.partition("_")[0] for check in metric().checks(given)} == {"true"}

    def test_every_check_speaks_and_is_fit_for_json(self) -> None:
        natural = drawn(0, 6, 2)
        natural[:, 1] = natural[:, 0]
        for check in metric().checks(estimate(prior=family(natural))):
            row = json.loads(json.dumps(check.as_row(), allow_nan=False))
            assert row["looked_at"].endswith(".")
            assert row["meaning"].count(". ") == 0
            assert row["meaning"].endswith(".")
            assert row["limit"]
            assert bool(row["witness"]) is not row["passed"]


@pytest.mark.parametrize(
    ("overrides", "statistics"),
    [
        (("data.mean_range=null",), ("z^2",)),
        (("data.mean_range=null", "data.source_family=laplace"), ("|z|",)),
        ((), ("z", "z^2")),
    ],
)
def test_the_truth_of_segments_is_that_of_their_densities(
    overrides: tuple[str, ...], statistics: tuple[str, ...], composed: Callable[..., Any]
) -> None:
    """Log-densities of two segments differ by their natural parameters times the statistics, and a constant."""
    config = composed("data=tcl", "data.segments=5", "data.samples_per_segment=20", "data.source_dim=2", *overrides)
    data = data_of(config)
    truth, prior = data.truth(3), data(3).prior
    assert prior.statistics == statistics
    assert prior.natural.shape == (5, 2 * len(statistics))
    z = np.linspace(-3, 3, 7)
    known: dict[str, Any] = {"z": z, "z^2": z**2, "|z|": np.abs(z)}

    def log_density(segment: int, source: int) -> Any:
        mean, std = truth.mean[segment, source], truth.std[segment, source]
        if config.data.source_family == "laplace":
            return -np.abs(z - mean) / (std / 2**0.5)
        return -((z - mean) ** 2) / (2 * std**2)

    for source in range(2):
        difference = log_density(4, source) - log_density(0, source)
        columns = [prior.natural[:, source + 2 * position] for position in range(len(statistics))]
        by_hand = sum((column[4] - column[0]) * known[kind] for column, kind in zip(columns, statistics, strict=True))
        assert np.ptp(difference - by_hand) == pytest.approx(0, abs=1e-9 * np.abs(difference).max())


def test_laplace_sources_with_means_have_no_natural_parameters(composed: Callable[..., Any]) -> None:
    config = composed("data=tcl", "data.segments=3", "data.samples_per_segment=9", "data.source_family=laplace")
    assert data_of(config)(1).prior is None


@pytest.mark.parametrize("model", ["ivae", "vade"])
@pytest.mark.slow
def test_a_run_leaves_its_checks(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = ["data.source_dim=2", "data.x_dim=2", "prior.components=3"] if model == "vade" else ["data.source_dim=2"]
    arguments = [f"model={model}", "data=tcl", *TINY, *size, "seed=[0,1]", "metric=[assumptions]", "trainer.steps=10"]
    calls: list[Estimate] = []
    checks_of = Assumptions.checks

    def noted(self: Assumptions, of: Estimate) -> list[Check]:
        calls.append(of)
        return checks_of(self, of)

    monkeypatch.setattr(Assumptions, "checks", noted)
    done = here([*arguments, f"outputs={tmp_path}"], capsys, monkeypatch)
    assert (done.code, done.err) == (0, "")
    folder = run_folder(tmp_path)
    checks = json.loads((folder / "checks.json").read_text())
    assert len(calls) == 3, "one trial before the training, then once for each seed"
    named = ["u_count", "rank", "overlap", "active", *["components"] * (model == "vade"), "statistic"]
    expected = [f"assumption_{name}" for name in named]
    expected += [f"true_assumption_{name}" for name in ("u_count", "rank", "statistic")]
    for seed in (0, 1):
        names = [check["name"] for check in checks if check["seed"] == seed]
        assert names == expected
    rows = read_results(folder)
    by_name = rows[rows["seed"] == 0].set_index("metric")["value"]
    assert by_name["true_assumption_u_count"] == 1, "8 segments for 2 x 2 natural parameters"
    assert by_name["true_l_rank"] == 4
    assert {"pass", "fail"} <= {*done.out.split()}
    assert "assumption_active" in done.out
