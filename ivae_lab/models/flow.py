"""Flows: an invertible transform of x to latents that follow a prior, trained by exact maximum likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from ivae_lab.config.numbers import NonNegativeFloat
from ivae_lab.core.data import Batch, DataSpec
from ivae_lab.distributions.densities import Distribution, Normal, NormalMixture, tempered
from ivae_lab.models.base import TRAVERSAL_STEPS, Model, check_u
from ivae_lab.models.pixels import Pixels
from ivae_lab.networks.invertible import Transform

# As in the figures of Sorrenson et al. 2020: standard deviations that a traversal reaches to either side, the number of
# latents in traversals, the number of leading latents (all others count as noise), and the reduced temperature.
_REACH, _MOVED, _LEADING, _TEMPERATURE = 2.0, 24, 22, 0.8
_LARGEST_BYTE = 255


class Flow(Model):
    r"""z = g(x) with an invertible g and a prior of z, so that the density of x is exact.

    .. math:: \log p(x \mid u) = \log p(g(x) \mid u) + \log |\det g'(x)|

    GIN is this with volume-preserving couplings and Gaussians per class (Sorrenson et al. 2020), GMM-flow with an
    autoregressive transform and a mixture (Willetts and Paige 2021, Appendix D), iFlow with a conditional prior, the
    deterministic special case of Khemakhem et al. 2020, Section 3.1 (Li et al. 2020). There are as many latents as
    dimensions of x. They are a function of x, so the ELBO is the log-likelihood.

    Parameters
    ----------
    spec
        The data it is for. Image bytes b enter as b / 255 (minus 1/2 for colour images), and must not be binarised
        anew. Their bytes are not dequantised beyond the noise, so their density has no upper bound.
    prior
        (latent_dim, u_dim) to a module of the group `prior`.
    transform
        See `networks/invertible.py`.
    noise_std
        Standard deviation of Gaussian noise that is added to x in training, anew at each step. A trained flow is
        evaluated without it.
    """

    def __init__(
        self,
        spec: DataSpec,
        prior: Callable[[int, int], nn.Module],
        *,
        transform: Callable[[DataSpec], Transform],
        noise_std: NonNegativeFloat,
    ) -> None:
        super().__init__()
        self.pixels = Pixels(spec.image, spec.binary) if spec.image is not None else None
        if spec.observation != "real" and spec.image is None:
            got = spec.observation
            raise ValueError(f"expected real-valued observations for a flow, which has a density of x, got {got} ones")
        if spec.image is not None and spec.image.redrawn:
            keys = "data.binarisation=none data.test_binarisation=none"
            raise ValueError(f"expected grey levels for a flow ({keys}), got images that are binarised anew")
        self.latent_dim, self.noise_dim, self.u_dim = spec.x_dim, 0, spec.u_dim
        self.u_is_labels = spec.u_kind == "labels"
        self.noise_std, self.live_dim = noise_std, spec.x_dim if noise_std else 0
        self.transform = transform(spec)
        self.prior = prior(spec.x_dim, spec.u_dim)
        check_u(self.prior, spec)
        if getattr(self.prior, "starts_from_data", False):
            kind = type(self.prior).__name__
            raise ValueError(f"expected a prior that is not fitted to encoded data for a flow, got {kind}, which is")
        self.settles = bool(getattr(self.prior, "settles", False))

    def observed(self, batch: Batch) -> Tensor:
        """The x that the flow transforms: (B, d)."""
        return batch.x if self.pixels is None else self.pixels(batch.x, None)

    def settle(self, blocks: Iterable[Batch]) -> None:
        """Pass the latents of rows with noise to the prior: the flow was trained on the density of x with noise."""
        generator = torch.Generator().manual_seed(0)

        def noisy() -> Iterator[tuple[Normal, Tensor | None]]:
            for block in blocks:
                x = self.observed(block)
                noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
                z, _ = self.transform(x + self.noise_std * noise)
                yield Normal(z, torch.full_like(z, -torch.inf)), self.u(block)

        self.prior.settle(noisy())  # type: ignore[operator]

    def loss(self, batch: Batch, noise: Tensor, progress: Tensor) -> dict[str, Tensor]:
        """-log p(x given u), in nats per row; with `noise_std`, for x plus noise."""
        x = self.observed(batch)
        if self.noise_std:
            x = x + self.noise_std * noise
        z, log_det = self.transform(x)
        log_likelihood = (self.prior_in_training(z, batch.u).log_prob(z) + log_det).mean()
        return {
            "loss": -log_likelihood,
            "elbo": log_likelihood,
            "log_likelihood": log_likelihood,
            "kl": torch.zeros_like(log_likelihood),
        }

    def bound(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Latents as mean and as sample, and the exact log-likelihood; for images also bits per dimension.

        Bits are those of a byte b, whose density is that of b / 255 divided by 255.
        """
        z, log_det = self.transform(self.observed(batch))
        prior = self.prior(batch.u)
        log_likelihood = prior.log_prob(z) + log_det
        outputs = {"mean": z, "sample": z, "elbo": log_likelihood, "log_likelihood": log_likelihood}
        if self.pixels is not None:
            per_dimension = -log_likelihood / self.latent_dim + math.log(_LARGEST_BYTE)
            outputs["bits_per_dimension"] = per_dimension / math.log(2)
        if isinstance(prior, NormalMixture):
            outputs["cluster"] = prior.log_joint(z).argmax(-1)
        return outputs

    def encode(self, batch: Batch) -> Normal:
        """The latents as means, with variance 0."""
        z, _ = self.transform(self.observed(batch))
        return Normal(z, torch.full_like(z, -torch.inf))

    def examples(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Reconstructions, the prior's parameters, and for images draws and traversals (with u also `_of_classes`).

        Traversals move the latents with the largest spread over the rows; "traversed" holds their numbers.
        """
        prior, z = self.prior(self.shown_u(batch)), self.posterior_mean(batch)
        shown = {"reconstruction": self.expected(z), **self.prior_parameters(prior)}
        if self.pixels is None:
            return shown
        moved, chosen = self.moved(z, _REACH)
        shown |= {
            "drawn": self.expected(self.drawn(prior, noise)),
            "traversals": self.expected(moved),
            "traversed": chosen,
        }
        return shown | self._of_classes(prior, noise) if self.u_dim else shown

    def _of_classes(self, prior: Distribution, noise: Tensor) -> dict[str, Tensor]:
        """Traversals and draws of the latents of largest spread at each u (Sorrenson et al. 2020, Figs. 4, 5, 9 to 15).

        "class_traversed" (n',) are these latents, by their spread under the prior with all u equally probable;
        "class_traversals" (n', M, steps, d): one of them moves by up to 2 standard deviations of the class, the others
        are at the class's mean; "class_drawn" (3, M, r, d): the same r draws for each u, of all latents, of the leading
        22 with the others at their mean, and of these at a temperature of .8.
        """
        parameters = self.prior_parameters(prior)
        mean, std = parameters["prior_mean"].unsqueeze(1), parameters["prior_std"].unsqueeze(1)  # (M, 1, n)
        spread = (std**2).mean((0, 1)) + mean.var((0, 1), correction=0)  # (n,)
        order = spread.topk(min(_MOVED, self.latent_dim)).indices  # (n',)
        one_hot = nn.functional.one_hot(order, self.latent_dim).to(mean.dtype)  # (n', n)
        steps = torch.linspace(-_REACH, _REACH, TRAVERSAL_STEPS, device=mean.device).unsqueeze(-1)
        moved = mean + one_hot[:, None, None] * std * steps  # (n', M, steps, n)
        leading = one_hot[:_LEADING].sum(0)  # 1 for these, (n,)
        factors = (torch.ones_like(leading), leading, _TEMPERATURE * leading)
        drawn = torch.stack([mean + std * factor * noise for factor in factors])  # (3, M, r, n)
        shown = {"class_traversals": self.expected(moved), "class_drawn": self.expected(drawn)}
        return shown | {"class_traversed": order}

    def expected(self, z: Tensor) -> Tensor:
        """The x of latents, for images in [0, 1]: (..., n) to (..., d)."""
        x = self.transform.inverse(z.reshape(-1, self.latent_dim)).reshape(z.shape)
        return x if self.pixels is None else self.pixels.shown(x)

    def sample(self, rows: int, u: Tensor | None, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """Draw z from the prior, with standard deviations times the temperature, and return its x: (rows, d)."""
        z = tempered(self.prior(u), temperature).sample(rows, generator)
        return self.transform.inverse(z)
