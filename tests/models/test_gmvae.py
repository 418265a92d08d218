"""GMVAE: its terms by sums over clusters and by Monte Carlo, its bound against the likelihood, draws, constraint."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from ivae_lab.config.build import ConfigError
from ivae_lab.core.data import Batch
from ivae_lab.models.gmvae import GMVAE

Compose = Callable[..., DictConfig]
Built = Callable[..., tuple[GMVAE, Batch]]
SMALL = ("model=gmvae", "model.latent_dim=3", "model.components=4", "model.encoder.hidden=8", "model.mixture.hidden=8")
IMAGES = ("model=gmvae", "data=digits", "model/likelihood=images", "model.latent_dim=2")
N, W, K, ROWS = 3, 2, 4, 16
END = torch.tensor(1.0)


@pytest.fixture
def built(tiny: Compose, splits_of: Callable[..., Any], model_of: Callable[..., Any]) -> Built:
    """(*overrides) to a model whose clusters lie apart, and a batch."""

    def build(*overrides: str) -> tuple[GMVAE, Batch]:
        config = tiny(*SMALL, "model.likelihood.variance=1.0", *overrides)
        splits = splits_of(config)
        torch.manual_seed(0)
        model = model_of(config, splits.spec)
        with torch.no_grad():
            model.mixture.linears[-1].weight.mul_(4)
            model.mixture.linears[-1].bias.normal_(0, 0.7)
            model.encoder.nets[0].linears[-1].weight.mul_(4)
        return model, splits.train[:ROWS]

    return build


def repeated(batch: Batch, times: int) -> Batch:
    """The first row, many times."""
    return Batch(batch.x[:1].expand(times, -1), None, None, batch.index[:1].expand(times))


def densities(model: GMVAE, x: Tensor, w: Tensor) -> tuple[Any, Any, Any]:
    """q(z given x), q(w given x) and the components of p(z given w) by PyTorch, from the networks' outputs."""
    mean, log_var = (net(x) for net in model.encoder.nets)  # type: ignore[union-attr]
    std = torch.exp(0.5 * log_var)
    q_z, q_w = Normal(mean[:, :N], std[:, :N]), Normal(mean[:, N:], std[:, N:])
    table = model.mixture(w).reshape(len(w), 2, K, N)
    components = Normal(table[:, 0], torch.exp(0.5 * table[:, 1]))
    return Independent(q_z, 1), Independent(q_w, 1), Independent(components, 1)


def marginal(components: Any) -> Any:
    """p(z given w), y summed out."""
    return MixtureSameFamily(Categorical(torch.ones(components.batch_shape)), components)


def x_given(model: GMVAE, z: Tensor) -> Any:
    return Independent(Normal(model.decoder(z), 1.0), 1)


STANDARD: Any = Independent(Normal(torch.zeros(W), torch.ones(W)), 1)


class TestTerms:
    def test_they_are_sums_over_the_clusters(self, built: Built) -> None:
        model, batch = built()
        noise = torch.randn(ROWS, N + W)
        found = model.bound(batch, noise)
        q_z, q_w, _ = densities(model, batch.x, torch.zeros(ROWS, W))
        z, w = q_z.mean + q_z.stddev * noise[:, :N], q_w.mean + q_w.stddev * noise[:, N:]
        _, _, components = densities(model, batch.x, w)
        kl_z, kl_y = torch.zeros(ROWS), torch.zeros(ROWS)
        prior_y = Categorical(torch.ones(K))
        for row in range(ROWS):
            each = [Independent(Normal(components.mean[row, k], components.stddev[row, k]), 1) for k in range(K)]
            joint = torch.stack([one.log_prob(z[row]) - math.log(K) for one in each])  # type: ignore[no-untyped-call]
            q_y = Categorical(logits=joint)
            q = Independent(Normal(q_z.mean[row], q_z.stddev[row]), 1)
            kl_z[row] = sum(q_y.probs[k] * kl_divergence(q, each[k]) for k in range(K))
            kl_y[row] = kl_divergence(q_y, prior_y)
        expected = {
            "log_likelihood": x_given(model, z).log_prob(batch.x),
            "kl_z": kl_z,
            "kl_w": kl_divergence(q_w, Independent(Normal(torch.zeros(ROWS, W), torch.ones(ROWS, W)), 1)),
            "kl_y": kl_y,
            "sample": z,
            "mean": q_z.mean,
        }
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4)
        kl = kl_z + expected["kl_w"] + kl_y
        torch.testing.assert_close(found["kl"], kl, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found["elbo"], expected["log_likelihood"] - kl, rtol=1e-4, atol=1e-4)
        terms = model.loss(batch, noise, END)
        torch.testing.assert_close(terms["loss"], -found["elbo"].mean())
        assert kl_y.max() > 0.05  # there are clusters to speak of

    def test_the_conditional_prior_term_is_its_expectation(self, built: Built) -> None:
        """E log q(z' given x) - log p(z' given w, y) over y given (z, w), and z' from q(z given x), by draws."""
        model, batch = built()
        draws = 200_000
        noise = torch.randn(1, N + W)
        with torch.no_grad():
            found = model.bound(batch[:1], noise)
            _, q_w, _ = densities(model, batch.x[:1], torch.zeros(1, W))
            w = q_w.mean + q_w.stddev * noise[:, N:]
            q_z, _, components = densities(model, batch.x[:1], w)
            y = Categorical(logits=components.log_prob(found["sample"].unsqueeze(1))[0]).sample((draws,))  # type: ignore[no-untyped-call]
            z = q_z.sample((draws,))[:, 0]
            given_y: Any = Independent(Normal(components.mean[0, y], components.stddev[0, y]), 1)
            each = q_z.log_prob(z) - given_y.log_prob(z)
        error = each.std() / draws**0.5
        assert abs(each.mean() - found["kl_z"][0]) < 4 * error
        assert error < 0.05 * found["kl_z"][0]

    def test_clusters_are_those_at_the_means_of_z_and_w(self, built: Built) -> None:
        model, batch = built()
        q_z, q_w, _ = densities(model, batch.x, torch.zeros(ROWS, W))
        _, _, components = densities(model, batch.x, q_w.mean)
        expected = components.log_prob(q_z.mean.unsqueeze(1)).argmax(-1)
        for _ in range(3):
            assert torch.equal(model.bound(batch, torch.randn(ROWS, N + W))["cluster"], expected)
        assert len(expected.unique()) > 1

    def test_the_bound_is_below_the_usual_one_and_that_below_the_likelihood(self, built: Built) -> None:
        model, batch = built()
        draws = 100_000
        many = repeated(batch, draws)
        with torch.no_grad():
            found = model.bound(many, torch.randn(draws, N + W))
            q_z, q_w, _ = densities(model, many.x, torch.zeros(draws, W))
            z, w = q_z.sample(), q_w.sample()
            _, _, components = densities(model, many.x, w)
            log_weights = (
                x_given(model, z).log_prob(many.x)
                + marginal(components).log_prob(z)
                + STANDARD.log_prob(w)
                - q_z.log_prob(z)
                - q_w.log_prob(w)
            )
        usual, log_likelihood = log_weights.mean(), torch.logsumexp(log_weights, 0) - math.log(draws)
        error = (log_weights.std() + found["elbo"].std()) / draws**0.5
        assert found["elbo"].mean() < usual + 3 * error
        assert usual < log_likelihood
        assert usual - found["elbo"].mean() < 5  # and of the same row
        # Without the sum over z' in the conditional term both are one: q and y at the same z.
        log_r = torch.log_softmax(components.log_prob(z.unsqueeze(1)), -1)
        same_z = (log_r.exp() * (q_z.log_prob(z).unsqueeze(-1) - components.log_prob(z.unsqueeze(1)))).sum(-1)
        kl_y = (log_r.exp() * (log_r + math.log(K))).sum(-1)
        elbo = x_given(model, z).log_prob(many.x) - same_z - kl_y + STANDARD.log_prob(w) - q_w.log_prob(w)
        torch.testing.assert_close(elbo, log_weights, rtol=1e-4, atol=1e-3)


class TestMinimumInformation:
    def test_below_it_the_term_counts_as_so_much_and_has_no_gradient(self, built: Built) -> None:
        model, batch = built("model.beta=2.0")
        noise = torch.randn(ROWS, N + W)
        terms = model.bound(batch, noise)
        plain = model.loss(batch, noise, END)["loss"]
        kl_y = float(terms["kl_y"].mean().detach())
        for least, expected in (
            (kl_y / 2, plain),
            (kl_y + 0.5, plain + 2 * 0.5),
        ):
            constrained, _ = built("model.beta=2.0", f"model.least_information={least}")
            torch.testing.assert_close(constrained.loss(batch, noise, END)["loss"], expected)
        again = model.bound(batch, noise)
        without = -(again["log_likelihood"] - 2 * (again["kl_z"] + again["kl_w"])).mean()
        own = torch.autograd.grad(without, list(model.mixture.parameters()))
        loss = constrained.loss(batch, noise, END)["loss"]
        for found, expected in zip(torch.autograd.grad(loss, list(constrained.mixture.parameters())), own, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    def test_the_reported_elbo_is_without_it(self, built: Built) -> None:
        noise = torch.randn(ROWS, N + W)
        (plain, batch), (constrained, _) = built(), built("model.least_information=3.0")
        for name in ("elbo", "kl"):
            torch.testing.assert_close(plain.loss(batch, noise, END)[name], constrained.loss(batch, noise, END)[name])


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_draws_are_those_of_the_generative_model(temperature: float, built: Built) -> None:
    model, _ = built()
    rows = 100_000
    with torch.no_grad():
        drawn = model.sample(rows, None, torch.Generator().manual_seed(0), temperature)
        w = temperature * torch.randn(rows, W)
        _, _, components = densities(model, torch.zeros(1, drawn.shape[1]), w)
        narrow = Independent(Normal(components.mean, temperature * components.stddev), 1)
        z = marginal(narrow).sample()
        expected = x_given(model, z).sample()
    torch.testing.assert_close(drawn.mean(0), expected.mean(0), atol=0.03, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(expected.T), atol=0.05, rtol=0.05)


def test_what_is_shown_are_the_components_at_the_most_probable_w(built: Built) -> None:
    model, batch = built()
    shown = model.examples(batch, torch.randn(8, N))
    _, _, components = densities(model, batch.x[:1], torch.zeros(1, W))
    torch.testing.assert_close(shown["prior_mean"], components.mean[0])
    torch.testing.assert_close(shown["prior_std"], components.stddev[0])


@pytest.mark.parametrize("networks", ["mlp", "convnet"])
@pytest.mark.slow
def test_on_images_it_trains_stacked_as_alone(networks: str, tiny: Compose, train: Any) -> None:
    config = tiny(*IMAGES, f"model/networks={networks}", "trainer.eps=0.01")
    together, alone = train(config, [0, 1]), train(config, [1])
    for key, value in alone.stack.parameters.items():
        torch.testing.assert_close(together.stack.parameters[key][1], value[0], atol=1e-5, rtol=1e-5)
    model, rows = together.stack.model(0), together.members[0].splits.train[:8]
    shown = model.examples(rows, torch.randn(5, 2))
    assert shown["drawn"].shape == (10, 5, rows.x.shape[1])
    assert shown["traversals"].shape[-1] == rows.x.shape[1]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["prior=gmm"], r"expected a Gaussian prior of w for a GMVAE \(prior=normal\), got GaussianMixture"),
        (["prior=vampprior"], r"expected a Gaussian prior of w for a GMVAE \(prior=normal\), got VampPrior"),
        (["prior=conditional"], r"expected u for a conditional prior"),
        (["+model.encoder.covariance=full"], r"expected encoder\.covariance=diagonal for a GMVAE.*got full"),
        (["model.w_dim=0"], r"^model\.w_dim: expected greater than 0, got 0"),
        (["model.least_information=-1.0"], r"^model\.least_information: expected greater than or equal to 0"),
    ],
)
@pytest.mark.slow
def test_what_does_not_fit_is_refused(overrides: list[str], told: str, built: Built) -> None:
    with pytest.raises(ConfigError, match=told):
        built(*overrides)
