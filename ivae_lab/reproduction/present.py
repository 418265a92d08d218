"""From the run folders of a figure's cells to its rows, tables, pictures and verdicts: no training, no torch.

What is left of a figure in a folder (`outputs/figures/<paper>/<figure>/<scale>/`):

==================  ====================================================================================
about.json          what it is, the commands, configurations, runs and their environment, what is missing
rows.csv            one row per run and seed: what was trained, its scores, where they come from
<table>.csv         further tables, of latents or of the training
summary.csv .md     the table that goes with the figure, also as LaTeX (.tex, booktabs)
verdicts.csv .md    the claims, and whether they hold
<picture>           as .png, .svg and .pdf
==================  ====================================================================================

`rows.csv`, the further tables and the first part of about.json are all that drawing needs: of the paper scale they are
kept in `experiments/<paper>/results/`, so that pictures, verdicts and report can be made where nothing was trained.
"""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ivae_lab.plots.panels import STYLE, Picture, save
from ivae_lab.reproduction.cells import Cell, Found
from ivae_lab.reproduction.claims import Judgement, judge, units
from ivae_lab.reproduction.definition import Figure, Scale, function
from ivae_lab.reproduction.records import kept, provenance, seal
from ivae_lab.runs.folder import FINISHED, lack
from ivae_lab.runs.headlines import per_seed
from ivae_lab.runs.summaries import interval
from ivae_lab.storage.atomic import atomic
from ivae_lab.terminal.lazy import Later
from ivae_lab.terminal.messages import one_line
from ivae_lab.terminal.text_tables import latex, markdown

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Later("pandas")

Tables = dict[str, "pd.DataFrame"]
_OF_RUNS = ("median", "sd_data", "sd_model", "by_elbo", "oracle")  # columns of a summary of runs alone
NAMED = ("variant", "label", "method", "model", "data", "split", "state", "run", "commit", "written")  # text columns


@dataclass
class Evidence:
    """All that a figure is drawn and judged from.

    Attributes
    ----------
    tables
        `rows`, one row per run and seed that has finished, and the figure's further tables.
    total
        How many (cell, seed) the figure asks for.
    missing
        One entry per cell that lacks seeds: overrides, seeds, state, error, folder.
    lines
        The sweeps, by model and data set: variant, label, model, data, how many cells, and of the first of them the
        overrides and the resolved configuration.
    runs
        Run folders by name: state, seeds, seconds, commit, written, device, threads, versions, error, and the seeds of
        the figure that diverged there.
    problems
        Tables and pictures that could not be made of what is there: one line each.
    paths
        The run folders themselves, of those that are here.
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
        """How many (cell, seed) have finished."""
        return self.total - sum(len(each["seeds"]) for each in self.missing)

    @property
    def seconds(self) -> float:
        """Training time of all runs."""
        return float(sum(run["seconds"] or 0 for run in self.runs.values()))

    @property
    def chosen(self) -> Tables:
        """The tables with the rows of chosen settings only: what is drawn and judged."""
        return {**self.tables, "rows": choose(self.figure, self.tables["rows"])}

    def plain(self) -> dict[str, Any]:
        """Everything but the tables, as JSON takes it."""
        head = {"paper": self.figure.paper, "figure": self.figure.name, "scale": self.scale, "changed": self.changed}
        own = {name: getattr(self, name) for name in ("command", "total", "done", "seconds")}
        return head | own | {name: getattr(self, name) for name in ("missing", "lines", "runs")}

    @contextmanager
    def excusing(self, what: str) -> Iterator[None]:
        """Where cells are missing, a table or picture that needs them becomes a problem; else its error is a bug."""
        try:
            yield
        except Exception as error:
            if not self.missing:
                raise
            said = " ".join(f"{type(error).__name__}: {error}".split())
            self.problems.append(f"{what}: not made of {self.done} of {self.total} runs ({said})")


def gather(figure: Figure, cells: Sequence[Cell], found: Found, evidence: Evidence) -> Evidence:
    """Fill in rows, tables, runs and what is missing from the run folders where the cells were found.

    A folder that cannot be read is missing, and named.
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
    """Why a seed is not there."""

    state: str = "not run"
    error: str | None = None
    folder: str | None = None


@dataclass
class _Folders:
    """The run folders that were read, each once."""

    read: dict[Path, pd.DataFrame | str] = field(default_factory=dict)  # scores by seed, or what is wrong
    statuses: dict[Path, dict[str, Any]] = field(default_factory=dict)

    def scores(self, key: tuple[str, int], found: Found) -> dict[str, Any] | _Reason:
        """The scores of a cell's seed with where they come from; else why there are none."""
        if key not in found.finished:
            if key not in found.unfinished:
                return _Reason()
            path, status = found.unfinished[key]
            if status["state"] in FINISHED:
                return _Reason("unreadable", lack(path), path.name)
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
    """Scores by seed; else what is wrong, also where a seed is lacking that the run says it holds."""
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
    kept = ("state", "seeds", "seconds", "trained_together", "commit", "written", "device", "threads", "versions")
    diverged = {int(row["seed"]) for row in rows if row["run"] == name and row["state"] == "diverged"}
    return {key: status.get(key) for key in (*kept, "error")} | {"diverged": sorted(diverged)}


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
    """Keep, of the settings that the paper chose among, the best in each group of runs by itself (`figure.choose`)."""
    for choice in figure.choose:
        if rows.empty:
            break
        others = [column for column in figure.columns if column not in [each.over for each in figure.choose]]
        later = [each.over for each in figure.choose[figure.choose.index(choice) + 1 :]]
        groups = ["variant", "label", "model", "data_seed", *others, *later]
        means = rows.groupby([*groups, choice.over], dropna=False)[choice.by].mean().reset_index()
        best = means.sort_values(choice.by, ascending=False, kind="stable").drop_duplicates(groups)
        rows = rows.merge(best[[*groups, choice.over]], on=[*groups, choice.over], how="inner")
    return rows


def summary(figure: Figure, rows: pd.DataFrame) -> pd.DataFrame:
    """One line per combination of the figure's table columns: the score's mean, interval, spread, and what it rests on.

    `by_elbo` is the score of the model seed with the best ELBO, averaged over data seeds: what one who does not know
    the sources would report of as many restarts. `oracle` is that of the best score: an upper bound, no result. A table
    that is not of runs, as of what seeds contribute to a mean over pairs, has none of these, no median and no spread.
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
        **dict(zip(_OF_RUNS, _over_runs(rows, score) if of_runs else [float("nan")] * len(_OF_RUNS), strict=True)),
        "chance": float(rows["chance"].mean()),
        "data_seeds": int(rows["data_seed"].nunique()),
        "seeds": int(rows.groupby("data_seed")["seed"].nunique().min()),
        "diverged": int(len(rows) - len(finite)),
    }


def _over_runs(rows: pd.DataFrame, score: str) -> list[float]:
    """What `_OF_RUNS` names."""
    across = [part for _, part in rows[np.isfinite(rows[score].astype(float))].groupby("data_seed")]
    best = [
        float(np.mean([_at_largest(part, score, by) for part in across])) if across else float("nan")
        for by in ("elbo", score)
    ]
    return [float(units(rows, score).median()), *spread(rows, score), *best]


def _at_largest(rows: pd.DataFrame, score: str, by: str) -> float:
    """The score in the row where `by` is largest; NaN where `by` is not known."""
    values = rows[by].to_numpy(float)
    return float(rows[score].to_numpy(float)[np.nanargmax(values)]) if np.isfinite(values).any() else float("nan")


def spread(rows: pd.DataFrame, score: str) -> tuple[float, float]:
    """Standard deviations between data seeds and between the model seeds of a data seed (one-way random effects).

    Between data seeds: the variance of their means less what the model seeds explain of it, 0 at the least; NaN with
    one data seed.
    """
    finite = rows[np.isfinite(rows[score].astype(float))]
    groups = finite.groupby("data_seed")[score]
    within = groups.var().mean()
    if finite["data_seed"].nunique() < 2:
        return float("nan"), float(np.sqrt(within))
    explained = (groups.var() / groups.size()).mean()
    between = groups.mean().var() - (0.0 if np.isnan(explained) else explained)
    return float(np.sqrt(max(between, 0.0))), float(np.sqrt(within))


@dataclass(frozen=True)
class Presented:
    """A figure as it was written: its folder, summary, judgements and pictures."""

    folder: Path
    summary: pd.DataFrame
    judgements: list[Judgement]
    about: dict[str, Any]


def present(evidence: Evidence, folder: Path) -> Presented:
    """Draw, judge, and write everything of a figure into `folder`."""
    figure = evidence.figure
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in evidence.tables.items():
        write_table(folder / f"{name}.csv", table)
    chosen = evidence.chosen
    judgements = judge(figure, chosen)
    verdicts = pd.DataFrame([each.record() for each in judgements])
    table = summary(figure, chosen.get(figure.scored, pd.DataFrame()))
    for stem, content in (("summary", table), ("verdicts", verdicts)):
        write_table(folder / f"{stem}.csv", content)
        _write_text(folder / f"{stem}.md", markdown(content))
        _write_text(folder / f"{stem}.tex", latex(content))
    pictures = _draw(evidence, chosen, folder) if len(chosen["rows"]) else []
    about = {
        "title": figure.title,
        "where": figure.where,
        "claim": figure.claim,
        "score": figure.score,
        **evidence.plain(),
        "pictures": pictures,
        "problems": evidence.problems,
        "tables": list(evidence.tables),
        "deviations": figure.deviations,
        "verdicts": [each.record() for each in judgements],
    }
    _write_text(folder / "about.json", _json(about))
    return Presented(folder, table, judgements, about)


def _draw(evidence: Evidence, tables: Tables, folder: Path) -> list[dict[str, str]]:
    from matplotlib import rc_context

    drawn = []
    with rc_context(STYLE):
        for name, *given in _pictures(evidence, tables):
            with evidence.excusing(f"picture {name}"):
                picture: Picture = function(evidence.figure.paper, name)(*given)
                across = int(16 * picture.figure.get_figwidth())  # characters
                lines = [textwrap.fill(line, across) for line in heading(evidence)]
                picture.figure.suptitle("\n".join(lines), fontsize=8)
                save(picture.figure, folder / picture.stem, (".png", ".svg", ".pdf"))
                drawn.append({"stem": picture.stem, "alt": picture.alt, "caption": picture.caption})
    return drawn


def _pictures(evidence: Evidence, tables: Tables) -> Iterator[tuple[Any, ...]]:
    """Each function that draws, with what it is given; one that draws run folders, the rows whose folders are here."""
    for name in evidence.figure.draw:
        yield name, tables
    rows = tables["rows"]
    here = rows[rows["run"].isin([*evidence.paths])]
    for name in evidence.figure.draw_runs if len(here) else []:
        yield name, here, evidence.paths


def heading(evidence: Evidence) -> list[str]:
    """What stands over every picture: where it belongs, its scale, how much of it is there, and how much diverged."""
    figure = evidence.figure
    scale = "" if evidence.scale == "paper" else "QUICK scale, not the paper's sizes; "
    changed = f"changed: {' '.join(evidence.changed)}; " if evidence.changed else ""
    named = f"{figure.full_name}, {figure.where}: {figure.title}"
    diverged = int((evidence.tables["rows"]["state"] == "diverged").sum())
    lost = f", {diverged} diverged" if diverged else ""
    return [named, f"{scale}{changed}{evidence.done} of {evidence.total} runs{lost}"]


def record(evidence: Evidence) -> list[Path]:
    """Keep the tables and the provenance of a figure with the project, under experiments/<paper>/results/.

    The provenance has the number of rows and the SHA-256 of each table, which `recorded` holds them against.
    """
    about, paths = kept(evidence.figure, evidence.tables)
    about.parent.mkdir(parents=True, exist_ok=True)
    for key, path in paths.items():
        write_table(path, evidence.tables[key])
    files = {path.name: seal(path) for path in paths.values()}
    _write_text(about, _json(evidence.plain() | {"files": files}))
    return [*paths.values(), about]


def recorded(figure: Figure) -> Evidence | None:
    """What the project keeps of a figure; None where it keeps nothing.

    Raises
    ------
    OSError, ValueError, KeyError
        If it is not whole, or not as it was recorded; what was recorded before tables were sealed is taken as it is.
    """
    found = provenance(figure)
    if found is None:
        return None
    _, paths = kept(figure, ("rows", *figure.tables))
    tables = {key: _read_table(path) for key, path in paths.items() if path.exists()}
    return Evidence(figure, tables=tables, **found[0])


def _read_table(path: Path) -> pd.DataFrame:
    try:
        return _read_kept(path)
    except pd.errors.EmptyDataError:  # nothing had finished
        return pd.DataFrame()


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, whole or not at all; numbers to six digits, which is more than seeds agree to."""
    _write_text(path, _csv(table))


def _csv(table: pd.DataFrame) -> str:
    return str(table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def _read_kept(source: Path | io.StringIO) -> pd.DataFrame:
    """A table as `write_table` writes it: only what is empty is missing, and names are text though they be digits."""
    return pd.read_csv(source, dtype=dict.fromkeys(NAMED, "str"), keep_default_na=False, na_values=[""])


def as_kept(table: pd.DataFrame) -> pd.DataFrame:
    """The table as it is read where it was kept, so that what is drawn of both is the same."""
    return _read_kept(io.StringIO(_csv(table))) if len(table.columns) else table


def _json(content: Mapping[str, Any]) -> str:
    """JSON with a line for each entry of the top level, and for each run, so that a difference can be read."""
    parts = [f"{json.dumps(key)}: {_entry(value)}" for key, value in content.items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _entry(value: Any) -> str:
    if isinstance(value, dict) and value:
        return "{\n" + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v, default=str)}" for k, v in value.items()) + "\n }"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"  {json.dumps(each, default=str)}" for each in value) + "\n ]"
    return json.dumps(value, default=str)


def _write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
