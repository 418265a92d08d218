"""Train the cells of a figure that have no numbers yet: here, in processes, or on a cluster."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ivae_lab.config.digests import digest
from ivae_lab.reproduction.definition import ExperimentError
from ivae_lab.reproduction.request import NAME, ReproduceRequest
from ivae_lab.reproduction.show import about
from ivae_lab.terminal.command_line import OK, STOPPED, TerminatedError, say

if TYPE_CHECKING:
    from ivae_lab.launch.slurm_queue import QueuedTask
    from ivae_lab.reproduction.cells import Cell
    from ivae_lab.reproduction.evidence import FigureEvidence
    from ivae_lab.reproduction.found_runs import FoundRuns

PROCESSES = ("slurm", "local")  # launchers that give each run a process of its own
_TRAIN = "ivae_lab.train: "


class CellTraining:
    """The missing cells of a figure, trained a line of its experiment at a time by `python -m ivae_lab.train -m`.

    Attributes
    ----------
    refused
        Overrides of a cell that the training refused -> its error.
    queued
        Tasks of a cluster that wait or run for the figure's cells, by their run folders.
    code
        Exit code of the last training.
    """

    def __init__(self, cells: Sequence[Cell], request: ReproduceRequest, console: Console) -> None:
        self.cells, self.request, self.console = cells, request, console
        self.began, self.worked = time.monotonic(), 0.0
        self.refused: dict[tuple[str, ...], str] = {}
        self.queued: dict[str, QueuedTask] = {}
        self.code = OK

    def run(self) -> int:
        """Train the missing cells; return the exit code of a call that was stopped, else of the last one."""
        from ivae_lab.reproduction.found_runs import find

        self._look()
        self.say_progress(find(self.request.outputs))
        lines = list({id(cell.line): [cell.line] for cell in self.cells}.values())
        if self.request.launcher in PROCESSES:
            lines = [[line for group in lines for line in group]]  # all at once, as one array job
        for together in lines:
            found = find(self.request.outputs)
            jobs = {cell.digest: (cell, seeds) for cell, seeds in self._missing(found) if cell.line in together}
            if jobs:
                if self.worked:
                    self.say_progress(found)
                self.code, printed = self._train(list(jobs.values()))
                if self.code in STOPPED:
                    return self.code
                if self.code:
                    self._note([cell for cell, _ in jobs.values()], self.code, printed)
        self._look()
        if self.queued and self.request.wait:  # submitted by an earlier call
            self._watch()
        return self.code

    def explain(self, evidence: FigureEvidence) -> None:
        """Add to missing cells the reason: refused, in the queue, or their process died; and name the log."""
        from ivae_lab.launch import slurm_queue as queue

        given = {task.cell: task for task in queue.last(self.request.outputs).values()}
        digests = {cell.overrides: cell.digest for cell in self.cells}
        for entry in evidence.missing:
            task = given.get(digests[tuple(entry["overrides"])])
            why = self.refused.get(tuple(entry["overrides"]))
            if entry["state"] == "not run" and why:
                entry |= {"state": "failed", "error": why}
            elif task is not None and task.folder in self.queued:
                _, state, reason = self.queued[task.folder]
                entry |= {"state": "in the queue", "error": f"{state}, {reason}"}
            elif task is not None:
                died = entry["state"] in ("running", "not run")
                entry |= {"state": "failed", "error": f"{queue.DIED if died else entry['error']}; log: {task.log}"}

    def _look(self) -> None:
        """Ask Slurm for the figure's tasks that wait or run."""
        from ivae_lab.launch import slurm_queue as queue

        cells = {cell.digest for cell in self.cells}
        try:
            queued = queue.live(self.request.outputs)
        except queue.QueueError as error:
            if self.request.launcher == "slurm":
                raise ExperimentError(str(error)) from None
            self.console.print(f"{error}; what an earlier call submitted may be trained twice", soft_wrap=True)
            queued = {}
        self.queued = {name: task for name, task in queued.items() if task[0].cell in cells}

    def _watch(self) -> None:
        from ivae_lab.launch import slurm_queue as queue

        try:
            queue.watch(self.request.outputs, list(self.queued), partial(self.console.print, soft_wrap=True))
        except queue.QueueError as error:
            raise ExperimentError(str(error)) from None
        self.queued = {}

    def _missing(self, found: FoundRuns) -> list[tuple[Cell, list[int]]]:
        """Cells with the seeds to train: neither finished nor in the queue, nor certain to fail again."""
        busy = {(task.cell, seed) for task, _, _ in self.queued.values() for seed in task.seeds}

        def sensible(key: tuple[str, int]) -> bool:
            return key not in busy and (self.request.retry or not _is_hopeless(found.unfinished.get(key)))

        missing = ((cell, [s for s in found.missing(cell) if sensible((cell.digest, s))]) for cell in self.cells)
        return [(cell, seeds) for cell, seeds in missing if seeds]

    def _note(self, cells: list[Cell], code: int, printed: list[str]) -> None:
        """Assign the training's error lines, in order, to the cells without a folder; if counts differ, all to each."""
        from ivae_lab.reproduction.found_runs import find

        found = find(self.request.outputs)
        known = {digest for digest, _ in (*found.finished, *found.unfinished)}
        absent = [cell for cell in cells if cell.digest not in known]
        errors = [line.removeprefix(_TRAIN) for line in printed if line.startswith(_TRAIN)]
        whole = "; ".join(dict.fromkeys(errors or printed[-1:])) or f"the training ended with exit code {code}"
        reasons = errors if len(errors) == len(absent) else [whole] * len(absent)
        self.refused |= {cell.overrides: reason for cell, reason in zip(absent, reasons, strict=True)}

    def say_progress(self, found: FoundRuns) -> None:
        """Print the numbers of runs (cells x seeds) that are done, in the queue, failed and to train, and the time."""
        from ivae_lab.launch.slurm_queue import besides

        counted, missing = self._count(found), self._missing(found)
        total = sum(len(cell.seeds) for cell in self.cells)
        left = sum(len(seeds) for _, seeds in missing)
        work = sum(cell.steps * len(seeds) for cell, seeds in missing)
        rate = (time.monotonic() - self.began) / self.worked if self.worked else None
        remaining = "" if rate is None or not left else f", about {about(rate * work)} left at the rate so far"
        self.console.print(f"{counted['done']} of {total} runs done{besides(counted)}, {left} to train{remaining}")

    def _count(self, found: FoundRuns) -> Counter[str]:
        queued = {(entry.task.cell, seed): entry.now for entry in self.queued.values() for seed in entry.task.seeds}
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
        """Train the jobs in a child process; return its exit code (128 + signal if a signal ended it) and stderr."""
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
        printed: list[str] = []
        listener = Thread(target=_pass_on, args=(process, printed), daemon=True)
        listener.start()
        try:
            code = process.wait()
        except (KeyboardInterrupt, TerminatedError) as stop:
            # A terminal sends the signal to the child too, others do not; the child writes its checkpoint.
            process.send_signal(signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)
            process.wait()
            raise
        finally:
            listener.join(timeout=5)
        self.worked += sum(cell.steps * len(seeds) for cell, seeds in jobs)
        if code < 0 and 128 - code not in STOPPED:
            printed.append(f"the training was ended by {signal.Signals(-code).name}")
            say(NAME, printed[-1], code)
        return (code if code >= 0 else 128 - code), printed


def _is_hopeless(where: tuple[Path, dict[str, Any]] | None) -> bool:
    """Return True if a run failed by its own error, not the machine's, under the same code: it would fail again."""
    from ivae_lab.training.provenance import code

    if where is None or where[1]["state"] != "failed" or where[1].get("retryable", True):
        return False
    return where[1].get("code") == code()


def _pass_on(process: subprocess.Popen[str], lines: list[str]) -> None:
    """Show what a process writes to stderr, and keep its lines."""
    assert process.stderr is not None
    with process.stderr as stream:
        for line in stream:
            sys.stderr.write(line)
            sys.stderr.flush()
            if line.strip():
                lines.append(line.strip())


def _quoted(path: Path) -> str:
    """A path as a value of an override, whatever characters are in it."""
    text = str(path)
    return text if text.replace("/", "").replace("_", "").isalnum() else "'" + text.replace("'", "\\'") + "'"
