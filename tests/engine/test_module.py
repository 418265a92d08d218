"""The loop of optimiser steps, on a model of one number: PyTorch's own optimiser and schedules step by step."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from ivae_lab.core.data import Batch, DataSpec, Splits
from ivae_lab.engine.datamodule import DataModule
from ivae_lab.engine.member import HISTORY, RunMember
from ivae_lab.engine.module import SeedsModule
from ivae_lab.engine.options import Plan
from ivae_lab.engine.stack import Stack
from ivae_lab.models.base import Model
from ivae_lab.training.callbacks import Checkpoints
from tests import running

CPU = torch.device("cpu")
History = list[dict[str, float]]  # rows of history.csv
ROWS, EPOCH, PRETRAINING, STEPS, RATE = 8, 4, 6, 18, 0.1  # the main objective begins in the middle of an epoch
TRAINING = replace(
    running.TRAINING,
    steps=STEPS,
    batch_size=ROWS // EPOCH,
    lr=RATE,
    plateau_factor=0.5,
    history_points=100,
    chunk=10,
)


def pretraining_loss(weight: Tensor) -> Tensor:
    return (weight + 1) ** 2


def main_loss(weight: Tensor, progress: Tensor) -> Tensor:
    """Falls as it is minimised, and rises from the middle of the training on, whatever the weight."""
    return (weight - 2) ** 2 + weight * progress + 60 * torch.relu(progress - 0.5)


class OneNumber(Model):
    """Reports the first number of its noise in place of the KL, and its progress in place of the ELBO."""

    latent_dim, noise_dim, u_dim, pretrain_steps = 1, 1, 0, PRETRAINING

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.prior = nn.Parameter(torch.tensor(0.0)), nn.Identity()

    def loss(self, batch: Batch, noise: Tensor, progress: Tensor) -> dict[str, Tensor]:
        return self._terms(main_loss(self.weight, progress), noise, progress)

    def pretraining_loss(self, batch: Batch, noise: Tensor, progress: Tensor) -> dict[str, Tensor]:
        return self._terms(pretraining_loss(self.weight), noise, progress)

    def _terms(self, loss: Tensor, noise: Tensor, progress: Tensor) -> dict[str, Tensor]:
        return {"loss": loss, "log_likelihood": -loss, "kl": noise[0, 0], "elbo": progress}


def made(seeds: list[int], **changes: Any) -> SeedsModule:
    """A training at step 0."""
    training = replace(TRAINING, **changes)
    stack = Stack(OneNumber, seeds, CPU)
    rows = Batch(torch.zeros(ROWS, 1), None, None, torch.arange(ROWS))
    splits = Splits(rows, rows[:0], rows[:0], DataSpec(1, 0, None, ROWS, False))
    plan = Plan(PRETRAINING, STEPS, training.chunk, training.history_points)
    data = DataModule([splits], plan, training.batch_size, CPU)
    return SeedsModule([RunMember(stack, splits, training.lr)], data, training, compiled=False)


def recorded(module: SeedsModule, until: int = PRETRAINING + STEPS) -> History:
    """Do the chunks that lie before a step, with a point of the history after each: all rows."""
    for number, chunk in enumerate(module.data.plan.chunks()):
        if module.step <= chunk.start < until:
            module.training_step(chunk, number)
            module.record([[0.5] * len(module.stack.seeds)])
    return module.members[0].history


@pytest.fixture(scope="module")
def by_ones() -> History:
    """The history of two seeds, of single steps."""
    return recorded(made([0, 1], chunk=1))


@pytest.fixture(scope="module")
def by_threes() -> History:
    """The same training, with three steps between two points."""
    return recorded(made([0, 1], chunk=3))


SCHEDULES: dict[str, Callable[[torch.optim.Adam], Any]] = {
    "constant": lambda adam: torch.optim.lr_scheduler.ConstantLR(adam, 1.0),
    "cosine": lambda adam: torch.optim.lr_scheduler.CosineAnnealingLR(adam, STEPS),
    "drop": lambda adam: torch.optim.lr_scheduler.MultiStepLR(adam, [STEPS // 2], TRAINING.drop_factor),
    "plateau": lambda adam: torch.optim.lr_scheduler.ReduceLROnPlateau(
        adam, factor=TRAINING.plateau_factor, patience=0
    ),
}


def loop(name: str) -> dict[int, tuple[float, float]]:
    """The weight and the rate after each step, of a loop over PyTorch's optimiser; each phase has one of its own."""
    weight, found = torch.tensor(0.0, requires_grad=True), {}
    adam, of_epoch = torch.optim.Adam([weight], RATE), [0.0]
    for step in range(PRETRAINING + STEPS):
        if step == PRETRAINING:
            adam, of_epoch = torch.optim.Adam([weight], RATE), []
            schedule = SCHEDULES[name](adam)
        progress = torch.tensor(max(0, step - PRETRAINING) / STEPS)
        loss = pretraining_loss(weight) if step < PRETRAINING else main_loss(weight, progress)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        of_epoch.append(loss.item())
        if step >= PRETRAINING and name != "plateau":
            schedule.step()
        if (step + 1) % EPOCH == 0:
            if step >= PRETRAINING and name == "plateau":
                schedule.step(sum(of_epoch) / len(of_epoch))
            of_epoch = []
        found[step + 1] = weight.item(), adam.param_groups[0]["lr"]
    return found


@pytest.mark.parametrize("name", SCHEDULES)
def test_steps_are_those_of_a_loop_over_torchs_optimiser(name: str) -> None:
    """Also where chunks are longer than epochs, and an epoch begins in the pretraining."""
    module, expected = made([0], schedule=name, chunk=10), loop(name)
    for number, chunk in enumerate(module.data.plan.chunks()):
        module.training_step(chunk, number)
        (row,), weight = module.record([[0.5]])[0], module.stack.parameters["weight"].item()
        # Before the first step of the main objective the schedules have said nothing.
        assert (weight, row["lr"]) == pytest.approx(expected[chunk.stop], rel=1e-4, abs=1e-9), chunk
    if name != "constant":
        assert expected[PRETRAINING + STEPS][1] < 0.6 * RATE


def test_every_step_of_every_seed_draws_noise_of_its_own(by_ones: History, by_threes: History) -> None:
    """Whether a chunk is a step or several."""
    assert len({row["kl"] for row in by_ones}) == len(by_ones) == 2 * (PRETRAINING + STEPS)
    assert len({row["kl"] for row in by_threes}) == len(by_threes)


def test_a_model_is_told_the_share_of_the_training_that_is_done(by_ones: History) -> None:
    told = [row["elbo"] for row in by_ones if row["seed"] == 1]
    assert told == pytest.approx([0.0] * PRETRAINING + [step / STEPS for step in range(STEPS)])


def test_a_point_of_the_history_has_its_columns_and_the_means_since_the_last(
    by_ones: History, by_threes: History
) -> None:
    assert all(set(row) == set(HISTORY) for row in by_threes)
    losses = [row["loss"] for row in by_ones if row["seed"] == 0]
    for row in by_threes[::2]:
        step = int(row["step"])
        assert (row["seed"], row["epoch"]) == (0, step / EPOCH)
        assert row["lr"] == pytest.approx(RATE)
        assert row["loss"] == pytest.approx(sum(losses[step - 3 : step]) / 3, rel=1e-4)


@pytest.mark.parametrize("stop", [3, 12])
def test_a_run_continued_from_a_snapshot_has_the_history_of_a_whole_one(stop: int, by_threes: History) -> None:
    """Also where it stopped before a point of the history, and a seed had diverged."""
    begun, continued = made([0, 1], chunk=3), made([0, 1], chunk=3)
    recorded(begun, stop - 3)
    begun.training_step(next(chunk for chunk in begun.data.plan.chunks() if chunk.stop == stop), 0)
    begun.members[0].diverged[1] = 2
    continued.restore(continued.members[0], copy.deepcopy(begun.snapshot(begun.members[0])))
    assert continued.members[0].diverged == {1: 2}
    continued.record([[0.5, 0.5]])
    pd.testing.assert_frame_equal(pd.DataFrame(recorded(continued)), pd.DataFrame(by_threes), check_exact=True)


def test_a_run_is_said_to_take_its_models_part_of_the_time() -> None:
    member = made([0, 1, 2]).members[0]
    checkpoints = Checkpoints([(member, Path("unwritten"), "", 5.0)], 0)
    checkpoints.began = time.monotonic() - 1000
    assert checkpoints.seconds(member, models=4) == pytest.approx(5 + 750, abs=10)
