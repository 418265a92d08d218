"""Mean correlation coefficient (MCC) between latents and sources, or between the latents of two models.

A number without its choices says nothing, so every function takes all of them: the coefficient (Pearson or Spearman),
the alignment ("strong": permutation and sign only; "weak": a linear map found by CCA first) with its rank and the rows
that it is fitted and scored on, and how chance is drawn. Averaging over small batches would bias the MCC upwards: all
rows are scored at once.

References
----------
Khemakhem et al. (2020), Variational Autoencoders and Nonlinear ICA, section 5: https://arxiv.org/abs/1907.04809
(strong). Willetts and Paige (2021), I Don't Need u, section 4: https://arxiv.org/abs/2106.05238 (weak).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt, MinLen
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

from ivae_lab.metrics.estimate import Estimate, Floats, Integers, LatentName, check_pair, halves, shuffles

Coefficient = Literal["pearson", "spearman"]
Alignment = Literal["strong", "weak"]
Scored = Literal["all", "in", "out"]
Array = NDArray[np.float64]

# Below this share of the largest singular value a direction of the latents counts as collapsed.
COLLAPSED = 1e-9


@dataclass(frozen=True)
class Matching:
    """Which latent stands for which source."""

    columns: Integers  # (k,) column of the latents matched to each source, -1 where no latent is left
    correlations: Array  # (k,) signed correlation of each matched pair, NaN where no latent is left


def mean_correlation(latents: Floats, sources: Floats, coefficient: Coefficient = "pearson") -> float:
    """Strong MCC: the mean of |correlation| over the best one-to-one matching of latents and sources.

    `MCC = max over matchings p of mean_j |corr(latents[:, p(j)], sources[:, j])|`, solved exactly as a linear
    assignment. With more latents than sources the best latents are matched and the others ignored; with fewer, the
    mean runs over the min(n, k) matched pairs only, so sources without a latent do not lower it.

    Parameters
    ----------
    latents
        Shape (N, n).
    sources
        Shape (N, k): true sources, or the latents of another model. The MCC is symmetric in the two.
    coefficient
        `pearson`, or `spearman` (Pearson of the ranks, ties sharing their average rank).

    Returns
    -------
    float
        In [0, 1]. A constant column has correlation 0 with everything. NaN where a value is not finite: a seed that
        diverged is a result.

    Raises
    ------
    ValueError
        If the shapes do not fit or there are fewer than 2 rows.
    """
    check_pair(latents, sources, rows=2)
    if not _finite(latents, sources):
        return float("nan")
    return _assigned(_standardise(latents, coefficient), _standardise(sources, coefficient))


def chance_correlation(latents: Floats, sources: Floats, coefficient: Coefficient, draws: int, seed: int) -> float:
    """Chance floor of `mean_correlation`: its mean over `draws` random re-pairings of all the rows.

    The floor depends on the number of rows, so no rows are left out. Ranks are taken once, since permuting rows
    permutes ranks. Arguments and errors are those of `mean_correlation`; `seed` seeds the re-pairings.
    """
    check_pair(latents, sources, rows=2)
    if not _finite(latents, sources):
        return float("nan")
    a, b = _standardise(latents, coefficient), _standardise(sources, coefficient)
    return float(np.mean([_assigned(a, b[order]) for order in shuffles(len(b), draws, seed)]))


def match(latents: Floats, sources: Floats, coefficient: Coefficient = "pearson") -> Matching:
    """Find the matching whose mean of |correlation| is the strong MCC, for drawing latents beside their sources.

    Arguments and errors are those of `mean_correlation`. Where a value is not finite nothing is matched.
    """
    check_pair(latents, sources, rows=2)
    columns, correlations = np.full(sources.shape[1], -1), np.full(sources.shape[1], np.nan)
    if _finite(latents, sources):
        signed = _standardise(latents, coefficient).T @ _standardise(sources, coefficient)  # (n, k)
        rows, matched = linear_sum_assignment(np.abs(signed), maximize=True)
        columns[matched], correlations[matched] = rows, signed[rows, matched]
    return Matching(columns, correlations)


def weak_mean_correlation(
    latents: Floats, sources: Floats, coefficient: Coefficient, rank: int | None, half_seed: int
) -> dict[Scored, float]:
    """Weak MCC: the strong MCC after a linear alignment by CCA, in and out of sample.

    CCA of `rank` components is fitted on a random half of the rows; latents and sources are then replaced by their
    canonical variates and scored on that half (`in`) and on the other (`out`), the assignment solved again on each.
    `in` alone is biased upwards: for independent Gaussians in 50 dimensions, rank 20, 5000 rows it is .14.

    Parameters
    ----------
    latents, sources, coefficient
        As for `mean_correlation`.
    rank
        Number of canonical components; None means min(n, k). Components beyond the number of directions in which the
        data vary (collapsed latents) count with correlation 0.
    half_seed
        Seeds the choice of the half.

    Returns
    -------
    dict
        MCC by where it was scored, `in` and `out`; NaN where a value is not finite.

    Raises
    ------
    ValueError
        If the shapes do not fit, there are fewer than 4 rows, or `rank` is not in 1..min(n, k).
    """
    check_pair(latents, sources, rows=4)
    rank = _checked_rank(rank, latents, sources)
    if not _finite(latents, sources):
        return {"in": float("nan"), "out": float("nan")}
    fitted, held_out = halves(len(latents), half_seed)
    a, b = _scaled_by(latents, fitted), _scaled_by(sources, fitted)
    a_weights, b_weights = canonical_weights(a[fitted], b[fitted], rank)
    a, b = a @ a_weights, b @ b_weights  # (N, rank) canonical variates
    return {
        "in": mean_correlation(a[fitted], b[fitted], coefficient),
        "out": mean_correlation(a[held_out], b[held_out], coefficient),
    }


def weak_chance_correlation(
    latents: Floats, sources: Floats, coefficient: Coefficient, rank: int | None, half_seed: int, draws: int, seed: int
) -> dict[Scored, float]:
    """Chance floor of `weak_mean_correlation`: alignment and score repeated on `draws` re-pairings of the rows.

    Arguments and errors are those of `weak_mean_correlation`; `seed` seeds the re-pairings.
    """
    scores = [
        weak_mean_correlation(latents, sources[order], coefficient, rank, half_seed)
        for order in shuffles(len(sources), draws, seed)
    ]
    return {"in": float(np.mean([s["in"] for s in scores])), "out": float(np.mean([s["out"] for s in scores]))}


def canonical_weights(a: Floats, b: Floats, rank: int) -> tuple[Array, Array]:
    """Weights of the first `rank` pairs of canonical variates of two centred tables (Hotelling, 1936).

    The weights of pair j maximise corr(a @ w, b @ v) among variates uncorrelated with the pairs before. CCA sees the
    data only through their second moments, and the triangular factor R of the joint QR decomposition has the same
    ones: fitting on R stacked over -R (centred by construction) gives the weights at a cost that does not grow with N.

    Parameters
    ----------
    a, b
        Shapes (N, n) and (N, k), columns with mean zero and of like scale.
    rank
        Number of pairs, at most min(n, k).

    Returns
    -------
    tuple
        Shapes (n, rank) and (k, rank); columns of zeros beyond the number of directions in which the data vary.
    """
    from sklearn.cross_decomposition import CCA
    from threadpoolctl import threadpool_limits

    triangular = np.linalg.qr(np.hstack((a, b)), mode="r")  # (min(N, n + k), n + k)
    a_root, b_root = np.split(triangular, [a.shape[1]], axis=1)
    varying = min(rank, *(int(np.linalg.matrix_rank(root, rtol=COLLAPSED)) for root in (a_root, b_root)))
    a_weights, b_weights = (np.zeros((root.shape[1], rank)) for root in (a_root, b_root))
    if varying:
        # The defaults (500, 1e-6) stop short where canonical correlations are close to each other, as in chance.
        cca = CCA(n_components=varying, scale=False, max_iter=20_000, tol=1e-10)
        # Its many small decompositions are slowed down by BLAS threads, up to a hundredfold beside other work.
        with threadpool_limits(1):
            cca.fit(np.vstack((a_root, -a_root)), np.vstack((b_root, -b_root)))
        a_weights[:, :varying], b_weights[:, :varying] = cca.x_rotations_, cca.y_rotations_
    return a_weights, b_weights


class MCC:
    """Rows of MCC, each with its chance floor: one per kind of latents and coefficient (weak: and scored half).

    Parameters
    ----------
    latents
        Which latents to score: the posterior `mean`, one posterior `sample`, or both.
    coefficients
        `pearson`, `spearman`, or both.
    alignment
        `strong`: none beyond permutation and sign. `weak`: CCA, see `weak_mean_correlation`.
    rank
        Rank of the CCA, None for min(n, k). Must be None for `strong`.
    chance_draws
        Number of re-pairings that the chance floor is the mean of.
    half_seed
        Seeds the half of the rows that the CCA is fitted on; read by `weak` only.
    chance_seed
        Seeds the re-pairings.

    Raises
    ------
    ValueError
        If a rank is given for the strong alignment.
    """

    def __init__(
        self,
        latents: Annotated[list[LatentName], MinLen(1)],
        coefficients: Annotated[list[Coefficient], MinLen(1)],
        alignment: Alignment,
        rank: Annotated[int, Gt(0)] | None,
        chance_draws: Annotated[int, Gt(0)],
        half_seed: Annotated[int, Ge(0)],
        chance_seed: Annotated[int, Ge(0)],
    ) -> None:
        if alignment == "strong" and rank is not None:
            raise ValueError(f"expected no rank for the strong alignment, which has no CCA, got {rank}")
        self.latents, self.coefficients = latents, coefficients
        self.alignment, self.rank = alignment, rank
        self.chance_draws, self.half_seed, self.chance_seed = chance_draws, half_seed, chance_seed

    def __call__(self, estimate: Estimate) -> list[dict[str, Any]]:
        """Rows of this seed and split; none where the sources are unknown."""
        if estimate.sources is None:
            return []
        score = self._strong if self.alignment == "strong" else self._weak
        return [
            row
            for latents in self.latents
            for coefficient in self.coefficients
            for row in score(estimate, estimate.sources, latents, coefficient)
        ]

    def _strong(
        self, estimate: Estimate, sources: Floats, latents: LatentName, coefficient: Coefficient
    ) -> list[dict[str, Any]]:
        z = getattr(estimate, latents)  # (N, n)
        value = mean_correlation(z, sources, coefficient)
        chance = chance_correlation(z, sources, coefficient, self.chance_draws, self.chance_seed)
        choices = {"latents": latents, "coefficient": coefficient, "alignment": "strong", "scored": "all"}
        return [estimate.row("mcc", value, chance=chance, **choices)]

    def _weak(
        self, estimate: Estimate, sources: Floats, latents: LatentName, coefficient: Coefficient
    ) -> list[dict[str, Any]]:
        z = getattr(estimate, latents)  # (N, n)
        rank = _checked_rank(self.rank, z, sources)
        values = weak_mean_correlation(z, sources, coefficient, rank, self.half_seed)
        chances = weak_chance_correlation(
            z, sources, coefficient, rank, self.half_seed, self.chance_draws, self.chance_seed
        )
        choices = {"latents": latents, "coefficient": coefficient, "alignment": "weak", "rank": rank}
        points = dict(zip(("in", "out"), map(len, halves(len(z), self.half_seed)), strict=True))
        return [
            estimate.row("mcc", value, chance=chances[scored], scored=scored, points=points[scored], **choices)
            for scored, value in values.items()
        ]


def _finite(*tables: Floats) -> bool:
    return all(bool(np.isfinite(table).all()) for table in tables)


def _standardise(table: Floats, coefficient: Coefficient) -> Array:
    """Columns (of ranks, for Spearman) with mean 0 and length 1, so that a.T @ b holds correlations; constant: 0."""
    values = rankdata(table, axis=0) if coefficient == "spearman" else table.astype(np.float64)
    centred = values - values.mean(axis=0)
    centred[:, np.ptp(table, axis=0) == 0] = 0.0  # their mean may be off by rounding, which would be noise of length 1
    centred /= _or_one(np.abs(centred).max(axis=0))  # so that squares of tiny or huge columns stay in range
    return np.asarray(centred / _or_one(np.sqrt((centred**2).sum(axis=0))))


def _or_one(sizes: Array) -> Array:
    return np.where(sizes > 0, sizes, 1.0)


def _assigned(a: Array, b: Array) -> float:
    """Strong MCC of standardised columns."""
    strength = np.minimum(np.abs(a.T @ b), 1.0)  # (n, k)
    return float(strength[linear_sum_assignment(strength, maximize=True)].mean())


def _scaled_by(table: Floats, rows: Integers) -> Array:
    """Centre and scale the columns of the whole table as `rows` say; a column that is constant there becomes 0."""
    chosen = table[rows].astype(np.float64)
    constant = np.ptp(chosen, axis=0) == 0
    scaled = (table - chosen.mean(axis=0)) / np.where(constant, 1.0, chosen.std(axis=0))
    scaled[:, constant] = 0.0
    return np.asarray(scaled, dtype=np.float64)


def _checked_rank(rank: int | None, latents: Floats, sources: Floats) -> int:
    most = min(latents.shape[1], sources.shape[1])
    if rank is not None and not 1 <= rank <= most:
        raise ValueError(
            f"expected a rank of 1 to {most}, the smaller of {latents.shape[1]} latents and "
            f"{sources.shape[1]} sources, got {rank}"
        )
    return most if rank is None else rank
