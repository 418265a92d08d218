"""`hydra/launcher=local`: a process for each run of a sweep, a bounded number at a time."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from ivae_lab.runs.folder import is_finished, read_status
from tests.running import TINY, Inside, command, ended, numbers, started, wait_until

LOCAL = ("hydra/launcher=local", "hydra.launcher.processes=2")
pytestmark = pytest.mark.slow


def folders(cwd: Path) -> list[Path]:
    return sorted(path.parent for path in cwd.glob("outputs/*/status.json"))


def test_it_has_the_numbers_of_the_others_and_names_what_went_wrong(tmp_path: Path, inside: Inside) -> None:
    sweep = ("-m", *TINY, "seed=0", "trainer.lr=1e-3,2e-3,1e30,-1", "show=false")
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    outcome = command(*sweep, *LOCAL, cwd=there)
    assert outcome.code == 2  # the worst: one could not even begin
    refused, diverged = outcome.err.splitlines()
    assert refused == "ivae_lab.train: trainer.lr: expected greater than 0, got -1 (int)"
    assert "diverged: not finite any more: seed 0" in diverged
    assert "3 of 3 runs ended" in outcome.out
    started = [line.startswith("run folder: ") for line in outcome.out.splitlines()]
    assert started.index(False) == 2  # the third waits until one has ended
    assert inside(*sweep, cwd=here).code == 2
    assert [path.name for path in folders(there)] == [path.name for path in folders(here)]
    done = [path for path in folders(there) if read_status(path)["state"] == "done"]
    assert [numbers(path) for path in done] == [numbers(here / "outputs" / path.name) for path in done]
    log = re.findall(r"log: (\S+)", outcome.out)
    assert all("step 40 of 40" in Path(path).read_text() for path in log)


def test_stopping_it_stops_the_runs_which_go_on_later(tmp_path: Path) -> None:
    long = ("trainer.steps=200", "compute.checkpoint_seconds=0")
    sweep = ("-m", *TINY, "seed=0", "data.seed=1,2", *long, "show=false", *LOCAL)
    process = started(*sweep, cwd=tmp_path, own_group=True)
    wait_until(lambda: len([*tmp_path.glob("outputs/*/checkpoints/last.ckpt")]) == 2, process)
    process.send_signal(signal.SIGTERM)
    assert ended(process).code == 143
    with pytest.raises(ProcessLookupError):  # nothing of it goes on
        os.killpg(process.pid, 0)
    assert [read_status(path)["state"] for path in folders(tmp_path)] == ["running", "running"]
    again = command(*sweep, cwd=tmp_path)
    assert again.code == 0, again.err
    assert [is_finished(path) for path in folders(tmp_path)] == [True, True]
    assert [read_status(path)["resumed"] for path in folders(tmp_path)] == [1, 1]


def test_a_killed_process_takes_no_other_with_it(tmp_path: Path) -> None:
    long = ("trainer.steps=200", "compute.checkpoint_seconds=0")
    sweep = ("-m", *TINY, "seed=0", "data.seed=1,2,3", *long, "show=false", *LOCAL)
    process = started(*sweep, cwd=tmp_path)
    wait_until(lambda: len([*tmp_path.glob("outputs/*/checkpoints/last.ckpt")]) == 2, process)
    victim = folders(tmp_path)[0]
    os.kill(read_status(victim)["pid"], signal.SIGKILL)
    outcome = ended(process)
    assert outcome.code == 1
    assert len(outcome.err.splitlines()) == 1, outcome.err
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"ivae_lab.train: {victim.name}: the process died without a word")
    assert sorted(is_finished(path) for path in folders(tmp_path)) == [False, True, True]


def test_a_machine_without_slurm_is_said(tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    outcome = inside("-m", *TINY, "seed=0", "data.seed=1,2", "hydra/launcher=slurm", cwd=tmp_path)
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert line.startswith("ivae_lab.train: expected Slurm to take the jobs, got: Could not detect")
    assert not folders(tmp_path)


@pytest.mark.parametrize(
    ("launcher", "wrong", "expected"),
    [
        ("local", "processes=0", "expected greater than 0, got 0"),
        ("local", "processes=two", "expected a valid integer, got 'two'"),
        ("slurm", "wait=5", "expected a valid boolean, got 5"),
        ("slurm", "timeout_min=soon", "expected a valid integer, got 'soon'"),
        ("slurm", "mem_gb=-1", "expected greater than 0 or null, got -1"),
    ],
)
def test_a_wrong_value_is_said_before_anything_begins(
    tmp_path: Path, inside: Inside, launcher: str, wrong: str, expected: str
) -> None:
    sweep = ("-m", *TINY, "seed=0", "data.seed=1,2", f"hydra/launcher={launcher}", f"hydra.launcher.{wrong}")
    outcome = inside(*sweep, cwd=tmp_path)
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"ivae_lab.train: hydra.launcher.{wrong.partition('=')[0]}: {expected}")
    assert not folders(tmp_path)
