"""What belongs to one run in a training that it may share with others."""

from __future__ import annotations

from dataclasses import dataclass, field

from ivae_lab.core.data import Splits
from ivae_lab.engine.stack import Stack
from ivae_lab.engine.steps import TERMS

HISTORY = ["step", "epoch", "seed", *TERMS, "lr", "mcc", "l_rank", "l_condition"]


@dataclass
class Share:
    """What belongs to one run in a training that it may share with others.

    Attributes
    ----------
    stack, splits, rate
        Its models, its data, and the learning rate at the start.
    first
        Where its first model stands in the stack of all.
    diverged
        seed -> the step by which its loss or a parameter was no longer finite. Such a seed goes on as NaN; the
        others do not notice.
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
        """Where its models stand in the stack of all."""
        return slice(self.first, self.first + len(self.stack.seeds))
