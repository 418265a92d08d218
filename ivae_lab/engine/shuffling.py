"""The order in which each seed sees the training rows."""

from __future__ import annotations

from torch import Tensor

from ivae_lab.engine.random_streams import permutations


class Shuffled:
    """The rows that each seed sees at each step.

    Each seed goes through its training data in its own order, a new one every epoch; the partial batch at the end of an
    epoch is left out.

    Parameters
    ----------
    seeds
        The S seeds.
    first_rows
        (S,) first row of each seed's training data in the table of all data sets.
    rows, batch_size
        N and B.
    """

    def __init__(self, seeds: list[int], first_rows: Tensor, rows: int, batch_size: int) -> None:
        self.seeds, self.first_rows, self.rows, self.batch_size = seeds, first_rows, rows, batch_size
        self._epoch = -1
        self._order: tuple[Tensor, ...] = ()

    def at(self, step: int) -> Tensor:
        """Rows of the table: (S, B)."""
        steps = self.rows // self.batch_size
        epoch, position = divmod(step, steps)
        if epoch != self._epoch:
            order = permutations(self.seeds, "shuffling", epoch, self.rows)[:, : steps * self.batch_size]
            order = order.to(self.first_rows.device) + self.first_rows.unsqueeze(1)
            by_step = order.reshape(len(self.seeds), steps, self.batch_size).transpose(0, 1)  # (steps, S, B)
            self._epoch, self._order = epoch, by_step.contiguous().unbind()
        return self._order[position]
