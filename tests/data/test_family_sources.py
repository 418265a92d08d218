"""The two-parameter families: densities against SciPy, sources, and the prior made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import scipy.stats as st
import torch
from hypothesis import given
from hypothesis import strategies as strategies
from numpy.random import RandomState
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from ivae_lab.config.build import build
from ivae_lab.data.family_sources import RANGES, Families, sources
from ivae_lab.data.family_sources import Family as Source
from ivae_lab.distributions.two_parameter import TwoParameterDensity, TwoParameterFamily
from ivae_lab.priors.family_table import FamilyTable

Compose = Callable[..., DictConfig]
POSITIVE = strategies.floats(0.2, 20)
REFERENCES: dict[str, Callable[[float, float], Any]] = {
    "gamma": lambda shape, rate: st.gamma(shape, scale=1 / rate),
    "inverse_gamma": lambda shape, scale: st.invgamma(shape, scale=scale),
    "inverse_gaussian": lambda mean, shape: st.invgauss(mean / shape, scale=shape),
    "beta": st.beta,
}


def z_of(family: str, y: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-y)) if family == "beta" else np.exp(y)


def density(family: TwoParameterFamily, first: float, second: float) -> TwoParameterDensity:
    logs = torch.tensor([[first], [second]], dtype=torch.float64).log()
    return TwoParameterDensity(family, logs[:1], logs[1:])


def test_every_family_has_its_reference() -> None:
    assert set(REFERENCES) == set(get_args(TwoParameterFamily)) == set(get_args(Source)) - {"normal"}


@pytest.mark.parametrize("family", REFERENCES)
@given(first=POSITIVE, second=POSITIVE, y=strategies.floats(-4, 4))
def test_the_density_of_y_is_that_of_z_times_the_slope(
    family: TwoParameterFamily, first: float, second: float, y: float
) -> None:
    z = z_of(family, np.array([y]))
    slope = np.log(z * (1 - z)) if family == "beta" else y
    expected = REFERENCES[family](first, second).logpdf(z) + slope
    found = density(family, first, second).log_prob(torch.tensor([[y]], dtype=torch.float64))
    assert found.numpy() == pytest.approx(expected, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("family", REFERENCES)
@pytest.mark.slow
def test_sources_draws_and_moments_are_those_of_the_family(family: TwoParameterFamily) -> None:
    first, second, rows = 2.5, 1.7, 20000
    law, own = REFERENCES[family](first, second), density(family, first, second)
    y = sources(RandomState(0), family, np.full(rows, first), np.full(rows, second))
    drawn = own.sample(rows, torch.Generator().manual_seed(0)).numpy().ravel()
    for each in (y, drawn):
        assert st.kstest(z_of(family, each), law.cdf).pvalue > 0.001
    assert own.mean.item() == pytest.approx(y.mean(), abs=4 * y.std() / rows**0.5)
    assert own.std.item() == pytest.approx(y.std(), rel=0.03)


@pytest.fixture
def make(composed: Compose) -> Callable[..., Families]:
    def made(**changes: Any) -> Families:
        whole = composed("data=families").data
        data = OmegaConf.masked_copy(whole, [key for key in whole if key != "seed"])  # which is the run's
        data.update(changes)
        return build(data, "data")  # type: ignore[no-any-return]

    return made


@pytest.mark.parametrize("family", RANGES)
def test_segments_differ_in_mean_and_spread(family: Source, make: Callable[..., Families]) -> None:
    rows = make(family=family, samples_per_segment=500)(0).train
    assert rows.z is not None
    assert rows.u is not None
    each = [rows.z[rows.u == segment].double() for segment in range(20)]
    means, spreads = torch.stack([part.mean(0) for part in each]), torch.stack([part.std(0) for part in each])
    within = spreads.median() / 500**0.5
    assert (means.std(0) > 10 * within).all()
    assert (spreads.amax(0) > 1.5 * spreads.amin(0)).all()


def test_the_mixing_is_of_the_seed_and_can_be_undone(make: Callable[..., Families]) -> None:
    rows, again = make(samples_per_segment=100)(3).train, make(samples_per_segment=100)(3).train
    assert torch.equal(rows.x, again.x)
    assert not torch.equal(rows.x, make(samples_per_segment=100)(4).train.x)
    assert len(torch.unique(rows.x, dim=0)) == len(rows)
    whitened = make(samples_per_segment=100, preprocess="whiten")(3).train.x.double()
    assert torch.cov(whitened.T, correction=0).numpy() == pytest.approx(np.eye(2), abs=1e-4)


def test_a_table_learns_what_its_sources_were_made_of() -> None:
    torch.manual_seed(0)
    rng, shapes = RandomState(0), np.array([0.5, 3.0, 20.0])
    u = np.repeat(np.arange(3), 20000)
    y = torch.from_numpy(sources(rng, "gamma", shapes[u], np.full(len(u), 2.0))[:, None])
    prior = FamilyTable(1, 3, family="gamma").double()
    optimizer = torch.optim.LBFGS(prior.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = -prior(torch.from_numpy(u)).log_prob(y).mean()
        value.backward()
        return value  # type: ignore[no-any-return]

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    assert prior.log_first.exp().flatten().detach().numpy() == pytest.approx(shapes, rel=0.05)
    assert prior.log_second.exp().flatten().detach().numpy() == pytest.approx(np.full(3, 2.0), rel=0.06)


def test_a_prior_of_a_family_needs_u() -> None:
    with pytest.raises(ValueError, match="expected data with an auxiliary variable u"):
        FamilyTable(2, 0, family="beta")
    with pytest.raises(ValueError, match="expected u for a conditional prior, got none"):
        FamilyTable(2, 3, family="beta")(None)
