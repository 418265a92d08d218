"""Choose a value of a key by the held-out ELBO of a sweep's runs, with the agreement of seeds beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ivae_lab.runs.aggregation import LEADING
from ivae_lab.runs.headlines import held_out
from ivae_lab.terminal.command_line import BadInputError
from ivae_lab.terminal.lazy import Later
from ivae_lab.terminal.messages import did_you_mean

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Later("pandas")

_NO_DIFFERENCE = ("data.path", "data.root", "data.seed", "outputs", "force", "logger", "show")  # keys to ignore
_STRONG = {"latents": "mean", "coefficient": "pearson", "alignment": "strong"}


@dataclass(frozen=True)
class SweepChoice:
    """The value of a key that a sweep chooses, with the numbers behind the choice.

    Attributes
    ----------
    summary
        A row for each value of the key: `elbo` of the best restarts, its standard error `se`, `over` (the seeds that
        the error is taken over, and their number), `restarts` (the mean ELBO of all), `seeds`, `diverged`, `agreement`.
    value
        The value that the one-standard-error rule chooses.
    best
        The value with the largest ELBO.
    restart
        Folder and seed of the best ELBO at the chosen value.
    """

    key: str
    split: str
    summary: pd.DataFrame
    value: float
    best: float
    restart: tuple[str, int]


def choose(rows: pd.DataFrame, pairs: pd.DataFrame, key: str) -> SweepChoice:
    """Choose a value of `key` among runs that differ in this key and in their seeds.

    Parameters
    ----------
    rows, pairs
        Tables of results and of agreement, as `aggregation.table` gives them; results also have `volume`, the
        log-volume of the preprocessing.
    key
        A numeric key.

    Raises
    ------
    BadInputError
        If there are no ELBOs of held-out rows, or fewer than two values with a finite one.
    """
    split = held_out(rows)
    elbo = rows[(rows["metric"] == "elbo") & (rows["split"] == split)]
    if split is None or elbo.empty:
        raise BadInputError("expected ELBOs of validation or test rows (data.split, metric=[elbo,agreement]), got none")
    elbo = elbo.assign(elbo=elbo["value"] + elbo["volume"], at=_numeric(elbo[key], key))
    strong = pairs[(pairs["split"] == split) & (pairs[[*_STRONG]] == pd.Series(_STRONG)).all(axis=1)]
    agreement = strong.groupby(_numeric(strong[key], key))["value"].mean()
    groups = elbo.groupby("at")
    summary = pd.DataFrame(
        [{key: at, **_of_value(group), "agreement": agreement.get(at, np.nan)} for at, group in groups]
    )
    finite = summary[np.isfinite(summary["elbo"])]
    if len(finite) < 2:
        raise BadInputError(f"expected at least two values of {key} with a finite ELBO, got {len(finite)}")
    best = finite.loc[finite["elbo"].idxmax()]
    within = finite[finite["elbo"] >= best["elbo"] - np.nan_to_num(best["se"])]
    value = float(within[key].min())
    at_value = elbo[(elbo["at"] == value) & np.isfinite(elbo["elbo"])]
    first = at_value.loc[at_value["elbo"].idxmax()]
    return SweepChoice(key, split, summary, value, float(best[key]), (str(first["folder"]), int(first["seed"])))


def _of_value(rows: pd.DataFrame) -> dict[str, Any]:
    """Summarise the rows of one value: mean ELBO of the best restarts, its standard error, and counts."""
    finite = rows[np.isfinite(rows["elbo"])]
    best = finite.groupby("data_seed")["elbo"].max()
    units, over = (best, "data seeds") if len(best) > 1 else (finite["elbo"], "model seeds")
    se = float(units.std() / np.sqrt(len(units))) if len(units) > 1 else float("nan")
    return {
        "elbo": float(best.mean()),
        "se": se,
        "over": f"{len(units)} {over}",
        "restarts": float(finite["elbo"].mean()),
        "seeds": len(rows),
        "diverged": len(rows) - len(finite),
    }


def _numeric(values: pd.Series[Any], key: str) -> pd.Series[float]:
    numbers = pd.to_numeric(values.astype(str), errors="coerce")
    if numbers.isna().any():
        raise BadInputError(f"expected numbers as {key}, got {values[numbers.isna()].iloc[0]}")
    return numbers.astype(float)


def differing(rows: pd.DataFrame, key: str) -> list[str]:
    """List other keys of the configuration in which runs with the same value of `key` differ."""
    others = [column for column in rows.columns if column not in {*LEADING, *_NO_DIFFERENCE, key, "volume"}]
    by_value = rows.groupby(key, observed=True)
    return [column for column in others if by_value[column].nunique(dropna=False).max() > 1]


def matching(rows: pd.DataFrame, given: dict[str, str]) -> pd.DataFrame:
    """Select the rows of runs whose configuration has the `given` values, by key."""
    for key, value in given.items():
        check_key(rows, key)
        rows = rows[rows[key].astype(str) == value]
    return rows


def check_key(rows: pd.DataFrame, key: str) -> None:
    """Raise BadInputError unless `key` is a key of the runs' configuration."""
    if key not in rows.columns or key in LEADING:
        expected = "expected key=, outputs=, out= or a key of the runs' configuration, got another"
        raise BadInputError(f"{key}: {expected}{did_you_mean(key, [*rows.columns])}")
