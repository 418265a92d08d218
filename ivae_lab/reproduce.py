"""One command per figure: `python -m ivae_lab.reproduce khemakhem2020/fig2b scale=quick`.

    python -m ivae_lab.reproduce --list                      all figures: paper, claim, state
    python -m ivae_lab.reproduce <paper>/<figure>            train what is missing, draw, judge
    python -m ivae_lab.reproduce <paper>                     every figure of a paper
    python -m ivae_lab.reproduce all                         every figure

    scale=quick|paper    quick (the default): minutes on two cores, smaller than the paper, and labelled so; paper: its
                         sizes, steps and seeds
    train=false          draw with what is there
    record=true          keep rows and provenance of scale=paper in experiments/<paper>/results/
    outputs=FOLDER       where run folders and figures lie (outputs)
    compute.threads=1    ... and any other override of `python -m ivae_lab.train`; one that changes numbers gives the
                         figure a folder of its own and is named on it

Cells that are finished are not trained again, wherever they were computed under the outputs; what was interrupted
continues. Exit codes: 0 all there, 1 a cell failed, diverged or is missing (the figure is drawn with what exists), 2
bad input, 130 and 143 stopped and ready to be continued.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ivae_lab.experiment import SCALES, ExperimentError, Figure, Scale, load, names
from ivae_lab.identity import digest

if TYPE_CHECKING:
    from ivae_lab.cells import Cell
    from ivae_lab.present import Presented

OK, INCOMPLETE, BAD_INPUT = 0, 1, 2
# Overrides of these say where and how, never what: they change no number.
NEUTRAL = ("compute", "logger", "hydra", "hydra/launcher")


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    figures: list[str]
    scale: Scale
    train: bool
    record: bool
    outputs: Path
    changed: list[str]  # overrides that change numbers
    neutral: list[str]

    def folder(self, figure: Figure) -> Path:
        """Where a figure's files go."""
        own = f"{self.scale}-{digest(self.changed)}" if self.changed else self.scale
        return self.outputs / "figures" / figure.paper / figure.name / own

    def command(self, figure: Figure) -> str:
        """The command that makes a figure."""
        return " ".join(["python -m ivae_lab.reproduce", figure.full_name, f"scale={self.scale}", *self.changed])


def parse(arguments: Sequence[str]) -> Request:
    """Read the command line.

    Raises
    ------
    ExperimentError
        One line: what was expected, what came.
    """
    wanted = [each for each in arguments if "=" not in each]
    given = dict(each.split("=", 1) for each in arguments if "=" in each)
    if len(wanted) != 1:
        raise ExperimentError(
            f"expected one figure, a paper, or all, got {' '.join(wanted) or 'none'}; --list names them"
        )
    scale = given.pop("scale", "quick")
    if scale not in SCALES:
        raise ExperimentError(f"scale: expected quick or paper, got {scale!r}")
    flags = {name: _flag(name, given.pop(name, default)) for name, default in (("train", "true"), ("record", "false"))}
    outputs = Path(given.pop("outputs", "outputs"))
    if "seed" in given:
        raise ExperimentError("seed: expected no override, as the figure says how many seeds there are, got one")
    neutral = [f"{key}={value}" for key, value in given.items() if key.split(".")[0] in NEUTRAL]
    changed = [f"{key}={value}" for key, value in given.items() if key.split(".")[0] not in NEUTRAL]
    if flags["record"] and (scale != "paper" or changed):
        raise ExperimentError("record: expected scale=paper and no changes to keep rows, got another")
    return Request(_figures(wanted[0]), scale, **flags, outputs=outputs, changed=changed, neutral=neutral)


def _flag(name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise ExperimentError(f"{name}: expected true or false, got {value!r}")
    return value == "true"


def _figures(wanted: str) -> list[str]:
    known = names()
    some = [name for name in known if wanted in ("all", name.split("/")[0])]
    return some or [load(wanted).full_name]


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    console = Console()
    if not arguments or arguments[0] in ("-h", "--help"):
        console.print((__doc__ or "").strip(), markup=False, highlight=False)
        return OK
    try:
        if arguments[0] == "--list":
            return _list(arguments[1:], console)
        request = parse(arguments)
        codes = [reproduce(load(name), request, console) for name in request.figures]
    except ExperimentError as error:
        return _say(error, BAD_INPUT)
    except OSError as error:
        return _say(f"expected to read and write under the outputs, got: {error}", BAD_INPUT)
    except KeyboardInterrupt:
        return _say("stopped; the same command continues", 130)
    return max(codes)


def reproduce(figure: Figure, request: Request, console: Console) -> int:
    """Train the missing cells of a figure, draw it, and say what came out."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from ivae_lab.cells import expand, find
    from ivae_lab.present import Evidence, gather, present, record

    console.rule(f"{figure.full_name}: {figure.title}")
    try:
        cells = expand(figure, request.scale, request.changed)
    except (HydraException, OmegaConfBaseException) as error:
        raise ExperimentError(f"{figure.full_name}: {' '.join(str(error).split())}") from None
    code = OK
    if request.train:
        code = Training(cells, request, console).run()
        if code > 128:
            return code
    evidence = Evidence(figure, request.scale, request.changed, request.command(figure))
    gather(figure, cells, find(request.outputs), evidence)
    shown = present(evidence, request.folder(figure))
    _report(shown, console)
    if request.record:
        for path in record(evidence):
            console.print(f"recorded {path}", soft_wrap=True, highlight=False)
    diverged = any(run["state"] == "diverged" for run in evidence.runs.values())
    return INCOMPLETE if evidence.missing or diverged else OK


class Training:
    """The missing cells of a figure, trained a line of its experiment at a time by `python -m ivae_lab.train -m`."""

    def __init__(self, cells: Sequence[Cell], request: Request, console: Console) -> None:
        self.cells, self.request, self.console = cells, request, console
        self.began, self.worked = time.monotonic(), 0.0

    def run(self) -> int:
        """Train; the exit code of the last call that was stopped, else the largest."""
        from ivae_lab.cells import find

        codes = [OK]
        lines = list({id(cell.line): cell.line for cell in self.cells}.values())
        for line in lines:
            found = find(self.request.outputs)
            missing = [(cell, seeds) for cell in self.cells if (seeds := found.missing(cell))]
            self._say_progress(missing)
            own = {cell.digest: (cell, seeds) for cell, seeds in missing if cell.line is line}
            if own:
                codes.append(self._train(list(own.values())))
                if codes[-1] > 128 or codes[-1] < 0:
                    return 128 - codes[-1] if codes[-1] < 0 else codes[-1]
        return max(codes)

    def _say_progress(self, missing: list[tuple[Cell, list[int]]]) -> None:
        total = sum(len(cell.seeds) for cell in self.cells)
        left = sum(len(seeds) for _, seeds in missing)
        work = sum(cell.steps * len(seeds) for cell, seeds in missing)
        rate = (time.monotonic() - self.began) / self.worked if self.worked else None
        remaining = "" if rate is None or not left else f", about {_duration(rate * work)} left at the rate so far"
        self.console.print(f"{total - left} of {total} runs done, {left} to train{remaining}")

    def _train(self, jobs: list[tuple[Cell, list[int]]]) -> int:
        path = self.request.outputs / "figures" / ".jobs" / f"{digest([cell.digest for cell, _ in jobs])}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        listed = [[*cell.overrides, f"seed=[{','.join(map(str, seeds))}]"] for cell, seeds in jobs]
        path.write_text(json.dumps(listed, indent=1))
        first = jobs[0][0]
        self.console.print(f"{first.describe()['label']}, {first.line.variant}: {len(jobs)} configurations")
        command = [sys.executable, "-m", "ivae_lab.train", "-m", "hydra/sweeper=listed", f"hydra.sweeper.jobs={path}"]
        command += ["show=false", f"outputs={self.request.outputs}", *self.request.neutral]
        process = subprocess.Popen(command)
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.wait()  # it has had the signal too, and writes its checkpoint
            raise
        self.worked += sum(cell.steps * len(seeds) for cell, seeds in jobs)
        return code


def _report(shown: Presented, console: Console) -> None:
    """Print table, verdicts, what is missing and where everything lies."""
    from ivae_lab.tables import brief, show

    about = shown.about
    if len(shown.summary):
        console.print(show(brief(shown.summary), f"{about['score']}: mean [95% interval] over seeds"))
    for each in shown.judgements:
        console.print(f"{each.verdict.upper()} ({each.variant}): {each.statement}", highlight=False, soft_wrap=True)
        console.print(f"  {each.where} says {each.theirs}; {each.reason}", highlight=False, soft_wrap=True)
    for line in _unfinished(about):
        console.print(line, style="bold red", soft_wrap=True, highlight=False)
    console.print(f"{about['done']} of {about['total']} runs; everything lies in {shown.folder}", soft_wrap=True)
    for picture in about["pictures"]:
        console.print(f"  {shown.folder / picture['stem']}.png", soft_wrap=True, highlight=False)


def _unfinished(about: dict[str, Any]) -> Iterator[str]:
    """A line for each cell that failed or was stopped and each run in which a seed diverged; the rest in one line."""
    waiting = [each for each in about["missing"] if each["state"] == "not run"]
    for each in about["missing"]:
        if each not in waiting:
            why = f": {each['error']}" if each["error"] else ""
            state = "stopped, or running elsewhere" if each["state"] == "running" else each["state"]
            yield f"{state}: {' '.join(each['overrides'])} seeds {each['seeds']} in {each['folder']}{why}"
    for name, run in about["runs"].items():
        if run["state"] == "diverged":
            yield f"diverged: {name}: {run['error']}"
    if waiting:
        yield f"not run: {sum(len(each['seeds']) for each in waiting)} seeds of {len(waiting)} configurations"


def _list(arguments: Sequence[str], console: Console) -> int:
    import pandas as pd

    from ivae_lab.tables import show

    given = dict(each.partition("=")[::2] for each in arguments)
    if set(given) - {"outputs"}:
        raise ExperimentError(f"expected --list [outputs=FOLDER], got {' '.join(arguments)}")
    outputs = Path(given.get("outputs", "outputs"))
    rows = [
        {"figure": name, "where": figure.where, "claim": figure.claim, "state": _state(figure, outputs)}
        for name in names()
        for figure in [load(name)]
    ]
    console.print(show(pd.DataFrame(rows), "figures: python -m ivae_lab.reproduce <figure> [scale=quick|paper]"))
    return OK


def _state(figure: Figure, outputs: Path) -> str:
    """What is there of a figure: in this project's records, and under the outputs."""
    from ivae_lab.present import recorded

    said = []
    kept = recorded(figure)
    if kept is not None:
        said.append(f"paper scale recorded ({kept.done} of {kept.total} runs)")
    for scale in SCALES:
        path = outputs / "figures" / figure.paper / figure.name / scale / "about.json"
        if path.exists():
            about = json.loads(path.read_text(encoding="utf-8"))
            said.append(f"{scale} drawn ({about['done']} of {about['total']})")
    return "; ".join(said) or "not run"


def _duration(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _say(message: object, code: int) -> int:
    print(f"ivae_lab.reproduce: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
