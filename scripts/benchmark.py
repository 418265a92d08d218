"""Measure how near the training comes to the machine's limit: `python scripts/benchmark.py` (or `make benchmark`).

Prints model-steps per second, and the share of the machine's matrix-product rate that they use, of

- the stack: S seeds in one loop, as `ivae_lab.train` trains them, compiled and not;
- the plain way: one model, a DataLoader, torch.optim.Adam, one seed after another.

The rate is that of a 1024 x 1024 float32 matrix product measured between the rows, in the same process; work is
counted nominally, 6 x parameters x batch size per model-step, so a look-up in place of a product counts in full.
All numbers are medians of repeated blocks of steps; the smallest and largest block stand beside them, because
machines are shared. Times of different runs of this script do not compare; ratios within one do.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, TensorDataset

from ivae_lab.build import build
from ivae_lab.engine.datamodule import DataModule
from ivae_lab.engine.module import SeedsModule
from ivae_lab.engine.run import build_model, draw_data, prepare
from ivae_lab.engine.stack import Stack
from ivae_lab.engine.training import Chunk, Compute, Plan, Training
from ivae_lab.models.model import Model
from ivae_lab.train import CONFIG
from ivae_lab.types import Batch, Splits

# name: overrides of the configuration. A further model joins with one line.
SETTINGS = {
    "khemakhem2020 iVAE": ["model=ivae", "data=tcl_khemakhem", "trainer.batch_size=64"],
    "khemakhem2020 iVAE released": ["model=ivae_released", "data=tcl_khemakhem_released"],
    "ICE-BeeM iVAE": ["model=ivae_icebeem", "data=tcl_icebeem"],
    "VaDE, 40 components": ["model=vade", "data=tcl"],
}
CHUNK = 50
STEPS_IN_ALL = 1_000_000  # so that no chunk is the last


@dataclass(frozen=True)
class Timing:
    """Seconds per model-step of a way to train, and of the first step."""

    way: str
    seeds: int
    median: float
    fastest: float
    slowest: float
    first: float


@dataclass(frozen=True)
class Setting:
    """What is trained."""

    splits: Splits
    training: Training
    build_model: Callable[[], Model]

    @classmethod
    def compose(cls, overrides: list[str]) -> Setting:
        """Build the parts that a configuration names."""
        with initialize_config_dir(str(CONFIG), version_base="1.3"):
            config = compose("config", overrides=overrides)
        splits = draw_data(config)
        return cls(splits, build(config.trainer, "trainer"), lambda: build_model(config, splits.spec))


def matrix_product_rate() -> float:
    """Floating-point operations per second of a 1024 x 1024 float32 product: the best of twenty."""
    a = torch.randn(1024, 1024)
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - start)
    return float(2 * 1024**3 / min(seconds))


def time_stack(setting: Setting, seeds: int, compiled: bool, blocks: int) -> Timing:
    """Train a stack chunk by chunk, as Lightning's loop would call it."""
    stack = Stack(setting.build_model, list(range(seeds)), torch.device("cpu"))
    plan = Plan(0, STEPS_IN_ALL, CHUNK, 100)
    data = DataModule(setting.splits, plan, setting.training.batch_size, stack.seeds, torch.device("cpu"))
    module = SeedsModule(stack, data, setting.training, compiled)
    start = time.perf_counter()
    module.training_step(Chunk(0, 1, False, False), 0)
    first = time.perf_counter() - start
    seconds = []
    for number in range(1, blocks + 2):
        start = time.perf_counter()
        module.training_step(Chunk(number * CHUNK, (number + 1) * CHUNK, False, False), 0)
        seconds.append((time.perf_counter() - start) / CHUNK / seeds)
    torch._dynamo.reset()
    return _timing(f"stack, {'compiled' if compiled else 'eager'}", seeds, seconds[1:], first)


def time_plain(setting: Setting, blocks: int) -> Timing:
    """Train one model the way a tutorial does; S models one after another take S times as long."""
    train = setting.splits.train
    model = setting.build_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=setting.training.lr)
    parts = [part for part in (train.x, train.u, train.index) if part is not None]
    loader = DataLoader(TensorDataset(*parts), setting.training.batch_size, shuffle=True, drop_last=True)
    progress, steps = torch.tensor(0.5), 0
    seconds: list[float] = []
    began = start = time.perf_counter()
    first = 0.0
    while len(seconds) < blocks + 1:
        for rows in loader:
            batch = Batch(rows[0], rows[1] if train.u is not None else None, None, rows[-1])
            optimizer.zero_grad()
            model.loss(batch, torch.randn(len(batch), model.noise_dim), progress)["loss"].backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            steps += 1
            if steps == 1:
                first = time.perf_counter() - began
            if steps % CHUNK == 0:
                seconds.append((time.perf_counter() - start) / CHUNK)
                start = time.perf_counter()
    return _timing("plain, one after another", 1, seconds[1:], first)


def _timing(way: str, seeds: int, seconds: list[float], first: float) -> Timing:
    return Timing(way, seeds, statistics.median(seconds), min(seconds), max(seconds), first)


def measure(name: str, seeds: list[int], blocks: int) -> list[dict[str, object]]:
    """One setting in every way: rows of the table."""
    setting = Setting.compose(SETTINGS[name])
    parameters = sum(value.numel() for value in setting.build_model().parameters())
    work = 6 * parameters * setting.training.batch_size
    ways: list[Callable[[], Timing]] = [lambda: time_plain(setting, blocks)]
    for compiled in (False, True):
        ways += [lambda c=compiled, s=count: time_stack(setting, s, c, blocks) for count in seeds]  # type: ignore[misc]
    timings, rates = [], []
    for way in ways:
        rates.append(matrix_product_rate())
        timings.append(way())
    plain = timings[0].median
    rows: list[dict[str, object]] = []
    for timing, rate in zip(timings, rates, strict=True):
        rows.append(
            {
                "setting": name,
                "way": timing.way,
                "seeds": timing.seeds,
                "ms_per_model_step": timing.median * 1e3,
                "fastest": timing.fastest * 1e3,
                "slowest": timing.slowest * 1e3,
                "share_of_product_rate": work / timing.median / rate,
                "times_plain": plain / timing.median,
                "first_step_s": timing.first,
                "product_gflops": rate / 1e9,
            }
        )
    return rows


def show(table: pd.DataFrame, threads: int) -> None:
    """Print the rows."""
    shown = Table(title=f"training speed, {threads} thread{'s' * (threads > 1)}")
    for column in (
        "setting",
        "way",
        "seeds",
        "ms per model-step",
        "share of product rate",
        "times plain",
        "first step",
    ):
        shown.add_column(column, justify="left" if column in ("setting", "way") else "right")
    for row in table.to_dict("records"):
        spread = f"{row['ms_per_model_step']:.3f} ({row['fastest']:.3f}-{row['slowest']:.3f})"
        share, times, first = row["share_of_product_rate"], row["times_plain"], row["first_step_s"]
        shown.add_row(
            row["setting"], row["way"], str(row["seeds"]), spread, f"{share:.0%}", f"{times:.1f}", f"{first:.1f} s"
        )
    Console(width=max(Console().width, 130)).print(shown)  # a narrow terminal wraps lines rather than numbers


def main() -> None:
    """Parse the arguments, measure, print, and write the CSV."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 10], help="how many seeds to stack")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=10, help=f"blocks of {CHUNK} steps that are timed")
    parser.add_argument("--csv", type=Path, help="also write the rows there")
    given = parser.parse_args()
    prepare(Compute(device="cpu", threads=given.threads, compile="auto", checkpoint_seconds=0.0))
    rows = [row for name in given.settings for row in measure(name, given.seeds, given.blocks)]
    table = pd.DataFrame(rows)
    show(table, given.threads)
    if given.csv is not None:
        table.to_csv(given.csv, index=False)


if __name__ == "__main__":
    main()
