"""Batches, splits and their description: the data that data sets, models and metrics exchange.

Shape letters used everywhere: S seeds, N rows, B rows of a batch, d observed dimensions, n latent
dimensions, M values of the auxiliary variable u (or k columns, where it is numbers), K mixture components.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ivae_lab.core.exponential_family import ExponentialFamily
from ivae_lab.tabular.preprocessing import Preprocessing

if TYPE_CHECKING:
    from ivae_lab.distributions.piecewise_mixture import PiecewiseMixture


UKind = Literal["labels", "columns"]


@dataclass(frozen=True)
class Batch:
    """Rows of a data set: observations, auxiliary variable, true sources where known, and row ids."""

    x: Tensor  # (B, d) observations: float32, or the bytes of images (C, H, W), uint8
    # (B,) int64 labels in 0..M-1, such as the segment of a time series; or (B, k) float32 columns of numbers
    u: Tensor | None
    z: Tensor | None  # (B, n) true sources: for scoring only, a model never reads them
    index: Tensor  # (B,) int64 row ids in the whole data set, kept through splits and shuffling

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: Tensor | slice) -> Batch:
        """Select rows, in the order of `rows`."""
        return Batch(*(None if part is None else part[rows] for part in self._parts()))  # type: ignore[arg-type]

    def to(self, device: torch.device) -> Batch:
        """Copy the rows to `device`."""
        return Batch(*(None if part is None else part.to(device) for part in self._parts()))  # type: ignore[arg-type]

    def _parts(self) -> list[Tensor | None]:
        return [getattr(self, field.name) for field in fields(self)]


@dataclass(frozen=True)
class Image:
    """Layout of an image in a row of x: bytes, channel by channel, and within a channel row by row."""

    channels: int  # C
    height: int  # H
    width: int  # W
    redrawn: bool = False  # a byte b is the probability b / 255 of a 1, and 0 or 1 is drawn anew at every step
    # (d,) standard deviation of each pixel's b / 255 over the training part, before any 0 or 1 is drawn; of grey images
    deviation: Tensor | None = field(default=None, compare=False, repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width


@dataclass(frozen=True)
class DataSpec:
    """Description of a data set that a model is built from: sizes and kinds of x, u and sources."""

    x_dim: int  # d
    u_dim: int  # M, the number of values of u, or k, of its columns; 0 where the data has no u
    source_dim: int | None  # n of the true sources, None where unknown
    train_rows: int  # N of the training part
    binary: bool  # observations are 0 or 1, or (bytes of grey images) stand for the probability of a 1
    image: Image | None = None  # x are bytes of images; None: x are numbers
    u_kind: UKind = "labels"
    counts: bool = False  # observations are 0, 1, 2, ...
    # Number of values of each code, where observations are codes; x are their one-hot columns, code after code
    codes: tuple[int, ...] = ()
    # The distribution of x, where its density is known: for scoring, and for a model that fits the whole population
    # (`search=population`)
    truth: PiecewiseMixture | None = field(default=None, compare=False, repr=False)

    @property
    def observation(self) -> Literal["real", "binary", "counts", "codes"]:
        """Kind of numbers in x, named as in messages."""
        if self.codes:
            return "codes"
        if self.counts:
            return "counts"
        return "binary" if self.binary else "real"


@dataclass(frozen=True)
class Splits:
    """A data set cut into three parts; a part may have no rows."""

    train: Batch
    valid: Batch
    test: Batch
    spec: DataSpec
    scored: tuple[str, ...] = ("train", "valid", "test")  # parts whose latents are saved and scored after training
    summary: tuple[str, ...] = ()  # lines about the data, printed before training
    recipe: Preprocessing = field(default_factory=Preprocessing)  # made x and u from a table's columns
    prior: ExponentialFamily | None = None  # p(z given u) of the true sources, where it is one; for scoring only

    def items(self) -> list[tuple[str, Batch]]:
        """List the parts that have rows, with their names."""
        parts = (("train", self.train), ("valid", self.valid), ("test", self.test))
        return [(name, part) for name, part in parts if len(part)]
