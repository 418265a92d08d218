"""How columns of a table become a model's x and u: what was fitted on the training part, kept for new rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ivae_lab.tabular.columns import Column, Labels, Number, OneHot

Floats = NDArray[np.floating[Any]]
Preprocess = Literal["none", "standardise", "whiten"]
_BESIDE = ("u", "index")  # columns that are none of x


@dataclass(frozen=True)
class Recipe:
    """From a table's columns to x and u: x = (columns - m) W, and u = place of the label among all labels, or numbers.

    Attributes
    ----------
    x_columns
        The columns that x is made of, in order; None: all that are named x_0, x_1, ..., or all but `u` and `index`.
    shift, scale
        m (d,) and W (d, d), as `ivae_lab.tabular.preprocessing.fit_preprocess` gives them; None: x as it is.
    fill
        Of each column, what stands for a missing value; None: none may be missing.
    codes
        Of each column, its values, where x are codes: x are their one-hot columns.
    window
        w: before anything else, the columns of rows t - w to t + w become those of row t.
    u_columns, u
        The columns that u is made of, and how: one of labels, or numbers of each; None: a column `u` as it is.
    """

    x_columns: list[str] | None = None
    shift: list[float] | None = None
    scale: list[list[float]] | None = None
    fill: list[float] | None = None
    codes: list[Labels] | None = None
    window: int = 0
    u_columns: list[str] | None = None
    u: Labels | list[Number | OneHot] | None = None

    def numbers(self, columns: Sequence[Column]) -> Floats:
        """Columns as the file has them, (N,) each, as numbers, (N, d'): missing values filled, codes one-hot.

        Raises
        ------
        ValueError
            If a code is none of those known.
        """
        if self.codes is not None:
            coded = zip(self.codes, columns, strict=True)
            return np.concatenate([OneHot(labels)(column) for labels, column in coded], 1)
        table = np.column_stack([column.astype(np.float64) for column in columns])
        return table if self.fill is None else np.where(np.isnan(table), np.array(self.fill), table)

    def windows(self, x: Floats, rows: NDArray[np.int64]) -> Floats:
        """These rows, each with `window` neighbours to both sides: (N, d) to (rows, (2 w + 1) d)."""
        return np.concatenate([x[rows + step] for step in range(-self.window, self.window + 1)], 1)

    def apply_u(self, columns: Sequence[Column]) -> NDArray[Any] | None:
        """The u that a model sees, labels (N,) or numbers (N, k), of the columns; None without any.

        Raises
        ------
        ValueError
            If a value is none of those known.
        """
        if self.u is None or isinstance(self.u, Labels):
            return None if not columns else columns[0] if self.u is None else self.u(columns[0])
        return np.concatenate([each(column) for each, column in zip(self.u, columns, strict=True)], 1)

    def apply(self, x: Floats) -> NDArray[np.float32]:
        """The x that a model sees, (N, d), of the table's columns; computed in float64 and rounded."""
        if self.shift is None or self.scale is None:
            return x.astype(np.float32)
        return ((x - np.array(self.shift)) @ np.array(self.scale)).astype(np.float32)  # type: ignore[no-any-return]

    def invert(self, x: Floats) -> Floats:
        """Columns of the table, (N, d), of what `apply` gives; in float64 where anything was done to x."""
        if self.shift is None or self.scale is None:
            return x
        columns: Floats = np.linalg.solve(np.array(self.scale).T, x.astype(np.float64).T).T + np.array(self.shift)
        return columns

    @property
    def log_volume(self) -> float:
        """The log |det W| that a log-density of the model's x lacks to that of the columns, in nats."""
        return 0.0 if self.scale is None else float(np.linalg.slogdet(np.array(self.scale))[1])

    def columns(self, names: Sequence[str]) -> list[str]:
        """The columns of x, of a table with columns of these names."""
        if self.x_columns is not None:
            return self.x_columns
        numbered = [name for name in names if name.startswith("x_") and name[2:].isdecimal()]
        return sorted(numbered, key=lambda name: int(name[2:])) or [name for name in names if name not in _BESIDE]

    def to_json(self) -> str:
        """As text, from which `from_json` makes the same numbers."""
        return str(_adapter().dump_json(self).decode()) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """What `to_json` has written."""
        return _adapter().validate_json(text)  # type: ignore[no-any-return]


@cache
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Recipe)


def fit_preprocess(train_x: Floats, kind: Preprocess, leading: int) -> Recipe:
    """Shift m (d,) and matrix W (d, d) so that (x - m) W has unit variances, or is whitened; of `none` neither.

    Whitening is along the principal axes V, in decreasing order of their variances s: W = V diag(s)^(-1/2), which
    gives identity covariance. Axes after the first `leading` (as many as there are sources) take the scale of the last
    of these: with more observed dimensions than sources they hold only the bends of a thin sheet, and at unit variance
    they would drown it.
    """
    if kind == "none":
        return Recipe()
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
    return Recipe(shift=shift.tolist(), scale=(axes / np.sqrt(variances)).tolist())
