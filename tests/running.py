"""Ways to run the lab in tests: the command in a process of its own, the same in this one, and the engine alone."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import torch

from ivae_lab import train
from ivae_lab.config import compose
from ivae_lab.config.overrides import composed, without_hydra
from ivae_lab.config.paths import CONFIG
from ivae_lab.core.data import Splits
from ivae_lab.engine.evaluate import encode
from ivae_lab.engine.module import SeedsModule
from ivae_lab.engine.options import Training
from ivae_lab.engine.stack import Parameters
from ivae_lab.models.linear import Linear
from ivae_lab.runs.arrays import read_latents
from ivae_lab.runs.results_csv import COLUMNS
from ivae_lab.training.group import prepared
from ivae_lab.training.job import read_settings
from ivae_lab.training.run import Settings, TrainingRun
from tests import warm

SMALL = ("data.segments=8", "data.samples_per_segment=100", "trainer.batch_size=64", "trainer.chunk=20")
# Least work for a run of which only the folder matters.
TINY = (*SMALL, "trainer.steps=40", "model.encoder.hidden=8", "compute.threads=1")
# What a trainer's YAML says, for tests of the loop without one.
TRAINING = Training(
    steps=10,
    epochs=None,
    batch_size=4,
    lr=0.01,
    betas=[0.9, 0.999],
    eps=1e-8,
    schedule="constant",
    drop_at=0.5,
    drop_factor=0.1,
    plateau_factor=0.1,
    plateau_patience=0,
    clip_norm=None,
    history_points=2,
    chunk=5,
)
# Models that are fitted and have no parameters: what holds of a training does not apply.
_LINEAR = {f"_target_: ivae_lab.models.{kind.__name__}" for kind in Linear.__subclasses__()}
FITTED = sorted(
    path.stem for path in (CONFIG / "model").glob("*.yaml") if not _LINEAR.isdisjoint(path.read_text().splitlines())
)
_drawn: dict[str, Splits] = {}  # data sets of this session, as `TrainingRun` keeps them
_PATIENCE = 180.0  # seconds for what a test waits for
_TRACKING = "WANDB_"  # variables of the developer's own that would change where a run logs


@dataclass(frozen=True)
class Outcome:
    """What a command left on its streams and said with its exit code."""

    code: int
    out: str
    err: str


Inside = Callable[..., Outcome]  # as `command`, in this process: the fixture `inside`


def environment(**changes: str) -> dict[str, str]:
    """Our environment without what would change a run."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_TRACKING)}
    return {**kept, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **changes}


def command(*arguments: str, cwd: Path, module: str = "ivae_lab.train", **env: str) -> Outcome:
    """Run `python -m <module>` in a process of its own."""
    return ended(started(*arguments, cwd=cwd, module=module, env=env))


def fresh(*arguments: str, cwd: Path, module: str = "ivae_lab.train") -> Outcome:
    """Run `python -m <module>` as a user does: like `command`, but nothing is imported when it starts."""
    return ended(started(*arguments, cwd=cwd, module=module, popen=subprocess.Popen))


def started(
    *arguments: str,
    cwd: Path,
    module: str = "ivae_lab.train",
    own_group: bool = False,
    env: Mapping[str, str] | None = None,
    popen: type[subprocess.Popen[str]] = warm.Popen,
) -> subprocess.Popen[str]:
    """Start `python -m <module>` and come back at once; `own_group`: in a process group of its own."""
    return popen(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        env=environment(**env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0 if own_group else None,
    )


def ended(process: subprocess.Popen[str]) -> Outcome:
    """Wait for the end of a process."""
    out, err = process.communicate(timeout=300)
    return Outcome(process.returncode, out, err)


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Look again and again until it holds; an error if the process ends before, or it takes too long."""
    deadline = time.monotonic() + _PATIENCE
    while not holds():
        if process.poll() is not None:
            raise AssertionError(f"expected the command to be running still, got its end: {ended(process)}")
        if time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"expected this within {_PATIENCE} s, got nothing: {ended(process)}")
        time.sleep(0.005)


def here(arguments: Sequence[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """Run the command in this process: its own `main`, Hydra included, without the seconds that the imports take."""
    warm.leave_pictures_empty(monkeypatch.setattr)
    capsys.readouterr()
    try:
        code = train.main(arguments)
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    said = capsys.readouterr()
    return Outcome(code, said.out, said.err)


@cache
def _composed(*overrides: str) -> bytes:
    """Composed by Hydra, and pickled."""
    return pickle.dumps(composed(overrides))


def settings(*overrides: str) -> Settings:
    """The checked settings of a configuration; Hydra composes once for those that differ in values only."""
    by_hydra = [
        each for each in overrides if each[0] in "+~" or each.startswith("hydra.") or compose.chooses_group(each)
    ]
    config = pickle.loads(_composed(*by_hydra))
    compose.set_values(config, [each for each in overrides if each not in by_hydra])
    choices = dict(config.hydra.runtime.choices)
    return read_settings(without_hydra(config), choices)


def make_run(*overrides: str) -> TrainingRun:
    """A run that is built and not begun."""
    from rich.console import Console

    run = TrainingRun(settings(*overrides), Console(quiet=True), _drawn)
    run.splits = in_default_dtype(run.splits)
    return run


@contextmanager
def doubles() -> Iterator[None]:
    """New tensors are doubles, as for comparisons of one computation with the same in another order.

    In floats a ReLU of one of many layers, or a step of Adam along a slope that is nearly 0, may go the other way by
    the rounding of a kernel, which makes 1e-4 of 1e-8, on one processor and not on another.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def in_default_dtype(splits: Splits) -> Splits:
    """The same data, with real observations, and u where it is numbers, of the dtype that new tensors have."""
    parts = {name: getattr(splits, name) for name in ("train", "valid", "test")}
    return replace(splits, **{name: replace(part, x=_real(part.x), u=_real(part.u)) for name, part in parts.items()})


def _real(values: torch.Tensor | None) -> torch.Tensor | None:
    return values.to(torch.get_default_dtype()) if values is not None and values.is_floating_point() else values


def make_module(*runs: TrainingRun, compiled: bool = False) -> SeedsModule:
    """A training of one or several runs at step 0."""
    return prepared(list(runs), compiled=compiled)


def advance(module: SeedsModule, until: int | None = None) -> SeedsModule:
    """Do the chunks that lie before a step; all that remain by default."""
    for number, chunk in enumerate(module.data.plan.chunks()):
        if module.step <= chunk.start < (module.data.plan.total if until is None else until):
            module.training_step(chunk, number)
    return module


def trained(*overrides: str) -> SeedsModule:
    """A whole training in this process, without loggers and files."""
    return advance(make_module(make_run(*overrides)))


def difference(one: Parameters, other: Parameters) -> float:
    """The largest difference of any parameter; infinite where one is not a number."""
    assert one.keys() == other.keys()
    gaps = [(one[name].double() - other[name].double()).abs().max() for name in one]
    return torch.stack(gaps).nan_to_num(nan=torch.inf).max().item()


def scores(run: TrainingRun) -> dict[tuple[object, ...], float]:
    """What results.csv of a trained run would hold: every value under what tells it apart."""
    rows, _ = run._score(encode(run.stack, run.splits, torch.device("cpu")), {})
    apart = [column for column in COLUMNS if column not in ("value", "chance", "state")]
    return {tuple(row[column] for column in apart): row["value"] for row in rows}


def run_folder(outputs: Path) -> Path:
    """The only run folder there."""
    (folder,) = (path for path in outputs.iterdir() if path.is_dir())
    return folder


def numbers(folder: Path) -> dict[str, object]:
    """All numbers of a run folder, in a form that compares bit for bit."""
    tables: dict[str, object] = {name: (folder / name).read_bytes() for name in ("results.csv", "history.csv")}
    arrays = read_latents(folder)
    return tables | {name: (value.dtype.str, value.shape, value.tobytes()) for name, value in arrays.items()}
