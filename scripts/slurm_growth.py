"""How submission, completion and aggregation of a sweep on Slurm grow with its cells: `python scripts/slurm_growth.py`.

Submits that many tiny runs as one array to the cluster at hand, waits for them, and aggregates. Prints the seconds from
the start of the command to the submission (composing and checking every cell, one sbatch), from there to the last run's
end, and of the aggregation, each also per cell: a cost that grew with the square of the cells would show there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from rich.console import Console

TINY = (
    *("data.segments=8", "data.samples_per_segment=100", "trainer.batch_size=64", "trainer.steps=40"),
    *("model.encoder.hidden=8", "compute.threads=1", "seed=0", "show=false"),
    *("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=0.4"),
)


def measured(cells: int, folder: Path) -> dict[str, float]:
    """Seconds of each part, of a sweep of so many cells."""
    began = time.monotonic()
    command = [sys.executable, "-m", "ivae_lab.train", "-m", *TINY, f"data.seed=range(1,{cells + 1})"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    submitted = began
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("submitted"):
            submitted = time.monotonic()
    if process.wait():
        sys.exit(f"expected the sweep of {cells} cells to end well, got exit code {process.returncode}")
    ended = time.monotonic()
    subprocess.run([sys.executable, "-m", "ivae_lab.aggregate"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    parts = {
        "submission": submitted - began,
        "completion": ended - submitted,
        "aggregation": time.monotonic() - ended,
    }
    each = {f"{name}, per cell": seconds / cells for name, seconds in parts.items()}
    return {"cells": cells, **{name: round(value, 3) for name, value in (parts | each).items()}}


def main() -> None:
    """Measure each size, print as it goes, and write the CSV."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", nargs="+", type=int, default=[25, 50, 100, 200])
    parser.add_argument("--csv", type=Path, help="also write the rows there")
    given = parser.parse_args()
    console, rows = Console(highlight=False), []
    for cells in given.cells:
        with TemporaryDirectory(dir=".") as folder:
            rows.append(measured(cells, Path(folder)))
        console.print(", ".join(f"{name} {value:g}" for name, value in rows[-1].items()), soft_wrap=True)
        if given.csv is not None:
            pd.DataFrame(rows).to_csv(given.csv, index=False)


if __name__ == "__main__":
    main()
