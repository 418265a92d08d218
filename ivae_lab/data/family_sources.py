"""Sources of two-parameter exponential families, whose parameters depend on u, mixed to observations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray

from ivae_lab.config.numbers import Fraction, PositiveFloat, PositiveInt
from ivae_lab.core.data import Batch, DataSpec, Splits
from ivae_lab.data.mixing import MatrixLaw, mix, xtanh
from ivae_lab.data.splitting import check_split, split_rows
from ivae_lab.tabular.preprocessing import Preprocess, fit_preprocess

Family = Literal["normal", "gamma", "inverse_gamma", "inverse_gaussian", "beta"]
# Both parameters are drawn log-uniformly from these ranges, except that a normal's mean m is the log of such a number.
# The ranges are wide: with similar shapes in all segments, a source can hardly be distinguished from a transformed one.
RANGES: dict[Family, tuple[tuple[float, float], tuple[float, float]]] = {
    "normal": ((np.exp(-3), np.exp(3)), (0.2, 2)),  # exp(m), s
    "gamma": ((0.3, 50), (0.1, 10)),  # shape, rate
    "inverse_gamma": ((0.3, 50), (0.1, 10)),  # shape, scale
    "inverse_gaussian": ((0.1, 10), (0.1, 50)),  # mean, shape
    "beta": ((0.3, 50), (0.3, 50)),  # a, b
}


@dataclass(frozen=True, kw_only=True)
class Families:
    """M segments of L samples: sources z of a family, each with its own two parameters in a segment, mixed by one MLP.

    Sorrenson et al. 2020, Table 1. The mixing takes, and the true sources are given as, sources on the real line:
    y = z for normals, logit z for beta distributions, log z for the others (lognormal sources are then normal ones).
    Each y is scaled to mean 0 and variance 1 before it is mixed, since its family would otherwise decide how nonlinear
    the mixing is.

    Parameters
    ----------
    family
        The family of z; `RANGES` has the ranges of its parameters.
    segments, samples_per_segment, source_dim
        M, L and n, which is d too.
    mixing_layers, slope, condition_quantile, condition_draws
        The mixing, with tanh(x) + slope x between matrices of its own for each layer: `mixing.mix`, `mixing.MatrixLaw`.
    preprocess, split
        As in `tcl.SegmentedSources`.
    """

    family: Family
    segments: PositiveInt
    samples_per_segment: PositiveInt
    source_dim: PositiveInt
    mixing_layers: PositiveInt
    slope: PositiveFloat
    condition_quantile: Fraction | None
    condition_draws: PositiveInt
    preprocess: Preprocess
    split: list[Fraction]

    def __post_init__(self) -> None:
        check_split(self.split, self.segments * self.samples_per_segment)

    def __call__(self, seed: int) -> Splits:
        """Draw the data set of this seed."""
        rng, rows = RandomState(seed), self.segments * self.samples_per_segment
        u = np.repeat(np.arange(self.segments), self.samples_per_segment)  # (N,)
        shape = (self.segments, self.source_dim)
        first, second = (np.exp(rng.uniform(np.log(low), np.log(high), shape))[u] for low, high in RANGES[self.family])
        y = sources(rng, self.family, first, second)  # (N, n)
        x = self._mixed(rng, (y - y.mean(0)) / y.std(0))
        parts = split_rows(rows, self.split, seed)
        recipe = fit_preprocess(x[parts[0]], self.preprocess, self.source_dim)
        whole = Batch(*map(torch.from_numpy, (recipe.apply(x), u, y.astype(np.float32), np.arange(rows))))
        train, valid, test = (whole[torch.from_numpy(part)] for part in parts)
        spec = DataSpec(self.source_dim, self.segments, self.source_dim, len(train), False)
        return Splits(train, valid, test, spec, recipe=recipe)

    def _mixed(self, rng: RandomState, y: NDArray[np.float64]) -> NDArray[np.float32]:
        law = MatrixLaw("fresh", self.condition_quantile, self.condition_draws)
        matrices = law.draw(rng, self.source_dim, self.source_dim, self.mixing_layers)
        return mix(y.astype(np.float32), matrices, partial(xtanh, slope=self.slope), nonlinearity_first=False)


def sources(
    rng: RandomState, family: Family, first: NDArray[np.float64], second: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Draw y of sources with these parameters, of the parameters' shape."""
    if family == "normal":
        return np.log(first) + second * rng.standard_normal(first.shape)
    if family == "beta":  # a ratio of gammas, so that z is not rounded to 0 or 1
        return np.log(rng.gamma(first)) - np.log(rng.gamma(second))
    if family == "inverse_gaussian":
        return np.log(rng.wald(first, second))
    log_gamma: NDArray[np.float64] = np.log(rng.gamma(first) / second)
    return log_gamma if family == "gamma" else -log_gamma
