"""The data of a training, on the device: a "batch" of the Lightning loop is a chunk of optimiser steps."""

from __future__ import annotations

from collections.abc import Iterator

import lightning
import torch

from ivae_lab.core.data import Batch, Splits
from ivae_lab.engine.options import Chunk, Plan


class Chunks:
    """An iterable with a length: Lightning would take a plain list for a list of loaders."""

    def __init__(self, chunks: list[Chunk]) -> None:
        self.chunks = chunks

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self.chunks)

    def __len__(self) -> int:
        return len(self.chunks)


class DataModule(lightning.LightningDataModule):
    """The data sets, of one shape, of the runs that are trained together, as one table on the device.

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
        distinct = {id(data): data.train for data in splits}
        places = {key: place for place, key in enumerate(distinct)}
        self.rows = len(splits[0].train)
        self.first_rows = [places[id(data)] * self.rows for data in splits]  # one for each run
        self.table = _stacked(list(distinct.values())).to(device)
        self.steps_per_epoch = self.rows // batch_size
        self.first_step = 0

    def train_dataloader(self) -> Chunks:
        """The chunks that remain."""
        return Chunks([chunk for chunk in self.plan.chunks() if chunk.stop > self.first_step])

    def transfer_batch_to_device(self, batch: Chunk, device: torch.device, dataloader_idx: int) -> Chunk:
        """Return the chunk: the data are on the device already."""
        return batch


def _stacked(parts: list[Batch]) -> Batch:
    u = [part.u for part in parts if part.u is not None]
    return Batch(
        torch.cat([part.x for part in parts]),
        torch.cat(u) if u else None,
        None,
        torch.cat([part.index for part in parts]),
    )
