"""Pick the few numbers of a run that tables and figures show from the many rows of `results.csv`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ivae_lab.runs.agreement_csv import FILE, read_pairs
from ivae_lab.runs.folder import FINISHED
from ivae_lab.runs.results_csv import read_results
from ivae_lab.tabular.preprocessing import Preprocessing
from ivae_lab.terminal.lazy import Later

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Later("pandas")

# Name of a score -> values of the columns that pick its rows; results.csv has every other variant too.
HEADLINES: dict[str, dict[str, Any]] = {
    "mcc_mean": {"metric": "mcc", "latents": "mean", "coefficient": "pearson", "alignment": "strong"},
    "mcc_sample": {"metric": "mcc", "latents": "sample", "coefficient": "pearson", "alignment": "strong"},
    "mcc_weak": {"metric": "mcc", "latents": "mean", "alignment": "weak", "scored": "out"},
    "linear_r2": {"metric": "linear_r2", "latents": "mean"},
    "elbo": {"metric": "elbo"},
}


def headlines(rows: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], str]:
    """Select the rows of each score that the run has, and return them with the name of the split that was scored.

    The split is `test`, or `train` where nothing was held out.
    """
    split = "test" if (rows["split"] == "test").any() else "train"
    chosen = {name: _pick(rows[rows["split"] == split], where) for name, where in HEADLINES.items()}
    return {name: part for name, part in chosen.items() if len(part)}, split


def per_seed(folder: Path) -> pd.DataFrame:
    """Tabulate a run folder, one row per seed: scores, the chance floor of `mcc_mean`, split, points and state.

    The scores are missing where a run has only metrics of pairs of seeds.

    Raises
    ------
    FileNotFoundError
        If there is no `results.csv`.
    ValueError
        If it has other columns, an unknown state, or seeds that differ in their number of rows.
    """
    rows = read_results(folder)
    if rows.empty and (folder / FILE).exists():
        rows = _seeds_of(read_pairs(folder))
    if odd := sorted(set(rows["state"]) - set(FINISHED)):
        raise ValueError(f"results.csv: expected states {' and '.join(FINISHED)}, got {odd[0]!r}")
    diverged = rows.loc[rows["state"] == "diverged", "seed"]
    if rows.empty or rows[~rows["seed"].isin(diverged)].groupby("seed").size().nunique() > 1:
        raise ValueError("results.csv: expected as many rows for each seed, got other numbers or none")
    chosen, split = headlines(rows)
    table = pd.DataFrame({name: part.set_index("seed")["value"] for name, part in chosen.items()})
    states = rows.groupby("seed")["state"].agg(lambda state: "diverged" if (state == "diverged").any() else "done")
    table = table.reindex(index=states.index, columns=[*HEADLINES])
    chance = chosen["mcc_mean"].set_index("seed")["chance"] if "mcc_mean" in chosen else float("nan")
    points = rows.groupby("seed")["points"].max()
    return table.assign(chance=chance, split=split, points=points, state=states)


def held_out_elbo(folder: Path) -> float:
    """Return the ELBO on a run's validation rows, or its test rows where there are none, in nats per original row.

    Original rows are those before preprocessing. The ELBO is a mean over seeds with a finite one; NaN where none has.
    """
    rows = _pick(read_results(folder), HEADLINES["elbo"])
    values = rows.loc[(rows["split"] == held_out(rows)) & np.isfinite(rows["value"]), "value"]
    return float(values.mean()) + log_volume(folder)


def held_out(rows: pd.DataFrame) -> str | None:
    """Name the split to choose models on: `valid`, or `test` without it; None where nothing was held out."""
    return next((name for name in ("valid", "test") if (rows["split"] == name).any()), None)


def log_volume(folder: Path) -> float:
    """Return the log-volume of a run's preprocessing, in nats.

    Added to the log-density of a preprocessed row, it gives the log-density of the original row.
    """
    try:
        return Preprocessing.from_json((folder / "recipe.json").read_text()).log_volume
    except FileNotFoundError:  # of an earlier version
        return 0.0


def _seeds_of(pairs: pd.DataFrame) -> pd.DataFrame:
    """Make a row without a metric for each seed of the pairs; a seed none of whose pairs is done has diverged."""
    both = pd.concat([pairs.assign(seed=pairs[end]) for end in ("seed_a", "seed_b")])
    done_first = both.sort_values("state", key=lambda state: state != "done")
    return done_first.drop_duplicates(["seed", "split"]).assign(metric="")


def _pick(rows: pd.DataFrame, where: dict[str, Any]) -> pd.DataFrame:
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows
