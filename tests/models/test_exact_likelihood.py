"""Maximum likelihood without a bound: the search, what it refuses, and its run folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ivae_lab.config.build import ConfigError
from ivae_lab.core.mixture_generator import Generator
from ivae_lab.distributions.piecewise_mixture import Population
from ivae_lab.engine.evaluate import encode, settle
from ivae_lab.metrics.equivalence import affine
from ivae_lab.metrics.gap import Gap
from ivae_lab.models.exact_likelihood import Exact, Search
from ivae_lab.runs.arrays import read_examples
from ivae_lab.runs.results_csv import read_results
from ivae_lab.training.run import TrainingRun
from tests.running import advance, here, make_module, make_run

EXACT = ("model=exact", "data=gmm_relu", "data.points=600", "trainer.epochs=null", "trainer.batch_size=64")
TRUE = (*EXACT, "model.likelihood.variance=.04", "prior.components=2", "trainer.lr=.01", "trainer.chunk=50")
SEARCH = (*TRUE, "model/search=population", "metric=[elbo,gap,equivalence,theorem35]")
ONCE = ("model.search.hops=0", "model.search.restarts=0")
CPU = torch.device("cpu")


def generators(run: TrainingRun, position: int) -> tuple[Generator, Generator]:
    """The truth and what a seed found."""
    truth, found = run.splits.spec.truth, run.stack.model(position).generator()
    assert truth is not None
    assert found is not None
    return truth.generator(), found


def test_the_term_is_the_exact_log_density() -> None:
    """Of the truth itself: the ELBO is E[log p(x)], the gap is 0, and so is the divergence."""
    run = make_run(*SEARCH, "seed=0", "trainer.steps=1", "model.search.evaluations=1", *ONCE)
    truth, model = run.splits.spec.truth, run.stack.model(0)
    assert truth is not None
    values = {
        "decoder.net.linears.0.weight": truth.weight,
        "decoder.net.linears.0.bias": truth.bias,
        "decoder.net.linears.1.weight": truth.out_weight,
        "decoder.net.linears.1.bias": truth.out_bias,
        "prior.logits": truth.prior.log_weights,
        "prior.mean": truth.prior.mean,
        "prior.log_var": truth.prior.log_var,
    }
    assert set(values) == {name for name, _ in model.named_parameters()}
    model.load_state_dict(values, strict=False)
    run.stack.replace(0, model)
    settle(run.stack, run.splits.train)
    (part,) = encode(run.stack, run.splits, CPU)
    estimate = part.estimate(0)
    assert estimate.log_density == pytest.approx(estimate.terms["elbo"], abs=1e-5)
    assert abs(estimate.terms["divergence"]) < 1e-9
    (_, gap) = Gap()(estimate)
    assert abs(gap["value"]) < 1e-5
    assert affine(*generators(run, 0)).prior < 1e-5


@pytest.mark.slow
def test_the_search_finds_a_truth() -> None:
    """One start does, up to what the theorem leaves open; no start is likelier than the truth."""
    run = make_run(*SEARCH, "data.seed=1", "data.points=4000", "seed=[1,2]", "trainer.steps=400", *ONCE)
    advance(make_module(run))
    settle(run.stack, run.splits.train)
    (part,) = encode(run.stack, run.splits, CPU)
    found = part.terms["divergence"]
    assert (found > -1e-9).all()
    assert found[1] < 1e-6
    distance = affine(*generators(run, 1))
    assert distance.prior < 0.02
    assert distance.decoder is not None
    assert distance.decoder < 0.02


def test_a_search_ends_no_higher_than_it_began() -> None:
    parameter = torch.nn.Parameter(torch.tensor([3.0, -2.0], dtype=torch.float64))
    search = Search(of="rows", evaluations=200, hops=0, step=0.3, restarts=2, panels=6, slices=0)
    search(lambda: ((parameter - torch.tensor([1.0, 2.0])) ** 4).sum() + 1, [parameter])
    torch.testing.assert_close(parameter.detach(), torch.tensor([1.0, 2.0], dtype=torch.float64), atol=0.02, rtol=0)


def test_hops_leave_a_local_minimum() -> None:
    """(p^2 - 1)^2 + p / 4 has a shallow minimum near 1 and the deep one near -1."""
    parameter = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    for hops, least in ((0, 0.9), (20, -1.1)):
        search = Search(of="rows", evaluations=100, hops=hops, step=1.5, restarts=0, panels=6, slices=0)
        search(lambda: ((parameter**2 - 1) ** 2 + parameter / 4).sum(), [parameter])
        assert parameter.item() == pytest.approx(least, abs=0.1)


@pytest.mark.slow
def test_a_search_over_rows_helps_on_the_rows() -> None:
    def likelihood(*overrides: str) -> float:
        run = make_run(*TRUE, *overrides, "seed=0", "trainer.steps=50", "metric=[elbo]")
        advance(make_module(run))
        settle(run.stack, run.splits.train)
        model = run.stack.model(0)
        assert isinstance(model, Exact)
        with torch.no_grad():
            return model.piecewise().log_prob(run.splits.train.x).mean().item()

    searched = likelihood("model/search=rows", "model.search.evaluations=100", *ONCE)
    assert searched > likelihood() + 0.01


def test_a_search_over_rows_is_told_the_rows_and_not_the_truth() -> None:
    class Told(Search):
        def __call__(self, function: Callable[[], torch.Tensor], parameters: list[torch.nn.Parameter]) -> None:
            told.append(function().item())

    told: list[float] = []
    run = make_run(*TRUE, "model/search=rows", "seed=0", "trainer.steps=1", "metric=[elbo]")
    model, rows = run.stack.model(0), run.splits.train[:40]
    assert isinstance(model, Exact)
    assert model.truth is not None
    model.search = Told(of="rows", evaluations=1, hops=0, step=1.0, restarts=0, panels=16, slices=0)
    model.settle([rows[:30], rows[30:]])
    with torch.no_grad():
        assert told == [pytest.approx(-model.piecewise().log_prob(rows.x, 16).mean().item(), rel=1e-4)]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.latent_dim=3"], "expected latent_dim of 1 or 2 for an exact likelihood, got 3"),
        (
            ["model.likelihood.start_variance=1", "model.likelihood.anneal_fraction=.5"],
            "expected a Gaussian likelihood",
        ),
        (["data.x_dim=3", "model/search=population"], "expected at most 2 observed dimensions"),
        (["model.decoder.layers=3"], "expected a decoder of two layers"),
        (["model.decoder.activation=xtanh"], "expected a decoder of two layers with activation=relu"),
        (["prior=normal"], "expected a Gaussian mixture as prior"),
    ],
)
def test_what_has_no_exact_likelihood_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_run(*EXACT, *overrides, "trainer.steps=10", "seed=0")


def test_a_search_over_all_of_p_asks_for_data_whose_density_is_known() -> None:
    with pytest.raises(ConfigError, match="expected data whose density is known"):
        make_run("model=exact", "data=tcl", "model.latent_dim=2", "model/search=population", "seed=0")


@pytest.mark.slow
def test_runs_of_two_data_sets_train_together_and_leave_checks_and_slices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["-m", *SEARCH, "data.seed=1,2", "seed=[0,1]", "trainer.steps=50", "compute.compile=false"]
    few = ["model.search.evaluations=3", *ONCE, "model.search.slices=3"]
    done = here([*arguments, *few, f"outputs={tmp_path}"], capsys, monkeypatch)
    assert (done.code, done.err) == (0, "")
    assert "trained together with 1 more" in done.out
    folders = sorted(path.parent for path in tmp_path.glob("*/results.csv"))
    assert len(folders) == 2
    for folder in folders:
        rows = read_results(folder)
        assert {"divergence", "gap", "log_density", "prior_scaled", "true_F3", "P2"} <= set(rows["metric"])
        checks = json.loads((folder / "checks.json").read_text())
        assert {(check["seed"], check["name"]) for check in checks} >= {(0, "F3"), (1, "true_F2")}
        assert all(check["passed"] or check["witness"] for check in checks)
        sliced = read_examples(folder)["slice_nll"]
        assert sliced.shape == (2, 16, 3)
        assert (np.argmin(sliced, -1) == 1).all()
    densities = [read_results(folder).query("metric == 'log_density'")["value"].iloc[0] for folder in folders]
    assert densities[0] != densities[1], "each is held against its own truth"


def test_the_population_is_the_datas_own() -> None:
    one, other = (make_run(*SEARCH, f"data.seed={seed}", "seed=0", "trainer.steps=10") for seed in (1, 2))
    truths = [run.splits.spec.truth for run in (one, other)]
    assert truths[0] is not None
    assert truths[1] is not None
    assert one.splits.spec == other.splits.spec, "so that they can be trained together"
    assert Population(truths[0]).entropy != Population(truths[1]).entropy
