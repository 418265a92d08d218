"""Evidence of a figure: the rows, runs and provenance for pictures and verdicts, from run folders or records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ivae_lab.reproduction.cells import Cell
from ivae_lab.reproduction.definition import Figure, Scale, function
from ivae_lab.reproduction.found_runs import FoundRuns
from ivae_lab.reproduction.table_files import as_kept
from ivae_lab.runs.folder import FINISHED, unfinished_reason
from ivae_lab.runs.headlines import per_seed
from ivae_lab.terminal.lazy import Later
from ivae_lab.terminal.messages import one_line

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Later("pandas")

Tables = dict[str, "pd.DataFrame"]
OF_RUNS = ("median", "sd_data", "sd_model", "by_elbo", "oracle")  # columns of a summary of runs alone


@dataclass
class FigureEvidence:
    """All data from which a figure is drawn and judged.

    Attributes
    ----------
    tables
        `rows`, one row per run and seed that has finished, and the figure's further tables.
    total
        Number of (cell, seed) that the figure needs.
    missing
        One entry per cell that lacks seeds: overrides, seeds, state, error, folder.
    lines
        The sweeps, by model and data set: variant, label, model, data, number of cells, and overrides and resolved
        configuration of the first cell.
    runs
        Run folders by name: state, seeds, seconds, commit, written, device, threads, versions, error, and the seeds of
        the figure that diverged there.
    problems
        A line for each table and picture that could not be made.
    paths
        Paths of the run folders on this machine, by name.
    """

    figure: Figure
    scale: Scale
    changed: list[str]  # overrides of the user that change numbers
    command: str
    total: int = 0
    tables: Tables = field(default_factory=dict)
    missing: list[dict[str, Any]] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    paths: dict[str, Path] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """Number of (cell, seed) that have finished."""
        return self.total - sum(len(entry["seeds"]) for entry in self.missing)

    @property
    def seconds(self) -> float:
        """Training time of all runs."""
        return float(sum(run["seconds"] or 0 for run in self.runs.values()))

    @property
    def chosen(self) -> Tables:
        """The tables with the rows of chosen settings only, which are drawn and judged."""
        return {**self.tables, "rows": choose(self.figure, self.tables["rows"])}

    def plain(self) -> dict[str, Any]:
        """Everything but the tables, as plain values for JSON."""
        head = {"paper": self.figure.paper, "figure": self.figure.name, "scale": self.scale, "changed": self.changed}
        totals = {name: getattr(self, name) for name in ("command", "total", "done", "seconds")}
        return head | totals | {name: getattr(self, name) for name in ("missing", "lines", "runs")}

    @contextmanager
    def excusing(self, what: str) -> Iterator[None]:
        """Turn an error of a table or picture into a problem if cells are missing; else it is a bug, and is raised."""
        try:
            yield
        except Exception as error:
            if not self.missing:
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self.problems.append(f"{what}: not made of {self.done} of {self.total} runs ({reason})")


def gather(figure: Figure, cells: Sequence[Cell], found: FoundRuns, evidence: FigureEvidence) -> FigureEvidence:
    """Fill in rows, tables, runs and missing seeds from the run folders where the cells were found.

    A folder that cannot be read counts as missing, and is named.
    """
    rows: list[dict[str, Any]] = []
    folders = _Folders()
    seen: set[tuple[str, int, str, str | None]] = set()
    for cell in cells:
        lacking: dict[_Reason, list[int]] = {}
        for seed in cell.seeds:
            key = (cell.digest, seed)
            scores = folders.scores(key, found)
            apart = (*key, cell.line.variant, cell.line.label)
            if isinstance(scores, _Reason):
                lacking.setdefault(scores, []).append(seed)
            elif apart not in seen:
                seen.add(apart)
                rows.append({**cell.describe(figure.columns), "seed": seed, **scores})
        evidence.total += len(cell.seeds)
        evidence.missing += [_lacking(cell, seeds, reason) for reason, seeds in lacking.items()]
    evidence.lines = _lines(cells)
    evidence.tables["rows"] = as_kept(pd.DataFrame(rows))
    used = {row["run"] for row in rows}
    evidence.paths = paths = {path.name: path for path in folders.read if path.name in used}
    evidence.runs = {name: _provenance(folders.statuses[path], rows, name) for name, path in paths.items()}
    if rows:
        chosen = evidence.chosen["rows"]
        for name, maker in figure.tables.items():
            with evidence.excusing(f"{name}.csv"):
                evidence.tables[name] = as_kept(function(figure.paper, maker)(chosen, paths))
    return evidence


@dataclass(frozen=True)
class _Reason:
    """The reason why a seed has no rows."""

    state: str = "not run"
    error: str | None = None
    folder: str | None = None


@dataclass
class _Folders:
    """The run folders that were read, each once."""

    read: dict[Path, pd.DataFrame | str] = field(default_factory=dict)  # scores by seed, or what is wrong
    statuses: dict[Path, dict[str, Any]] = field(default_factory=dict)

    def scores(self, key: tuple[str, int], found: FoundRuns) -> dict[str, Any] | _Reason:
        """Return the scores of a cell's seed with their origin; else the reason why there are none."""
        if key not in found.finished:
            if key not in found.unfinished:
                return _Reason()
            path, status = found.unfinished[key]
            if status["state"] in FINISHED:
                return _Reason("unreadable", unfinished_reason(path), path.name)
            return _Reason(status["state"], status.get("error"), path.name)
        path, status = found.finished[key]
        self.statuses[path] = status
        if path not in self.read:
            self.read[path] = _scores_of(path, status)
        scores = self.read[path]
        if isinstance(scores, str):
            return _Reason("unreadable", scores, path.name)
        origin = {"run": path.name, "commit": status.get("commit"), "written": status.get("written")}
        return {**scores.loc[key[1]], **origin}


def _scores_of(path: Path, status: Mapping[str, Any]) -> pd.DataFrame | str:
    """Read scores by seed; else the error, also if a seed is missing that the status lists."""
    try:
        scores = per_seed(path)
    except (OSError, ValueError, KeyError) as error:
        return one_line(error)
    lacking = sorted(set(map(int, status["seeds"])) - set(scores.index))
    return f"results.csv: expected rows of all seeds, got none of {', '.join(map(str, lacking))}" if lacking else scores


def _lacking(cell: Cell, seeds: list[int], reason: _Reason) -> dict[str, Any]:
    head = {"overrides": list(cell.overrides), "variant": cell.line.variant, "seeds": seeds}
    return head | {"state": reason.state, "error": reason.error, "folder": reason.folder}


def _provenance(status: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    keys = ("state", "seeds", "seconds", "trained_together", "commit", "written", "device", "threads", "versions")
    diverged = {int(row["seed"]) for row in rows if row["run"] == name and row["state"] == "diverged"}
    return {key: status.get(key) for key in (*keys, "error")} | {"diverged": sorted(diverged)}


def _lines(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The sweeps of the cells, an entry for each model and data set of one, with the configuration of its first cell.

    Configurations of one entry differ in values only, which their overrides name.
    """
    parts: dict[tuple[int, str, str], list[Cell]] = {}
    for cell in cells:
        parts.setdefault((id(cell.line), cell.model, cell.data), []).append(cell)
    return [
        {
            "variant": first.line.variant,
            "label": first.describe()["label"],
            "model": first.model,
            "data": first.data,
            "cells": 1 + len(others),
            "seeds": list(first.seeds),
            "first": list(first.overrides),
            "config": first.config,
        }
        for first, *others in parts.values()
    ]


def choose(figure: Figure, rows: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows of the best setting in each group of runs, for the settings in `figure.choose`."""
    for choice in figure.choose:
        if rows.empty:
            break
        others = [column for column in figure.columns if column not in [other.over for other in figure.choose]]
        later = [other.over for other in figure.choose[figure.choose.index(choice) + 1 :]]
        groups = ["variant", "label", "model", "data_seed", *others, *later]
        means = rows.groupby([*groups, choice.over], dropna=False)[choice.by].mean().reset_index()
        best = means.sort_values(choice.by, ascending=False, kind="stable").drop_duplicates(groups)
        rows = rows.merge(best[[*groups, choice.over]], on=[*groups, choice.over], how="inner")
    return rows
