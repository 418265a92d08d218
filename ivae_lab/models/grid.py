"""Autoencoders whose latents are a grid of vectors: the relaxed VQ-VAE, and the plain autoencoder beside it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ivae_lab.distributions import Normal, NormalMixture
from ivae_lab.grid_nets import GridDecoder, GridEncoder
from ivae_lab.models.likelihoods import Likelihood
from ivae_lab.models.model import Model
from ivae_lab.models.pixels import Pixels
from ivae_lab.types import Batch, DataSpec, NonNegativeFloat, PositiveFloat, PositiveInt

_BELOW_ONE = 1 - 2**-24  # the float32 before 1


class GridAutoencoder(Model):
    """x to a grid of P vectors e_p in R^n, these to codes where the prior is a mixture, and back to x.

    With a mixture prior it is a relaxed VQ-VAE (Willetts and Paige 2021, Appendix B; Sonderby et al. 2017): the
    posterior over the codes m_k at a position is the mixture's responsibilities, r_k = p(k given e_p), and the ELBO is

        E_r[log p(x given z)] - beta sum_p KL(r_p || w),    z_p = m_k with probability r_pk.

    In training z_p is a relaxed draw, sum_k s_k m_k with s = softmax((log r + Gumbel noise) / temperature) (Jang et al.
    2017), so the training's ELBO is that of the relaxation; after it codes are drawn. With any other prior the decoder
    gets e itself: the autoencoder without quantisation. Its prior is not trained; it only says what `sample` decodes.

    Latents are the grid's vectors one after another: the mean code sum_k r_k m_k, or e.

    Parameters
    ----------
    spec
        The data it is for: images.
    prior
        (latent_dim, u_dim) to a module of the group `prior`, the same at every position.
    latent_dim
        n, the length of a vector.
    beta
        Weight of the KL term.
    temperature
        Of the relaxed draws; read with a mixture prior only.
    encoder, decoder, likelihood
        See `grid_nets.py` and `likelihoods.py`.
    """

    def __init__(
        self,
        spec: DataSpec,
        prior: Callable[[int, int], nn.Module],
        *,
        latent_dim: PositiveInt,
        beta: NonNegativeFloat,
        temperature: PositiveFloat,
        encoder: Callable[[DataSpec, int], GridEncoder],
        decoder: Callable[[DataSpec, int], GridDecoder],
        likelihood: Callable[[DataSpec], Likelihood],
    ) -> None:
        super().__init__()
        self.register_buffer("beta", torch.tensor(float(beta)))
        self.encoder, self.decoder = encoder(spec, latent_dim), decoder(spec, latent_dim)
        assert spec.image is not None  # the encoder has seen to it
        self.pixels = Pixels(spec.image, spec.binary)
        self.likelihood, self.prior = likelihood(spec), prior(latent_dim, spec.u_dim)
        self.latent_dim, self.positions, self.temperature = latent_dim, self.encoder.positions, temperature
        self.noise_dim = 0
        at_a_position = self.prior(None)
        self.codes = len(at_a_position.log_weights) if isinstance(at_a_position, NormalMixture) else 0
        self.live_dim = self.pixels.noise_dim + self.positions * self.codes

    def loss(self, batch: Batch, noise: Tensor, progress: Tensor) -> dict[str, Tensor]:
        """The negative ELBO of the relaxation, or the autoencoder's -log p(x given z), in nats per row."""
        x = self.pixels(batch.x, noise[:, : self.pixels.noise_dim])
        grid = self.encoder(x, noise[:, :0])  # (B, P, n)
        z, kl = grid, grid.new_zeros(len(x))
        if self.codes:
            log_r = self._log_responsibilities(grid)
            weights = torch.softmax((log_r + self._gumbel(noise)) / self.temperature, -1)  # (B, P, K)
            z, kl = weights @ self._mixture.mean, self._kl(log_r)
        log_likelihood = self.likelihood.log_prob(x, self.decoder(z, noise[:, :0]), progress)
        return {
            "loss": -(log_likelihood - self.get_buffer("beta") * kl).mean(),
            "elbo": (log_likelihood - kl).mean(),
            "log_likelihood": log_likelihood.mean(),
            "kl": kl.mean(),
        }

    def bound(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Mean and drawn codes (of an autoencoder: its vectors), and the ELBO at the drawn ones, with its terms.

        An autoencoder has no ELBO: it reports log p(x given z) alone.
        """
        x = self.pixels(batch.x, noise[:, : self.pixels.noise_dim])
        grid = self.encoder(x, None)
        mean = z = grid
        if self.codes:
            log_r = self._log_responsibilities(grid)
            mean = log_r.exp() @ self._mixture.mean
            chosen = (log_r + self._gumbel(noise)).argmax(-1)  # (B, P)
            z = nn.functional.one_hot(chosen, self.codes).to(mean.dtype) @ self._mixture.mean
        log_likelihood = self.likelihood.log_prob(x, self.decoder(z, None), torch.ones_like(x[0, 0]))
        found = {"mean": mean.flatten(1), "sample": z.flatten(1), "log_likelihood": log_likelihood}
        if self.codes:
            kl = self._kl(log_r)
            found |= {"elbo": log_likelihood - kl, "kl": kl}
        return found

    def encode(self, batch: Batch) -> Normal:
        """Mean and variance of the vectors, given x: (B, P n); an autoencoder's variance is 0."""
        grid = self.encoder(self.pixels(batch.x, None), None)
        if not self.codes:
            return Normal(grid.flatten(1), torch.full_like(grid, -torch.inf).flatten(1))
        r, codes = self._log_responsibilities(grid).exp(), self._mixture.mean
        mean = r @ codes
        variance = (r @ codes**2 - mean**2).clamp(min=0)
        return Normal(mean.flatten(1), torch.log(variance).flatten(1))

    def examples(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Reconstructions from the mean codes, and the prior's parameters: of a mixture, the codes."""
        z = self.posterior_mean(batch).reshape(-1, self.positions, self.latent_dim)
        reconstruction = self.likelihood.mean(self.decoder(z, None))
        return {"reconstruction": self.pixels.shown(reconstruction), **self.prior_parameters(self.prior(None))}

    def sample(self, rows: int, u: Tensor | None, generator: torch.Generator) -> Tensor:
        """Every position by itself from the prior (of a mixture: a code, by its weight), then x given z."""
        prior, vectors = self.prior(None), rows * self.positions
        if isinstance(prior, NormalMixture):
            z = prior.mean[torch.multinomial(prior.log_weights.exp(), vectors, replacement=True, generator=generator)]
        else:
            z = prior.sample(vectors, generator)
        output = self.decoder(z.reshape(rows, self.positions, self.latent_dim), None)
        return self.likelihood.sample(output, generator)

    @property
    def _mixture(self) -> NormalMixture:
        return self.prior(None)  # type: ignore[no-any-return]

    def _log_responsibilities(self, grid: Tensor) -> Tensor:
        """Log p(k given e): (B, P, n) to (B, P, K). By products: all differences would take n times as much memory."""
        mixture = self._mixture
        precision = torch.exp(-mixture.log_var)  # (K, n)
        constant = mixture.log_weights - 0.5 * (mixture.mean**2 * precision + mixture.log_var).sum(-1)  # (K,)
        return torch.log_softmax(constant + grid @ (mixture.mean * precision).mT - 0.5 * grid**2 @ precision.mT, -1)

    def _gumbel(self, noise: Tensor) -> Tensor:
        """Standard Gumbel numbers from normal ones: (B, P, K)."""
        own = noise[:, self.pixels.noise_dim :].reshape(-1, self.positions, self.codes)
        uniform = (0.5 * torch.erfc(-own * 0.5**0.5)).clamp(max=_BELOW_ONE)
        return -torch.log(-torch.log(uniform))

    def _kl(self, log_r: Tensor) -> Tensor:
        """KL of the responsibilities from the weights, summed over positions: (B,)."""
        return (log_r.exp() * (log_r - self._mixture.log_weights)).sum((-2, -1))
