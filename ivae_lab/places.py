"""Where the configuration and the experiments lie: beside the package in a clone, inside it in an installed wheel.

The environment variable IVAE_LAB_EXPERIMENTS names another folder of experiments, such as one's own figures.
"""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _place(name: str) -> Path:
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


CONFIG = _place("conf")
EXPERIMENTS = Path(os.environ.get("IVAE_LAB_EXPERIMENTS") or _place("experiments"))
