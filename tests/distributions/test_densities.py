"""Densities: against torch.distributions and SciPy, their integrals, their divergences and their samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate
from torch import Tensor
from torch import distributions as reference

from ivae_lab.distributions.densities import CorrelatedNormal, Laplace, Normal, NormalMixture, kl_divergence

SHAPES = ((4, 3), (4, 3), (4, 3, 3))  # of mean, log_var and the matrix of a CorrelatedNormal
FAMILIES = ("normal", "laplace", "mixture")
LOCATIONS = st.floats(-20, 20)
LOG_SCALES = st.floats(-4, 4)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def mixture(n: int, components: int = 3, seed: int = 0) -> NormalMixture:
    weights = torch.log_softmax(drawn(seed, components), -1)
    return NormalMixture(weights, 2 * drawn(seed + 1, components, n), drawn(seed + 2, components, n))


def example(family: str, n: int) -> Any:
    mean, spread = drawn(3, n), 0.5 * drawn(4, n)
    return {"normal": Normal(mean, spread), "laplace": Laplace(mean, spread), "mixture": mixture(n)}[family]


def counterpart(p: Any) -> reference.Distribution:
    if isinstance(p, Normal):
        return reference.Independent(reference.Normal(p.mean, (0.5 * p.log_var).exp()), 1)
    if isinstance(p, Laplace):
        return reference.Independent(reference.Laplace(p.mean, p.log_scale.exp()), 1)
    parts = reference.Independent(reference.Normal(p.mean, (0.5 * p.log_var).exp()), 1)
    return reference.MixtureSameFamily(reference.Categorical(logits=p.log_weights), parts)


def cdf(p: Any, dimension: int) -> Any:
    """SciPy's distribution function of one dimension."""
    mean = p.mean[..., dimension].numpy()
    if isinstance(p, Laplace):
        return scipy.stats.laplace(mean, p.log_scale[dimension].exp().numpy()).cdf
    std = (0.5 * p.log_var[..., dimension]).exp().numpy()
    if isinstance(p, Normal):
        return scipy.stats.norm(mean, std).cdf
    weights = p.log_weights.exp().numpy()
    return lambda z: (scipy.stats.norm(mean, std).cdf(np.asarray(z)[:, None]) * weights).sum(-1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n", [1, 4])
def test_log_prob_is_that_of_torch_distributions(family: str, n: int) -> None:
    p, z = example(family, n), 3 * drawn(7, 50, n)
    torch.testing.assert_close(p.log_prob(z), counterpart(p).log_prob(z))


def test_log_prob_is_scipys() -> None:
    z = 3 * drawn(7, 50, 2)
    normal, laplace, mixed = (example(family, 2) for family in FAMILIES)
    std, scale = (0.5 * normal.log_var).exp().numpy(), laplace.log_scale.exp().numpy()
    np.testing.assert_allclose(normal.log_prob(z), scipy.stats.norm(normal.mean, std).logpdf(z).sum(-1))
    np.testing.assert_allclose(laplace.log_prob(z), scipy.stats.laplace(laplace.mean, scale).logpdf(z).sum(-1))
    np.testing.assert_allclose(normal.std, std)
    np.testing.assert_allclose(laplace.std, scipy.stats.laplace(laplace.mean, scale).std())
    density = sum(
        math.exp(w) * scipy.stats.multivariate_normal(m, np.diag(v)).pdf(z)
        for w, m, v in zip(mixed.log_weights.tolist(), mixed.mean.numpy(), mixed.log_var.exp().numpy(), strict=True)
    )
    np.testing.assert_allclose(mixed.log_prob(z).exp(), density)


@given(z=LOCATIONS, mean=LOCATIONS, log_scale=LOG_SCALES)
def test_one_dimensional_densities_are_scipys_everywhere(z: float, mean: float, log_scale: float) -> None:
    at, m, s = (torch.tensor([value], dtype=torch.float64) for value in (z, mean, log_scale))
    normal, laplace = Normal(m, s).log_prob(at).item(), Laplace(m, s).log_prob(at).item()
    assert normal == pytest.approx(scipy.stats.norm.logpdf(z, mean, math.exp(0.5 * log_scale)), rel=1e-9, abs=1e-12)
    assert laplace == pytest.approx(scipy.stats.gennorm.logpdf(z, 1, mean, math.exp(log_scale)), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_density_integrates_to_one_in_one_dimension(family: str) -> None:
    p = example(family, 1)
    peaks = sorted({float(m) for m in p.mean.flatten()})
    mass, _ = integrate.quad(
        lambda z: p.log_prob(torch.tensor([z], dtype=torch.float64)).exp().item(), -60, 60, points=peaks, limit=200
    )
    assert mass == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.slow
def test_density_integrates_to_one_in_two_dimensions(family: str) -> None:
    grid = torch.linspace(-30, 30, 2001, dtype=torch.float64)
    density = example(family, 2).log_prob(torch.cartesian_prod(grid, grid)).exp().reshape(2001, 2001).numpy()
    mass = integrate.simpson(integrate.simpson(density, x=grid.numpy()), x=grid.numpy())
    assert mass == pytest.approx(1, abs=1e-3)


def test_log_prob_each_is_the_log_density_of_each_dimension() -> None:
    p, z = example("normal", 3), drawn(1, 6, 3)
    alone = [Normal(p.mean[i : i + 1], p.log_var[i : i + 1]).log_prob(z[:, i : i + 1]) for i in range(3)]
    torch.testing.assert_close(p.log_prob_each(z), torch.stack(alone, 1))


def test_parameters_may_differ_from_row_to_row() -> None:
    mean, log_var, z = drawn(1, 5, 2), drawn(2, 5, 2), drawn(3, 5, 2)
    for family in (Normal, Laplace):
        rows = [family(mean[i], log_var[i]).log_prob(z[i]) for i in range(5)]
        torch.testing.assert_close(family(mean, log_var).log_prob(z), torch.stack(rows))


@pytest.mark.parametrize("family", [Normal, Laplace])
def test_kl_from_a_normal_is_the_integral(family: Any) -> None:
    q, p = Normal(drawn(1, 1), drawn(2, 1)), family(drawn(3, 1) + 1, drawn(4, 1))

    def integrand(value: float) -> float:
        z = torch.tensor([value], dtype=torch.float64)
        return float(q.log_prob(z).exp() * (q.log_prob(z) - p.log_prob(z)))

    expected, _ = integrate.quad(integrand, -40, 40, points=[q.mean.item(), p.mean.item()], limit=200)
    kl = kl_divergence(q, p)
    assert kl is not None
    assert kl.item() == pytest.approx(expected, rel=1e-7)


def test_kl_between_normals_is_that_of_torch_distributions() -> None:
    q, p = Normal(drawn(1, 6, 3), drawn(2, 6, 3)), Normal(drawn(3, 3), drawn(4, 3))
    expected = reference.kl_divergence(counterpart(q), counterpart(p).expand((6,)))
    torch.testing.assert_close(kl_divergence(q, p), expected)


@pytest.mark.parametrize("family", [Normal, Laplace])
def test_kl_is_the_mean_of_the_log_ratio(family: Any) -> None:
    q, p = Normal(drawn(1, 4), drawn(2, 4)), family(drawn(3, 4), drawn(4, 4))
    z = q.sample(200_000, seeded())
    ratio = q.log_prob(z) - p.log_prob(z)
    kl = kl_divergence(q, p)
    assert kl is not None
    assert abs(kl.item() - ratio.mean().item()) < 4 * ratio.std().item() / len(z) ** 0.5


@given(means=st.tuples(LOCATIONS, LOCATIONS), spreads=st.tuples(LOG_SCALES, LOG_SCALES))
def test_kl_is_never_negative_and_zero_at_equality(means: tuple[float, float], spreads: tuple[float, float]) -> None:
    (m, other), (s, spread) = (torch.tensor(pair, dtype=torch.float64).reshape(2, 1) for pair in (means, spreads))
    for p in (Normal(other, spread), Laplace(other, spread)):
        kl = kl_divergence(Normal(m, s), p)
        assert kl is not None
        assert kl.item() >= -1e-12
    same = kl_divergence(Normal(m, s), Normal(m, s))
    assert same is not None
    assert same.item() == pytest.approx(0, abs=1e-12)


def test_kl_to_a_laplace_stays_finite_far_away() -> None:
    q = Normal(torch.tensor([1e4, -1e4]), torch.tensor([-20.0, 20.0]))
    kl = kl_divergence(q, Laplace(torch.zeros(2), torch.zeros(2)))
    assert kl is not None
    assert torch.isfinite(kl)


def test_kl_to_a_mixture_has_no_closed_form() -> None:
    assert kl_divergence(Normal(drawn(1, 2), drawn(2, 2)), mixture(2)) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_follow_the_law(family: str) -> None:
    p = example(family, 2)
    z = p.sample(20_000, seeded()).numpy()
    assert z.shape == (20_000, 2)
    for dimension in range(2):
        assert scipy.stats.kstest(z[:, dimension], cdf(p, dimension)).pvalue > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_sample_moments_are_those_of_the_law(family: str) -> None:
    p, rows = example(family, 3), 100_000
    z, law = p.sample(rows, seeded(1)), counterpart(p)
    error = (law.variance / rows).sqrt()
    assert ((z.mean(0) - law.mean).abs() < 4 * error).all()
    fourth = ((z - law.mean) ** 4).mean(0)
    spread = ((fourth - law.variance**2) / rows).sqrt()
    assert ((z.var(0) - law.variance).abs() < 4 * spread).all()
    if family != "mixture":  # independent dimensions
        assert torch.corrcoef(z.T).triu(1).abs().max() < 0.02


def test_samples_of_a_mixture_keep_the_dimensions_of_a_component_together() -> None:
    far = torch.tensor([[-50.0, -50.0], [50.0, 50.0]])
    z = NormalMixture(torch.tensor([0.25, 0.75]).log(), far, torch.zeros(2, 2)).sample(20_000, seeded())
    assert (z[:, 0].sign() == z[:, 1].sign()).all()
    assert (z[:, 0] > 0).double().mean().item() == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_generator_decides_the_sample(family: str) -> None:
    p = example(family, 2)
    torch.testing.assert_close(p.sample(9, seeded(5)), p.sample(9, seeded(5)), rtol=0, atol=0)
    assert not torch.equal(p.sample(9, seeded(5)), p.sample(9, seeded(6)))


def test_responsibilities_are_bayes_rule() -> None:
    p, z = mixture(2, components=4), drawn(9, 7, 2)
    weighted = torch.stack(
        [p.log_weights[k].exp() * Normal(p.mean[k], p.log_var[k]).log_prob(z).exp() for k in range(4)], 1
    )
    torch.testing.assert_close(p.responsibilities(z), weighted / weighted.sum(1, keepdim=True))


@given(seed=st.integers(0, 1000), distance=st.floats(0, 1e4))
def test_responsibilities_sum_to_one_even_far_out(seed: int, distance: float) -> None:
    shares = mixture(3, seed=seed).responsibilities(distance * drawn(seed, 5, 3))
    torch.testing.assert_close(shares.sum(-1), torch.ones(5, dtype=torch.float64))
    assert ((shares >= 0) & (shares <= 1)).all()


def test_rsample_is_the_affine_image_of_the_noise() -> None:
    q, noise = Normal(drawn(1, 5, 2), drawn(2, 5, 2)), drawn(3, 5, 2)
    torch.testing.assert_close(q.rsample(noise), q.mean + q.log_var.exp().sqrt() * noise)


def test_rsample_passes_gradients_to_mean_and_log_variance() -> None:
    mean, log_var, noise = drawn(1, 5, 2).requires_grad_(), drawn(2, 5, 2).requires_grad_(), drawn(3, 5, 2)
    z = Normal(mean, log_var).rsample(noise)
    by_mean, by_log_var = torch.autograd.grad(z.sum(), (mean, log_var))
    torch.testing.assert_close(by_mean, torch.ones_like(mean))
    torch.testing.assert_close(by_log_var, 0.5 * (z - mean).detach())


def test_gradients_are_the_derivatives() -> None:
    m, s, other, spread, z = (drawn(seed, 4, 2).requires_grad_() for seed in range(5))
    logits = drawn(5, 4).requires_grad_()

    def densities(*p: Tensor) -> tuple[Tensor, ...]:
        m, s, other, spread, z, logits = p
        mixed = NormalMixture(torch.log_softmax(logits, -1), other, spread)
        kls = [kl_divergence(Normal(m, s), p) for p in (Normal(other, spread), Laplace(other, spread))]
        return (
            Normal(m, s).log_prob(z),
            Laplace(m, s).log_prob(z),
            mixed.log_prob(z),
            *(k for k in kls if k is not None),
        )

    assert torch.autograd.gradcheck(densities, (m, s, other, spread, z, logits))


class TestCorrelatedNormal:
    """Against torch's MultivariateNormal with the covariance L L^T, L = diag(s) (I + C)."""

    def pair(self) -> tuple[CorrelatedNormal, torch.distributions.MultivariateNormal]:
        drawn = torch.Generator().manual_seed(0)
        mean, log_var, square = (torch.randn(*shape, generator=drawn, dtype=torch.float64) for shape in SHAPES)
        ours = CorrelatedNormal(mean, log_var, square.tril(-1))
        scale = torch.exp(0.5 * log_var).unsqueeze(-1) * (torch.eye(3, dtype=torch.float64) + ours.lower)
        return ours, torch.distributions.MultivariateNormal(mean, scale_tril=scale)

    def test_density(self) -> None:
        ours, theirs = self.pair()
        z = torch.randn(4, 3, dtype=torch.float64)
        expected = theirs.log_prob(z)  # type: ignore[no-untyped-call]
        torch.testing.assert_close(ours.log_prob(z), expected)

    def test_samples_have_its_covariance(self) -> None:
        ours, theirs = self.pair()
        noise = torch.randn(200_000, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        drawn = ours.rsample(noise)[:, 0]  # of the first row's density
        torch.testing.assert_close(torch.cov(drawn.T), theirs.covariance_matrix[0], rtol=0.03, atol=0.03)

    def test_marginals(self) -> None:
        ours, theirs = self.pair()
        torch.testing.assert_close(ours.marginals().std ** 2, theirs.variance)

    def test_divergence_to_independent_gaussians(self) -> None:
        ours, theirs = self.pair()
        prior = Normal(torch.full((4, 3), 0.3, dtype=torch.float64), torch.full((4, 3), -0.5, dtype=torch.float64))
        independent = torch.distributions.Independent(torch.distributions.Normal(prior.mean, prior.std), 1)
        expected = torch.distributions.kl_divergence(
            theirs, torch.distributions.MultivariateNormal(prior.mean, torch.diag_embed(prior.std**2))
        )
        torch.testing.assert_close(kl_divergence(ours, prior), expected)
        noise = torch.randn(200_000, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        z = ours.rsample(noise)
        under_prior = independent.log_prob(z)  # type: ignore[no-untyped-call]
        sampled = (ours.log_prob(z) - under_prior).mean(0)
        torch.testing.assert_close(sampled, expected, rtol=0.02, atol=0.02)
