"""One run as a member of a training, alone or together with other runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from ivae_lab.core.data import Splits
from ivae_lab.engine.stack import Stack
from ivae_lab.engine.steps import TERMS

HISTORY = ["step", "epoch", "seed", *TERMS, "lr", "mcc", "l_rank", "l_condition"]


@dataclass
class RunMember:
    """One run as a member of a training: its models, its data, and the record of its training.

    Attributes
    ----------
    stack, splits, rate
        Its models, its data, and the learning rate at the start.
    first
        Position of its first model in the stack of all members.
    diverged
        seed -> the step by which its loss or a parameter was no longer finite. Such a seed goes on as NaN, without
        effect on the others.
    noised
        seed -> the steps after which its prior's matrix L lacked rank and got noise (models/identifiability.py).
    history
        One row per seed and recorded point, with the columns `HISTORY`.
    """

    stack: Stack
    splits: Splits
    rate: float
    first: int = 0
    diverged: dict[int, int] = field(default_factory=dict)
    noised: dict[int, list[int]] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def positions(self) -> slice:
        """Positions of its models in the stack of all members."""
        return slice(self.first, self.first + len(self.stack.seeds))
