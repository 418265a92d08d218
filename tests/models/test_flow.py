"""Flows: densities against numerical integration, the prior of class statistics, sampling, and sizes of the papers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from scipy.stats import norm
from torch import Tensor

from ivae_lab.config.build import ConfigError
from ivae_lab.core.data import Batch, DataSpec, Image, Splits
from ivae_lab.distributions.densities import Normal
from ivae_lab.engine.evaluate import encode, principal_std, settle
from ivae_lab.engine.module import SeedsModule
from ivae_lab.models.base import Model
from ivae_lab.models.flow import Flow
from ivae_lab.networks.invertible import Chain, Transform
from ivae_lab.priors.class_statistics import ClassStatistics

Compose = Callable[..., DictConfig]
ModelOf = Callable[[DictConfig, DataSpec], Model]
FLAT = ("gin", "gin_released", "glow", "nice", "gmm_flow", "iflow")
TWO_D, FOUR_D = (DataSpec(n, 3, 2, 1000, False) for n in (2, 4))


def flow_of(
    model_of: ModelOf, composed: Compose, name: str, spec: DataSpec, *overrides: str, shake: float = 0.1
) -> Flow:
    """A flow in float64 with weights that are not those of the start."""
    torch.manual_seed(0)
    model = model_of(composed(f"model={name}", *overrides), spec).double()
    assert isinstance(model, Flow)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(shake * torch.randn_like(parameter))
    return model


def batch_of(x: Tensor, u: Tensor | None) -> Batch:
    return Batch(x, u, None, torch.arange(len(x)))


def settled(model: Flow, rows: int = 300) -> Flow:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(rows, model.latent_dim, generator=generator, dtype=torch.float64)
    if model.settles:
        model.settle([batch_of(x, torch.arange(rows) % model.u_dim)])
    return model


IN_3D = (("gin", 3, 45), ("gin_released", 3, 45))


@pytest.mark.parametrize(("name", "size", "count"), [*((name, 2, 150) for name in FLAT), *IN_3D])
@pytest.mark.slow
def test_the_density_integrates_to_one(name: str, size: int, count: int, composed: Compose, model_of: ModelOf) -> None:
    """Of two dimensions GIN has no scales, of three one half has them."""
    model = settled(flow_of(model_of, composed, name, DataSpec(size, 3, 2, 1000, False)))
    one = torch.ones(2000, dtype=torch.int64)
    with torch.no_grad():
        drawn = model.sample(2000, one, torch.Generator().manual_seed(0))
        low, high = drawn.min(0).values, drawn.max(0).values
        lines = [torch.linspace(a, b, count).double() for a, b in zip(low - 1, high + 1, strict=True)]
        x = torch.cartesian_prod(*lines)
        log_p = model.bound(batch_of(x, torch.ones(len(x), dtype=torch.int64)), x[:, :0])["log_likelihood"]
    total = log_p.exp().sum() * ((high - low + 2) / (count - 1)).prod()
    assert total.item() == pytest.approx(1, abs=0.015)  # the samples' range misses some of the tails


@pytest.mark.parametrize("name", FLAT)
class TestSampling:
    @pytest.mark.slow
    def test_samples_are_what_the_prior_says_once_encoded(
        self, name: str, composed: Compose, model_of: ModelOf
    ) -> None:
        model, u = settled(flow_of(model_of, composed, name, FOUR_D)), torch.arange(6000) % 3
        with torch.no_grad():
            x = model.sample(6000, u, torch.Generator().manual_seed(0))
            z = model.posterior_mean(batch_of(x, u))
            expected = model.prior(u).sample(6000, torch.Generator().manual_seed(0))
        torch.testing.assert_close(z, expected, atol=1e-3, rtol=1e-3)  # zuko inverts to 1e-4

    @pytest.mark.slow
    def test_a_temperature_scales_the_spread(self, name: str, composed: Compose, model_of: ModelOf) -> None:
        model, u = settled(flow_of(model_of, composed, name, FOUR_D)), torch.zeros(4000, dtype=torch.int64)
        prior: Any = model.prior(u)
        with torch.no_grad():
            drawn = [
                model.posterior_mean(batch_of(model.sample(4000, u, torch.Generator().manual_seed(0), heat), u))
                for heat in (1.0, 0.5)
            ]
        if name == "gmm_flow":  # the components' centres stay apart
            assert drawn[1].std(0).sum() < drawn[0].std(0).sum()
        else:
            torch.testing.assert_close(drawn[1].std(0), 0.5 * drawn[0].std(0), atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(drawn[1].mean(0), prior.mean.expand(4000, 4)[0], atol=0.1, rtol=0.1)

    def test_a_temperature_of_nothing_is_refused(self, name: str, composed: Compose, model_of: ModelOf) -> None:
        model = flow_of(model_of, composed, name, FOUR_D)
        with pytest.raises(ValueError, match="expected a temperature above 0, got 0"):
            model.sample(2, torch.zeros(2, dtype=torch.int64), torch.Generator(), 0)


@pytest.mark.parametrize(
    ("name", "spec", "numbers"),
    [
        ("gin", DataSpec(10, 5, 2, 1000, False), 4_480),
        ("gin_released", DataSpec(10, 5, 2, 1000, False), 4_480),
        ("glow", DataSpec(10, 5, 2, 1000, False), 4_480),
        ("glow_images", DataSpec(784, 10, None, 1000, True, Image(1, 28, 28)), 2_620_192),
        ("gin_images", DataSpec(784, 10, None, 1000, True, Image(1, 28, 28)), 2_620_192),
    ],
)
def test_networks_have_as_many_parameters_as_the_paper_says(
    name: str, spec: DataSpec, numbers: int, composed: Compose, model_of: ModelOf
) -> None:
    model = model_of(composed(f"model={name}"), spec)
    assert sum(parameter.numel() for parameter in model.parameters()) == numbers


class TestLoss:
    def test_is_the_mean_of_the_exact_log_likelihood(self, composed: Compose, model_of: ModelOf) -> None:
        model = flow_of(model_of, composed, "iflow", TWO_D)
        x, u = torch.randn(50, 2, dtype=torch.float64), torch.arange(50) % 3
        terms = model.loss(batch_of(x, u), x[:, :0], torch.tensor(1.0))
        bound = model.bound(batch_of(x, u), x[:, :0])
        torch.testing.assert_close(-terms["loss"], bound["log_likelihood"].mean())
        assert torch.equal(terms["elbo"], terms["log_likelihood"])
        assert torch.equal(bound["elbo"], bound["log_likelihood"])
        assert terms["kl"] == 0

    def test_noise_is_added_to_x(self, composed: Compose, model_of: ModelOf) -> None:
        model = flow_of(model_of, composed, "iflow", TWO_D, "model.noise_std=.5")
        x, u, noise = torch.randn(20, 2).double(), torch.arange(20) % 3, torch.randn(20, 2).double()
        assert model.live_dim == 2
        moved = model.bound(batch_of(x + 0.5 * noise, u), noise)["log_likelihood"].mean()
        torch.testing.assert_close(-model.loss(batch_of(x, u), noise, torch.tensor(0.0))["loss"], moved)

    def test_bits_per_dimension_are_those_of_bytes(self, composed: Compose, model_of: ModelOf) -> None:
        """At its start the flow only permutes, so a byte is Gaussian, with the density that SciPy says."""
        spec = DataSpec(64, 1, None, 100, False, Image(1, 8, 8))
        model = model_of(composed("model=gin_images", "model.noise_std=0"), spec)
        x = torch.randint(256, (50, 64), dtype=torch.uint8)
        batch = batch_of(x, torch.zeros(50, dtype=torch.int64))
        model.settle([batch])
        found = model.bound(batch, torch.zeros(50, 0))["bits_per_dimension"].detach()
        b = x.double().numpy()
        nats = -norm.logpdf(b, b.mean(0), b.std(0)).mean(1)
        np.testing.assert_allclose(found, nats / np.log(2), rtol=1e-4)


class Stretch(Transform):
    """Makes one latent wider and another narrower, and keeps the volume."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * torch.tensor([30.0, 1 / 30, 1, 1], dtype=x.dtype), torch.zeros_like(x[:, 0])


def test_the_likelihood_does_not_say_which_of_gins_latents_is_wide(composed: Compose, model_of: ModelOf) -> None:
    """So the spectrum from which the paper reads importance is left to where the training starts and goes."""
    model = flow_of(model_of, composed, "gin", FOUR_D, "model.noise_std=0")
    x, u = torch.randn(90, 4, dtype=torch.float64), torch.arange(90) % 3
    batch, end = batch_of(x, u), torch.tensor(1.0)
    before, narrow = model.loss(batch, x[:, :0], end)["loss"], model.posterior_mean(batch).std(0)
    model.transform = Chain([model.transform, Stretch()])
    torch.testing.assert_close(model.loss(batch, x[:, :0], end)["loss"], before)
    assert (model.posterior_mean(batch).std(0) / narrow)[0].item() == pytest.approx(30)


class TestExamplesOfClasses:
    """What is shown of each class is what its latents say, once it is encoded again."""

    SPEC = DataSpec(64, 3, None, 100, True, Image(1, 8, 8))

    @pytest.fixture
    def shown(self, composed: Compose, model_of: ModelOf) -> tuple[Flow, dict[str, Tensor], Tensor]:
        model = flow_of(model_of, composed, "gin_images", self.SPEC, "model.transform.hidden=16", shake=0.01).float()
        x = (120 + 10 * torch.randn(300, 64)).to(torch.uint8)  # so that no value that is shown is cut off at 0 or 1
        batch, noise = batch_of(x, torch.arange(300) % 3), torch.randn(5, 64)
        model.settle([batch])
        return model, model.examples(batch, noise), noise

    def test_one_latent_moves_by_two_standard_deviations(self, shown: tuple[Flow, dict[str, Tensor], Tensor]) -> None:
        model, arrays, _ = shown
        mean, std = arrays["prior_mean"], arrays["prior_std"]  # (3, n)
        images = arrays["class_traversals"]
        assert images.shape == (24, 3, 9, 64)
        z = model.transform(images.reshape(-1, 64))[0].reshape(images.shape)
        for place, latent in enumerate(arrays["class_traversed"].tolist()):
            moved = (z[place] - mean[:, None]) / std[:, None]  # (3, 9, n)
            steps = torch.linspace(-2, 2, 9).expand(3, 9)
            torch.testing.assert_close(moved[..., latent], steps, atol=1e-3, rtol=0)
            moved[..., latent] = 0
            assert moved.abs().max() < 1e-3

    def test_they_are_those_of_largest_spread_over_the_classes(
        self, shown: tuple[Flow, dict[str, Tensor], Tensor]
    ) -> None:
        _, arrays, _ = shown
        mean, std = (arrays[name].detach().numpy() for name in ("prior_mean", "prior_std"))
        spread = (std**2).mean(0) + mean.var(0)
        assert arrays["class_traversed"].tolist() == np.argsort(-spread)[:24].tolist()

    def test_draws_are_the_same_in_every_class(self, shown: tuple[Flow, dict[str, Tensor], Tensor]) -> None:
        model, arrays, noise = shown
        images = arrays["class_drawn"]
        assert images.shape == (3, 3, 5, 64)
        z = model.transform(images.reshape(-1, 64))[0].reshape(images.shape)
        drawn = (z - arrays["prior_mean"][:, None]) / arrays["prior_std"][:, None]  # (3, 3, 5, n)
        leading = torch.zeros(64)
        leading[arrays["class_traversed"][:22]] = 1
        for place, factor in enumerate((torch.ones(64), leading, 0.8 * leading)):
            torch.testing.assert_close(drawn[place], (factor * noise).expand(3, 5, 64), atol=1e-3, rtol=0)


def test_principal_components_of_bytes_are_scikit_learns() -> None:
    from sklearn.decomposition import PCA

    x = torch.randint(0, 256, (200, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    x[:, 3] = 7  # a component of no spread
    expected = np.sqrt(PCA().fit(x.numpy() / 255).explained_variance_)
    np.testing.assert_allclose(principal_std(x), expected, atol=1e-7)


class TestClassStatistics:
    def test_a_batchs_prior_has_its_means_and_variances(self) -> None:
        prior = ClassStatistics(3, 4)
        z, u = torch.randn(90, 3).double(), torch.randint(3, (90,))  # no row of class 3
        found = prior.of_batch(z, u)
        for label in range(3):
            own = z[u == label].numpy()
            row = int(torch.nonzero(u == label)[0])
            np.testing.assert_allclose(found.mean[row], own.mean(0), atol=1e-12)
            np.testing.assert_allclose(found.log_var[row].exp(), own.var(0), rtol=1e-6)

    def test_the_loss_is_that_of_the_spreads_alone(self) -> None:
        """With the batch's own statistics the quadratic term is n / 2 whatever z, so only log s is left to minimise."""
        z, u = torch.randn(200, 2).double(), torch.arange(200) % 2
        prior = ClassStatistics(2, 2).of_batch(z, u)
        expected = -(0.5 * math.log(2 * math.pi) + 0.5 * prior.log_var + 0.5).sum(-1)
        assert prior.log_prob(z).mean().item() == pytest.approx(expected.mean().item(), abs=1e-6)

    def test_gradients_flow_through_the_statistics(self) -> None:
        z = torch.randn(30, 2).double().requires_grad_()
        u = torch.arange(30) % 2
        prior = ClassStatistics(2, 2)
        assert torch.autograd.gradcheck(lambda value: prior.of_batch(value, u).log_prob(value).mean(), (z,))

    def test_a_class_of_one_row_has_a_finite_gradient(self) -> None:
        z = torch.randn(3, 2).requires_grad_()
        (gradient,) = torch.autograd.grad(
            ClassStatistics(2, 2).of_batch(z, torch.tensor([0, 1, 1])).log_prob(z).sum(), z
        )
        assert gradient.isfinite().all()
        assert not gradient[0].any()

    def test_settles_on_all_rows_however_they_come(self) -> None:
        z, u = 3 + 0.1 * torch.randn(500, 2), torch.randint(3, (500,))
        whole, blocks = ClassStatistics(2, 4), ClassStatistics(2, 4)
        posterior = Normal(z, torch.full_like(z, math.log(0.5)))
        whole.settle([(posterior, u)])
        parts = (Normal(part, torch.full_like(part, math.log(0.5))) for part in torch.split(z, 64))
        blocks.settle(zip(parts, torch.split(u, 64), strict=True))
        for name, value in whole.named_buffers():
            torch.testing.assert_close(value, dict(blocks.named_buffers())[name])
        expected = z[u == 1].var(0, correction=0) + 0.5
        np.testing.assert_allclose(whole.get_buffer("log_var")[1].exp(), expected, rtol=1e-4)
        assert whole.get_buffer("log_var")[3].tolist() == [0, 0]  # of no rows

    def test_refuses_data_without_u(self) -> None:
        with pytest.raises(ValueError, match="expected data with an auxiliary variable u for statistics per class"):
            ClassStatistics(2, 0)


@pytest.mark.parametrize("name", ["gin", "vae"])
@pytest.mark.slow
def test_every_seed_settles_on_its_own_latents(
    name: str,
    tiny: Compose,
    train: Callable[[DictConfig, list[int]], SeedsModule],
    splits_of: Callable[[DictConfig], Splits],
) -> None:
    config = tiny(f"model={name}", "prior=class_statistics")
    module = train(config, [0, 5])
    stack, rows = module.stack, splits_of(config).train
    before = stack.buffers["prior.mean"].clone()
    settle(stack, rows)
    assert not torch.equal(stack.buffers["prior.mean"], before)
    z = stack.map("posterior_mean", rows)  # (S, N, n)
    assert rows.u is not None
    for label in range(4):
        # of a flow the rows have noise of .01
        own = z[:, rows.u == label].mean(1)
        torch.testing.assert_close(stack.buffers["prior.mean"][:, label], own, atol=0.02, rtol=0.02)
    (part,) = encode(stack, splits_of(config), torch.device("cpu"))
    model = stack.model(0)
    noise = torch.randn(len(rows), model.noise_dim + model.live_dim, generator=torch.Generator().manual_seed(0))
    trained = model.loss(rows, noise, torch.tensor(1.0))["elbo"].item()  # the statistics of a batch of all rows
    assert part.terms["elbo"][0] == pytest.approx(trained, abs=0.1 * abs(trained) + 0.3)


class TestRefuses:
    def test_binary_observations(self, composed: Compose, model_of: ModelOf) -> None:
        with pytest.raises(ConfigError, match="model: expected real-valued observations for a flow"):
            model_of(composed("model=iflow"), DataSpec(4, 3, 2, 100, True))

    def test_images_that_are_drawn_anew(self, composed: Compose, model_of: ModelOf) -> None:
        with pytest.raises(ConfigError, match=r"expected grey levels .*got images that are binarised anew"):
            model_of(composed("model=gin_images"), DataSpec(64, 3, None, 100, True, Image(1, 8, 8, redrawn=True)))

    def test_a_prior_that_is_fitted(self, composed: Compose, model_of: ModelOf) -> None:
        with pytest.raises(ConfigError, match="expected a prior that is not fitted to encoded data for a flow"):
            model_of(composed("model=gmm_flow", "prior=gmm_fitted"), TWO_D)
