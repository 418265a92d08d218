"""A class is known by its name: its module moves, and runs, checkpoints and records stay what they are."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from ivae_lab import networks
from ivae_lab.config.digests import cell_digest, digest, run_digest
from ivae_lab.config.paths import CONFIG
from ivae_lab.config.targets import FACES, RENAMED, known, name_of, place_of, with_places
from ivae_lab.reproduction.found_runs import find
from ivae_lab.runs.flat_config import read_config
from ivae_lab.runs.folder import read_status, write_status
from ivae_lab.training.callbacks import Checkpoints
from ivae_lab.training.group import execute
from ivae_lab.training.provenance import code
from ivae_lab.training.run import prepare
from tests.running import TINY, advance, command, environment, make_module, make_run, numbers, settings
from tests.warm import leave_pictures_empty

ROOT = Path(__file__).resolve().parents[2]
TARGETS = re.compile(r"^ *_target_: *(\S+)$", re.MULTILINE)
OF_HYDRA = ("hydra_plugins.", "ivae_lab.launch.sweep.")  # of launchers, sweepers and callbacks, which are in no digest
RUN = ("model=ivae", *TINY, "seed=[0,1]")
MOVES = {"models/vae.py": "models/other.py", "networks/mlp.py": "networks/dense.py", "data/tcl.py": "data/segments.py"}
# A figure's recorded rows, of no run folder, joined with its cells: how many there are, and how many are taken.
JOIN = """
from ivae_lab.reproduction.found_runs import FoundRuns
from ivae_lab.reproduction.cells import expand
from ivae_lab.reproduction.definition import load
from ivae_lab.reproduction.join_records import join
from ivae_lab.reproduction.evidence import FigureEvidence, gather
from ivae_lab.reproduction.records import recorded
figure = load("khemakhem2020/unidentifiable")
kept, cells = recorded(figure), expand(figure, "paper")
evidence = gather(figure, cells, FoundRuns(), FigureEvidence(figure, "paper", [], ""))
print(len(kept.tables["rows"]), join(evidence, kept, cells))
"""


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """A copy of the package in which modules are elsewhere, with this project's configuration and records."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "ivae_lab", copy / "ivae_lab", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conf", "experiments"):
        (copy / name).symlink_to(ROOT / name)
    for before, after in MOVES.items():
        (copy / "ivae_lab" / before).rename(copy / "ivae_lab" / after)
    modules = [f"ivae_lab/{each}".removesuffix(".py").replace("/", ".") for pair in MOVES.items() for each in pair]
    for path in (copy / "ivae_lab").rglob("*.py"):
        text = path.read_text()
        for before, after in zip(modules[::2], modules[1::2], strict=True):
            text = re.sub(rf"^( *(?:from|import)) {re.escape(before)}\b", rf"\1 {after}", text, flags=re.MULTILINE)
        path.write_text(text)
    return copy


def test_a_module_that_moves_changes_no_run_and_makes_no_record_foreign(
    moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_pictures_empty(monkeypatch.setattr)
    whole = make_run(*RUN, f"outputs={tmp_path / 'whole'}")
    prepare(whole.settings.compute)
    execute([whole], Console(quiet=True))
    begun = make_run(*RUN, f"outputs={tmp_path / 'outputs'}")
    begun.begin()
    module = advance(make_module(begun), 20)
    Checkpoints([(module.members[0], begun.checkpoint, begun.settings.fingerprint, 0.0)], 0).write(module)

    path = f"{moved}{os.pathsep}{ROOT}"
    outcome = command(*RUN, cwd=tmp_path, PYTHONPATH=path)
    assert outcome.code == 0, outcome.err
    folder = begun.settings.folder
    status = read_status(folder)
    assert status["code"] != code()  # it was the copy
    assert [each.name for each in folder.parent.iterdir() if each.is_dir()] == [folder.name]
    assert (status["resumed"], status["run"]) == (1, begun.settings.fingerprint)
    assert status["cell"] == read_status(whole.settings.folder)["cell"]
    resumed, expected = (numbers(each.settings.folder) for each in (begun, whole))
    assert resumed | {"history.csv": b""} == expected | {"history.csv": b""}  # of which the first steps here had none

    done = subprocess.run(
        [sys.executable, "-c", JOIN],
        cwd=tmp_path,
        env=environment(PYTHONPATH=path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("6 6\n", "")


def test_a_run_of_before_is_found_as_the_cell_that_it_is(tmp_path: Path) -> None:
    config = settings(*RUN).plain()
    text = OmegaConf.to_yaml(config)
    for name, target in {
        "names": "ivae_lab.networks.GaussianEncoder",
        "paths": "ivae_lab.nets.GaussianEncoder",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(text.replace("ivae_lab.networks.GaussianEncoder", target))
        write_status(tmp_path / name, {"state": "failed", "cell": f"a digest of {name}", "seeds": [0]})
    found = {key: path.name for key, (path, _) in find(tmp_path).unfinished.items()}
    assert found == {("a digest of names", 0): "names", (cell_digest(config), 0): "paths"}


def config_of(target: str) -> dict[str, object]:
    """A configuration in which a class is named at the top, inside another and in a list."""
    part = {"_target_": target, "size": 1}
    return {name: {**part, "inside": {"parts": [part]}} for name in ("data", "model", "prior", "trainer", "metric")}


class TestIdentity:
    @pytest.mark.parametrize("path", ["ivae_lab.models.vae.VAE", "ivae_lab.models.VAE", "ivae_lab.of_before.VAE"])
    def test_where_a_class_lies_is_no_part_of_it(self, path: str) -> None:
        config = config_of("ivae_lab.models.other.VAE")
        assert run_digest(config_of(path), [0]) == run_digest(config, [0])
        assert cell_digest(config_of(path)) == cell_digest(config)
        assert digest([config_of(path)]) == digest([config])

    @pytest.mark.parametrize("path", ["mine.VAE", "tests.VAE", "ivae_lab_of_mine.VAE", "ivae_lab.models.GMVAE"])
    def test_another_class_is_another_run(self, path: str) -> None:
        """Of another package also where it has the same name, as nobody keeps names of two packages apart."""
        assert cell_digest(config_of(path)) != cell_digest(config_of("ivae_lab.models.VAE"))
        assert cell_digest(config_of(path)) != cell_digest(config_of(f"other.{path}"))

    def test_a_class_that_was_renamed_is_what_it_was(self) -> None:
        for before, name in RENAMED.items():
            assert digest(config_of(before)) == digest(config_of(f"{known()[name]}.{name}"))

    def test_aggregated_rows_say_the_name(self) -> None:
        texts = [f"model:\n  _target_: {path}\n" for path in ("ivae_lab.models.vae.VAE", "ivae_lab.models.VAE")]
        assert [read_config(text) for text in texts] == [{"model._target_": "VAE"}] * 2


class TestPlaces:
    def test_no_two_classes_or_functions_share_a_name_that_a_configuration_may_say(self) -> None:
        """In the whole package, so that none of another module is taken for them."""
        trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "ivae_lab").rglob("*.py")]
        kinds = ast.ClassDef | ast.FunctionDef
        count = Counter(node.name for tree in trees for node in tree.body if isinstance(node, kinds))
        assert {name: count[name] for name in known() if count[name] != 1} == {}
        assert len(known()) == sum(len(dir(import_module(face))) for face in FACES)

    def test_every_name_of_a_face_is_there(self) -> None:
        for name, face in known().items():
            found = getattr(import_module(face), name)
            assert (found.__name__, found.__module__.startswith(face)) == (name, True)

    def test_a_face_has_no_other_names(self) -> None:
        with pytest.raises(AttributeError, match=r"^module 'ivae_lab\.networks' has no attribute 'GausianEncoder'$"):
            networks.GausianEncoder  # type: ignore[attr-defined]  # noqa: B018
        assert "GaussianEncoder" in dir(networks)

    def test_a_face_loads_nothing_until_it_is_asked(self) -> None:
        script = f"import {', '.join(FACES)}, sys; print({{'torch', 'pandas', 'scipy', 'sklearn'}} & {{*sys.modules}})"
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment(), cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout == "set()\n"

    def test_yamls_name_faces(self) -> None:
        named = [(path, each) for path in CONFIG.rglob("*.yaml") for each in TARGETS.findall(path.read_text())]
        ours = [(path, each) for path, each in named if not each.startswith(OF_HYDRA)]
        assert ours
        assert [(path, each) for path, each in ours if name_of(each) not in known() or place_of(each) != each] == []

    def test_a_path_of_before_leads_to_the_class(self, composed: Callable[..., DictConfig]) -> None:
        now = OmegaConf.to_container(composed("model=vade").model, resolve=True)
        assert isinstance(now, dict)
        before = {**now, "_target_": "ivae_lab.vae_of_before.VAE"}
        before["encoder"] = {**now["encoder"], "_target_": "ivae_lab.nets.GaussianEncoder"}
        assert with_places(before) == now
        for old, name in RENAMED.items():
            assert place_of(old) == f"{known()[name]}.{name}"
        assert place_of("tests.cluster.breaking.Breaking") == "tests.cluster.breaking.Breaking"
