"""Variability of the latents over u: the matrix L of natural parameters, and overlaps of q(z given u)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ivae_lab.core.arrays import Bools, Floats, Integers

_SINGLE = float(np.finfo(np.float32).eps)  # parameters of a model are float32


def condition_number(matrix: Floats) -> float:
    """Compute largest over smallest singular value; infinite for an empty matrix, or if the smallest value is 0."""
    values = np.linalg.svd(matrix, compute_uv=False)
    return float(values[0] / values[-1]) if values.size and values[-1] > 0 else float("inf")


@dataclass(frozen=True)
class Modulation:
    """Rank and condition of the matrix L of natural parameters at M values of u (Khemakhem et al. 2020, Theorem 1).

    L has a column lambda(u_j) - lambda(u_0) for each further value. Its rank and the best values are computed with each
    natural parameter scaled to mean 0 and standard deviation 1 over the values, so that they do not depend on the units
    of the latents; a parameter that varies by no more than its rounding counts as constant.
    """

    rank: int  # of L
    condition: float  # CN(L) of all columns, in the latents' own units
    best: (
        Integers  # (n k + 1,) values, by their row, whose square L is best, u_0 first; none where the rank is below n k
    )
    best_condition: float  # CN of that L, its parameters scaled

    @classmethod
    def of(cls, natural: Floats) -> Self:
        """Compute rank and condition numbers from finite natural parameters (M, n k)."""
        points = _standardised(natural)  # (M, n k)
        rank = int(np.linalg.matrix_rank(points, rtol=max(points.shape) * _SINGLE))
        condition = condition_number((natural[1:] - natural[0]).T)
        if rank < points.shape[1]:
            return cls(rank, condition, np.array([], int), float("inf"))
        best = best_values(points)
        return cls(rank, condition, best, condition_number((points[best[1:]] - points[best[0]]).T))


def best_values(points: Floats) -> Integers:
    """Choose n + 1 rows of the points (M, n) that span a simplex of large volume, the one nearest to their mean first.

    |det L| is n! times the volume, whichever of the points is u_0. A QR decomposition with pivoting of the points, each
    with a 1 appended, takes at each step the point that enlarges the volume most.
    """
    from scipy.linalg import qr

    _, order = qr(np.column_stack([points, np.ones(len(points))]).T, mode="r", pivoting=True)
    chosen = order[: points.shape[1] + 1]
    away = np.linalg.norm(points[chosen] - points[chosen].mean(0), axis=1)
    return np.asarray(chosen[np.argsort(away, kind="stable")])


def _standardised(natural: Floats) -> Floats:
    """Scale each column to mean 0 and standard deviation 1, or to 0 where it varies by its rounding only."""
    centred, std = natural - natural.mean(0), natural.std(0)
    varies = std > _SINGLE * np.abs(natural).max(0)
    scaled: Floats = np.divide(centred, std, out=np.zeros_like(centred), where=varies)
    return scaled


def overlaps(samples: Floats, groups: Sequence[Integers]) -> NDArray[np.float64]:
    r"""Compute Bhattacharyya coefficients of Gaussians with diagonal covariances fitted to groups of rows: (G, G).

    .. math:: -\log BC = \sum_i \frac{(m_i - m'_i)^2}{4 (v_i + v'_i)}
       + \frac12 \log \frac{v_i + v'_i}{2 \sqrt{v_i v'_i}}

    1: equal, 0: disjoint. Samples of r and r' rows of one Gaussian differ by n (1/r + 1/r') / 4 on average (to first
    order), which is subtracted.

    Parameters
    ----------
    samples
        Shape (N, n).
    groups
        Row numbers of each group, two or more of them.
    """
    table = np.asarray(samples, float)
    floor = max(float(np.finfo(float).eps * table.var()), float(np.finfo(float).tiny))
    mean = np.stack([table[rows].mean(0) for rows in groups])  # (G, n)
    variance = np.stack([table[rows].var(0, ddof=1) for rows in groups]) + floor
    inverse = np.array([1 / len(rows) for rows in groups])
    both = variance[:, None] + variance  # (G, G, n)
    distance = ((mean[:, None] - mean) ** 2 / (4 * both)).sum(-1)
    logs = np.log(variance)
    distance += 0.5 * (np.log(both / 2) - (logs[:, None] + logs) / 2).sum(-1)
    distance -= table.shape[1] * (inverse[:, None] + inverse) / 4
    return np.exp(-np.maximum(distance, 0))  # type: ignore[no-any-return]


def told_apart(same: Bools) -> list[int]:
    """Select groups of which no two are the same, greedily in order; `same` (G, G) is True where two groups are."""
    apart: list[int] = []
    for group in range(len(same)):
        if not same[group, apart].any():
            apart.append(group)
    return apart


def carried(mean: Floats, sample: Floats, labels: NDArray[np.generic] | None) -> Floats:
    """Compute the share of each latent's variance in its posterior mean, Var[mean] / (Var[mean] + E[posterior var]).

    0: the posterior does not depend on x, so the latent has collapsed; 1: the posterior has no variance. The posterior
    variance is that of `sample - mean`, one sample per row. With labels (N,) the variance of the mean is that within
    labels: differences between labels are known to the prior, and need not come from x.
    """
    explained = _within(mean, np.zeros(len(mean), int) if labels is None else labels)
    left = np.mean((np.asarray(sample, float) - mean) ** 2, 0)
    total = explained + left
    share: Floats = np.divide(explained, total, out=np.zeros_like(total), where=total > 0)
    return share


def _within(table: Floats, labels: NDArray[np.generic]) -> NDArray[np.float64]:
    """Compute the pooled variance within labels: (N, n), (N,) to (n,)."""
    _, group, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), table.shape[1]))
    np.add.at(sums, group, table)
    centred = table - (sums / counts[:, None])[group]
    return (centred**2).sum(0) / max(len(table) - len(counts), 1)  # type: ignore[no-any-return]
