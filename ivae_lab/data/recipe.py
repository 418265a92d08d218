"""How rows of a file become what a model sees, fitted on the training part: what a run keeps for new rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from ivae_lab.data.parts import starts_of
from ivae_lab.data.u import Column, Labels, Number, OneHot

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """From columns of a file to x and u.

    Parameters
    ----------
    x
        Names of the columns that x is made of; None where a data set of ours has no names: any d columns.
    fill
        Of each, what stands for a missing value; None: there must be none.
    codes
        Of each, its values, where they are codes.
    window
        w: a row's x are those of rows t - w to t + w, one after another.
    shift, scale
        x becomes (x - shift) scale, with a matrix `scale`; None: as it is.
    u_names, u
        The columns that u is made of, and how: labels, or numbers of each column; None: no u from a file.
    """

    x: tuple[str, ...] | None = None
    fill: tuple[float, ...] | None = None
    codes: tuple[Labels, ...] | None = None
    window: int = 0
    shift: tuple[float, ...] | None = None
    scale: tuple[tuple[float, ...], ...] | None = None
    u_names: tuple[str, ...] = ()
    u: Labels | tuple[Number | OneHot, ...] | None = None

    def x_of(self, columns: list[Column], rows: Rows | None = None) -> Floats:
        """The x that a model sees, (N, d), of columns; `rows` are those in the middle of a window, or all."""
        raw = (
            np.column_stack([_numbers(column) for column in columns]) if self.codes is None else self._one_hot(columns)
        )
        if self.fill is not None:
            raw = np.where(np.isnan(raw), np.asarray(self.fill), raw)
        x = self.windows(raw, np.arange(len(raw)) if rows is None else rows)
        if self.shift is None or self.scale is None:
            return x.astype(np.float32)
        whitened: Floats = ((x - np.asarray(self.shift)) @ np.asarray(self.scale)).astype(np.float32)
        return whitened

    def windows(self, x: NDArray[Any], rows: Rows) -> NDArray[Any]:
        """Each row with its neighbours: (N, d) to (rows, (2 w + 1) d)."""
        around = range(-self.window, self.window + 1)
        return np.concatenate([x[rows + step] for step in around], 1) if self.window else x[rows]

    def u_of(self, columns: list[Column]) -> NDArray[Any] | None:
        """Labels (N,) or columns (N, k)."""
        if self.u is None:
            return None
        if isinstance(self.u, Labels):
            return self.u(columns[0])
        return np.concatenate([each(column) for each, column in zip(self.u, columns, strict=True)], 1)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_bytes(_ADAPTER.dump_json(self, indent=1))

    @staticmethod
    def load(path: Path) -> Recipe:
        """Read it again; a ValueError where it is not one."""
        return _ADAPTER.validate_json(path.read_bytes())

    def _one_hot(self, columns: list[Column]) -> Floats:
        assert self.codes is not None
        return np.concatenate([OneHot(own)(column) for own, column in zip(self.codes, columns, strict=True)], 1)


def middles(runs: NDArray[Any], window: int) -> Rows:
    """Rows that have `window` neighbours to both sides in their run of rows: (N,) to row numbers."""
    starts = np.flatnonzero(starts_of(runs))
    ends = np.append(starts[1:], len(runs))
    inner = zip(starts + window, ends - window, strict=True)
    return np.concatenate([np.arange(start, max(start, end)) for start, end in inner])


def _numbers(column: Column) -> NDArray[np.float64]:
    return column.astype(np.float64)


_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Recipe)
