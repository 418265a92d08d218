"""Measure what surrounds the training steps: `python scripts/around.py`.

Prints the seconds that are spent on

- start: a fresh Python process, from its start to its end, and one that imports the libraries only beside it;
- data: drawing each data set of conf/data;
- mcc: comparing 10 seeds of 200 latents on 5,000 rows in all 45 pairs, and the chance floors of one pair;
- checkpoint: writing and reading a file of a checkpoint's size, for 10 and for 200 seeds of khemakhem2020's iVAE.
  Writing includes waiting for the disk and renaming; reading finds the file in memory;
- training: the same training of ten seeds with a checkpoint every 20 s, the default, and with one at its end only.

All numbers are medians of a few repeats; the smallest and largest stand beside them, because machines are shared. What
is measured runs once before, so files and libraries are warm. Times of different machines do not compare. Cores and
threads are chosen from outside: `taskset -c 0,1 python scripts/around.py`, `OMP_NUM_THREADS=1 ...`.
"""

from __future__ import annotations

import argparse
import io
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ivae_lab.config.overrides import run_config
from ivae_lab.config.paths import CONFIG
from ivae_lab.core.arrays import Floats
from ivae_lab.engine.building import build_model, draw_data
from ivae_lab.metrics.mcc import (
    chance_correlation,
    mean_correlation,
    weak_chance_correlation,
    weak_mean_correlation,
)
from ivae_lab.storage.atomic import atomic

PROCESSES = {
    "python -m ivae_lab.train --help": ["-m", "ivae_lab.train", "--help"],
    "import torch, lightning, hydra": ["-c", "import torch, lightning, hydra"],
    "import ivae_lab.training.run": ["-c", "import ivae_lab.training.run"],
    "import ivae_lab.aggregate": ["-c", "import ivae_lab.aggregate"],
}
LATENTS, ROWS, DIM = 10, 5000, 200  # seeds that are compared, and the shape of their latents
DRAWS = 10  # of a chance floor, as in conf/metric
CHECKPOINTS = (10, 200)  # seeds in one checkpoint
Action = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds that something takes."""

    part: str
    what: str
    seconds: float  # median
    fastest: float
    slowest: float
    repeats: int

    @classmethod
    def of(cls, part: str, what: str, action: Action, repeats: int) -> Timing:
        """Do it once, then `repeats` times with the clock running."""
        action()
        seconds = [_seconds(action) for _ in range(repeats)]
        return cls(part, what, statistics.median(seconds), min(seconds), max(seconds), repeats)


def _seconds(action: Action) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def start_actions() -> Iterator[tuple[str, Action]]:
    """Starting each process and waiting for its end."""
    for what, arguments in PROCESSES.items():
        yield what, partial(subprocess.run, [sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)


def data_actions() -> Iterator[tuple[str, Action]]:
    """Drawing each configured data set."""
    for name in sorted(path.stem for path in (CONFIG / "data").glob("*.yaml")):
        yield name, partial(draw_data, run_config(f"data={name}"))


def mcc_actions() -> Iterator[tuple[str, Action]]:
    """Comparing the latents of seeds, pair by pair."""
    pairs = list(combinations(related_latents(), 2))
    first, second = pairs[0]
    yield f"strong, {len(pairs)} pairs", lambda: [mean_correlation(a, b, "pearson") for a, b in pairs]
    yield f"weak, {len(pairs)} pairs", lambda: [weak_mean_correlation(a, b, "pearson", None, 0) for a, b in pairs]
    strong_floor = partial(chance_correlation, first, second, "pearson", DRAWS, 0)
    weak_floor = partial(weak_chance_correlation, first, second, "pearson", None, 0, DRAWS, 0)
    yield f"strong, chance floor of one pair, {DRAWS} draws", strong_floor
    yield f"weak, chance floor of one pair, {DRAWS} draws", weak_floor


def checkpoint_actions() -> Iterator[tuple[str, Action]]:
    """Writing and reading checkpoints in a temporary folder beside the outputs."""
    config = run_config("model=ivae", "data=tcl_khemakhem")
    with TemporaryDirectory(dir=".") as folder:
        for seeds in CHECKPOINTS:
            path, state = Path(folder) / f"{seeds}.ckpt", training_state(config, seeds)
            write(path, state)
            size = f"{seeds} seeds, {path.stat().st_size / 2**20:.1f} MiB"
            yield f"write {size}", partial(write, path, state)
            yield f"read {size}", partial(torch.load, path, weights_only=True)


def training_actions() -> Iterator[tuple[str, Action]]:
    """Training ten seeds for a minute or two, with and without checkpoints on the way."""
    for seconds in (20.0, 1e9):
        overrides = ("model=ivae_paper", "data=tcl_khemakhem", "trainer.steps=15000", "seed=[0,1,2,3,4,5,6,7,8,9]")
        yield f"checkpoint every {seconds:g} s", partial(train, *overrides, f"compute.checkpoint_seconds={seconds}")


PARTS = {
    "start": start_actions,
    "data": data_actions,
    "mcc": mcc_actions,
    "checkpoint": checkpoint_actions,
    "training": training_actions,
}


def train(*overrides: str) -> None:
    """Do a run by the command, in a folder that is removed."""
    with TemporaryDirectory(dir=".") as folder:
        command = [sys.executable, "-m", "ivae_lab.train", *overrides, f"outputs={folder}", "show=false"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def related_latents() -> list[Floats]:
    """Latents as seeds that found the same thing give them: noisy mixtures of shared sources, each (ROWS, DIM)."""
    rng = np.random.default_rng(0)
    sources = rng.normal(size=(ROWS, DIM))
    mixings = rng.normal(size=(LATENTS, DIM, DIM)) / DIM**0.5
    return [(sources @ mixing + 0.5 * rng.normal(size=sources.shape)).astype(np.float32) for mixing in mixings]


def training_state(config: DictConfig, seeds: int) -> dict[str, dict[str, Tensor]]:
    """What fills a checkpoint: stacked parameters (S, ...) and Adam's two moments of them."""
    model = build_model(config, draw_data(config).spec)
    shapes = {name: (seeds, *value.shape) for name, value in model.named_parameters()}
    return {
        part: {name: torch.randn(shape) for name, shape in shapes.items()} for part in ("parameters", "first", "second")
    }


def write(path: Path, state: dict[str, dict[str, Tensor]]) -> None:
    """Write a file as checkpoints are written."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def show(timings: list[Timing]) -> None:
    """Print the rows."""
    threads = torch.get_num_threads()
    shown = Table(title=f"around the training steps, {threads} thread{'s' * (threads > 1)}")
    for column in ("part", "what", "seconds", "range"):
        shown.add_column(column, justify="right" if column in ("seconds", "range") else "left")
    for timing in timings:
        spread = f"{timing.fastest:.3f}-{timing.slowest:.3f}"
        shown.add_row(timing.part, timing.what, f"{timing.seconds:.3f}", spread)
    Console(width=max(Console().width, 100)).print(shown)  # a narrow terminal wraps lines rather than numbers


def main() -> None:
    """Parse the arguments, measure, print, and write the CSV."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--csv", type=Path, help="also write the rows there")
    given = parser.parse_args()
    timings = [Timing.of(part, what, action, given.repeats) for part in given.parts for what, action in PARTS[part]()]
    show(timings)
    if given.csv is not None:
        pd.DataFrame(timings).to_csv(given.csv, index=False)


if __name__ == "__main__":
    main()
