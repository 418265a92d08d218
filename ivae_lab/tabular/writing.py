"""Write blocks of named arrays to a file one by one: Parquet of any size, or .npz, which memory holds until the end.

In Parquet an array (N, k) called `mean` becomes k columns mean_0 .. mean_(k-1); in .npz it stays an array.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ivae_lab.terminal.command_line import BadInputError, written

if TYPE_CHECKING:
    from rich.console import Console

SUFFIXES = (".parquet", ".npz")
Block = dict[str, NDArray[Any]]  # arrays (B, ...) by name
_LINE_SECONDS = 10.0  # between progress lines where there is no terminal
_ROWS, _MOST_ROWS, _NUMBERS = 2**11, 2**16, 2**21  # in a block: least rows, most rows, and numbers of a wide table


def block_rows(columns: int) -> int:
    """Return the number of rows to read, encode and write at once: fewer for wide tables, to bound the memory."""
    return max(_ROWS, min(_MOST_ROWS, _NUMBERS // columns) // _ROWS * _ROWS)


def out_path(text: str) -> Path:
    """Parse the path of the file to write.

    Raises
    ------
    BadInputError
        If its suffix is none of `SUFFIXES`.
    """
    path = Path(text)
    if path.suffix not in SUFFIXES:
        raise BadInputError(f"expected out= a file {' or '.join(SUFFIXES)}, got {text}")
    return path


def stream(path: Path, blocks: Iterable[Block], total: int, console: Console) -> None:
    """Write the blocks, and show progress, rate and time left; the file gets its name when it is whole.

    Raises
    ------
    BadInputError
        If the path cannot be written.
    """
    began, rows = time.monotonic(), 0
    with written(path) as temporary:
        for count in _write(temporary, _watched(blocks, total, console)):
            rows += count
    seconds = time.monotonic() - began
    rate = rows / max(seconds, 1e-9)
    console.print(f"{rows} rows in {seconds:.1f} s, {rate:.0f} rows/s: {path}", soft_wrap=True, highlight=False)


def _write(path: Path, blocks: Iterable[Block]) -> Iterator[int]:
    return _npz(path, blocks) if path.suffix == ".npz" else _parquet(path, blocks)


def _npz(path: Path, blocks: Iterable[Block]) -> Iterator[int]:
    collected: list[Block] = []
    for block in blocks:
        collected.append(block)
        yield _rows(block)
    arrays: Block = {name: np.concatenate([block[name] for block in collected]) for name in collected[0]}
    with path.open("wb") as handle:
        np.savez(handle, **arrays)  # type: ignore[arg-type]


def _parquet(path: Path, blocks: Iterable[Block]) -> Iterator[int]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    try:
        for block in blocks:
            table = pa.table(_columns(block))
            writer = writer or pq.ParquetWriter(path, table.schema, use_dictionary=False)
            writer.write_table(table)
            yield len(table)
    finally:
        if writer is not None:
            writer.close()


def _columns(block: Block) -> Block:
    """Split arrays (B, k) into columns, named by the array and the position in it."""
    columns: Block = {}
    for name, values in block.items():
        places = np.ndindex(values.shape[1:])
        columns |= {"_".join([name, *map(str, place)]): values[(slice(None), *place)] for place in places}
    return columns


def _watched(blocks: Iterable[Block], total: int, console: Console) -> Iterator[Block]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} rows, {task.fields[rate]:.0f} rows/s,"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=total, rate=0.0)
        began = last_line = time.monotonic()
        rows = 0
        for block in blocks:
            yield block
            rows, now = rows + _rows(block), time.monotonic()
            rate = rows / max(now - began, 1e-9)
            bar.update(task, completed=rows, rate=rate)
            if not console.is_terminal and now - last_line > _LINE_SECONDS:
                last_line, left = now, timedelta(seconds=round((total - rows) / rate))
                console.print(f"{rows} of {total} rows, {rate:.0f} rows/s, {left} left", highlight=False)


def _rows(block: Block) -> int:
    return len(next(iter(block.values())))
