"""A run that is killed or stopped, at whatever moment, goes on to the numbers of one that was not."""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from rich.console import Console

from ivae_lab.engine.module import SeedsModule
from ivae_lab.engine.options import Chunk
from ivae_lab.runs.folder import is_finished, read_status
from ivae_lab.training.callbacks import Checkpoints
from ivae_lab.training.group import execute
from ivae_lab.training.provenance import StoppedError
from ivae_lab.training.run import prepare
from tests.running import (
    SMALL,
    TINY,
    Outcome,
    command,
    ended,
    environment,
    make_module,
    make_run,
    numbers,
    run_folder,
    started,
    wait_until,
)

# Two phases: steps 0 to 49 pretrain, 50 to 119 are the objective's.
RUN = (
    *SMALL,
    "model=vade_pretrained",
    "model.pretrain_steps=50",
    "model.encoder.hidden=8",
    "prior.components=4",
    "trainer.steps=70",
    "trainer.chunk=10",
    "trainer.schedule=plateau",
    "trainer.plateau_patience=0",
    "seed=[0,1]",
    "compute.checkpoint_seconds=0",
    "compute.threads=1",
)
TOTAL = 120


def step_of(outputs: Path) -> int:
    """The step of the last checkpoint; -1 while there is none."""
    found = [path.read_bytes() for path in outputs.glob("*/checkpoints/last.ckpt")]
    return read_step(found[0]) if found else -1


@lru_cache(maxsize=1)
def read_step(checkpoint: bytes) -> int:
    return int(torch.load(io.BytesIO(checkpoint), weights_only=True)["step"])


def interrupted(number: signal.Signals, at: int, cwd: Path, *arguments: str, total: int = TOTAL) -> tuple[int, Outcome]:
    """Start the command, and from a step on send it a signal until it has ended: the step it came to, and its end."""
    outputs = cwd / "outputs"
    process = started(*arguments, cwd=cwd)
    wait_until(lambda: step_of(outputs) >= at, process)
    while process.poll() is None:  # a terminal and `reproduce` tell it twice: the second may come at its very end
        process.send_signal(number)
        time.sleep(0.01)
    outcome = ended(process)
    step = step_of(outputs)
    assert step < total, "expected to interrupt the training, got it finished"
    return step, outcome


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run."""
    cwd = tmp_path_factory.mktemp("whole")
    outcome = command(*RUN, cwd=cwd)
    assert outcome.code == 0, outcome.err
    return run_folder(cwd / "outputs")


@pytest.mark.slow
def test_kills_and_signals_in_both_phases_change_no_bit(whole: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    last = -1
    for number, at, code in (
        (signal.SIGKILL, 10, -9),
        (signal.SIGTERM, 30, 143),
        (signal.SIGKILL, 60, -9),
        (signal.SIGINT, 80, 130),
    ):
        step, outcome = interrupted(number, at, tmp_path, *RUN)
        assert outcome.code == code, outcome.err
        assert step > last
        if last >= 0:
            assert f"continuing at step {last} of {TOTAL}" in outcome.out
        if code > 0:
            (line,) = outcome.err.splitlines()
            assert f"stopped by {number.name} after step {step} of {TOTAL}; the same command continues from" in line
        folder = run_folder(outputs)
        assert not is_finished(folder)
        assert read_status(folder)["state"] == "running"
        assert not {"results.csv", "latents.npz", "history.csv"} & files(folder)
        last = step
    # Killed once more, after the last step and before the scores.
    process = started(*RUN, cwd=tmp_path)
    wait_until(lambda: step_of(outputs) == TOTAL, process)
    process.kill()
    ended(process)
    assert not is_finished(folder)

    outcome = command(*RUN, cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    assert f"continuing at step {TOTAL} of {TOTAL}" in outcome.out
    assert numbers(folder) == numbers(whole)
    # A kill in the middle of a write may leave its temporary file, which has a dot and no final name.
    assert {name for name in files(folder) if "/." not in f"/{name}"} == files(whole) - {".lock"}
    assert folder.name == whole.name


@pytest.mark.slow
@pytest.mark.thorough("30 kills, of which any may fall into a moment that nobody thought of")
def test_kills_at_random_moments_change_no_bit(whole: Path, tmp_path: Path) -> None:
    outputs, draw = tmp_path / "outputs", random.Random(0)
    for number in range(30):
        process = started(*RUN, cwd=tmp_path)
        if number % 3:  # while it trains, scores or writes; else also while it starts
            before = step_of(outputs)
            while process.poll() is None and step_of(outputs) == before:
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 2))
        else:
            time.sleep(draw.uniform(0, 3))
        process.kill()
        ended(process)
        if any(is_finished(path.parent) for path in outputs.glob("*/status.json")):
            assert numbers(run_folder(outputs)) == numbers(whole)
            shutil.rmtree(outputs)
    outcome = command(*RUN, cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    assert numbers(run_folder(outputs)) == numbers(whole)


@pytest.mark.slow
def test_a_damaged_checkpoint_leaves_the_one_before_it(whole: Path, tmp_path: Path) -> None:
    step, _ = interrupted(signal.SIGKILL, 30, tmp_path, *RUN)
    folder = run_folder(tmp_path / "outputs")
    last = folder / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    outcome = command(*RUN, cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    assert "last.ckpt, got a damaged one" in outcome.out
    assert f"continuing at step {step - 10} of {TOTAL}" in outcome.out
    assert numbers(folder) == numbers(whole)


@pytest.mark.slow
def test_a_second_process_leaves_the_first_alone(whole: Path, tmp_path: Path) -> None:
    first = started(*RUN, cwd=tmp_path)
    wait_until(lambda: step_of(tmp_path / "outputs") >= 0, first)
    # Stopped, so that it holds the folder for as long as the second takes to start.
    first.send_signal(signal.SIGSTOP)
    try:
        second = command(*RUN, cwd=tmp_path)
    finally:
        first.send_signal(signal.SIGCONT)
    assert second.code == 2
    (line,) = second.err.splitlines()
    assert "another process is training" in line
    assert ended(first).code == 0
    folder = run_folder(tmp_path / "outputs")
    assert read_status(folder)["pid"] == first.pid
    assert numbers(folder) == numbers(whole)


@pytest.mark.slow
@pytest.mark.thorough("compiles from nothing; what it comes to is held by a training step that fails after a signal")
def test_a_signal_that_ends_the_compiler_too_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal sends Ctrl-C, a scheduler its signal, to the compiler as well."""
    if shutil.which("g++") is None or not Path("/proc/self/stat").exists():
        pytest.skip("expected g++ and /proc, got not both")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))  # an empty one: it has to compile
    arguments = (*SMALL, "model=vae", "trainer.steps=200", "seed=0", "compute.compile=true", "compute.threads=1")
    process = started(*arguments, cwd=tmp_path, own_group=True)
    wait_until(lambda: compiles(process.pid), process)
    os.killpg(process.pid, signal.SIGINT)
    outcome = ended(process)
    assert outcome.code == 130, outcome.err
    assert "stopped by SIGINT after step" in outcome.err
    assert read_status(run_folder(tmp_path / "outputs"))["state"] == "running"


def compiles(group: int) -> bool:
    """Whether a C++ compiler is at work in a process group, and for longer than a try of the processor's features."""
    now = float(Path("/proc/uptime").read_text().split()[0])
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")
            own, began = int(rest.split()[2]), int(rest.split()[19]) / os.sysconf("SC_CLK_TCK")
            if name == "cc1plus" and own == group and now - began > 2:
                return True
    return False


@pytest.fixture
def handlers() -> Iterator[None]:
    """Gives this process its signals back after a test in which one of them stopped a training."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.slow
def test_a_signal_in_the_last_chunk_stops_too_and_its_like_is_ignored_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handlers: None
) -> None:
    from ivae_lab.training.callbacks import Checkpoints

    run = make_run(*TINY, "trainer.chunk=40", "seed=0", f"outputs={tmp_path}")  # all steps in a chunk
    prepare(run.settings.compute)
    write, before = Checkpoints.write, signal.getsignal(signal.SIGINT)

    def told(self: Checkpoints, module: SeedsModule) -> None:
        signal.raise_signal(signal.SIGTERM)
        write(self, module)

    monkeypatch.setattr(Checkpoints, "write", told)
    with pytest.raises(StoppedError, match="stopped by SIGTERM after step 40 of 40"):
        execute([run], Console(quiet=True))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) == before
    assert execute([run], Console(quiet=True)) == ["done"]  # nothing is left to train


def test_a_step_that_fails_once_a_signal_came_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handlers: None
) -> None:
    """A terminal sends Ctrl-C, and a scheduler its signal, to a compiler that the step waits for as well."""

    def interrupted_step(self: SeedsModule, chunk: Chunk, number: int) -> None:
        signal.raise_signal(signal.SIGINT)
        raise RuntimeError("the compiler was ended by SIGINT")

    run = make_run(*TINY, "seed=0", f"outputs={tmp_path}")
    prepare(run.settings.compute)
    monkeypatch.setattr(SeedsModule, "training_step", interrupted_step)
    with pytest.raises(StoppedError, match="stopped by SIGINT after step 0 of 40"):
        execute([run], Console(quiet=True))
    assert read_status(run.settings.folder)["state"] == "running"


# Ctrl-C comes when a library's import begins, and the import swallows what it raises, as some do.
TOLD = """
import runpy, signal, sys

class Told:
    def find_spec(name, path=None, target=None):
        if name == library:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                pass

library = sys.argv.pop(1)
sys.meta_path.insert(0, Told)
runpy.run_module("ivae_lab.train", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("library", ["torch", "lightning.pytorch"])
def test_ctrl_c_while_a_library_is_imported_is_one_line(library: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", TOLD, library, *TINY, "seed=0"]
    outcome = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert outcome.returncode == 130
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("ivae_lab.train: interrupted")
    assert not list(tmp_path.glob("outputs/*/results.csv"))


@pytest.mark.slow
def test_ctrl_c_stops_a_whole_sweep(tmp_path: Path) -> None:
    _, outcome = interrupted(signal.SIGINT, 20, tmp_path, "-m", *RUN, "trainer.eps=1e-8,1e-7")  # not of one shape
    assert outcome.code == 130
    (line,) = outcome.err.splitlines()
    assert "stopped by SIGINT" in line
    run_folder(tmp_path / "outputs")  # the only one


@pytest.mark.slow
def test_force_begins_anew_but_for_a_job_that_is_requeued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which began anew when it was submitted, and would never end otherwise."""
    run = make_run(*TINY, "seed=0", f"outputs={tmp_path}")
    assert run.begin() is None
    module = make_module(run)
    Checkpoints([(module.members[0], run.checkpoint, run.settings.fingerprint, 0.0)], 0).write(module)
    for force, restarts, continued in ((False, 0, True), (True, 1, True), (True, 0, False)):
        run.settings.config.force = force
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
        assert (run.begin() is not None) == run.checkpoint.exists() == continued
