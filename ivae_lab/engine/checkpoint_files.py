"""Checkpoint files: a kill at any moment leaves a good one, and damaged or foreign ones are refused on reading."""

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

SETTLED = "settled.ckpt"  # the models after `settle`, if they have it; beside the checkpoint


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
    """Read the last good checkpoint, `path` or the one before it; return it and a line for each damaged one.

    Raises
    ------
    The error that `expect` makes, for a good checkpoint of another configuration.
    """
    damaged = []
    for candidate in (path, _previous(path)):
        if not candidate.exists():
            continue
        try:
            snapshot = _load(candidate)
        except Exception as error:  # unzipping and unpickling a damaged file may raise anything
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            damaged.append(f"expected a readable checkpoint in {candidate}, got a damaged one ({reason})")
            continue
        if snapshot["fingerprint"] != fingerprint:
            other = snapshot["fingerprint"]
            raise expect(f"expected a checkpoint of configuration {fingerprint} in {candidate}, got one of {other}")
        return snapshot, damaged
    return None, [*damaged, "no good checkpoint: training again from the start"] if damaged else []


def forget_checkpoints(path: Path, but_last: bool = False) -> None:
    """Remove the checkpoints; `but_last`: only the one before the last."""
    _previous(path).unlink(missing_ok=True)
    if not but_last:
        path.unlink(missing_ok=True)


def _load(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:  # PyTorch itself does not check the checksums of the parts
        if broken := archive.testzip():
            raise zipfile.BadZipFile(f"wrong checksum of {broken}")
    snapshot: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if "fingerprint" not in snapshot:
        raise ValueError("no fingerprint")
    return snapshot


def _keep(path: Path) -> None:
    """Link the last checkpoint to the name of the previous one, so that a checkpoint of its own name always exists."""
    if path.exists():
        _previous(path).unlink(missing_ok=True)
        try:
            _previous(path).hardlink_to(path)
        except OSError:  # a file system without links
            path.replace(_previous(path))


def _previous(path: Path) -> Path:
    return path.with_name("previous.ckpt")
