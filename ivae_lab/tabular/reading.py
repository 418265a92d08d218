"""Read tables from files in blocks of rows: .npy memory-mapped, Parquet and CSV from the disk, .npz whole.

Names of columns: CSV and Parquet files have them. The columns of an array `x` (N, d) are x_0 .. x_{d-1}, and likewise
those of other arrays of as many rows; an array (N,), such as `u` and `index`, is one column of its name. These arrays
stand in the .npz itself, or beside an `x.npy` in `u.npy` and `index.npy`.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ivae_lab.terminal.lazy import Later
from ivae_lab.terminal.messages import listed, one_line

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Later("pandas")

SUFFIXES = (".npz", ".npy", ".parquet", ".csv")
UNREADABLE = (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)  # errors of damaged files
_PARQUET_ROWS = 16384  # read at once from a row group
_OF_ROWS = ("x", "u", "sources", "group", "index")  # arrays that must all have N rows
Array = NDArray[Any]
Read = Callable[[list[str], int], Iterable["pd.DataFrame"]]


@dataclass(frozen=True)
class Table:
    """A table in a file, whose rows are read block by block.

    Attributes
    ----------
    names
        Names of the columns, in the file's order.
    rows
        N; for a CSV the number of lines, so that text with line breaks in it counts more than once.
    """

    path: Path
    names: list[str]
    rows: int
    read: Read  # (columns, block size) to data frames of about so many rows

    def blocks(self, columns: Sequence[str], size: int) -> Iterator[pd.DataFrame]:
        """Read columns, `size` rows at a time and the rest in the last block; the index is the row number, from 0 on.

        Memory holds one block only, but all of an .npz.

        Raises
        ------
        ValueError
            If there is no such column, or the file is damaged: one line.
        """
        if absent := [name for name in columns if name not in self.names]:
            raise ValueError(f"expected a column {absent[0]} in {self.path}, got {listed(self.names)}")
        start = 0
        for frame in _exactly(self._read(columns, size), size):
            frame.index = pd.RangeIndex(start, start := start + len(frame))
            yield frame

    def _read(self, columns: Sequence[str], size: int) -> Iterator[pd.DataFrame]:
        try:
            yield from self.read([*columns], size)
        except UNREADABLE as error:
            raise ValueError(f"expected a readable table in {self.path}, got: {one_line(error)}") from None


def open_table(path: Path) -> Table:
    """Open the table in a file; this reads only its head, or all of an .npz.

    Raises
    ------
    ValueError
        If there is no such file, or it holds no table: one line.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"expected a file {', '.join(SUFFIXES)}, got {path}")
    openers = {".npz": _of_npz, ".npy": _of_npy, ".parquet": _of_parquet, ".csv": _of_csv}
    try:
        names, rows, read = openers[path.suffix](path)
    except FileNotFoundError as error:
        raise ValueError(f"expected a file {error.filename or path}, got none") from None
    except UNREADABLE as error:
        raise ValueError(f"expected a table in {path}, got: {one_line(error)}") from None
    return Table(path, names, rows, read)


def numbers(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Convert a block to finite numbers: (B, columns).

    Raises
    ------
    ValueError
        If there is text, or a value that is missing, NaN or infinite; the message has its row and column.
    """
    try:
        values: NDArray[np.float64] = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError):
        text = next(name for name in frame if not pd.api.types.is_numeric_dtype(frame[name]))
        raise ValueError(f"expected numbers in column {text}, got text") from None
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        got = frame.iloc[row, column]
        raise ValueError(
            f"expected finite numbers, got {got} in row {frame.index[row]}, column {frame.columns[column]}"
        )
    return values


def has_header(path: Path) -> bool:
    """Return True if a CSV's first line names the columns: it has a word, or is 0, 1, 2, ... as pandas writes them."""
    first = pd.read_csv(path, header=None, nrows=1, dtype=str).iloc[0].dropna()
    return bool(pd.to_numeric(first, errors="coerce").isna().any()) or [*first] == [str(i) for i in range(len(first))]


def _of_npz(path: Path) -> tuple[list[str], int, Read]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:  # else NumPy leaves a torn file open
        arrays = dict(stored)
    return _of_arrays(
        arrays, lambda start, stop: {name: arrays[name][start:stop] for name in arrays if arrays[name].ndim}
    )


def _of_npy(path: Path) -> tuple[list[str], int, Read]:
    beside = [path.with_name(f"{name}.npy") for name in ("u", "index") if path.stem == "x"]
    paths = {"x": path} | {file.stem: file for file in beside if file.exists()}

    def mapped() -> dict[str, Array]:  # anew for each block, so that the memory of read pages is freed
        return {name: np.lib.format.open_memmap(file, mode="r") for name, file in paths.items()}

    return _of_arrays(
        mapped(), lambda start, stop: {name: np.array(array[start:stop]) for name, array in mapped().items()}
    )


def _of_arrays(arrays: Mapping[str, Array], cut: Callable[[int, int], dict[str, Array]]) -> tuple[list[str], int, Read]:
    rows = _rows_of(arrays)
    columns = {name: _column_names(name, array) for name, array in arrays.items() if array.ndim and len(array) == rows}
    array_of = {column: name for name, of_array in columns.items() for column in of_array}

    def read(chosen: list[str], size: int) -> Iterator[pd.DataFrame]:
        wanted = dict.fromkeys(array_of[column] for column in chosen)
        for start in range(0, rows, size):
            parts = cut(start, min(start + size, rows))
            frames = [pd.DataFrame(parts[name].reshape(len(parts[name]), -1), columns=columns[name]) for name in wanted]
            yield pd.concat(frames, axis=1)[chosen]

    return [*array_of], rows, read


def _rows_of(arrays: Mapping[str, Array]) -> int:
    """Return N, the rows of x, or of the first array; raise ValueError if another of `_OF_ROWS` differs."""
    tables = {name: array for name, array in arrays.items() if array.ndim}
    if not tables:
        raise ValueError(f"arrays {listed([*arrays])}, none of them with rows")
    rows = len(tables.get("x", next(iter(tables.values()))))
    if wrong := [f"{len(tables[name])} of {name}" for name in _OF_ROWS if name in tables and len(tables[name]) != rows]:
        raise ValueError(f"{rows} rows, but {listed(wrong)}")
    if not rows:
        raise ValueError("no rows")
    return rows


def _column_names(name: str, array: Array) -> list[str]:
    """Name the columns of an array."""
    if name == "x" and (array.ndim < 2 or array.dtype.kind not in "fiubUS" or not array[:1].size):
        raise ValueError(f"an x of {array.dtype} {array.shape}; (N, d) is expected")
    return [name] if array.ndim == 1 else [f"{name}_{i}" for i in range(array[0].size)]


def _of_parquet(path: Path) -> tuple[list[str], int, Read]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names, rows = file.schema_arrow.names, file.metadata.num_rows

    def read(columns: list[str], size: int) -> Iterator[pd.DataFrame]:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(min(size, _PARQUET_ROWS), columns=columns, use_threads=False):
                yield batch.to_pandas()[columns]

    return names, rows, read


def _of_csv(path: Path) -> tuple[list[str], int, Read]:
    header = has_header(path)
    head = pd.read_csv(path, header=0 if header else None, nrows=1)
    names = [str(name) for name in head] if header else [f"x_{i}" for i in range(head.shape[1])]
    with path.open("rb") as file:
        rows = sum(1 for line in file if line.strip()) - header

    def read(columns: list[str], size: int) -> Iterator[pd.DataFrame]:
        options: dict[str, Any] = {"names": names, "header": 0 if header else None, "usecols": columns}
        with pd.read_csv(path, chunksize=size, low_memory=False, **options) as chunks:
            for chunk in chunks:
                yield chunk[columns]

    return names, rows, read


def _exactly(frames: Iterable[pd.DataFrame], size: int) -> Iterator[pd.DataFrame]:
    """Regroup rows into frames of `size` rows each; the last one may have fewer."""
    pending: list[pd.DataFrame] = []
    for frame in frames:
        pending.append(frame)
        while (rows := sum(map(len, pending))) >= size:
            whole = pending[0] if len(pending) == 1 else pd.concat(pending, ignore_index=True)
            yield whole if rows == size else whole.iloc[:size].copy()
            pending = [whole.iloc[size:]] if rows > size else []
    if sum(map(len, pending)):
        yield pd.concat(pending, ignore_index=True)
