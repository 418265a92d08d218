"""Adam, clipping and learning-rate schedules for a stack: every seed exactly as if it were alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ivae_lab.engine.stack import Parameters
from ivae_lab.engine.training import Training

_PLATEAU_THRESHOLD = 1e-4  # ReduceLROnPlateau's relative threshold
_PLATEAU_SMALLEST_CHANGE = 1e-8  # its `eps`: smaller changes of the rate are not made


def adam_(
    parameters: Parameters,
    gradients: Parameters,
    first: Parameters,
    second: Parameters,
    rate: Tensor,
    correction: Tensor,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """One step of Adam, in place (Kingma and Ba 2015, Algorithm 1).

    `rate` is (S,), `correction` is (2,): 1 - beta_1^t and 1 - beta_2^t.
    """
    for name, parameter in parameters.items():
        gradient = gradients[name]
        # Products and sums apart: PyTorch's fused ones (lerp, addcmul) round differently in the last, partial vector
        # of a tensor, so that a seed's numbers would depend on how many seeds stand before it.
        first[name].mul_(betas[0]).add_(gradient * (1 - betas[0]))
        second[name].mul_(betas[1]).add_(gradient.square() * (1 - betas[1]))
        spread = second[name].sqrt() / correction[1].sqrt() + eps
        size = (rate / correction[0]).reshape(-1, *[1] * (parameter.dim() - 1))
        parameter.sub_(size * first[name] / spread)


def clip(gradients: Parameters, norm: float) -> Parameters:
    """Scale each seed's gradient so that its norm over all parameters is at most `norm`."""
    squares = torch.stack(
        [gradient.reshape(len(gradient), -1).square().sum(1) for gradient in gradients.values()]
    )  # (P, S)
    scale = (norm / (squares.sum(0).sqrt() + 1e-6)).clamp(max=1)  # (S,)
    return {name: gradient * scale.reshape(-1, *[1] * (gradient.dim() - 1)) for name, gradient in gradients.items()}


@dataclass
class Rates:
    """The learning rates of S seeds, and what a plateau schedule remembers of each."""

    training: Training
    rate: Tensor  # (S,)
    best: Tensor  # (S,) lowest mean loss of an epoch so far
    bad_epochs: Tensor  # (S,) epochs since

    @classmethod
    def start(cls, training: Training, seeds: int, device: torch.device) -> Rates:
        """The rates at step 0."""
        rate = torch.full((seeds,), training.lr, device=device)
        return cls(training, rate, torch.full_like(rate, math.inf), torch.zeros_like(rate))

    def at(self, progress: float) -> Tensor:
        """The rates at a point of the training: (S,)."""
        if self.training.schedule == "cosine":
            return self.rate * (0.5 * (1 + math.cos(math.pi * progress)))
        return self.rate

    def end_epoch(self, loss: Tensor) -> None:
        """Lower the rates whose epochs, of mean loss (S,), do not improve (PyTorch's ReduceLROnPlateau, mode min)."""
        if self.training.schedule != "plateau":
            return
        better = loss.double() < self.best.double() * (1 - _PLATEAU_THRESHOLD)
        self.best = torch.where(better, loss, self.best)
        self.bad_epochs = torch.where(better, torch.zeros_like(self.bad_epochs), self.bad_epochs + 1)
        due = self.bad_epochs > self.training.plateau_patience
        lowered = self.rate * self.training.plateau_factor
        self.rate = torch.where(due & (self.rate - lowered > _PLATEAU_SMALLEST_CHANGE), lowered, self.rate)
        self.bad_epochs = torch.where(due, torch.zeros_like(self.bad_epochs), self.bad_epochs)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"rate": self.rate, "best": self.best, "bad_epochs": self.bad_epochs}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what a checkpoint kept."""
        self.rate, self.best, self.bad_epochs = (state[name].to(self.rate) for name in ("rate", "best", "bad_epochs"))
