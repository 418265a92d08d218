"""The LightningModule: all models of one or several runs, a chunk of optimiser steps per `training_step`."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import lightning
import torch

from ivae_lab.engine.datamodule import DataModule
from ivae_lab.engine.evaluate import posterior_means
from ivae_lab.engine.memory import Need
from ivae_lab.engine.options import Chunk, Training
from ivae_lab.engine.prior_rank import measured, restore_ranks
from ivae_lab.engine.share import Share
from ivae_lab.engine.shuffling import Shuffled
from ivae_lab.engine.stack import Stack
from ivae_lab.engine.steps import TERMS, Part, Programs, new_state, sliced


class SeedsModule(lightning.LightningModule):
    """Trains the models of several runs that differ in data seed, model seed, beta or learning rate only.

    Its whole state is a function of (configurations, seeds, step), and that of each run fits a checkpoint of its own:
    a run can be continued alone or beside others.

    Parameters
    ----------
    shares
        The runs.
    data, training
        Their data, and how to optimise; the learning rate is the share's.
    compiled
        Whether to compile the step.
    at_once
        How many models one call trains; None: all. The parts of a stack take turns, a chunk of steps each, so that
        their numbers stay in the processor's cache, and activations need the memory of one part.
    need
        What `at_once` was chosen by, where it was.

    Attributes
    ----------
    step
        Optimiser steps done.
    """

    def __init__(
        self,
        shares: list[Share],
        data: DataModule,
        training: Training,
        compiled: bool,
        at_once: int | None = None,
        need: Need | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.shares, self.data, self.compiled, self.need = shares, data, compiled, need
        self.step = self.summed_steps = 0
        self.stack = Stack.joined([share.stack for share in shares])
        for before, share in pairwise(shares):
            share.first = before.positions.stop
        rate = torch.cat([torch.full((len(share.stack.seeds),), share.rate) for share in shares]).to(data.device)
        self.state = new_state(self.stack, rate)
        self.parts = self._cut(training, at_once or len(self.stack.seeds))

    def _cut(self, training: Training, at_once: int) -> list[Part]:
        """Parts of the stack that are as equal as can be, so that few programs are compiled."""
        data, models = self.data, len(self.stack.seeds)
        first_rows = [
            row for row, share in zip(data.first_rows, self.shares, strict=True) for _ in share.stack.seeds
        ]  # of each model
        programs: Programs | None = {} if self.compiled else None
        count = -(-models // at_once)
        bounds = [models * number // count for number in range(count + 1)]
        parts = []
        for start, stop in pairwise(bounds):
            positions = slice(start, stop)
            begins = torch.tensor(first_rows[positions], device=data.device)
            shuffled = Shuffled(self.stack.seeds[positions], begins, data.rows, data.batch_size)
            state = sliced(self.state, positions)
            parts.append(Part(self.stack.part(positions), state, shuffled, data, training, programs))
        return parts

    def configure_optimizers(self) -> None:
        """None for Lightning: the optimiser is part of the stacked step."""

    def training_step(self, chunk: Chunk, batch_idx: int) -> None:
        """Do the optimiser steps of one chunk."""
        if chunk.start == self.data.plan.pretrain_steps:
            self._begin_main_phase()
        for part in self.parts:
            part.advance(chunk)
        self.step = chunk.stop
        self.summed_steps += chunk.stop - chunk.start
        self._note_divergence()
        if not chunk.pretraining:
            self._restore_ranks()

    def _begin_main_phase(self) -> None:
        """Let models start from encoded data, and forget the moments of the pretraining."""
        for share in self.shares:
            if share.stack.template.starts_from_data:
                _start_from_data(share)
        for kind in ("first", "second"):
            for value in self.state[kind].values():
                value.zero_()
        self.state["sums"]["epoch_loss"].zero_()

    def _note_divergence(self) -> None:
        finite = torch.isfinite(self.state["sums"]["terms"][:, 0])
        for parameter in self.stack.parameters.values():
            finite &= torch.isfinite(parameter).reshape(len(finite), -1).all(1)
        fine = finite.tolist()
        for share in self.shares:
            for seed, own in zip(share.stack.seeds, fine[share.positions], strict=True):
                if not own:
                    share.diverged.setdefault(seed, self.step)

    def _restore_ranks(self) -> None:
        for share in self.shares:
            for seed in restore_ranks(share.stack, self.step):
                share.noised.setdefault(seed, []).append(self.step)

    def record(self, scores: list[list[float | None]]) -> list[list[dict[str, float]]]:
        """Add a point to the histories: mean terms since the last one, the rate, and a score per seed of each run."""
        added = [self._points(share, own) for share, own in zip(self.shares, scores, strict=True)]
        for share, rows in zip(self.shares, added, strict=True):
            share.history += rows
        self.state["sums"]["terms"].zero_()
        self.summed_steps = 0
        return added

    def _points(self, share: Share, scores: list[float | None]) -> list[dict[str, float]]:
        terms = (self.state["sums"]["terms"][share.positions] / max(self.summed_steps, 1)).tolist()
        rates = torch.cat([part.rates.at(self.main_progress()) for part in self.parts])[share.positions].tolist()
        epoch, matrices = self.step / self.data.steps_per_epoch, measured(share.stack)
        return [
            {
                "step": self.step,
                "epoch": epoch,
                "seed": seed,
                **dict(zip(TERMS, terms[place], strict=True)),
                "lr": rates[place],
                "mcc": float("nan") if (score := scores[place]) is None else score,
                **matrices[place],
            }
            for place, seed in enumerate(share.stack.seeds)
        ]

    def main_progress(self) -> float:
        """The share of the main objective's steps that is done."""
        return max(0, self.step - self.data.plan.pretrain_steps) / self.data.plan.steps

    def snapshot(self, share: Share) -> dict[str, Any]:
        """Everything that the rest of a run's training depends on: tensors and plain values only."""
        return {
            "step": self.step,
            "summed_steps": self.summed_steps,
            "state": {
                kind: {name: value.clone() for name, value in each.items()}
                for kind, each in sliced(self.state, share.positions).items()
            },
            "diverged": share.diverged,
            "noised": share.noised,
            "history": share.history,
        }

    def restore(self, share: Share, snapshot: dict[str, Any]) -> None:
        """Continue a run from a snapshot, bit for bit; runs that are trained together continue from one step."""
        self.step = self.data.first_step = snapshot["step"]
        self.summed_steps = snapshot["summed_steps"]
        share.diverged, share.history = snapshot["diverged"], snapshot["history"]
        share.noised = snapshot["noised"]
        for kind, each in sliced(self.state, share.positions).items():
            for name, value in each.items():
                value.copy_(snapshot["state"][kind][name])


def _start_from_data(share: Share) -> None:
    train = share.splits.train
    means = posterior_means(share.stack, train, torch.arange(len(train)))
    for position, seed in enumerate(share.stack.seeds):
        if torch.isfinite(means[position]).all():
            model = share.stack.model(position)
            model.start(train, means[position], seed)
            share.stack.replace(position, model)
