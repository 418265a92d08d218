"""Few informative dimensions among many: the artificial data of Sorrenson et al. 2020."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ivae_lab.config.numbers import Count, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from ivae_lab.core.data import Batch, DataSpec, Splits
from ivae_lab.data.splitting import check_range, check_split, split_rows
from ivae_lab.networks.invertible import Chain, fully_connected


@dataclass(frozen=True, kw_only=True)
class GIN10D:
    r"""Clusters in a few dimensions and faint noise in the others, mixed by a random flow.

    .. math:: z \sim N(\mu_u, \mathrm{diag}\, \sigma_u^2), \quad \epsilon \sim N(0, s^2 I), \quad x = f(z, \epsilon)

    u is the cluster, drawn uniformly for each row, and f is a flow of couplings with random weights, so that noise and
    sources are mixed. Sorrenson et al. 2020, Section 4.3; sources are z.

    Parameters
    ----------
    clusters, points
        M and N.
    source_dim, noise_dim
        Dimensions of z, and of the noise.
    mean_range
        [lo, hi] of the uniform draw of each cluster's means.
    modulation, modulation_range
        Whether the uniform draw on [lo, hi] is the variance or the standard deviation of a source in a cluster.
    gap
        Factor on the means: above 1 clusters are farther apart, at the same variances.
    noise_std
        s.
    mixing, blocks, hidden, layers, clamp
        The mixing: the kind of its couplings, the number of blocks of two couplings, width and number of linear maps of
        their networks, and the bound of the log-scales; see `invertible.Coupling`. The paper's kind is `affine`, which
        changes volumes, so that no GIN is its inverse; for `gin` and `gin_mean` a GIN is.
    split
        Fractions of the rows for training, validation and test; the rows of each are chosen at random.
    """

    clusters: PositiveInt
    points: PositiveInt
    source_dim: PositiveInt
    noise_dim: Count
    mean_range: list[float]
    modulation: Literal["variance", "std"]
    modulation_range: list[NonNegativeFloat]
    gap: NonNegativeFloat
    noise_std: NonNegativeFloat
    mixing: Literal["affine", "gin", "gin_mean"]
    blocks: PositiveInt
    hidden: PositiveInt
    layers: PositiveInt
    clamp: PositiveFloat
    split: list[Fraction]

    def __post_init__(self) -> None:
        check_range("mean_range", self.mean_range)
        check_range("modulation_range", self.modulation_range, lowest=0)
        check_split(self.split, self.points)

    @property
    def x_dim(self) -> int:
        """Dimensions of x."""
        return self.source_dim + self.noise_dim

    def __call__(self, seed: int) -> Splits:
        """Draw the data set of this seed."""
        rng = np.random.default_rng([seed, 0])
        shape = (self.clusters, self.source_dim)
        low, high = self.mean_range
        mean = self.gap * rng.uniform(low, high, shape)
        low, high = self.modulation_range
        std = rng.uniform(low, high, shape)
        if self.modulation == "variance":
            std = np.sqrt(std)
        u = rng.integers(self.clusters, size=self.points)  # (N,)
        z = mean[u] + std[u] * rng.standard_normal((self.points, self.source_dim))
        noise = self.noise_std * rng.standard_normal((self.points, self.noise_dim))
        x = self._mixed(np.concatenate([z, noise], 1), seed)
        parts = (x, torch.from_numpy(u), torch.from_numpy(z.astype(np.float32)), torch.arange(self.points))
        rows = split_rows(self.points, self.split, seed)
        train, valid, test = (Batch(*parts)[torch.from_numpy(part)] for part in rows)
        return Splits(train, valid, test, DataSpec(self.x_dim, self.clusters, self.source_dim, len(train), False))

    def _mixed(self, latents: NDArray[np.float64], seed: int) -> torch.Tensor:
        """(N, n) to x, (N, n): the map depends on the seed alone, not on number and values of the points."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.default_rng([seed, 2]).integers(2**63)))
            shape = (self.mixing, self.hidden, self.layers, self.clamp)
            mixing = Chain(fully_connected(self.x_dim, self.blocks, *shape, start="random")).double()
        with torch.no_grad():
            return mixing(torch.from_numpy(latents))[0].float()  # type: ignore[no-any-return]
