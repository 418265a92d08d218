"""Autoencoders whose latents are a grid of vectors: the relaxed VQ-VAE, and the plain autoencoder beside it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ivae_lab.config.numbers import NonNegativeFloat, PositiveFloat, PositiveInt
from ivae_lab.core.data import Batch, DataSpec
from ivae_lab.distributions.densities import Normal, NormalMixture, tempered
from ivae_lab.models.base import Model
from ivae_lab.models.likelihoods import Likelihood
from ivae_lab.models.pixels import Pixels
from ivae_lab.networks.grid import GridDecoder, GridEncoder

_BELOW_ONE = 1 - 2**-24  # the float32 before 1


class Autoencoder(Model):
    """Maps x to a grid of P vectors e_p in R^n, and back to x; the loss is -log p(x given e), there is no ELBO.

    The autoencoder beside the relaxed VQ-VAE in Willetts and Paige 2021, Appendix B. Latents are the grid's vectors one
    after another. Its prior is not trained; it only provides the vectors that `sample` decodes, which do not look like
    images, so `examples` draws none.

    Parameters
    ----------
    spec
        The data it is for: images.
    prior
        (latent_dim, u_dim) to a module of the group `prior`, the same at every position.
    latent_dim
        n, the length of a vector.
    encoder, decoder, likelihood
        See `networks/grid.py` and `likelihoods.py`.

    Raises
    ------
    ValueError
        For data that are no images, and for a prior that needs u or starts from encoded data.
    """

    def __init__(
        self,
        spec: DataSpec,
        prior: Callable[[int, int], nn.Module],
        *,
        latent_dim: PositiveInt,
        encoder: Callable[[DataSpec, int], GridEncoder],
        decoder: Callable[[DataSpec, int], GridDecoder],
        likelihood: Callable[[DataSpec], Likelihood],
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder(spec, latent_dim), decoder(spec, latent_dim)
        assert spec.image is not None  # the encoder has checked it
        self.pixels = Pixels(spec.image, spec.binary)
        self.likelihood, self.prior = likelihood(spec), prior(latent_dim, spec.u_dim)
        self.latent_dim, self.positions = latent_dim, self.encoder.positions
        self.noise_dim, self.live_dim = 0, self.pixels.noise_dim
        self.prior(None)  # raises where it needs u
        if getattr(self.prior, "starts_from_data", False):
            raise ValueError("expected a prior that is not fitted to encoded data for a grid of latents, got init=gmm")

    def loss(self, batch: Batch, noise: Tensor, progress: Tensor) -> dict[str, Tensor]:
        """-log p(x given z), in nats per row; ELBO and KL are NaN."""
        x = self.pixels(batch.x, noise)
        z = self.encoder(x, noise[:, :0])  # (B, P, n)
        log_likelihood = self.likelihood.log_prob(x, self.decoder(z, noise[:, :0]), progress).mean()
        nothing = torch.full_like(log_likelihood, torch.nan)
        return {"loss": -log_likelihood, "elbo": nothing, "log_likelihood": log_likelihood, "kl": nothing}

    def bound(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """The vectors, as mean and as sample, and log p(x given z) alone."""
        x = self.pixels(batch.x, noise)
        z = self.encoder(x, None)
        return {"mean": z.flatten(1), "sample": z.flatten(1), "log_likelihood": self._log_likelihood(x, z)}

    def encode(self, batch: Batch) -> Normal:
        """The vectors as means, (B, P n), with variance 0."""
        grid = self.encoder(self.pixels(batch.x, None), None).flatten(1)
        return Normal(grid, torch.full_like(grid, -torch.inf))

    def examples(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Reconstructions from the mean latents, and the prior's parameters: for a mixture, the codes."""
        reconstruction = self.expected(self.posterior_mean(batch))
        return {"reconstruction": reconstruction, **self.prior_parameters(self.prior(None))}

    def expected(self, z: Tensor) -> Tensor:
        """The expected x given a grid, in [0, 1]: (B, P n) to (B, d)."""
        grid = z.reshape(-1, self.positions, self.latent_dim)
        return self.pixels.shown(self.likelihood.mean(self.decoder(grid, None)))

    def probabilities(self, batch: Batch, mean: Tensor) -> Tensor | None:
        """Return None: the vectors belong to no component of a mixture."""
        return None

    def sample(self, rows: int, u: Tensor | None, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """Draw the vector of every position from the prior, independently, then x given z."""
        z = self._from_prior(rows * self.positions, generator, temperature).reshape(
            rows, self.positions, self.latent_dim
        )
        return self.likelihood.sample(self.decoder(z, None), generator)

    def _from_prior(self, vectors: int, generator: torch.Generator, temperature: float) -> Tensor:
        return tempered(self.prior(None), temperature).sample(vectors, generator)

    def _log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """Log p(x given z) of a trained model: (B, d), (B, P, n) to (B,)."""
        return self.likelihood.log_prob(x, self.decoder(z, None), torch.ones_like(x[0, 0]))


class GridAutoencoder(Autoencoder):
    """The relaxed VQ-VAE: assigns the vectors of an `Autoencoder` to the codes of a mixture prior.

    Willetts and Paige 2021, Appendix B; Sonderby et al. 2017. The posterior over the codes m_k at a position is the
    mixture's responsibilities, r_k = p(k given e_p), and the ELBO is

        E_r[log p(x given z)] - beta sum_p KL(r_p || w),    z_p = m_k with probability r_pk.

    In training z_p is a relaxed draw, sum_k s_k m_k with s = softmax((log r + Gumbel noise) / temperature) (Jang et al.
    2017), so the training's ELBO is that of the relaxation; after the training codes are drawn. Latents are the mean
    codes sum_k r_k m_k.

    Parameters
    ----------
    spec, prior, latent_dim, encoder, decoder, likelihood
        As in `Autoencoder`; the prior is a mixture.
    beta
        Weight of the KL term.
    temperature
        Temperature of the relaxed draws.

    Raises
    ------
    ValueError
        As `Autoencoder`, and for a prior that is no mixture.
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
        super().__init__(spec, prior, latent_dim=latent_dim, encoder=encoder, decoder=decoder, likelihood=likelihood)
        self.register_buffer("beta", torch.tensor(float(beta)))
        self.temperature = temperature
        if not isinstance(self.prior(None), NormalMixture):
            raise ValueError(f"expected a mixture prior for a relaxed VQ-VAE, got {type(self.prior).__name__}")
        self.codes = len(self._mixture.log_weights)
        self.live_dim += self.positions * self.codes

    def loss(self, batch: Batch, noise: Tensor, progress: Tensor) -> dict[str, Tensor]:
        """The negative ELBO of the relaxation, in nats per row."""
        x = self.pixels(batch.x, noise[:, : self.pixels.noise_dim])
        log_r = self._log_responsibilities(self.encoder(x, noise[:, :0]))
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
        """Mean codes as mean, drawn codes as sample, and the ELBO at the drawn ones with its terms."""
        x = self.pixels(batch.x, noise[:, : self.pixels.noise_dim])
        log_r, codes = self._log_responsibilities(self.encoder(x, None)), self._mixture.mean
        chosen = (log_r + self._gumbel(noise)).argmax(-1)  # (B, P)
        z = nn.functional.one_hot(chosen, self.codes).to(codes.dtype) @ codes
        log_likelihood, kl = self._log_likelihood(x, z), self._kl(log_r)
        return {
            "mean": (log_r.exp() @ codes).flatten(1),
            "sample": z.flatten(1),
            "elbo": log_likelihood - kl,
            "log_likelihood": log_likelihood,
            "kl": kl,
        }

    def encode(self, batch: Batch) -> Normal:
        """Mean and variance of the codes, given x: (B, P n)."""
        grid = self.encoder(self.pixels(batch.x, None), None)
        r, codes = self._log_responsibilities(grid).exp(), self._mixture.mean
        mean = r @ codes
        variance = (r @ codes**2 - mean**2).clamp(min=0)
        return Normal(mean.flatten(1), torch.log(variance).flatten(1))

    def latents(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Return `Model.latents`, but with drawn codes as the sample."""
        return super().latents(batch, noise) | {"sample": self.bound(batch, noise)["sample"]}

    def probabilities(self, batch: Batch, mean: Tensor) -> Tensor | None:
        """Probabilities of the codes at each position: (B, P, K)."""
        return self._log_responsibilities(self.encoder(self.pixels(batch.x, None), None)).exp()

    def examples(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Return `Autoencoder.examples` and images of drawn codes; no traversals, since codes are discrete."""
        codes = self._mixture.mean[self._drawn_codes(noise)]  # (r, P, n)
        return super().examples(batch, noise) | {"drawn": self.expected(codes).unsqueeze(0)}

    def _drawn_codes(self, noise: Tensor) -> Tensor:
        """Draw a code for each position independently, by weight: (r, P), from P of the normal numbers (r, P n)."""
        below = torch.exp(self._mixture.log_weights).cumsum(-1)[:-1]
        return (_uniform(noise[:, :: self.latent_dim]).unsqueeze(-1) > below).sum(-1)

    def _from_prior(self, vectors: int, generator: torch.Generator, temperature: float) -> Tensor:
        """Draw codes by weights w_k^(1 / temperature): codes have no spread that a temperature could change."""
        weights = torch.softmax(self._mixture.log_weights / temperature, -1)
        return self._mixture.mean[torch.multinomial(weights, vectors, replacement=True, generator=generator)]

    @property
    def _mixture(self) -> NormalMixture:
        return self.prior(None)  # type: ignore[no-any-return]

    def _log_responsibilities(self, grid: Tensor) -> Tensor:
        """Log p(k given e): (B, P, n) to (B, P, K). It uses products: differences would take n times as much memory."""
        mixture = self._mixture
        precision = torch.exp(-mixture.log_var)  # (K, n)
        constant = mixture.log_weights - 0.5 * (mixture.mean**2 * precision + mixture.log_var).sum(-1)  # (K,)
        return torch.log_softmax(constant + grid @ (mixture.mean * precision).mT - 0.5 * grid**2 @ precision.mT, -1)

    def _gumbel(self, noise: Tensor) -> Tensor:
        """Standard Gumbel numbers from normal ones: (B, P, K)."""
        normal = noise[:, self.pixels.noise_dim :].reshape(-1, self.positions, self.codes)
        return -torch.log(-torch.log(_uniform(normal).clamp(max=_BELOW_ONE)))

    def _kl(self, log_r: Tensor) -> Tensor:
        """KL from the weights to the responsibilities, KL(r || w), summed over positions: (B,)."""
        return (log_r.exp() * (log_r - self._mixture.log_weights)).sum((-2, -1))


def _uniform(normal: Tensor) -> Tensor:
    """Numbers uniform on [0, 1] from normal ones."""
    return 0.5 * torch.erfc(-normal * 0.5**0.5)
