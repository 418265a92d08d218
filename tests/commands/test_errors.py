"""What a user gets wrong is one line that says what was expected and what came, exit code 2, and no traces."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ivae_lab.config.build import ConfigError
from ivae_lab.core.data import DataSpec
from ivae_lab.engine.checkpoint_files import load_checkpoint
from ivae_lab.networks.mlp import GaussianEncoder
from ivae_lab.runs.folder import is_finished
from tests.profiles import examples
from tests.running import TINY, Outcome, command, here, make_run, numbers, run_folder


@pytest.fixture
def attempt(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Attempt:
    """Runs the command in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)
    return Attempt(tmp_path, capsys, monkeypatch)


class Attempt:
    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.capsys, self.monkeypatch = folder, capsys, monkeypatch

    def __call__(self, *arguments: str) -> Outcome:
        return here(arguments, self.capsys, self.monkeypatch)

    def left(self) -> list[str]:
        return sorted(path.name for path in self.folder.rglob("*"))


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("data.segments=-3", ["data.segments", "greater than 0", "-3"]),
        ("+data.colour=red", ["data.colour", "unknown key", "segments"]),
        ("+colour=red", ["colour", "unknown key", "model"]),
        ("~trainer.lr", ["trainer", "'lr'", "got none"]),
        ("seed=[0,a]", ["seed[1]", "integer", "'a'"]),
        ("trainer.batch_size=801", ["trainer", "batch_size", "800", "801"]),
        ("model/likelihood=bernoulli", ["model", "binary observations", "real-valued"]),
        ("metric.mcc_weak.rank=99", ["metric.mcc_weak", "99"]),
        ("compute.device=tpu", ["compute.device", "'cpu'", "'tpu'"]),
        ("outputs=/dev/null/x", ["/dev/null/x"]),
        ("trainer.lr=${trainer.rate}", ["trainer.rate"]),
        ("trainer.lr=???", ["trainer.lr"]),
    ],
)
@pytest.mark.slow
def test_a_wrong_value_is_one_line_and_leaves_nothing(attempt: Attempt, wrong: str, expected: list[str]) -> None:
    outcome = attempt(*TINY, wrong)
    assert outcome.code == 2, outcome.err
    (line,) = outcome.err.splitlines()
    assert line.startswith("ivae_lab.train: ")
    for part in expected:
        assert part in outcome.err
    assert attempt.left() == []


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("data.segments=many", ["data.segments", "integer", "'many'"]),
        ("data.segments=2.5", ["data.segments", "integer", "2.5"]),
        ("data.segments=true", ["data.segments", "integer", "True"]),
        ("data.segments='5'", ["data.segments", "integer", "'5'"]),
        ("data.x_dim=null", ["data.x_dim", "integer", "None"]),
        ("data.source_dim=6", ["data", "source_dim <= x_dim", "source_dim=6, x_dim=5"]),
        ("data.split=[1,1,1]", ["data", "split", "sum to 1"]),
        ("data.split=[1,0]", ["data", "split", "three fractions"]),
        ("data.seed=-1", ["data.seed", "greater than or equal to 0", "-1"]),
        ("data.seed=null", ["data.seed", "None"]),
        ("data.seed=4294967296", ["data.seed", "4294967295"]),
        ("+model.latent_dims=3", ["model.latent_dims", "unknown key", "did you mean latent_dim"]),
        ("+model.encoder.colour=red", ["model.encoder.colour", "unknown key", "hidden"]),
        ("seed=[]", ["seed", "at least 1"]),
        ("seed=[0,0]", ["seed", "different", "[0, 0]"]),
        ("seed=-1", ["seed[0]", "greater than or equal to 0", "-1"]),
        ("seed=true", ["seed[0]", "integer", "True"]),
        ("seed=null", ["seed", "None"]),
        ("seed=1.5", ["seed", "integer", "1.5"]),
        ("trainer.epochs=2", ["trainer", "exactly one of steps and epochs", "steps=40, epochs=2"]),
        ("trainer.steps=0", ["trainer.steps", "greater than 0"]),
        ("trainer.lr=0", ["trainer.lr", "greater than 0"]),
        ("trainer.lr=nan", ["trainer.lr", "nan"]),
        ("trainer.betas=[0.9]", ["trainer.betas", "at least 2"]),
        ("trainer.schedule=linear", ["trainer.schedule", "'cosine'", "'linear'"]),
        ("trainer.clip_norm=-1", ["trainer.clip_norm", "greater than 0"]),
        ("prior.components=0", ["prior.components", "greater than 0"]),
        ("model.latent_dim=0", ["model.latent_dim", "greater than 0"]),
        ("model.beta=-1", ["model.beta", "greater than or equal to 0"]),
        ("model.encoder.hidden=0", ["model.encoder.hidden", "0"]),
        ("model.encoder.layers=0", ["model.encoder.layers", "0"]),
        ("model.encoder.activation=tanh", ["model.encoder.activation", "'xtanh'", "'tanh'"]),
        ("model.likelihood.variance=0", ["model.likelihood.variance", "greater than 0"]),
        ("data.observation=binary", ["model", "real-valued observations", "bernoulli"]),
        ("metric.mcc.coefficients=[kendall]", ["metric.mcc.coefficients", "'pearson'", "'kendall'"]),
        ("compute.compile=maybe", ["compute.compile", "'auto'", "'maybe'"]),
        ("compute.threads=0", ["compute.threads", "greater than 0"]),
        ("compute.checkpoint_seconds=-1", ["compute.checkpoint_seconds", "greater than or equal to 0"]),
        ("logger=foo", ["logger", "'csv'", "'foo'"]),
        ("force=perhaps", ["force", "boolean", "'perhaps'"]),
        ("outputs=3", ["outputs", "string", "3"]),
        ("metric.elbo._target_=mine.ELBO", ["metric.elbo._target_", "'mine.ELBO'", "No module named 'mine'"]),
        ("model._target_=ivae_lab.models.VAEE", ["model._target_", "did you mean ivae_lab.models.VAE"]),
    ],
)
@pytest.mark.slow
def test_it_is_an_error_of_the_run_in_one_line(wrong: str, expected: list[str]) -> None:
    """What the command says of it, as of those above, before it makes a folder."""
    with pytest.raises(ConfigError) as error:
        make_run(*TINY, wrong)
    assert "\n" not in str(error.value)
    for part in expected:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (["data=gmm_relu", "data.components=0"], "data.components: expected greater than 0, got 0 (int)"),
        (["data=gmm_relu", "data.slope=-1"], "data.slope: expected greater than or equal to 0, got -1 (int)"),
        (["data=gmm_relu", "data.latent_dim=3"], "data.latent_dim: expected less than or equal to 2, got 3 (int)"),
        (["model=exact", "data=tcl"], "model: expected latent_dim of 1 or 2 for an exact likelihood, got 5"),
        (
            ["model=exact", "data=gmm_relu", "model/search=rows", "model.search.hops=-1"],
            "model.search.hops: expected greater than or equal to 0, got -1",
        ),
        (
            ["model=exact", "data=gmm_relu", "model/search=rows", "+model.search.foo=1"],
            "model.search.foo: expected one of evaluations, hops, of",
        ),
        (
            ["model=exact", "data=gmm_relu", "+model.search.hops=-1"],
            "model.search: expected an instance of Search or null, got {'hops': -1} (dict)",
        ),
    ],
)
@pytest.mark.slow
def test_so_is_that_of_an_exact_likelihood_or_its_data(wrong: list[str], expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_run(*wrong)
    assert str(error.value).startswith(expected)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("data.segmnts=3", ["data.segmnts: expected a key", "(did you mean data.segments"]),
        ("model=ivea", ["model: expected one of ae, ", "vade_pretrained", "got ivea (did you mean ivae"]),
        ("nosuchgroup=1", ["nosuchgroup: expected a key"]),
        ("--colour", ["expected overrides", "--colour"]),
        ("model/objective=elbow", ["elbow", "total_correlation"]),
        ("metric=[mcc,mmc]", ["mmc"]),
        ("trainer.steps", ["expected an override such as model=ivae, got trainer.steps: missing EQUAL"]),
        ("model.latent_dim=", []),
        ("seed=[0,1", ["[0,1"]),
    ],
)
@pytest.mark.slow
def test_what_hydra_cannot_compose_is_one_line_too(attempt: Attempt, wrong: str, expected: list[str]) -> None:
    outcome = attempt(*TINY, wrong)
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert line.startswith("ivae_lab.train: ")
    for part in expected:
        assert part in outcome.err
    assert attempt.left() == []


@pytest.mark.slow
def test_a_wrong_value_in_a_process_of_its_own(tmp_path: Path) -> None:
    outcome = command(*TINY, "data.segments=-3", cwd=tmp_path)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "ivae_lab.train: data.segments: expected greater than 0, got -3 (int)\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_sweep_into_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    outcome = command("-m", *TINY, "seed=0,1", "outputs=/dev/null/x", cwd=tmp_path)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("ivae_lab.train: outputs: expected a folder that can be written, got: ")
    assert len(outcome.err.splitlines()) == 1


def test_an_encoder_that_sees_u_refuses_data_without() -> None:
    with pytest.raises(ValueError, match=r"expected data with an auxiliary variable u .* got data without"):
        GaussianEncoder(
            DataSpec(5, 0, None, 100, False), 2, hidden=4, layers=2, activation="relu", slope=0.1, init="torch",
            sees_u=True, heads="shared", std="exp",
        )  # fmt: skip


class Bomb:
    """What a pickle of this does when it is read: make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (str(self.path), 0o700)


def same(one: Any, other: Any) -> bool:
    """Whether two trees of tensors and plain values are equal."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.slow
class TestCheckpoint:
    """A finished run whose results are taken away, so that the same command continues from its checkpoint."""

    RUN = (*TINY, "seed=0")

    @pytest.fixture(scope="class")
    @staticmethod
    def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
        cwd = tmp_path_factory.mktemp("finished")
        assert command(*TestCheckpoint.RUN, cwd=cwd).code == 0
        return cwd / "outputs"

    @pytest.fixture
    def folder(self, finished: Path, attempt: Attempt) -> Path:
        shutil.copytree(finished, attempt.folder / "outputs")
        folder = run_folder(attempt.folder / "outputs")
        (folder / "results.csv").unlink()
        return folder

    def test_a_damaged_one_is_said_and_the_run_begins_again(
        self, folder: Path, attempt: Attempt, finished: Path
    ) -> None:
        path = folder / "checkpoints" / "last.ckpt"
        path.write_bytes(path.read_bytes()[:-100])
        outcome = attempt(*self.RUN)
        assert outcome.code == 0, outcome.err
        assert "expected a readable checkpoint in" in outcome.out
        assert "no good checkpoint: training again from the start" in outcome.out
        assert numbers(folder) == numbers(run_folder(finished))

    @pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "bomb", "text"])
    def test_damage_of_any_kind_is_noticed_and_not_run(self, finished: Path, tmp_path: Path, damage: str) -> None:
        path, bomb = tmp_path / "last.ckpt", tmp_path / "exploded"
        whole = (run_folder(finished) / "checkpoints" / "last.ckpt").read_bytes()
        if damage == "bomb":
            torch.save({"fingerprint": Bomb(bomb)}, path)
        else:
            middle = len(whole) // 2
            flipped = bytes(byte ^ 255 for byte in whole[:middle]) + whole[middle:]
            path.write_bytes({"empty": b"", "cut": whole[:middle], "flipped": flipped, "text": b"hello"}[damage])
        found, said = load_checkpoint(path, "x", ConfigError)
        assert found is None
        assert said[0].startswith("expected a readable checkpoint in")
        assert not bomb.exists()

    @settings(max_examples=examples(40))
    @given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
    def test_a_flipped_bit_is_noticed_or_changes_nothing(self, finished: Path, place: float, bit: int) -> None:
        path = run_folder(finished) / "checkpoints" / "last.ckpt"
        whole = path.read_bytes()
        expected = torch.load(path, weights_only=True)
        at = int(place * len(whole))
        try:
            path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :])
            found, damaged = load_checkpoint(path, expected["fingerprint"], ConfigError)
        finally:
            path.write_bytes(whole)
        if found is None:
            assert "got a damaged one" in damaged[0]
        else:
            assert not damaged
            assert same(found, expected)

    def test_a_flipped_bit_among_the_weights_is_noticed(self, folder: Path) -> None:
        path = folder / "checkpoints" / "last.ckpt"
        snapshot = torch.load(path, weights_only=True)
        weights = next(iter(snapshot["state"]["parameters"].values())).numpy().tobytes()
        whole = path.read_bytes()
        at = whole.index(weights)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        found, (line, _) = load_checkpoint(path, snapshot["fingerprint"], ConfigError)
        assert found is None
        assert "got a damaged one" in line

    @pytest.mark.parametrize("name", ["results.csv", "history.csv", "status.json", "latents.npz"])
    @pytest.mark.parametrize("damage", ["flipped", "cut"])
    def test_a_damaged_result_has_the_run_scored_again(
        self, finished: Path, attempt: Attempt, name: str, damage: str
    ) -> None:
        shutil.copytree(finished, attempt.folder / "outputs")
        folder = run_folder(attempt.folder / "outputs")
        whole = (folder / name).read_bytes()
        if damage == "flipped" and name == "latents.npz":
            pytest.skip("expected a file that is held against its checksum, got arrays: reading them finds it")
        at = whole.rindex(b".") + 1 if name.endswith("csv") else whole.find(b"seconds") + 10
        flipped = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        (folder / name).write_bytes(flipped if damage == "flipped" else whole[: len(whole) // 2])
        assert not is_finished(folder)
        if damage == "flipped":
            return  # what is not finished is scored again, as where it is cut
        outcome = attempt(*self.RUN)
        assert outcome.code == 0, outcome.err
        assert is_finished(folder)
        assert "continuing at step 40 of 40" in outcome.out
        assert numbers(folder) == numbers(run_folder(finished))

    def test_one_of_another_configuration_is_refused(self, folder: Path, attempt: Attempt) -> None:
        path = folder / "checkpoints" / "last.ckpt"
        torch.save(torch.load(path, weights_only=True) | {"fingerprint": "0123456789"}, path)
        outcome = attempt(*self.RUN)
        assert outcome.code == 2
        assert f"expected a checkpoint of configuration {folder.name[-10:]}" in outcome.err
        assert "got one of 0123456789" in outcome.err
        with pytest.raises(ConfigError, match="0123456789"):
            load_checkpoint(path, "other", ConfigError)

    def test_an_old_pickle_is_not_run(self, tmp_path: Path) -> None:
        path, bomb = tmp_path / "last.ckpt", tmp_path / "exploded"
        path.write_bytes(pickle.dumps({"fingerprint": Bomb(bomb)}))
        found, (line, _) = load_checkpoint(path, "x", ConfigError)
        assert found is None
        assert "expected a readable checkpoint" in line
        assert not bomb.exists()


@pytest.mark.slow
def test_a_full_disk_is_said_and_leaves_finished_runs_whole(attempt: Attempt) -> None:
    disk = attempt.folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("expected the right to mount a small file system, got none")
    try:
        assert attempt(*TINY, f"outputs={disk}", "seed=0").code == 0
        folder = run_folder(disk)
        before = numbers(folder)
        outcome = attempt(*TINY, f"outputs={disk}", "seed=[0,1,2,3]")
        assert outcome.code == 2, outcome.err
        assert "No space left on device" in outcome.err
        assert len(outcome.err.splitlines()) == 1
        assert numbers(folder) == before
        for path in disk.rglob("*"):
            assert not path.name.startswith(".") or path.name == ".lock", path  # no half file is left
    finally:
        subprocess.run(["umount", disk], check=True)
