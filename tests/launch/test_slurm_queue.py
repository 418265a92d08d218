"""What a sweep gives to Slurm and what is told of it, without Slurm: stand-ins take what would be submitted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from hydra_plugins.ivae_lab_submitit import SlurmLauncher
from ivae_lab.config.paths import CONFIG
from ivae_lab.launch import slurm_queue as queue
from ivae_lab.launch import sweep
from ivae_lab.launch.slurm_queue import QueuedTask, SubmittedTask
from ivae_lab.runs.folder import write_status
from ivae_lab.runs.results_csv import write_results
from tests.running import TINY, settings


def task(folder: str, job: str = "12_0") -> SubmittedTask:
    return SubmittedTask(job=job, folder=folder, cell="c", seeds=[0], log=f"/logs/{job}/err")


def launcher(**params: Any) -> SlurmLauncher:
    """As `conf/hydra/launcher/slurm.yaml` has it; its submitit folder is named by Hydra."""
    own: Any = OmegaConf.to_container(OmegaConf.load(CONFIG / "hydra" / "launcher" / "slurm.yaml"))
    kept = {name: value for name, value in own.items() if name not in ("_target_", "submitit_folder")}
    return SlurmLauncher(**(kept | params))


def test_every_run_is_counted_once_by_what_its_folder_and_slurm_say(tmp_path: Path) -> None:
    states = {"a": "done", "b": "diverged", "c": "failed", "d": "running", "e": "running", "f": "failed"}
    for name, state in states.items():
        (tmp_path / name).mkdir()
        write_status(tmp_path / name, {"state": state, "resumed": int(name == "d")})
    queued = {name: QueuedTask(task(name), state, "") for name, state in {"d": "RUNNING", "f": "PENDING"}.items()}
    counted = queue.counts(tmp_path, [*states, "nothing"], queued)
    assert counted == {"done": 1, "diverged": 1, "failed": 1, "running": 1, "waiting": 1, "lost": 2, "resumed": 1}
    assert queue.besides(counted) == ", 1 running, 1 waiting, 1 diverged, 1 failed, 2 lost, 1 resumed"


def test_runs_that_are_in_the_queue_are_not_submitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def submit(wanted: list[Any], outputs: Path, first: int) -> list[SubmittedTask]:
        submitted.extend(each.folder.name for _, each in wanted)
        return [task(each.folder.name, "13_0") for _, each in wanted]

    submitted: list[str] = []
    slurm = launcher(wait=False)
    monkeypatch.setattr(slurm, "_submit", submit)
    monkeypatch.setattr(queue, "live", lambda outputs: {"a": QueuedTask(task("a"), "PENDING", "Priority")})
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    wanted: list[Any] = [([], SimpleNamespace(folder=tmp_path / name)) for name in "ab"]
    slurm._do(wanted, 0)
    assert submitted == ["b"]
    slurm._do(wanted[:1], 0)
    assert submitted == ["b"]
    said = capsys.readouterr().out
    assert said.count(f"already in the queue: {tmp_path / 'a'} (job 12_0)") == 2
    assert "submitted 1 runs as job 13;" in said


def test_a_job_computes_with_the_processors_that_it_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the user says otherwise: of two overrides the later one counts."""

    def map_array(job: Any, overrides: list[list[str]], *rest: Any) -> list[Any]:
        given.append([*overrides])
        paths = SimpleNamespace(stderr=tmp_path / "err")
        return [SimpleNamespace(job_id=f"12_{number}", paths=paths) for number in range(len(overrides))]

    given: list[list[list[str]]] = []
    run, own = settings(*TINY, "seed=0", f"outputs={tmp_path}"), [["compute.threads=1", "data.seed=1"], ["data.seed=2"]]
    for cpus, threads in ((3, ["compute.threads=3"]), (None, [])):
        slurm = launcher(cpus_per_task=cpus)
        monkeypatch.setattr(slurm, "_executor", lambda: SimpleNamespace(map_array=map_array))
        tasks = slurm._submit([(each, run) for each in own], tmp_path, 0)
        assert given.pop() == [[*threads, *each] for each in own]
        assert queue.last(tmp_path) == {run.folder.name: tasks[1]}


def test_a_later_sweep_finds_a_run_in_which_a_seed_diverged_as_it_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is finished, and its exit code is that of the sweep that trained it."""
    for name, status in {"a": {"state": "done"}, "b": {"state": "diverged", "error": "seed 0 by step 3"}}.items():
        (tmp_path / name).mkdir()
        write_status(tmp_path / name, status)
        write_results(tmp_path / name / "results.csv", [])
        np.savez(tmp_path / name / "latents.npz", seed=[0])
    monkeypatch.setattr(sweep, "composed", lambda launcher, overrides: (OmegaConf.create({"force": False}), overrides))
    monkeypatch.setattr(
        "ivae_lab.training.job.read_settings", lambda config, choices: SimpleNamespace(folder=tmp_path / choices[0])
    )
    monkeypatch.setattr(sweep, "exit_codes", [])
    assert [overrides for overrides, _ in launcher()._wanted([["a"], ["b"], ["c"]])] == [["c"]]
    assert sweep.exit_codes == [0, 1]
