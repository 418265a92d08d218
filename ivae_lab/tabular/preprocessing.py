"""Convert columns of a table to a model's x and u, as fitted on the training part; saved with a run for new rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ivae_lab.tabular.columns import Column, LabelColumn, NumberColumn, OneHotColumn

Floats = NDArray[np.floating[Any]]
Preprocess = Literal["none", "standardise", "whiten"]
_NOT_X = ("u", "index")  # columns that are not part of x


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of a table's columns: x = (columns - m) W, and u the label's position among all labels, or numbers.

    Attributes
    ----------
    x_columns
        The columns that x is made of, in order; None: all that are named x_0, x_1, ..., or all but `u` and `index`.
    shift, scale
        m (d,) and W (d, d), see `fit_preprocess`; None: x is not changed.
    fill
        The number that replaces a missing value, for each column; None: no value may be missing.
    codes
        The values of each column, where x are codes: x are their one-hot columns.
    window
        w: before anything else, the columns of rows t - w to t + w become those of row t.
    u_columns, u
        The columns that u is made of, and their conversions: one column to labels, or each column to numbers; None: a
        column `u` that is not changed.
    """

    x_columns: list[str] | None = None
    shift: list[float] | None = None
    scale: list[list[float]] | None = None
    fill: list[float] | None = None
    codes: list[LabelColumn] | None = None
    window: int = 0
    u_columns: list[str] | None = None
    u: LabelColumn | list[NumberColumn | OneHotColumn] | None = None

    def numbers(self, columns: Sequence[Column]) -> Floats:
        """Convert columns of the file, each (N,), to numbers (N, d'): missing values filled, codes one-hot.

        Raises
        ------
        ValueError
            If a code is unknown.
        """
        if self.codes is not None:
            coded = zip(self.codes, columns, strict=True)
            return np.concatenate([OneHotColumn(labels)(column) for labels, column in coded], 1)
        table = np.column_stack([column.astype(np.float64) for column in columns])
        return table if self.fill is None else np.where(np.isnan(table), np.array(self.fill), table)

    def windows(self, x: Floats, rows: NDArray[np.int64]) -> Floats:
        """Append to each of these rows its `window` neighbours on both sides: (N, d) to (rows, (2 w + 1) d)."""
        return np.concatenate([x[rows + step] for step in range(-self.window, self.window + 1)], 1)

    def apply_u(self, columns: Sequence[Column]) -> NDArray[Any] | None:
        """Convert the columns to the model's u, labels (N,) or numbers (N, k); None without columns.

        Raises
        ------
        ValueError
            If a label is unknown.
        """
        if self.u is None or isinstance(self.u, LabelColumn):
            return None if not columns else columns[0] if self.u is None else self.u(columns[0])
        return np.concatenate([convert(column) for convert, column in zip(self.u, columns, strict=True)], 1)

    def apply(self, x: Floats) -> NDArray[np.float32]:
        """Convert the table's columns to the model's x, (N, d), in float64, rounded to float32."""
        if self.shift is None or self.scale is None:
            return x.astype(np.float32)
        return ((x - np.array(self.shift)) @ np.array(self.scale)).astype(np.float32)  # type: ignore[no-any-return]

    def invert(self, x: Floats) -> Floats:
        """Undo `apply`: the model's x to columns of the table, (N, d), in float64 where `apply` changes x."""
        if self.shift is None or self.scale is None:
            return x
        columns: Floats = np.linalg.solve(np.array(self.scale).T, x.astype(np.float64).T).T + np.array(self.shift)
        return columns

    @property
    def log_volume(self) -> float:
        """Log-volume log |det W| in nats: log-density of the table's columns minus that of the model's x."""
        return 0.0 if self.scale is None else float(np.linalg.slogdet(np.array(self.scale))[1])

    def columns(self, names: Sequence[str]) -> list[str]:
        """Name the columns of x in a table with columns of these names."""
        if self.x_columns is not None:
            return self.x_columns
        numbered = [name for name in names if name.startswith("x_") and name[2:].isdecimal()]
        return sorted(numbered, key=lambda name: int(name[2:])) or [name for name in names if name not in _NOT_X]

    def to_json(self) -> str:
        """Write as JSON, which `from_json` reads back to the same numbers."""
        return str(_adapter().dump_json(self).decode()) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """Read the text that `to_json` wrote."""
        return _adapter().validate_json(text)  # type: ignore[no-any-return]


@cache
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Preprocessing)


def fit_preprocess(train_x: Floats, kind: Preprocess, leading: int) -> Preprocessing:
    """Fit shift m (d,) and matrix W (d, d) so that (x - m) W has unit variances or is whitened; neither for `none`.

    Whitening is along the principal axes V, in decreasing order of their variances s: W = V diag(s)^(-1/2), which
    gives identity covariance. Axes after the first `leading` (as many as there are sources) take the scale of the last
    of these: with more observed dimensions than sources they hold only the curvature of a thin sheet, which would
    dominate at unit variance.

    Raises
    ------
    ValueError
        If x does not vary in enough directions.
    """
    if kind == "none":
        return Preprocessing()
    x = train_x.astype(np.float64)
    shift = x.mean(0)
    covariance = (x - shift).T @ (x - shift) / len(x)  # (d, d)
    if kind == "standardise":
        axes, variances, needed = np.eye(len(shift)), np.diag(covariance), len(shift)
    else:
        ascending, vectors = np.linalg.eigh(covariance)
        axes, variances, needed = vectors[:, ::-1], ascending[::-1], leading
    # x is float32: a variance below this share of the largest is rounding.
    varying = int((variances > variances.max() * np.finfo(np.float32).eps ** 2).sum())
    if varying < needed:
        raise ValueError(f"expected x to vary in {needed} directions of the training part to {kind} it, got {varying}")
    if kind == "whiten":
        variances = np.maximum(variances, variances[leading - 1])
    return Preprocessing(shift=shift.tolist(), scale=(axes / np.sqrt(variances)).tolist())
