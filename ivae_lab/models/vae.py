"""The VAE: one composition of encoder, decoder, likelihood, prior and objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from ivae_lab.config.numbers import Count, NonNegativeFloat, PositiveInt
from ivae_lab.core.data import Batch, DataSpec
from ivae_lab.core.exponential_family import ExponentialFamily
from ivae_lab.core.mixture_generator import Generator
from ivae_lab.distributions.densities import Facets, NormalMixture, Posterior, tempered
from ivae_lab.models.auxiliary import Auxiliary
from ivae_lab.models.base import Model, check_u, latents_for, mixture_generator
from ivae_lab.models.identifiability import Noise, Penalty, natural_differences
from ivae_lab.models.likelihoods import Likelihood
from ivae_lab.models.objectives import ELBO, Evidence, FourTerms
from ivae_lab.models.pixels import Pixels
from ivae_lab.networks.base import Decoder, Encoder

_REACH = 2.5  # standard deviations that a traversal reaches to either side


class VAE(Model):
    """A VAE: decoder and likelihood give p(x given z), the prior p(z [given u]), the encoder q(z given x [, u]).

    iVAE is this with a conditional prior (Khemakhem et al. 2020), VaDE with a mixture (Jiang et al. 2017) or with one
    of its own posteriors (Tomczak and Welling 2018), beta-VAE and beta-TC-VAE with other objectives. Parts are passed
    as factories, which are called with the dimensions.

    Parameters
    ----------
    spec
        The data it is for.
    prior
        (latent_dim, u_dim) to a module of the group `prior`.
    latent_dim
        n; None takes the number of true sources, as the papers do.
    beta
        Weight of the KL term, or of another term that the objective names.
    encoder, decoder, likelihood, objective
        See `networks/`, `likelihoods.py` and `objectives.py`.
    pretrain_steps
        Steps as a plain autoencoder before the objective: VaDE's pretraining. Every seed does its own.
    auxiliary
        Makes u from x, in place of the data's; see `auxiliary.py`.
    evaluate_live
        Encode the data after the training with networks in training mode, with dropout and batch statistics, as the
        code released with Willetts and Paige 2021 does. A number is the rows per batch, 64 in that code; true: as many
        as are encoded at a time, 256 images (`ENCODE_IMAGES`). That code also binarises images afresh for each seed:
        that is `data.test_binarisation=fresh`.
    identifiability
        The measure that keeps the prior's matrix L invertible; see `identifiability.py`.
    """

    def __init__(
        self,
        spec: DataSpec,
        prior: Callable[[int, int], nn.Module],
        *,
        latent_dim: PositiveInt | None,
        beta: NonNegativeFloat,
        encoder: Callable[[DataSpec, int], Encoder],
        decoder: Callable[[DataSpec, int], Decoder],
        likelihood: Callable[[DataSpec], Likelihood],
        objective: ELBO | FourTerms,
        pretrain_steps: Count = 0,
        auxiliary: Callable[[DataSpec], Auxiliary] | None = None,
        evaluate_live: bool | PositiveInt = False,
        identifiability: Noise | Penalty | None = None,
    ) -> None:
        super().__init__()
        self.pixels = Pixels(spec.image, spec.binary) if spec.image is not None else None
        self.auxiliary = auxiliary(spec) if auxiliary is not None else None
        if self.auxiliary is not None:
            spec = replace(spec, u_dim=self.auxiliary.u_dim, u_kind="labels")
        latent_dim = latents_for(spec, latent_dim)
        self.latent_dim = self.noise_dim = latent_dim
        self.train_rows, self.u_dim, self.pretrain_steps = spec.train_rows, spec.u_dim, pretrain_steps
        self.u_is_labels = spec.u_kind == "labels"
        self.register_buffer("beta", torch.tensor(float(beta)))  # so that each model of a stack has its own
        self.encoder = encoder(spec, latent_dim)
        self.decoder = decoder(spec, latent_dim)
        self.encoder_sees_u = self.encoder.sees_u and self.auxiliary is None
        self.evaluate_live = bool(evaluate_live)
        self.rows_together = None if isinstance(evaluate_live, bool) else evaluate_live
        self.live_dim = self.encoder.noise_dim + self.decoder.noise_dim + (self.pixels.noise_dim if self.pixels else 0)
        if isinstance(objective, FourTerms) and getattr(self.encoder, "covariance", None) == "full":
            raise ValueError(
                "expected encoder.covariance=diagonal for an objective of four terms, whose estimates take each "
                "dimension by itself, got full"
            )
        self.likelihood = likelihood(spec)
        self.prior = prior(latent_dim, spec.u_dim)
        check_u(self.prior, spec)
        if hasattr(self.prior, "attach"):
            self._attach_prior(spec)
        self.objective = objective
        self.starts_from_data = bool(getattr(self.prior, "starts_from_data", False))
        self.settles = bool(getattr(self.prior, "settles", False))
        self.facets = getattr(self.prior, "facets", 1)
        if self.starts_from_data and spec.train_rows < self.prior.components:  # type: ignore[operator]
            raise ValueError(
                f"expected at least {self.prior.components} training rows to fit as many components, "
                f"got {spec.train_rows}"
            )

        self.identifiability = identifiability
        self._check_identifiability()

    def _attach_prior(self, spec: DataSpec) -> None:
        """Pass the encoder, and the range of x if it has one, to a prior that is made of posteriors."""
        covariance = getattr(self.encoder, "covariance", "diagonal")
        if self.encoder.sees_u or covariance == "full":
            expected = "expected encoder.sees_u=false and encoder.covariance=diagonal"
            got = f"sees_u={str(self.encoder.sees_u).lower()}, covariance={covariance}"
            raise ValueError(f"{expected} for a {type(self.prior).__name__}, got {got}")
        low = -self.pixels.offset if self.pixels is not None else 0.0
        limits = (low, low + 1) if self.pixels is not None or spec.binary else None
        self.prior.attach(self._posterior_of, spec.x_dim, limits)  # type: ignore[operator]

    def _posterior_of(self, x: Tensor) -> Posterior:
        return self.encoder(x, None)  # type: ignore[no-any-return]

    def _check_identifiability(self) -> None:
        prior, measure = type(self.prior).__name__, self.identifiability
        if measure is not None and self.natural_differences() is None:
            raise ValueError(
                "expected a prior with natural parameters at two or more values of u for model.identifiability, "
                f"got {prior}"
            )
        if isinstance(measure, Noise) and not hasattr(self.prior, "add_noise"):
            raise ValueError(
                "expected a prior whose natural parameters are free, a table or a mixture, for noise on them, "
                f"got {prior}"
            )

    def loss(self, batch: Batch, noise: Tensor, progress: Tensor) -> dict[str, Tensor]:
        """The objective, with the ELBO and its terms, in nats per row."""
        evidence = self._evidence(batch, noise, progress, training=True)
        kl, loss = evidence.kl(), self.objective(evidence, self.get_buffer("beta"), progress)
        if isinstance(self.identifiability, Penalty):
            loss = loss + self.identifiability(self.natural_differences())
        return {
            "loss": loss,
            "elbo": (evidence.log_likelihood - kl).mean(),
            "log_likelihood": evidence.log_likelihood.mean(),
            "kl": kl.mean(),
        }

    def bound(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Posterior mean and sample, and the ELBO of each row with its terms."""
        evidence = self._evidence(batch, noise, torch.ones_like(noise[0, 0]), training=False)
        terms = evidence.terms()
        outputs = {
            "mean": evidence.posterior.mean,
            "sample": evidence.z,
            "elbo": terms["log_likelihood"] - terms["kl"],
            **terms,
        }
        clusters = self._clusters(evidence)
        return outputs if clusters is None else outputs | {"cluster": clusters}

    def _clusters(self, evidence: Evidence) -> Tensor | None:
        """The most probable cluster at the posterior's mean: (B,), of several facets (B, J)."""
        if isinstance(evidence.prior, NormalMixture | Facets):
            return evidence.prior.log_joint(evidence.posterior.mean).argmax(-1)
        return None

    def _evidence(self, batch: Batch, noise: Tensor, progress: Tensor, training: bool) -> Evidence:
        for_sample, *for_networks, for_pixels = self._cut(noise)
        x, u = self.observed(batch, for_pixels), self.u(batch)
        to_encoder, to_decoder = for_networks if training or self.evaluate_live else (None, None)
        q = self.encoder(x, u, to_encoder)
        z = q.rsample(for_sample)
        log_likelihood = self.likelihood.log_prob(x, self.decoder(z, to_decoder), progress)
        prior = self.prior_in_training(z, u) if training else self.prior(u)
        return Evidence(log_likelihood, q, prior, z, self.train_rows)

    def _cut(self, noise: Tensor) -> tuple[Tensor, ...]:
        """Split the noise for the sample, encoder, decoder and pixels."""
        widths = [self.noise_dim, self.encoder.noise_dim, self.decoder.noise_dim]
        return noise.tensor_split([widths[0], sum(widths[:2]), sum(widths)], -1)

    def observed(self, batch: Batch, noise: Tensor | None = None) -> Tensor:
        """The x that the networks and the likelihood see: (B, d)."""
        return batch.x if self.pixels is None else self.pixels(batch.x, noise)

    def u(self, batch: Batch) -> Tensor | None:
        """The auxiliary variable: the data's, or the one that `auxiliary` computes from x."""
        return batch.u if self.auxiliary is None else self.auxiliary(self.observed(batch))

    def pretraining_loss(self, batch: Batch, noise: Tensor, progress: Tensor) -> dict[str, Tensor]:
        """The loss of an autoencoder: -log p(x given the posterior's mean)."""
        _, to_encoder, to_decoder, for_pixels = self._cut(noise)
        x = self.observed(batch, for_pixels)
        code = self.encoder(x, self.u(batch), to_encoder).mean
        log_likelihood = self.likelihood.log_prob(x, self.decoder(code, to_decoder), progress)
        nothing = torch.full_like(log_likelihood.mean(), torch.nan)
        return {
            "loss": -log_likelihood.mean(),
            "elbo": nothing,
            "log_likelihood": log_likelihood.mean(),
            "kl": nothing,
        }

    def encode(self, batch: Batch) -> Posterior:
        """q(z given x [, u])."""
        return self.encoder(self.observed(batch), self.u(batch))  # type: ignore[no-any-return]

    def examples(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Reconstructions from the posterior's mean, the prior's parameters, and for images draws and traversals."""
        prior, code = self.prior_of_z(self.shown_u(batch)), self.posterior_mean(batch)
        shown = {"reconstruction": self.expected(code), **self.prior_parameters(prior)}
        if self.pixels is None:
            return shown
        moved, chosen = self.moved(code, _REACH)
        return shown | {
            "drawn": self.expected(self.drawn(prior, noise)),
            "traversals": self.expected(moved),
            "traversed": chosen,
        }

    def expected(self, z: Tensor) -> Tensor:
        """The expected x given z, for images in [0, 1]: (..., n) to (..., d)."""
        x = self.likelihood.mean(self.decoder(z.reshape(-1, self.latent_dim)))
        x = x.reshape(*z.shape[:-1], x.shape[-1])
        return x if self.pixels is None else self.pixels.shown(x)

    def start(self, rows: Batch, z: Tensor, seed: int) -> None:
        """Fit the prior to encoded data, or set its pseudo-inputs to random rows."""
        if hasattr(self.prior, "start_at"):
            order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
            chosen = rows[order[: self.prior.components]]
            self.prior.start_at(self.observed(chosen))  # type: ignore[operator]
        else:
            self.prior.fit(z, seed)  # type: ignore[operator]

    def natural_differences(self) -> Tensor | None:
        """The matrix L of `identifiability.py`, (n k, M - 1); None where the prior has none."""
        known = hasattr(self.prior, "natural_parameters") and self.prior_has_values
        natural = self.prior.natural_parameters() if known else None  # type: ignore[operator]
        return None if natural is None or len(natural) < 2 else natural_differences(natural)

    def exponential_family(self) -> ExponentialFamily | None:
        """p(z given u) as plain numbers; None also if u is computed from x: in the theory u is observed besides x."""
        return super().exponential_family() if self.auxiliary is None else None

    def generator(self) -> Generator | None:
        """Prior and decoder as plain numbers; None where the prior is no Gaussian mixture that all rows share."""
        prior = self.prior(None) if hasattr(self.prior, "components") else None
        return mixture_generator(prior, self.decoder) if isinstance(prior, NormalMixture) else None

    def add_noise(self, noise: Tensor) -> None:
        """Add noise, (M, n k), to the natural parameters of the prior."""
        self.prior.add_noise(noise)  # type: ignore[operator]

    def sample(self, rows: int, u: Tensor | None, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """Draw z from the prior, then x given z; images as observations of `models/pixels.py`."""
        z = tempered(self.prior(u), temperature).sample(rows, generator)
        return self.likelihood.sample(self.decoder(z), generator)
