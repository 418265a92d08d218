"""How fast `python -m ivae_lab.encode` is, and how much memory it takes, by the number of rows.

    python scripts/encode_benchmark.py run=FOLDER [seed=S] [rows=100000,1000000,10000000] [format=npy]

Draws random rows into an x.npy (or a .parquet or .csv) below a temporary folder, and encodes them in a process of its
own. Prints rows per second, with the seconds that its start takes, and its peak memory.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from ivae_lab.inference.trained_model import load

_ROWS = "100000,1000000,10000000"
_BLOCK = 100_000
_MEASURED = """\
import resource, sys
from ivae_lab.encode import main
code = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
sys.exit(code)
"""


def write(path: Path, rows: int, columns: int) -> None:
    """Random numbers, block by block but for Parquet."""
    rng = np.random.default_rng(0)
    if path.suffix == ".npy":
        x = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, columns))
        for start in range(0, rows, _BLOCK):
            x[start : start + _BLOCK] = rng.standard_normal(x[start : start + _BLOCK].shape)
        return
    frame = pd.DataFrame(rng.standard_normal((rows, columns)), columns=[f"x_{i}" for i in range(columns)])
    frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)


def main(arguments: list[str]) -> None:
    """Print a line for each number of rows."""
    given = dict(each.split("=", 1) for each in arguments)
    run = [f"run={given['run']}", *([f"seed={given['seed']}"] if "seed" in given else [])]
    trained = load(Path(given["run"]), int(given["seed"]) if "seed" in given else None)
    print("     rows   seconds      rows/s   peak MiB")
    for rows in map(int, given.get("rows", _ROWS).split(",")):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"x.{given.get('format', 'npy')}"
            write(path, rows, trained.spec.x_dim)
            command = [sys.executable, "-c", _MEASURED, *run, f"data.path={path}", f"out={folder}/out.parquet"]
            began = time.monotonic()
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            seconds = time.monotonic() - began
        print(f"{rows:9d} {seconds:9.1f} {rows / seconds:11.0f} {float(done.stdout):10.0f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
