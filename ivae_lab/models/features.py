"""Models with latents but no density of x: the code that linear and contrastive methods share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ivae_lab.core.data import Batch, DataSpec
from ivae_lab.distributions.densities import Normal
from ivae_lab.models.base import Model, check_u, latents_for

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Unmixing:
    """A linear map from x to latents, fitted by a method: z = W (x - m)."""

    matrix: Array  # W, (n, d)
    mean: Array  # m, (d,)
    converged: bool = True  # whether iterations ended before their limit


class Affine(nn.Module):
    """z = W (x - m), and back by the pseudo-inverse of W; until it is fitted, z is the first n columns of x."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.register_buffer("unmixing", torch.eye(out_dim, in_dim))
        self.register_buffer("mixing", torch.eye(in_dim, out_dim))
        self.register_buffer("mean", torch.zeros(in_dim))
        self.register_buffer("converged", torch.tensor(torch.nan))

    def forward(self, x: Tensor) -> Tensor:
        """(B, d) to (B, n)."""
        return (x - self.get_buffer("mean")) @ self.get_buffer("unmixing").mT

    def inverse(self, z: Tensor) -> Tensor:
        """(B, n) to (B, d): of the x with these z, the one nearest to the mean."""
        return self.get_buffer("mean") + z @ self.get_buffer("mixing").mT

    def fit(self, method: Callable[[Array], Unmixing], rows: Tensor) -> None:
        """Fit a method to the rows, (N, d), in double precision, and store its map; NaN if a row is not finite."""
        x = rows.double().cpu().numpy()
        n, d = self.get_buffer("unmixing").shape
        finite = bool(np.isfinite(x).all())
        unmixing = method(x) if finite else Unmixing(np.full((n, d), np.nan), np.full(d, np.nan), converged=False)
        values = {
            "unmixing": unmixing.matrix,
            "mixing": np.linalg.pinv(unmixing.matrix) if finite else unmixing.matrix.T,
            "mean": unmixing.mean,
            "converged": np.array(float(unmixing.converged)),
        }
        for name, value in values.items():
            self.get_buffer(name).copy_(torch.from_numpy(value))


class Features(Model):
    """z = h(x): the posterior is a point, as in an autoencoder, and there is no ELBO.

    Parameters
    ----------
    spec
        The data it is for.
    prior
        (latent_dim, u_dim) to a module of the group `prior`: the standard normal, since any other would be ignored.
    latent_dim
        n; None takes the number of true sources.

    Raises
    ------
    ValueError
        For images, for another prior, and where n is neither given nor known.
    """

    noise_dim = 0

    def __init__(self, spec: DataSpec, prior: Callable[[int, int], nn.Module], latent_dim: int | None) -> None:
        super().__init__()
        if spec.image is not None:
            raise ValueError("expected real-valued observations for a model without a decoder of images, got images")
        check_u(self, spec)
        self.u_dim, self.u_is_labels = spec.u_dim, spec.u_kind == "labels"
        self.latent_dim = latents_for(spec, latent_dim)
        self.prior = prior(self.latent_dim, spec.u_dim)
        if type(self.prior).__name__ != "StandardNormal":
            kind = type(self.prior).__name__
            raise ValueError(f"expected prior=normal for a model that has no density of x, got {kind}")

    def features(self, x: Tensor) -> Tensor:
        """h(x): (B, d) to (B, n)."""
        raise NotImplementedError

    def encode(self, batch: Batch) -> Normal:
        """The features as means, with variance 0."""
        z = self.features(batch.x)
        return Normal(z, torch.full_like(z, -torch.inf))

    def bound(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """The features, as mean and as sample."""
        z = self.features(batch.x)
        return {"mean": z, "sample": z}
