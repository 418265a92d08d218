"""Convert columns of a table to labels or numbers, as fitted on the training part."""

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
class LabelColumn:
    """Converts a column to labels: the label of a row is the position of its value among those of the training rows.

    Parameters
    ----------
    values
        Whole numbers or words, in order.
    other
        True if the last value stands for all rare values.
    """

    values: list[Any]
    other: bool = False

    def __call__(self, column: Column) -> NDArray[np.int64]:
        """Convert (N,) values to (N,) labels.

        Raises
        ------
        ValueError
            If a value is unknown.
        """
        labels = self.places(column)
        if (labels < 0).any():
            unknown = column[labels < 0][0]
            raise ValueError(f"expected one of {listed(self.values)}, got {unknown}")
        return labels

    def places(self, column: Column) -> NDArray[np.int64]:
        """Convert (N,) values to (N,) labels, -1 for an unknown value."""
        import pandas as pd  # takes a while, and only rows of files need it

        places = {value: place for place, value in enumerate(self.values)}
        fallback = len(self.values) - 1 if self.other else -1
        of_row, values = pd.factorize(column, use_na_sentinel=False)  # fewer values to look up than rows
        return np.array([places.get(value, fallback) for value in values.tolist()], np.int64)[of_row]


@dataclass(frozen=True)
class NumberColumn:
    """Converts a column of numbers to (value - shift) / scale."""

    shift: float
    scale: float

    def __call__(self, column: Column) -> Floats:
        """Convert (N,) values to (N, 1)."""
        return ((column.astype(np.float64) - self.shift) / self.scale).astype(np.float32)[:, None]


@dataclass(frozen=True)
class OneHotColumn:
    """Converts a column of labels to numbers: a 0 or 1 for each value."""

    labels: LabelColumn

    def __call__(self, column: Column) -> Floats:
        """Convert (N,) values to (N, values)."""
        return np.eye(len(self.labels.values), dtype=np.float32)[self.labels(column)]


def labels_of(column: Column, least: int, merge: bool) -> LabelColumn:
    """Fit labels to a column; with `merge`, values of fewer than `least` rows become one value, "other"."""
    counts = Counter(column.tolist())
    frequent = [value for value, rows in counts.items() if rows >= least]
    if merge and len(frequent) < len(counts):
        return LabelColumn([*sorted(frequent), "other"], other=True)
    return LabelColumn(sorted(counts))


def columns_of(columns: list[Column]) -> list[NumberColumn | OneHotColumn]:
    """Fit a conversion to numbers to each column: mean 0 and standard deviation 1 for numbers, one-hot for words."""
    return [
        _number(column) if is_numeric(column) else OneHotColumn(labels_of(column, 1, merge=False)) for column in columns
    ]


def _number(column: Column) -> NumberColumn:
    values = column.astype(np.float64)
    return NumberColumn(float(values.mean()), float(values.std()) or 1.0)


def is_numeric(column: Column) -> bool:
    """Return True if a column holds numbers."""
    return column.dtype.kind in "fiub"


def is_label(column: Column) -> bool:
    """Return True if a column is read as labels by default: words, truth values or whole numbers."""
    return column.dtype.kind in "USOiub"


def rare(column: Column, least: int) -> list[Any]:
    """List the values of fewer than `least` rows."""
    return sorted(value for value, rows in Counter(column.tolist()).items() if rows < least)
