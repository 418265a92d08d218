"""Callbacks between chunks of steps: the history, the progress bar, checkpoints, and stopping on a signal."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from datetime import timedelta
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Any, Self

import lightning
import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ivae_lab.engine.checkpoint_files import save_checkpoint
from ivae_lab.engine.evaluate import posterior_means
from ivae_lab.engine.member import RunMember
from ivae_lab.engine.module import SeedsModule
from ivae_lab.engine.options import Chunk
from ivae_lab.metrics.mcc import mean_correlation
from ivae_lab.training.provenance import SCHEDULER

_SCORED_ROWS = 2000  # rows of the training data for the history's MCC
_RATE_CHUNKS = 40  # chunks over which the rate and the time left are computed
_PLAIN_LINE_SECONDS = 10.0  # seconds between progress lines without a terminal


class History(lightning.Callback):
    """Records the training at the planned points, and passes the rows to the loggers.

    Its MCC (posterior mean, Pearson, strong, on at most 2,000 evenly spaced training rows) is for information only:
    nothing is chosen by it.
    """

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Chunk, batch_idx: int
    ) -> None:
        """Record a point if the plan has one here."""
        if not batch.record:
            return
        for row in chain(*pl_module.record([_scores(member) for member in pl_module.members])):
            named = {f"seed{row['seed']}/{name}": row[name] for name in row if name not in ("step", "seed")}
            for logger in trainer.loggers:
                logger.log_metrics(named, step=int(row["step"]))


def _scores(member: RunMember) -> list[float | None]:
    train = member.splits.train
    if train.z is None:
        return [None] * len(member.stack.seeds)
    rows = torch.linspace(0, len(train) - 1, min(_SCORED_ROWS, len(train))).long()
    means = posterior_means(member.stack, train, rows).cpu().numpy()  # (S, N, n)
    sources = train.z[rows].cpu().numpy()
    return [mean_correlation(mean, sources) for mean in means]


class Checkpoints(lightning.Callback):
    """Writes each run's `checkpoints/last.ckpt` from time to time, at the end, and when a signal stops the training.

    A checkpoint is written beside its final name and renamed, so a kill at any moment leaves a good one; the one before
    it stays as `previous.ckpt`, in case the disk damages the last.

    Parameters
    ----------
    targets
        For each run: its `RunMember`, the file, the fingerprint of its configuration, and the seconds that earlier
        processes spent on it.
    every_seconds
        Time between checkpoints.

    Attributes
    ----------
    wanted
        Write after the next chunk, whatever the time.
    """

    def __init__(self, targets: list[tuple[RunMember, Path, str, float]], every_seconds: float) -> None:
        self.targets, self.every = targets, every_seconds
        self.began = self.written = time.monotonic()
        self.wanted = False

    def seconds(self, member: RunMember, models: int) -> float:
        """Seconds spent on a run so far; a training of several runs counts in proportion to the run's models."""
        before = next(before for target, _, _, before in self.targets if target is member)
        return before + (time.monotonic() - self.began) * len(member.stack.seeds) / models

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, *rest: Any) -> None:
        """Write the checkpoints if they are due."""
        due = time.monotonic() - self.written >= self.every
        if due or self.wanted or trainer.should_stop or trainer.is_last_batch:
            self.write(pl_module)

    def write(self, module: SeedsModule) -> None:
        """Write the checkpoints."""
        for member, path, fingerprint, _ in self.targets:
            seconds = self.seconds(member, len(module.stack.seeds))
            save_checkpoint(path, {"fingerprint": fingerprint, "seconds": seconds, **module.snapshot(member)})
        self.written, self.wanted = time.monotonic(), False


class StopOnSignal(lightning.Callback):
    """Within its context: on Ctrl-C and SIGTERM, finishes the chunk, lets the checkpoint be written, and stops.

    In a job of a scheduler that has set its own handler for a signal (submitit: SIGUSR2 before a time-out or a
    preemption), that signal stops the training too, and its handler is restored afterwards. In a Slurm job SIGTERM only
    writes a checkpoint: it also comes before a preemption, and a job that ended by itself would not be requeued.

    A signal that stopped the training is ignored from then on: it may come twice (from a terminal, then from the
    command that started this training), and must not interrupt the end of the process.

    Attributes
    ----------
    received
        The signal's number; None if there was none.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Install the handlers before Lightning installs its own, which Lightning removes at its end."""
        handled = [signal.SIGINT, signal.SIGTERM]
        if scheduled := callable(signal.getsignal(SCHEDULER)):
            handled.append(SCHEDULER)
        self._requeued = scheduled and "SLURM_JOB_ID" in os.environ
        self._before = {number: signal.signal(number, self._note) for number in handled}
        return self

    def __exit__(self, *error: object) -> None:
        """Restore the handlers, except for the signal that ends this process."""
        for number, handler in self._before.items():
            ends = number == self.received != SCHEDULER
            signal.signal(number, signal.SIG_IGN if ends else handler)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Install the handlers again: those of Lightning would stop within a chunk."""
        for number in self._before:
            signal.signal(number, self._note)

    def on_train_batch_end(self, trainer: lightning.Trainer, *rest: Any) -> None:
        """Stop if a signal came."""
        if self.received is not None:
            trainer.should_stop = True

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM and self._requeued:
            self.checkpoints.wanted = True
        elif self.received is None:
            self.received = number


class ProgressBar(lightning.Callback):
    """Shows epoch, ELBO and MCC so far (means over the seeds that have not diverged), rate and time left.

    It is a live bar on a terminal, elsewhere a plain line every ten seconds. The rate is that of the last chunks: the
    first one, which may compile, does not count.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = TaskID(0)
        self.printed = time.monotonic()
        self.recent: deque[tuple[float, int]] = deque(maxlen=_RATE_CHUNKS)  # (time, steps done) after each chunk

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Start the bar."""
        total, done = pl_module.data.plan.total, pl_module.step
        text = "first step (compiling)" if pl_module.compiled else "first step"
        self.task = self.progress.add_task("training", total=total, completed=done, text=text)
        self.progress.start()

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, *rest: Any) -> None:
        """Update the bar."""
        now, total, done = time.monotonic(), pl_module.data.plan.total, pl_module.step
        self.recent.append((now, done))
        text = ", ".join(self._parts(pl_module, total - done))
        self.progress.update(self.task, completed=done, text=text)
        if not self.console.is_terminal and (now - self.printed > _PLAIN_LINE_SECONDS or trainer.is_last_batch):
            self.printed = now
            self.console.print(f"step {done} of {total}, {text}", soft_wrap=True, highlight=False)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Leave the bar where it stands."""
        self.progress.stop()

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Leave the bar where it stands."""
        self.progress.stop()

    def _parts(self, module: SeedsModule, steps_left: int) -> list[str]:
        epoch = module.step / module.data.steps_per_epoch
        last = [row for member in module.members for row in member.history[-len(member.stack.seeds) :]]
        diverged = sum(len(member.diverged) for member in module.members)
        parts = [f"epoch {epoch:.1f}", f"ELBO {_mean(last, 'elbo')}", f"MCC {_mean(last, 'mcc')}"]
        if diverged:
            parts.append(f"{diverged} diverged")
        (began, first), (now, done) = self.recent[0], self.recent[-1]
        if done > first:
            rate = (done - first) / (now - began)
            parts.append(f"{rate:.{0 if rate >= 10 else 1}f} steps/s x {len(module.stack.seeds)} models")
            parts.append(f"{timedelta(seconds=round(steps_left / rate))} left")
        return parts


def _mean(rows: list[dict[str, float]], name: str) -> str:
    values = [row[name] for row in rows if np.isfinite(row[name])]
    return f"{np.mean(values):.3f}" if values else "-"
