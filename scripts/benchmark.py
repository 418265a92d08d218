"""Measure how near the training comes to the machine's limit: `python scripts/benchmark.py` (or `make benchmark`).

Prints, and writes as CSV and as a figure, milliseconds per model-step and the share of the machine's matrix-product
rate that they use, of

- the stack: S seeds at once, as `ivae_lab.train` trains them, compiled and not;
- the plain way: one model, a DataLoader, torch.optim.Adam, one seed after another;
- a growing S, n, K, M and N, everything else equal (`--growth`);
- two processes on two cores against one (`--processes`);
- one setting against another, blocks in turns, so that what else the machine does meets both (`--against`).

The rate is that of a 1024 x 1024 float32 matrix product (4096 x 4096 on a GPU), measured before and after each block
of steps in the same process; work is counted nominally, 6 x parameters x batch size per model-step, so a look-up in
place of a product counts in full; of images it is what PyTorch counts of products and convolutions. A number is the
median of blocks after a warm-up block, with the lowest and highest beside it: machines are shared. Times of different
runs of this script do not compare; ratios within one do.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from ivae_lab.config.build import build
from ivae_lab.config.overrides import run_config
from ivae_lab.core.data import Batch, Splits
from ivae_lab.engine.building import build_model, draw_data
from ivae_lab.engine.datamodule import DataModule
from ivae_lab.engine.member import RunMember
from ivae_lab.engine.memory import models_at_once
from ivae_lab.engine.module import SeedsModule
from ivae_lab.engine.options import Chunk, Compute, Plan, Training
from ivae_lab.engine.stack import Stack
from ivae_lab.models.base import Model
from ivae_lab.training.run import prepare

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# name: overrides of the configuration. A further model joins with one line.
SETTINGS = {
    "khemakhem2020 iVAE": ["model=ivae", "data=tcl_khemakhem", "trainer.batch_size=64"],
    "ICE-BeeM iVAE": ["model=ivae_icebeem", "data=tcl_icebeem"],
    "VaDE, 40 components": ["model=vade", "data=tcl"],
    "VaDE, penalty on L": ["model=vade", "data=tcl", "model/identifiability=penalty"],
    "VaDE, noise on L": ["model=vade", "data=tcl", "model/identifiability=noise"],
    "khemakhem2020 iVAE released": ["model=ivae_released", "data=tcl_khemakhem_released"],
    "GIN, 10 dimensions": ["model=gin_released", "data=gin10d_released"],
}
# Those of images, which need the data and minutes, are measured where they are named only.
IMAGES = {
    "MNIST MLP": ["model=vade_images", "data=mnist"],
    "MNIST ConvNet": ["model=vade_images", "data=mnist", "model/networks=convnet"],
    "MNIST GIN": [
        "model=gin_images_released",
        "data=mnist",
        "data.binarisation=none",
        "data.test_binarisation=none",
    ],
    "CIFAR-10 MLP": ["model=vade_images", "data=cifar10", "data.batches=[1]"],
    "CIFAR-10 ConvNet": ["model=vade_images", "data=cifar10", "data.batches=[1]", "model/networks=convnet"],
    "CIFAR-10 ResNet": ["model=vade_images", "data=cifar10", "data.batches=[1]", "model/networks=resnet"],
}
# What grows: (setting, its key, values). S is the number of seeds.
GROWTH = {
    "S": ("khemakhem2020 iVAE", None, [1, 2, 5, 10, 25, 50, 100]),
    "n": ("khemakhem2020 iVAE", "model.latent_dim", [2, 5, 10, 20]),
    "K": ("VaDE, 40 components", "prior.components", [10, 40, 160]),
    "M": ("khemakhem2020 iVAE", "data.segments", [10, 40, 160]),
    "N": ("khemakhem2020 iVAE", "data.samples_per_segment", [250, 1000, 4000]),
}
GROWN_SEEDS = 10
STEPS_IN_ALL = 1_000_000  # so that no chunk is the last
PRODUCT = {"cpu": 1024, "cuda": 4096}


@dataclass(frozen=True)
class Timing:
    """One row: a way to train a setting."""

    setting: str
    way: str
    seeds: int
    ms_per_model_step: float
    fastest: float
    slowest: float
    share_of_product_rate: float
    lowest_share: float
    highest_share: float
    first_step_s: float
    peak_mib: float
    product_gflops: float
    axis: str = ""  # of the growth, and where on it
    at: int = 0


@dataclass(frozen=True)
class Setting:
    """What is trained."""

    name: str
    splits: Splits
    training: Training
    compute: Compute
    build_model: Callable[[], Model]

    @classmethod
    def compose(cls, name: str, compute: Compute, more: list[str] | None = None) -> Setting:
        """Build the parts that a configuration names."""
        config = run_config(*(SETTINGS | IMAGES)[name], *(more or []))
        splits = draw_data(config)
        training = build(config.trainer, "trainer")
        return cls(name, splits, training, compute, lambda: build_model(config, splits.spec))

    @property
    def work(self) -> int:
        """Nominal floating-point operations of a model-step; of images those that PyTorch counts."""
        if self.splits.spec.image is not None:
            return self._counted()
        parameters = sum(value.numel() for value in self.build_model().parameters())
        return 6 * parameters * self.training.batch_size

    def _counted(self) -> int:
        """Of the products and convolutions of one loss and its gradient."""
        model, batch = self.build_model(), self.splits.train[: self.training.batch_size]
        with FlopCounterMode(display=False) as counter:
            noise = torch.randn(len(batch), model.noise_dim + model.live_dim)
            torch.autograd.backward(model.loss(batch, noise, torch.tensor(0.5))["loss"])
        return int(counter.get_total_flops())


class Clock:
    """Times blocks of steps, the matrix product beside them, and the memory they take."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.matrix = torch.randn(PRODUCT[device.type], PRODUCT[device.type], device=device)
        gc.collect()
        if device.type == "cpu":
            ctypes.CDLL(None).malloc_trim(0)  # what earlier measurements gave back would be taken again unseen
        self.held = self._held()

    def seconds(self, call: Callable[[], object]) -> float:
        """How long a call takes, its kernels included."""
        self._wait()
        start = time.perf_counter()
        call()
        self._wait()
        return time.perf_counter() - start

    def product_rate(self) -> float:
        """Floating-point operations per second of a matrix product: the best of three."""
        best = min(self.seconds(lambda: self.matrix @ self.matrix) for _ in range(3))
        return float(2 * len(self.matrix) ** 3 / best)

    def peak_mib(self) -> float:
        """The most memory in use since `forget_peak`, beyond what was when this clock was made."""
        if self.device.type == "cuda":
            return (torch.cuda.max_memory_allocated(self.device) - self.held) / 2**20
        return (_resident("VmHWM") - self.held) / 2**20

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def forget_peak(self) -> None:
        """Let the peak start anew from what is held now."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            Path("/proc/self/clear_refs").write_text("5")  # Linux

    def _held(self) -> int:
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else _resident("VmRSS")


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))


def measure(setting: Setting, way: str, seeds: int, blocks: Iterator[Callable[[], object]], count: int) -> Timing:
    """Time a way to train: `blocks` are calls of a first step, then of a chunk of steps of each of the models."""
    clock = Clock(setting.compute.torch_device())
    first = clock.seconds(next(blocks))
    clock.seconds(next(blocks))  # warm-up
    clock.forget_peak()  # what compiling takes is not counted
    work, times, shares, rates = setting.work, [], [], [clock.product_rate()]
    for block in itertools.islice(blocks, count):
        times.append(clock.seconds(block) / setting.training.chunk / seeds)
        rates.append(clock.product_rate())
        shares.append(work / times[-1] / statistics.mean(rates[-2:]))
    milliseconds, beside = [1e3 * each for each in times], statistics.median(rates) / 1e9
    low_high = min(milliseconds), max(milliseconds)
    share = statistics.median(shares), min(shares), max(shares)
    middle = statistics.median(milliseconds)
    print(f"{setting.name}, {way}, {seeds} at once: {middle:.3f} ms per model-step", file=sys.stderr)  # takes minutes
    return Timing(setting.name, way, seeds, middle, *low_high, *share, first, clock.peak_mib(), beside)


def stacked(setting: Setting, seeds: int, compiled: bool) -> Iterator[Callable[[], object]]:
    """Blocks of a stack, chunk by chunk as Lightning's loop calls them."""
    device, training = setting.compute.torch_device(), setting.training
    stack = Stack(setting.build_model, list(range(seeds)), device)
    steps = training.chunk
    data = DataModule([setting.splits], Plan(0, STEPS_IN_ALL, steps, 100), training.batch_size, device)
    at_once, _ = models_at_once(stack, data, training, seeds, setting.compute)
    module = SeedsModule([RunMember(stack, setting.splits, training.lr)], data, training, compiled, at_once)
    yield lambda: module.training_step(Chunk(0, 1, False, False), 0)
    for start in itertools.count(steps, steps):
        chunk = Chunk(start, start + steps, False, False)
        yield lambda chunk=chunk: module.training_step(chunk, 0)  # type: ignore[misc]


def plain(setting: Setting) -> Iterator[Callable[[], object]]:
    """Blocks of one model trained the way a tutorial does; S models one after another take S times as long."""
    device = setting.compute.torch_device()
    train, model = setting.splits.train, setting.build_model().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=setting.training.lr)
    parts = [part for part in (train.x, train.u, train.index) if part is not None]
    loader = DataLoader(TensorDataset(*parts), setting.training.batch_size, shuffle=True, drop_last=True)
    batches = itertools.chain.from_iterable(loader for _ in itertools.count())
    progress = torch.tensor(0.5, device=device)

    def steps(count: int) -> None:
        for _ in range(count):
            step()

    def step() -> None:
        rows = [part.to(device) for part in next(batches)]
        batch = Batch(rows[0], rows[1] if train.u is not None else None, None, rows[-1])
        optimizer.zero_grad()
        noise = torch.randn(len(batch), model.noise_dim + model.live_dim, device=device)
        model.loss(batch, noise, progress)["loss"].backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    yield step
    while True:
        yield lambda: steps(setting.training.chunk)


def every_way(name: str, seeds: list[int], blocks: int, compute: Compute) -> list[Timing]:
    """One setting in every way."""
    setting = Setting.compose(name, compute)
    rows = [measure(setting, "plain, one after another", 1, plain(setting), blocks)]
    for compiled, count in itertools.product((False, True), seeds):
        way = "stack, compiled" if compiled else "stack, eager"
        rows.append(measure(setting, way, count, stacked(setting, count, compiled), blocks))
    return rows


def growing(axis: str, blocks: int, compute: Compute) -> list[Timing]:
    """How the cost of the compiled stack grows along one axis."""
    name, key, values = GROWTH[axis]
    rows = []
    for value in values:
        setting = Setting.compose(name, compute, [f"{key}={value}"] if key else [])
        seeds = GROWN_SEEDS if key else value
        timing = measure(setting, "stack, compiled", seeds, stacked(setting, seeds, compiled=True), blocks)
        rows.append(Timing(**{**asdict(timing), "axis": axis, "at": value}))
    return rows


def processes_ratio(name: str, blocks: int, repeats: int = 3) -> list[float]:
    """Model-steps per second of two processes on two cores over those of one, alternating."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("expected two cores for --processes, got one")

    def together(used: list[int]) -> float:
        command = [sys.executable, __file__, "--worker", name, "--blocks", str(blocks)]
        started = [
            subprocess.Popen([*command, "--core", str(core)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for core in used
        ]
        for process in started:  # each says that it has compiled
            if process.stdout is not None:
                process.stdout.readline()
        said = [process.communicate("go\n")[0] for process in started]
        return sum(1 / float(line) for line in said)

    ratios = []
    for _ in range(repeats):
        alone = statistics.mean(together([core]) for core in cores)
        ratios.append(together(cores) / alone)
    return ratios


def alternated(names: list[str], blocks: int, compute: Compute) -> list[float]:
    """Times of the second setting over those of the first, ten seeds compiled, block by block."""
    one, other = (stacked(Setting.compose(name, compute), GROWN_SEEDS, compiled=True) for name in names)
    clock = Clock(compute.torch_device())
    for calls in (one, other) * 2:  # the first step, and a warm-up
        next(calls)()
    pairs = [(clock.seconds(next(one)), clock.seconds(next(other))) for _ in range(blocks)]
    return [after / before for before, after in pairs]


def worker(name: str, core: int, blocks: int, compute: Compute) -> None:
    """Compile, wait for the word, and print the seconds per model-step of ten seeds on one core."""
    os.sched_setaffinity(0, {core})
    prepare(compute)
    setting = Setting.compose(name, compute)
    calls = stacked(setting, GROWN_SEEDS, compiled=True)
    next(calls)()
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    for call in itertools.islice(calls, blocks):
        call()
    print((time.perf_counter() - start) / blocks / setting.training.chunk / GROWN_SEEDS)


def show(rows: list[Timing], title: str) -> None:
    """Print the rows, each beside the plain way of its setting."""
    plain_ms = {row.setting: row.ms_per_model_step for row in rows if row.way.startswith("plain")}
    names = [
        "setting",
        "way",
        "seeds",
        "ms per model-step",
        "share of product rate",
        "times plain",
        "first step",
        "MiB",
    ]
    shown = Table(title=title)
    for name in names:
        shown.add_column(name, justify="left" if name in names[:2] else "right")
    for row in rows:
        times = plain_ms.get(row.setting, float("nan")) / row.ms_per_model_step
        shown.add_row(
            row.setting,
            f"{row.way}, {row.axis} = {row.at}" if row.axis else row.way,
            str(row.seeds),
            f"{row.ms_per_model_step:.3f} ({row.fastest:.3f} to {row.slowest:.3f})",
            f"{row.share_of_product_rate:.0%} ({row.lowest_share:.0%} to {row.highest_share:.0%})",
            "-" if row.axis or math.isnan(times) else f"{times:.1f}",
            f"{row.first_step_s:.1f} s",
            f"{row.peak_mib:.0f}",
        )
    Console(width=max(Console().width, 150)).print(shown)  # a narrow terminal wraps lines rather than numbers


def draw(rows: list[Timing], path: Path) -> None:
    """Share of the product rate against S for every way, and how the time grows along each axis; PNG and PDF."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from ivae_lab.plots.style import STYLE, save

    with rc_context(STYLE):
        figure = Figure(figsize=(9, 3.6))
        shares, growth = figure.subplots(1, 2)
        for number, setting in enumerate(SETTINGS | IMAGES):
            for way, line in (("stack, compiled", "-"), ("stack, eager", "--"), ("plain, one after another", ":")):
                own = [row for row in rows if (row.setting, row.way, row.axis) == (setting, way, "")]
                if own:
                    _band(shares, own, f"C{number}", line, f"{setting}: {way.partition(',')[0]}{way[5:]}")
        shares.set(xlabel="seeds S", ylabel="share of the matrix-product rate (%)")
        for axis in dict.fromkeys(row.axis for row in rows if row.axis):
            own = [row for row in rows if row.axis == axis]
            named = f"{axis} ({own[0].setting})"
            growth.plot([row.at for row in own], [row.ms_per_model_step for row in own], marker="o", label=named)
        growth.set(xscale="log", yscale="log", xlabel="value", ylabel="ms per model-step, compiled")
        shares.minorticks_off()
        for panel in (shares, growth):
            panel.legend(fontsize=6, loc="upper left", bbox_to_anchor=(1, 1)) if panel.lines else panel.set_axis_off()
        save(figure, path.with_suffix(""))


def _band(panel: Axes, rows: list[Timing], colour: str, line: str, label: str) -> None:
    seeds = [row.seeds for row in rows]
    low, middle, high = (
        [100 * getattr(row, name) for row in rows]
        for name in ("lowest_share", "share_of_product_rate", "highest_share")
    )
    if len(seeds) == 1:  # the plain way takes as long for each of them
        panel.axhline(middle[0], linestyle=line, color=colour, label=label)
        return
    panel.plot(seeds, middle, line, marker="o", color=colour, label=label)
    panel.set_xscale("log")
    panel.set_xticks(seeds, [str(seed) for seed in seeds])
    panel.fill_between(seeds, low, high, color=colour, alpha=0.15)


def main() -> None:
    """Parse the arguments, measure, print, and write the table and the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--settings", nargs="*", choices=[*SETTINGS, *IMAGES], default=list(SETTINGS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 10, 50, 200], help="how many seeds to stack")
    parser.add_argument("--growth", nargs="*", choices=list(GROWTH), default=[], help="axes to grow")
    parser.add_argument("--processes", choices=list(SETTINGS), metavar="NAME", help="two processes against one")
    parser.add_argument("--against", nargs=2, choices=list(SETTINGS), metavar="NAME", help="the second over the first")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=10, help="chunks of steps that are timed")
    parser.add_argument("--csv", type=Path, help="also write the rows there")
    parser.add_argument("--plot", type=Path, help="also draw them there (PNG)")
    parser.add_argument("--worker", choices=list(SETTINGS), help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    compute = Compute(device=given.device, threads=given.threads, compile="auto", checkpoint_seconds=0.0)
    if given.worker:
        worker(given.worker, given.core, given.blocks, compute)
        return
    prepare(compute)
    if given.against:
        low, middle, high = statistics.quantiles(alternated(given.against, given.blocks, compute), n=4)
        print(f"{given.against[1]} takes {middle:.2f} ({low:.2f} to {high:.2f}) times as long as {given.against[0]}")
        return
    rows = [row for name in given.settings for row in every_way(name, given.seeds, given.blocks, compute)]
    rows += [row for axis in given.growth for row in growing(axis, given.blocks, compute)]
    if rows:
        show(rows, f"training speed, {compute.torch_device()}, {given.threads} thread{'s' * (given.threads > 1)}")
        for path in (given.csv, given.plot):
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
        if given.csv is not None:
            pd.DataFrame([asdict(row) for row in rows]).to_csv(given.csv, index=False)
        if given.plot is not None:
            draw(rows, given.plot)
    if given.processes:
        ratios = processes_ratio(given.processes, given.blocks)
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"two processes on two cores, {given.processes}: {statistics.median(ratios):.2f} times one ({each})")


if __name__ == "__main__":
    main()
