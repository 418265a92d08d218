"""The summary of a figure's rows: over model seeds, data seeds and runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ivae_lab.reproduction.claims import units
from ivae_lab.reproduction.definition import Figure
from ivae_lab.reproduction.evidence import OF_RUNS
from ivae_lab.runs.summaries import interval
from ivae_lab.terminal.lazy import Later

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Later("pandas")


def summary(figure: Figure, rows: pd.DataFrame) -> pd.DataFrame:
    """Summarise the score for each combination of the figure's table columns: mean, interval, spread, and counts.

    `by_elbo` is the score of the model seed with the best ELBO, averaged over data seeds: the result of as many
    restarts without knowledge of the sources. `oracle` is that of the best score: an upper bound, no result. Tables
    whose rows are not runs, such as contributions of seeds to a mean over pairs, have neither, no median and no spread.
    """
    if rows.empty:
        return pd.DataFrame()
    columns = [*figure.table]
    records = []
    for key, part in rows.groupby(columns, sort=False, dropna=False):
        records.append(
            dict(zip(columns, key, strict=True)) | _over_seeds(part, figure.score, of_runs=figure.scored == "rows")
        )
    return pd.DataFrame(records)


def _over_seeds(rows: pd.DataFrame, score: str, *, of_runs: bool) -> dict[str, Any]:
    values = units(rows, score)
    low, high = interval(values)
    finite = rows[np.isfinite(rows[score].astype(float))]
    return {
        "mean": float(values.mean()),
        "low": low,
        "high": high,
        **dict(zip(OF_RUNS, _over_runs(rows, score) if of_runs else [float("nan")] * len(OF_RUNS), strict=True)),
        "chance": float(rows["chance"].mean()),
        "data_seeds": int(rows["data_seed"].nunique()),
        "seeds": int(rows.groupby("data_seed")["seed"].nunique().min()),
        "diverged": int(len(rows) - len(finite)),
    }


def _over_runs(rows: pd.DataFrame, score: str) -> list[float]:
    """Compute the columns that `OF_RUNS` names."""
    across = [part for _, part in rows[np.isfinite(rows[score].astype(float))].groupby("data_seed")]
    best = [
        float(np.mean([_at_largest(part, score, by) for part in across])) if across else float("nan")
        for by in ("elbo", score)
    ]
    return [float(units(rows, score).median()), *spread(rows, score), *best]


def _at_largest(rows: pd.DataFrame, score: str, by: str) -> float:
    """The score in the row where `by` is largest; NaN if `by` is not known."""
    values = rows[by].to_numpy(float)
    return float(rows[score].to_numpy(float)[np.nanargmax(values)]) if np.isfinite(values).any() else float("nan")


def spread(rows: pd.DataFrame, score: str) -> tuple[float, float]:
    """Standard deviations between data seeds and between the model seeds of a data seed (one-way random effects).

    Between data seeds: the variance of their means minus the part that model seeds explain, at least 0; NaN with one
    data seed.
    """
    finite = rows[np.isfinite(rows[score].astype(float))]
    groups = finite.groupby("data_seed")[score]
    within = groups.var().mean()
    if finite["data_seed"].nunique() < 2:
        return float("nan"), float(np.sqrt(within))
    explained = (groups.var() / groups.size()).mean()
    between = groups.mean().var() - (0.0 if np.isnan(explained) else explained)
    return float(np.sqrt(max(between, 0.0))), float(np.sqrt(within))
