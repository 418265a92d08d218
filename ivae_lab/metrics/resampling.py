"""Input and output of metrics: the estimates they score, the rows they return, and seeded choices of rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ivae_lab.core.arrays import Floats, Integers
from ivae_lab.core.exponential_family import ExponentialFamily
from ivae_lab.core.mixture_generator import Generator
from ivae_lab.metrics.check import Check

LatentName = Literal["mean", "sample"]


@dataclass(frozen=True)
class Estimate:
    """Latents of one seed on one split, with everything that a metric may compare them with.

    A metric is any callable `Metric(estimate) -> rows`, or a `CheckingMetric`. Each row has every column of
    `ivae_lab.runs.results_csv.COLUMNS` but `seed`, `data_seed` and `split`, which the caller knows and adds: see `row`.
    A metric that needs the true sources returns no rows where they are unknown.
    """

    mean: Floats  # (N, n) mean of the posterior q(z | x, u)
    sample: Floats  # (N, n) one sample of the posterior per row
    sources: Floats | None  # (N, k) true sources, None where unknown
    u: NDArray[Any] | None  # (N,) labels or (N, k) columns of numbers, the auxiliary variable
    index: Integers  # (N,) row ids in the whole data set
    terms: dict[str, float]  # the ELBO and its terms by name, averaged over rows, in nats
    clusters: Integers | None = None  # (N,) or (N, facets) the model's most probable cluster of each row, if it has any
    positions: int = 1  # P, places of a grid whose n / P latents each stand one after another in a row
    facets: int = 1  # parts of the latents, cut as `np.array_split` does
    log_density: float | None = None  # E[log p(x)] of the true p, in nats, where it is known
    generator: Generator | None = None  # mixture prior and decoder, of a model that has them
    truth: Generator | None = None  # the generator that x is drawn from, where it is known
    prior: ExponentialFamily | None = None  # p(z given u), if the model's prior is an exponential family
    true_prior: ExponentialFamily | None = None  # p(z given u) of the true sources, where that is known

    @property
    def state(self) -> str:
        """`diverged` where a latent or a term is not a finite number, else `done`."""
        parts = (self.mean, self.sample, np.array(list(self.terms.values()), dtype=float))
        return "done" if all(np.isfinite(part).all() for part in parts) else "diverged"

    def row(self, metric: str, value: float, **choices: Any) -> dict[str, Any]:
        """Make one row of results: `value` of `metric` under `choices`; columns that do not apply stay None.

        Parameters
        ----------
        metric, value
            Name of the metric and its value.
        **choices
            Any of `latents`, `coefficient`, `alignment`, `rank`, `scored`, `chance`, and `points` where the metric is
            scored on fewer rows than the split has.

        Raises
        ------
        ValueError
            If a choice is no column of the results.
        """
        row: dict[str, Any] = dict.fromkeys(("metric", "latents", "coefficient", "alignment", "rank", "scored"))
        row |= {"points": len(self.mean), "latent_dim": self.mean.shape[1], "source_dim": None}
        row |= {"value": float(value), "chance": None, "state": self.state, "metric": metric}
        if self.sources is not None:
            row["source_dim"] = self.sources.shape[1]
        if unknown := sorted(set(choices) - set(row)):
            raise ValueError(f"expected choices among {', '.join(row)}, got {', '.join(unknown)}")
        return row | choices

    def rows_of(self, checks: Iterable[Check]) -> list[dict[str, Any]]:
        """Make rows of results from checks: the verdicts, 1 holds, 0 does not, NaN undecided, and their numbers."""
        return [self.row(name, value, scored="all") for check in checks for name, value in check.values().items()]


@runtime_checkable
class PairMetric(Protocol):
    """A metric of two seeds at once, which measures how far models of different seeds agree on the same split."""

    def pairs(
        self, estimates: Mapping[int, Estimate], which: Collection[tuple[int, int]] | None = None
    ) -> list[dict[str, Any]]:
        """Score pairs of seeds, `which` or all of them.

        Rows have every column of `ivae_lab.runs.agreement_csv.COLUMNS` but `data_seed` and `split`, which the caller
        knows and adds.
        """
        ...


@runtime_checkable
class CheckingMetric(Protocol):
    """A metric that returns verdicts in words; `Estimate.rows_of` makes its rows from them."""

    def checks(self, estimate: Estimate) -> list[Check]:
        """Check one seed and split; the number of checks is the same for every seed with finite latents."""
        ...


@runtime_checkable
class LimitedMetric(Protocol):
    """A metric that not all dimensions suit, and says so before it computes anything."""

    def check_dimensions(self, latent_dim: int, source_dim: int | None) -> None:
        """Refuse dimensions that the metric cannot score, by `ValueError`; None: sources are unknown."""
        ...


def check_pair(latents: Floats, sources: Floats, rows: int) -> None:
    """Raise ValueError unless two tables can be compared row by row.

    Raises
    ------
    ValueError
        If one is not a table with columns, the numbers of rows differ, or there are fewer than `rows` of them.
    """
    for table in (latents, sources):
        if table.ndim != 2 or table.shape[1] == 0:
            raise ValueError(f"expected a table of rows and at least one column, got shape {table.shape}")
    if len(latents) != len(sources):
        raise ValueError(f"expected as many rows of sources as of latents ({len(latents)}), got {len(sources)}")
    if len(latents) < rows:
        raise ValueError(f"expected at least {rows} rows, got {len(latents)}")


def halves(rows: int, seed: int | None) -> tuple[Integers, Integers]:
    """Split row numbers into two halves; the first has the odd row.

    The halves are random, the same for the same `rows` and `seed`; without a seed, the rows up to the middle and the
    others.
    """
    order = np.arange(rows) if seed is None else np.random.default_rng(seed).permutation(rows)
    cut = (rows + 1) // 2
    return order[:cut], order[cut:]


def shuffles(rows: int, draws: int, seed: int) -> Iterator[Integers]:
    """Yield `draws` random orders of the rows; agreement of rows that are re-paired by one is chance."""
    rng = np.random.default_rng(seed)
    return (rng.permutation(rows) for _ in range(draws))
