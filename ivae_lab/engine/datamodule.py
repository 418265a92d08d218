"""The data of a training, resident on the device: a "batch" of the Lightning loop is a chunk of optimiser steps."""

from __future__ import annotations

from collections.abc import Iterator

import lightning
import torch
from torch import Tensor

from ivae_lab.engine.streams import permutations
from ivae_lab.engine.training import Chunk, Plan
from ivae_lab.types import Batch, Splits


class Chunks:
    """An iterable with a length: Lightning would take a plain list for a list of loaders."""

    def __init__(self, chunks: list[Chunk]) -> None:
        self.chunks = chunks

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self.chunks)

    def __len__(self) -> int:
        return len(self.chunks)


class Shuffled:
    """Which rows each seed sees at each step.

    Each seed goes through its training data in an order of its own, a new one every epoch; the partial batch at the
    end of an epoch is left out.

    Parameters
    ----------
    seeds
        The S seeds.
    first_rows
        (S,) where the training data of each seed begin in the table of all data sets.
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


class DataModule(lightning.LightningDataModule):
    """Holds the data sets of the runs that are trained together, of one shape, as one table on the device.

    Attributes
    ----------
    table
        The training data of the distinct data sets, one after another; without true sources.
    rows
        N, the training rows of each.
    """

    def __init__(self, splits: list[Splits], plan: Plan, batch_size: int, device: torch.device) -> None:
        super().__init__()
        self.plan, self.batch_size, self.device = plan, batch_size, device
        distinct = {id(each): each.train for each in splits}
        places = {key: place for place, key in enumerate(distinct)}
        self.rows = len(splits[0].train)
        self.first_rows = [places[id(each)] * self.rows for each in splits]  # of each run
        self.table = _stacked(list(distinct.values())).to(device)
        self.steps_per_epoch = self.rows // batch_size
        self.first_step = 0

    def train_dataloader(self) -> Chunks:
        """The chunks that remain."""
        return Chunks([chunk for chunk in self.plan.chunks() if chunk.stop > self.first_step])

    def transfer_batch_to_device(self, batch: Chunk, device: torch.device, dataloader_idx: int) -> Chunk:
        """Nothing to move: the data are there already."""
        return batch


def _stacked(parts: list[Batch]) -> Batch:
    u = [part.u for part in parts if part.u is not None]
    return Batch(
        torch.cat([part.x for part in parts]),
        torch.cat(u) if u else None,
        None,
        torch.cat([part.index for part in parts]),
    )
