"""Image files for tests: the real ones where they are, small ones made here, and a check of one-line errors."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

_ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("IVAE_LAB_DATA") or _ROOT.parent / "shared" / "data")


def shared(name: str) -> Path:
    """A real file below the data root; the test is skipped where it is not there."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"no real data: {name} is neither under IVAE_LAB_DATA nor in ../shared/data")
    return path


def idx(array: NDArray[np.uint8]) -> bytes:
    """An IDX file's content."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def written(path: Path, content: bytes) -> Path:
    """Write `content`, through gzip if the path ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


@contextmanager
def refused(*parts: str) -> Iterator[pytest.ExceptionInfo[ValueError]]:
    """Expect a ValueError of one line: expected ..., got ..., with these parts."""
    with pytest.raises(ValueError, match=r"expected .*got") as caught:
        yield caught
    told = str(caught.value)
    assert "\n" not in told
    for part in parts:
        assert part in told


def refuses(read: Callable[[Path], Any], path: Path, *parts: str) -> None:
    """Expect that `read` refuses the file, naming it."""
    with refused(str(path), *parts):
        read(path)
