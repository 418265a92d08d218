"""The VampPrior: its density by the encoder's posteriors one by one, where its inputs start and stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from ivae_lab.config.build import ConfigError
from ivae_lab.core.data import Batch, DataSpec, Image, Splits
from ivae_lab.models.vae import VAE
from ivae_lab.priors.vampprior import VampPrior

Compose = Callable[..., DictConfig]
SplitsOf = Callable[[DictConfig], Splits]
ModelOf = Callable[[DictConfig, DataSpec], VAE]
Built = Callable[..., tuple[VAE, Splits]]
END = torch.tensor(1.0)
SMALL = ("model=vampprior", "model.latent_dim=2", "model.encoder.hidden=8")
DIGITS = ("model=vae_images", "prior=vampprior", "data=digits", "model.latent_dim=2")


@pytest.fixture
def built(tiny: Compose, splits_of: SplitsOf, model_of: ModelOf) -> Built:
    """(*overrides) to a model of three pseudo-inputs and its data."""

    def build(*overrides: str) -> tuple[VAE, Splits]:
        config = tiny(*overrides)
        splits = splits_of(config)
        torch.manual_seed(0)
        return model_of(config, splits.spec), splits

    return build


def prior_of(model: VAE) -> VampPrior:
    assert isinstance(model.prior, VampPrior)
    return model.prior


def reference(model: VAE) -> Any:
    """1/K sum_k q(z given x_k) by PyTorch's densities, each posterior encoded by itself."""
    posteriors = [model.encoder(x.unsqueeze(0), None) for x in prior_of(model).pseudo_inputs()]
    mean, std = (torch.cat([getattr(q, name) for q in posteriors]).detach() for name in ("mean", "std"))
    return MixtureSameFamily(Categorical(torch.ones(len(mean))), Independent(Normal(mean, std), 1))


class TestDensity:
    @pytest.mark.parametrize("overrides", [SMALL, (*DIGITS, "model/networks=convnet")], ids=["tcl", "digits"])
    def test_it_is_the_mean_of_the_encoders_posteriors(self, overrides: tuple[str, ...], built: Built) -> None:
        model, _ = built(*overrides)
        z = 2 * torch.randn(50, 2)
        torch.testing.assert_close(model.prior(None).log_prob(z).detach(), reference(model).log_prob(z))

    def test_responsibilities_are_bayes_rule(self, built: Built) -> None:
        model, splits = built(*SMALL)
        found = model.bound(splits.train[:20], torch.randn(20, 2))
        joint = reference(model).component_distribution.log_prob(found["mean"].unsqueeze(1))
        assert torch.equal(found["cluster"], joint.argmax(-1))

    def test_draws_have_its_moments(self, built: Built) -> None:
        model, splits = built(*SMALL)
        prior_of(model).start_at(5 * splits.train.x[:3])
        law, drawn = reference(model), model.prior(None).sample(200_000, torch.Generator().manual_seed(0))
        torch.testing.assert_close(drawn.mean(0), law.mean, atol=0.02, rtol=0)
        torch.testing.assert_close(drawn.var(0), law.variance, rtol=0.02, atol=0)

    def test_it_teaches_the_encoder_and_the_inputs(self, built: Built) -> None:
        model, _ = built(*SMALL)
        model.prior(None).log_prob(torch.randn(20, 2)).sum().backward()
        for parameter in (*model.encoder.parameters(), prior_of(model).free):
            assert parameter.grad is not None
            assert parameter.grad.any()

    def test_the_elbo_is_below_the_log_likelihood(self, built: Built) -> None:
        """By importance sampling, with a posterior of twice the spread as proposal."""
        model, splits = built(*SMALL, "model.likelihood.variance=1.0")
        row, draws = splits.train[:1], 20_000
        many = Batch(row.x.expand(draws, -1), None, None, row.index.expand(draws))
        with torch.no_grad():
            elbo = model.bound(many, torch.randn(draws, 2))["elbo"]
            q = model.encode(row)
            proposal: Any = Independent(Normal(q.mean[0], 2 * torch.exp(0.5 * q.log_var[0])), 1)
            z = proposal.sample((draws,))
            of_x: Any = Independent(Normal(model.decoder(z), 1.0), 1)
            weights = of_x.log_prob(many.x) + reference(model).log_prob(z) - proposal.log_prob(z)
        log_likelihood = torch.logsumexp(weights, 0) - torch.tensor(draws).log()
        error = elbo.std() / draws**0.5 + weights.sub(weights.max()).exp().std() / draws**0.5
        assert elbo.mean() < log_likelihood + 3 * error
        assert elbo.mean() > log_likelihood - 20  # and of the same row


class TestPseudoInputs:
    def test_they_start_at_training_rows_a_seeds_own(self, built: Built) -> None:
        model, splits = built(*SMALL)
        assert model.starts_from_data
        chosen = []
        for seed in (0, 0, 1):
            model.start(splits.train, torch.empty(0), seed)
            inputs = prior_of(model).pseudo_inputs()
            rows = (splits.train.x.unsqueeze(0) == inputs.unsqueeze(1)).all(-1).nonzero()[:, 1]
            assert len(set(rows.tolist())) == 3
            chosen.append(rows.tolist())
        assert chosen[0] == chosen[1] != chosen[2]

    def test_of_images_they_start_near_training_rows_and_stay_in_their_range(self, built: Built) -> None:
        model, splits = built(*DIGITS)
        model.start(splits.train, torch.empty(0), 0)
        inputs = prior_of(model).pseudo_inputs().detach()
        gaps = (model.observed(splits.train).unsqueeze(0) - inputs.unsqueeze(1)).abs().amax(-1)  # (K, N)
        assert (gaps.amin(1) < 0.0101).all()
        self.drive_away(model, splits.train[:16])
        moved = prior_of(model).pseudo_inputs().detach()
        assert (moved - inputs).abs().max() > 0.1
        assert moved.min() >= 0
        assert moved.max() <= 1

    def test_of_colour_images_the_range_is_around_zero(
        self, tiny: Compose, splits_of: SplitsOf, model_of: ModelOf
    ) -> None:
        image = Image(3, 4, 4)
        spec = DataSpec(48, 0, None, 20, binary=False, image=image)
        model = model_of(tiny(*DIGITS), spec)
        x = torch.randint(256, (20, 48), dtype=torch.uint8)
        model.start(Batch(x, None, None, torch.arange(20)), torch.empty(0), 0)
        inputs = prior_of(model).pseudo_inputs()
        assert inputs.abs().max() <= 0.5
        assert inputs.min() < -0.4
        gaps = (x.float().div(255).sub(0.5).unsqueeze(0) - inputs.unsqueeze(1)).abs().amax(-1)
        assert (gaps.amin(1) < 0.0101).all()

    @staticmethod
    def drive_away(model: VAE, batch: Batch) -> None:
        optimiser = torch.optim.Adam([prior_of(model).free], lr=1.0)
        for _ in range(30):
            optimiser.zero_grad()
            noise: Tensor = torch.randn(len(batch), model.noise_dim + model.live_dim)
            torch.autograd.backward(model.loss(batch, noise, END)["loss"])
            optimiser.step()

    def test_binary_data_have_a_range_too(self, built: Built) -> None:
        model, _ = built("model=vampprior", "data=tcl_discrete", "model/likelihood=bernoulli")
        assert prior_of(model).limits == (0.0, 1.0)


@pytest.mark.parametrize("networks", ["mlp", "convnet"])
@pytest.mark.slow
def test_on_images_it_trains_stacked_as_alone(networks: str, tiny: Compose, train: Any) -> None:
    config = tiny(*DIGITS, f"model/networks={networks}", "trainer.eps=0.01")
    together, alone = train(config, [0, 1]), train(config, [1])
    for key, value in alone.stack.parameters.items():
        torch.testing.assert_close(together.stack.parameters[key][1], value[0], atol=1e-5, rtol=1e-5)
    inputs = together.stack.parameters["prior.free"]
    assert not torch.equal(inputs[0], inputs[1])


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["model=ivae_paper"], r"for a VampPrior, got sees_u=true, covariance=diagonal"),
        (["model=vae_matched"], r"for a VampPrior, got sees_u=false, covariance=full"),
        (["model=gmm_flow"], r"expected a prior that is not fitted to encoded data for a flow, got VampPrior"),
        (["model=ae", "data=digits"], r"expected a VAE for a VampPrior, whose components are posteriors"),
        (["model=vampprior", "prior.components=1000"], r"expected at least 1000 training rows .* got 96"),
    ],
)
def test_what_has_no_such_posteriors_is_refused(
    overrides: list[str], told: str, tiny: Compose, splits_of: SplitsOf, model_of: ModelOf
) -> None:
    config = tiny(*overrides, "prior=vampprior")
    spec = splits_of(config).spec
    if any(each.startswith("prior.components") for each in overrides):
        config.prior.components = 1000
        spec = replace(spec, train_rows=96)
    with pytest.raises(ConfigError, match=told):
        model_of(config, spec)
