"""Say on the terminal what a figure came to, and which figures there are."""

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
    """Print table, verdicts, what is missing and where everything lies."""
    from ivae_lab.terminal.text_tables import brief, show

    about = shown.about
    if len(shown.summary):
        console.print(show(brief(shown.summary), f"{about['score']}: mean [95% interval] over seeds"))
    if shown.judgements and about["scale"] == "quick":
        console.print("at the quick scale, which says what little training does, not what holds:", soft_wrap=True)
    for each in shown.judgements:
        console.print(f"{each.verdict.upper()} ({each.variant}): {each.statement}", highlight=False, soft_wrap=True)
        console.print(f"  {each.where} says {each.theirs}; {each.reason}", highlight=False, soft_wrap=True)
    print_unfinished(about, console)
    console.print(f"{about['done']} of {about['total']} runs; everything lies in {shown.folder}", soft_wrap=True)
    for picture in about["pictures"]:
        console.print(f"  {shown.folder / picture['stem']}.png", soft_wrap=True, highlight=False)


def print_unfinished(about: dict[str, Any], console: Console) -> None:
    """Name what is missing of a figure: cells and seeds that failed, diverged or were not trained, and why."""
    for line in _unfinished(about):
        console.print(line, style="bold red", soft_wrap=True, highlight=False)


def _unfinished(about: dict[str, Any]) -> Iterator[str]:
    """A line for each cell that failed or was stopped and each run in which a seed diverged; the rest in one line."""
    waiting = [each for each in about["missing"] if each["state"] == "not run"]
    for each in about["missing"]:
        if each not in waiting:
            why = f": {each['error']}" if each["error"] else ""
            state = "stopped, or running elsewhere" if each["state"] == "running" else each["state"]
            where = f" in {each['folder']}" if each["folder"] else ""
            yield f"{state}: {' '.join(each['overrides'])} seeds {each['seeds']}{where}{why}"
    for name, run in about["runs"].items():
        if run["diverged"]:
            yield f"diverged: {name}: {run['error']}"
    yield from about["problems"]
    if waiting:
        yield f"not run: {sum(len(each['seeds']) for each in waiting)} seeds of {len(waiting)} configurations"


def list_figures(arguments: Sequence[str], console: Console) -> int:
    """Print figures, their claims and what is there of each; the exit code."""
    from ivae_lab.terminal.text_tables import show_rows

    given = dict(each.partition("=")[::2] for each in arguments)
    if set(given) - {"outputs"}:
        raise ExperimentError(f"expected --list [outputs=FOLDER], got {' '.join(arguments)}")
    outputs = Path(given.get("outputs", "outputs"))
    rows = [_listed(name, outputs) for name in names()]
    title = "figures: python -m ivae_lab.reproduce <figure> [scale=quick|paper]"
    console.print(show_rows([*rows[0]], [row.values() for row in rows], title, whole="figure"))
    return OK


def _listed(name: str, outputs: Path) -> dict[str, str]:
    """A line of the list; of a figure that cannot be read, why."""
    try:
        figure = load(name)
    except ExperimentError as error:
        return {"figure": name, "where": "-", "claim": "-", "state": f"cannot be read: {error}"}
    return {"figure": name, "where": figure.where, "claim": figure.claim, "state": state(figure, outputs)}


def state(figure: Figure, outputs: Path) -> str:
    """What is there of a figure: in this project's records, and under the outputs."""
    from ivae_lab.reproduction.records import provenance

    said = []
    try:
        if kept := provenance(figure):
            done = kept["total"] - sum(len(each["seeds"]) for each in kept["missing"])
            said.append(f"{kept['scale']} scale recorded ({done} of {kept['total']} runs)")
    except (OSError, ValueError, KeyError, TypeError) as error:
        said.append(f"records cannot be read: {one_line(error)}")
    for scale in SCALES:
        path = outputs / "figures" / figure.paper / figure.name / scale / "about.json"
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            said.append(f"{scale} drawn ({about['done']} of {about['total']})")
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError):
            said.append(f"{scale} cannot be read")
    return "; ".join(said) or "not run"


def about(seconds: float) -> str:
    """About how long, in minutes or hours."""
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
