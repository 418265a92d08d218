"""Agreement of models that differ in their seed only: the MCC between the latents of every pair of seeds.

Where the true sources are unknown, as of images, identifiability shows in the models themselves: trained twice, they
should find the same latents, up to permutation and sign (strong) or up to a linear map (weak).

References
----------
Willetts and Paige (2021), I Don't Need u, section 4 and Figures 4 to 6: https://arxiv.org/abs/2106.05238. Their 10
seeds make 45 pairs (they say 55). Their code fits a CCA of 20 components, whatever the number of latents, on the first
half of the test rows: `half_seed=null`; by default it is a random half here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import combinations, product
from typing import Annotated, Any, Self

import numpy as np
from annotated_types import Ge, Gt, MinLen
from numpy.typing import NDArray

from ivae_lab.core.arrays import Floats, Integers
from ivae_lab.metrics.mcc import (
    Alignment,
    Coefficient,
    HalvedTable,
    Scored,
    matched_mean,
    one_thread,
    standardise,
    variate_correlations,
)
from ivae_lab.metrics.resampling import Estimate, LatentName, check_pair, halves

Pair = tuple[int, int]
Variant = tuple[Alignment, int | None, Scored]  # alignment, rank, and the rows that were scored
Scores = dict[Variant, float]


@dataclass(frozen=True)
class _PreparedLatents:
    """Latents of one seed, prepared once for all of its pairs."""

    whole: NDArray[np.float64]  # (N, n) standardised, for the strong alignment
    cut: HalvedTable  # in two halves, for the weak one

    @classmethod
    def of(cls, table: Floats, coefficient: Coefficient, half_seed: int | None) -> Self | None:
        """Prepare a table (N, n); None where a value is not finite, as the seed diverged."""
        if not np.isfinite(table).all():
            return None
        return cls(standardise(table, coefficient), HalvedTable.of(table, *halves(len(table), half_seed)))

    def shuffled(self, rng: np.random.Generator) -> _PreparedLatents:
        """Shuffle the rows, within each half only, so that the halves need not be whitened again."""
        fitted, held_out = rng.permutation(len(self.cut.fitted)), rng.permutation(len(self.cut.held_out))
        return _PreparedLatents(rng.permutation(self.whole), self.cut.reordered(fitted, held_out))


class Agreement:
    """Rows of the MCC between the latents of two seeds, each with its chance floor, for every pair of seeds.

    A pair has one row of the strong MCC and, for each rank, two of the weak one: its CCA is fitted on one half of
    the rows and scored there (`in`) and on the other half (`out`); see `mcc.py`. Rows of two seeds are matched by their
    row ids. Latents on a grid are compared position by position, as in the paper's Figure B.1; latents in facets are
    compared facet by facet, and also as a whole. A pair with a seed that diverged has rows of NaN. The numbers of a
    pair do not depend on other seeds. Pairs share seeds, so their spread is no standard error: see
    `ivae_lab.runs.agreement_csv.interval_over_seeds`.

    Parameters
    ----------
    latents
        Latents to compare: the posterior `mean`, one posterior `sample`, or both.
    coefficients
        `pearson`, `spearman`, or both.
    ranks
        Ranks of the CCA; None is full rank, the number of latents, and a larger one is lowered to it.
    chance_draws
        Number of re-pairings of the rows, in each pair; the chance floor is the mean over them.
    half_seed
        Seeds the random half of the rows that the CCA is fitted on; None: the first half by the row ids, which for
        images are their positions in the published files.
    chance_seed
        Seeds the re-pairings, together with the seeds of the pair.
    """

    def __init__(
        self,
        latents: Annotated[list[LatentName], MinLen(1)],
        coefficients: Annotated[list[Coefficient], MinLen(1)],
        ranks: Annotated[list[Annotated[int, Gt(0)] | None], MinLen(1)],
        chance_draws: Annotated[int, Gt(0)],
        half_seed: Annotated[int, Ge(0)] | None,
        chance_seed: Annotated[int, Ge(0)],
    ) -> None:
        self.latents, self.coefficients, self.ranks = latents, coefficients, ranks
        self.chance_draws, self.half_seed, self.chance_seed = chance_draws, half_seed, chance_seed

    @one_thread()
    def pairs(self, estimates: Mapping[int, Estimate], which: Collection[Pair] | None = None) -> list[dict[str, Any]]:
        """Score pairs of seeds on the rows that all seeds have.

        Parameters
        ----------
        estimates
            Estimates of one split, by seed.
        which
            Pairs of seeds; None: all.

        Raises
        ------
        ValueError
            If there are fewer than 4 common rows, or latents are no table.
        """
        chosen = sorted((min(pair), max(pair)) for pair in (combinations(estimates, 2) if which is None else which))
        rows: list[dict[str, Any]] = []
        for latents in self.latents:
            places = _by_place(estimates, _on_common_rows(estimates, latents))
            for coefficient, (place, tables) in product(self.coefficients, places.items()):
                fixed = {"latents": latents, "coefficient": coefficient, "position": place}
                rows += [fixed | row for row in self._rows(tables, chosen, coefficient)]
        for row in rows:
            states = {estimates[row[seed]].state for seed in ("seed_a", "seed_b")}
            row["state"] = "diverged" if "diverged" in states else "done"
        return rows

    @one_thread()
    def intervals_over_rows(
        self, a: Floats, b: Floats, draws: int, seed: int = 0, confidence: float = 0.95
    ) -> dict[tuple[Coefficient, Variant], tuple[float, float]]:
        """Compute percentile bootstrap intervals of the MCC of one pair over rows: other seeds would vary more.

        Pairs of rows are drawn with replacement within each half, so that no row is in both; alignment and assignment
        are solved again on every draw. Intervals lie too high near the chance floor and in sample: rows repeat in a
        draw, which a CCA takes for agreement, and an assignment picks the largest correlations.

        Parameters
        ----------
        a, b
            Shape (N, n) each, finite, rows in the same order.
        draws
            Number of resamples.
        seed
            Seeds the resampling.
        confidence
            Share of the resampled numbers between low and high.

        Returns
        -------
        dict
            Low and high for each coefficient and variant, as in the rows of `pairs`.

        Raises
        ------
        ValueError
            If the shapes do not fit or there are fewer than 4 rows.
        """
        from scipy.stats import bootstrap

        check_pair(a, b, rows=4)

        def scores(fitted: Integers, held_out: Integers) -> NDArray[np.float64]:
            return np.array([*self._resampled(a, b, fitted, held_out).values()])

        drawn = bootstrap(
            halves(len(a), self.half_seed),
            scores,
            vectorized=False,
            n_resamples=draws,
            method="percentile",
            confidence_level=confidence,
            rng=np.random.default_rng(seed),
        ).confidence_interval
        variants = [*product(self.coefficients, self._variants(a.shape[1]))]
        between = np.stack([drawn.low, drawn.high], 1).tolist()  # (V, 2)
        return {variant: (low, high) for variant, (low, high) in zip(variants, between, strict=True)}

    def _resampled(
        self, a: Floats, b: Floats, fitted: Integers, held_out: Integers
    ) -> dict[tuple[Coefficient, Variant], float]:
        """Compute the MCC in all its variants on resampled rows, given by their numbers."""
        rows, tables = np.concatenate([fitted, held_out]), (a, b)
        cuts = [HalvedTable.of(table, fitted, held_out) for table in tables]  # slow, and the same for all coefficients
        values: dict[tuple[Coefficient, Variant], float] = {}
        for coefficient in self.coefficients:
            one, other = (
                _PreparedLatents(standardise(table[rows], coefficient), cut)
                for table, cut in zip(tables, cuts, strict=True)
            )
            scores = self._scores(one, other, coefficient, a.shape[1])
            values |= {(coefficient, variant): value for variant, value in scores.items()}
        return values

    def _variants(self, n: int) -> list[Variant]:
        """List the variants of the MCC of `n` latents, in the order of the rows."""
        ranks = sorted({min(rank or n, n) for rank in self.ranks})
        weak: list[Variant] = [("weak", rank, scored) for rank in ranks for scored in ("in", "out")]
        return [("strong", None, "all"), *weak]

    def _rows(
        self, tables: Mapping[int, Floats], pairs: list[Pair], coefficient: Coefficient
    ) -> Iterator[dict[str, Any]]:
        """Score the pairs, given the tables (N, n) of all seeds: a row per pair and variant."""
        used = {seed for pair in pairs for seed in pair}
        prepared = {seed: _PreparedLatents.of(tables[seed], coefficient, self.half_seed) for seed in used}
        for a, b in pairs:
            check_pair(tables[a], tables[b], rows=4)
            rows, n = tables[a].shape
            points: dict[Scored, int] = {"all": rows, "in": (rows + 1) // 2, "out": rows // 2}
            values = self._scores(prepared[a], prepared[b], coefficient, n)
            chances = self._chances(prepared[a], prepared[b], coefficient, n, (a, b))
            for (alignment, rank, scored), value in values.items():
                row = {"seed_a": a, "seed_b": b, "alignment": alignment, "rank": rank, "scored": scored}
                chance = chances[alignment, rank, scored]
                yield row | {"points": points[scored], "latent_dim": n, "value": value, "chance": chance}

    def _scores(
        self, a: _PreparedLatents | None, b: _PreparedLatents | None, coefficient: Coefficient, n: int
    ) -> Scores:
        """Compute the MCC of a pair in all its variants."""
        if a is None or b is None:
            return dict.fromkeys(self._variants(n), float("nan"))
        correlations = variate_correlations(a.cut, b.cut, coefficient) | {"all": a.whole.T @ b.whole}
        chosen = {variant: correlations[variant[2]][: variant[1], : variant[1]] for variant in self._variants(n)}
        return {variant: matched_mean(part) for variant, part in chosen.items()}

    def _chances(
        self, a: _PreparedLatents | None, b: _PreparedLatents | None, coefficient: Coefficient, n: int, pair: Pair
    ) -> Scores:
        """Compute the chance floors: the mean MCC over re-pairings of the rows."""
        rng = np.random.default_rng([self.chance_seed, *pair])
        draws = [self._scores(a, b and b.shuffled(rng), coefficient, n) for _ in range(self.chance_draws)]
        return {variant: float(np.mean([draw[variant] for draw in draws])) for variant in draws[0]}


def _on_common_rows(estimates: Mapping[int, Estimate], latents: LatentName) -> dict[int, Floats]:
    """Select, for every seed, the latents on the rows that all seeds have, in the order of the row ids: (N, P n)."""
    common = reduce(np.intersect1d, (estimate.index for estimate in estimates.values()))
    chosen = {}
    for seed, estimate in estimates.items():
        order = np.argsort(estimate.index)
        rows = order[np.searchsorted(estimate.index, common, sorter=order)]
        chosen[seed] = getattr(estimate, latents)[rows].reshape(len(rows), -1)
    return chosen


def _by_place(estimates: Mapping[int, Estimate], tables: dict[int, Floats]) -> dict[int | None, dict[int, Floats]]:
    """Cut the tables of all seeds by position in a grid or facet; under None the whole tables, but not of a grid."""
    one = next(iter(estimates.values()))
    places = one.positions * one.facets
    if places == 1:
        return {None: tables}
    cut = {seed: np.array_split(table, places, axis=1) for seed, table in tables.items()}
    by_place: dict[int | None, dict[int, Floats]] = {
        place: {seed: parts[place] for seed, parts in cut.items()} for place in range(places)
    }
    return by_place | {None: tables} if one.positions == 1 else by_place
