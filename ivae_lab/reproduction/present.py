"""Draw and judge a figure from its evidence, and write its folder, without training and without PyTorch.

The files of a figure's folder (`outputs/figures/<paper>/<figure>/<scale>/`):

==================  ====================================================================================
about.json          what it is, the commands, configurations, runs and their environment, what is missing
rows.csv            one row per run and seed: what was trained, its scores, where they come from
<table>.csv         further tables, of latents or of the training
summary.csv .md     the table that goes with the figure, also as LaTeX (.tex, booktabs)
verdicts.csv .md    the claims, and whether they hold
<picture>           as .png, .svg and .pdf
==================  ====================================================================================

Drawing needs only `rows.csv`, the further tables and the first part of about.json: for the paper scale they are kept in
`experiments/<paper>/results/`, so that pictures, verdicts and report can be made without training.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ivae_lab.plots.style import STYLE, Picture, save
from ivae_lab.reproduction.claims import Judgement, judge
from ivae_lab.reproduction.definition import function
from ivae_lab.reproduction.evidence import FigureEvidence, Tables
from ivae_lab.reproduction.summary import summary
from ivae_lab.reproduction.table_files import json_text, write_table, write_text
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


def present(evidence: FigureEvidence, folder: Path) -> Presented:
    """Draw and judge a figure, and write all its files into `folder`."""
    figure = evidence.figure
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in evidence.tables.items():
        write_table(folder / f"{name}.csv", table)
    chosen = evidence.chosen
    judgements = judge(figure, chosen)
    verdicts = pd.DataFrame([judgement.record() for judgement in judgements])
    table = summary(figure, chosen.get(figure.scored, pd.DataFrame()))
    for stem, content in (("summary", table), ("verdicts", verdicts)):
        write_table(folder / f"{stem}.csv", content)
        write_text(folder / f"{stem}.md", markdown(content))
        write_text(folder / f"{stem}.tex", latex(content))
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
        "verdicts": [judgement.record() for judgement in judgements],
    }
    write_text(folder / "about.json", json_text(about))
    return Presented(folder, table, judgements, about)


def _draw(evidence: FigureEvidence, tables: Tables, folder: Path) -> list[dict[str, str]]:
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


def _pictures(evidence: FigureEvidence, tables: Tables) -> Iterator[tuple[Any, ...]]:
    """Each function that draws, with its arguments; one that reads run folders gets the rows whose folders exist."""
    for name in evidence.figure.draw:
        yield name, tables
    rows = tables["rows"]
    here = rows[rows["run"].isin([*evidence.paths])]
    for name in evidence.figure.draw_runs if len(here) else []:
        yield name, here, evidence.paths


def heading(evidence: FigureEvidence) -> list[str]:
    """Lines over every picture: figure and title, scale, number of finished runs, and number of diverged ones."""
    figure = evidence.figure
    scale = "" if evidence.scale == "paper" else "QUICK scale, not the paper's sizes; "
    changed = f"changed: {' '.join(evidence.changed)}; " if evidence.changed else ""
    named = f"{figure.full_name}, {figure.where}: {figure.title}"
    diverged = int((evidence.tables["rows"]["state"] == "diverged").sum())
    lost = f", {diverged} diverged" if diverged else ""
    return [named, f"{scale}{changed}{evidence.done} of {evidence.total} runs{lost}"]
