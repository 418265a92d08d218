"""Two-parameter exponential families on (0, inf) and (0, 1), as densities of y on the real line.

z = exp(y), or 1 / (1 + exp(-y)) for the beta distribution, has the family's density, and y = log z or logit z the
density computed here, so that a map from data to latents is not restricted to an interval. Latents are y everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

TwoParameterFamily = Literal["gamma", "inverse_gamma", "inverse_gaussian", "beta"]
# Densities are integrated from -_EDGE to _EDGE: only heavy tails have mass beyond.
_EDGE, _POINTS = 40.0, 8001


def _gamma(y: Tensor, shape: Tensor, rate: Tensor) -> Tensor:
    return shape * (rate.log() + y) - rate * y.exp() - torch.lgamma(shape)


def _inverse_gamma(y: Tensor, shape: Tensor, scale: Tensor) -> Tensor:
    return _gamma(-y, shape, scale)


def _inverse_gaussian(y: Tensor, mean: Tensor, shape: Tensor) -> Tensor:
    distance = (y.exp() - mean) ** 2 / (mean**2 * y.exp())
    return 0.5 * (shape.log() - math.log(2 * math.pi) - y - shape * distance)


def _beta(y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return a * logsigmoid(y) + b * logsigmoid(-y) - torch.lgamma(a) - torch.lgamma(b) + torch.lgamma(a + b)


_LOG_DENSITIES: dict[TwoParameterFamily, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "gamma": _gamma,
    "inverse_gamma": _inverse_gamma,
    "inverse_gaussian": _inverse_gaussian,
    "beta": _beta,
}


@dataclass(frozen=True)
class TwoParameterDensity:
    """Density of independent y_i whose z_i follow a family with two positive parameters.

    Families of z: gamma (shape, rate), inverse gamma (shape, scale), inverse Gaussian (mean, shape) and beta (a, b).
    """

    family: TwoParameterFamily
    log_first: Tensor  # (B, n)
    log_second: Tensor  # (B, n)

    def log_prob_each(self, y: Tensor) -> Tensor:
        """Log-density of each dimension of y: (B, n)."""
        return _LOG_DENSITIES[self.family](y, self.log_first.exp(), self.log_second.exp())

    def log_prob(self, y: Tensor) -> Tensor:
        """Log-density of y: (B, n) to (B,)."""
        return self.log_prob_each(y).sum(-1)

    @property
    def mean(self) -> Tensor:
        """Means of y, by quadrature: (B, n)."""
        points, mass = self._masses()
        return (points * mass).sum(0)

    @property
    def std(self) -> Tensor:
        """Standard deviations of y, by quadrature: (B, n)."""
        points, mass = self._masses()
        return ((points - self.mean) ** 2 * mass).sum(0).sqrt()

    def sample(self, rows: int, generator: torch.Generator) -> Tensor:
        """Independent draws of y, by the inverse distribution function on a grid: (rows, n)."""
        points, mass = self._masses()
        below = mass.cumsum(0).movedim(0, -1).expand(rows, -1, -1).contiguous()  # (rows, n, P)
        uniform = torch.rand(*below.shape[:2], 1, generator=generator, dtype=below.dtype).to(below.device)
        at = torch.searchsorted(below, uniform).clamp(max=_POINTS - 1)
        over = (below.gather(-1, at) - uniform) / mass.movedim(0, -1).expand_as(below).gather(-1, at)
        return (points.flatten()[at] - over * 2 * _EDGE / (_POINTS - 1)).squeeze(-1)

    def _masses(self) -> tuple[Tensor, Tensor]:
        """Return the points of a grid and their probabilities: (P, 1, 1) and (P, B, n)."""
        of = {"dtype": self.log_first.dtype, "device": self.log_first.device}
        points = torch.linspace(-_EDGE, _EDGE, _POINTS, **of).reshape(-1, 1, 1)  # type: ignore[call-overload]
        return points, torch.softmax(self.log_prob_each(points), 0)
