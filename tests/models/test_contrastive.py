"""TCL and GCL: their losses against direct sums, what they learn of a known mixture, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from sklearn.metrics import log_loss

from ivae_lab.config.build import ConfigError
from ivae_lab.core.data import Batch
from ivae_lab.engine.evaluate import encode, settle
from ivae_lab.metrics.mcc import mean_correlation
from ivae_lab.models.contrastive import Contrastive
from ivae_lab.training.run import TrainingRun
from tests.running import advance, difference, doubles, make_module, make_run

Compose = Callable[..., DictConfig]
END = torch.tensor(1.0)
# Sources whose means and variances differ between segments, and one nonlinearity, which linear methods miss.
DATA = ("data=tcl_khemakhem", "data.source_dim=2", "data.x_dim=2", "data.segments=10", "data.samples_per_segment=400")
SMALL = (*DATA, "data.mixing_layers=2", "data.modulation_range=[.05,1]", "data.mean_range=[-2,2]")
SHORT = ("trainer.steps=200", "trainer.batch_size=256", "trainer.lr=.02", "seed=[0,1]")


@pytest.fixture
def built(tiny: Compose, splits_of: Callable[..., Any], model_of: Callable[..., Any]) -> Any:
    """(*overrides) to a model and a batch of its data."""

    def build(*overrides: str) -> tuple[Contrastive, Batch]:
        config = tiny(*overrides)
        splits = splits_of(config)
        torch.manual_seed(0)
        return model_of(config, splits.spec), splits.train[:64]

    return build


def log_odds(model: Contrastive, batch: Batch, u: torch.Tensor, powers: tuple[int, ...]) -> torch.Tensor:
    """The sum over latents and statistics, written out; statistics are the powers of |h|, or of h."""
    h = model.network(batch.x)[:, : model.latent_dim]
    each = [h.abs() if power == 0 else h**power for power in powers]
    total = model.regression.bias[u].clone()
    for row in range(len(u)):
        for number, statistic in enumerate(each):
            for latent in range(model.latent_dim):
                weight = model.regression.weight[u[row], number * model.latent_dim + latent]
                total[row] += weight * statistic[row, latent]
    return total


@pytest.mark.usefixtures("in_doubles")
def test_tcl_is_the_multinomial_logistic_regression_of_u(built: Any) -> None:
    model, batch = built("model=tcl", "model.statistics=[absolute]")
    segments = len(model.regression.bias)
    every = [log_odds(model, batch, torch.full((64,), u), (0,)) for u in range(segments)]
    probabilities = torch.stack(every, 1).softmax(1).detach().numpy()
    loss = model.loss(batch, torch.zeros(64, 0), END)["loss"].item()
    assert loss == pytest.approx(log_loss(batch.u, probabilities, labels=range(segments)))
    assert model.bound(batch, torch.zeros(64, 0))["cross_entropy"].mean().item() == pytest.approx(loss)


@pytest.mark.usefixtures("in_doubles")
@pytest.mark.parametrize(("statistics", "powers"), [("[identity,square]", (1, 2)), ("[absolute]", (0,))])
def test_gcl_tells_rows_from_rows_with_anothers_u(built: Any, statistics: str, powers: tuple[int, ...]) -> None:
    model, batch = built("model=gcl", f"model.statistics={statistics}")
    noise = torch.randn(64, 1, generator=torch.Generator().manual_seed(0))
    other = batch.u[torch.from_numpy(np.argsort(noise[:, 0].numpy()))]
    assert sorted(other.tolist()) == sorted(batch.u.tolist())
    assert not torch.equal(other, batch.u)
    offset = model.network(batch.x)[:, -1]
    scores = torch.cat([log_odds(model, batch, u, powers) + offset for u in (batch.u, other)]).detach()
    expected = log_loss(np.repeat([1, 0], 64), scores.sigmoid().numpy())
    assert model.loss(batch, noise, END)["loss"].item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["tcl", "gcl"])
def test_latents_need_x_alone_and_there_is_no_elbo(built: Any, name: str) -> None:
    model, batch = built(f"model={name}")
    alone = Batch(batch.x, None, None, batch.index)
    bound = model.bound(batch, torch.zeros(64, model.live_dim))
    assert torch.equal(model.encode(alone).mean, bound["mean"])
    assert torch.equal(bound["mean"], bound["sample"])
    assert "elbo" not in bound
    assert model.examples(batch, torch.zeros(8, model.latent_dim)) == {}


def trained(*overrides: str) -> TrainingRun:
    return fitted("model.network.hidden=32", *overrides)


def fitted(*overrides: str) -> TrainingRun:
    run = make_run(*SMALL, *overrides)
    advance(make_module(run))
    settle(run.stack, run.splits.train)
    return run


def scores_of(run: TrainingRun) -> list[float]:
    (part,) = encode(run.stack, run.splits, torch.device("cpu"))
    assert part.rows.z is not None
    return [mean_correlation(mean, part.rows.z.numpy()) for mean in part.latents["mean"]]


@pytest.mark.slow
def test_a_short_training_of_tcl_is_above_what_knows_no_u() -> None:
    """Linear methods without u are below, linear ICA that knows u is near."""
    pca, segments = (np.mean(scores_of(fitted(f"model={name}", "seed=0"))) for name in ("pca", "segment_ica"))
    found = np.mean(scores_of(trained("model=tcl", *SHORT)))
    assert found > pca + 0.02
    assert found > segments - 0.02


@pytest.mark.parametrize("name", ["tcl", "gcl"])
@pytest.mark.slow
def test_stacked_as_alone(name: str) -> None:
    few = (f"model={name}", "trainer.steps=30", "trainer.batch_size=64")
    with doubles():
        together, alone = trained(*few, "seed=[3,4]"), trained(*few, "seed=4")
    stacked = {key: value[1:] for key, value in (together.stack.parameters | together.stack.buffers).items()}
    assert difference(stacked, alone.stack.parameters | alone.stack.buffers) < 1e-6


def test_linear_ica_of_the_features_follows_the_training() -> None:
    with doubles():
        run = trained("model=tcl", "trainer.steps=30", "trainer.batch_size=64", "seed=[0]")
        plain = trained("model=tcl", "model.ica=null", "trainer.steps=30", "trainer.batch_size=64", "seed=[0]")
        (mixed,) = plain.stack.map("posterior_mean", plain.splits.train)
        (latents,) = run.stack.map("posterior_mean", run.splits.train)
    covariance = np.cov(latents.numpy().T)
    np.testing.assert_allclose(covariance, np.eye(2), atol=1e-3)
    again = np.linalg.lstsq(mixed.numpy() - mixed.numpy().mean(0), latents.numpy(), rcond=None)[1]
    np.testing.assert_allclose(again, 0, atol=1e-12)


@pytest.mark.parametrize("name", ["tcl", "gcl"])
def test_a_seed_that_diverged_gives_no_numbers(name: str) -> None:
    run = make_run(*SMALL, f"model={name}", "trainer.steps=2", "trainer.batch_size=64", "seed=[0,1]")
    run.stack.parameters["network.linears.0.bias"][1] = torch.nan
    advance(make_module(run))
    settle(run.stack, run.splits.train)
    (part,) = encode(run.stack, run.splits, torch.device("cpu"))
    assert np.isfinite(part.latents["mean"][0]).all()
    assert not np.isfinite(part.latents["mean"][1]).any()


@pytest.mark.parametrize("name", ["tcl", "gcl"])
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=digits", "model.latent_dim=2"], "expected real-valued observations .*, got images"),
        (["prior=gmm"], "expected prior=normal for a model that has no density of x, got GaussianMixture"),
        (["model.statistics=[]"], "model.statistics: expected"),
        (["model.statistics=[cube]"], "model.statistics"),
    ],
)
@pytest.mark.slow
def test_what_does_not_fit_is_refused(name: str, overrides: list[str], message: str, built: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        built(f"model={name}", *overrides)


@pytest.mark.parametrize("name", ["tcl", "gcl"])
def test_data_without_u_are_refused(name: str, tiny: Compose, splits_of: Any, model_of: Any) -> None:
    config = tiny(f"model={name}")
    with pytest.raises(ConfigError, match="expected data with an auxiliary variable u for contrastive learning"):
        model_of(config, replace(splits_of(config).spec, u_dim=0))


def test_columns_of_numbers_are_for_gcl(tiny: Compose, splits_of: Any, model_of: Any) -> None:
    config = tiny("model=tcl")
    columns = replace(splits_of(config).spec, u_kind="columns", u_dim=2)
    for name in ("tcl", "segment_ica"):
        with pytest.raises(ConfigError, match=r"expected u as labels for a \w+, got 2 columns .* \(model=gcl"):
            model_of(tiny(f"model={name}"), columns)
    model, rows = model_of(tiny("model=gcl"), columns), splits_of(config).train[:16]
    loss = model.loss(replace(rows, u=torch.randn(16, 2)), torch.randn(16, 1), END)["loss"]
    assert loss.isfinite()
