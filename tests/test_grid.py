"""The relaxed VQ-VAE: responsibilities, KL, ELBO and draws against their definitions; the autoencoder beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch.distributions import Categorical, kl_divergence

from ivae_lab.distributions import NormalMixture
from ivae_lab.models.grid import GridAutoencoder
from ivae_lab.types import Batch

Compose = Callable[..., DictConfig]
SMALL = ("data=digits", "model.latent_dim=3", "model.encoder.channels=5", "data.train_rows=64")
ROWS = 6


@pytest.fixture
def built(tiny: Compose, splits_of: Callable[..., Any], model_of: Callable[..., Any]) -> Any:
    """(*overrides) to a model and a batch of digits."""

    def build(*overrides: str) -> tuple[GridAutoencoder, Batch]:
        config = tiny(*SMALL, *overrides)
        splits = splits_of(config)
        torch.manual_seed(0)
        return model_of(config, splits.spec), splits.train[:ROWS]

    return build


def noise_for(model: GridAutoencoder) -> torch.Tensor:
    return torch.randn(ROWS, model.live_dim, generator=torch.Generator().manual_seed(1))


def log_responsibilities(model: GridAutoencoder, grid: torch.Tensor) -> torch.Tensor:
    """By the mixture's own densities."""
    mixture: NormalMixture = model.prior(None)
    return torch.log_softmax(mixture.log_joint(grid), -1)


def test_the_posterior_over_codes_is_the_mixtures_responsibilities(built: Any) -> None:
    model, batch = built("model=rvqvae", "prior.codes=7")
    grid = model.encoder(model.pixels(batch.x, None), None)
    assert grid.shape == (ROWS, 4, 3)  # 8 x 8 pixels, a quarter of it
    expected = log_responsibilities(model, grid).exp()
    codes = model.prior.mean
    torch.testing.assert_close(model.posterior_mean(batch), (expected @ codes).flatten(1))
    variance = (expected @ codes**2 - (expected @ codes) ** 2).flatten(1)
    torch.testing.assert_close(model.encode(batch).log_var.exp(), variance, atol=1e-5, rtol=1e-4)


def test_the_elbo_is_the_likelihood_at_drawn_codes_less_the_kl_from_uniform_weights(built: Any) -> None:
    model, batch = built("model=rvqvae", "prior.codes=7")
    found = model.bound(batch, noise_for(model))
    x = model.pixels(batch.x, noise_for(model)[:, : model.pixels.noise_dim])
    log_r = log_responsibilities(model, model.encoder(x, None))
    kl = kl_divergence(Categorical(logits=log_r), Categorical(logits=torch.zeros(7))).sum(-1)
    torch.testing.assert_close(found["kl"], kl, atol=1e-5, rtol=1e-4)
    drawn = found["sample"].unflatten(1, (4, 3))
    distance = (drawn.unsqueeze(2) - model.prior.mean).norm(dim=-1)  # (B, P, K)
    assert distance.min(-1).values.max() < 1e-6  # each position holds a code
    logits = model.decoder(drawn, None)
    log_likelihood = -torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
    torch.testing.assert_close(found["log_likelihood"], log_likelihood)
    torch.testing.assert_close(found["elbo"], log_likelihood - kl)


def test_codes_are_drawn_as_often_as_the_responsibilities_say(built: Any) -> None:
    model, batch = built("model=rvqvae", "prior.codes=4", "data.binarisation=none", "data.test_binarisation=none")
    many = Batch(batch.x[:1].expand(4000, -1), None, None, torch.arange(4000))
    noise = torch.randn(4000, model.live_dim, generator=torch.Generator().manual_seed(0))
    drawn = model.bound(many, noise)["sample"].unflatten(1, (4, 3))
    log_r = log_responsibilities(model, model.encoder(model.pixels(batch.x[:1], None), None))[0]  # (P, K)
    nearest = (drawn.unsqueeze(2) - model.prior.mean).norm(dim=-1).argmin(-1)  # (4000, P)
    frequencies = torch.nn.functional.one_hot(nearest, 4).double().mean(0)
    torch.testing.assert_close(frequencies, log_r.exp().double(), atol=0.03, rtol=0)


def test_at_a_low_temperature_training_sees_the_drawn_codes(built: Any) -> None:
    """Batch statistics apart, which only training uses: so the loss is taken by hand."""
    model, batch = built("model=rvqvae", "prior.codes=5", "model.temperature=0.0001")
    noise = noise_for(model)
    x = model.pixels(batch.x, noise[:, : model.pixels.noise_dim])
    log_r = log_responsibilities(model, model.encoder(x, noise[:, :0]))
    chosen = (log_r + model._gumbel(noise)).argmax(-1)
    log_likelihood = model.likelihood.log_prob(x, model.decoder(model.prior.mean[chosen], noise[:, :0]), torch.ones(()))
    terms = model.loss(batch, noise, torch.zeros(()))
    torch.testing.assert_close(terms["log_likelihood"], log_likelihood.mean(), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(terms["loss"], terms["kl"] - terms["log_likelihood"])


def test_the_autoencoder_decodes_its_vectors_as_they_are_and_has_no_elbo(built: Any) -> None:
    model, batch = built("model=ae")
    found = model.bound(batch, noise_for(model))
    assert torch.equal(found["mean"], found["sample"])
    assert torch.equal(found["mean"], model.posterior_mean(batch)) is not model.pixels.redrawn
    assert "elbo" not in found
    q = model.encode(batch)
    assert torch.equal(q.rsample(torch.randn(q.mean.shape)), q.mean)


def test_a_position_of_a_prior_that_needs_u_is_refused(built: Any) -> None:
    with pytest.raises(ValueError, match="expected u for a conditional prior, got none"):
        built("model=rvqvae", "prior=conditional_table_k2")


def test_images_of_other_sides_are_refused(built: Any) -> None:
    from ivae_lab.grid_nets import GridEncoder
    from ivae_lab.types import DataSpec, Image

    with pytest.raises(ValueError, match=r"expected images whose sides are multiples of 4, got 30 x 28"):
        GridEncoder(DataSpec(840, 0, None, 10, True, Image(1, 30, 28)), 3, channels=4)
    with pytest.raises(ValueError, match="expected images for a grid of latents, got data that are no images"):
        GridEncoder(DataSpec(840, 0, None, 10, True), 3, channels=4)
