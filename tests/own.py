"""Files such as a user brings."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np


@cache
def own_file(observation: str = "real") -> Path:
    """An .npz with 96 rows x of three columns, labels u and two sources, that lies there as long as the tests run."""
    folder = Path(tempfile.mkdtemp(prefix="ivae_lab-own-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    rng = np.random.default_rng(0)
    u = np.repeat(np.array(["day", "dusk", "night"]), 32)
    z = rng.normal(size=(96, 2)) * np.repeat([[1, 2], [2, 1], [0.5, 0.5]], 32, 0)
    x = z @ rng.normal(size=(2, 3)) + 0.1 * rng.normal(size=(96, 3))
    x = {"real": x, "counts": np.floor(np.exp(x)), "codes": np.round(x).astype(np.int64) % 3}[observation]
    np.savez(folder / f"{observation}.npz", x=x, u=u, sources=z)
    return folder / f"{observation}.npz"
