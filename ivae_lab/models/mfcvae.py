"""MFCVAE: a VAE with several clusterings at once, whose facets join the training one after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ivae_lab.config.numbers import Fraction, NonNegativeFloat, PositiveInt
from ivae_lab.core.data import Batch, DataSpec
from ivae_lab.distributions.densities import Facets, Normal
from ivae_lab.models.likelihoods import Likelihood
from ivae_lab.models.objectives import ELBO, Evidence
from ivae_lab.models.vae import VAE
from ivae_lab.networks.base import Decoder, Encoder
from ivae_lab.networks.ladder import LadderDecoder


@dataclass(frozen=True)
class FacetEvidence(Evidence):
    """Evidence whose facets are weighted by their fade g, at one sample z."""

    fade: Tensor  # (J,), g

    def kl(self) -> Tensor:
        """sum_j g_j [log q(z_j given x) - log p(z_j)]: (B,).

        Falck et al. 2021 write it with the clusters: log q(z_j given x) - E_q(c_j)[log p(z_j given c_j)] + KL(q(c_j) ||
        p(c_j)). As their q(c_j given x) is p(c_j given z_j) at that sample, the last two terms are - log p(z_j).
        """
        assert isinstance(self.posterior, Normal)  # the networks of facets give no other
        assert isinstance(self.prior, Facets)
        parts = self.posterior.log_prob_each(self.z).tensor_split(len(self.fade), -1)
        log_q = torch.stack([part.sum(-1) for part in parts], -1)  # (B, J)
        return ((log_q - self.prior.log_prob_each(self.z)) * self.fade).sum(-1)


class MFCVAE(VAE):
    """A VAE with a mixture for each facet z_j of its latents, trained facet by facet (Falck et al. 2021).

    The loss is -log p(x given z) + beta sum_j g_j [log q(z_j given x) - log p(z_j)]. The training has a stage for each
    facet, of equal lengths: the last facet takes part from the start, the one before it from the second stage on, and
    so forth. Within the share `fade_in` of the whole training, g_j goes from 0 to 1, and g_j also multiplies the
    decoder's input from the facet: its rung if the decoder is a ladder, else z_j.

    Parameters
    ----------
    spec, prior, latent_dim, beta, encoder, decoder, likelihood
        As in `VAE`; the prior is one of facets, and a ladder has a rung for each of them.
    fade_in
        Share of the training that a fade takes; 0: all facets from the start, no stages.

    Raises
    ------
    ValueError
        For another prior, or a ladder with more or fewer rungs.
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
        fade_in: Fraction,
    ) -> None:
        super().__init__(
            spec,
            prior,
            latent_dim=latent_dim,
            beta=beta,
            encoder=encoder,
            decoder=decoder,
            likelihood=likelihood,
            objective=ELBO(),
        )
        self.fade_in = fade_in
        if not isinstance(self.prior(None), Facets):
            raise ValueError(f"expected a prior of facets (prior=facets), got {type(self.prior).__name__}")
        rungs = len(self.decoder.rungs) if isinstance(self.decoder, LadderDecoder) else self.facets
        if rungs != self.facets:
            raise ValueError(f"expected a ladder with a rung for each of the {self.facets} facets, got {rungs}")

    def fade(self, progress: Tensor) -> Tensor:
        """The g of each facet at this share of the training: (J,)."""
        if not self.fade_in:
            return torch.ones(self.facets, device=progress.device)
        begins = torch.arange(self.facets - 1, -1, -1, device=progress.device) / self.facets
        faded = ((progress - begins) / self.fade_in).clamp(0, 1)
        return torch.where(begins > 0, faded, 1.0)

    def _evidence(self, batch: Batch, noise: Tensor, progress: Tensor, training: bool) -> FacetEvidence:
        for_sample, to_encoder, to_decoder, for_pixels = self._cut(noise)
        x = self.observed(batch, for_pixels)
        q = self.encoder(x, None, to_encoder if training else None)
        z, fade = q.rsample(for_sample), self.fade(progress if training else torch.ones_like(progress))
        output = self._decode(z, to_decoder if training else None, fade)
        log_likelihood = self.likelihood.log_prob(x, output, progress)
        return FacetEvidence(log_likelihood, q, self.prior(None), z, self.train_rows, fade)

    def _decode(self, z: Tensor, noise: Tensor | None, fade: Tensor) -> Tensor:
        if isinstance(self.decoder, LadderDecoder):
            return self.decoder(z, noise, fade)  # type: ignore[no-any-return]
        parts = z.tensor_split(self.facets, -1)
        return self.decoder(torch.cat([part * g for part, g in zip(parts, fade, strict=True)], -1), noise)  # type: ignore[no-any-return]
