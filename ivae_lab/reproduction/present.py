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

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ivae_lab.plots.panels import STYLE, Picture, save
from ivae_lab.reproduction.claims import Judgement, judge
from ivae_lab.reproduction.definition import Figure, function
from ivae_lab.reproduction.evidence import Evidence, Tables
from ivae_lab.reproduction.records import kept, provenance, seal
from ivae_lab.reproduction.summary import summary
from ivae_lab.reproduction.table_files import _read_table, write_table
from ivae_lab.storage.atomic import atomic
from ivae_lab.terminal.lazy import Later
from ivae_lab.terminal.text_tables import latex, markdown

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Later("pandas")


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
