"""Simulated spike counts of place cells on a linear track: a small data set whose u is a number, the position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from ivae_lab.config.numbers import Count, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from ivae_lab.core.data import Batch, DataSpec, Splits
from ivae_lab.data.splitting import check_split, parts_of

Floats = NDArray[np.float64]
_MEMORY = 0.95  # of the log-speed, from bin to bin
_SPREAD = 0.3  # standard deviation of the log-speed


@dataclass(frozen=True, kw_only=True)
class Spikes:
    r"""Counts of d neurons with Gaussian tuning curves while an animal runs up and down a track of length 1.

    .. math:: x_{ti} \sim \mathrm{Poisson}(\Delta [b + r_i \exp(-(p_t - c_i)^2 / 2 w^2)])

    with centres c_i uniform on the track and a little beyond (-w to 1 + w), peaks r_i uniform on half to all of
    `peak_rate`, and a speed whose logarithm is an autoregression. The source is the position p, and so is u, as one
    column of numbers: an encoder that does not see u has to read it from the spikes. Tuning curves of this kind are
    the simulations of Zhou and Wei 2020 (https://arxiv.org/abs/2011.04798), Section 4.1, made one-dimensional.

    Parameters
    ----------
    points
        N, bins of time.
    neurons
        d.
    bin_seconds, speed
        Delta; the mean speed, in tracks per second.
    peak_rate, base_rate
        Largest r_i, and b, in spikes per second.
    width
        w, in tracks.
    split, block_rows, gap
        Fractions of training, validation and test part, made of stretches of so many bins; see `splitting.parts_of`.
    """

    points: PositiveInt
    neurons: PositiveInt
    bin_seconds: PositiveFloat
    speed: PositiveFloat
    peak_rate: PositiveFloat
    base_rate: NonNegativeFloat
    width: PositiveFloat
    split: list[Fraction]
    block_rows: PositiveInt | None
    gap: Count

    def __post_init__(self) -> None:
        check_split(self.split, self.points)

    def __call__(self, seed: int) -> Splits:
        """Simulate the session of this seed."""
        rng = np.random.default_rng(seed)
        position = self._position(rng)  # (N,)
        counts = rng.poisson(self.bin_seconds * self._rates(rng, position))  # (N, d)
        p = position.astype(np.float32)[:, None]
        u = (p - p.mean()) / p.std()
        whole = Batch(*map(torch.from_numpy, (counts.astype(np.float32), u, p, np.arange(self.points))))
        together = np.zeros(self.points, np.int64)
        parts = parts_of(together, self.split, "blocks", self.block_rows, self.gap, seed)
        train, valid, test = (whole[torch.from_numpy(part)] for part in parts)
        spec = DataSpec(self.neurons, 1, 1, len(train), binary=False, u_kind="columns", counts=True)
        return Splits(train, valid, test, spec)

    def _position(self, rng: Generator) -> Floats:
        """Up and down the track, (N,) in [0, 1]."""
        steps = _SPREAD * np.sqrt(1 - _MEMORY**2) * rng.standard_normal(self.points)
        log_speed = np.empty(self.points)
        log_speed[0] = _SPREAD * rng.standard_normal()
        for t in range(1, self.points):
            log_speed[t] = _MEMORY * log_speed[t - 1] + steps[t]
        travelled = rng.uniform(0, 2) + np.cumsum(self.speed * self.bin_seconds * np.exp(log_speed))
        return 1 - np.abs(travelled % 2 - 1)

    def _rates(self, rng: Generator, position: Floats) -> Floats:
        """Spikes per second: (N,) to (N, d)."""
        centre = rng.uniform(-self.width, 1 + self.width, self.neurons)
        peak = self.peak_rate * rng.uniform(0.5, 1, self.neurons)
        return self.base_rate + peak * np.exp(-0.5 * ((position[:, None] - centre) / self.width) ** 2)
