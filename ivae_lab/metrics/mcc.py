"""Mean correlation coefficient (MCC) between latents and sources, or between the latents of two models.

An MCC depends on choices, so every function takes all of them as arguments: the coefficient (Pearson or Spearman), the
alignment ("strong": permutation and sign only; "weak": a linear map by CCA first) with its rank and the rows that it is
fitted and scored on, and how chance is drawn. Averaging over small batches would bias the MCC upwards, so all rows are
scored at once.

References
----------
Khemakhem et al. (2020), Variational Autoencoders and Nonlinear ICA, section 5: https://arxiv.org/abs/1907.04809
(strong). Willetts and Paige (2021), I Don't Need u, section 4: https://arxiv.org/abs/2106.05238 (weak). CCA: Hotelling
(1936), Relations Between Two Sets of Variates: https://doi.org/10.1093/biomet/28.3-4.321; Björck and Golub (1973),
Numerical Methods for Computing Angles Between Linear Subspaces: https://doi.org/10.1090/S0025-5718-1973-0348991-3.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt, MinLen
from numpy.typing import NDArray

from ivae_lab.core.arrays import Floats, Integers
from ivae_lab.metrics.resampling import Estimate, LatentName, check_pair, halves, shuffles

if TYPE_CHECKING:  # SciPy takes a second
    from threadpoolctl import ThreadpoolController

Coefficient = Literal["pearson", "spearman"]
Alignment = Literal["strong", "weak"]
Scored = Literal["all", "in", "out"]
Array = NDArray[np.float64]

# Below this share of the largest singular value a direction of the latents counts as collapsed.
COLLAPSED = 1e-9


@cache
def _blas() -> ThreadpoolController:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")  # looked up once: it takes longer than a small score


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep NumPy's linear algebra on one thread.

    On tables of this size a second thread speeds up a product little and a decomposition not at all, and where other
    work runs on the same cores the threads wait for each other: up to twenty times as long.
    """
    with _blas().limit(limits=1):
        yield


@dataclass(frozen=True)
class Matching:
    """The latent that is matched to each source, and their correlation."""

    columns: Integers  # (k,) column of the latents matched to each source, -1 where no latent is left
    correlations: Array  # (k,) signed correlation of each matched pair, NaN where no latent is left


@one_thread()
def mean_correlation(latents: Floats, sources: Floats, coefficient: Coefficient = "pearson") -> float:
    """Compute the strong MCC: the mean of |correlation| over the best one-to-one matching of latents and sources.

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
    return _assigned(*_standardised(latents, sources, coefficient))


@one_thread()
def chance_correlation(latents: Floats, sources: Floats, coefficient: Coefficient, draws: int, seed: int) -> float:
    """Compute the chance floor of `mean_correlation`: its mean over `draws` random re-pairings of all the rows.

    The floor depends on the number of rows, so no rows are left out. Arguments and errors are those of
    `mean_correlation`; `seed` seeds the re-pairings.
    """
    return _chance(*_standardised(latents, sources, coefficient), draws, seed)


@one_thread()
def match(latents: Floats, sources: Floats, coefficient: Coefficient = "pearson") -> Matching:
    """Find the matching whose mean of |correlation| is the strong MCC, for drawing latents beside their sources.

    Arguments and errors are those of `mean_correlation`. Where a value is not finite nothing is matched.
    """
    from scipy.optimize import linear_sum_assignment

    a, b = _standardised(latents, sources, coefficient)
    columns, correlations = np.full(sources.shape[1], -1), np.full(sources.shape[1], np.nan)
    signed = a.T @ b  # (n, k)
    if _finite(signed):
        rows, matched = linear_sum_assignment(np.abs(signed), maximize=True)
        columns[matched], correlations[matched] = rows, signed[rows, matched]
    return Matching(columns, correlations)


@one_thread()
def weak_mean_correlation(
    latents: Floats, sources: Floats, coefficient: Coefficient, rank: int | None, half_seed: int
) -> dict[Scored, float]:
    """Compute the weak MCC: the strong MCC after a linear alignment by CCA, in and out of sample.

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
    rank = _checked_rank(rank, latents.shape[1], sources.shape[1])
    if not _finite(latents, sources):
        return {"in": float("nan"), "out": float("nan")}
    rows = halves(len(latents), half_seed)
    return _aligned(HalvedTable.of(latents, *rows), HalvedTable.of(sources, *rows), coefficient, rank)


@one_thread()
def weak_chance_correlation(
    latents: Floats, sources: Floats, coefficient: Coefficient, rank: int | None, half_seed: int, draws: int, seed: int
) -> dict[Scored, float]:
    """Compute the chance floor of `weak_mean_correlation`: its mean over `draws` re-pairings, each aligned anew.

    Arguments and errors are those of `weak_mean_correlation`; `seed` seeds the re-pairings.
    """
    check_pair(latents, sources, rows=4)
    rank = _checked_rank(rank, latents.shape[1], sources.shape[1])
    if not _finite(latents, sources):
        return {"in": float("nan"), "out": float("nan")}
    rows = halves(len(latents), half_seed)
    fixed = HalvedTable.of(latents, *rows)  # the same in every re-pairing
    scores = [
        _aligned(fixed, HalvedTable.of(sources[order], *rows), coefficient, rank)
        for order in shuffles(len(sources), draws, seed)
    ]
    return {"in": float(np.mean([s["in"] for s in scores])), "out": float(np.mean([s["out"] for s in scores]))}


@one_thread()
def canonical_weights(a: Floats, b: Floats, rank: int) -> tuple[Array, Array]:
    """Compute the weights of the first `rank` pairs of canonical variates of two centred tables.

    The weights of pair j maximise corr(a @ w, b @ v) among variates uncorrelated with the pairs before (Hotelling,
    1936). With orthonormal bases Q = table @ W of both tables they are `w = W_a U`, `v = W_b V` of the singular value
    decomposition `Q_a.T @ Q_b = U diag(correlations) V.T` (Björck and Golub, 1973): exact, without iterations.

    Parameters
    ----------
    a, b
        Shapes (N, n) and (N, k), columns with mean zero and of like scale.
    rank
        Number of pairs, at most min(n, k).

    Returns
    -------
    tuple
        Shapes (n, rank) and (k, rank), so that variates have length 1 and a correlation >= 0 with their partner;
        columns of zeros beyond the number of directions in which the data vary.
    """
    return _paired(_Whitened.of(a), _Whitened.of(b), rank)


class MCC:
    """Rows of MCC, each with its chance floor: one per kind of latents and coefficient (weak: and scored half).

    Parameters
    ----------
    latents
        Latents to score: the posterior `mean`, one posterior `sample`, or both.
    coefficients
        `pearson`, `spearman`, or both.
    alignment
        `strong`: none beyond permutation and sign. `weak`: CCA, see `weak_mean_correlation`.
    rank
        Rank of the CCA, None for min(n, k). Must be None for `strong`.
    chance_draws
        Number of re-pairings; the chance floor is the mean over them.
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

    def check_dimensions(self, latent_dim: int, source_dim: int | None) -> None:
        """Refuse a rank above the smaller of the numbers of latents and sources."""
        if source_dim is not None:
            _checked_rank(self.rank, latent_dim, source_dim)

    @one_thread()
    def __call__(self, estimate: Estimate) -> list[dict[str, Any]]:
        """Score this seed and split; no rows where the sources are unknown."""
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
        a, b = _standardised(z, sources, coefficient)  # once for score and chance: taking ranks is slow
        value, chance = _assigned(a, b), _chance(a, b, self.chance_draws, self.chance_seed)
        choices = {"latents": latents, "coefficient": coefficient, "alignment": "strong", "scored": "all"}
        return [estimate.row("mcc", value, chance=chance, **choices)]

    def _weak(
        self, estimate: Estimate, sources: Floats, latents: LatentName, coefficient: Coefficient
    ) -> list[dict[str, Any]]:
        z = getattr(estimate, latents)  # (N, n)
        rank = _checked_rank(self.rank, z.shape[1], sources.shape[1])
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


def _standardised(latents: Floats, sources: Floats, coefficient: Coefficient) -> tuple[Array, Array]:
    """Standardise both tables; return tables of NaN where a value is not finite."""
    check_pair(latents, sources, rows=2)
    if not _finite(latents, sources):
        return np.full(latents.shape, np.nan), np.full(sources.shape, np.nan)
    return standardise(latents, coefficient), standardise(sources, coefficient)


def standardise(table: Floats, coefficient: Coefficient) -> Array:
    """Scale columns (or their ranks, for Spearman) to mean 0, length 1, or constants to 0: a.T @ b are correlations."""
    values = _ranks(table) if coefficient == "spearman" else table.astype(np.float64)
    centred = values - values.mean(axis=0)
    centred[:, _constant(table)] = 0.0  # their mean may be off by rounding, which would be scaled to length 1
    centred /= _or_one(np.abs(centred).max(axis=0))  # so that squares of tiny or huge columns stay in range
    return np.asarray(centred / _or_one(np.sqrt((centred**2).sum(axis=0))))


def _ranks(table: Floats) -> Array:
    from scipy.stats import rankdata

    return np.asarray(rankdata(table, axis=0))


def _or_one(sizes: Array) -> Array:
    return np.where(sizes > 0, sizes, 1.0)


def _constant(table: Floats) -> NDArray[np.bool_]:
    """Return which columns have one value only."""
    return np.asarray((table == table[0]).all(axis=0))


def matched_mean(correlations: Array) -> float:
    """Average |correlation| over the best one-to-one matching of rows and columns (n, k); NaN if one is NaN."""
    from scipy.optimize import linear_sum_assignment

    strength = np.minimum(np.abs(correlations), 1.0)
    if not _finite(strength):
        return float("nan")
    return float(strength[linear_sum_assignment(strength, maximize=True)].mean())


def _assigned(a: Array, b: Array) -> float:
    """Compute the strong MCC of standardised tables; NaN if they are NaN."""
    return matched_mean(a.T @ b)


def _chance(a: Array, b: Array, draws: int, seed: int) -> float:
    """Average the strong MCC of standardised tables over re-pairings of their rows; re-pairing rows re-pairs ranks."""
    return float(np.mean([_assigned(a, b[order]) for order in shuffles(len(b), draws, seed)]))


@dataclass(frozen=True)
class _Whitened:
    """An orthonormal basis of the columns of a centred table, without its collapsed directions."""

    basis: Array  # (N, r), the table @ weights
    weights: Array  # (n, r)

    @classmethod
    def of(cls, table: Floats) -> _Whitened:
        """Compute the basis U and the weights V / sizes from the thin singular value decomposition."""
        basis, sizes, axes = np.linalg.svd(table, full_matrices=False)  # (N, m), (m,), (m, n), m = min(N, n)
        varying = sizes > COLLAPSED * sizes[0]
        return cls(basis[:, varying], axes[varying].T / sizes[varying])


@dataclass(frozen=True)
class HalvedTable:
    """A table prepared for the weak alignment: scaled by the fitted rows, cut in halves, the fitted half whitened."""

    fitted: Array  # (F, n)
    held_out: Array  # (N - F, n)
    whitened: _Whitened  # of the fitted rows

    @classmethod
    def of(cls, table: Floats, fitted: Integers, held_out: Integers) -> HalvedTable:
        """Scale the rows of a table, cut them in two, and whiten the fitted ones."""
        scaled = _scaled_by(table, fitted)
        return cls(scaled[fitted], scaled[held_out], _Whitened.of(scaled[fitted]))

    def reordered(self, fitted: Integers, held_out: Integers) -> HalvedTable:
        """Reorder the rows within each half, which need not be whitened again."""
        whitened = _Whitened(self.whitened.basis[fitted], self.whitened.weights)
        return HalvedTable(self.fitted[fitted], self.held_out[held_out], whitened)


def variate_correlations(a: HalvedTable, b: HalvedTable, coefficient: Coefficient) -> dict[Scored, Array]:
    """Compute the correlations between all canonical variates of two tables, on the fitted and on the held-out rows.

    Both tables are cut at the same rows. Each result is (m, m) with m = min(n, k); a CCA of rank r has its first r rows
    and columns.
    """
    weights = _paired(a.whitened, b.whitened, min(a.fitted.shape[1], b.fitted.shape[1]))
    tables: dict[Scored, tuple[Array, Array]] = {"in": (a.fitted, b.fitted), "out": (a.held_out, b.held_out)}
    correlations: dict[Scored, Array] = {}
    for scored, (x, y) in tables.items():
        left, right = standardise(x @ weights[0], coefficient), standardise(y @ weights[1], coefficient)
        correlations[scored] = left.T @ right
    return correlations


def _aligned(a: HalvedTable, b: HalvedTable, coefficient: Coefficient, rank: int) -> dict[Scored, float]:
    """Compute the weak MCC of two tables that are cut at the same rows."""
    correlations = variate_correlations(a, b, coefficient)
    return {scored: matched_mean(part[:rank, :rank]) for scored, part in correlations.items()}


def _paired(a: _Whitened, b: _Whitened, rank: int) -> tuple[Array, Array]:
    """Compute the canonical weights of two whitened tables."""
    left, _, right = np.linalg.svd(a.basis.T @ b.basis, full_matrices=False)  # (r, m), (m,), (m, s)
    return _filled(a.weights @ left, rank), _filled(b.weights @ right.T, rank)


def _filled(weights: Array, rank: int) -> Array:
    """Return the first `rank` columns, (n, rank), filled with zeros where there are fewer."""
    return np.pad(weights[:, :rank], ((0, 0), (0, max(0, rank - weights.shape[1]))))


def _scaled_by(table: Floats, rows: Integers) -> Array:
    """Centre and scale the columns of a table by the moments of `rows`; a column that is constant there becomes 0."""
    chosen = table[rows].astype(np.float64)
    constant = _constant(chosen)
    scaled = (table - chosen.mean(axis=0)) / np.where(constant, 1.0, chosen.std(axis=0))
    scaled[:, constant] = 0.0
    return np.asarray(scaled, dtype=np.float64)


def _checked_rank(rank: int | None, latent_dim: int, source_dim: int) -> int:
    most = min(latent_dim, source_dim)
    if rank is not None and not 1 <= rank <= most:
        raise ValueError(
            f"expected a rank of 1 to {most}, the smaller of {latent_dim} latents and {source_dim} sources, got {rank}"
        )
    return most if rank is None else rank
