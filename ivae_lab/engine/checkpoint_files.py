"""Checkpoint files: written so that a kill at any moment leaves a good one, and read without trust."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ivae_lab.storage.atomic import atomic
from ivae_lab.terminal.lazy import Later

if TYPE_CHECKING:  # a run that is refused needs neither, and Lightning takes seconds
    import pandas as pd
else:
    pd = Later("pandas")

SETTLED = "settled.ckpt"  # the models as they are after `settle`, of those that have it; beside the checkpoint


def save_checkpoint(path: Path, snapshot: dict[str, Any]) -> None:
    """Write a checkpoint beside its final name and rename it; the one before it stays as `previous.ckpt`."""
    buffer = io.BytesIO()
    torch.save(snapshot, buffer)
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
        _keep(path)


def load_checkpoint(
    path: Path, fingerprint: str, expect: Callable[[str], Exception]
) -> tuple[dict[str, Any] | None, list[str]]:
    """Read the last good checkpoint: `path`, or the one before it; and say which are damaged.

    Raises
    ------
    What `expect` makes, for a good one of another configuration.
    """
    damaged = []
    for candidate in (path, _previous(path)):
        if not candidate.exists():
            continue
        try:
            snapshot = _load(candidate)
        except Exception as error:  # whatever a damaged file makes of unzipping and unpickling
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            damaged.append(f"expected a readable checkpoint in {candidate}, got a damaged one ({reason})")
            continue
        if snapshot["fingerprint"] != fingerprint:
            found = snapshot["fingerprint"]
            raise expect(f"expected a checkpoint of configuration {fingerprint} in {candidate}, got one of {found}")
        return snapshot, damaged
    return None, [*damaged, "no good checkpoint: training again from the start"] if damaged else []


def forget_checkpoints(path: Path, but_last: bool = False) -> None:
    """Remove the checkpoints; `but_last`: only the one before the last."""
    _previous(path).unlink(missing_ok=True)
    if not but_last:
        path.unlink(missing_ok=True)


def _load(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:  # PyTorch itself does not hold the parts against their checksums
        if broken := archive.testzip():
            raise zipfile.BadZipFile(f"wrong checksum of {broken}")
    snapshot: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if "fingerprint" not in snapshot:
        raise ValueError("no fingerprint")
    return snapshot


def _keep(path: Path) -> None:
    """Give the last checkpoint the name of the one before it too, so that there is one of its own name all along."""
    if path.exists():
        _previous(path).unlink(missing_ok=True)
        try:
            _previous(path).hardlink_to(path)
        except OSError:  # a file system without links
            path.replace(_previous(path))


def _previous(path: Path) -> Path:
    return path.with_name("previous.ckpt")
