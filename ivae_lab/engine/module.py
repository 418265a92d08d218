"""The LightningModule: all models of one or several runs, a chunk of optimiser steps per `training_step`."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import lightning
import torch

from ivae_lab.engine.datamodule import DataModule
from ivae_lab.engine.evaluate import posterior_means
from ivae_lab.engine.member import RunMember
from ivae_lab.engine.memory import MemoryNeed
from ivae_lab.engine.options import Chunk, Training
from ivae_lab.engine.prior_rank import measured, restore_ranks
from ivae_lab.engine.shuffling import Shuffled
from ivae_lab.engine.stack import Stack
from ivae_lab.engine.steps import TERMS, Programs, StackPart, new_state, sliced


class SeedsModule(lightning.LightningModule):
    """Trains the models of several runs that differ in data seed, model seed, beta or learning rate only.

    Its whole state is a function of (configurations, seeds, step), and that of each run fits a checkpoint of its own:
    a run can be continued alone or beside others.

    Parameters
    ----------
    members
        The runs that are trained together.
    data, training
        Their data, and the settings of the optimiser; each member has its own learning rate.
    compiled
        Whether to compile the step.
    at_once
        Models that one call trains; None: all. The parts of a stack take turns, a chunk of steps each, so that
        their numbers stay in the processor's cache, and activations need the memory of one part.
    need
        The memory that `at_once` was chosen by, if it was chosen.

    Attributes
    ----------
    step
        Optimiser steps done.
    """

    def __init__(
        self,
        members: list[RunMember],
        data: DataModule,
        training: Training,
        compiled: bool,
        at_once: int | None = None,
        need: MemoryNeed | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.members, self.data, self.compiled, self.need = members, data, compiled, need
        self.step = self.summed_steps = 0
        self.stack = Stack.joined([member.stack for member in members])
        for before, member in pairwise(members):
            member.first = before.positions.stop
        rate = torch.cat([torch.full((len(member.stack.seeds),), member.rate) for member in members]).to(data.device)
        self.state = new_state(self.stack, rate)
        self.parts = self._cut(training, at_once or len(self.stack.seeds))

    def _cut(self, training: Training, at_once: int) -> list[StackPart]:
        """Cut the stack into parts as equal as possible, so that few programs are compiled."""
        data, models = self.data, len(self.stack.seeds)
        first_rows = [
            row for row, member in zip(data.first_rows, self.members, strict=True) for _ in member.stack.seeds
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
            parts.append(StackPart(self.stack.part(positions), state, shuffled, data, training, programs))
        return parts

    def configure_optimizers(self) -> None:
        """Return None to Lightning: the optimiser is part of the stacked step."""

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
        """Start models from encoded data where they need it, and reset the moments of the pretraining."""
        for member in self.members:
            if member.stack.template.starts_from_data:
                _start_from_data(member)
        for kind in ("first", "second"):
            for value in self.state[kind].values():
                value.zero_()
        self.state["sums"]["epoch_loss"].zero_()

    def _note_divergence(self) -> None:
        finite = torch.isfinite(self.state["sums"]["terms"][:, 0])
        for parameter in self.stack.parameters.values():
            finite &= torch.isfinite(parameter).reshape(len(finite), -1).all(1)
        is_finite = finite.tolist()
        for member in self.members:
            for seed, seed_is_finite in zip(member.stack.seeds, is_finite[member.positions], strict=True):
                if not seed_is_finite:
                    member.diverged.setdefault(seed, self.step)

    def _restore_ranks(self) -> None:
        for member in self.members:
            for seed in restore_ranks(member.stack, self.step):
                member.noised.setdefault(seed, []).append(self.step)

    def record(self, scores: list[list[float | None]]) -> list[list[dict[str, float]]]:
        """Add a point to the histories: mean terms since the last one, the rate, and a score per seed of each run."""
        added = [self._points(member, run_scores) for member, run_scores in zip(self.members, scores, strict=True)]
        for member, rows in zip(self.members, added, strict=True):
            member.history += rows
        self.state["sums"]["terms"].zero_()
        self.summed_steps = 0
        return added

    def _points(self, member: RunMember, scores: list[float | None]) -> list[dict[str, float]]:
        terms = (self.state["sums"]["terms"][member.positions] / max(self.summed_steps, 1)).tolist()
        rates = torch.cat([part.rates.at(self.main_progress()) for part in self.parts])[member.positions].tolist()
        epoch, matrices = self.step / self.data.steps_per_epoch, measured(member.stack)
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
            for place, seed in enumerate(member.stack.seeds)
        ]

    def main_progress(self) -> float:
        """The share of the main objective's steps that is done."""
        return max(0, self.step - self.data.plan.pretrain_steps) / self.data.plan.steps

    def snapshot(self, member: RunMember) -> dict[str, Any]:
        """Return everything that the rest of a run's training depends on, as tensors and plain values only."""
        return {
            "step": self.step,
            "summed_steps": self.summed_steps,
            "state": {
                kind: {name: value.clone() for name, value in values.items()}
                for kind, values in sliced(self.state, member.positions).items()
            },
            "diverged": member.diverged,
            "noised": member.noised,
            "history": member.history,
        }

    def restore(self, member: RunMember, snapshot: dict[str, Any]) -> None:
        """Continue a run from a snapshot, bit for bit; runs that are trained together continue from one step."""
        self.step = self.data.first_step = snapshot["step"]
        self.summed_steps = snapshot["summed_steps"]
        member.diverged, member.history = snapshot["diverged"], snapshot["history"]
        member.noised = snapshot["noised"]
        for kind, values in sliced(self.state, member.positions).items():
            for name, value in values.items():
                value.copy_(snapshot["state"][kind][name])


def _start_from_data(member: RunMember) -> None:
    train = member.splits.train
    means = posterior_means(member.stack, train, torch.arange(len(train)))
    for position, seed in enumerate(member.stack.seeds):
        if torch.isfinite(means[position]).all():
            model = member.stack.model(position)
            model.start(train, means[position], seed)
            member.stack.replace(position, model)
