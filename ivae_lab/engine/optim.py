"""Adam, clipping and learning-rate schedules for a stack, with exactly the numbers that each seed has alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ivae_lab.engine.options import Training
from ivae_lab.engine.stack import Parameters

_PLATEAU_THRESHOLD = 1e-4  # ReduceLROnPlateau's relative threshold
_PLATEAU_SMALLEST_CHANGE = 1e-8  # its `eps`: smaller changes of the rate are not made


def adam_(parameters: Parameters, gradients: Parameters, first: Parameters, second: Parameters, pace: Tensor) -> None:
    """One step of Adam, in place (Kingma and Ba 2015, Algorithm 1, in the form with which its Section 2 ends).

    `pace` is (6, S), see `paces`: the betas and their complements, the step's size, and epsilon. Each seed has its
    numbers, although most are equal, so that all parts of the update run over the same indices and a compiler makes one
    loop of them.
    """
    for name, parameter in parameters.items():
        gradient = gradients[name]
        keep, take, keep_square, take_square, size, eps = pace.reshape(6, -1, *[1] * (parameter.dim() - 1))
        # Products and sums are separate: PyTorch's fused ones (lerp, addcmul) round differently in the last, partial
        # vector of a tensor, so that a seed's numbers would depend on the number of seeds before it.
        first[name].mul_(keep).add_(gradient * take)
        second[name].mul_(keep_square).add_(gradient.square() * take_square)
        parameter.sub_(size * (first[name] / (second[name].sqrt() + eps)))


def paces(counts: range, factors: Sequence[float], betas: Sequence[float], eps: float, device: torch.device) -> Tensor:
    """Coefficients of Adam's steps with these counts (from 1), for a rate of 1 times the schedule's factors: (T, 6).

    With c_i = 1 - beta_i^count: beta_1, 1 - beta_1, beta_2, 1 - beta_2, factor sqrt(c_2) / c_1 and eps sqrt(c_2).
    """
    fixed = [betas[0], 1 - betas[0], betas[1], 1 - betas[1]]
    corrections = [(1 - betas[0] ** count, math.sqrt(1 - betas[1] ** count)) for count in counts]
    rows = [
        [*fixed, factor * root / first, eps * root] for factor, (first, root) in zip(factors, corrections, strict=True)
    ]
    return torch.tensor(rows).to(device)


def paces_at(pace: Tensor, rate: Tensor) -> tuple[Tensor, ...]:
    """Scale the rows of `paces` to the seeds' rates, (S,): T times (6, S)."""
    scaled = pace.unsqueeze(-1).repeat(1, 1, len(rate))  # (T, 6, S)
    scaled[:, 4] *= rate
    return scaled.unbind()


def clip(gradients: Parameters, norm: float) -> Parameters:
    """Scale each seed's gradient so that its norm over all parameters is at most `norm`."""
    squares = torch.stack(
        [gradient.reshape(len(gradient), -1).square().sum(1) for gradient in gradients.values()]
    )  # (P, S)
    scale = (norm / (squares.sum(0).sqrt() + 1e-6)).clamp(max=1)  # (S,)
    return {name: gradient * scale.reshape(-1, *[1] * (gradient.dim() - 1)) for name, gradient in gradients.items()}


@dataclass
class Rates:
    """The learning rates of S seeds, and the state of a plateau schedule for each; changed in place."""

    training: Training
    rate: Tensor  # (S,)
    best: Tensor  # (S,) lowest mean loss of an epoch so far
    bad_epochs: Tensor  # (S,) epochs since the best one

    @staticmethod
    def state_at_start(rate: Tensor) -> dict[str, Tensor]:
        """The fields at step 0, for rates (S,)."""
        return {"rate": rate, "best": torch.full_like(rate, math.inf), "bad_epochs": torch.zeros_like(rate)}

    def at(self, progress: float) -> Tensor:
        """The rates at a point of the training: (S,)."""
        return self.rate * self.factor(progress)

    def factor(self, progress: float) -> float:
        """The schedule's factor on every rate at a point of the training."""
        training = self.training
        if training.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        return training.drop_factor if training.schedule == "drop" and progress >= training.drop_at else 1.0

    def end_epoch(self, loss: Tensor) -> None:
        """Lower the rates whose epochs, of mean loss (S,), do not improve (PyTorch's ReduceLROnPlateau, mode min)."""
        if self.training.schedule != "plateau":
            return
        better = loss.double() < self.best.double() * (1 - _PLATEAU_THRESHOLD)
        self.best.copy_(torch.where(better, loss, self.best))
        self.bad_epochs.copy_(torch.where(better, 0, self.bad_epochs + 1))
        due = self.bad_epochs > self.training.plateau_patience
        lowered = self.rate * self.training.plateau_factor
        self.rate.copy_(torch.where(due & (self.rate - lowered > _PLATEAU_SMALLEST_CHANGE), lowered, self.rate))
        self.bad_epochs.masked_fill_(due, 0)
