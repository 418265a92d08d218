"""The optimiser steps: some models of a stack, trained together with one call per step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ivae_lab.engine.compiler import Recorded, compiled, leaves
from ivae_lab.engine.optim import Rates, adam_, clip, paces, paces_at
from ivae_lab.engine.options import Chunk, Training
from ivae_lab.engine.random_streams import normals
from ivae_lab.engine.shuffling import Shuffled
from ivae_lab.engine.stack import Parameters, Stack

if TYPE_CHECKING:
    from ivae_lab.engine.datamodule import DataModule

TERMS = ("loss", "elbo", "log_likelihood", "kl")
State = dict[str, Parameters]  # all that training changes; every tensor is (S, ...)
Step = Callable[..., Tensor]
# The steps of parts of one size are one program: (method, models) to what was compiled.
Programs = dict[tuple[str, int], Step]


def new_state(stack: Stack, rate: Tensor) -> State:
    """The state at step 0: the stack's own parameters and buffers, Adam's moments, the rates (S,) and running sums."""
    return {
        "parameters": stack.parameters,
        "buffers": stack.buffers,
        "first": {name: torch.zeros_like(value) for name, value in stack.parameters.items()},
        "second": {name: torch.zeros_like(value) for name, value in stack.parameters.items()},
        "rates": Rates.state_at_start(rate),
        "sums": {
            "terms": torch.zeros(len(rate), len(TERMS), device=rate.device),  # since the last point of the history
            "epoch_loss": torch.zeros_like(rate),
        },
    }


def sliced(state: State, positions: slice) -> State:
    """The state of some of the models, as views."""
    return {kind: {name: value[positions] for name, value in values.items()} for kind, values in state.items()}


class StackPart:
    """The models at some positions of a stack. Its state is a view of the whole stack's.

    Parameters
    ----------
    stack, state
        The models, and their part of the state.
    shuffled
        The rows that they see at each step.
    data, training
        The training data, and the settings of the optimiser.
    programs
        Compiled steps, shared by parts of one size; None: plain PyTorch.
    """

    def __init__(
        self,
        stack: Stack,
        state: State,
        shuffled: Shuffled,
        data: DataModule,
        training: Training,
        programs: Programs | None,
    ) -> None:
        self.stack, self.state, self.shuffled, self.data, self.config = stack, state, shuffled, data, training
        self.rates, self.programs = Rates(training, **state["rates"]), programs
        self._steps: dict[str, Step] = {}

    def advance(self, chunk: Chunk) -> None:
        """Do the steps of a chunk."""
        plan, config, device = self.data.plan, self.config, self.data.device
        begin = 0 if chunk.pretraining else plan.pretrain_steps
        counts = range(chunk.start - begin + 1, chunk.stop - begin + 1)
        done = [0.0 if chunk.pretraining else (count - 1) / plan.steps for count in counts]
        model = self.stack.template
        shape = (len(counts), self.data.batch_size, model.noise_dim + model.live_dim)
        noise = normals(self.stack.seeds, "training noise", chunk.start, shape)  # (S, T, B, noise_dim + live_dim)
        # Cut into steps at once: launching an operation costs as much time as some of a step's kernels.
        noises = noise.transpose(0, 1).contiguous().to(device).unbind()
        progress = torch.tensor(done).to(device).unbind()
        pace = paces(counts, [self.rates.factor(point) for point in done], config.betas, config.eps, device)
        at_rates = paces_at(pace, self.rates.rate)
        method = "pretraining_loss" if chunk.pretraining else "loss"
        for offset, step in enumerate(range(chunk.start, chunk.stop)):
            self._step(method, (self.shuffled.at(step), noises[offset], progress[offset], at_rates[offset]))
            if (step + 1) % self.data.steps_per_epoch == 0:
                self._end_epoch(step)
                at_rates = paces_at(pace, self.rates.rate)

    def _end_epoch(self, step: int) -> None:
        loss, plan, per_epoch = self.state["sums"]["epoch_loss"], self.data.plan, self.data.steps_per_epoch
        if step >= plan.pretrain_steps:
            # The first epoch of the main objective may begin in the middle of an epoch of the pretraining.
            self.rates.end_epoch(loss / min(per_epoch, step + 1 - plan.pretrain_steps))
        loss.zero_()

    def _step(self, method: str, changing: tuple[Tensor, ...]) -> None:
        if method not in self._steps:
            self._steps[method] = self._prepared(method, changing)
        self._steps[method](*changing)

    def _prepared(self, method: str, changing: tuple[Tensor, ...]) -> Step:
        """One step as a function of the tensors that change from step to step, compiled and recorded if configured."""
        fixed, update = self.fixed(), update_of(self.stack, method, self.config.clip_norm)
        step: Step = partial(update, *fixed)
        if self.programs is not None:
            key = (method, len(self.stack.seeds))
            if key not in self.programs:
                self.programs[key] = compiled(update, (*fixed, *changing))
            step = partial(self.programs[key], *leaves(fixed))
        if self.data.device.type == "cuda":
            return Recorded(step, leaves(self.state), changing)
        return step

    def fixed(self) -> tuple[Any, ...]:
        """Arguments of a step that stay in their place in memory: the state that it changes, and the data."""
        table, state = self.data.table, self.state
        seen = {"x": table.x, "u": table.u, "index": table.index}
        return (
            state["parameters"],
            state["buffers"],
            state["first"],
            state["second"],
            state["sums"],
            {name: value for name, value in seen.items() if value is not None},
        )


def update_of(stack: Stack, method: str, clip_norm: float | None) -> Step:
    """One optimiser step as a function of tensors alone: it changes parameters, moments and sums.

    The function takes the values of `StackPart.fixed`, then rows (S, B), noise (S, B, noise_dim + live_dim), progress
    () and Adam's pace (6, S). It returns the loss, (S,).
    """
    gradients_of = stack.gradients(method)

    def update(
        parameters: Parameters,
        buffers: Parameters,
        first: Parameters,
        second: Parameters,
        sums: Parameters,
        table: dict[str, Tensor],
        rows: Tensor,
        noise: Tensor,
        progress: Tensor,
        pace: Tensor,
    ) -> Tensor:
        u = table["u"][rows] if "u" in table else None
        gradients, (loss, terms) = gradients_of(
            parameters, buffers, table["x"][rows], u, table["index"][rows], noise, progress
        )
        if clip_norm is not None:
            gradients = clip(gradients, clip_norm)
        adam_(parameters, gradients, first, second, pace)
        sums["terms"] += torch.stack([terms[name] for name in TERMS], 1)
        sums["epoch_loss"] += loss
        return loss

    return update
