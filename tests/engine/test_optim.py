"""The stacked optimiser and its schedules: every seed exactly as PyTorch does it for that seed alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from omegaconf import DictConfig
from torch import Tensor

from ivae_lab.config.build import build
from ivae_lab.engine.optim import Rates, adam_, clip, paces, paces_at
from ivae_lab.engine.options import Training
from tests.profiles import examples
from tests.running import TRAINING

SEEDS = 3
SHAPES = {"matrix": (4, 2), "vector": (3,), "scalar": ()}
CPU = torch.device("cpu")


def at_start(training: Training, seeds: int) -> Rates:
    return Rates(training, **Rates.state_at_start(torch.full((seeds,), training.lr)))


def stacked(scales: Tensor, number: int) -> dict[str, Tensor]:
    """Random tensors, (S, ...), of another size for each seed."""
    generator = torch.Generator().manual_seed(number)
    return {
        name: torch.randn(SEEDS, *shape, generator=generator) * scales.reshape(-1, *[1] * len(shape))
        for name, shape in SHAPES.items()
    }


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9), (0.0, 0.0)])
def test_adam_is_torchs_for_every_seed(betas: tuple[float, float]) -> None:
    start, rates, eps = stacked(torch.ones(SEEDS), 0), torch.tensor([0.1, 0.01, 0.0]), 1e-8
    parameters = {name: value.clone() for name, value in start.items()}
    first, second = ({name: torch.zeros_like(value) for name, value in start.items()} for _ in range(2))
    alone = [{name: value[seed].clone().requires_grad_() for name, value in start.items()} for seed in range(SEEDS)]
    optimisers = [
        torch.optim.Adam(own.values(), lr=float(rate), betas=betas, eps=eps)
        for own, rate in zip(alone, rates, strict=True)
    ]
    for step in range(1, 31):
        gradients = stacked(torch.tensor([1e-9, 1.0, 1e4]), step)
        (pace,) = paces_at(paces(range(step, step + 1), [1.0], betas, eps, CPU), rates)
        adam_(parameters, gradients, first, second, pace)
        for seed, (own, optimiser) in enumerate(zip(alone, optimisers, strict=True)):
            for name, value in own.items():
                value.grad = gradients[name][seed]
            optimiser.step()
    for seed, own in enumerate(alone):
        for name, value in own.items():
            torch.testing.assert_close(parameters[name][seed], value.detach(), rtol=1e-5, atol=1e-6)
    assert not torch.equal(parameters["matrix"][0], start["matrix"][0])
    assert torch.equal(parameters["matrix"][2], start["matrix"][2])  # its rate is 0


def test_adam_lets_no_nan_into_other_seeds() -> None:
    def after(poison: bool) -> dict[str, Tensor]:
        parameters, gradients = stacked(torch.ones(SEEDS), 0), stacked(torch.ones(SEEDS), 1)
        if poison:
            gradients["matrix"][1, 0, 0] = torch.nan
        first, second = ({name: torch.zeros_like(value) for name, value in parameters.items()} for _ in range(2))
        gradients = clip(gradients, 0.1)
        (pace,) = paces_at(paces(range(1, 2), [1.0], (0.9, 0.9), 1e-8, CPU), torch.ones(SEEDS))
        adam_(parameters, gradients, first, second, pace)
        return parameters

    clean, poisoned = after(False), after(True)
    for name, value in clean.items():
        assert torch.equal(value[[0, 2]], poisoned[name][[0, 2]])
        assert poisoned[name][1].isnan().all()  # clipped by the norm of all, so all of this seed


@pytest.mark.parametrize("norm", [1e-3, 1.0, 50.0])
def test_clipping_is_torchs_for_every_seed(norm: float) -> None:
    gradients = stacked(torch.tensor([0.01, 1.0, 100.0]), 0)
    clipped = clip(gradients, norm)
    for seed in range(SEEDS):
        alone = [torch.zeros(shape, requires_grad=True) for shape in SHAPES.values()]
        for value, gradient in zip(alone, gradients.values(), strict=True):
            value.grad = gradient[seed].clone()
        torch.nn.utils.clip_grad_norm_(alone, norm)
        for value, name in zip(alone, SHAPES, strict=True):
            torch.testing.assert_close(clipped[name][seed], value.grad, rtol=1e-5, atol=1e-8)


def test_clipping_leaves_small_and_zero_gradients() -> None:
    gradients = stacked(torch.tensor([0.0, 1e-3, 1e-6]), 0)
    for name, value in clip(gradients, 1.0).items():
        assert torch.equal(value, gradients[name])


LOSS = st.one_of(
    st.floats(-1e3, 1e3, width=32),
    st.sampled_from([1.0, 0.9999, 0.99995, -1.0, -1.0001, 0.0, math.nan, math.inf, -math.inf]),
)


@hypothesis_settings(max_examples=examples(50))
@given(
    losses=st.lists(st.tuples(*[LOSS] * SEEDS), min_size=1, max_size=25),
    patience=st.integers(0, 3),
    factor=st.sampled_from([0.1, 0.5, 0.8, 0.99]),
)
def test_plateau_is_torchs_for_every_seed(losses: list[tuple[float, ...]], patience: int, factor: float) -> None:
    training = replace(TRAINING, schedule="plateau", plateau_patience=patience, plateau_factor=factor)
    rates = at_start(training, SEEDS)
    optimisers = [torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=training.lr) for _ in range(SEEDS)]
    schedules = [
        torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=factor, patience=patience)
        for optimiser in optimisers
    ]
    for epoch in losses:
        rates.end_epoch(torch.tensor(epoch))
        for schedule, loss in zip(schedules, epoch, strict=True):
            schedule.step(float(torch.tensor(loss)))
    expected = [optimiser.param_groups[0]["lr"] for optimiser in optimisers]
    # Decades of a rate near 1e-8 are where float32 may decide otherwise than float64 about the smallest change.
    assert rates.at(0.3).tolist() == pytest.approx(expected, rel=1e-4, abs=2e-8)


def test_only_plateau_listens_to_the_loss() -> None:
    for schedule, lowered in (("constant", False), ("cosine", False), ("drop", False), ("plateau", True)):
        rates = at_start(replace(TRAINING, schedule=schedule), 2)  # type: ignore[arg-type]
        for _ in range(3):
            rates.end_epoch(torch.tensor([1.0, 1.0]))
        assert (rates.rate < 0.01).all() == lowered


def test_the_trainer_of_willetts_lowers_the_rate_after_20_bad_epochs(composed: Callable[..., DictConfig]) -> None:
    training = build(composed("trainer=willetts").trainer, "trainer")
    rates, seen = at_start(training, 1), []
    for _ in range(23):  # the first is the best
        rates.end_epoch(torch.ones(1))
        seen.append(rates.rate.item())
    assert seen == pytest.approx([training.lr] * 21 + [0.1 * training.lr] * 2)


def test_cosine_goes_from_the_rate_to_zero() -> None:
    rates = at_start(replace(TRAINING, schedule="cosine"), 2)
    reference = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(reference, T_max=8)
    seen: list[Any] = []
    for step in range(9):
        assert rates.at(step / 8).tolist() == pytest.approx(schedule.get_last_lr() * 2, abs=1e-9)
        seen += [rates.at(step / 8)[0].item()]
        reference.step()
        schedule.step()
    assert (seen[0], seen[4], seen[8]) == (pytest.approx(0.01), pytest.approx(0.005), 0)


def test_a_drop_is_one_step_down() -> None:
    rates = at_start(replace(TRAINING, schedule="drop", drop_at=0.625, drop_factor=0.1), 2)
    seen = [rates.at(progress)[0].item() for progress in (0, 0.6, 0.625, 0.99)]
    assert seen == pytest.approx([0.01, 0.01, 1e-3, 1e-3])


def test_rates_live_in_their_state() -> None:
    """So that a view of the state is all that a part of a stack, or a checkpoint, needs."""
    training = replace(TRAINING, schedule="plateau", plateau_patience=1)
    losses = torch.tensor([[6.0, 1.0], [5.0, 1.0], [4.0, 0.5], [3.0, 0.5], [2.0, 0.5], [1.0, 0.5]])
    whole, state = at_start(training, 2), Rates.state_at_start(torch.full((2,), training.lr))
    for epoch, loss in enumerate(losses):
        whole.end_epoch(loss)
        if epoch == 3:
            state = {name: value.clone() for name, value in state.items()}
        for seed in range(2):
            own = {name: value[seed : seed + 1] for name, value in state.items()}
            Rates(training, **own).end_epoch(loss[seed : seed + 1])
    assert (whole.rate < 0.005).tolist() == [False, True]
    for name, value in state.items():
        assert torch.equal(value, getattr(whole, name))
