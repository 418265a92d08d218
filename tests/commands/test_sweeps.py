"""Sweeps of the real command: runs trained together leave what each leaves when it is trained alone."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from ivae_lab.runs.folder import is_finished, read_status
from tests.commands.test_resume import RUN, TOTAL, interrupted, step_of
from tests.running import TINY, Inside, command, numbers, settings

pytestmark = pytest.mark.slow

SWEEP = ("-m", *TINY, "model=ivae", "seed=[0,1]", "data.seed=1,2", "model.beta=1,4")
LONG = ("-m", *RUN, "data.seed=1,2", "model.beta=1,2")


def folders(cwd: Path) -> dict[str, Path]:
    return {path.name: path for path in (cwd / "outputs").iterdir() if path.is_dir()}


def all_numbers(cwd: Path) -> dict[str, dict[str, object]]:
    return {name: numbers(folder) for name, folder in folders(cwd).items()}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("together")
    outcome = command(*SWEEP, cwd=cwd)
    assert (outcome.code, outcome.err) == (0, "")
    assert "trained together with 3 more runs of this sweep: 8 models" in outcome.out
    assert outcome.out.count("trained together with another run: outputs/tcl-ivae-") == 3
    return cwd


def test_a_sweep_leaves_the_bytes_of_runs_one_by_one(together: Path, tmp_path: Path, inside: Inside) -> None:
    outcome = inside(*SWEEP, "hydra/launcher=basic", cwd=tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert "together" not in outcome.out
    alone = all_numbers(tmp_path)
    assert len(alone) == 4
    assert all_numbers(together) == alone
    assert len({values["results.csv"] for values in alone.values()}) == 4
    for cwd, models in ((together, 8), (tmp_path, 2)):
        assert {read_status(folder)["trained_together"] for folder in folders(cwd).values()} == {models}


def test_the_same_sweep_finds_all_of_it_finished(together: Path, inside: Inside) -> None:
    before = {path: path.stat().st_mtime_ns for folder in folders(together).values() for path in folder.rglob("*")}
    outcome = inside(*SWEEP, cwd=together)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.count("already finished: outputs/tcl-ivae-") == 4
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_larger_sweep_trains_what_is_missing(together: Path, tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "outputs").symlink_to(together / "outputs")
    outcome = inside(*SWEEP, "model.beta=1,2,4", cwd=tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.count("already finished: outputs/tcl-ivae-") == 4
    assert "trained together with 1 more runs of this sweep: 4 models" in outcome.out
    assert len(folders(tmp_path)) == 6


def test_an_impossible_cell_costs_only_itself(tmp_path: Path, inside: Inside) -> None:
    sweep = ("-m", *TINY, "seed=0", "model.beta=1,-1", "trainer.batch_size=64,801", "trainer.lr=0.001,0")
    outcome = inside(*sweep, cwd=tmp_path)
    assert outcome.code == 2
    said = [line.removeprefix("ivae_lab.train: ").partition(", got")[0] for line in outcome.err.splitlines()]
    beta, lr = "model.beta: expected greater than or equal to 0", "trainer.lr: expected greater than 0"
    batch = "trainer: expected a batch_size of at most the 800 rows of the training data"
    assert sorted(said) == sorted([lr, lr, lr, lr, batch, beta, beta])
    assert [is_finished(folder) for folder in folders(tmp_path).values()] == [True]


def test_a_damaged_checkpoint_has_only_its_own_run_begin_again(tmp_path: Path, inside: Inside) -> None:
    checkpoint = tmp_path / settings(*TINY, "seed=0", "data.seed=2").folder / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("hello")
    outcome = inside("-m", *TINY, "seed=0", "data.seed=1,2,3", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("no good checkpoint: training again from the start") == 1
    states = {read_status(folder)["data_seed"]: read_status(folder)["state"] for folder in folders(tmp_path).values()}
    assert states == {1: "done", 2: "done", 3: "done"}


def test_a_diverged_run_is_not_the_failure_of_its_companions(tmp_path: Path, inside: Inside) -> None:
    outcome = inside("-m", *TINY, "seed=0", "trainer.lr=0.001,1e30", cwd=tmp_path)
    assert (outcome.code, outcome.err) == (1, "")
    states = {read_status(folder)["state"]: folder for folder in folders(tmp_path).values()}
    assert set(states) == {"done", "diverged"}
    alone = tmp_path / "alone"
    alone.mkdir()
    assert inside(*TINY, "seed=0", cwd=alone).code == 0
    (folder,) = folders(alone).values()
    assert numbers(states["done"]) == numbers(folder)


def test_a_stopped_sweep_goes_on_together_and_one_of_its_runs_alone(tmp_path: Path, inside: Inside) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
    outcome = inside(*LONG, "hydra/launcher=basic", cwd=whole)
    assert outcome.code == 0, outcome.err
    reference = all_numbers(whole)

    step, outcome = interrupted(signal.SIGTERM, 60, stopped, *LONG)
    assert outcome.code == 143, outcome.err
    (line,) = outcome.err.splitlines()
    assert f"stopped by SIGTERM after step {step} of {TOTAL}" in line
    assert {read_status(folder)["state"] for folder in folders(stopped).values()} == {"running"}

    outcome = inside(*RUN, "data.seed=2", "model.beta=1", cwd=stopped)
    assert outcome.code == 0, outcome.err
    assert f"continuing at step {step} of {TOTAL}" in outcome.out
    (finished,) = (name for name, folder in folders(stopped).items() if is_finished(folder))
    assert numbers(folders(stopped)[finished]) == reference[finished]

    outcome = inside(*LONG, cwd=stopped)
    assert (outcome.code, outcome.err) == (0, "")
    assert "trained together with 2 more runs of this sweep: 6 models" in outcome.out
    assert all_numbers(stopped) == reference


def test_runs_that_stand_at_different_steps_go_on_in_lots(tmp_path: Path, inside: Inside) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
    pair = ("-m", *RUN, "data.seed=1,2")
    outcome = inside(*pair, cwd=whole)
    assert outcome.code == 0, outcome.err
    step, outcome = interrupted(signal.SIGKILL, 60, stopped, *RUN, "data.seed=2")
    assert outcome.code == -9
    outcome = inside(*pair, cwd=stopped)
    assert (outcome.code, outcome.err) == (0, "")
    assert f"continuing at step {step} of {TOTAL}" in outcome.out
    assert step_of(stopped / "outputs") == TOTAL
    assert all_numbers(stopped) == all_numbers(whole)
