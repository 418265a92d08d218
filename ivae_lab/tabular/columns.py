"""How columns of a table become labels or numbers: what was fitted on the training part."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ivae_lab.terminal.messages import listed

Column = NDArray[Any]  # (N,)
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Labels:
    """A column as labels: that of a row is the place of its value among those of the training rows.

    Parameters
    ----------
    values
        Whole numbers or words, in order.
    other
        Whether the last value stands for all that are rare.
    """

    values: list[Any]
    other: bool = False

    def __call__(self, column: Column) -> NDArray[np.int64]:
        """(N,) values to (N,) labels.

        Raises
        ------
        ValueError
            If a value is none of those known.
        """
        labels = self.places(column)
        if (labels < 0).any():
            unknown = column[labels < 0][0]
            raise ValueError(f"expected one of {listed(self.values)}, got {unknown}")
        return labels

    def places(self, column: Column) -> NDArray[np.int64]:
        """As labels, (N,), with -1 for a value that is none of those known."""
        import pandas as pd  # takes a while, and only rows of files need it

        places = {value: place for place, value in enumerate(self.values)}
        fallback = len(self.values) - 1 if self.other else -1
        of_row, values = pd.factorize(column, use_na_sentinel=False)  # fewer to look up than rows
        return np.array([places.get(value, fallback) for value in values.tolist()], np.int64)[of_row]


@dataclass(frozen=True)
class Number:
    """A column of numbers, as (value - shift) / scale."""

    shift: float
    scale: float

    def __call__(self, column: Column) -> Floats:
        """(N,) to (N, 1)."""
        return ((column.astype(np.float64) - self.shift) / self.scale).astype(np.float32)[:, None]


@dataclass(frozen=True)
class OneHot:
    """A column of labels among columns of numbers: a 0 or 1 for each value."""

    labels: Labels

    def __call__(self, column: Column) -> Floats:
        """(N,) to (N, values)."""
        return np.eye(len(self.labels.values), dtype=np.float32)[self.labels(column)]


def labels_of(column: Column, least: int, merge: bool) -> Labels:
    """The values of a column, those of fewer than `least` rows as one, "other", if they are to be merged."""
    counts = Counter(column.tolist())
    frequent = [value for value, rows in counts.items() if rows >= least]
    if merge and len(frequent) < len(counts):
        return Labels([*sorted(frequent), "other"], other=True)
    return Labels(sorted(counts))


def columns_of(columns: list[Column]) -> list[Number | OneHot]:
    """What makes numbers of each column: of mean 0 and standard deviation 1, of words a 0 or 1 for each."""
    return [_number(column) if is_numeric(column) else OneHot(labels_of(column, 1, merge=False)) for column in columns]


def _number(column: Column) -> Number:
    values = column.astype(np.float64)
    return Number(float(values.mean()), float(values.std()) or 1.0)


def is_numeric(column: Column) -> bool:
    """Whether a column holds numbers."""
    return column.dtype.kind in "fiub"


def is_label(column: Column) -> bool:
    """Whether a column is taken for labels if nothing is said: words, truth values or whole numbers."""
    return column.dtype.kind in "USOiub"


def rare(column: Column, least: int) -> list[Any]:
    """Values of fewer than `least` rows."""
    return sorted(value for value, rows in Counter(column.tolist()).items() if rows < least)
