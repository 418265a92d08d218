"""Commands start without what they do not need: held by the modules that are there at their end, not by a clock."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ivae_lab import __version__
from ivae_lab.config.paths import EXPERIMENTS
from ivae_lab.reproduction import records, show
from ivae_lab.reproduction.definition import load
from ivae_lab.terminal.command_line import COMMANDS
from tests.running import environment

pytestmark = pytest.mark.slow

# What takes a while to import, and what an import of it would bring.
LIBRARIES = ("lightning", "pandas", "pyarrow", "scipy", "sklearn", "matplotlib", "seaborn", "wandb", "jinja2")

HELP = [(f"ivae_lab.{name}", flag) for name in COMMANDS for flag in ("--help", "-h")]
VERSION = [("ivae_lab", "--version"), *((f"ivae_lab.{name}", "--version") for name in COMMANDS)]
ALL = [("ivae_lab",), ("ivae_lab", "--help"), ("ivae_lab", "-h")]
LISTS = [("ivae_lab.reproduce", "--list"), ("ivae_lab", "reproduce", "--list")]
TYPED = ["tr", "train model=iv", "train trainer.", "reproduce khemakhem2020/", "fetch ", "encode ", "score "]
TAB = [("ivae_lab", "completion", "answer", f"ivae-lab {line}") for line in TYPED]
WRONG = {
    "trainer.steps=ten": "trainer.steps: expected a valid integer or null, got 'ten' (str)",
    "metric.mcc.chance_draws=-1": "metric.mcc.chance_draws: expected greater than 0, got -1 (int)",
    "trainer.stepz=10": "trainer.stepz: expected a key of the configuration, got an unknown one",
    "metric.mcc_weak.rank=99": "metric.mcc_weak: expected a rank of 1 to 5, the smaller of 5 latents and 5 sources",
    "model.latent_dim=3 trainer.batch_size=100000000": "trainer: expected a batch_size of at most the 20000 rows",
}
# Runs the commands one after the other, as `python -m` does, and says of each what was loaded by then.
_RUN = """
import contextlib, io, json, runpy, sys
commands, heavy = map(json.loads, sys.argv[1:])
ended = []
for module, *arguments in commands:
    sys.argv[:] = [module, *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as exit_:
            code = exit_.code or 0
    ended.append((code, out.getvalue(), err.getvalue(), sorted({*heavy} & {*sys.modules})))
print(json.dumps(ended))
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended in a process in which others had run, and which heavy modules were there then."""

    code: int
    out: str
    err: str
    loaded: list[str]


def _one_after_the_other(commands: list[tuple[str, ...]], heavy: tuple[str, ...], cwd: Path) -> list[Ended]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _RUN, json.dumps(commands), json.dumps(heavy)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(cwd.iterdir()) == []
    return [Ended(*each) for each in json.loads(done.stdout)]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Ended]:
    """What needs no PyTorch, in one process: manuals, versions, lists, what TAB asks for."""
    modules = [f"ivae_lab.{name}" for name in COMMANDS]  # in order, as runpy wants none that another has imported
    of_each = sorted([*HELP, *VERSION[1:]], key=lambda command: modules.index(command[0]))
    commands = [*of_each, VERSION[0], *ALL, *LISTS, *TAB]
    ended = _one_after_the_other([*commands], ("torch", *LIBRARIES), tmp_path_factory.mktemp("empty"))
    return dict(zip(commands, ended, strict=True))


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """Runs that cannot be, in one process: what is wrong with the later ones is found later."""
    ended = _one_after_the_other(
        [("ivae_lab.train", *each.split()) for each in WRONG], LIBRARIES, tmp_path_factory.mktemp("empty")
    )
    return dict(zip(WRONG, ended, strict=True))


def test_what_needs_no_pytorch_comes_at_once(told: dict[tuple[str, ...], Ended]) -> None:
    assert {command: (ended.code, ended.err, ended.loaded) for command, ended in told.items()} == dict.fromkeys(
        told, (0, "", [])
    )


@pytest.mark.parametrize(("module", "flag"), HELP)
def test_help_of_each_command(told: dict[tuple[str, ...], Ended], module: str, flag: str) -> None:
    assert f"ivae-lab {module.removeprefix('ivae_lab.')} " in told[module, flag].out
    assert told[module, flag].out == told[module, "--help"].out


def test_version_names_ivae_lab(told: dict[tuple[str, ...], Ended]) -> None:
    assert {told[command].out for command in VERSION} == {f"ivae_lab {__version__}\n"}


def test_ivae_lab_alone_lists_the_commands(told: dict[tuple[str, ...], Ended]) -> None:
    (said,) = {told[command].out for command in ALL}
    for name, about in COMMANDS.items():
        assert re.search(rf"^ +{name} +{about}$", said, re.MULTILINE)


def test_list_of_figures(told: dict[tuple[str, ...], Ended]) -> None:
    (said,) = {told[command].out for command in LISTS}
    assert "khemakhem2020/fig2b" in said


def test_every_tab_is_answered(told: dict[tuple[str, ...], Ended]) -> None:
    assert all(told[command].out for command in TAB)


@pytest.mark.parametrize("overrides", WRONG)
def test_what_is_wrong_is_said_at_once(refused: dict[str, Ended], overrides: str) -> None:
    ended = refused[overrides]
    assert WRONG[overrides] in ended.err
    assert ended.code == 2
    assert ended.loaded == []


def test_list_finds_damage_in_what_it_does_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = load("khemakhem2020/fig2b")
    shutil.copytree(EXPERIMENTS / figure.paper / "results", tmp_path / figure.paper / "results")
    monkeypatch.setattr(records, "EXPERIMENTS", tmp_path)
    about, tables = records.kept(figure, ["rows"])
    state = show.state(figure, tmp_path)
    assert re.fullmatch(r"paper scale recorded \((\d+) of \1 runs\)", state)
    tables["rows"].write_text('"')
    assert "records cannot be read: expected fig2b.csv as it was recorded" in show.state(figure, tmp_path)
    tables["rows"].unlink()
    assert "records cannot be read: " in show.state(figure, tmp_path)
    about.unlink()
    assert show.state(figure, tmp_path) == "not run"
