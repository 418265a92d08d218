"""Tables in files, read in blocks of rows: .npy memory-mapped, Parquet and CSV from the disk, .npz whole.

What a column is called: in CSV and Parquet as the file says; of an array `x` (N, d) its columns are x_0 .. x_{d-1}, and
so are those of other arrays of as many rows; arrays (N,), such as `u` and `index`, are columns of their own. Beside an
`x.npy` these are `u.npy`, ...
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
UNREADABLE = (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)  # what damaged files raise
_PARQUET_ROWS = 16384  # read at once from a row group
_OF_ROWS = ("x", "u", "sources", "group", "index")  # arrays that have a row for each row
Array = NDArray[Any]
Read = Callable[[list[str], int], Iterable["pd.DataFrame"]]


@dataclass(frozen=True)
class Table:
    """A table that is read when it is asked for.

    Attributes
    ----------
    names
        Of the columns, in the file's order.
    rows
        N; of a CSV its lines, so that text with line breaks in it counts more than once.
    """

    path: Path
    names: list[str]
    rows: int
    read: Read  # (columns, rows at a time) to frames of about so many rows

    def blocks(self, columns: Sequence[str], size: int) -> Iterator[pd.DataFrame]:
        """The columns, `size` rows at a time, the last block with what is left; its index are the rows, from 0 on.

        Memory is that of a block, but for an .npz.

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
    """The table in a file; nothing but its head is read, or all of an .npz.

    Raises
    ------
    ValueError
        If there is no such file or what is in it is no table: one line.
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
    """The block as finite numbers: (B, columns).

    Raises
    ------
    ValueError
        If there is text, or a value that is missing, NaN or infinite: with its row and column.
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
    """Whether a CSV's first line names columns: by a word, or by 0, 1, 2, ... as pandas does without names."""
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
    paths = {"x": path} | {each.stem: each for each in beside if each.exists()}

    def mapped() -> dict[str, Array]:  # anew for each block, so that pages that were read are given back
        return {name: np.lib.format.open_memmap(each, mode="r") for name, each in paths.items()}

    return _of_arrays(
        mapped(), lambda start, stop: {name: np.array(each[start:stop]) for name, each in mapped().items()}
    )


def _of_arrays(arrays: Mapping[str, Array], cut: Callable[[int, int], dict[str, Array]]) -> tuple[list[str], int, Read]:
    rows = _rows_of(arrays)
    columns = {name: _named(name, each) for name, each in arrays.items() if each.ndim and len(each) == rows}
    owner = {column: name for name, own in columns.items() for column in own}

    def read(chosen: list[str], size: int) -> Iterator[pd.DataFrame]:
        wanted = dict.fromkeys(owner[column] for column in chosen)
        for start in range(0, rows, size):
            parts = cut(start, min(start + size, rows))
            frames = [pd.DataFrame(parts[name].reshape(len(parts[name]), -1), columns=columns[name]) for name in wanted]
            yield pd.concat(frames, axis=1)[chosen]

    return [*owner], rows, read


def _rows_of(arrays: Mapping[str, Array]) -> int:
    """N, of x, or of the first array with rows; a ValueError where another that should have as many has not."""
    tables = {name: each for name, each in arrays.items() if each.ndim}
    if not tables:
        raise ValueError(f"arrays {listed([*arrays])}, none of them with rows")
    rows = len(tables.get("x", next(iter(tables.values()))))
    if wrong := [f"{len(tables[name])} of {name}" for name in _OF_ROWS if name in tables and len(tables[name]) != rows]:
        raise ValueError(f"{rows} rows, but {listed(wrong)}")
    if not rows:
        raise ValueError("no rows")
    return rows


def _named(name: str, array: Array) -> list[str]:
    """What the columns of an array are called."""
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
    """The same rows in frames of `size` rows each, but for the last."""
    kept: list[pd.DataFrame] = []
    for frame in frames:
        kept.append(frame)
        while (held := sum(map(len, kept))) >= size:
            whole = kept[0] if len(kept) == 1 else pd.concat(kept, ignore_index=True)
            yield whole if held == size else whole.iloc[:size].copy()
            kept = [whole.iloc[size:]] if held > size else []
    if held := sum(map(len, kept)):
        yield pd.concat(kept, ignore_index=True)
