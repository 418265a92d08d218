"""One command per figure: `ivae-lab reproduce khemakhem2020/fig2b scale=quick`.

    ivae-lab reproduce --list                      all figures: paper, claim, state
    ivae-lab reproduce <paper>/<figure>            train what is missing, draw, judge
    ivae-lab reproduce <paper>                     every figure of a paper
    ivae-lab reproduce all                         every figure

    scale=quick|paper    quick (the default): minutes on two cores, smaller than the paper, and labelled so; paper: its
                         sizes, steps and seeds
    train=false          draw with what is there
    hydra/launcher=slurm train on a cluster, all missing cells as one array job (docs/cluster.md)
    wait=false           with it: leave right after the submission; the same command shows how it stands, submits what
                         has become missing, and draws when all is there
    retry=true           train again also what raised an error of its own under this very code
    record=true          keep rows and provenance in experiments/<paper>/results/, beside rows that were kept before and
                         that no run folder holds; those of the quick scale only while there are none of the paper's
    outputs=FOLDER       where run folders and figures lie (outputs)
    compute.threads=1    ... and any other override of `ivae-lab train`; one that changes numbers gives the figure
                         a folder of its own and is named on it

Cells that are finished are not trained again, wherever they were computed under the outputs; what was interrupted
continues. Exit codes: 0 all there, 1 a cell failed, diverged or is missing (the figure is drawn with what exists), 2
bad input, 130 and 143 stopped and ready to be continued. Of several figures, one that cannot be made is named, the
others are made, and the largest code is given.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ivae_lab.config.digests import NUMBERS, digest
from ivae_lab.reproduction.definition import SCALES, ExperimentError, Figure, Scale, load, names
from ivae_lab.terminal.command_line import BAD_INPUT, FAILED, OK, STOPPED, TRUTH, TerminatedError, done, say
from ivae_lab.terminal.messages import one_line

if TYPE_CHECKING:
    import pandas as pd

    from ivae_lab.launch.slurm_queue import Queued
    from ivae_lab.reproduction.cells import Cell, Found
    from ivae_lab.reproduction.present import Evidence, Presented

_NAME = "ivae_lab.reproduce"
# Overrides of these say where and how, never what: they change no number.
NEUTRAL = ("compute", "logger", "hydra", "hydra/launcher")
# Overrides of `python -m ivae_lab.train` that this command has no use for.
REFUSED = {
    "seed": "as the figure says how many seeds there are",
    "force": "as a run is trained again once its folder is removed",
    "show": "as the figure's table is shown",
}
FLAGS = {"train": "true", "record": "false", "wait": "true", "retry": "false"}
KEYS = {"scale": SCALES, "outputs": (), **dict.fromkeys(FLAGS, TRUTH)}  # of this command, with their choices


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    figures: list[str]
    scale: Scale
    train: bool
    record: bool
    wait: bool
    retry: bool
    outputs: Path
    changed: list[str]  # overrides that change numbers
    neutral: list[str]

    def folder(self, figure: Figure) -> Path:
        """Where a figure's files go."""
        own = f"{self.scale}-{digest(sorted(self.changed))}" if self.changed else self.scale
        return self.outputs / "figures" / figure.paper / figure.name / own

    @property
    def launcher(self) -> str | None:
        """The launcher that was asked for."""
        return next((each.partition("=")[2] for each in self.neutral if each.startswith("hydra/launcher=")), None)

    def command(self, figure: Figure) -> str:
        """The command that makes a figure."""
        return f"python -m ivae_lab.reproduce {shlex.join([figure.full_name, f'scale={self.scale}', *self.changed])}"


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
    flags = {name: _flag(name, given.pop(name, default)) for name, default in FLAGS.items()}
    outputs = Path(given.pop("outputs", "outputs"))
    _check_overrides(given)
    neutral = [f"{key}={value}" for key, value in given.items() if key.split(".")[0] in NEUTRAL]
    changed = [f"{key}={value}" for key, value in given.items() if key.split(".")[0] not in NEUTRAL]
    if flags["record"] and changed:
        raise ExperimentError(f"record: expected no changed numbers, got {' '.join(changed)}")
    request = Request(_figures(wanted[0]), scale, **flags, outputs=outputs, changed=changed, neutral=neutral)
    if not request.wait and request.launcher != "slurm":
        raise ExperimentError(f"wait: expected hydra/launcher=slurm with wait=false, got {request.launcher or 'none'}")
    return request


def _check_overrides(given: dict[str, str]) -> None:
    for key, value in given.items():
        if key in REFUSED:
            raise ExperimentError(f"{key}: expected no override, {REFUSED[key]}, got {value!r}")
        if re.split("[./]", key.lstrip("+~"))[0] not in (*NUMBERS, *NEUTRAL):
            known = f"{', '.join(KEYS)} or an override of {', '.join(NUMBERS)}"
            raise ExperimentError(f"{key}: expected {known}, got {key}={value}")


def _flag(name: str, value: str) -> bool:
    if value not in TRUTH:
        raise ExperimentError(f"{name}: expected true or false, got {value!r}")
    return value == "true"


def _figures(wanted: str) -> list[str]:
    known = names()
    some = [name for name in known if wanted in ("all", name.split("/")[0])]
    return some or [load(wanted).full_name]


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    files, stopped = "read and write under the outputs", "stopped; the same command continues"
    return done(_NAME, __doc__, arguments or ["--help"], _run, files, stopped)


def _run(arguments: Sequence[str]) -> int:
    console = Console(markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 120  # a log: the table fits
    if arguments[0] == "--list":
        return _list(arguments[1:], console)
    return _each(parse(arguments), console)


def _each(request: Request, console: Console) -> int:
    """Reproduce each figure; one that cannot be made does not stop the others. The largest exit code."""
    _check_neutral(request.neutral)
    _name_unreadable(request.outputs, console)
    codes: dict[str, int] = {}
    several = len(request.figures) > 1
    for number, name in enumerate(request.figures, 1):
        if several:
            console.print(f"figure {number} of {len(request.figures)}", highlight=False)
        codes[name] = _one(name, request, console)
        if codes[name] in STOPPED:
            break
    else:
        if several:
            _sum_up(codes, console)
    return max(codes.values())


def _one(name: str, request: Request, console: Console) -> int:
    """Reproduce a figure; its exit code."""
    try:
        return reproduce(load(name), request, console)
    except ExperimentError as error:
        return say(_NAME, error, BAD_INPUT)
    except OSError:
        raise
    except Exception:  # such as an error in the paper's figures.py: the traceback is what helps
        traceback.print_exc()
        return say(_NAME, f"{name}: could not be made, see above; what was trained is kept", FAILED)


def _sum_up(codes: dict[str, int], console: Console) -> None:
    """Name the figures that did not end well: what each of many said is far up on the terminal."""
    bad = [f"{name} ({code})" for name, code in codes.items() if code]
    told = f"; others: {', '.join(bad)}" if bad else ""
    console.print(f"{len(codes) - len(bad)} of {len(codes)} figures ended with exit code 0{told}", soft_wrap=True)


def _check_neutral(overrides: Sequence[str]) -> None:
    """Overrides that go to every training as they are: an unknown key is said before anything is trained."""
    from hydra.errors import HydraException

    from ivae_lab.config.overrides import composed

    if overrides:
        try:
            composed(overrides)
        except HydraException as error:
            raise ExperimentError(one_line(error)) from None


def _name_unreadable(outputs: Path, console: Console) -> None:
    """A line for each run folder that may hold a cell of the figures, and whose status does not say so."""
    from ivae_lab.reproduction.cells import find

    for path, reason in find(outputs).unreadable.items():
        console.print(f"left out: {path}: {reason}", style="bold red", soft_wrap=True, highlight=False)


def reproduce(figure: Figure, request: Request, console: Console) -> int:
    """Train the missing cells of a figure, draw it, and say what came out."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from ivae_lab.reproduction.cells import expand, find
    from ivae_lab.reproduction.join_records import join
    from ivae_lab.reproduction.present import Evidence, gather, present, record

    console.rule(f"{figure.full_name}: {figure.title}")
    kept = _records(figure, request.scale) if request.record else []
    try:
        cells = expand(figure, request.scale, request.changed)
    except (HydraException, OmegaConfBaseException) as error:
        raise ExperimentError(f"{figure.full_name}: {one_line(error)}") from None
    training = CellTraining(cells, request, console)
    if request.train and (code := training.run()) in STOPPED:
        return code
    found = find(request.outputs)
    if not request.wait and training.queued:
        training.say_progress(found)
        console.print("under way; the same command shows how it stands, and draws when all is there", soft_wrap=True)
        return OK
    for line in _set_aside(found, cells):
        console.print(line, style="bold red", soft_wrap=True, highlight=False)
    evidence = Evidence(figure, request.scale, request.changed, request.command(figure))
    gather(figure, cells, found, evidence)
    if rows := sum(join(evidence, each, cells) for each in kept):
        console.print(f"{rows} rows that no run folder holds stay as they are recorded", soft_wrap=True)
    training.explain(evidence)
    if not evidence.done:
        _print_unfinished(evidence.plain() | {"problems": evidence.problems}, console)
        console.print(f"no runs; {evidence.command} trains them", soft_wrap=True, highlight=False)
        return training.code if training.code == BAD_INPUT else FAILED
    shown = present(evidence, request.folder(figure))
    _report(shown, console)
    if request.record:
        for path in record(evidence):
            console.print(f"recorded {path}", soft_wrap=True, highlight=False)
    diverged = any(run["diverged"] for run in evidence.runs.values())  # of the seeds that the figure asks for
    return FAILED if evidence.missing or diverged else OK


def _records(figure: Figure, scale: Scale) -> list[Evidence]:
    """What the project keeps in this scale of a figure, and of its paper's others, which may have the same sweeps."""
    own = _recorded(figure)
    if own is not None and own.scale == "paper" and scale == "quick":
        raise ExperimentError(f"record: expected scale=paper, whose rows are kept of {figure.full_name}, got quick")
    others = [load(name) for name in names() if name.startswith(f"{figure.paper}/") and name != figure.full_name]
    kept = [own, *map(_recorded, others)]
    return [each for each in kept if each is not None and each.scale == scale]


def _recorded(figure: Figure) -> Evidence | None:
    """What the project keeps of a figure; bad input where it is damaged, as recording anew would lose it."""
    from ivae_lab.reproduction.present import recorded

    try:
        return recorded(figure)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExperimentError(
            f"record: the kept records of {figure.full_name} cannot be read: {one_line(error)}"
        ) from None


def _set_aside(found: Found, cells: Sequence[Cell]) -> list[str]:
    """Leave out finished runs of the cells whose rows cannot be read; a line for each, and for different numbers.

    The same cell and seed may have been computed in several runs, of which one is used (`cells.find`).
    """
    from ivae_lab.runs.folder import read_status

    said: list[str] = []
    tables: dict[Path, pd.DataFrame | None] = {}
    gaps: dict[tuple[Path, Path], dict[int, float]] = {}
    for key in dict.fromkeys((cell.digest, seed) for cell in cells for seed in cell.seeds):
        folders = found.everywhere.get(key, [])
        for path in folders:
            if path not in tables:
                tables[path] = _scores(path, said)
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
        said.append(
            f"same cell, different numbers: {used.name} (used) and {path.name}, seeds {seeds}: "
            f"scores differ by up to {max(by_seed.values()):.3g}"
        )
    return said


def _scores(path: Path, said: list[str]) -> pd.DataFrame | None:
    from ivae_lab.runs.headlines import per_seed

    try:
        return per_seed(path)
    except (OSError, ValueError) as error:
        said.append(f"left out: {path}: {one_line(error)}; remove the folder to train it again")
        return None


def _gap(one: pd.DataFrame, other: pd.DataFrame, seed: int) -> float:
    """The largest difference of a seed's scores; infinite where only one is a number."""
    import numpy as np

    shared = [name for name in one.select_dtypes("number") if name in other]
    a, b = (table[shared].loc[seed].to_numpy(float) for table in (one, other))
    if (np.isnan(a) != np.isnan(b)).any():
        return float("inf")
    return float(np.max(np.abs(a - b)[~np.isnan(a)], initial=0.0))


class CellTraining:
    """The missing cells of a figure, trained a line of its experiment at a time by `python -m ivae_lab.train -m`.

    Attributes
    ----------
    refused
        Overrides of a cell that was given to the training and that the training said no to -> what it said.
    queued
        Tasks of a cluster that wait or run for the figure's cells, by their run folders.
    code
        Exit code of the last training.
    """

    def __init__(self, cells: Sequence[Cell], request: Request, console: Console) -> None:
        self.cells, self.request, self.console = cells, request, console
        self.began, self.worked = time.monotonic(), 0.0
        self.refused: dict[tuple[str, ...], str] = {}
        self.queued: dict[str, Queued] = {}
        self.code = OK

    def run(self) -> int:
        """Train; the exit code of a call that was stopped, else of the last."""
        from ivae_lab.reproduction.cells import find

        self._look()
        self.say_progress(find(self.request.outputs))
        lines = list({id(cell.line): [cell.line] for cell in self.cells}.values())
        if self.request.launcher in PROCESSES:
            lines = [[line for each in lines for line in each]]  # all at once, as one array job
        for together in lines:
            found = find(self.request.outputs)
            own = {cell.digest: (cell, seeds) for cell, seeds in self._missing(found) if cell.line in together}
            if own:
                if self.worked:
                    self.say_progress(found)
                self.code, said = self._train(list(own.values()))
                if self.code in STOPPED:
                    return self.code
                if self.code:
                    self._note([cell for cell, _ in own.values()], self.code, said)
        self._look()
        if self.queued and self.request.wait:  # submitted by an earlier call
            self._watch()
        return self.code

    def explain(self, evidence: Evidence) -> None:
        """Say of cells that were not trained why: refused, in the queue, or their process died; and name the log."""
        from ivae_lab.launch import slurm_queue as queue

        given = {task.cell: task for task in queue.last(self.request.outputs).values()}
        digests = {cell.overrides: cell.digest for cell in self.cells}
        for each in evidence.missing:
            task = given.get(digests[tuple(each["overrides"])])
            why = self.refused.get(tuple(each["overrides"]))
            if each["state"] == "not run" and why:
                each |= {"state": "failed", "error": why}
            elif task is not None and task.folder in self.queued:
                _, state, reason = self.queued[task.folder]
                each |= {"state": "in the queue", "error": f"{state}, {reason}"}
            elif task is not None:
                died = each["state"] in ("running", "not run")
                each |= {"state": "failed", "error": f"{queue.DIED if died else each['error']}; log: {task.log}"}

    def _look(self) -> None:
        """Ask Slurm what of the figure waits or runs."""
        from ivae_lab.launch import slurm_queue as queue

        cells = {cell.digest for cell in self.cells}
        try:
            queued = queue.live(self.request.outputs)
        except queue.QueueError as error:
            if self.request.launcher == "slurm":
                raise ExperimentError(str(error)) from None
            self.console.print(f"{error}; what an earlier call submitted may be trained twice", soft_wrap=True)
            queued = {}
        self.queued = {name: found for name, found in queued.items() if found[0].cell in cells}

    def _watch(self) -> None:
        from ivae_lab.launch import slurm_queue as queue

        try:
            queue.watch(self.request.outputs, list(self.queued), partial(self.console.print, soft_wrap=True))
        except queue.QueueError as error:
            raise ExperimentError(str(error)) from None
        self.queued = {}

    def _missing(self, found: Found) -> list[tuple[Cell, list[int]]]:
        """Seeds of cells that are neither finished nor in the queue, and that it makes sense to train."""
        busy = {(task.cell, seed) for task, _, _ in self.queued.values() for seed in task.seeds}

        def sensible(key: tuple[str, int]) -> bool:
            return key not in busy and (self.request.retry or not _is_hopeless(found.unfinished.get(key)))

        missing = ((cell, [s for s in found.missing(cell) if sensible((cell.digest, s))]) for cell in self.cells)
        return [(cell, seeds) for cell, seeds in missing if seeds]

    def _note(self, cells: list[Cell], code: int, said: list[str]) -> None:
        """Each cell without a folder said why in a line, in their order; if not so, each gets all that was said."""
        from ivae_lab.reproduction.cells import find

        found = find(self.request.outputs)
        known = {digest for digest, _ in (*found.finished, *found.unfinished)}
        absent = [cell for cell in cells if cell.digest not in known]
        own = [line.removeprefix(_TRAIN) for line in said if line.startswith(_TRAIN)]
        whole = "; ".join(dict.fromkeys(own or said[-1:])) or f"the training ended with exit code {code}"
        reasons = own if len(own) == len(absent) else [whole] * len(absent)
        self.refused |= {cell.overrides: reason for cell, reason in zip(absent, reasons, strict=True)}

    def say_progress(self, found: Found) -> None:
        """How many runs (cells x seeds) are done, in the queue, failed and to train, and how long that may take."""
        from ivae_lab.launch.slurm_queue import besides

        counted, missing = self._count(found), self._missing(found)
        total = sum(len(cell.seeds) for cell in self.cells)
        left = sum(len(seeds) for _, seeds in missing)
        work = sum(cell.steps * len(seeds) for cell, seeds in missing)
        rate = (time.monotonic() - self.began) / self.worked if self.worked else None
        remaining = "" if rate is None or not left else f", about {_duration(rate * work)} left at the rate so far"
        self.console.print(f"{counted['done']} of {total} runs done{besides(counted)}, {left} to train{remaining}")

    def _count(self, found: Found) -> Counter[str]:
        queued = {(each.task.cell, seed): each.now for each in self.queued.values() for seed in each.task.seeds}
        counted: Counter[str] = Counter()
        for key in ((cell.digest, seed) for cell in self.cells for seed in cell.seeds):
            _, status = found.finished.get(key) or found.unfinished.get(key) or (None, {})
            if key in found.finished:
                counted["done"] += 1
            elif key in queued:
                counted[queued[key]] += 1
            elif status.get("state") == "failed":
                counted["failed"] += 1
            counted["resumed"] += bool(status.get("resumed"))
        return counted

    def _train(self, jobs: list[tuple[Cell, list[int]]]) -> tuple[int, list[str]]:
        """Train the jobs in a process of their own: its exit code, 128 + the signal that ended it, and its stderr."""
        path = self.request.outputs / "figures" / ".jobs" / f"{digest([cell.digest for cell, _ in jobs])}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        listed = [[*cell.overrides, f"seed=[{','.join(map(str, seeds))}]"] for cell, seeds in jobs]
        path.write_text(json.dumps(listed, indent=1))
        names = dict.fromkeys(f"{cell.describe()['label']}, {cell.line.variant}" for cell, _ in jobs)
        self.console.print(f"{'; '.join(names)}: {len(jobs)} configurations", soft_wrap=True)
        command = [sys.executable, "-m", "ivae_lab.train", "-m", "hydra/sweeper=listed"]
        command += [f"hydra.sweeper.jobs={_quoted(path)}", f"outputs={_quoted(self.request.outputs)}", "show=false"]
        if not self.request.wait:
            command.append("hydra.launcher.wait=false")
        process = subprocess.Popen([*command, *self.request.neutral], stderr=subprocess.PIPE, text=True)
        said: list[str] = []
        listener = Thread(target=_pass_on, args=(process, said), daemon=True)
        listener.start()
        try:
            code = process.wait()
        except (KeyboardInterrupt, TerminatedError) as stop:
            # A terminal has told it too, others have not; it writes its checkpoint.
            process.send_signal(signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)
            process.wait()
            raise
        finally:
            listener.join(timeout=5)
        self.worked += sum(cell.steps * len(seeds) for cell, seeds in jobs)
        if code < 0 and 128 - code not in STOPPED:
            said.append(f"the training was ended by {signal.Signals(-code).name}")
            say(_NAME, said[-1], code)
        return (code if code >= 0 else 128 - code), said


def _is_hopeless(where: tuple[Path, dict[str, Any]] | None) -> bool:
    """Whether a run raised an error of its own, and not the machine's, under this very code: it would again."""
    from ivae_lab.engine.folder import code

    if where is None or where[1]["state"] != "failed" or where[1].get("retryable", True):
        return False
    return where[1].get("code") == code()


PROCESSES = ("slurm", "local")  # launchers that give each run a process of its own
_TRAIN = "ivae_lab.train: "


def _pass_on(process: subprocess.Popen[str], said: list[str]) -> None:
    """Show what a process writes to stderr, and keep its lines."""
    assert process.stderr is not None
    with process.stderr as stream:
        for line in stream:
            sys.stderr.write(line)
            sys.stderr.flush()
            if line.strip():
                said.append(line.strip())


def _quoted(path: Path) -> str:
    """A path as a value of an override, whatever characters are in it."""
    text = str(path)
    return text if text.replace("/", "").replace("_", "").isalnum() else "'" + text.replace("'", "\\'") + "'"


def _report(shown: Presented, console: Console) -> None:
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
    _print_unfinished(about, console)
    console.print(f"{about['done']} of {about['total']} runs; everything lies in {shown.folder}", soft_wrap=True)
    for picture in about["pictures"]:
        console.print(f"  {shown.folder / picture['stem']}.png", soft_wrap=True, highlight=False)


def _print_unfinished(about: dict[str, Any], console: Console) -> None:
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


def _list(arguments: Sequence[str], console: Console) -> int:
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
    return {"figure": name, "where": figure.where, "claim": figure.claim, "state": _state(figure, outputs)}


def _state(figure: Figure, outputs: Path) -> str:
    """What is there of a figure: in this project's records, and under the outputs."""
    from ivae_lab.reproduction.records import provenance

    said = []
    try:
        if found := provenance(figure):
            kept, sealed = found
            if not sealed:
                _read_tables(figure)
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


def _read_tables(figure: Figure) -> None:
    """Find what is wrong with tables of before they were sealed."""
    from ivae_lab.reproduction.present import recorded

    recorded(figure)


def _duration(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
