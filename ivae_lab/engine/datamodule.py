"""The data of a run, resident on the device: a "batch" of the Lightning loop is a chunk of optimiser steps."""

from __future__ import annotations

from collections.abc import Iterator

import lightning
import torch
from torch import Tensor

from ivae_lab.engine.streams import permutations
from ivae_lab.engine.training import Chunk, Plan
from ivae_lab.types import Splits


class Chunks:
    """An iterable with a length: Lightning would take a plain list for a list of loaders."""

    def __init__(self, chunks: list[Chunk]) -> None:
        self.chunks = chunks

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self.chunks)

    def __len__(self) -> int:
        return len(self.chunks)


class DataModule(lightning.LightningDataModule):
    """Holds the splits on the device, and says which rows each seed sees at each step.

    Each seed goes through the training data in an order of its own, a new one every epoch; the partial batch
    at the end of an epoch is left out.
    """

    def __init__(self, splits: Splits, plan: Plan, batch_size: int, seeds: list[int], device: torch.device) -> None:
        super().__init__()
        self.splits, self.plan, self.seeds = splits, plan, seeds
        self.train = splits.train.to(device)
        self.batch_size = batch_size
        self.steps_per_epoch = len(splits.train) // batch_size
        self.first_step = 0
        self._epoch, self._order = -1, torch.empty(0)

    def train_dataloader(self) -> Chunks:
        """The chunks that remain."""
        return Chunks([chunk for chunk in self.plan.chunks() if chunk.stop > self.first_step])

    def transfer_batch_to_device(self, batch: Chunk, device: torch.device, dataloader_idx: int) -> Chunk:
        """Nothing to move: the data are there already."""
        return batch

    def rows(self, step: int) -> Tensor:
        """The rows of the training data that each seed sees at a step: (S, B)."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            order = permutations(self.seeds, "shuffling", epoch, len(self.train))
            self._epoch, self._order = epoch, order.to(self.train.x.device)
        return self._order[:, position * self.batch_size : (position + 1) * self.batch_size]
