"""Summarise rows over seeds: means and their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ivae_lab.runs.results_csv import VARIANT
from ivae_lab.terminal.lazy import Later

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Later("pandas")


def interval(
    values: Sequence[float] | NDArray[np.floating[Any]] | pd.Series[float],
    confidence: float = 0.95,
    draws: int = 9999,
    seed: int = 0,
) -> tuple[float, float]:
    """Compute the percentile bootstrap interval of the mean over seeds.

    Each value must be one seed's: values of pairs of seeds share seeds, and resampling them makes an interval that is
    too narrow. Values that are not finite (diverged seeds) are left out, as in the mean that the interval belongs to;
    `summarise` counts them beside it.

    Parameters
    ----------
    values
        One number per seed.
    confidence
        Share of the resampled means between low and high.
    draws
        Number of resamples.
    seed
        Seeds the resampling: the same values always have the same interval.

    Returns
    -------
    tuple
        Low and high. (NaN, NaN) for fewer than two finite values; (v, v) where all equal v.
    """
    from scipy.stats import bootstrap

    finite = _finite(values)
    if len(finite) < 2:
        return float("nan"), float("nan")
    if np.ptp(finite) == 0:
        return float(finite[0]), float(finite[0])
    result = bootstrap(
        (finite,),
        np.mean,
        confidence_level=confidence,
        n_resamples=draws,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def summarise(rows: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Summarise rows over seeds: mean, interval and counts, one row per metric variant.

    Parameters
    ----------
    rows
        Rows of the schema, such as `read_results` gives, or rows of several runs with further columns.
    by
        Further columns that tell numbers apart, such as `model.beta` of the aggregate, or `data_seed`.

    Returns
    -------
    DataFrame
        `by`, the columns of `VARIANT`, then `mean` over seeds of the finite values, `low` and `high` (its 95%
        bootstrap interval), `seeds` (all of them), `diverged` (how many of them are not in the mean) and `chance`
        (mean of the chance floors), in the order in which the variants first appear.

    Raises
    ------
    ValueError
        If a seed appears twice under one variant: rows of several configurations would be mixed up.
    """
    keys = [*by, *(column for column in VARIANT if column not in by)]
    doubled = rows.duplicated([*keys, "seed", "data_seed"])
    if doubled.any():
        raise ValueError(
            f"expected one row per seed and metric variant, got {int(doubled.sum())} more: "
            "name the columns that tell them apart in `by`"
        )
    groups = rows.groupby(keys, sort=False, dropna=False)
    records = [dict(zip(keys, key, strict=True)) | _over_seeds(group) for key, group in groups]
    columns = [*keys, "mean", "low", "high", "seeds", "diverged", "chance"]
    return pd.DataFrame(records, columns=columns).astype({key: rows[key].dtype for key in keys})


def _over_seeds(rows: pd.DataFrame) -> dict[str, float | int]:
    finite = _finite(rows["value"])
    low, high = interval(finite)
    return {
        "mean": _mean(finite),
        "low": low,
        "high": high,
        "seeds": len(rows),
        "diverged": len(rows) - len(finite),
        "chance": _mean(_finite(rows["chance"])),
    }


def _finite(values: Any) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    return numbers[np.isfinite(numbers)]


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")
