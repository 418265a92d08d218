"""Settings of optimiser and training length (group `trainer`), and of the machine (`compute`)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Len, Lt

from ivae_lab.config.numbers import Count, Decay, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt

# Compiling costs some 20 to 30 s once. With fewer steps, and fewer updates of weights, than these, plain PyTorch is
# faster; a step of wide layers is bound by memory, and takes half as long when it is compiled.
_COMPILE_PAYS_FROM = 5000
_UPDATES_PAY_FROM = 5e9


@dataclass(frozen=True)
class Training:
    """Optimiser, schedule and length of a training.

    Parameters
    ----------
    steps, epochs
        Optimiser steps, or passes through the training data: exactly one of them.
    batch_size
        Rows per step; the partial batch at the end of an epoch is left out.
    lr, betas, eps
        Parameters of Adam (Kingma and Ba 2015).
    schedule
        `constant`; `cosine`, to 0 over the training; `drop`: times `drop_factor` once the share `drop_at` of the
        training is done; `plateau`: times `plateau_factor` when the mean training
        loss of an epoch has not improved for more than `plateau_patience` epochs (PyTorch's ReduceLROnPlateau).
        Each seed has its own.
    clip_norm
        The norm to which each seed's gradient is clipped; None: no clipping.
    history_points
        Rows per seed in history.csv.
    chunk
        Optimiser steps between two checks of the clock, of signals and of divergence; noise is drawn per chunk.
    """

    steps: PositiveInt | None
    epochs: PositiveInt | None
    batch_size: PositiveInt
    lr: PositiveFloat
    betas: Annotated[list[Annotated[float, Ge(0), Lt(1)]], Len(2, 2)]
    eps: PositiveFloat
    schedule: Literal["constant", "cosine", "drop", "plateau"]
    drop_at: Fraction
    drop_factor: Decay
    plateau_factor: Decay
    plateau_patience: Count
    clip_norm: PositiveFloat | None
    history_points: PositiveInt
    chunk: PositiveInt

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"expected exactly one of steps and epochs, got steps={self.steps}, epochs={self.epochs}")

    def steps_per_epoch(self, train_rows: int) -> int:
        """Full batches in the training data."""
        if self.batch_size > train_rows:
            raise ValueError(
                f"expected a batch_size of at most the {train_rows} rows of the training data, got {self.batch_size}"
            )
        return train_rows // self.batch_size

    def total_steps(self, train_rows: int) -> int:
        """Optimiser steps of the main objective."""
        per_epoch = self.steps_per_epoch(train_rows)
        return self.steps if self.steps is not None else int(self.epochs or 0) * per_epoch


@dataclass(frozen=True)
class Chunk:
    """Optimiser steps start .. stop - 1, done in one go; phases never share a chunk."""

    start: int
    stop: int
    pretraining: bool
    record: bool  # a point of the history lies at its end


@dataclass(frozen=True)
class Plan:
    """All optimiser steps of a run: pretraining first, then the main objective."""

    pretrain_steps: int
    steps: int
    chunk: int
    history_points: int

    @property
    def total(self) -> int:
        """Steps of both phases."""
        return self.pretrain_steps + self.steps

    def chunks(self) -> Iterator[Chunk]:
        """The chunks in order; they do not depend on where a run was interrupted."""
        every = max(1, round(self.total / self.chunk / self.history_points))
        for first, last, pretraining in ((0, self.pretrain_steps, True), (self.pretrain_steps, self.total, False)):
            for number, start in enumerate(range(first, last, self.chunk), 1):
                stop = min(start + self.chunk, last)
                yield Chunk(start, stop, pretraining, number % every == 0 or stop == last)


@dataclass(frozen=True)
class Compute:
    """Settings of the machine; they change the numbers by rounding at most.

    Parameters
    ----------
    device
        `auto` takes a GPU where there is one.
    threads
        CPU threads; None leaves PyTorch's choice.
    compile
        Whether `torch.compile` compiles the training step; `auto`: for long runs, if a C++ compiler is installed.
    checkpoint_seconds
        Seconds between checkpoints; 0: after every chunk.
    at_once
        Models, one for each seed, that one call trains; the parts of a larger stack take turns. `auto`: as many as fit
        in half of the free memory, and on a CPU in its cache.
    """

    device: Literal["auto", "cpu", "cuda"]
    threads: PositiveInt | None
    compile: Literal["auto"] | bool
    checkpoint_seconds: NonNegativeFloat
    at_once: Literal["auto"] | PositiveInt = "auto"

    def __post_init__(self) -> None:
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("expected a CUDA device for device=cuda, got a machine without")
        if self.compile is True and not self._compiler():
            raise ValueError("expected a C++ compiler (g++ or clang++) for compile=true, got none on the PATH")

    def torch_device(self) -> torch.device:
        """The device to compute on."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    def compiles(self, steps: int, weights: int) -> bool:
        """Return True if the step is to be compiled, for a training of so many steps and so many weights in all."""
        if self.compile == "auto":
            pays = steps >= _COMPILE_PAYS_FROM or steps * weights >= _UPDATES_PAY_FROM
            return pays and self._compiler()
        return self.compile

    def _compiler(self) -> bool:
        return any(shutil.which(name) for name in ("g++", "clang++", "c++"))
