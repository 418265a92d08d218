"""Paths of the configuration and the experiments: beside the package in a clone, inside it in an installed wheel.

The environment variable IVAE_LAB_EXPERIMENTS names another folder of experiments, such as one's own figures. Importing
this module registers the resolvers that the configuration uses, such as `${content:FILE}`.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

from omegaconf import OmegaConf

_PACKAGE = Path(__file__).resolve().parents[1]


def _place(name: str) -> Path:
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


CONFIG = _place("conf")
EXPERIMENTS = Path(os.environ.get("IVAE_LAB_EXPERIMENTS") or _place("experiments"))


def content(path: str | None) -> str | None:
    """Return the SHA-256 of a file; None if it does not exist: the code that reads it raises a clearer error."""
    file = Path(path or "")
    return _sha256(file, file.stat().st_mtime_ns) if file.is_file() else None


@cache
def _sha256(file: Path, written: int) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


OmegaConf.register_new_resolver("content", content, replace=True)
