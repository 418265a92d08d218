"""How columns of a table become a model's x and u: what was fitted on the training part, kept for new rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
_BESIDE = ("u", "index")  # columns that are none of x


@dataclass(frozen=True)
class Recipe:
    """From a table's columns to x and u: x = (columns - m) W, and u = place of the label among all labels.

    Attributes
    ----------
    x_columns
        The columns that x is made of, in order; None: all that are named x_0, x_1, ..., or all but `u` and `index`.
    shift, scale
        m (d,) and W (d, d), as `ivae_lab.data.tcl.fit_preprocess` gives them; None: x as it is.
    u_labels
        The M labels of u, in order; None: u is its place, 0 .. M - 1.
    """

    x_columns: list[str] | None = None
    shift: list[float] | None = None
    scale: list[list[float]] | None = None
    u_labels: list[Any] | None = None

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
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """What `to_json` has written."""
        return cls(**json.loads(text))
