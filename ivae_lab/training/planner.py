"""Which runs of a sweep are trained together: those of one shape, which differ in a number that a model may have alone.

Ten data seeds times ten model seeds are one stack of a hundred models. Each run keeps its folder, and has the numbers
that it has when it is trained alone.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import torch
from rich.console import Console

from ivae_lab.config.build import ConfigError
from ivae_lab.config.digests import digest, numbers
from ivae_lab.engine.memory import free_bytes, state_bytes
from ivae_lab.runs.folder import is_finished
from ivae_lab.storage.locks import is_free
from ivae_lab.training.run import Settings, TrainingRun

# What may differ within a stack: each model has its own data, weight of the KL term, learning rate and seed.
OWN = (("data", "seed"), ("model", "beta"), ("trainer", "lr"))
_SHARE = 0.25  # of the free memory, for what the models keep from step to step


def shape(settings: Settings) -> str:
    """Stands for all of a configuration that runs of one stack have in common."""
    plain = copy.deepcopy(settings.plain())
    for group, key in OWN:
        plain[group].pop(key, None)
    return digest(numbers(plain) | {name: plain[name] for name in ("compute", "force", "logger")})


def together(settings: Settings, sweep: list[Settings], console: Console) -> list[TrainingRun]:
    """The run of `settings`, and those of the sweep that can be trained with it, built and not begun.

    A companion whose folder is finished or busy, or that cannot be built, is left to its own turn; and so is one for
    whose models there is no memory.
    """
    drawn: dict[str, Any] = {}
    first = TrainingRun(settings, console, drawn)
    runs, folders = [first], {settings.folder}
    if settings.logger == "wandb":  # one run a process
        return runs
    places = _places(first, settings.compute.torch_device())
    for other in sweep:
        if other.folder in folders or shape(other) != shape(settings) or not _waits(other):
            continue
        if sum(len(run.settings.seeds) for run in runs) + len(other.seeds) > places:
            break
        with suppress(ConfigError):
            run = TrainingRun(other, console, drawn)
            if run.splits.spec == first.splits.spec:
                runs.append(run)
                folders.add(other.folder)
    return runs


def _waits(settings: Settings) -> bool:
    return (settings.config.force or not is_finished(settings.folder)) and is_free(settings.folder)


def _places(run: TrainingRun, device: torch.device) -> int:
    """For how many models there is memory."""
    return int(free_bytes(device) * _SHARE / max(1, state_bytes(run.stack)))
