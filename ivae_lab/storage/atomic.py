"""Write a file whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, with its suffix, and rename it to `path` at the end.

    A reader sees the old file or the new one, never half of it, even after a crash. If writing raises an error, the
    temporary file is removed and the old file stays.

    Examples
    --------
    >>> with atomic(folder / "latents.npz") as temporary:  # doctest: +SKIP
    ...     np.savez(temporary, mean=mean)
    """
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until the file or folder is on the disk, so that the name never comes before the content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
