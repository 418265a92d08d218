"""Generative models of Kivva et al. (2022) as plain numbers: a mixture prior and a ReLU network."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ivae_lab.core.arrays import Bools, Floats


@dataclass(frozen=True, eq=False)
class ReluNetwork:
    """Linear layers with z -> max(z, slope z) between them; the last layer is linear.

    Parameters
    ----------
    weights, biases
        One per layer, shapes (out, in) and (out,).
    slope
        0 for ReLU; between 0 and 1 for leaky ReLU.

    Raises
    ------
    ValueError
        If the shapes of the layers do not chain, a number is not finite or the slope is out of range.
    """

    weights: tuple[Floats, ...]
    biases: tuple[Floats, ...]
    slope: float = 0.0

    def __post_init__(self) -> None:
        shapes = [weight.shape for weight in self.weights]
        if not shapes or any(len(shape) != 2 for shape in shapes):
            raise ValueError(f"expected weights of shape (out, in), got {shapes}")
        if any(before[0] != after[1] for before, after in pairwise(shapes)):
            raise ValueError(f"expected layers that take what the layer before gives, got {shapes}")
        if [bias.shape for bias in self.biases] != [shape[:1] for shape in shapes]:
            raise ValueError(f"expected a bias per unit of {shapes}, got {[bias.shape for bias in self.biases]}")
        if not all(np.isfinite(part).all() for part in (*self.weights, *self.biases)):
            raise ValueError("expected finite weights and biases, got some that are not")
        if not 0 <= self.slope < 1:
            raise ValueError(f"expected a slope from 0 to below 1, got {self.slope}")

    def __call__(self, z: Floats) -> Floats:
        """Apply f to each row: (N, m) to (N, d)."""
        return self._run(z)[1]

    def pieces(self, z: Floats) -> Bools:
        """Return, for each row, which of the H hidden units are above 0: (N, m) to (N, H)."""
        return self._run(z)[0]

    def affine(self, pattern: Bools) -> tuple[Floats, Floats]:
        """Return A (d, m) and b (d,) with f(z) = A z + b on the piece of a pattern (H,)."""
        _, matrix, offset = self._forms(pattern)
        return matrix, offset

    def halfspaces(self, pattern: Bools) -> tuple[Floats, Floats]:
        """Return G (H, m) and h (H,) with G z <= h exactly on the piece of a pattern (H,), its border included."""
        (slopes, offsets), _, _ = self._forms(pattern)
        sign = np.where(pattern, 1.0, -1.0)
        return -sign[:, None] * slopes, sign * offsets

    def _run(self, z: Floats) -> tuple[Bools, Floats]:
        out = np.asarray(z, float)
        if out.ndim != 2 or out.shape[1] != self.weights[0].shape[1]:
            raise ValueError(f"expected z of shape (N, {self.weights[0].shape[1]}), got {out.shape}")
        on = [np.zeros((len(out), 0), bool)]
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            before = out @ weight.T + bias
            on.append(before > 0)
            out = np.where(on[-1], before, self.slope * before)
        return np.concatenate(on, axis=1), out @ self.weights[-1].T + self.biases[-1]

    def _forms(self, pattern: Bools) -> tuple[tuple[Floats, Floats], Floats, Floats]:
        """Return every hidden unit before its ReLU as an affine function of z, (H, m) and (H,), then A and b."""
        widths = [len(bias) for bias in self.biases[:-1]]
        if pattern.shape != (sum(widths),):
            raise ValueError(f"expected a pattern of shape ({sum(widths)},), got {pattern.shape}")
        gains = np.split(np.where(pattern, 1.0, self.slope), np.cumsum(widths)[:-1]) if widths else []
        size = self.weights[0].shape[1]
        matrix, offset = np.eye(size), np.zeros(size)
        slopes, offsets = [np.zeros((0, size))], [np.zeros(0)]
        for weight, bias, gain in zip(self.weights[:-1], self.biases[:-1], gains, strict=True):
            before, shift = weight @ matrix, weight @ offset + bias
            slopes.append(before)
            offsets.append(shift)
            matrix, offset = gain[:, None] * before, gain * shift
        hidden = np.concatenate(slopes), np.concatenate(offsets)
        return hidden, self.weights[-1] @ matrix, self.weights[-1] @ offset + self.biases[-1]


@dataclass(frozen=True, eq=False)
class Generator:
    """A Gaussian mixture of latents z, (P1), and the mixing f, where it is a ReLU network, (F1)."""

    weights: Floats  # (K,), sum to 1
    means: Floats  # (K, n)
    covariances: Floats  # (K, n, n)
    network: ReluNetwork | None  # None: f is something else

    def sample(self, rows: int, seed: int) -> Floats:
        """Draw latents: (rows, n)."""
        rng = np.random.default_rng(seed)
        component = rng.choice(len(self.weights), rows, p=self.weights)
        factor = np.linalg.cholesky(self.covariances)[component]  # (rows, n, n)
        noise = rng.standard_normal((rows, self.means.shape[1], 1))
        drawn: Floats = self.means[component] + (factor @ noise)[..., 0]
        return drawn
