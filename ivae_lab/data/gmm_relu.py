"""A Gaussian mixture through a random ReLU network, whose density is known (Kivva et al. 2022, Figure 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le

from ivae_lab.config.numbers import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from ivae_lab.core.data import Batch, DataSpec, Splits
from ivae_lab.data.splitting import check_split, split_rows
from ivae_lab.distributions.piecewise_mixture import draw


@dataclass(frozen=True, kw_only=True)
class GmmRelu:
    r"""Draws of a model that satisfies (P1) and (F1), with additive noise, and its exact density.

    .. math:: z \sim \sum_k w_k N(m_k, \operatorname{diag} s_k^2), \quad x = B\, a(W z + b) + c + e, \quad
       e \sim N(0, v I), \quad a(h) = \max(h, \alpha h)

    `ivae_lab.distributions.piecewise_mixture.draw` says how the parameters are drawn. u is the component, for models
    that see it.

    Parameters
    ----------
    latent_dim, x_dim, components, hidden
        n (one or two), d, K and the width of the network.
    slope
        alpha: 0 is ReLU.
    noise_std, scale
        Square root of v, and the standard deviation of x without noise.
    points, split
        N, and fractions of the rows for training, validation and test, which are chosen at random. The test rows only
        are scored: their exact density takes a while.
    """

    latent_dim: Annotated[int, Ge(1), Le(2)]
    x_dim: PositiveInt
    components: PositiveInt
    hidden: PositiveInt
    slope: NonNegativeFloat
    noise_std: PositiveFloat
    scale: PositiveFloat
    points: PositiveInt
    split: list[Fraction]

    def __post_init__(self) -> None:
        check_split(self.split, self.points)

    def __call__(self, seed: int) -> Splits:
        """Draw the data set of this seed."""
        truth = draw(
            seed,
            latent_dim=self.latent_dim,
            x_dim=self.x_dim,
            hidden=self.hidden,
            slope=self.slope,
            components=self.components,
            noise_std=self.noise_std,
            scale=self.scale,
        )
        generator = torch.Generator().manual_seed(int(np.random.default_rng([seed, 1]).integers(2**62)))
        z, u, x = truth.sample(self.points, generator)
        whole = Batch(x.float(), u, z.float(), torch.arange(self.points))
        train, valid, test = (whole[torch.from_numpy(rows)] for rows in split_rows(self.points, self.split, seed))
        spec = DataSpec(self.x_dim, self.components, self.latent_dim, len(train), False, truth=truth)
        return Splits(train, valid, test, spec, scored=("test",))
