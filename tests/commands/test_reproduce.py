"""One command per figure: on made-up papers of few and tiny cells, with the real training wherever it matters."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ivae_lab import reproduce
from ivae_lab.reproduction import definition as experiment
from ivae_lab.reproduction import records
from ivae_lab.runs.folder import read_status, write_status
from tests import warm
from tests.commands.test_resume import step_of
from tests.running import SMALL, Outcome, command, ended, started, wait_until

CELL = [*SMALL, "trainer.steps=40", "model.encoder.hidden=8"]
IVAE, VADE = (["model=ivae_paper", *CELL], ["model=vade", *CELL])
REPORTED = """claim,figure,where,statement,value,tolerance
high,pair,Figure 1,iVAE reaches an MCC of .4,.4,.6
"""
FIGURES = """from matplotlib.figure import Figure

from ivae_lab.runs.agreement_csv import read_pairs
from ivae_lab.plots.style import Picture


def agreement(rows, paths):
    return rows.assign(agreed=[read_pairs(paths[run])["value"].mean() for run in rows["run"]])


def dots(tables):
    figure = Figure(figsize=(6, 3))
    figure.subplots().plot(tables["rows"]["mcc_mean"].astype(float), ".")
    return Picture("dots", figure, "Made-up MCCs as dots.", "A dot per seed.")


def wrong(tables):
    raise ZeroDivisionError("a mistake of the researcher's")
"""
LONG_STEPS = 300


def figure(*lines: list[str], seeds: int = 2, draw: str = "dots") -> str:
    """The definition of a figure, as YAML takes JSON too."""
    return json.dumps(
        {
            "title": "Made up [bold] :key:",
            "where": "Figure 1",
            "claim": "iVAE recovers what is made up.",
            "seeds": {"quick": seeds, "paper": seeds},
            "cells": [{"variant": "ours", "overrides": line} for line in lines],
            "columns": ["data.seed", "trainer.lr"],
            "draw": [draw],
            "claims": [{"claim": "high", "test": "within", "of": {"method": "ivae"}}],
        }
    )


PAPERS = {
    "tiny2020/pair": figure(IVAE, VADE),
    "tiny2020/single": figure(IVAE),
    "pairs2020/agree": json.dumps(
        {
            **json.loads(figure([*VADE, "metric=[agreement]"])),
            "score": "agreed",
            "scored": "agreed",
            "tables": {"agreed": "agreement"},
            "claims": [],
        }
    ),
    "odd2020/breaks": "title: [",
    "odd2020/fails": figure(IVAE, [*IVAE, "trainer.lr=1e30,-1"]),
    "odd2020/raises": figure(IVAE, draw="wrong"),
    "odd2020/long": figure(["model=vade", *SMALL, f"trainer.steps={LONG_STEPS}", "prior.components=4"], seeds=1),
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of experiments, which the commands of this module take for theirs."""
    folder = tmp_path_factory.mktemp("experiments")
    for name, text in PAPERS.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        (path.parent / "reported.csv").write_text(REPORTED)
        (path.parent / "figures.py").write_text(FIGURES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IVAE_LAB_EXPERIMENTS", str(folder))
        for module in (experiment, records):  # of this process, in which it was not set when they were imported
            patch.setattr(module, "EXPERIMENTS", folder)
        yield folder


@pytest.fixture
def here(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Runs the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("subprocess.Popen", warm.Popen)  # the trainings that it starts
    return Here(capsys)


class Here:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: str) -> Outcome:
        self.capsys.readouterr()
        code = reproduce.main(arguments)
        said = self.capsys.readouterr()
        return Outcome(code, said.out, said.err)


def real(*arguments: str, cwd: Path) -> Outcome:
    return command(*arguments, cwd=cwd, module="ivae_lab.reproduce")


def runs(outputs: Path) -> dict[str, list[int]]:
    """Run folders and their seeds."""
    return {path.parent.name: read_status(path.parent)["seeds"] for path in outputs.glob("*/status.json")}


def stamps(outputs: Path) -> dict[str, int]:
    """When each file of the run folders was written."""
    return {str(path): path.stat().st_mtime_ns for folder in runs(outputs) for path in (outputs / folder).rglob("*")}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def about(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "about.json").read_text())
    return read


class Made:
    """What was trained before by `python -m ivae_lab.train`, and then the first call of the command."""

    def __init__(self, cwd: Path) -> None:
        self.outputs = cwd / "my runs, it's (1)"
        plain = command(*IVAE, "seed=0", "show=false", "outputs='my runs, it\\'s (1)'", cwd=cwd)
        assert plain.code == 0, plain.err
        self.before = runs(self.outputs)
        self.stamps = stamps(self.outputs)
        self.outcome = real("tiny2020/pair", f"outputs={self.outputs.name}", "compute.threads=1", cwd=cwd)
        self.folder = self.outputs / "figures" / "tiny2020" / "pair" / "quick"


@pytest.fixture(scope="module")
def made(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made"))


@pytest.fixture
def outputs(made: Made, tmp_path: Path) -> Path:
    """A copy of what was made, to be changed."""
    shutil.copytree(made.outputs, tmp_path / "outputs")
    return tmp_path / "outputs"


@pytest.mark.slow
class TestTheFirstCall:
    def test_exits_0_and_prints_table_verdict_and_where_all_lies(self, made: Made) -> None:
        code, out = made.outcome.code, made.outcome.out
        assert code == 0, made.outcome.err
        assert made.outcome.err == ""
        assert "mcc_mean: mean [95% interval] over seeds" in out
        assert (
            "which says what little training does, not what holds:\nREPRODUCED (ours): iVAE reaches an MCC of .4" in out
        )
        assert f"4 of 4 runs; everything lies in {made.folder.relative_to(made.outputs.parent)}" in out
        assert "dots.png" in out
        assert "Made up [bold] :key:" in out
        assert {"dots.png", "dots.svg", "dots.pdf", "rows.csv", "summary.md", "verdicts.tex", "about.json"} <= set(
            contents(made.folder)
        )

    def test_trains_only_the_seeds_that_a_plain_training_has_not(self, made: Made) -> None:
        added = {name: seeds for name, seeds in runs(made.outputs).items() if name not in made.before}
        assert list(made.before.values()) == [[0]]
        assert sorted(added.values()) == [[0, 1], [1]]
        assert made.stamps == {path: at for path, at in stamps(made.outputs).items() if path in made.stamps}
        rows = pd.read_csv(made.folder / "rows.csv")
        assert sorted(zip(rows["method"], rows["seed"], strict=True)) == [
            (method, seed) for method in ("ivae", "vade") for seed in (0, 1)
        ]
        assert set(rows["run"]) == set(runs(made.outputs))

    def test_says_what_is_done_what_remains_and_the_time_left(self, made: Made) -> None:
        assert "1 of 4 runs done, 3 to train\n" in made.outcome.out
        assert re.search("2 of 4 runs done, 2 to train, about [1-9] min left at the rate so far\n", made.outcome.out)


@pytest.mark.slow
class TestLaterCalls:
    def test_train_nothing_and_leave_equal_files(self, made: Made, here: Here) -> None:
        before, files = stamps(made.outputs), contents(made.folder)
        outcome = here("tiny2020/pair", f"outputs={made.outputs}", "compute.threads=1")
        assert (outcome.code, outcome.err) == (0, "")
        assert "4 of 4 runs done, 0 to train" in outcome.out
        assert stamps(made.outputs) == before
        assert contents(made.folder) == files

    def test_find_the_cells_of_another_figure(self, outputs: Path, here: Here) -> None:
        before = runs(outputs)
        outcome = here("tiny2020", "train=true")
        assert outcome.code == 0, outcome.err
        assert "tiny2020/pair" in outcome.out
        assert "2 of 2 runs; everything lies in outputs/figures/tiny2020/single/quick" in outcome.out
        assert runs(outputs) == before

    def test_an_override_that_changes_numbers_has_a_folder_of_its_own_and_is_named(
        self, outputs: Path, here: Here
    ) -> None:
        figures = outputs / "figures" / "tiny2020" / "pair"
        before = contents(figures / "quick")
        # The default values, so that there is nothing to train.
        outcome = here("tiny2020/pair", "data.seed=1", "data.split=[1,0,0]")
        assert outcome.code == 0, outcome.err
        (own,) = (path for path in figures.iterdir() if path.name != "quick")
        assert own.name.startswith("quick-")
        assert about(own)["changed"] == ["data.seed=1", "data.split=[1,0,0]"]
        assert about(own)["command"] == (
            "python -m ivae_lab.reproduce tiny2020/pair scale=quick data.seed=1 'data.split=[1,0,0]'"
        )
        assert "changed: data.seed=1 data.split=[1,0,0]" in " ".join((own / "dots.svg").read_text().split())
        assert contents(figures / "quick") == before
        assert here("tiny2020/pair", "data.split=[1,0,0]", "data.seed=1").code == 0
        assert len(list(figures.iterdir())) == 2

    def test_list_says_figure_claim_and_state_before_and_after(
        self, tree: Path, outputs: Path, here: Here, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def line(figure: str, *arguments: str) -> str:
            outcome = here("--list", *arguments)
            assert (outcome.code, outcome.err) == (0, "")
            (found,) = (each for each in outcome.out.splitlines() if f" {figure} " in each)
            return found

        assert "iVAE recovers what is made up." in line("tiny2020/pair", "outputs=elsewhere")
        assert "not run" in line("tiny2020/pair", "outputs=elsewhere")
        assert "quick drawn (4 of 4)" in line("tiny2020/pair")
        assert "not run" in line("tiny2020/single")
        assert "cannot be read: odd2020/breaks.yaml: expected YAML" in line("odd2020/breaks")
        (outputs / "figures" / "tiny2020" / "pair" / "quick" / "about.json").write_text("{")
        assert "quick cannot be read" in line("tiny2020/pair")

    def test_record_keeps_rows_and_provenance_with_the_experiments(self, tree: Path, outputs: Path, here: Here) -> None:
        outcome = here("tiny2020/single", "scale=paper", "record=true")
        try:
            assert outcome.code == 0, outcome.err
            kept = tree / "tiny2020" / "results"
            assert {path.name for path in kept.iterdir()} == {"single.csv", "single.json"}
            assert f"recorded {kept / 'single.csv'}" in outcome.out
            assert len(pd.read_csv(kept / "single.csv")) == 2
            assert "paper scale recorded (2 of 2 runs)" in here("--list", "outputs=elsewhere").out
            outcome = here("tiny2020/single", "scale=quick", "record=true")
            assert outcome.code == 2
            assert "record: expected scale=paper, whose rows are kept of tiny2020/single, got quick" in outcome.err
            (kept / "single.json").write_text("{")
            outcome = here("tiny2020/single", "scale=paper", "record=true")
            assert outcome.code == 2
            assert "record: the kept records of tiny2020/single cannot be read: Expecting property" in outcome.err
        finally:
            shutil.rmtree(tree / "tiny2020" / "results", ignore_errors=True)

    def test_two_runs_of_one_cell_with_other_numbers_are_named(self, outputs: Path, here: Here) -> None:
        (name,) = (name for name, seeds in runs(outputs).items() if "vade" in name)
        twin = outputs / "a-twin"
        shutil.copytree(outputs / name, twin)
        assert "same cell" not in here("tiny2020/pair").out  # equal numbers are nothing to name
        table = pd.read_csv(twin / "results.csv")
        table.loc[table["seed"] == 1, "value"] += 0.25
        table.to_csv(twin / "results.csv", index=False)
        unseal(twin)
        outcome = here("tiny2020/pair")
        assert outcome.code == 0, outcome.err
        (line,) = (line for line in outcome.out.splitlines() if line.startswith("same cell, different numbers"))
        assert {"a-twin", name} <= set(line.replace(",", "").split())
        assert "seeds 1: scores differ by up to 0.25" in line
        assert "4 of 4 runs" in outcome.out

    def test_a_finished_run_with_damaged_rows_is_left_out_and_named(self, outputs: Path, here: Here) -> None:
        (name,) = (name for name in runs(outputs) if "vade" in name)
        (outputs / name / "results.csv").write_text("nothing\n")
        unseal(outputs / name)
        outcome = here("tiny2020/pair")
        assert outcome.code == 1
        assert f"left out: outputs/{name}: expected the columns" in outcome.out
        assert f"seeds [0, 1] in {name}: its rows cannot be read" in outcome.out
        assert "2 of 4 runs; everything lies in" in outcome.out

    def test_a_seed_that_diverged_makes_the_command_exit_1(
        self, outputs: Path, here: Here, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Though nothing is missing."""
        (name,) = (name for name in runs(outputs) if "vade" in name)
        table = pd.read_csv(outputs / name / "results.csv")
        lost = table["seed"] == 1
        table["value"], table["state"] = table["value"].mask(lost), table["state"].mask(lost, "diverged")
        table.to_csv(outputs / name / "results.csv", index=False)
        unseal(outputs / name)
        monkeypatch.setattr(
            "ivae_lab.reproduction.present.present", lambda evidence, folder: missing.extend(evidence.missing)
        )
        monkeypatch.setattr(reproduce, "report", lambda shown, console: None)
        missing: list[dict[str, Any]] = []
        outcome = here("tiny2020/pair", "train=false")
        assert (outcome.code, outcome.err, missing) == (1, "", [])

    def test_rows_that_were_edited_are_made_again_and_until_then_left_out(self, outputs: Path, here: Here) -> None:
        (name,) = (name for name in runs(outputs) if "vade" in name)
        table = outputs / name / "results.csv"
        whole = table.read_text()
        table.write_text(whole.replace("0.", "0.9", 1))
        outcome = here("tiny2020/pair", "train=false")
        assert outcome.code == 1
        assert f"seeds [0, 1] in {name}: expected results.csv as the run wrote it, got another checksum" in outcome.out
        assert "2 of 4 runs; everything lies in" in outcome.out
        outcome = here("tiny2020/pair", "train=true")
        assert outcome.code == 0, outcome.err
        assert table.read_text() == whole

    def test_one_that_cannot_be_made_does_not_stop_the_others(self, outputs: Path, here: Here) -> None:
        before = runs(outputs)
        outcome = here("all", "train=false")
        assert outcome.code == 2
        assert "ivae_lab.reproduce: odd2020/breaks.yaml: expected YAML" in outcome.err
        assert "ZeroDivisionError: a mistake of the researcher's" in outcome.err
        assert "ivae_lab.reproduce: odd2020/raises: could not be made, see above" in outcome.err
        assert "no runs; python -m ivae_lab.reproduce odd2020/long scale=quick trains them" in outcome.out
        for name in ("odd2020/fails", "tiny2020/pair", "tiny2020/single"):
            assert f"everything lies in outputs/figures/{name}/quick" in outcome.out
        assert runs(outputs) == before
        numbers = [line for line in outcome.out.splitlines() if line.startswith("figure ")]
        assert numbers == [f"figure {number} of 7" for number in range(1, 8)]
        assert outcome.out.splitlines()[-1] == (
            "2 of 7 figures ended with exit code 0; others: odd2020/breaks (2), odd2020/fails (1), odd2020/long (1), "
            "odd2020/raises (1), pairs2020/agree (1)"
        )


def unseal(folder: Path) -> None:
    """Make it a folder of before there were checksums."""
    status = read_status(folder)
    del status["files"]
    write_status(folder, status)


@pytest.mark.slow
class TestCellsThatFail:
    @pytest.fixture(scope="class")
    @staticmethod
    def failed(made: Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
        cwd = tmp_path_factory.mktemp("failed")
        shutil.copytree(made.outputs, cwd / "outputs")
        return real("odd2020/fails", "compute.threads=1", cwd=cwd), cwd / "outputs"

    def test_are_named_with_the_error_and_the_command_exits_1(self, failed: tuple[Outcome, Path]) -> None:
        outcome, _ = failed
        assert outcome.code == 1
        reason = "trainer.lr: expected greater than 0, got -1 (int)"
        assert outcome.err == f"ivae_lab.train: {reason}\n"
        (line,) = (line for line in outcome.out.splitlines() if line.startswith("failed: "))
        assert "model=ivae_paper" in line
        assert line.endswith(f"trainer.lr=-1 seeds [0, 1]: {reason}")
        (line,) = (line for line in outcome.out.splitlines() if line.startswith("diverged: "))
        assert "tcl-ivae_paper-" in line
        assert "step" in line
        assert "Traceback" not in outcome.out + outcome.err

    def test_do_not_keep_the_figure_from_being_drawn_with_what_exists(self, failed: tuple[Outcome, Path]) -> None:
        outcome, outputs = failed
        folder = outputs / "figures" / "odd2020" / "fails" / "quick"
        assert "4 of 6 runs; everything lies in" in outcome.out
        assert "4 of 6 runs" in (folder / "dots.svg").read_text()
        (lacking,) = about(folder)["missing"]
        assert (lacking["state"], lacking["seeds"], lacking["folder"]) == ("failed", [0, 1], None)
        assert "greater than 0" in lacking["error"]


@pytest.mark.slow
def test_an_impossible_value_for_all_cells_is_bad_input(tree: Path, tmp_path: Path) -> None:
    outcome = real("tiny2020/single", "trainer.lr=-1", cwd=tmp_path)
    assert outcome.code == 2
    assert outcome.err == "ivae_lab.train: trainer.lr: expected greater than 0, got -1 (int)\n"
    assert "Traceback" not in outcome.out


@pytest.fixture
def dying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes every training end itself by a signal; the file has a line for each that began."""

    def make(name: str) -> Path:
        script, begun = tmp_path / "dying", tmp_path / "begun"
        script.write_text(f'#!/bin/sh\necho begun >> "{begun}"\nkill -{name} $$\n')
        script.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(script))
        return begun

    return make


def test_a_training_that_is_killed_is_named_and_the_other_lines_go_on(here: Here, dying: Callable[[str], Path]) -> None:
    begun = dying("KILL")
    outcome = here("tiny2020/pair")
    assert outcome.code == 1
    assert begun.read_text() == "begun\n" * 2
    failures = [line for line in outcome.out.splitlines() if line.startswith("failed: ")]
    assert [line.split()[1] for line in failures] == ["model=ivae_paper", "model=vade"]
    assert all(line.endswith("the training was ended by SIGKILL") for line in failures)
    assert "no runs; python -m ivae_lab.reproduce tiny2020/pair scale=quick trains them" in outcome.out


@pytest.mark.parametrize(("name", "code"), [("TERM", 143), ("INT", 130)])
def test_a_training_that_is_stopped_stops_all_lines_and_figures(
    here: Here, dying: Callable[[str], Path], name: str, code: int
) -> None:
    begun = dying(name)
    assert here("tiny2020").code == code
    assert begun.read_text() == "begun\n"


def _is_past(outputs: Path, step: int) -> bool:
    return step_of(outputs) > step


@pytest.mark.slow
def test_signals_stop_it_and_the_same_command_continues_to_the_same_rows(tree: Path, tmp_path: Path) -> None:
    arguments = ("odd2020/long", "compute.threads=1", "compute.checkpoint_seconds=0")
    outputs = tmp_path / "outputs"
    last = -1
    # SIGTERM to the command alone, as a scheduler does; SIGINT to all of its group, as a terminal does.
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = started(*arguments, cwd=tmp_path, module="ivae_lab.reproduce", own_group=True)
        wait_until(partial(_is_past, outputs, last), process)
        (os.kill if number == signal.SIGTERM else os.killpg)(process.pid, number)
        outcome = ended(process)
        assert outcome.code == code, outcome.err
        assert "Traceback" not in outcome.err
        assert f"stopped by {number.name} after step" in outcome.err
        assert "ivae_lab.reproduce: stopped; the same command continues" in outcome.err
        if last >= 0:
            assert f"continuing at step {last} of {LONG_STEPS}" in outcome.out
        assert last < step_of(outputs) < LONG_STEPS
        last = step_of(outputs)
        assert not (outputs / "figures" / "odd2020").exists()
        with pytest.raises(ProcessLookupError):  # nothing of it goes on
            os.killpg(process.pid, 0)

    outcome = real(*arguments, cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    assert f"continuing at step {last} of {LONG_STEPS}" in outcome.out
    assert real(*arguments[:2], "outputs=whole", cwd=tmp_path).code == 0
    one, other = (
        pd.read_csv(tmp_path / name / "figures" / "odd2020" / "long" / "quick" / "rows.csv").drop(columns="written")
        for name in ("outputs", "whole")
    )
    assert len(one) == 1
    pd.testing.assert_frame_equal(one, other)


@pytest.mark.slow
def test_seeds_that_are_scored_in_pairs_alone_suffice(tree: Path, tmp_path: Path) -> None:
    outcome = real("pairs2020/agree", "compute.threads=1", cwd=tmp_path)
    assert outcome.code == 0, outcome.err + outcome.out
    assert "scores on the" not in outcome.out
    folder = tmp_path / "outputs" / "figures" / "pairs2020" / "agree" / "quick"
    rows = pd.read_csv(folder / "rows.csv")
    assert rows["seed"].tolist() == [0, 1]
    assert (rows["state"] == "done").all()
    assert rows[["mcc_mean", "elbo"]].isna().all(axis=None)
    assert 0 < pd.read_csv(folder / "summary.csv")["mean"].item() < 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["tiny2020/pear"], ["'tiny2020/pear'", "nearest: tiny2020/pair"]),
        (["pair"], ["nearest: tiny2020/pair"]),
        (["tiny2020/"], ["'tiny2020/'"]),
        (["xyz"], ["there are: ", "tiny2020/pair"]),
        (["scale=quick"], ["expected one figure, a paper, or all, got none"]),
        (["tiny2020/pair", "odd2020/fails"], ["expected one figure", "tiny2020/pair odd2020/fails"]),
        (["tiny2020/pair", "--quick"], ["expected one figure", "--quick"]),
        (["odd2020/breaks"], ["odd2020/breaks.yaml: expected YAML"]),
        (["tiny2020/pair", "scale=large"], ["scale: expected quick or paper, got 'large'"]),
        (["tiny2020/pair", "train=no"], ["train: expected true or false, got 'no'"]),
        (["tiny2020/pair", "record=1"], ["record: expected true or false, got '1'"]),
        (["tiny2020/pair", "scale=paper", "record=true", "data.seed=2"], ["no changed numbers", "data.seed=2"]),
        (["tiny2020/pair", "seed=3"], ["seed: expected no override", "'3'"]),
        (["tiny2020/pair", "force=true"], ["force: expected no override"]),
        (["tiny2020/pair", "show=true"], ["show: expected no override"]),
        (["tiny2020/pair", "data.segmnts=3"], ["tiny2020/pair", "segmnts"]),
        (["tiny2020/pair", "data.segments.x=3"], ["tiny2020/pair", "segments"]),
        (["tiny2020/pair", "colour=red"], ["colour: expected scale, outputs", "colour=red"]),
        (["tiny2020/pair", "scal=paper"], ["scal: expected scale, outputs", "override of data, model", "scal=paper"]),
        (["tiny2020/pair", "+data.colour=red"], ["expected overrides of the form key=value", "+data.colour=red"]),
        (["tiny2020/pair", "model=ivea"], ["tiny2020/pair", "ivea"]),
        (["tiny2020/pair", "model/objective=elbow"], ["tiny2020/pair", "elbow"]),
        (["tiny2020/pair", "nosuchgroup/x=1"], ["nosuchgroup/x: expected scale, outputs", "nosuchgroup/x=1"]),
        (["tiny2020/pair", "trainer.lr=[1"], ["tiny2020/pair", "[1"]),
        (["tiny2020/pair", "trainer.lr=${trainer.rate}"], ["tiny2020/pair", "rate"]),
        (["tiny2020/pair", "compute.thread=1"], ["compute.thread"]),
        (["tiny2020/pair", "hydra/launcher=warp"], ["warp"]),
        (["tiny2020/pair", "outputs=/dev/null/x"], ["/dev/null/x"]),
        (["--list", "scale=quick"], ["expected --list [outputs=FOLDER], got scale=quick"]),
    ],
)
def test_bad_input_is_one_line_exit_2_and_leaves_nothing(
    here: Here, tmp_path: Path, arguments: list[str], expected: list[str]
) -> None:
    outcome = here(*arguments)
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert line.startswith("ivae_lab.reproduce: ")
    for part in expected:
        assert part in line
    assert list(tmp_path.iterdir()) == []


def test_without_runs_and_training_it_says_which_command_trains(here: Here, tmp_path: Path) -> None:
    outcome = here("tiny2020/pair", "train=false", "data.split=[1,0,0]")
    assert (outcome.code, outcome.err) == (1, "")
    assert "not run: 4 seeds of 2 configurations" in outcome.out
    command = "python -m ivae_lab.reproduce tiny2020/pair scale=quick 'data.split=[1,0,0]'"
    assert f"no runs; {command} trains them" in outcome.out
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_whose_status_was_edited_is_named(here: Here, tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "tcl-vade-1"
    folder.mkdir(parents=True)
    write_status(folder, {"state": "running", "cell": "1", "seeds": [0]})
    assert "left out" not in here("tiny2020/pair", "train=false").out
    (folder / "status.json").write_text((folder / "status.json").read_text().replace("running", "done"))
    outcome = here("tiny2020/pair", "train=false")
    (line,) = (each for each in outcome.out.splitlines() if each.startswith("left out"))
    assert line.startswith("left out: outputs/tcl-vade-1: expected status.json as the run wrote it, got another")
    assert outcome.code == 1


def test_the_list_folds_no_name_of_a_figure(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    said = here("--list").out
    assert all(f" {name} " in said for name in PAPERS)
    assert "iVAE recovers what is made up." not in said  # there is less room than the table would take


def test_help_explains_the_command(here: Here) -> None:
    for arguments in ([], ["--help"]):
        outcome = here(*arguments)
        assert (outcome.code, outcome.err) == (0, "")
        assert "scale=quick|paper" in outcome.out
