"""Priors: what is learned, what depends on u, and the mixture that starts from data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.mixture
import torch
from torch import Tensor, nn

from ivae_lab.distributions.densities import Laplace, Normal
from ivae_lab.priors.codebook import Codebook
from ivae_lab.priors.conditional import ConditionalPrior, MLPPrior, TablePrior
from ivae_lab.priors.mixture import GaussianMixture
from ivae_lab.priors.standard import StandardLaplace, StandardNormal

LATENTS, LABELS = 3, 4
U = torch.tensor([2, 0, 3, 1, 2, 2, 0])
NETWORK: dict[str, Any] = {"hidden": 6, "layers": 3, "activation": "xtanh", "slope": 0.1}
KINDS = ("table", "mlp")
LEARNED = (("zero", "learned"), ("learned", "learned"), ("learned", "one"))


def conditional(kind: str, family: str = "gaussian", mean: str = "learned", scale: str = "learned") -> ConditionalPrior:
    torch.manual_seed(0)
    common: dict[str, Any] = {"family": family, "mean": mean, "scale": scale, "init": "xavier_normal"}
    if kind == "table":
        return TablePrior(LATENTS, LABELS, **common)
    return MLPPrior(LATENTS, LABELS, **common, **NETWORK)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def clusters(rows: int = 600) -> Tensor:
    centres = torch.tensor([[-4.0, 0.0, 1.0], [4.0, 2.0, 0.0], [0.0, -5.0, 0.0]])
    return centres[torch.arange(rows) % 3] + draws(rows, 3) * torch.tensor([0.3, 1.0, 0.5])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["gaussian", "laplace"])
@pytest.mark.parametrize(("mean", "scale"), LEARNED)
def test_every_learned_parameter_gets_a_gradient(kind: str, family: str, mean: str, scale: str) -> None:
    prior = conditional(kind, family, mean, scale)
    prior(U).log_prob(draws(len(U), LATENTS)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in prior.named_parameters()}
    assert gradients
    assert all(gradient is not None and gradient.any() for gradient in gradients.values()), gradients


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("mean", "scale"), LEARNED)
def test_k_is_the_number_of_learned_tables(kind: str, mean: str, scale: str) -> None:
    tables = conditional(kind, mean=mean, scale=scale).tables()
    assert set(tables) == {name for name, choice in (("mean", mean), ("scale", scale)) if choice == "learned"}
    assert all(table.shape == (LABELS, LATENTS) for table in tables.values())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_learned_is_zero_mean_or_unit_scale(kind: str) -> None:
    centred, unit = conditional(kind, mean="zero")(U), conditional(kind, scale="one")(U)
    assert isinstance(centred, Normal)
    assert isinstance(unit, Normal)
    assert not centred.mean.any()
    assert centred.log_var.any()
    assert not unit.log_var.any()
    assert unit.mean.any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["gaussian", "laplace"])
def test_a_row_has_the_density_of_its_label(kind: str, family: str) -> None:
    prior, z = conditional(kind, family), draws(len(U), LATENTS)
    whole = prior(U).log_prob(z)
    for row, label in enumerate(U.tolist()):
        m, s = (prior.tables()[name][label] for name in ("mean", "scale"))
        law: torch.distributions.Distribution = (
            torch.distributions.Normal(m, (0.5 * s).exp())
            if family == "gaussian"
            else torch.distributions.Laplace(m, s.exp())
        )
        torch.testing.assert_close(whole[row], law.log_prob(z[row]).sum())


@pytest.mark.parametrize("family", ["gaussian", "laplace"])
def test_columns_that_are_one_hot_have_the_density_of_their_label(family: str) -> None:
    prior, z = conditional("mlp", family), draws(len(U), LATENTS)
    columns = nn.functional.one_hot(U, LABELS).float()
    torch.testing.assert_close(prior(columns).log_prob(z), prior(U).log_prob(z))
    other = prior(columns + 0.1).log_prob(z)
    assert not torch.isclose(other, prior(U).log_prob(z)).any()
    assert (prior.labels_only, conditional("table").labels_only) == (False, True)


def test_a_table_is_free_parameters_and_an_mlp_prior_shares_its_layers() -> None:
    table, network = conditional("table"), conditional("mlp")
    assert {name: tuple(value.shape) for name, value in table.named_parameters()} == {
        "rows.mean": (LABELS, LATENTS),
        "rows.scale": (LABELS, LATENTS),
    }
    at_label_0 = table(torch.tensor([0])).log_prob(draws(1, LATENTS)).sum()
    rows = torch.autograd.grad(at_label_0, list(table.parameters()))
    assert all(not gradient[1:].any() and gradient[0].any() for gradient in rows)
    network(torch.tensor([0])).log_prob(draws(1, LATENTS)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("init", ["torch", "xavier_uniform", "xavier_normal"])
def test_a_table_starts_as_told(init: Any) -> None:
    torch.manual_seed(0)
    prior = TablePrior(50, 40, family="gaussian", mean="zero", scale="learned", init=init)
    expected = 0.0 if init == "torch" else (2 / 90) ** 0.5
    assert prior.tables()["scale"].std().item() == pytest.approx(expected, rel=0.05)
    if init == "xavier_uniform":
        assert prior.tables()["scale"].abs().max().item() <= (6 / 90) ** 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_a_conditional_prior_needs_data_with_u(kind: str) -> None:
    common: dict[str, Any] = {"family": "gaussian", "mean": "zero", "scale": "learned", "init": "torch"}
    build: Any = TablePrior if kind == "table" else MLPPrior
    with pytest.raises(ValueError, match="expected data with an auxiliary variable u for a conditional prior"):
        build(LATENTS, 0, **common, **({} if kind == "table" else NETWORK))


@pytest.mark.parametrize("kind", KINDS)
def test_a_conditional_prior_refuses_to_go_without_u(kind: str) -> None:
    with pytest.raises(ValueError, match="expected u for a conditional prior"):
        conditional(kind)(None)


@pytest.mark.parametrize("kind", KINDS)
def test_something_must_depend_on_u(kind: str) -> None:
    with pytest.raises(ValueError, match="got mean=zero, scale=one"):
        conditional(kind, mean="zero", scale="one")


@pytest.mark.parametrize("prior", [StandardNormal(LATENTS, LABELS), StandardLaplace(LATENTS, 0)])
def test_standard_priors_are_standard_and_have_nothing_to_learn(prior: nn.Module) -> None:
    z = draws(5, LATENTS)
    zero, one = torch.zeros(LATENTS), torch.ones(LATENTS)
    laws = {"StandardNormal": torch.distributions.Normal, "StandardLaplace": torch.distributions.Laplace}
    expected = laws[type(prior).__name__](zero, one).log_prob(z).sum(-1)
    torch.testing.assert_close(prior(None).log_prob(z), expected)
    torch.testing.assert_close(prior(U).log_prob(z), expected)
    assert not list(prior.parameters())


def test_laplace_prior_gives_a_laplace_with_learned_scales() -> None:
    p = conditional("table", "laplace", mean="zero")(U)
    assert isinstance(p, Laplace)
    torch.testing.assert_close(p.log_scale, conditional("table", "laplace", mean="zero").tables()["scale"][U])


def test_codes_are_unit_gaussians_of_equal_weight() -> None:
    torch.manual_seed(0)
    prior, z = Codebook(LATENTS, 0, codes=5, spread=2.0), draws(7, LATENTS)
    given_code = torch.distributions.Normal(prior.mean, 1.0).log_prob(z.unsqueeze(1)).sum(-1)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(prior(None).log_prob(z).exp(), given_code.exp().mean(1))
    assert {name for name, _ in prior.named_parameters()} == {"mean"}


class TestMixture:
    def mixture(self, init: Any = "xavier_uniform", components: int = 3) -> GaussianMixture:
        torch.manual_seed(0)
        return GaussianMixture(LATENTS, 0, components=components, init=init)

    def test_every_parameter_gets_a_gradient(self) -> None:
        prior = self.mixture()
        prior(None).log_prob(draws(20, LATENTS)).sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in prior.parameters())
        assert {name for name, _ in prior.named_parameters()} == {"logits", "mean", "log_var"}

    def test_weights_stay_on_the_simplex_whatever_the_logits(self) -> None:
        prior = self.mixture()
        with torch.no_grad():
            prior.logits.copy_(torch.tensor([100.0, -300.0, 5.0]))
        weights = prior(None).log_weights.exp()
        assert weights.sum().item() == pytest.approx(1)
        assert (weights >= 0).all()

    def test_components_start_with_equal_weights(self) -> None:
        torch.testing.assert_close(self.mixture()(None).log_weights.exp(), torch.full((3,), 1 / 3))

    def test_means_and_log_variances_start_as_told(self) -> None:
        bound = (6 / (400 + LATENTS)) ** 0.5
        uniform, normal = self.mixture("xavier_uniform", 400), self.mixture("xavier_normal", 400)
        for value in (uniform.mean, uniform.log_var):
            assert 0.95 * bound < value.abs().max().item() <= bound
        for value in (normal.mean, normal.log_var):
            assert value.abs().max().item() > 1.2 * bound
            assert value.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)

    def test_only_a_fitted_mixture_starts_from_data(self) -> None:
        assert self.mixture("gmm").starts_from_data
        assert not self.mixture("xavier_normal").starts_from_data

    def test_fitted_it_scores_rows_as_scikit_learn_does(self) -> None:
        prior, z = self.mixture("gmm"), clusters()
        prior.fit(z, seed=3)
        fit = sklearn.mixture.GaussianMixture(3, covariance_type="diag", random_state=3, reg_covar=1e-4)
        expected = fit.fit(z.double().numpy()).score_samples(z.double().numpy())
        np.testing.assert_allclose(prior(None).log_prob(z).detach().numpy(), expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(
            prior(None).responsibilities(z).detach().numpy(), fit.predict_proba(z.double().numpy()), atol=1e-4
        )

    def test_fitted_it_finds_the_clusters(self) -> None:
        prior, z = self.mixture("gmm"), clusters()
        prior.fit(z, seed=0)
        order = prior.mean[:, 0].argsort()
        centres = torch.tensor([[-4.0, 0.0, 1.0], [0.0, -5.0, 0.0], [4.0, 2.0, 0.0]])
        torch.testing.assert_close(prior.mean[order].detach(), centres, atol=0.25, rtol=0)
        torch.testing.assert_close(prior(None).log_weights.exp().detach(), torch.full((3,), 1 / 3), atol=0.01, rtol=0)
        spread = (0.5 * prior.log_var).exp().detach()
        torch.testing.assert_close(spread, torch.tensor([[0.3, 1.0, 0.5]]).expand(3, 3), atol=0.1, rtol=0)

    def test_fitted_parameters_are_still_learned(self) -> None:
        prior = self.mixture("gmm")
        before = list(prior.parameters())
        prior.fit(clusters(), seed=0)
        assert all(old is new for old, new in zip(before, prior.parameters(), strict=True))
        assert all(parameter.requires_grad for parameter in prior.parameters())
