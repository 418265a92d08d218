"""Run folders: their names, their lock, and their status. What is in them is said in `results.py`."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ivae_lab.results import atomic

_LIBRARIES = ("torch", "lightning", "hydra-core", "numpy", "scipy", "scikit-learn", "pandas")


class BusyError(RuntimeError):
    """Another process holds the run folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder for this process; the lock falls with the process, however it ends."""
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"expected {folder} to be free, got one in which another process is training") from None
        yield


def is_free(folder: Path) -> bool:
    """Whether no process holds a run folder."""
    try:
        with locked(folder):
            return True
    except FileNotFoundError:  # not even begun
        return True
    except BusyError:
        return False


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, complete or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def environment() -> dict[str, Any]:
    """Versions, commit and machine, for the status of a run."""
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
        "commit": _commit(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }


def _commit() -> str | None:
    """The commit of the clone that this code runs from, with a mark if it was changed; None without a clone."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
