"""The pinwheel of Johnson et al. 2016: bent arms around a centre, with the arm as the label u and no true sources."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ivae_lab.config.numbers import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from ivae_lab.core.data import Batch, DataSpec, Splits
from ivae_lab.data.splitting import check_split, split_rows


@dataclass(frozen=True, kw_only=True)
class Pinwheel:
    r"""Gaussian blobs at distance 1 from the centre, in M directions, twisted the more the farther out.

    .. math:: r \sim N(1, s_r^2), \quad t \sim N(0, s_t^2), \quad
       x = c\, R\!\left(-2 \pi u / M - a e^{r}\right) (r, t)^T

    R(angle) is a rotation; u is the arm, drawn uniformly for each row. Johnson et al. 2016, Composing graphical models
    with neural networks: https://arxiv.org/abs/1603.06277, as their code draws it, but for the same number of rows in
    each arm. There are no true sources: the map from (arm, r, t) to x is one of many.

    Parameters
    ----------
    arms, points
        M and N.
    radial_std, tangential_std
        s_r and s_t.
    rate
        a, how strongly the arms bend.
    scale
        c.
    split
        Fractions of the rows for training, validation and test; the rows of each are chosen at random.
    """

    arms: PositiveInt
    points: PositiveInt
    radial_std: NonNegativeFloat
    tangential_std: NonNegativeFloat
    rate: NonNegativeFloat
    scale: PositiveFloat
    split: list[Fraction]

    def __post_init__(self) -> None:
        check_split(self.split, self.points)

    def __call__(self, seed: int) -> Splits:
        """Draw the data set of this seed."""
        rng = np.random.default_rng([seed, 0])
        u = rng.integers(self.arms, size=self.points)  # (N,)
        blob = rng.standard_normal((self.points, 2)) * [self.radial_std, self.tangential_std] + [1, 0]  # (N, 2)
        angle = -2 * np.pi * u / self.arms - self.rate * np.exp(blob[:, 0])  # (N,)
        turned = (blob[:, 0] + 1j * blob[:, 1]) * np.exp(1j * angle)  # the plane as complex numbers
        x = self.scale * np.stack([turned.real, turned.imag], 1)  # (N, 2)
        whole = Batch(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(u), None, torch.arange(self.points))
        train, valid, test = (whole[torch.from_numpy(rows)] for rows in split_rows(self.points, self.split, seed))
        return Splits(train, valid, test, DataSpec(2, self.arms, None, len(train), False))
