"""Record the tasks that a sweep submits to Slurm, and ask Slurm for their states. No PyTorch here.

Hydra's submitit launcher submits (`hydra_plugins/ivae_lab_submitit.py`); this module tells which runs wait or run, so
that none is submitted twice, and where their logs lie. The outcome of a run is read from its folder and never from
Slurm, which reports some failed jobs as completed.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from ivae_lab.runs.folder import read_status
from ivae_lab.storage.atomic import atomic

RECORDS = Path(".submitit") / "submitted"  # below the outputs
# Reasons for which Slurm lets a task wait for ever: the request is wrong, not the cluster busy.
IMPOSSIBLE = (
    "PartitionTimeLimit",
    "PartitionNodeLimit",
    "BadConstraints",
    "InvalidAccount",
    "InvalidQOS",
    "AccountNotAllowed",
    "QOSNotAllowed",
    "QOSMaxWallDurationPerJobLimit",
)
# Message about a run whose folder says that it is running, although no process runs.
DIED = "the process died without a word (killed, or out of memory?); the same command continues from its checkpoint"
_LOOK_SECONDS, _SAY_SECONDS = 2.0, 30.0


@dataclass(frozen=True)
class SubmittedTask:
    """A run that was submitted to Slurm as one task of a job array."""

    job: str  # id of the task, such as 12_3
    folder: str  # name of the run folder
    cell: str
    seeds: list[int]
    log: str


class QueuedTask(NamedTuple):
    """A task that waits or runs in Slurm's queue, with Slurm's state and reason."""

    task: SubmittedTask
    state: str
    reason: str

    @property
    def now(self) -> str:
        """State of the task: waiting or running."""
        return "waiting" if self.state == "PENDING" else "running"


class QueueError(RuntimeError):
    """Slurm did not answer or refused a request; the message is one line."""


def record(outputs: Path, tasks: Sequence[SubmittedTask]) -> None:
    """Save the submitted tasks, in a file named by the first task's job."""
    path = outputs / RECORDS / f"{tasks[0].job}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        temporary.write_text(json.dumps([asdict(task) for task in tasks], indent=1))


def live(outputs: Path) -> dict[str, QueuedTask]:
    """Ask Slurm which tasks wait or run, and return them by the name of their run folder.

    The records of submissions that have ended are moved to a folder `ended`, and Slurm is not asked about them again.

    Raises
    ------
    QueueError
        If Slurm does not answer: then no state is known, and nothing should be submitted.
    """
    queued: dict[str, QueuedTask] = {}
    for path in _records(outputs / RECORDS):
        tasks = _tasks(path)
        states = _ask(tasks[0].job.partition("_")[0])
        queued |= {task.folder: QueuedTask(task, *states[task.job]) for task in tasks if task.job in states}
        if not states:
            ended = path.parent / "ended" / path.name
            ended.parent.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # another process was faster
                path.replace(ended)
    return queued


def last(outputs: Path) -> dict[str, SubmittedTask]:
    """Return the last submitted task of each run, by the name of its folder."""
    paths = [*_records(outputs / RECORDS / "ended"), *_records(outputs / RECORDS)]
    return {task.folder: task for path in paths for task in _tasks(path)}


def _records(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)


def _tasks(path: Path) -> list[SubmittedTask]:
    return [SubmittedTask(**task) for task in json.loads(path.read_text())]


def _ask(job: str) -> dict[str, tuple[str, str]]:
    """Ask Slurm for state and reason of the tasks of a job that wait or run, by their ids."""
    try:
        done = subprocess.run(
            ["squeue", "--noheader", "--array", "--jobs", job, "--format", "%i|%T|%r"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise QueueError(f"expected squeue to say what runs, got: {error}") from None
    if done.returncode and "Invalid job id" not in done.stderr:  # Slurm forgets jobs that ended long ago
        raise QueueError(f"expected squeue to say what runs, got: {' '.join(done.stderr.split())}")
    lines = [line.split("|", 2) for line in done.stdout.splitlines()]
    return {number: (state, reason) for number, state, reason in lines}


def counts(outputs: Path, folders: Iterable[str], queued: dict[str, QueuedTask]) -> Counter[str]:
    """Count the run folders that are done, diverged, failed, running, waiting or lost, and those `resumed`."""
    counted: Counter[str] = Counter()
    for name in folders:
        status = _status(outputs / name)
        state = str(status.get("state", "lost"))
        if name in queued:
            state = queued[name].now
        elif state == "running":
            state = "lost"
        counted[state] += 1
        counted["resumed"] += bool(status.get("resumed"))
    return counted


def besides(counted: Counter[str]) -> str:
    """Format the counts of all states but `done`; empty where all are 0."""
    names = ("running", "waiting", "diverged", "failed", "lost", "resumed")
    return "".join(f", {counted[name]} {name}" for name in names if counted[name])


def watch(outputs: Path, folders: Sequence[str], say: Callable[[str], None]) -> None:
    """Wait until no task of these run folders waits or runs; report the counts when they change and every half minute.

    If Slurm does not answer, such as while its controller restarts, it is asked again.

    Raises
    ------
    QueueError
        If a task waits for resources that the cluster cannot give.
    """
    began, before, at = time.monotonic(), "", 0.0
    names, ended_before = set(folders), None
    while True:
        try:
            queued = {name: task for name, task in live(outputs).items() if name in names}
        except QueueError as error:
            if str(error) != before:
                before = str(error)
                say(f"{error}; asking again")
            time.sleep(_LOOK_SECONDS)
            continue
        refuse_impossible(queued.values())
        counted, now = counts(outputs, folders, queued), time.monotonic()
        ended = counted["done"] + counted["diverged"]
        ended_before = ended if ended_before is None else ended_before
        line = f"{counted['done']} done{besides(counted)}"
        if line != before or now - at > _SAY_SECONDS:
            say(line + (_left(now - began, ended - ended_before, len(queued)) if queued else ""))
            before, at = line, now
        if not queued:
            return
        time.sleep(_LOOK_SECONDS)


def refuse_impossible(queued: Iterable[QueuedTask]) -> None:
    """Cancel tasks that wait for resources that the cluster cannot give.

    Raises
    ------
    QueueError
        If there are any, with Slurm's reason.
    """
    stuck = {task.job: reason for task, state, reason in queued if state == "PENDING" and reason in IMPOSSIBLE}
    if stuck:
        subprocess.run(["scancel", *stuck], capture_output=True, check=False, timeout=60)
        reasons = ", ".join(sorted(set(stuck.values())))
        raise QueueError(
            f"expected a request that the cluster can meet, got one that Slurm would never start ({reasons}); "
            f"cancelled {len(stuck)} tasks. `sinfo -l` and the keys of hydra.launcher say what to change"
        )


def _left(seconds: float, ended: int, queued: int) -> str:
    """Estimate the time left from the rate so far; empty while no run has ended."""
    return f", {timedelta(seconds=round(seconds / ended * queued))} left at the rate so far" if ended else ""


def _status(folder: Path) -> dict[str, Any]:
    try:
        return read_status(folder)
    except (OSError, ValueError):
        return {}
