"""Files of a user's own: an .npz of arrays, a .csv or a .parquet with named columns. Nothing in them is executed."""

from __future__ import annotations

import difflib
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[Any]  # (N,)
KINDS = (".npz", ".csv", ".parquet")
_UNREADABLE = (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Table:
    """Columns by name, (N,) each; an array (N, k) of an .npz has the columns `<array>_0` and so on.

    Attributes
    ----------
    arrays
        Columns that belong to each array of an .npz, and each other column by itself.
    named
        Whether the file has named columns, and not arrays.
    """

    path: Path
    columns: dict[str, Column]
    arrays: dict[str, list[str]]
    named: bool

    @property
    def rows(self) -> int:
        """N."""
        return len(next(iter(self.columns.values())))

    def chosen(self, key: str, names: list[str]) -> list[str]:
        """The columns that names of arrays or of columns stand for.

        Raises
        ------
        ValueError
            With the nearest names, if there is none of that name.
        """
        for name in names:
            if name not in self.arrays and name not in self.columns:
                near = difflib.get_close_matches(name, [*self.arrays], n=3) or [*self.arrays][:8]
                what = "columns" if self.named else "arrays"
                raise ValueError(
                    f"expected {key} among the {what} of {self.path}, such as {', '.join(near)}; got {name}"
                )
        return [column for name in names for column in self.arrays.get(name, [name])]


def read_table(path: Path) -> Table:
    """Read a whole file.

    Raises
    ------
    ValueError
        If it is none of these files, can't be read, has no rows, or arrays of different length, of objects, or of more
        than two dimensions.
    """
    if path.suffix not in KINDS:
        raise ValueError(f"expected a file of {', '.join(KINDS)}, got {path}")
    try:
        table = _of_arrays(path) if path.suffix == ".npz" else _of_columns(path)
    except FileNotFoundError:
        raise ValueError(f"expected a file at {path}, got none") from None
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"expected a table in {path}, got: {reason}") from None
    if not table.columns or not table.rows:
        raise ValueError(f"expected rows and columns in {path}, got none")
    return table


def _of_columns(path: Path) -> Table:
    import pandas as pd

    frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    columns = {str(name): frame[name].to_numpy() for name in frame}
    return Table(path, columns, {name: [name] for name in columns}, named=True)


def _of_arrays(path: Path) -> Table:
    with np.load(path, allow_pickle=False) as file:  # an array of objects raises
        arrays = {name: file[name] for name in file.files}
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"arrays of different length ({said})")
    columns: dict[str, Column] = {}
    owned: dict[str, list[str]] = {}
    for name, array in arrays.items():
        if array.ndim > 2:
            raise ValueError(f"an array {name} of shape {array.shape}, where (N,) or (N, k) was expected")
        owned[name] = [name] if array.ndim == 1 else [f"{name}_{i}" for i in range(array.shape[1])]
        columns |= dict(zip(owned[name], _columns(array), strict=True))
    return Table(path, columns, owned, named=False)


def _columns(array: NDArray[Any]) -> Iterator[Column]:
    return iter([array] if array.ndim == 1 else array.T)
