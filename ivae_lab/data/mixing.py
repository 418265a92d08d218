"""Random multi-layer mixings of sources, with the layer matrices that the papers' simulations draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Shape = tuple[int, int]
Matrices = Literal["fresh", "shared", "orthogonal"]
Activation = Literal["xtanh", "leaky_relu"]

# Above this condition number a float32 matrix has no full rank to working precision.
FULL_RANK = float(1 / np.finfo(np.float32).eps)
# Candidate matrices are held this many at a time: 10,000 of 100 x 100 would take a gigabyte.
CHUNK = 1000


@dataclass(frozen=True)
class MatrixLaw:
    """The distribution that the matrices of a mixing are drawn from.

    `fresh` and `shared` matrices have entries uniform on [-1, 1] and columns of unit length, and are redrawn until
    their condition number is at or below a threshold: the `condition_quantile` of the condition numbers of
    `condition_draws` such matrices (the rule of the code released with Khemakhem et al. 2020, which takes .25 of
    10,000), or without a quantile the largest one of full rank. `shared` repeats one matrix. `orthogonal`
    matrices are uniform on the orthogonal group; where the dimension grows, they are its first rows.
    """

    kind: Matrices
    condition_quantile: float | None
    condition_draws: int

    def draw(self, rng: RandomState, source_dim: int, x_dim: int, layers: int) -> list[Floats]:
        """One matrix per layer: the first (n, d), the others (d, d)."""
        first = self._draw_one(rng, (source_dim, x_dim))
        if self.kind != "shared":
            return [first] + [self._draw_one(rng, (x_dim, x_dim)) for _ in range(layers - 1)]
        if source_dim == x_dim or layers == 1:
            return [first] * layers
        return [first] + [self._draw_one(rng, (x_dim, x_dim))] * (layers - 1)

    def _draw_one(self, rng: RandomState, shape: Shape) -> Floats:
        if self.kind == "orthogonal":
            return orthogonal_matrix(rng, shape)
        if self.condition_quantile is None:
            threshold = FULL_RANK
        else:
            threshold = condition_threshold(rng, shape, self.condition_quantile, self.condition_draws)
        return conditioned_matrix(rng, shape, threshold)


def normalise_columns(matrices: Floats) -> Floats:
    """Divide the columns by their Euclidean length, in one matrix or a stack: (..., n, d) to (..., n, d)."""
    # Summing over the last, contiguous axis adds up in the order of one column on its own, so the bits agree with
    # the released code, which goes column by column.
    squares = np.ascontiguousarray(np.swapaxes(matrices**2, -1, -2))  # (..., d, n)
    lengths: Floats = np.sqrt(squares.sum(-1))  # (..., d)
    return matrices / lengths[..., None, :]


def condition_threshold(rng: RandomState, shape: Shape, quantile: float, draws: int) -> float:
    """Quantile of the condition numbers of `draws` column-normalised matrices uniform on [-1, 1]."""
    sizes = [min(CHUNK, draws - start) for start in range(0, draws, CHUNK)]
    numbers = [np.linalg.cond(normalise_columns(_uniform(rng, (size, *shape)))) for size in sizes]
    return float(np.quantile(np.concatenate(numbers), quantile))


def conditioned_matrix(rng: RandomState, shape: Shape, threshold: float) -> Floats:
    """First matrix of shape (n, d), in a stream of draws, with a condition number at or below the threshold."""
    while True:
        matrix = normalise_columns(_uniform(rng, shape))
        if np.linalg.cond(matrix) <= threshold:
            return matrix


def orthogonal_matrix(rng: RandomState, shape: Shape) -> Floats:
    """First n rows of a matrix uniform on the orthogonal group of dimension d: A A^T = I, shape (n, d).

    The Q of a Gaussian matrix's QR decomposition is uniform once the signs of R's diagonal are moved into it.
    """
    rows, dim = shape
    q, r = np.linalg.qr(rng.standard_normal((dim, dim)))
    return (q * np.sign(np.diag(r)))[:rows].astype(np.float32)


def mix(
    sources: Floats, matrices: list[Floats], activation: Callable[[Floats], Floats], nonlinearity_first: bool
) -> Floats:
    """Send sources through the layers: (N, n) to (N, d).

    The nonlinearity h stands between the layers, x = h(h(z A_1) A_2) A_3, or with `nonlinearity_first` before
    every matrix, x = h(h(h(z) A_1) A_2) A_3.
    """
    signal = sources
    for layer, matrix in enumerate(matrices):
        if layer or nonlinearity_first:
            signal = activation(signal)
        signal = signal @ matrix
    return signal


def xtanh(signal: Floats, slope: float) -> Floats:
    """Leaky hyperbolic tangent, tanh(x) + slope x."""
    bent: Floats = np.tanh(signal)
    return bent + slope * signal


def leaky_relu(signal: Floats, slope: float) -> Floats:
    """Values above 0 as they are, the others times slope."""
    return np.where(signal > 0, signal, slope * signal)


def _uniform(rng: RandomState, shape: tuple[int, ...]) -> Floats:
    return rng.uniform(-1, 1, shape).astype(np.float32)
