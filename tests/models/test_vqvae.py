"""The relaxed VQ-VAE: responsibilities, KL, ELBO and draws against their definitions; the autoencoder beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig
from torch import nn
from torch.distributions import Categorical, kl_divergence

from ivae_lab.config.build import ConfigError
from ivae_lab.core.data import Batch
from ivae_lab.distributions.densities import NormalMixture
from ivae_lab.engine.evaluate import DRAWS, encode, examples
from ivae_lab.engine.steps import TERMS
from ivae_lab.models.vqvae import Autoencoder, GridAutoencoder
from ivae_lab.networks.grid import _Block
from ivae_lab.plots.image_examples import _fill

Compose = Callable[..., DictConfig]
SMALL = ("data=digits", "model.latent_dim=3", "model.encoder.channels=5", "data.train_rows=64")
ROWS = 6


@pytest.fixture
def built(tiny: Compose, splits_of: Callable[..., Any], model_of: Callable[..., Any]) -> Any:
    """(*overrides) to a model and a batch of digits."""

    def build(*overrides: str) -> tuple[Autoencoder, Batch]:
        config = tiny(*SMALL, *overrides)
        splits = splits_of(config)
        torch.manual_seed(0)
        return model_of(config, splits.spec), splits.train[:ROWS]

    return build


def noise_for(model: Autoencoder) -> torch.Tensor:
    return torch.randn(ROWS, model.live_dim, generator=torch.Generator().manual_seed(1))


def log_responsibilities(model: GridAutoencoder, grid: torch.Tensor) -> torch.Tensor:
    """By the mixture's own densities."""
    mixture: NormalMixture = model.prior(None)
    return torch.log_softmax(mixture.log_joint(grid), -1)


def test_a_block_adds_to_what_it_is_given() -> None:
    block, h = _Block(4), torch.randn(ROWS, 4, 6, 5, generator=torch.Generator().manual_seed(0))
    assert not torch.isclose(block(h, None), h).all()
    nn.init.zeros_(block.narrow.weight)
    torch.testing.assert_close(block(h, None), h)
    torch.testing.assert_close(block(h, torch.zeros(ROWS, 0)), h)  # in training


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


def test_the_autoencoder_trains_on_its_log_likelihood_alone(built: Any) -> None:
    model, batch = built("model=ae", "data.binarisation=none", "data.test_binarisation=none")
    terms = model.loss(batch, noise_for(model), torch.zeros(()))
    x = model.pixels(batch.x, None)
    logits = model.decoder(model.encoder(x, noise_for(model)[:, :0]), noise_for(model)[:, :0])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1).mean()
    torch.testing.assert_close(terms["loss"], expected)
    torch.testing.assert_close(terms["log_likelihood"], -expected)
    assert {name for name in TERMS if terms[name].isnan()} == {"elbo", "kl"}


def test_its_history_and_results_have_no_elbo_and_it_has_not_diverged(tiny: Compose, train: Any) -> None:
    module = train(tiny(*SMALL, "model=ae"), [0, 1])
    module.record([[None, None]])
    assert not module.members[0].diverged
    for row in module.members[0].history:
        assert np.isfinite([row["loss"], row["log_likelihood"]]).all()
        assert np.isnan([row["elbo"], row["kl"]]).all()
    for part in encode(module.stack, module.members[0].splits, torch.device("cpu")):
        assert list(part.terms) == ["log_likelihood"]


@pytest.mark.parametrize("key", ["beta", "temperature"])
def test_what_only_the_vq_vae_reads_is_no_key_of_the_autoencoder(built: Any, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model\.{key}: expected one of .*; got an unknown key"):
        built("model=ae", f"+model.{key}=2.0")


@pytest.mark.parametrize("model", ["rvqvae", "ae"])
def test_a_prior_that_would_be_fitted_is_refused(built: Any, model: str) -> None:
    """Nothing would fit it: its numbers would be those that it was drawn with."""
    with pytest.raises(ConfigError, match=r"^model: expected a prior that is not fitted .*, got init=gmm$"):
        built(f"model={model}", "prior=gmm_fitted")


def test_a_vq_vae_without_codes_is_refused(built: Any) -> None:
    with pytest.raises(ConfigError, match=r"expected a mixture prior for a relaxed VQ-VAE, got StandardNormal"):
        built("model=rvqvae", "prior=normal")


def test_samples_are_decoded_from_codes_or_from_the_prior(built: Any) -> None:
    for name in ("rvqvae", "ae"):
        model, batch = built(f"model={name}")
        drawn = model.sample(5, None, torch.Generator().manual_seed(0))
        assert drawn.shape == (5, batch.x.shape[1])
        assert set(drawn.unique().tolist()) == {0, 1}
    model, _ = built("model=rvqvae", "prior.codes=3")
    vectors = model._from_prior(3000, torch.Generator().manual_seed(0), 1.0)
    used, counts = vectors.unique(dim=0, return_counts=True)
    torch.testing.assert_close(used, model.prior.mean.detach().unique(dim=0))
    assert counts.min() > 900


def test_examples_are_drawn_from_the_codes_by_their_weights(built: Any) -> None:
    model, batch = built("model=rvqvae", "prior.codes=3")
    noise = torch.stack([torch.full((12,), -9.0), torch.full((12,), 9.0)])  # 4 places of 3 latents: the first, the last
    drawn = model.examples(batch, noise)["drawn"]
    assert drawn.shape == (1, 2, batch.x.shape[1])
    for image, code in zip(drawn[0], (model.prior.mean[0], model.prior.mean[2]), strict=True):
        torch.testing.assert_close(image, model.expected(code.repeat(1, 4))[0])
    model.prior.log_weights.copy_(torch.tensor([0.5, 0.2, 0.3]).log())
    chosen = model._drawn_codes(torch.randn(5000, 12, generator=torch.Generator().manual_seed(0)))
    assert chosen.shape == (5000, 4)
    for place in chosen.mT:
        torch.testing.assert_close(place.bincount() / 5000, torch.tensor([0.5, 0.2, 0.3]), atol=0.03, rtol=0)
    assert abs(np.corrcoef(chosen.mT.numpy())[0, 1]) < 0.05  # each place by itself


@pytest.mark.parametrize(
    ("name", "panels"),
    [("rvqvae", ["images, and below each its reconstruction", "drawn from the prior"]), ("ae", ["images, and below"])],
)
def test_a_figure_of_examples_has_what_there_is(tiny: Compose, train: Any, name: str, panels: list[str]) -> None:
    module = train(tiny(*SMALL, f"model={name}"), [0, 1])
    splits = module.members[0].splits
    arrays = examples(module.stack, splits.test, splits.spec.image, torch.device("cpu"))
    figure = Figure()
    _fill(figure, arrays)
    assert [axis.get_title()[: len(told)] for axis, told in zip(figure.axes, panels, strict=True)] == panels
    if name == "rvqvae":
        assert arrays["drawn"].shape == (2, 1, DRAWS, splits.spec.x_dim)
        assert (arrays["drawn"][0] != arrays["drawn"][1]).any()


def test_a_position_of_a_prior_that_needs_u_is_refused(built: Any) -> None:
    with pytest.raises(ValueError, match="expected u for a conditional prior, got none"):
        built("model=rvqvae", "prior=conditional_table_k2")


def test_images_of_other_sides_are_refused(built: Any) -> None:
    from ivae_lab.core.data import DataSpec, Image
    from ivae_lab.networks.grid import GridEncoder

    with pytest.raises(ValueError, match=r"expected images whose sides are multiples of 4, got 30 x 28"):
        GridEncoder(DataSpec(840, 0, None, 10, True, Image(1, 30, 28)), 3, channels=4)
    with pytest.raises(ValueError, match="expected images for a grid of latents, got data that are no images"):
        GridEncoder(DataSpec(840, 0, None, 10, True), 3, channels=4)
