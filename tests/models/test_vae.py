"""The VAE family and its likelihoods: one model at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from ivae_lab.config.build import ConfigError
from ivae_lab.core.data import Batch, DataSpec
from ivae_lab.models.likelihoods import BernoulliLikelihood, GaussianLikelihood
from ivae_lab.models.objectives import FourTerms

reference: Any = torch.distributions  # its methods have no types
REAL = DataSpec(x_dim=3, u_dim=4, source_dim=2, train_rows=100, binary=False)
BINARY = replace(REAL, binary=True)
END = torch.tensor(1.0)

Compose = Callable[..., DictConfig]
Build = Callable[[DictConfig, DataSpec], Any]


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def batch(rows: int = 12, spec: DataSpec = REAL) -> Batch:
    x = draws(rows, spec.x_dim, seed=1)
    u = torch.arange(rows) % spec.u_dim if spec.u_dim else None
    return Batch((x > 0).float() if spec.binary else x, u, None, torch.arange(rows))


class TestLikelihoods:
    def test_bernoulli_is_that_of_torch_distributions(self) -> None:
        x, logits = batch(spec=BINARY).x, 3 * draws(12, 3)
        expected = reference.Bernoulli(logits=logits).log_prob(x).sum(-1)
        torch.testing.assert_close(BernoulliLikelihood(BINARY).log_prob(x, logits, END), expected)

    def test_bernoulli_stays_finite_at_extreme_logits(self) -> None:
        logits = torch.tensor([[1e4, -1e4, 0.0]])
        right, wrong = torch.tensor([[1.0, 0.0, 1.0]]), torch.tensor([[0.0, 1.0, 1.0]])
        likelihood = BernoulliLikelihood(BINARY)
        assert likelihood.log_prob(right, logits, END).item() == pytest.approx(-0.6931472)
        assert likelihood.log_prob(wrong, logits, END).item() == pytest.approx(-2e4, rel=1e-3)

    def test_bernoulli_samples_have_its_probabilities(self) -> None:
        logits = torch.tensor([-2.0, 0.0, 1.5]).expand(20_000, 3)
        x = BernoulliLikelihood(BINARY).sample(logits, torch.Generator().manual_seed(0))
        assert set(x.flatten().tolist()) == {0.0, 1.0}
        torch.testing.assert_close(x.mean(0), torch.sigmoid(logits[0]), atol=0.015, rtol=0)

    def test_bernoulli_needs_binary_data(self) -> None:
        with pytest.raises(ValueError, match="expected binary observations"):
            BernoulliLikelihood(REAL)

    def test_gaussian_is_that_of_torch_distributions(self) -> None:
        x, output = batch().x, draws(12, 3)
        expected = reference.Normal(output, 0.2**0.5).log_prob(x).sum(-1)
        torch.testing.assert_close(GaussianLikelihood(REAL, variance=0.2).log_prob(x, output, END), expected)

    def test_gaussian_samples_have_its_variance(self) -> None:
        output = torch.tensor([-2.0, 0.0, 1.5]).expand(20_000, 3)
        x = GaussianLikelihood(REAL, variance=0.2).sample(output, torch.Generator().manual_seed(0))
        torch.testing.assert_close(x.mean(0), output[0], atol=0.015, rtol=0)
        torch.testing.assert_close(x.var(0), torch.full((3,), 0.2), atol=0.01, rtol=0)

    def test_a_fixed_variance_is_no_parameter(self) -> None:
        assert not list(GaussianLikelihood(REAL, variance=0.2).parameters())

    def test_a_learned_variance_gets_the_gradient_that_leads_to_the_residuals(self) -> None:
        likelihood = GaussianLikelihood(REAL, variance=0.2, learned=True)
        x, output = batch().x, torch.zeros(12, 3)
        (gradient,) = torch.autograd.grad(likelihood.log_prob(x, output, END).sum(), list(likelihood.parameters()))
        expected = 0.5 * ((x**2).sum() / 0.2 - x.numel())  # zero where v is the mean squared residual
        torch.testing.assert_close(gradient, expected)

    def test_a_learned_variance_is_annealed_too(self) -> None:
        likelihood = GaussianLikelihood(REAL, variance=0.1, learned=True, start_variance=0.4, anneal_fraction=0.5)
        x, output = batch().x, draws(12, 3)
        for progress, variance in ((0.0, 0.4), (0.25, 0.2), (0.5, 0.1)):
            expected = reference.Normal(output, variance**0.5).log_prob(x).sum(-1)
            torch.testing.assert_close(likelihood.log_prob(x, output, torch.tensor(progress)), expected)


@pytest.fixture
def make(tiny: Compose, model_of: Build) -> Callable[..., Any]:
    def build(*overrides: str, spec: DataSpec = REAL) -> Any:
        torch.manual_seed(0)
        return model_of(tiny(*overrides), spec)

    return build


Make = Callable[..., Any]


@pytest.mark.parametrize("overrides", [("model=ivae",), ("model=vade",), ("model=vae", "prior=laplace")])
def test_the_bound_of_the_rows_averages_to_what_the_loss_reports(make: Make, overrides: tuple[str, ...]) -> None:
    model, rows, noise = make(*overrides), batch(), draws(12, 2)
    bound, loss = model.bound(rows, noise), model.loss(rows, noise, END)
    clusters = {"cluster": (12,)} if "model=vade" in overrides else {}
    assert {name: tuple(part.shape) for name, part in bound.items()} == {
        "mean": (12, 2), "sample": (12, 2), "elbo": (12,), "log_likelihood": (12,), "kl": (12,), **clusters,
    }  # fmt: skip
    for name in ("elbo", "log_likelihood", "kl"):
        torch.testing.assert_close(bound[name].mean(), loss[name])
    torch.testing.assert_close(bound["elbo"], bound["log_likelihood"] - bound["kl"])
    torch.testing.assert_close(loss["loss"], -loss["elbo"])  # objective elbo, beta 1


def test_the_bound_of_the_rows_is_the_elbo_whatever_beta(make: Make) -> None:
    rows, noise = batch(), draws(12, 2)
    one, other = (make("model=beta_vae", f"model.beta={beta}").bound(rows, noise) for beta in (1, 3.5))
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(other["elbo"], other["log_likelihood"] - other["kl"])


@pytest.mark.parametrize("rows", [2, 9])
def test_a_latent_moves_around_its_mean_while_the_others_stay_at_the_first_row(make: Make, rows: int) -> None:
    code = draws(rows, 2) + torch.tensor([5.0, -3.0])
    moved, chosen = make("model=vae").moved(code, 2.0)
    assert sorted(chosen.tolist()) == [0, 1]
    for path, latent in zip(moved, chosen.tolist(), strict=True):
        mean, std = code[:, latent].mean(), code[:, latent].std()
        torch.testing.assert_close(path[[0, 4, 8], latent], mean + std * torch.tensor([-2.0, 0.0, 2.0]))
        torch.testing.assert_close(path[:, 1 - latent], code[0, 1 - latent].expand(9))


def test_the_sample_of_the_bound_is_the_one_that_the_noise_makes(make: Make) -> None:
    model, rows, noise = make("model=ivae_paper"), batch(), draws(12, 2)
    q, bound = model.encode(rows), model.bound(rows, noise)
    torch.testing.assert_close(bound["mean"], q.mean)
    torch.testing.assert_close(bound["sample"], q.mean + (0.5 * q.log_var).exp() * noise)
    torch.testing.assert_close(model.posterior_mean(rows), q.mean)


def test_the_loss_is_written_out_for_a_vae(make: Make) -> None:
    model, rows, noise = make("model=beta_vae", "model.beta=3.5"), batch(), draws(12, 2)
    q = reference.Normal(model.encode(rows).mean, model.encode(rows).log_var.div(2).exp())
    z = q.mean + q.stddev * noise
    log_likelihood = reference.Normal(model.decoder(z), 0.1).log_prob(rows.x).sum(-1)  # variance .01
    kl = reference.kl_divergence(q, reference.Normal(0.0, 1.0)).sum(-1)
    terms = model.loss(rows, noise, END)
    torch.testing.assert_close(terms["loss"], (3.5 * kl - log_likelihood).mean())
    torch.testing.assert_close(terms["elbo"], (log_likelihood - kl).mean())  # whatever beta


def test_the_released_ivae_is_written_out(make: Make) -> None:
    model, rows, noise = make("model=ivae_released"), batch(), draws(12, 2)
    q = reference.Normal(model.encode(rows).mean, model.encode(rows).log_var.div(2).exp())
    z = q.mean + q.stddev * noise
    p = reference.Normal(torch.zeros(2), model.prior(rows.u).log_var.div(2).exp())
    log_likelihood = reference.Normal(model.decoder(z), 0.1**0.5).log_prob(rows.x).sum(-1)
    pairs = reference.Normal(q.mean[None], q.stddev[None]).log_prob(z[:, None])  # (B, B, n)
    size = torch.tensor(12 * REAL.train_rows).log()
    log_q, log_product = pairs.sum(-1).logsumexp(1) - size, (pairs.logsumexp(1) - size).sum(-1)
    information = q.log_prob(z).sum(-1) - log_q
    expected = 100 * log_likelihood - information - 10 * (log_product - p.log_prob(z).sum(-1))
    torch.testing.assert_close(model.loss(rows, noise, END)["loss"], -expected.mean())


RELEASED = {  # of log-likelihood, information, total correlation and dimension-wise KL, in Khemakhem et al.'s code
    "ivae_released": (100, 1, 0, 10),
    "vae_released": (1000, 1, 1, 1),
    "beta_vae_released": (500, 5, 5, 5),
    "beta_tcvae_released": (1000, 1, 15, 1),
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_models_weigh_the_four_terms_as_their_code_does(make: Make, name: str) -> None:
    model, rows, noise = make(f"model={name}"), batch(), draws(12, 2)
    loss = model.loss(rows, noise, END)["loss"]
    terms = []
    for place in range(4):
        model.objective = FourTerms([float(place == each) for each in range(4)])
        terms.append(model.loss(rows, noise, END)["loss"])
    torch.testing.assert_close(loss, (torch.stack(terms) * torch.tensor(RELEASED[name])).sum())


@pytest.mark.parametrize(
    ("prior", "statistics"),
    [
        ("conditional", ("z^2",)),
        ("conditional_k2", ("z", "z^2")),
        ("conditional_laplace", ("|z|",)),
        ("conditional_table", ("z^2",)),
        ("conditional_table_k2", ("z", "z^2")),
    ],
)
@pytest.mark.slow
def test_a_conditional_prior_has_the_sufficient_statistics_of_its_name(
    make: Make, prior: str, statistics: tuple[str, ...]
) -> None:
    family = make("model=ivae", f"prior={prior}").exponential_family()
    assert family.statistics == statistics
    assert family.natural.shape == (REAL.u_dim, 2 * len(statistics))
    assert (np.ptp(family.natural, 0) > 0).all()  # all depend on u


def test_progress_reaches_likelihood_and_objective(make: Make) -> None:
    for override in (
        "model.objective.warmup=0.5",
        "model.likelihood={start_variance: 0.3, anneal_fraction: 0.5}",
    ):
        model, rows, noise = make("model=ivae_paper", override), batch(), draws(12, 2)
        start, middle, end = (model.loss(rows, noise, torch.tensor(p))["loss"] for p in (0.0, 0.25, 0.5))
        assert start != middle
        assert middle != end
        torch.testing.assert_close(model.loss(rows, noise, END)["loss"], end)


def test_pretraining_is_the_autoencoder_of_the_posterior_mean(make: Make) -> None:
    model, rows = make("model=vade_pretrained"), batch()
    terms = model.pretraining_loss(rows, draws(12, 2), torch.tensor(0.0))
    output = model.decoder(model.encode(rows).mean)
    expected = reference.Normal(output, 0.1).log_prob(rows.x).sum(-1).mean()
    torch.testing.assert_close(terms["log_likelihood"], expected)
    torch.testing.assert_close(terms["loss"], -expected)
    assert terms["elbo"].isnan()
    assert terms.keys() == model.loss(rows, draws(12, 2), END).keys()
    assert torch.equal(terms["loss"], model.pretraining_loss(rows, draws(12, 2, seed=9), END)["loss"])  # no noise in it


def test_start_fits_the_mixture_to_the_codes(make: Make) -> None:
    model = make("model=vade_pretrained")
    codes = torch.cat([draws(60, 2) * 0.1 + centre for centre in (-3.0, 0.0, 3.0)])
    before = model.prior(None).log_prob(codes).mean()
    model.start(batch(), codes, 0)
    assert model.starts_from_data
    assert model.prior(None).log_prob(codes).mean() > before + 1
    assert sorted(round(m) for m in model.prior.mean[:, 0].tolist()) == [-3, 0, 3]


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("name", ["vae", "ivae", "vade", "ivae_willetts"])
def test_samples_have_the_shape_of_observations(make: Make, name: str, rows: int) -> None:
    x = make(f"model={name}").sample(rows, torch.arange(rows) % 4, torch.Generator().manual_seed(0))
    assert x.shape == (rows, 3)
    assert x.isfinite().all()


def test_samples_of_a_linear_decoder_have_the_moments_of_the_marginal(make: Make) -> None:
    model = make("model=vae", "model.encoder.layers=1", "model.likelihood.variance=0.25")
    linear = model.decoder.net.linears[0]
    with torch.no_grad():
        linear.weight.copy_(draws(3, 2, seed=4))
        x = model.sample(100_000, None, torch.Generator().manual_seed(0))
    torch.testing.assert_close(x.mean(0), linear.bias.detach(), atol=0.02, rtol=0)
    expected = (linear.weight @ linear.weight.T + 0.25 * torch.eye(3)).detach()
    torch.testing.assert_close(torch.cov(x.T), expected, atol=0.05, rtol=0.02)


def test_samples_of_a_conditional_model_follow_their_u(make: Make) -> None:
    model = make("model=ivae_willetts", "model.encoder.layers=1")
    with torch.no_grad():
        model.prior.rows["mean"].copy_(20 * draws(4, 2, seed=5))
        u = torch.tensor([0, 3]).repeat_interleave(500)
        x = model.sample(1000, u, torch.Generator().manual_seed(0))
        centres = model.decoder(model.prior.rows["mean"][[0, 3]])
    torch.testing.assert_close(x.reshape(2, 500, 3).mean(1), centres, atol=0.2, rtol=0)


def test_a_conditional_model_refuses_to_sample_without_u(make: Make) -> None:
    with pytest.raises(ValueError, match="expected u"):
        make("model=ivae").sample(4, None, torch.Generator().manual_seed(0))


def test_samples_of_a_bernoulli_model_are_binary(make: Make) -> None:
    model = make("model=ivae", "model/likelihood=bernoulli", spec=BINARY)
    x = model.sample(200, torch.arange(200) % 4, torch.Generator().manual_seed(0))
    assert set(x.flatten().tolist()) == {0.0, 1.0}


def test_a_model_never_reads_the_sources(make: Make) -> None:
    model, rows, noise = make("model=ivae"), batch(), draws(12, 2)
    told = replace(rows, z=draws(12, 2, seed=8))
    assert torch.equal(model.loss(rows, noise, END)["loss"], model.loss(told, noise, END)["loss"])


def test_the_latents_are_as_many_as_the_sources_unless_told(make: Make) -> None:
    assert make("model=vae").latent_dim == 2
    model = make("model=vae", "model.latent_dim=5")
    assert (model.latent_dim, model.noise_dim, model.encode(batch()).mean.shape) == (5, 5, (12, 5))


def test_unknown_sources_need_a_latent_dim(make: Make) -> None:
    unknown = replace(REAL, source_dim=None)
    with pytest.raises(ConfigError, match="model: expected latent_dim for data without known sources, got none"):
        make("model=vae", spec=unknown)
    assert make("model=vae", "model.latent_dim=2", spec=unknown).latent_dim == 2


def test_a_bernoulli_model_needs_binary_data(make: Make) -> None:
    with pytest.raises(ConfigError, match="model: expected binary observations for a Bernoulli likelihood"):
        make("model=vae", "model/likelihood=bernoulli")


@pytest.mark.parametrize("overrides", [("model=ivae",), ("model=vae", "prior=conditional_table")])
def test_a_conditional_model_needs_data_with_u(make: Make, overrides: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="model: expected data with an auxiliary variable u"):
        make(*overrides, spec=replace(REAL, u_dim=0))
    assert make("model=vade", spec=replace(REAL, u_dim=0)).latent_dim == 2


@pytest.mark.parametrize("name", ["vae", "ivae", "vade", "ivae_released"])
def test_a_row_is_encoded_without_regard_to_the_rows_beside_it(make: Make, name: str) -> None:
    """No batch statistics, no dropout."""
    model, rows = make(f"model={name}"), batch()
    assert torch.equal(model.encode(rows).mean, model.encode(rows).mean)
    torch.testing.assert_close(model.encode(rows[:3]).mean, model.encode(rows).mean[:3])


def test_u_that_is_columns_of_numbers_needs_a_prior_that_takes_them(make: Make) -> None:
    columns = replace(REAL, u_kind="columns", u_dim=2)
    with pytest.raises(ConfigError, match=r"model: expected u as labels for a TablePrior, got 2 columns of numbers"):
        make("model=ivae", spec=columns)
    for overrides in (("model=ivae", "prior=conditional"), ("model=vade",)):
        assert make(*overrides, spec=columns).natural_differences() is None or "model=vade" in overrides


def test_an_encoder_and_a_prior_see_columns_as_they_see_labels(make: Make) -> None:
    """With the same weights a one-hot u and its label are the same."""
    rows, noise = batch(), torch.randn(12, 2)
    assert rows.u is not None
    columns = nn.functional.one_hot(rows.u, 4).float()
    model = make("model=ivae_paper")
    of_columns = make("model=ivae_paper", spec=replace(REAL, u_kind="columns"))
    of_columns.load_state_dict(model.state_dict())
    expected = model.loss(rows, noise, END)
    found = of_columns.loss(replace(rows, u=columns), noise, END)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    moved = of_columns.loss(replace(rows, u=columns + 0.3), noise, END)
    assert not torch.isclose(moved["loss"], expected["loss"])


def test_of_counts_the_encoder_sees_the_logarithm(make: Make) -> None:
    counts = replace(REAL, counts=True)
    model, plain = make("model=vae", "model/likelihood=poisson", spec=counts), make("model=vae")
    plain.encoder.load_state_dict(model.encoder.state_dict())
    x = torch.tensor([[0.0, 1.0, 1e6]])
    torch.testing.assert_close(model.encoder(x, None).mean, plain.encoder(torch.log1p(x), None).mean)
