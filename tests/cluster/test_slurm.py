"""Sweeps on a real Slurm cluster: complete, and with the numbers of an undisturbed run, whatever happens to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import pytest

from ivae_lab.runs.folder import read_status
from tests.cluster.slurm import Cluster, cluster, missing
from tests.running import SMALL, TINY, Inside, Outcome, command, ended, numbers, started

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=f"expected Slurm on this machine, got no {', '.join(missing())}"),
]

ROOT = Path(__file__).parents[2]
SLURM = ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=0.4")
# Some seconds of training, with many checkpoints.
LONG = (
    *SMALL,
    "model=vade_pretrained",
    "model.pretrain_steps=60",
    "model.encoder.hidden=8",
    "prior.components=4",
    "trainer.steps=240",
    "trainer.schedule=plateau",
    "seed=[0,1]",
    "compute.checkpoint_seconds=0.1",
    "compute.threads=1",
)


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    """A running cluster, for the commands of this module too."""
    root = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        with cluster(root) as made, pytest.MonkeyPatch.context() as patch:
            for name, value in made.environment.items():
                patch.setenv(name, value)
            yield made
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(autouse=True)
def _whole(slurm: Cluster) -> Iterator[None]:
    """After each test: no job is left, and all nodes are up."""
    yield
    subprocess.run(["scancel", "-f", *slurm.jobs()], check=False, capture_output=True)
    slurm.until(lambda: not slurm.jobs())
    slurm.run("scontrol", "update", "node=n[1-2]", "state=resume") if "down" in slurm.run("sinfo") else None


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """Numbers of the long runs, trained here one after another, by folder."""
    cwd = tmp_path_factory.mktemp("undisturbed")
    outcome = command("-m", *LONG, "data.seed=1,2", "hydra/launcher=basic", cwd=cwd)
    assert outcome.code == 0, outcome.err
    return {path.name: numbers(path) for path in runs(cwd)}


def runs(cwd: Path) -> list[Path]:
    return sorted(path.parent for path in cwd.glob("outputs/*/status.json"))


def training(cwd: Path, count: int, of: str = "") -> Callable[[], bool]:
    """Whether so many runs, of those with such a name, are past their second checkpoint."""

    def holds() -> bool:
        begun = [path for path in runs(cwd) if of in path.name and (path / "checkpoints/previous.ckpt").exists()]
        return len(begun) >= count

    return holds


@contextmanager
def held(cwd: Path) -> Iterator[None]:
    """Within it the runs stand still, so that what is done to them meets them in the midst of their training."""
    processes = [int(read_status(path)["pid"]) for path in runs(cwd)]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


def resumed(cwd: Path) -> int:
    return sum(read_status(path)["resumed"] for path in runs(cwd))


def same(cwd: Path, undisturbed: dict[str, dict[str, object]]) -> bool:
    return {path.name: numbers(path) for path in runs(cwd)} == undisturbed


def test_a_sweep_over_two_nodes_is_the_same_as_here_and_each_task_sees_a_gpu_of_its_own(
    slurm: Cluster, tmp_path: Path, inside: Inside
) -> None:
    gpus = ("hydra.launcher.gpus_per_node=1", "compute.device=cpu")
    sweep = ("-m", *TINY, "model=vae,vade", "seed=[0,1]", "show=false")
    there, here = tmp_path / "there", tmp_path / "here"
    for folder in (there, here):
        folder.mkdir()
    outcome = command(*sweep, *SLURM, *gpus, cwd=there)
    assert outcome.code == 0, outcome.err
    assert "submitted 2 runs as job" in outcome.out
    assert outcome.out.splitlines()[-1] == "2 done"
    assert inside(*sweep, cwd=here).code == 0
    assert [path.name for path in runs(there)] == [path.name for path in runs(here)]
    assert [numbers(path) for path in runs(there)] == [numbers(path) for path in runs(here)]
    seen = {(job["node"], job["gpus"]) for job in (read_status(path)["job"] for path in runs(there))}
    assert len(seen) == 2
    assert seen <= {("n1", "0"), ("n1", "1"), ("n2", "0"), ("n2", "1")}
    log = Path(read_status(runs(there)[0])["job"]["log"])
    assert log.with_suffix(".out").read_text().startswith(("submitit", "vae", "vade"))
    assert submissions(there) == 1
    assert command(cwd=there, module="ivae_lab.aggregate").code == 0
    assert pd.read_parquet(there / "outputs" / "results.parquet")["folder"].nunique() == 2
    again = command(*sweep, *SLURM, cwd=there)
    assert again.code == 0
    assert again.out.count("already finished") == 2
    assert "submitted" not in again.out


def test_a_dead_node_and_a_dead_controller_cost_nothing(
    slurm: Cluster, tmp_path: Path, undisturbed: dict[str, dict[str, object]]
) -> None:
    process = started("-m", *LONG, "data.seed=1,2", *SLURM, cwd=tmp_path)
    slurm.until(training(tmp_path, 2))
    with held(tmp_path):
        slurm.kill_controller()
        time.sleep(2)  # long enough for the launcher to ask in vain
        slurm.start_controller()
        slurm.kill_node("n1")
        slurm.until(lambda: "PENDING" in slurm.jobs().values())
        slurm.start_node("n1")
    outcome = ended(process)
    assert outcome.code == 0, outcome.err
    assert "2 done" in outcome.out.splitlines()[-1]
    assert resumed(tmp_path) >= 1
    assert same(tmp_path, undisturbed)


def test_preemption_and_the_signal_of_a_time_out_change_no_bit(
    slurm: Cluster, tmp_path: Path, undisturbed: dict[str, dict[str, object]]
) -> None:
    process = started("-m", *LONG, "data.seed=1", *SLURM, "hydra.launcher.timeout_min=600", cwd=tmp_path)
    slurm.until(training(tmp_path, 1))
    slurm.run("sbatch", "-p", "urgent", "-n4", "-N2", "--mem=100", "-o/dev/null", "--wrap", "sleep 1")
    slurm.until(lambda: {"PENDING"} <= {*slurm.jobs().values()})  # the run gives way
    slurm.until(lambda: resumed(tmp_path) >= 1)
    (first, *_) = (job for job, state in slurm.jobs().items() if state == "RUNNING")
    slurm.run("scancel", "--signal=USR2", first)  # what Slurm sends before the time limit
    outcome = ended(process)
    assert outcome.code == 0, outcome.err
    assert "1 resumed" in outcome.out.splitlines()[-1]
    assert resumed(tmp_path) >= 2
    (folder,) = runs(tmp_path)
    assert read_status(folder)["job"]["restarts"] >= 2
    assert numbers(folder) == undisturbed[folder.name]


# A figure, as `python -m ivae_lab.reproduce` takes it.
FIGURES = """
from matplotlib.figure import Figure
from ivae_lab.plots.style import Picture


def dots(tables):
    figure = Figure(figsize=(6, 3))
    figure.subplots().plot(tables["rows"]["mcc_mean"].astype(float), ".")
    return Picture("dots", figure, "MCCs as dots.", "A dot per seed.")
"""
REPORTED = "figure,claim,statement,value,tolerance,where\nfig,high,VaDE finds it,0.9,0.05,Figure 1\n"


@pytest.fixture
def figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes `made2020/fig` of lines of overrides."""

    def make(*lines: list[str]) -> None:
        folder = tmp_path / "experiments" / "made2020"
        folder.mkdir(parents=True)
        (folder / "figures.py").write_text(FIGURES)
        (folder / "reported.csv").write_text(REPORTED)
        cells = [{"variant": "ours", "label": str(number), "overrides": line} for number, line in enumerate(lines)]
        claims = [{"claim": "high", "test": "within", "of": {"method": "vade"}}]
        own = {"title": "Made", "where": "Figure 1", "claim": "It is found.", "seeds": {"quick": 2, "paper": 2}}
        (folder / "fig.yaml").write_text(json.dumps({**own, "cells": cells, "draw": ["dots"], "claims": claims}))
        monkeypatch.setenv("IVAE_LAB_EXPERIMENTS", str(folder.parent))
        monkeypatch.setenv("PYTHONPATH", str(ROOT))

    return make


def reproduce(*arguments: str, cwd: Path) -> Outcome:
    return command("made2020/fig", *SLURM, *arguments, cwd=cwd, module="ivae_lab.reproduce")


def submissions(cwd: Path) -> int:
    return len(list((cwd / "outputs" / ".submitit" / "submitted").rglob("*.json")))


def test_the_launcher_may_be_left_or_killed_and_taken_up_again(
    slurm: Cluster, tmp_path: Path, figure: Callable[..., None], undisturbed: dict[str, dict[str, object]]
) -> None:
    figure([*(each for each in LONG if not each.startswith(("seed", "compute"))), "data.seed=1,2"])
    compute = ("compute.checkpoint_seconds=0.1", "compute.threads=1")
    left = reproduce(*compute, "wait=false", cwd=tmp_path)
    assert left.code == 0, left.err
    assert "0 of 4 runs done, 4 to train" in left.out
    assert "under way" in left.out
    process = started("made2020/fig", *SLURM, *compute, cwd=tmp_path, module="ivae_lab.reproduce", own_group=True)
    slurm.until(training(tmp_path, 2))
    os.killpg(process.pid, signal.SIGKILL)
    ended(process)
    looked = reproduce(*compute, "wait=false", cwd=tmp_path)
    assert "running" in looked.out
    assert "0 to train" in looked.out
    done = reproduce(*compute, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "4 of 4 runs; everything lies in" in done.out
    assert (tmp_path / "outputs/figures/made2020/fig/quick/dots.png").exists()
    assert submissions(tmp_path) == 1
    assert same(tmp_path, undisturbed)


def test_failures_are_named_with_reason_and_log_and_only_what_may_help_is_tried_again(
    slurm: Cluster, tmp_path: Path, figure: Callable[..., None]
) -> None:
    short = [each for each in TINY if not each.startswith("compute")]
    long = [each for each in LONG if not each.startswith(("seed", "compute"))]
    figure(
        ["model=vade", *short],
        ["model=vade", *short, "metric.elbo._target_=tests.cluster.breaking.Breaking"],
        ["model=vade", *short, "trainer.lr=1e30"],
        long,
    )
    compute = ("compute.checkpoint_seconds=0.1", "compute.threads=1")
    process = started("made2020/fig", *SLURM, *compute, cwd=tmp_path, module="ivae_lab.reproduce")
    slurm.until(training(tmp_path, 1, of="pretrained"))
    (victim,) = (path for path in runs(tmp_path) if "pretrained" in path.name)
    os.kill(read_status(victim)["pid"], signal.SIGKILL)  # what a kernel out of memory does
    first = ended(process)
    assert first.code == 1
    failed = [line for line in first.out.splitlines() if line.startswith("failed: ")]
    (broken,) = (line for line in failed if "ArithmeticError: a metric that breaks" in line)
    (killed,) = (line for line in failed if "the process died without a word" in line)
    for line in (broken, killed):
        assert Path(line.partition("; log: ")[2]).exists()
    (diverged,) = (line for line in first.out.splitlines() if line.startswith("diverged: "))
    assert "not finite any more" in diverged
    assert "4 of 8 runs; everything lies in" in first.out

    def written() -> dict[str, str]:
        return {path.name: read_status(path)["written"] for path in runs(tmp_path)}

    before = written()
    second = reproduce(*compute, cwd=tmp_path)
    assert second.code == 1
    assert "submitted 1 runs as job" in second.out
    assert {name for name, at in written().items() if at != before[name]} == {victim.name}
    assert read_status(victim)["state"] == "done"
    assert read_status(victim)["resumed"] == 1
    assert "6 of 8 runs; everything lies in" in second.out
    assert "ArithmeticError: a metric that breaks" in second.out
    third = reproduce(*compute, "retry=true", cwd=tmp_path)
    assert "submitted 1 runs as job" in third.out


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ("hydra.launcher.mem_gb=100", "expected Slurm to take the jobs, got: sbatch: error: Memory specification"),
        ("hydra.launcher.gpus_per_node=9", "expected Slurm to take the jobs, got: sbatch: error"),
        ("hydra.launcher.partition=short", "one that Slurm would never start (PartitionTimeLimit)"),
    ],
)
def test_what_the_cluster_cannot_do_is_said_at_once(slurm: Cluster, tmp_path: Path, request_: str, reason: str) -> None:
    outcome = command("-m", *TINY, "seed=0", "data.seed=1,2", *SLURM, request_, cwd=tmp_path)
    assert outcome.code == 2
    assert reason in outcome.err.splitlines()[-1]
    assert "Traceback" not in outcome.err
    assert not runs(tmp_path)
    slurm.until(lambda: not slurm.jobs())


def test_two_jobs_of_one_run_do_not_meet(
    slurm: Cluster, tmp_path: Path, undisturbed: dict[str, dict[str, object]]
) -> None:
    sweep = ("-m", *LONG, "data.seed=1", *SLURM, "hydra.launcher.wait=false")
    assert command(*sweep, cwd=tmp_path).code == 0
    shutil.rmtree(tmp_path / "outputs" / ".submitit" / "submitted")  # as if another user had submitted it
    slurm.until(training(tmp_path, 1))
    (folder,) = runs(tmp_path)
    first = read_status(folder)["pid"]
    os.kill(first, signal.SIGSTOP)  # so that it holds the folder for as long as the second takes
    try:
        second = command(*sweep[:-1], cwd=tmp_path)
    finally:
        os.kill(first, signal.SIGCONT)
    assert second.code == 1  # not done when it looked
    slurm.until(lambda: not slurm.jobs())
    assert read_status(folder)["resumed"] == 0
    assert numbers(folder) == undisturbed[folder.name]
    logs = [path.read_text() for path in (tmp_path / "outputs" / ".submitit").glob("*/*.err")]
    assert sum("another process is training" in log for log in logs) == 1


def test_sbatch_by_hand_requeues_itself(
    slurm: Cluster, tmp_path: Path, undisturbed: dict[str, dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "runs.txt").write_text(f"\n{' '.join(LONG)} data.seed=1\n")
    sweep = str(ROOT / "scripts" / "slurm_sweep.sh")
    slurm.run(sweep, "runs.txt", "--cpus-per-task=1", "--mem=400", cwd=tmp_path)
    slurm.until(training(tmp_path, 1))
    (first,) = slurm.jobs()
    slurm.run("scancel", "--batch", "--signal=USR1", first)  # what Slurm sends before the time limit
    slurm.until(lambda: resumed(tmp_path) == 1)
    slurm.until(lambda: not slurm.jobs())
    (folder,) = runs(tmp_path)
    assert numbers(folder) == undisturbed[folder.name]
