"""The LightningModule: S seeds of one model, a chunk of optimiser steps per `training_step`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning
import torch
from torch import Tensor

from ivae_lab.engine.datamodule import DataModule
from ivae_lab.engine.optim import Rates, adam_, clip
from ivae_lab.engine.stack import ENCODE_ROWS, Parameters, Stack
from ivae_lab.engine.streams import normals
from ivae_lab.engine.training import Chunk, Training

Step = Callable[..., Tensor]
TERMS = ("loss", "elbo", "log_likelihood", "kl")


class SeedsModule(lightning.LightningModule):
    """Trains a stack. Its whole state is a function of (configuration, seeds, step), and fits a checkpoint.

    Attributes
    ----------
    step
        Optimiser steps done.
    diverged
        seed -> the step by which its loss or a parameter was no longer finite. Such a seed goes on as NaN; the
        others do not notice.
    history
        One row per seed and recorded point.
    """

    def __init__(self, stack: Stack, data: DataModule, training: Training, compiled: bool) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.stack, self.data, self.training_config, self.compiled = stack, data, training, compiled
        seeds, device = len(stack.seeds), data.train.x.device
        self.step = 0
        self.first = {name: torch.zeros_like(value) for name, value in stack.parameters.items()}
        self.second = {name: torch.zeros_like(value) for name, value in stack.parameters.items()}
        self.rates = Rates.start(training, seeds, device)
        self.epoch_loss = torch.zeros(seeds, device=device)
        self.sums = torch.zeros(len(TERMS), seeds, device=device)  # since the last point of the history
        self.summed_steps = 0
        self.diverged: dict[int, int] = {}
        self.history: list[dict[str, float]] = []
        self._steps: dict[bool, Step] = {}

    def configure_optimizers(self) -> None:
        """None for Lightning: the optimiser is part of the stacked step."""

    def training_step(self, chunk: Chunk, batch_idx: int) -> None:
        """Do the optimiser steps of one chunk."""
        if chunk.start == self.data.plan.pretrain_steps:
            self._begin_main_phase()
        noise_dim = self.stack.template.noise_dim
        shape = (chunk.stop - chunk.start, self.data.batch_size, noise_dim)
        noise = normals(self.stack.seeds, "training noise", chunk.start, shape).to(self.rates.rate.device)
        for offset, step in enumerate(range(chunk.start, chunk.stop)):
            self._one_step(step, noise[:, offset], chunk.pretraining)
        self.step = chunk.stop
        self._note_divergence()

    def _one_step(self, step: int, noise: Tensor, pretraining: bool) -> None:
        plan, config = self.data.plan, self.training_config
        if pretraining:
            count, progress = step + 1, 0.0
        else:
            count = step - plan.pretrain_steps + 1
            progress = (count - 1) / plan.steps
        correction = torch.tensor([1 - beta**count for beta in config.betas])
        values = self._step(pretraining)(
            self.data.rows(step),
            noise,
            torch.tensor(progress).to(noise.device),
            self.rates.at(progress),
            correction.to(noise.device),
        )
        self.sums += values
        self.summed_steps += 1
        self.epoch_loss += values[0]
        if (step + 1) % self.data.steps_per_epoch == 0:
            if not pretraining:
                # The first epoch of the main objective may begin in the middle of one of the pretraining.
                steps = min(self.data.steps_per_epoch, step + 1 - plan.pretrain_steps)
                self.rates.end_epoch(self.epoch_loss / steps)
            self.epoch_loss = torch.zeros_like(self.epoch_loss)

    def _step(self, pretraining: bool) -> Step:
        """One optimiser step as a function of what changes from step to step, compiled where asked for."""
        if pretraining in self._steps:
            return self._steps[pretraining]
        method = "pretraining_loss" if pretraining else "loss"
        gradients_of = self.stack.gradients(method)
        stack, train, config = self.stack, self.data.train, self.training_config
        betas = (config.betas[0], config.betas[1])

        def update(
            parameters: Parameters,
            first: Parameters,
            second: Parameters,
            rows: Tensor,
            noise: Tensor,
            progress: Tensor,
            rate: Tensor,
            correction: Tensor,
        ) -> Tensor:
            u = None if train.u is None else train.u[rows]
            gradients, (_, terms) = gradients_of(
                parameters, stack.buffers, train.x[rows], u, train.index[rows], noise, progress
            )
            if config.clip_norm is not None:
                gradients = clip(gradients, config.clip_norm)
            adam_(parameters, gradients, first, second, rate, correction, betas, config.eps)
            return torch.stack([terms[name] for name in TERMS])  # (terms, S)

        run = torch.compile(update, fullgraph=True, dynamic=False) if self.compiled else update

        def step(*changing: Tensor) -> Tensor:
            return run(stack.parameters, self.first, self.second, *changing)

        self._steps[pretraining] = step
        return step

    def _begin_main_phase(self) -> None:
        """Let models start from encoded data, and forget the moments of the pretraining."""
        if self.stack.template.starts_from_data:
            means = self.posterior_means(torch.arange(len(self.data.train)))
            for position, seed in enumerate(self.stack.seeds):
                if torch.isfinite(means[position]).all():
                    model = self.stack.model(position)
                    model.start(means[position], seed)
                    self.stack.replace(position, model)
        for moments in (self.first, self.second):
            for value in moments.values():
                value.zero_()
        self.epoch_loss.zero_()

    def posterior_means(self, rows: Tensor) -> Tensor:
        """The posterior's mean of rows of the training data, for every seed: (S, N, n)."""
        parts = [
            self.stack.map("posterior_mean", self.data.train[block.to(self.data.train.index.device)])
            for block in torch.split(rows, ENCODE_ROWS)
        ]
        return torch.cat(parts, 1)

    def _note_divergence(self) -> None:
        finite = torch.isfinite(self.sums[0])
        for parameter in self.stack.parameters.values():
            finite &= torch.isfinite(parameter).reshape(len(finite), -1).all(1)
        for seed, fine in zip(self.stack.seeds, finite.tolist(), strict=True):
            if not fine:
                self.diverged.setdefault(seed, self.step)

    def record(self, scores: list[float | None]) -> list[dict[str, float]]:
        """Add a point to the history: mean terms since the last one, the rate, and a score per seed."""
        terms = (self.sums / max(self.summed_steps, 1)).tolist()
        rates = self.rates.at(self.main_progress()).tolist()
        rows = []
        for position, seed in enumerate(self.stack.seeds):
            row: dict[str, float] = {"step": self.step, "epoch": self.step / self.data.steps_per_epoch, "seed": seed}
            row |= {name: terms[number][position] for number, name in enumerate(TERMS)}
            row["lr"] = rates[position]
            score = scores[position]
            row["mcc"] = float("nan") if score is None else score
            rows.append(row)
        self.history += rows
        self.sums, self.summed_steps = torch.zeros_like(self.sums), 0
        return rows

    def main_progress(self) -> float:
        """The share of the main objective's steps that is done."""
        return max(0, self.step - self.data.plan.pretrain_steps) / self.data.plan.steps

    def snapshot(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on: tensors and plain values only."""
        return {
            "step": self.step,
            "parameters": self.stack.parameters,
            "first": self.first,
            "second": self.second,
            "rates": self.rates.state(),
            "epoch_loss": self.epoch_loss,
            "sums": self.sums,
            "summed_steps": self.summed_steps,
            "diverged": self.diverged,
            "history": self.history,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Continue from a snapshot, bit for bit."""
        for name in ("step", "summed_steps", "diverged", "history"):
            setattr(self, name, snapshot[name])
        for name, own in (("parameters", self.stack.parameters), ("first", self.first), ("second", self.second)):
            for key, value in own.items():
                value.copy_(snapshot[name][key])
        self.rates.load(snapshot["rates"])
        self.epoch_loss.copy_(snapshot["epoch_loss"])
        self.sums.copy_(snapshot["sums"])
        self.data.first_step = self.step
