"""Lock run folders, so that only one process trains a run."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class BusyError(RuntimeError):
    """Another process holds the run folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a run folder for this process; the lock is released when the process ends, however it ends."""
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"expected {folder} to be free, got one in which another process is training") from None
        yield


def is_free(folder: Path) -> bool:
    """Return True if no process holds the lock of a run folder."""
    try:
        with locked(folder):
            return True
    except FileNotFoundError:  # the folder does not exist yet
        return True
    except BusyError:
        return False
