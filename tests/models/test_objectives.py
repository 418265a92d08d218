"""What is minimised: against Monte Carlo, explicit loops, and models whose likelihood is known exactly."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ivae_lab.core.data import DataSpec
from ivae_lab.distributions.densities import Laplace, Normal, NormalMixture
from ivae_lab.models.likelihoods import GaussianLikelihood
from ivae_lab.models.objectives import ELBO, Evidence, FourTerms, aggregate_posterior

reference: Any = torch.distributions  # its methods have no types
SPEC = DataSpec(x_dim=4, u_dim=0, source_dim=2, train_rows=100, binary=False)


def at(progress: float) -> Tensor:
    return torch.tensor(progress, dtype=torch.float64)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def evidence(rows: int = 6, n: int = 3, seed: int = 0, prior: Any = None, train_rows: int = 500) -> Evidence:
    q = Normal(drawn(seed, rows, n), drawn(seed + 1, rows, n) - 1)
    p = prior or Normal(drawn(seed + 2, rows, n), drawn(seed + 3, rows, n))
    return Evidence(drawn(seed + 4, rows), q, p, q.rsample(drawn(seed + 5, rows, n)), train_rows)


def mixture(n: int = 3) -> NormalMixture:
    return NormalMixture(torch.log_softmax(drawn(8, 5), -1), drawn(9, 5, n), drawn(10, 5, n))


def terms(e: Evidence) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-likelihood, index-code information, total correlation and dimension-wise KL, each averaged over rows."""
    log_q, log_product = aggregate_posterior(e.posterior, e.z, e.train_rows)
    information = e.posterior.log_prob(e.z) - log_q
    parts = (e.log_likelihood, information, log_q - log_product, log_product - e.prior.log_prob(e.z))
    a, b, c, d = (part.mean() for part in parts)
    return a, b, c, d


@pytest.mark.parametrize("family", [Normal, Laplace])
@pytest.mark.slow
def test_the_closed_form_is_the_expectation_of_the_sampled_estimate(family: Any) -> None:
    one = evidence(prior=family(drawn(2, 3), drawn(3, 3)))
    closed = ELBO()(one, 1.0, at(0)).item()
    sampled = torch.stack(
        [
            ELBO(kl="sampled")(replace(one, z=one.posterior.rsample(drawn(seed, 6, 3))), 1.0, at(0))
            for seed in range(4000)
        ]
    )
    assert abs(sampled.mean().item() - closed) < 4 * sampled.std().item() / len(sampled) ** 0.5
    assert sampled.std() > 0.1  # so the comparison above says something


def test_without_a_closed_form_the_sample_is_taken() -> None:
    one = evidence(prior=mixture())
    expected = -(one.log_likelihood - one.posterior.log_prob(one.z) + one.prior.log_prob(one.z)).mean()
    for kl in ("closed", "sampled"):
        torch.testing.assert_close(ELBO(kl=kl)(one, 1.0, at(0)), expected)


def test_the_sampled_elbo_with_a_mixture_is_the_sum_over_its_clusters() -> None:
    p = mixture()
    one = evidence(prior=p)
    total = 0.0
    for row in range(6):
        z = one.z[row].numpy()
        density = sum(
            math.exp(p.log_weights[k]) * np.prod(scipy.stats.norm.pdf(z, p.mean[k], p.log_var[k].div(2).exp()))
            for k in range(5)
        )
        std = one.posterior.log_var[row].div(2).exp()
        log_q = np.sum(scipy.stats.norm.logpdf(z, one.posterior.mean[row].numpy(), std.numpy()))
        total += one.log_likelihood[row].item() + math.log(density) - log_q
    assert ELBO()(one, 1.0, at(0)).item() == pytest.approx(-total / 6)


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 8), train_rows=st.integers(1, 10**6))
def test_four_terms_with_unit_weights_are_the_elbo_whatever_the_batch(seed: int, rows: int, train_rows: int) -> None:
    one = evidence(rows=rows, seed=seed, train_rows=train_rows)
    four = FourTerms(weights=[1.0, 1.0, 1.0, 1.0])(one, 1.0, at(0.3))
    torch.testing.assert_close(four, ELBO(kl="sampled")(one, 1.0, at(0.3)))


def test_each_weight_belongs_to_its_term() -> None:
    a, b, c, d = terms(evidence())
    loss = FourTerms(weights=[100.0, 2.0, 3.0, 10.0])(evidence(), 1.0, at(0))
    torch.testing.assert_close(loss, -(100 * a - 2 * b - 3 * c - 10 * d))


def test_beta_scales_the_kl() -> None:
    one = evidence()
    kl = one.kl().mean()
    torch.testing.assert_close(ELBO()(one, 4.0, at(0)), 4 * kl - one.log_likelihood.mean())
    torch.testing.assert_close(ELBO()(one, 0.0, at(0)), -one.log_likelihood.mean())


def test_beta_scales_three_terms_or_the_total_correlation_alone() -> None:
    weights = [7.0, 2.0, 3.0, 5.0]
    a, b, c, d = terms(evidence())
    kl = FourTerms(weights=weights, beta_scales="kl")(evidence(), 6.0, at(0))
    torch.testing.assert_close(kl, -(7 * a - 6 * (2 * b + 3 * c + 5 * d)))
    tc = FourTerms(weights=weights, beta_scales="total_correlation")(evidence(), 6.0, at(0))
    torch.testing.assert_close(tc, -(7 * a - 2 * b - 6 * 3 * c - 5 * d))


def test_minibatch_estimates_are_the_double_loop() -> None:
    one = evidence(rows=5, n=2, train_rows=700)
    log_q, log_product = aggregate_posterior(one.posterior, one.z, 700)
    mean, std = one.posterior.mean.numpy(), one.posterior.log_var.div(2).exp().numpy()
    for row, z in enumerate(one.z.numpy()):
        joint, each = 0.0, np.zeros(2)
        for other in range(5):
            densities = scipy.stats.norm.pdf(z, mean[other], std[other])
            joint += densities.prod()
            each += densities
        assert log_q[row].item() == pytest.approx(math.log(joint / (5 * 700)))
        assert log_product[row].item() == pytest.approx(np.log(each / (5 * 700)).sum())


def test_total_correlation_falls_when_the_dimensions_come_apart() -> None:
    """Latents that copy each other have a large total correlation, the same ones shuffled apart a small one."""
    rows = 400
    together = drawn(0, rows, 1).expand(rows, 2)
    apart = torch.stack(
        [together[:, 0], together[torch.randperm(rows, generator=torch.Generator().manual_seed(1)), 0]], 1
    )
    spread = torch.full((rows, 2), -4.0, dtype=torch.float64)
    values = []
    for mean in (together, apart):
        log_q, log_product = aggregate_posterior(Normal(mean, spread), mean, rows)
        values.append((log_q - log_product).mean().item())
    assert values[0] > values[1] + 1


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (0.6, 1.0), (1.0, 1.0)])
def test_warmup_raises_the_weight_of_the_kl_linearly_to_one(progress: float, weight: float) -> None:
    loss = ELBO(warmup=0.2)(evidence(), 3.0, at(progress))
    torch.testing.assert_close(loss, ELBO()(evidence(), 3.0 * weight, at(0)))


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.0), (0.4, 0.5), (0.8, 1.0), (1.0, 1.0)])
def test_weights_move_linearly_to_their_end(progress: float, share: float) -> None:
    moving = FourTerms(weights=[100.0, 1.0, 0.0, 10.0], end_weights=[1.0, 1.0, 1.0, 1.0], end_at=0.8)
    there = [100 - 99 * share, 1.0, share, 10 - 9 * share]
    torch.testing.assert_close(moving(evidence(), 1.0, at(progress)), FourTerms(weights=there)(evidence(), 1.0, at(0)))


@pytest.mark.parametrize("change", [{"end_at": 0.5}, {"end_weights": [1.0, 1.0, 1.0, 1.0]}])
def test_half_a_schedule_of_weights_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected both or neither of end_weights and end_at"):
        FourTerms(weights=[1.0, 1.0, 1.0, 1.0], **change)


@pytest.mark.parametrize(
    ("progress", "variance"), [(0.0, 0.3), (1 / 3, 0.3**0.5 * 0.0003**0.5), (2 / 3, 0.0003), (1.0, 0.0003)]
)
def test_the_variance_is_annealed_geometrically(progress: float, variance: float) -> None:
    likelihood = GaussianLikelihood(SPEC, variance=0.0003, start_variance=0.3, anneal_fraction=2 / 3).double()
    x, output = drawn(0, 5, 4), drawn(1, 5, 4)
    expected = reference.Normal(output, variance**0.5).log_prob(x).sum(-1)
    torch.testing.assert_close(likelihood.log_prob(x, output, at(progress)), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("change", [{"start_variance": 0.3}, {"anneal_fraction": 0.5}])
def test_half_an_annealing_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected both or neither of start_variance and anneal_fraction"):
        GaussianLikelihood(SPEC, variance=0.01, **change)


class TestLinearGaussian:
    """x = W z + b + noise with orthogonal columns in W: marginal and posterior are Gaussians with known moments."""

    W = torch.linalg.qr(drawn(1, 4, 2))[0] * torch.tensor([2.0, 0.5], dtype=torch.float64)
    b = drawn(2, 4)
    variance = 0.3
    x = drawn(3, 7, 4) * 2

    def log_marginal(self) -> Tensor:
        covariance = (self.W @ self.W.T).numpy() + self.variance * np.eye(4)
        return torch.as_tensor(scipy.stats.multivariate_normal(self.b.numpy(), covariance).logpdf(self.x.numpy()))

    def posterior(self) -> Normal:
        precision = 1 + (self.W**2).sum(0) / self.variance  # diagonal, for the columns are orthogonal
        mean = (self.x - self.b) @ self.W / self.variance / precision
        return Normal(mean, -precision.log().expand_as(mean))

    def evidence(self, q: Normal, noise: Tensor) -> Evidence:
        z, prior = q.rsample(noise), Normal(torch.zeros_like(noise[0]), torch.zeros_like(noise[0]))
        likelihood = GaussianLikelihood(SPEC, variance=self.variance).double()
        log_likelihood = likelihood.log_prob(self.x, z @ self.W.T + self.b, at(1))
        return Evidence(log_likelihood, q, prior, z, 100)

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_with_the_exact_posterior_every_sample_gives_the_log_likelihood(self, seed: int) -> None:
        one = self.evidence(self.posterior(), drawn(seed, 7, 2))
        torch.testing.assert_close(
            one.log_likelihood - one.sampled_kl(), self.log_marginal(), rtol=1e-6, atol=1e-6
        )  # log v is held in float32

    @pytest.mark.slow
    def test_with_another_posterior_the_elbo_falls_short_by_its_divergence(self) -> None:
        exact = self.posterior()
        q = Normal(exact.mean + 0.2, exact.log_var + 0.7)
        draws = torch.stack([-ELBO()(self.evidence(q, drawn(seed, 7, 2)), 1.0, at(0)) for seed in range(4000)])
        shift = reference.kl_divergence(
            reference.Normal(q.mean, q.log_var.div(2).exp()),
            reference.Normal(exact.mean, exact.log_var.div(2).exp()),
        )
        gap = shift.sum(-1).mean().item()
        assert gap > 0.1
        error = draws.std().item() / len(draws) ** 0.5
        assert abs(self.log_marginal().mean().item() - draws.mean().item() - gap) < 4 * error
        assert draws.mean() < self.log_marginal().mean() - 10 * error
