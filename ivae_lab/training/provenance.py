"""Provenance of a run for its status: versions, commit, machine and Slurm job; and the error of a stopped run."""

from __future__ import annotations

import hashlib
import os
import platform
import signal
import socket
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ivae_lab.config.digests import digest

SCHEDULER = signal.SIGUSR2  # the signal that Slurm sends for submitit before a time-out or a preemption
_LIBRARIES = ("torch", "lightning", "hydra-core", "numpy", "scipy", "scikit-learn", "pandas")


class StoppedError(RuntimeError):
    """A signal stopped the training; its checkpoint is written.

    Attributes
    ----------
    signal
        The signal's number.
    """

    def __init__(self, folder: Path, number: int, step: int, total: int, forced: bool) -> None:
        without = " without force=true" if forced else ""
        super().__init__(
            f"stopped by {signal.Signals(number).name} after step {step} of {total}; "
            f"the same command{without} continues from {folder}"
        )
        self.signal = number


def environment() -> dict[str, Any]:
    """Return versions, commit and machine, for the status of a run."""
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
        "commit": _commit(),
        "code": code(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "job": job(),
    }


@cache
def code() -> str:
    """Return a digest of the package's source code: a run that failed under it would fail again under it."""
    root = Path(__file__).resolve().parents[1]
    return digest([hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(root.rglob("*.py"))])


def job() -> dict[str, Any] | None:
    """Describe the Slurm job of this process: id, node, GPUs, number of restarts, log; None outside of a job."""
    if "SLURM_JOB_ID" not in os.environ:
        return None
    number = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        number = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    log = None
    if os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
        from submitit import JobEnvironment

        log = str(JobEnvironment().paths.stderr)
    return {
        "id": number,
        "node": os.environ.get("SLURMD_NODENAME"),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "restarts": restarts(),
        "log": log,
    }


def restarts() -> int:
    """Number of times that Slurm has restarted this job."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))


def _commit() -> str | None:
    """The commit of the clone that this code runs from, with a mark if files were changed; None without a clone."""
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
