"""Exact likelihoods of Gaussian mixtures through ReLU networks, against sums, SciPy's quadrature and Monte Carlo."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm

from ivae_lab.data.gmm_relu import GmmRelu
from ivae_lab.distributions.densities import CorrelatedMixture
from ivae_lab.distributions.piecewise_mixture import PANELS, SLICE, PiecewiseMixture, Population, draw, slices
from tests.profiles import examples

SEEDS = st.integers(0, 10_000)


def model(seed: int, **changes: float) -> PiecewiseMixture:
    sizes = {"latent_dim": 1, "x_dim": 1, "hidden": 3, "slope": 0.0, "components": 2, "noise_std": 0.3, "scale": 2.0}
    return draw(seed, **(sizes | changes))  # type: ignore[arg-type]


def correlated(seed: int) -> PiecewiseMixture:
    """Two latents that depend on each other within a component."""
    plain = model(seed, latent_dim=2, x_dim=2)
    lower = torch.tensor([[[0.0, 0.0], [0.8, 0.0]], [[0.0, 0.0], [-0.5, 0.0]]], dtype=torch.float64)
    prior = plain.prior
    return replace(plain, prior=CorrelatedMixture(prior.log_weights, prior.mean, prior.log_var, lower))


def brute(truth: PiecewiseMixture, x: torch.Tensor, points: int) -> torch.Tensor:
    """Log p(x) as a plain sum over evenly spaced z, 9 standard deviations to each side of every mean."""
    covariance = truth.prior.covariance.diagonal(dim1=1, dim2=2).sqrt()
    low, high = (truth.prior.mean - 9 * covariance).amin(0), (truth.prior.mean + 9 * covariance).amax(0)
    axes = [torch.linspace(float(a), float(b), points, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
    z = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    cell = sum(float(torch.log(axis[1] - axis[0])) for axis in axes)
    log_joint = truth.prior.log_prob(z) + cell  # (Q,)
    square = ((x.unsqueeze(1) - truth.decode(z)) ** 2).sum(-1) / truth.variance
    volume = x.shape[1] * torch.log(2 * torch.pi * truth.variance)
    return torch.logsumexp(log_joint - 0.5 * (square + volume), 1)


def drawn(truth: PiecewiseMixture, rows: int, seed: int = 0) -> torch.Tensor:
    return truth.sample(rows, torch.Generator().manual_seed(seed))[2]


class TestOneLatent:
    @given(SEEDS, st.integers(1, 3), st.sampled_from([0.0, 0.2]), st.integers(1, 3))
    def test_is_the_sum_over_a_fine_grid(self, seed: int, x_dim: int, slope: float, components: int) -> None:
        truth = model(seed, x_dim=x_dim, slope=slope, components=components)
        x = drawn(truth, 8)
        torch.testing.assert_close(truth.log_prob(x), brute(truth, x, 40_001), atol=1e-6, rtol=1e-6)

    def test_is_scipys_adaptive_quadrature(self) -> None:
        truth = model(5)
        weights, means = truth.prior.log_weights.exp().numpy(), truth.prior.mean[:, 0].numpy()
        stds, noise = truth.prior.std[:, 0].numpy(), float(truth.variance.sqrt())

        def integrand(z: float, x: float) -> float:
            f = truth.decode(torch.tensor([[z]], dtype=torch.float64)).item()
            return float((weights * norm.pdf(z, means, stds)).sum() * norm.pdf(x, f, noise))

        kinks = sorted((-truth.bias / truth.weight[:, 0]).tolist())
        for x in drawn(truth, 5):
            ends = [*kinks, *(means - 8 * stds), *(means + 8 * stds)]
            value, error = quad(integrand, min(ends), max(ends), (x.item(),), points=sorted(ends)[1:-1], limit=500)
            assert error < 1e-7
            assert truth.log_prob(x[None]).exp().item() == pytest.approx(value, abs=1e-8)

    def test_far_tails_are_finite_and_right(self) -> None:
        truth = model(3)
        x = torch.tensor([[-60.0], [60.0]], dtype=torch.float64)
        value = truth.log_prob(x)
        assert value.isfinite().all()
        assert (value < -100).all()

    @settings(max_examples=examples(30))
    @given(SEEDS, st.integers(1, 2), st.sampled_from([0.0, 0.2]))
    def test_it_is_never_above_the_density_of_the_noise(self, seed: int, x_dim: int, slope: float) -> None:
        """However extreme the parameters, as far as a search goes: p(x) is a mean of N(x; f(z), v I)."""
        rng = np.random.default_rng(seed)
        truth, reach = model(seed, x_dim=x_dim, slope=slope), rng.choice([1.0, 50.0])
        parts = (truth.prior.mean, truth.prior.log_var, truth.weight, truth.bias, truth.out_weight, truth.out_bias)
        mean, log_var, weight, bias, out_weight, out_bias = (
            torch.from_numpy(rng.uniform(-reach, reach, part.shape)) for part in parts
        )
        prior = replace(truth.prior, mean=mean, log_var=log_var)
        extreme = replace(truth, prior=prior, weight=weight, bias=bias, out_weight=out_weight, out_bias=out_bias)
        x = torch.cat([drawn(truth, 20), extreme.decode(mean)])
        most = -0.5 * x_dim * torch.log(2 * torch.pi * truth.variance)
        found = extreme.log_prob(x)
        assert not found.isnan().any()
        assert (found <= most + 1e-6).all()

    def test_a_component_may_be_a_point(self) -> None:
        truth = model(4, x_dim=2, components=1)
        point = replace(truth, prior=replace(truth.prior, log_var=torch.full((1, 1), -50.0, dtype=torch.float64)))
        x = drawn(truth, 20)
        expected = multivariate_normal(point.decode(point.prior.mean)[0].numpy(), float(truth.variance) * np.eye(2))
        np.testing.assert_allclose(point.log_prob(x), expected.logpdf(x.numpy()), rtol=1e-9)

    def test_of_a_network_without_kinks_in_reach_it_is_a_mixture_of_gaussians(self) -> None:
        truth = model(1, x_dim=2)
        truth = replace(truth, bias=torch.full_like(truth.bias, 1e3))  # all units on
        matrix = truth.out_weight @ truth.weight  # (d, 1)
        offset = truth.out_weight @ truth.bias + truth.out_bias
        x = offset + drawn(model(1, x_dim=2), 10)
        density = sum(
            float(weight)
            * multivariate_normal.pdf(
                x.numpy(),
                (matrix @ mean + offset).numpy(),
                (matrix @ covariance @ matrix.T + truth.variance * torch.eye(2, dtype=torch.float64)).numpy(),
            )
            for weight, mean, covariance in zip(
                truth.prior.log_weights.exp(), truth.prior.mean, truth.prior.covariance, strict=True
            )
        )
        np.testing.assert_allclose(truth.log_prob(x).numpy(), np.log(density), rtol=1e-7)


class TestTwoLatents:
    @pytest.mark.parametrize("slope", [0.0, 0.2])
    @pytest.mark.parametrize("seed", [0, 1])
    @pytest.mark.slow
    def test_is_the_sum_over_a_fine_grid(self, seed: int, slope: float) -> None:
        truth = model(seed, latent_dim=2, x_dim=2, slope=slope, noise_std=0.4)
        x = drawn(truth, 2)
        torch.testing.assert_close(truth.log_prob(x), brute(truth, x, 801), atol=1e-5, rtol=1e-6)

    def test_with_correlated_latents(self) -> None:
        truth = correlated(2)
        x = drawn(truth, 2)
        torch.testing.assert_close(truth.log_prob(x), brute(truth, x, 801), atol=1e-5, rtol=1e-6)

    def test_is_the_mean_over_draws_of_z(self) -> None:
        truth = model(4, latent_dim=2, x_dim=2, components=3, noise_std=0.5)
        x, z = drawn(truth, 5), truth.prior.sample(400_000, torch.Generator().manual_seed(1))
        square = ((x.unsqueeze(1) - truth.decode(z)) ** 2).sum(-1) / truth.variance  # (B, draws)
        density = torch.exp(-0.5 * square) / (2 * torch.pi * truth.variance)
        error = density.std(1) / len(z) ** 0.5
        assert ((truth.log_prob(x).exp() - density.mean(1)).abs() < 4 * error).all()

    def test_a_number_of_panels_comes_near_the_settled_value(self) -> None:
        truth = model(48, latent_dim=2, x_dim=2, slope=0.2, noise_std=0.5)
        x = drawn(truth, 10)
        torch.testing.assert_close(truth.log_prob(x, PANELS), truth.log_prob(x), atol=1e-6, rtol=0)

    def test_on_a_grid_it_is_the_same(self) -> None:
        truth = model(7, latent_dim=2, x_dim=2, noise_std=0.5)
        axes = [torch.linspace(-2, 2, 5, dtype=torch.float64), torch.linspace(-1, 1, 3, dtype=torch.float64)]
        own = truth.log_prob_on(axes, 32)
        torch.testing.assert_close(own, truth.log_prob(torch.cartesian_prod(*axes)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("latent_dim", "x_dim"), [(1, 1), (1, 2), (2, 2)])
def test_gradients_are_those_of_finite_differences(latent_dim: int, x_dim: int) -> None:
    truth = model(8, latent_dim=latent_dim, x_dim=x_dim, noise_std=0.5)
    x = drawn(truth, 3)

    def log_prob(weight: torch.Tensor, bias: torch.Tensor, mean: torch.Tensor, log_var: torch.Tensor) -> torch.Tensor:
        prior = replace(truth.prior, mean=mean, log_var=log_var)
        return replace(truth, weight=weight, bias=bias, prior=prior).log_prob(x, 24)

    parts = (truth.weight, truth.bias, truth.prior.mean, truth.prior.log_var)
    inputs = tuple(part.clone().requires_grad_() for part in parts)
    if latent_dim == 1:
        assert torch.autograd.gradcheck(log_prob, inputs, atol=1e-5)
    else:  # the panels' ends move with the network, and their effect, the error of the rule, has no gradient
        slopes = torch.autograd.grad(log_prob(*inputs).sum(), inputs[2])[0]
        moved = [truth.prior.mean.clone() for _ in range(2)]
        moved[0][0, 0] += 1e-5
        moved[1][0, 0] -= 1e-5
        up, down = (log_prob(parts[0], parts[1], mean, parts[3]).sum() for mean in moved)
        assert slopes[0, 0].item() == pytest.approx(((up - down) / 2e-5).item(), rel=1e-4, abs=1e-5)


def test_posterior_moments_are_those_of_many_draws() -> None:
    truth = model(9, x_dim=2, noise_std=0.5)
    x, z = drawn(truth, 4), truth.prior.sample(500_000, torch.Generator().manual_seed(2))
    weight = torch.softmax(-0.5 * ((x.unsqueeze(1) - truth.decode(z)) ** 2).sum(-1) / truth.variance, 1)  # (B, draws)
    mean = weight @ z
    variance = weight @ z**2 - mean**2
    own_mean, own_variance = truth.moments(x)
    torch.testing.assert_close(own_mean, mean, atol=0.02, rtol=0)
    torch.testing.assert_close(own_variance, variance, atol=0.02, rtol=0.05)


class TestPopulation:
    @pytest.mark.parametrize(
        "changes", [{}, {"x_dim": 2}, {"latent_dim": 2, "x_dim": 2, "noise_std": 0.5, "scale": 1.0}]
    )
    @pytest.mark.slow
    def test_its_error_is_below_a_millionth(self, changes: dict[str, float]) -> None:
        """Its weights sum to 1, it says so, and a much finer rule says the same."""
        truth = model(11, **changes)
        own, fine = Population(truth), Population(truth, step=0.6, panels=24)
        assert abs(own.mass.sum().item() - 1) < 1e-6
        assert own.error() < 1e-6
        assert abs((own.entropy - fine.entropy).item()) < 1e-6

    def test_it_says_where_its_error_is_large(self) -> None:
        assert Population(model(7, latent_dim=2, noise_std=0.3), step=3.0).error() > 1e-6

    @pytest.mark.thorough("in two observed dimensions, where its own step is too wide")
    def test_it_says_so_in_two_dimensions(self) -> None:
        assert Population(model(6, latent_dim=2, x_dim=2, noise_std=0.3)).error() > 1e-6

    def test_entropy_is_the_mean_over_draws(self) -> None:
        truth = model(12)
        values = -truth.log_prob(drawn(truth, 100_000))
        assert Population(truth).entropy.item() == pytest.approx(
            values.mean().item(), abs=4 * values.std().item() / 316
        )

    @given(SEEDS, SEEDS)
    def test_nothing_is_likelier_than_the_truth(self, seed: int, other: int) -> None:
        population = Population(model(seed))
        assert population.divergence(model(seed)).item() == 0
        if seed != other:
            assert population.divergence(model(other)).item() > 0

    def test_an_equivalent_model_is_as_likely(self) -> None:
        """Z' = -2 z + 1 with the network that undoes it, and components in the other order."""
        truth = model(13, x_dim=2)
        prior = truth.prior
        order = [1, 0]
        moved = replace(prior, log_weights=prior.log_weights[order], mean=(1 - 2 * prior.mean)[order])
        moved = replace(moved, log_var=(prior.log_var + 2 * np.log(2))[order])
        same = replace(truth, prior=moved, weight=-truth.weight / 2, bias=truth.bias + truth.weight[:, 0] / 2)
        assert abs(Population(truth).divergence(same).item()) < 1e-12

    def test_slices_are_least_at_the_truth(self) -> None:
        found = slices(Population(model(14)), 5)
        assert found["nll"].shape == (model(14).numbers, 5)
        assert torch.equal(found["offset"], torch.linspace(-SLICE, SLICE, 5, dtype=torch.float64))
        assert (found["nll"].argmin(1) == 2).all()
        assert found["least"].abs().max() < 1e-4

    def test_three_observed_dimensions_are_too_many(self) -> None:
        with pytest.raises(ValueError, match="expected at most 2 observed dimensions"):
            Population(model(0, x_dim=3))


def test_drawn_models_are_as_asked() -> None:
    for seed in range(20):
        truth = model(seed, latent_dim=2, x_dim=3, components=4, hidden=5)
        z, component, x = truth.sample(20_000, torch.Generator().manual_seed(seed))
        assert (z.shape, component.shape, x.shape) == ((20_000, 2), (20_000,), (20_000, 3))
        assert (truth.decode(z).std(0).mean() - 2).abs() < 0.1
        assert (truth.decode(z).mean(0).abs() < 0.2).all()
        on = (z @ truth.weight.T + truth.bias > 0).double().mean(0)
        assert ((on > 0) & (on < 1)).all(), "each unit switches where z is"


def test_data_sets_of_two_seeds_have_draws_of_their_own() -> None:
    """The noise of their rows is unrelated, and of the standard deviation that was asked for."""
    config: dict[str, Any] = {"latent_dim": 1, "x_dim": 2, "components": 2, "hidden": 3, "slope": 0.1, "scale": 2.0}
    noises = []
    for seed in (1, 2):
        splits = GmmRelu(**config, noise_std=0.3, points=500, split=[1.0, 0.0, 0.0])(seed)
        order, truth = splits.train.index.argsort(), splits.spec.truth
        assert truth is not None
        assert splits.train.z is not None
        noises.append((splits.train.x - truth.decode(splits.train.z.double()))[order].flatten())
        assert noises[-1].std().item() == pytest.approx(0.3, rel=0.1)
    assert abs(torch.corrcoef(torch.stack(noises))[0, 1].item()) < 0.15
