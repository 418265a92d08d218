"""Recorded rows of the project, which replace training where the configuration is the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ivae_lab.reproduction.definition import ExperimentError, Figure, Scale, load, names
from ivae_lab.terminal.messages import one_line

if TYPE_CHECKING:
    import pandas as pd

    from ivae_lab.reproduction.cells import Cell
    from ivae_lab.reproduction.evidence import FigureEvidence
    from ivae_lab.reproduction.found_runs import FoundRuns


def name_unreadable(outputs: Path, console: Console) -> None:
    """Print a line for each run folder that may hold a cell of the figures, but whose status cannot be read."""
    from ivae_lab.reproduction.found_runs import find

    for path, reason in find(outputs).unreadable.items():
        console.print(f"left out: {path}: {reason}", style="bold red", soft_wrap=True, highlight=False)


def records_of(figure: Figure, scale: Scale) -> list[FigureEvidence]:
    """Read the records in this scale of a figure, and of its paper's other figures, which may have the same sweeps."""
    first = _recorded(figure)
    if first is not None and first.scale == "paper" and scale == "quick":
        raise ExperimentError(f"record: expected scale=paper, whose rows are kept of {figure.full_name}, got quick")
    others = [load(name) for name in names() if name.startswith(f"{figure.paper}/") and name != figure.full_name]
    records = [first, *map(_recorded, others)]
    return [evidence for evidence in records if evidence is not None and evidence.scale == scale]


def _recorded(figure: Figure) -> FigureEvidence | None:
    """Read the records of a figure; damaged ones are an error, since recording anew would lose them."""
    from ivae_lab.reproduction.records import recorded

    try:
        return recorded(figure)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExperimentError(
            f"record: the kept records of {figure.full_name} cannot be read: {one_line(error)}"
        ) from None


def set_aside(found: FoundRuns, cells: Sequence[Cell]) -> list[str]:
    """Leave out finished runs whose rows cannot be read; return a line for each, and for runs with other numbers.

    Several runs may hold the same cell and seed, of which one is used (`found_runs.find`).
    """
    from ivae_lab.runs.folder import read_status

    messages: list[str] = []
    tables: dict[Path, pd.DataFrame | None] = {}
    gaps: dict[tuple[Path, Path], dict[int, float]] = {}
    for key in dict.fromkeys((cell.digest, seed) for cell in cells for seed in cell.seeds):
        folders = found.everywhere.get(key, [])
        for path in folders:
            if path not in tables:
                tables[path] = _scores(path, messages)
        whole = {path: table for path in folders if (table := tables[path]) is not None}
        if not folders:
            continue
        used, status = found.finished[key]
        if used not in whole and not whole:
            del found.finished[key]
            found.unfinished[key] = (used, {**status, "state": "failed", "error": "its rows cannot be read"})
            continue
        if used not in whole:
            used = next(iter(whole))
            found.finished[key] = (used, read_status(used))
        for path, table in whole.items():
            if gap := _gap(whole[used], table, key[1]):
                gaps.setdefault((used, path), {})[key[1]] = gap
    for (used, path), by_seed in gaps.items():
        seeds = ", ".join(map(str, by_seed))
        messages.append(
            f"same cell, different numbers: {used.name} (used) and {path.name}, seeds {seeds}: "
            f"scores differ by up to {max(by_seed.values()):.3g}"
        )
    return messages


def _scores(path: Path, messages: list[str]) -> pd.DataFrame | None:
    from ivae_lab.runs.headlines import per_seed

    try:
        return per_seed(path)
    except (OSError, ValueError) as error:
        messages.append(f"left out: {path}: {one_line(error)}; remove the folder to train it again")
        return None


def _gap(one: pd.DataFrame, other: pd.DataFrame, seed: int) -> float:
    """The largest difference of a seed's scores; infinite where only one is a number."""
    import numpy as np

    shared = [name for name in one.select_dtypes("number") if name in other]
    a, b = (table[shared].loc[seed].to_numpy(float) for table in (one, other))
    if (np.isnan(a) != np.isnan(b)).any():
        return float("inf")
    return float(np.max(np.abs(a - b)[~np.isnan(a)], initial=0.0))
