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
from ivae_lab.data.splitting import check_range, check_split, split_rows
from ivae_lab.distributions.natural_parameters import exponential_family
from ivae_lab.tabular.preprocessing import Preprocess, fit_preprocess


@dataclass(frozen=True)
class Truth:
    """The sources of one data seed, their parameters, and the mixing matrices."""

    mean: NDArray[np.float64]  # mean of a source in a segment, (M, n)
    std: NDArray[np.float64]  # its standard deviation, (M, n)
    z: Floats  # sources, (N, n)
    matrices: list[Floats]  # of the mixing, first (n, d), then (d, d)


@dataclass(frozen=True, kw_only=True)
class SegmentedSources:
    r"""M segments of L samples: in each, independent sources with their own scale (and mean), mixed by one MLP.

    .. math:: z_t = \mu_u + \sigma_u \epsilon_t, \quad x_t = f(z_t) + \text{noise}, \quad u = \lfloor t / L \rfloor

    with epsilon of zero mean and unit variance, and sigma_u (or its square) and mu_u drawn uniformly per segment
    and source. Here u is the segment label. Rows are ordered by time. References: Khemakhem et al. 2020, section 5 and
    Supplement E (binary observations); Willetts & Paige 2021, section 4.1.

    All numbers come from NumPy's legacy generator, in the order of the code released with Khemakhem et al. 2020:
    modulation, means, sources, mixing, observation. So two configurations that agree on the first keys draw the same
    numbers from these.

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
        """Draw the sources and the mixing of this seed."""
        return self._truth(RandomState(seed))

    def prior(self, truth: Truth) -> ExponentialFamily | None:
        """p(z given u) of the sources; None for Laplace sources with means, which are no exponential family."""
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
