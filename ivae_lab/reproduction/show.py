"""Print the results of a figure, and the list of figures, on the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ivae_lab.reproduction.definition import SCALES, ExperimentError, Figure, load, names
from ivae_lab.terminal.command_line import OK
from ivae_lab.terminal.messages import one_line

if TYPE_CHECKING:
    from ivae_lab.reproduction.present import Presented


def report(shown: Presented, console: Console) -> None:
    """Print table, verdicts, missing seeds and the paths of the files."""
    from ivae_lab.terminal.text_tables import brief, show

    about = shown.about
    if len(shown.summary):
        console.print(show(brief(shown.summary), f"{about['score']}: mean [95% interval] over seeds"))
    if shown.judgements and about["scale"] == "quick":
        console.print("at the quick scale, which says what little training does, not what holds:", soft_wrap=True)
    for claim in shown.judgements:
        console.print(f"{claim.verdict.upper()} ({claim.variant}): {claim.statement}", highlight=False, soft_wrap=True)
        console.print(f"  {claim.where} says {claim.theirs}; {claim.reason}", highlight=False, soft_wrap=True)
    print_unfinished(about, console)
    console.print(f"{about['done']} of {about['total']} runs; everything lies in {shown.folder}", soft_wrap=True)
    for picture in about["pictures"]:
        console.print(f"  {shown.folder / picture['stem']}.png", soft_wrap=True, highlight=False)


def print_unfinished(about: dict[str, Any], console: Console) -> None:
    """Print the cells and seeds of a figure that failed, diverged or were not trained, with the reasons."""
    for line in _unfinished(about):
        console.print(line, style="bold red", soft_wrap=True, highlight=False)


def _unfinished(about: dict[str, Any]) -> Iterator[str]:
    """A line for each cell that failed or was stopped and each run in which a seed diverged; the rest in one line."""
    waiting = [cell for cell in about["missing"] if cell["state"] == "not run"]
    for cell in about["missing"]:
        if cell not in waiting:
            why = f": {cell['error']}" if cell["error"] else ""
            state = "stopped, or running elsewhere" if cell["state"] == "running" else cell["state"]
            where = f" in {cell['folder']}" if cell["folder"] else ""
            yield f"{state}: {' '.join(cell['overrides'])} seeds {cell['seeds']}{where}{why}"
    for name, run in about["runs"].items():
        if run["diverged"]:
            yield f"diverged: {name}: {run['error']}"
    yield from about["problems"]
    if waiting:
        yield f"not run: {sum(len(cell['seeds']) for cell in waiting)} seeds of {len(waiting)} configurations"


def list_figures(arguments: Sequence[str], console: Console) -> int:
    """Print figures, their claims and the state of each; return the exit code."""
    from ivae_lab.terminal.text_tables import show_rows

    given = dict(argument.partition("=")[::2] for argument in arguments)
    if set(given) - {"outputs"}:
        raise ExperimentError(f"expected --list [outputs=FOLDER], got {' '.join(arguments)}")
    outputs = Path(given.get("outputs", "outputs"))
    rows = [_listed(name, outputs) for name in names()]
    title = "figures: python -m ivae_lab.reproduce <figure> [scale=quick|paper]"
    console.print(show_rows([*rows[0]], [row.values() for row in rows], title, whole="figure"))
    return OK


def _listed(name: str, outputs: Path) -> dict[str, str]:
    """A line of the list; for a figure that cannot be read, with the reason."""
    try:
        figure = load(name)
    except ExperimentError as error:
        return {"figure": name, "where": "-", "claim": "-", "state": f"cannot be read: {error}"}
    return {"figure": name, "where": figure.where, "claim": figure.claim, "state": state(figure, outputs)}


def state(figure: Figure, outputs: Path) -> str:
    """Describe the evidence of a figure in this project's records and under the outputs."""
    from ivae_lab.reproduction.records import provenance

    parts = []
    try:
        if kept := provenance(figure):
            done = kept["total"] - sum(len(each["seeds"]) for each in kept["missing"])
            parts.append(f"{kept['scale']} scale recorded ({done} of {kept['total']} runs)")
    except (OSError, ValueError, KeyError, TypeError) as error:
        parts.append(f"records cannot be read: {one_line(error)}")
    for scale in SCALES:
        path = outputs / "figures" / figure.paper / figure.name / scale / "about.json"
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            parts.append(f"{scale} drawn ({about['done']} of {about['total']})")
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError):
            parts.append(f"{scale} cannot be read")
    return "; ".join(parts) or "not run"


def about(seconds: float) -> str:
    """Format a duration roughly, in minutes or hours."""
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
