"""Train runs together: one stack of all their models, and a complete folder for each, also after interruptions."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.loggers import Logger
from rich.console import Console

from ivae_lab.engine.datamodule import DataModule
from ivae_lab.engine.evaluate import settle
from ivae_lab.engine.member import RunMember
from ivae_lab.engine.memory import models_at_once
from ivae_lab.engine.module import SeedsModule
from ivae_lab.storage.locks import locked
from ivae_lab.training.callbacks import Checkpoints, History, ProgressBar, StopOnSignal
from ivae_lab.training.provenance import StoppedError
from ivae_lab.training.run import State, TrainingRun

Snapshot = dict[str, Any]
# Errors of the machine: the same run may well succeed another time.
PASSING = (OSError, MemoryError, torch.OutOfMemoryError, KeyboardInterrupt)


def execute(runs: list[TrainingRun], console: Console) -> list[State]:
    """Train the runs together, or continue them, and complete the folder of each; return their final states.

    Runs whose checkpoints are at different steps are continued in groups of one step, one after another.

    Raises
    ------
    BusyError
        If another process holds a folder.
    StoppedError
        On Ctrl-C, SIGTERM or a scheduler's signal, with the checkpoints written.
    """
    states: dict[Path, State] = {}
    with ExitStack() as locks:
        for run in runs:
            run.settings.folder.mkdir(parents=True, exist_ok=True)
            locks.enter_context(locked(run.settings.folder))
        try:
            for lot in _by_step([(run, run.begin()) for run in runs]):
                states |= _train(lot, console)
        except StoppedError:
            raise
        except (Exception, KeyboardInterrupt) as error:
            for run in runs:
                if run.settings.folder not in states:
                    passing = isinstance(error, PASSING)
                    run.write_status("failed", error=f"{type(error).__name__}: {error}", retryable=passing)
            raise
    return [states[run.settings.folder] for run in runs]


def _by_step(runs: Iterable[tuple[TrainingRun, Snapshot | None]]) -> list[list[tuple[TrainingRun, Snapshot | None]]]:
    lots: dict[int, list[tuple[TrainingRun, Snapshot | None]]] = {}
    for run, snapshot in runs:
        lots.setdefault(snapshot["step"] if snapshot else 0, []).append((run, snapshot))
    return list(lots.values())


def _train(lot: list[tuple[TrainingRun, Snapshot | None]], console: Console) -> dict[Path, State]:
    runs = [run for run, _ in lot]
    weights = sum(run.stack.weights for run in runs)
    module = prepared(runs, runs[0].settings.compute.compiles(runs[0].plan.total, weights))
    members = module.members
    before = [0.0] * len(runs)
    for place, (member, (_, snapshot)) in enumerate(zip(members, lot, strict=True)):
        if snapshot is not None:
            module.restore(member, snapshot)
            before[place] = float(snapshot["seconds"])
    total, models = runs[0].plan.total, len(module.stack.seeds)
    if description := at_once_in_words(module):
        console.print(description)
    if module.step:
        console.print(f"continuing at step {module.step} of {total}")
    targets = [
        (member, run.checkpoint, run.settings.fingerprint, seconds)
        for member, run, seconds in zip(members, runs, before, strict=True)
    ]
    checkpoints = Checkpoints(targets, runs[0].settings.compute.checkpoint_seconds)
    if module.step < total:
        _fit(runs, module, checkpoints, console)
    console.print("encoding and scoring")
    return {
        run.settings.folder: run.finish(member, checkpoints.seconds(member, models), module.compiled, models)
        for run, member in zip(runs, members, strict=True)
    }


def prepared(runs: list[TrainingRun], compiled: bool) -> SeedsModule:
    """Prepare one training of the runs, at step 0."""
    first = runs[0]
    compute, training = first.settings.compute, first.settings.training
    data = DataModule([run.splits for run in runs], first.plan, training.batch_size, compute.torch_device())
    members = [RunMember(run.stack, run.splits, run.settings.training.lr) for run in runs]
    models = sum(len(member.stack.seeds) for member in members)
    at_once, need = models_at_once(first.stack, data, training, models, compute)
    return SeedsModule(members, data, training, compiled, at_once, need)


def at_once_in_words(module: SeedsModule) -> str | None:
    """Describe the number of models per call and the memory behind it; None if one call trains all without a choice."""
    models, parts, need = len(module.stack.seeds), len(module.parts), module.need
    if parts == 1 and need is None:
        return None
    how = f"{models} models at once" if parts == 1 else f"{models} models take turns in {parts} parts"
    return how if need is None else f"{how}: {need}"


def train_here(run: TrainingRun) -> RunMember:
    """Train one run to its end without folder, loggers and signals: only its models remain."""
    module = prepared([run], run.settings.compute.compiles(run.plan.total, run.stack.weights))
    for number, chunk in enumerate(module.data.plan.chunks()):
        module.training_step(chunk, number)
    settle(run.stack, run.splits.train)
    return module.members[0]


def _fit(runs: list[TrainingRun], module: SeedsModule, checkpoints: Checkpoints, console: Console) -> None:
    stop = StopOnSignal(checkpoints)
    callbacks = [stop, History(), ProgressBar(console), checkpoints]
    loggers = [logger for run in runs for logger in run.loggers()]
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings(), stop:
        warnings.filterwarnings("ignore", message=".*srun.*")  # one process, on whatever machine
        warnings.filterwarnings("ignore", message=".*configure_optimizers` returned `None`")
        warnings.filterwarnings("ignore", message=".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*")
        try:
            _trainer(module.data.device, callbacks, loggers).fit(module, datamodule=module.data)
        except Exception:
            # Terminals and schedulers send a signal to all processes: that it ended a compiler is no failure.
            if stop.received is None:
                raise
    if stop.received is not None:
        settings, total = runs[0].settings, module.data.plan.total
        raise StoppedError(settings.folder, stop.received, module.step, total, settings.config.force)


def _trainer(device: torch.device, callbacks: list[lightning.Callback], loggers: list[Logger]) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        max_epochs=1,
        callbacks=callbacks,
        logger=loggers or False,
        log_every_n_steps=1,  # the history logs by itself; a larger one warns of short runs
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        # One process: in a Slurm job the launcher requeues, not Lightning.
        plugins=[LightningEnvironment()],
    )
