"""Choose the runs of a sweep that are trained together: those of one shape, which differ in numbers of one model only.

Ten data seeds times ten model seeds are one stack of a hundred models. Each run keeps its folder, and gets the numbers
that it gets when it is trained alone.
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

# Keys that may differ within a stack: each model has its own data, weight of the KL term, learning rate and seed.
PER_MODEL = (("data", "seed"), ("model", "beta"), ("trainer", "lr"))
_SHARE = 0.25  # share of the free memory for the state that models keep from step to step


def shape(settings: Settings) -> str:
    """Return a digest of all that the configurations of runs in one stack have in common."""
    plain = copy.deepcopy(settings.plain())
    for group, key in PER_MODEL:
        plain[group].pop(key, None)
    return digest(numbers(plain) | {name: plain[name] for name in ("compute", "force", "logger")})


def together(settings: Settings, sweep: list[Settings], console: Console) -> list[TrainingRun]:
    """Build the run of `settings`, and the runs of the sweep that can be trained with it, without starting them.

    A run whose folder is finished or busy, that cannot be built, or whose models do not fit in memory is left to its
    own turn.
    """
    drawn: dict[str, Any] = {}
    first = TrainingRun(settings, console, drawn)
    runs, folders = [first], {settings.folder}
    if settings.logger == "wandb":  # it allows one run per process
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
    """The number of models that fit in memory."""
    return int(free_bytes(device) * _SHARE / max(1, state_bytes(run.stack)))
