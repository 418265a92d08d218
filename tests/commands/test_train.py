"""The command line: help, names of run folders, what a run leaves, sweeps, wandb, and the time it takes to start."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from ivae_lab.config.manual import manual
from ivae_lab.runs.arrays import read_latents
from ivae_lab.runs.folder import is_finished, read_status
from ivae_lab.runs.results_csv import COLUMNS, read_results
from tests.running import TINY, Inside, Outcome, command, fresh, numbers, run_folder, settings

RUN = (*TINY, "model=ivae", "seed=[0,3]", "data.split=[.5,.25,.25]")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """One real run from another working directory: its folder, and what the command said."""
    cwd = tmp_path_factory.mktemp("elsewhere")
    outcome = fresh(*RUN, cwd=cwd)
    assert outcome.code == 0, outcome.err
    return run_folder(cwd / "outputs"), outcome


def test_help_names_the_groups_and_an_example(tmp_path: Path) -> None:
    outcome = fresh("--help", cwd=tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    for expected in (
        "ivae-lab train model=",
        "data: cifar10",
        "tcl_talk",
        "model: ",
        "ivae",
        "vade",
        "seed:",
        "latent_dim",
    ):
        assert expected in outcome.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("overrides", [(), ("model=ivae", "+model.more=3", "data.seed=7")], ids=["bare", "overrides"])
@pytest.mark.slow
def test_help_is_what_hydra_prints(
    overrides: tuple[str, ...], tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--help", *overrides]
    ours = manual(arguments)
    monkeypatch.setattr("ivae_lab.train.manual", lambda given: None)  # leave it to Hydra
    assert inside(*arguments, cwd=tmp_path).out == f"{ours}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["model=ivae"],
        ["--hydra-help"],
        ["--help", "--resolve"],
        ["--help", "--config-name=other"],
        ["--help", "hydra.searchpath=[file:///tmp]"],
        ["--help", "modle=ivae"],
        ["--help", "model=none"],
    ],
    ids=" ".join,
)
def test_hydra_answers_all_else(arguments: list[str]) -> None:
    assert manual(arguments) is None


@pytest.mark.slow
class TestRunFolder:
    def test_holds_what_the_contract_says_and_no_more(self, first: tuple[Path, Outcome]) -> None:
        folder, _ = first
        named = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        contract = {
            "config.yaml",
            "network.csv",
            "spec.json",
            "recipe.json",
            "status.json",
            "results.csv",
            "history.csv",
            "latents.npz",
            "checkpoints/last.ckpt",
        }
        assert named == {*contract, "examples.npz", "recovered.png", "recovered.pdf", ".lock"}
        assert folder.name.startswith("tcl-ivae-")
        assert len(folder.name.removeprefix("tcl-ivae-")) == 10
        assert [path.name for path in folder.parents[1].iterdir()] == ["outputs"]  # nothing of Hydra's beside it

    def test_config_is_resolved_and_says_everything(self, first: tuple[Path, Outcome]) -> None:
        text = (first[0] / "config.yaml").read_text()
        config = yaml.safe_load(text)
        assert "${" not in text
        assert (config["seed"], config["data"]["seed"], config["trainer"]["steps"]) == ([0, 3], 1, 40)
        assert config["model"]["decoder"]["hidden"] == config["model"]["encoder"]["hidden"] == 8
        assert config["prior"]["_target_"] == "ivae_lab.priors.TablePrior"
        assert set(config["metric"]) == {"mcc", "mcc_weak", "linear_r2", "elbo"}
        assert "hydra" not in config

    def test_status(self, first: tuple[Path, Outcome]) -> None:
        folder, _ = first
        status = json.loads((folder / "status.json").read_text())
        assert status["state"] == "done"
        assert status["error"] is None
        assert (status["seeds"], status["data_seed"], status["threads"]) == ([0, 3], 1, 1)
        assert status["run"] == folder.name.rpartition("-")[2]
        assert 0 < status["seconds"] < 60
        assert status["versions"]["torch"] == torch.__version__
        assert set(status) >= {"commit", "device", "cell", "written", "host", "pid", "compiled", "diverged"}

    def test_results_have_a_row_per_seed_split_and_variant(self, first: tuple[Path, Outcome]) -> None:
        rows = read_results(first[0])
        assert tuple(rows.columns) == COLUMNS
        assert set(rows["seed"]) == {0, 3}
        assert set(rows["split"]) == {"train", "valid", "test"}
        assert set(rows["metric"]) >= {"mcc", "linear_r2", "elbo", "log_likelihood", "kl"}
        assert (rows["state"] == "done").all()
        assert np.isfinite(rows["value"]).all()
        apart = [column for column in COLUMNS if column not in ("value", "chance", "state")]
        assert not rows.duplicated(apart).any()
        assert len(rows.groupby(["seed", "split"]).size().unique()) == 1
        points = rows[(rows["metric"] == "elbo")].groupby("split")["points"].unique()
        assert {split: list(n) for split, n in points.items()} == {"train": [400], "valid": [200], "test": [200]}

    def test_latents_need_no_pickle_and_name_their_rows(self, first: tuple[Path, Outcome]) -> None:
        with np.load(first[0] / "latents.npz", allow_pickle=False) as arrays:
            held = dict(arrays)
        shapes = {name: value.shape for name, value in held.items()}
        assert shapes == {
            "mean": (2, 800, 5),
            "sample": (2, 800, 5),
            "sources": (800, 5),
            "u": (800,),
            "index": (800,),
            "split": (800,),
            "seed": (2,),
        }
        assert sorted(held["index"]) == list(range(800))
        assert held["seed"].tolist() == [0, 3]
        assert (held["u"] == held["index"] // 100).all()
        assert [(held["split"] == name).sum() for name in ("train", "valid", "test")] == [400, 200, 200]
        assert not np.array_equal(held["mean"], held["sample"])
        assert not np.array_equal(held["mean"][0], held["mean"][1])

    def test_history_has_a_row_per_seed_and_point(self, first: tuple[Path, Outcome]) -> None:
        lines = (first[0] / "history.csv").read_text().splitlines()
        assert lines[0] == "step,epoch,seed,loss,elbo,log_likelihood,kl,lr,mcc,l_rank,l_condition"
        assert [line.split(",")[0:3:2] for line in lines[1:]] == [["20", "0"], ["20", "3"], ["40", "0"], ["40", "3"]]

    def test_the_command_says_where_things_lie_and_how_good_they_are(self, first: tuple[Path, Outcome]) -> None:
        folder, outcome = first
        for said in ("ivae on tcl: 2 seeds (0, 3)", f"outputs/{folder.name}", "MCC", "ELBO", "mean", "chance"):
            assert said in outcome.out
        assert outcome.err == ""


@pytest.mark.slow
def test_aggregate_reads_it(first: tuple[Path, Outcome]) -> None:
    folder, _ = first
    outcome = command(cwd=folder.parents[1], module="ivae_lab.aggregate")
    assert outcome.code == 0, outcome.err
    table = (folder.parent / "results.csv").read_text().splitlines()
    assert len(table) - 1 == len(read_results(folder))
    assert "model.latent_dim" in table[0]
    (folder.parent / "results.csv").unlink()


@pytest.mark.slow
def test_the_same_command_finds_its_finished_work(first: tuple[Path, Outcome], inside: Inside) -> None:
    folder, _ = first
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for further in ((), ("logger=wandb",), ("compute.threads=2",), ("compute.checkpoint_seconds=1",)):
        outcome = inside(*RUN, *further, cwd=folder.parents[1])
        assert (outcome.code, outcome.err) == (0, "")
        assert f"already finished: outputs/{folder.name}" in outcome.out
        assert "MCC" in outcome.out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.slow
def test_force_trains_again_to_the_same_numbers(first: tuple[Path, Outcome], inside: Inside) -> None:
    folder, _ = first
    before, written = numbers(folder), (folder / "results.csv").stat().st_mtime_ns
    outcome = inside(*RUN, "force=true", cwd=folder.parents[1])
    assert outcome.code == 0, outcome.err
    assert "step 40 of 40" in outcome.out
    assert "continuing" not in outcome.out
    assert (folder / "results.csv").stat().st_mtime_ns > written
    assert numbers(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{"WANDB_MODE": "offline"}, {}], ids=["offline", "no key"])
def test_wandb_without_a_network_logs_beside_the_same_numbers(
    first: tuple[Path, Outcome], tmp_path: Path, environment: dict[str, str]
) -> None:
    home = tmp_path / "home"  # no .netrc there
    home.mkdir()
    outcome = command(*RUN, "logger=wandb", cwd=tmp_path, HOME=str(home), **environment)
    assert outcome.code == 0, outcome.err
    assert "Traceback" not in outcome.err
    folder = run_folder(tmp_path / "outputs")
    assert list((folder / "wandb").rglob("*.wandb"))
    assert folder.name == first[0].name
    assert numbers(folder) == numbers(first[0])


class TestNames:
    def test_an_integer_is_a_list_of_one(self) -> None:
        assert settings(*TINY, "seed=0").folder == settings(*TINY, "seed=[0]").folder
        assert settings(*TINY, "seed=0").seeds == [0]

    @pytest.mark.parametrize(
        "override",
        [
            "logger=wandb",
            "force=true",
            "compute.threads=7",
            "compute.device=cpu",
            "compute.compile=false",
            "compute.checkpoint_seconds=3",
        ],
    )
    def test_what_changes_no_number_changes_no_name(self, override: str) -> None:
        assert settings(override).folder == settings().folder

    def test_outputs_move_the_folder_only(self) -> None:
        assert settings("outputs=a/b").folder == Path("a/b") / settings().folder.name

    @pytest.mark.slow
    def test_every_key_that_changes_numbers_changes_the_name(self) -> None:
        overrides = [
            "seed=[0,1,2,3]",
            "seed=[1,0,2,3,4]",
            "data.seed=2",
            "data.noise_std=0.1",
            "data.modulation_range=[0.01,3.5]",
            "data=tcl_icebeem",
            "model.latent_dim=3",
            "model.beta=2",
            "model.encoder.hidden=11",
            "model.encoder.slope=0.11",
            "model.likelihood.variance=0.02",
            "model.objective.warmup=0.1",
            "model/objective=four_terms",
            "prior=normal",
            "prior.components=41",
            "trainer.lr=0.002",
            "trainer.steps=20",
            "trainer.eps=1e-7",
            "trainer.betas=[0.9,0.99]",
            "trainer.chunk=49",
            "trainer.clip_norm=1",
            "metric=mcc",
            "metric.mcc.chance_draws=9",
        ]
        names = {settings(override).fingerprint for override in overrides}
        assert len(names | {settings().fingerprint}) == len(overrides) + 1


@pytest.mark.slow
def test_a_sweep_makes_a_folder_per_combination(tmp_path: Path) -> None:
    """Values that cannot be (latent_dim=0) do not stop the others, and the command says so at its end."""
    sweep = ("-m", *TINY, "trainer.steps=20", "model=ivae,vade", "seed=range(2)", "model.latent_dim=0,2")
    outcome = command(*sweep, cwd=tmp_path)
    assert outcome.code == 2
    assert (
        outcome.err.splitlines()
        == ["ivae_lab.train: model.latent_dim: expected greater than 0 or null, got 0 (int)"] * 4
    )
    folders = [path for path in (tmp_path / "outputs").iterdir() if path.is_dir()]  # beside them Hydra's multirun.yaml
    assert len(folders) == 4
    assert all(is_finished(path) for path in folders)
    assert {path.name.split("-")[1] for path in folders} == {"ivae", "vade"}
    assert {(read_status(path)["seeds"][0], read_latents(path)["mean"].shape[2]) for path in folders} == {
        (0, 2),
        (1, 2),
    }
