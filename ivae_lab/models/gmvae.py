"""GMVAE: a VAE with a mixture prior whose components are functions of a second latent variable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ivae_lab.config.numbers import NonNegativeFloat, PositiveInt
from ivae_lab.core.data import Batch, DataSpec
from ivae_lab.distributions.densities import Distribution, Normal, NormalMixture, kl_divergence, tempered
from ivae_lab.models.likelihoods import Likelihood
from ivae_lab.models.objectives import ELBO, Evidence
from ivae_lab.models.vae import VAE
from ivae_lab.networks.base import Decoder, Encoder
from ivae_lab.networks.mlp import MLP


@dataclass(frozen=True)
class MixtureEvidence(Evidence):
    """Evidence with p(z given w) as its prior, another mixture for each row, and posterior and prior of w.

    The three KL terms are those of Dilokthanakul et al. 2016, under their names.
    """

    prior: NormalMixture  # of (B, K, n) parameters
    posterior_w: Normal  # q(w given x)
    prior_w: Normal  # p(w)

    def kl_z(self) -> Tensor:
        """The conditional prior term, sum_k p(y=k given z, w) KL(q(z given x) || p(z given w, y=k)): (B,)."""
        q = self.posterior
        assert isinstance(q, Normal)  # the model has checked it
        components = Normal(self.prior.mean, self.prior.log_var)
        divergences = kl_divergence(Normal(q.mean.unsqueeze(-2), q.log_var.unsqueeze(-2)), components)  # (B, K)
        assert divergences is not None
        return (self.prior.responsibilities(self.z) * divergences).sum(-1)

    def kl_w(self) -> Tensor:
        """The w-prior term, KL(q(w given x) || p(w)): (B,)."""
        closed = kl_divergence(self.posterior_w, self.prior_w)
        assert closed is not None
        return closed

    def kl_y(self) -> Tensor:
        """The y-prior term, KL(p(y given z, w) || p(y)): (B,)."""
        log_r = torch.log_softmax(self.prior.log_joint(self.z), -1)  # (B, K)
        return (log_r.exp() * (log_r - self.prior.log_weights)).sum(-1)

    def kl(self) -> Tensor:
        """The sum of the three KL terms: (B,)."""
        return self.kl_z() + self.kl_w() + self.kl_y()

    def terms(self) -> dict[str, Tensor]:
        """Return `Evidence.terms` and the three KL terms by themselves."""
        return super().terms() | {"kl_z": self.kl_z(), "kl_w": self.kl_w(), "kl_y": self.kl_y()}


@dataclass(frozen=True)
class MinimumInformation(ELBO):
    """The ELBO with max(least, KL) in place of its y-prior term KL, the mean over the batch, in nats.

    The minimum information constraint of Dilokthanakul et al. 2016, which keeps the model from giving up clusters
    early.
    """

    least: NonNegativeFloat = 0.0

    def __call__(self, evidence: Evidence, beta: float | Tensor, progress: Tensor) -> Tensor:
        """The loss, a scalar."""
        loss = super().__call__(evidence, beta, progress)
        if not self.least:
            return loss
        assert isinstance(evidence, MixtureEvidence)
        return loss + beta * (self.least - evidence.kl_y().mean()).clamp(min=0)


class GMVAE(VAE):
    r"""A VAE with clusters y that are warped by a style w (Dilokthanakul et al. 2016).

    https://arxiv.org/abs/1611.02648

    .. math::
       w \sim N(0, I), \quad y \sim 1/K, \quad z \mid w, y \sim N(\mu_y(w), \mathrm{diag}\, \sigma_y^2(w)), \quad
       x \sim p(x \mid z)

    q(z, w given x) is a diagonal Gaussian, p(y given z, w) is Bayes' rule. The bound is

        log p(x | z) - sum_k p(y=k | z, w) KL(q(z | x) || p(z | w, k)) - KL(q(w | x) || p(w)) - KL(p(y | z, w) || p(y))

    at one sample of z and w. It is at most the usual bound, log p(x | z) - log q(z | x) + log p(z | w) - KL(q(w | x) ||
    p(w)): the weights p(y=k | z, w) and log p(z | w, k) inside the KL are averaged over z separately, and their
    covariance, summed over k, is never negative. The scored latents are z; a row's cluster is the most probable one at
    the means of z and w.

    Parameters
    ----------
    spec, latent_dim, beta, encoder, decoder, likelihood
        As in `VAE`; the encoder, with a diagonal covariance, encodes z and w together.
    prior
        The prior of w, a Gaussian.
    w_dim, components
        Dimensions of w, and K.
    least_information
        See `MinimumInformation`; 0: off.
    mixture
        (w_dim, 2 K n) to a network of means and log-variances.

    Raises
    ------
    ValueError
        For a prior that is no Gaussian or needs u, and a posterior with a full covariance.
    """

    def __init__(
        self,
        spec: DataSpec,
        prior: Callable[[int, int], nn.Module],
        *,
        latent_dim: PositiveInt | None,
        w_dim: PositiveInt,
        components: PositiveInt,
        beta: NonNegativeFloat,
        least_information: NonNegativeFloat,
        encoder: Callable[[DataSpec, int], Encoder],
        decoder: Callable[[DataSpec, int], Decoder],
        likelihood: Callable[[DataSpec], Likelihood],
        mixture: Callable[[int, int], MLP],
    ) -> None:
        super().__init__(
            spec,
            lambda _, u_dim: prior(w_dim, u_dim),
            latent_dim=latent_dim,
            beta=beta,
            encoder=lambda spec, n: encoder(spec, n + w_dim),
            decoder=decoder,
            likelihood=likelihood,
            objective=MinimumInformation(least=least_information),
        )
        if not isinstance(self.prior(None), Normal):
            raise ValueError(
                f"expected a Gaussian prior of w for a GMVAE (prior=normal), got {type(self.prior).__name__}"
            )
        if getattr(self.encoder, "covariance", None) == "full":
            raise ValueError(
                "expected encoder.covariance=diagonal for a GMVAE, whose q(z given x) has closed KLs, got full"
            )
        self.components, self.w_dim, self.noise_dim = components, w_dim, self.latent_dim + w_dim
        self.mixture = mixture(w_dim, 2 * components * self.latent_dim)
        self.register_buffer("log_weights", torch.full((components,), 1 / components).log())

    def given_w(self, w: Tensor) -> NormalMixture:
        """p(z given w), a mixture for each row: (B, w_dim) to one with (B, K, n) means and log-variances."""
        mean, log_var = self.mixture(w).reshape(-1, 2, self.components, self.latent_dim).unbind(1)
        return NormalMixture(self.get_buffer("log_weights"), mean, log_var)

    def encode(self, batch: Batch) -> Normal:
        """q(z given x)."""
        return self._posteriors(self.observed(batch), self.u(batch), None)[0]

    def _posteriors(self, x: Tensor, u: Tensor | None, noise: Tensor | None) -> tuple[Normal, Normal]:
        """The posteriors of z and of w."""
        both = self.encoder(x, u, noise)
        parts = (part.tensor_split([self.latent_dim], -1) for part in (both.mean, both.log_var))
        (mean, mean_w), (log_var, log_var_w) = parts
        return Normal(mean, log_var), Normal(mean_w, log_var_w)

    def _evidence(self, batch: Batch, noise: Tensor, progress: Tensor, training: bool) -> MixtureEvidence:
        for_samples, to_encoder, to_decoder, for_pixels = self._cut(noise)
        x, u = self.observed(batch, for_pixels), self.u(batch)
        q, q_w = self._posteriors(x, u, to_encoder if training else None)
        for_z, for_w = for_samples.tensor_split([self.latent_dim], -1)
        z, w = q.rsample(for_z), q_w.rsample(for_w)
        log_likelihood = self.likelihood.log_prob(x, self.decoder(z, to_decoder if training else None), progress)
        return MixtureEvidence(log_likelihood, q, self.given_w(w), z, self.train_rows, q_w, self.prior(None))

    def _clusters(self, evidence: Evidence) -> Tensor:
        assert isinstance(evidence, MixtureEvidence)
        return self.given_w(evidence.posterior_w.mean).log_joint(evidence.posterior.mean).argmax(-1)

    def probabilities(self, batch: Batch, mean: Tensor) -> Tensor | None:
        """Probabilities of the components at the means of z and w: (B, K)."""
        _, q_w = self._posteriors(self.observed(batch), self.u(batch), None)
        return self.given_w(q_w.mean).responsibilities(mean)

    def exponential_family(self) -> None:
        """Return None: the prior of z is a mixture that depends on w."""

    def prior_of_z(self, u: Tensor | None) -> Distribution:
        """The components at w = 0, the most probable w."""
        at_zero = self.given_w(torch.zeros(1, self.w_dim, device=self.get_buffer("log_weights").device))
        return NormalMixture(at_zero.log_weights, at_zero.mean[0], at_zero.log_var[0])

    def sample(self, rows: int, u: Tensor | None, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """Draw w and y, z given both, then x given z; the temperature applies to w and to z."""
        w = tempered(self.prior(None), temperature).sample(rows, generator)
        p = tempered(self.given_w(w), temperature)
        assert isinstance(p, NormalMixture)
        y = torch.randint(self.components, (rows,), generator=generator)
        chosen = torch.arange(rows), y
        z = Normal(p.mean[chosen], p.log_var[chosen]).sample(rows, generator)
        return self.likelihood.sample(self.decoder(z), generator)
