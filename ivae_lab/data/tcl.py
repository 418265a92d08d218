"""Non-stationary sources in segments, mixed to observations: the data of time-contrastive learning (TCL)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray

from ivae_lab.config.numbers import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from ivae_lab.core.data import Batch, DataSpec, Splits
from ivae_lab.core.exponential_family import ExponentialFamily
from ivae_lab.data.mixing import Activation, Floats, Matrices, MatrixLaw, leaky_relu, mix, xtanh
from ivae_lab.distributions.natural_parameters import exponential_family
from ivae_lab.tabular.preprocessing import Recipe

Preprocess = Literal["none", "standardise", "whiten"]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Truth:
    """What the observations of one data seed are made from."""

    mean: NDArray[np.float64]  # of a source in a segment, (M, n)
    std: NDArray[np.float64]  # (M, n)
    z: Floats  # sources, (N, n)
    matrices: list[Floats]  # of the mixing, first (n, d), then (d, d)


@dataclass(frozen=True, kw_only=True)
class SegmentedSources:
    r"""M segments of L samples: in each, independent sources with their own scale (and mean), mixed by one MLP.

    .. math:: z_t = \mu_u + \sigma_u \epsilon_t, \quad x_t = f(z_t) + \text{noise}, \quad u = \lfloor t / L \rfloor

    with epsilon of zero mean and unit variance, and sigma_u (or its square) and mu_u drawn uniformly per segment
    and source. Here u IS the segment label. Rows are ordered by time. Sources: Khemakhem et al. 2020, section 5 and
    Supplement E (binary observations); Willetts & Paige 2021, section 4.1.

    All is drawn from NumPy's legacy generator, in the order of the code released with Khemakhem et al. 2020:
    modulation, means, sources, mixing, observation. So two configurations share what their common keys determine.

    Parameters
    ----------
    segments, samples_per_segment
        M and L; N = M L rows.
    source_dim, x_dim
        n and d, with n <= d.
    source_family
        Distribution of epsilon; both have unit variance (the Laplace has scale 1/sqrt(2)).
    modulation, modulation_range
        Whether the uniform draw on [lo, hi] is the variance or the standard deviation of a source in a segment.
    mean_range
        [lo, hi] of the uniform means; null: all means are zero.
    mixing_layers, activation, slope, nonlinearity_first, matrices, condition_quantile, condition_draws
        The mixing f, see `mixing.mix` and `mixing.MatrixLaw`. `slope` is that of leaky_relu below zero, or the
        linear part of xtanh.
    noise_std
        Standard deviation of the Gaussian noise on the mixed signal.
    observation
        The mixed signal m itself (real), or Bernoulli(sigmoid(m)) draws from it (binary).
    preprocess
        Fitted on the training part, applied to all: unit standard deviations, or PCA whitening (`fit_preprocess`).
    split
        Fractions of the rows for training, validation and test; the rows of each are chosen at random.

    """

    segments: PositiveInt
    samples_per_segment: PositiveInt
    source_dim: PositiveInt
    x_dim: PositiveInt
    source_family: Literal["gaussian", "laplace"]
    modulation: Literal["variance", "std"]
    modulation_range: list[NonNegativeFloat]
    mean_range: list[float] | None
    mixing_layers: PositiveInt
    activation: Activation
    slope: PositiveFloat
    nonlinearity_first: bool
    matrices: Matrices
    condition_quantile: Fraction | None
    condition_draws: PositiveInt
    noise_std: NonNegativeFloat
    observation: Literal["real", "binary"]
    preprocess: Preprocess
    split: list[Fraction]

    def __post_init__(self) -> None:
        if self.source_dim > self.x_dim:
            raise ValueError(f"expected source_dim <= x_dim, got source_dim={self.source_dim}, x_dim={self.x_dim}")
        check_range("modulation_range", self.modulation_range, lowest=0)
        if self.mean_range is not None:
            check_range("mean_range", self.mean_range)
        if self.matrices == "orthogonal" and self.condition_quantile is not None:
            raise ValueError(
                "expected condition_quantile null with orthogonal matrices, whose condition number is always 1, "
                f"got {self.condition_quantile}"
            )
        if self.observation == "binary" and self.preprocess != "none":
            raise ValueError(f"expected preprocess=none with binary observations, got preprocess={self.preprocess}")
        check_split(self.split, self.rows)

    @property
    def rows(self) -> int:
        """N = M L."""
        return self.segments * self.samples_per_segment

    def __call__(self, seed: int) -> Splits:
        """Draw the data set of this seed."""
        rng = RandomState(seed)
        truth = self._truth(rng)
        z = truth.z  # (N, n)
        x = self._observe(rng, self.mix(z, truth.matrices))  # (N, d)
        parts = split_rows(self.rows, self.split, seed)
        recipe = fit_preprocess(x[parts[0]], self.preprocess, self.source_dim)
        x = recipe.apply(x)
        u = np.repeat(np.arange(self.segments), self.samples_per_segment)  # (N,)
        whole = Batch(*map(torch.from_numpy, (x, u, z, np.arange(self.rows))))
        train, valid, test = (whole[torch.from_numpy(part)] for part in parts)
        spec = DataSpec(self.x_dim, self.segments, self.source_dim, len(train), self.observation == "binary")
        return Splits(train, valid, test, spec, recipe=recipe, prior=self.prior(truth))

    def truth(self, seed: int) -> Truth:
        """Draw what the observations of this seed are made from."""
        return self._truth(RandomState(seed))

    def prior(self, truth: Truth) -> ExponentialFamily | None:
        """p(z given u) of the sources; None of Laplace sources with means, which are no exponential family."""
        mean, log_std = torch.from_numpy(truth.mean), torch.from_numpy(truth.std).log()
        scale = 2 * log_std if self.source_family == "gaussian" else log_std - math.log(2) / 2
        means = {} if self.mean_range is None else {"mean": mean}
        return exponential_family(means | {"scale": scale}, self.source_family)

    def mix(self, z: Floats, matrices: list[Floats]) -> Floats:
        """Mixed signal without noise, (N, n) to (N, d)."""
        nonlinearity = xtanh if self.activation == "xtanh" else leaky_relu
        return mix(z, matrices, partial(nonlinearity, slope=self.slope), self.nonlinearity_first)

    def _truth(self, rng: RandomState) -> Truth:
        lo, hi = self.modulation_range
        std = rng.uniform(lo, hi, (self.segments, self.source_dim))
        if self.modulation == "variance":
            std = np.sqrt(std)
        mean = np.zeros_like(std)
        if self.mean_range is not None:
            lo, hi = self.mean_range
            mean = rng.uniform(lo, hi, std.shape)
        z = self._sources(rng, mean, std)
        law = MatrixLaw(self.matrices, self.condition_quantile, self.condition_draws)
        return Truth(mean, std, z, law.draw(rng, self.source_dim, self.x_dim, self.mixing_layers))

    def _sources(self, rng: RandomState, mean: NDArray[np.float64], std: NDArray[np.float64]) -> Floats:
        """Modulated sources (N, n)."""
        shape = (self.segments, self.samples_per_segment, self.source_dim)
        unit = rng.standard_normal(shape) if self.source_family == "gaussian" else rng.laplace(0, 0.5**0.5, shape)
        # The released code holds the sources in float32 and scales and shifts them in place by float64 numbers:
        # computed in float64 and rounded after each step.
        scaled = (unit.astype(np.float32) * std[:, None]).astype(np.float32)  # (M, L, n)
        return (scaled + mean[:, None]).astype(np.float32).reshape(self.rows, self.source_dim)

    def _observe(self, rng: RandomState, signal: Floats) -> Floats:
        """Observations (N, d) from the mixed signal: noise, then the Bernoulli draw where asked for."""
        if self.noise_std:
            signal = (signal + self.noise_std * rng.standard_normal(signal.shape)).astype(np.float32)
        if self.observation == "real":
            return signal
        with np.errstate(over="ignore"):  # exp(-m) = inf is the right limit: probability 0
            probability = 1 / (1 + np.exp(-signal))
        return rng.binomial(1, probability).astype(np.float32)


def split_rows(rows: int, split: list[float], seed: int) -> list[Rows]:
    """Row ids of the parts, each sorted: a random partition of 0..N-1 in the given fractions.

    The permutation has a generator of its own, so the data do not depend on how they are split.
    """
    order = np.random.default_rng([seed, 1]).permutation(rows)
    return [np.sort(part) for part in np.split(order, _split_edges(rows, split))]


def fit_preprocess(train_x: Floats, kind: Preprocess, leading: int) -> Recipe:
    """Shift m (d,) and matrix W (d, d) so that (x - m) W has unit variances, or is whitened; of `none` neither.

    Whitening is along the principal axes V, in decreasing order of their variances s: W = V diag(s)^(-1/2), which
    gives identity covariance. Axes after the first `leading` (as many as there are sources) take the scale of the last
    of these: with more observed dimensions than sources they hold only the bends of a thin sheet, and at unit variance
    they would drown it.
    """
    if kind == "none":
        return Recipe()
    x = train_x.astype(np.float64)
    shift = x.mean(0)
    covariance = (x - shift).T @ (x - shift) / len(x)  # (d, d)
    if kind == "standardise":
        axes, variances, needed = np.eye(len(shift)), np.diag(covariance), len(shift)
    else:
        ascending, vectors = np.linalg.eigh(covariance)
        axes, variances, needed = vectors[:, ::-1], ascending[::-1], leading
    # x is float32: a variance below this share of the largest is rounding.
    varying = int((variances > variances.max() * np.finfo(np.float32).eps ** 2).sum())
    if varying < needed:
        raise ValueError(f"expected x to vary in {needed} directions of the training part to {kind} it, got {varying}")
    if kind == "whiten":
        variances = np.maximum(variances, variances[leading - 1])
    return Recipe(shift=shift.tolist(), scale=(axes / np.sqrt(variances)).tolist())


def _split_edges(rows: int, split: list[float]) -> Rows:
    """Where the second and the third part begin, (2,)."""
    return np.asarray(np.rint(np.cumsum(split)[:2] * rows), np.int64)


def check_range(name: str, bounds: list[float], lowest: float = -math.inf) -> None:
    """Refuse what are not two numbers in order, from `lowest` on."""
    if len(bounds) != 2 or not lowest <= bounds[0] <= bounds[1] < math.inf or math.isinf(bounds[0]):
        limit = "" if math.isinf(lowest) else f"{lowest:g} <= "
        raise ValueError(f"expected {name} to be [lo, hi] with {limit}lo <= hi, got {list(bounds)}")


def check_split(split: list[float], rows: int) -> None:
    """Refuse what are not three fractions that leave rows for training."""
    if len(split) != 3 or min(split) < 0 or not math.isclose(sum(split), 1, abs_tol=1e-6):
        raise ValueError(f"expected split to be three fractions that sum to 1, got {list(split)}")
    if _split_edges(rows, split)[0] == 0:
        raise ValueError(f"expected split to leave rows for training, got {list(split)} of {rows} rows")
