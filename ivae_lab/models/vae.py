"""The VAE family: one composition of encoder, decoder, likelihood, prior and objective."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ivae_lab.distributions import Posterior
from ivae_lab.models.likelihoods import BernoulliLikelihood, GaussianLikelihood
from ivae_lab.models.model import Model
from ivae_lab.models.objectives import ELBO, Evidence, FourTerms
from ivae_lab.types import Batch, Count, DataSpec, NonNegativeFloat, PositiveInt


class VAE(Model):
    """x given z by a decoder and a likelihood, z by a prior, q(z given x [, u]) by an encoder.

    iVAE is this with a conditional prior (Khemakhem et al. 2020), VaDE with a mixture (Jiang et al. 2017),
    beta-VAE and beta-TC-VAE with other objectives. Parts come as factories that are told the dimensions.

    Parameters
    ----------
    spec
        The data it is for.
    prior
        (latent_dim, u_dim) to a module of the group `prior`.
    latent_dim
        n; None takes the number of true sources, as the papers do.
    beta
        Weight of the KL term, or of what the objective says instead.
    encoder, decoder, likelihood, objective
        See `nets.py`, `likelihoods.py` and `objectives.py`.
    pretrain_steps
        Steps as a plain autoencoder before the objective: VaDE's pretraining. Every seed does its own.
    """

    def __init__(
        self,
        spec: DataSpec,
        prior: Callable[[int, int], nn.Module],
        *,
        latent_dim: PositiveInt | None,
        beta: NonNegativeFloat,
        encoder: Callable[[int, int, int], nn.Module],
        decoder: Callable[[int, int], nn.Module],
        likelihood: Callable[[DataSpec], GaussianLikelihood | BernoulliLikelihood],
        objective: ELBO | FourTerms,
        pretrain_steps: Count = 0,
    ) -> None:
        super().__init__()
        if latent_dim is None:
            if spec.source_dim is None:
                raise ValueError("expected latent_dim for data without known sources, got none")
            latent_dim = spec.source_dim
        self.latent_dim = self.noise_dim = latent_dim
        self.train_rows, self.u_dim, self.pretrain_steps = spec.train_rows, spec.u_dim, pretrain_steps
        self.register_buffer("beta", torch.tensor(float(beta)))  # a number of its own for each model of a stack
        self.encoder = encoder(spec.x_dim, latent_dim, spec.u_dim)
        self.decoder = decoder(latent_dim, spec.x_dim)
        if isinstance(objective, FourTerms) and getattr(self.encoder, "covariance", None) == "full":
            raise ValueError(
                "expected encoder.covariance=diagonal for an objective of four terms, whose estimates take each "
                "dimension by itself, got full"
            )
        self.likelihood = likelihood(spec)
        self.prior = prior(latent_dim, spec.u_dim)
        self.objective = objective
        self.starts_from_data = bool(getattr(self.prior, "starts_from_data", False))
        if self.starts_from_data and spec.train_rows < self.prior.components:  # type: ignore[operator]
            raise ValueError(
                f"expected at least {self.prior.components} training rows to fit as many components, "
                f"got {spec.train_rows}"
            )

    def loss(self, batch: Batch, noise: Tensor, progress: Tensor) -> dict[str, Tensor]:
        """The objective, with the ELBO and its terms, in nats per row."""
        evidence = self._evidence(batch, noise, progress)
        kl = evidence.kl()
        return {
            "loss": self.objective(evidence, self.get_buffer("beta"), progress),
            "elbo": (evidence.log_likelihood - kl).mean(),
            "log_likelihood": evidence.log_likelihood.mean(),
            "kl": kl.mean(),
        }

    def bound(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Posterior mean and sample, and the ELBO of each row with its terms."""
        evidence = self._evidence(batch, noise, torch.ones_like(noise[0, 0]))
        kl = evidence.kl()
        return {
            "mean": evidence.posterior.mean,
            "sample": evidence.z,
            "elbo": evidence.log_likelihood - kl,
            "log_likelihood": evidence.log_likelihood,
            "kl": kl,
        }

    def _evidence(self, batch: Batch, noise: Tensor, progress: Tensor) -> Evidence:
        q = self.encode(batch)
        z = q.rsample(noise)
        log_likelihood = self.likelihood.log_prob(batch.x, self.decoder(z), progress)
        return Evidence(log_likelihood, q, self.prior(batch.u), z, self.train_rows)

    def pretraining_loss(self, batch: Batch, noise: Tensor, progress: Tensor) -> dict[str, Tensor]:
        """An autoencoder's: -log p(x given the posterior's mean)."""
        log_likelihood = self.likelihood.log_prob(batch.x, self.decoder(self.encode(batch).mean), progress)
        nothing = torch.full_like(log_likelihood.mean(), torch.nan)
        return {
            "loss": -log_likelihood.mean(),
            "elbo": nothing,
            "log_likelihood": log_likelihood.mean(),
            "kl": nothing,
        }

    def encode(self, batch: Batch) -> Posterior:
        """q(z given x [, u])."""
        return self.encoder(batch.x, batch.u)  # type: ignore[no-any-return]

    def examples(self, batch: Batch) -> dict[str, Tensor]:
        """Reconstructions from the posterior's mean, and the prior's parameters."""
        every_u = torch.arange(self.u_dim, device=batch.x.device) if self.u_dim else None
        prior = self.prior(every_u)
        mean, std = prior.mean + 0 * prior.std, prior.std + 0 * prior.mean  # of one shape
        return {
            "reconstruction": self.likelihood.mean(self.decoder(self.posterior_mean(batch))),
            "prior_mean": mean.reshape(-1, self.latent_dim),
            "prior_std": std.reshape(-1, self.latent_dim),
        }

    def start(self, z: Tensor, seed: int) -> None:
        """Fit the prior to encoded data."""
        self.prior.fit(z, seed)  # type: ignore[operator]

    def sample(self, rows: int, u: Tensor | None, generator: torch.Generator) -> Tensor:
        """Z from the prior, then x given z."""
        return self.likelihood.sample(self.decoder(self.prior(u).sample(rows, generator)), generator)
