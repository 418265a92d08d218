"""The few numbers of a run that tables and figures are about, out of the many rows of `results.csv`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ivae_lab.runs.agreement_csv import FILE, read_pairs
from ivae_lab.runs.folder import FINISHED
from ivae_lab.runs.results_csv import read_results
from ivae_lab.tabular.preprocessing import Recipe
from ivae_lab.terminal.lazy import Later

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Later("pandas")

# Name of a score -> what picks its rows; results.csv has every other variant.
HEADLINES: dict[str, dict[str, Any]] = {
    "mcc_mean": {"metric": "mcc", "latents": "mean", "coefficient": "pearson", "alignment": "strong"},
    "mcc_sample": {"metric": "mcc", "latents": "sample", "coefficient": "pearson", "alignment": "strong"},
    "mcc_weak": {"metric": "mcc", "latents": "mean", "alignment": "weak", "scored": "out"},
    "linear_r2": {"metric": "linear_r2", "latents": "mean"},
    "elbo": {"metric": "elbo"},
}


def headlines(rows: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], str]:
    """Rows of each score that is there, on the test rows, or the training rows where nothing was held out.

    The name of the split goes with them.
    """
    split = "test" if (rows["split"] == "test").any() else "train"
    chosen = {name: _pick(rows[rows["split"] == split], where) for name, where in HEADLINES.items()}
    return {name: part for name, part in chosen.items() if len(part)}, split


def per_seed(folder: Path) -> pd.DataFrame:
    """One row per seed of a run folder, by seed: its scores, the chance floor of `mcc_mean`, points and state.

    Of a run that was scored by pairs of seeds alone the scores are missing.

    Raises
    ------
    FileNotFoundError
        If there is no `results.csv`.
    ValueError
        If it is not whole: other columns, another state, or seeds that differ in their number of rows.
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
    states = rows.groupby("seed")["state"].agg(lambda each: "diverged" if (each == "diverged").any() else "done")
    table = table.reindex(index=states.index, columns=[*HEADLINES])
    chance = chosen["mcc_mean"].set_index("seed")["chance"] if "mcc_mean" in chosen else float("nan")
    points = rows.groupby("seed")["points"].max()
    return table.assign(chance=chance, split=split, points=points, state=states)


def held_out_elbo(folder: Path) -> float:
    """The ELBO of a run's validation rows, of the test rows where there are none, in nats per row as it came.

    The mean over seeds with a finite one; NaN where there is none.
    """
    rows = _pick(read_results(folder), HEADLINES["elbo"])
    values = rows.loc[(rows["split"] == held_out(rows)) & np.isfinite(rows["value"]), "value"]
    return float(values.mean()) + log_volume(folder)


def held_out(rows: pd.DataFrame) -> str | None:
    """The split that a choice is made on: the validation rows, or the test rows; None where nothing was held out."""
    return next((name for name in ("valid", "test") if (rows["split"] == name).any()), None)


def log_volume(folder: Path) -> float:
    """What the log-density of a row, as a run's model sees it, lacks to that of the row as it came, in nats."""
    try:
        return Recipe.from_json((folder / "recipe.json").read_text()).log_volume
    except FileNotFoundError:  # of an earlier version
        return 0.0


def _seeds_of(pairs: pd.DataFrame) -> pd.DataFrame:
    """A row for each seed that was compared, without a metric; a seed none of whose pairs is done has diverged."""
    both = pd.concat([pairs.assign(seed=pairs[end]) for end in ("seed_a", "seed_b")])
    return (
        both.sort_values("state", key=lambda each: each != "done").drop_duplicates(["seed", "split"]).assign(metric="")
    )


def _pick(rows: pd.DataFrame, where: dict[str, Any]) -> pd.DataFrame:
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows
