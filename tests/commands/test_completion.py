"""What TAB completes after `ivae-lab`: the answers, and real shells that ask for them."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ivae_lab import completion
from ivae_lab.completion import answers
from ivae_lab.config.paths import CONFIG
from ivae_lab.data.images.catalogue import CATALOGUE
from ivae_lab.reproduction.definition import names
from ivae_lab.terminal.command_line import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
TAB, SHOW, CLEAR = "\t", "\x14", "\x15"  # the second is bound to what prints the line
_PATIENCE = 60.0
SHELLS = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"]}
PREPARED = {
    "bash": """bind -x '"\\C-t": printf "<%s>\\n" "$READLINE_LINE"'""",
    "zsh": """autoload -Uz compinit; compinit -u -D; show() { print -r "<$BUFFER>" }; zle -N show; bindkey '^T' show""",
}


def of(line: str) -> set[str]:
    return {*answers(f"ivae-lab {line}")}


def choices(group: str, beginning: str = "") -> set[str]:
    return {path.stem for path in (CONFIG / group).glob(f"{beginning}*.yaml")}


class TestAnswers:
    def test_commands(self) -> None:
        assert of("") == {f"{each} " for each in (*COMMANDS, "--help", "--version")}
        assert of("ex") == {"export "}
        assert of("nonsense ") == set()

    def test_choices_of_groups_are_the_files_of_the_configuration(self) -> None:
        assert of("train model=iv") == {f"model={each} " for each in choices("model", "iv")}
        assert of("train model/networks=") == {f"model/networks={each} " for each in choices("model/networks")}
        assert of("train +prior=cond") == {f"+prior={each} " for each in choices("prior", "cond")}
        assert of("train model=none") == set()

    def test_of_several_choices_the_last(self) -> None:
        assert of("train -m model=ivae,vade_p") == {"model=ivae,vade_pretrained "}
        assert of("train metric=[mcc,el") == {"metric=[mcc,elbo"}  # more may follow, or the bracket

    def test_groups_and_keys_come_a_step_at_a_time(self) -> None:
        assert of("train mod") == {"model=", "model.", "model/"}
        assert of("train model/net") == {"model/networks="}
        assert of("train model.la") == {"model.latent_dim="}
        assert of("train model.enc") == {"model.encoder."}
        assert not any("_target_" in each for each in of("train model."))
        assert of("train see") == {"seed="}

    def test_keys_are_those_of_the_choices_before(self) -> None:
        assert of("train model=gin model.tr") == {"model.transform."}
        assert of("train model.tr") == set()
        assert of("train -m 'seed=[0,1]' model=gin,vade model.tr") == {"model.transform."}
        assert of("train model=wrong model.la") == {"model.latent_dim="}

    def test_values_of_keys(self) -> None:
        assert of("train force=") == {"force=true ", "force=false "}
        assert of("train logger=") == {"logger=csv "}
        assert of("train seed=") == of("train compute.threads=") == set()

    @pytest.mark.parametrize("named", ["--config-dir {}", "--config-dir={}", "hydra.searchpath=[file://{}]"])
    def test_folders_of_the_user_are_looked_into(self, named: str, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "vade_mine.yaml").write_text("defaults: [vade]\ncolour: red\n")
        words = named.format(tmp_path)
        assert of(f"train {words} model=vade_m") == {"model=vade_mine "}
        assert of(f"train {words} model=vade_mine model.col") == {"model.colour="}

    def test_figures_papers_and_data_sets(self) -> None:
        assert of("reproduce khemakhem2020/fig") == {
            f"{each} " for each in names() if each.startswith("khemakhem2020/fig")
        }
        assert {"khemakhem2020 ", "all ", "scale="} <= of("reproduce ")
        assert of("reproduce all scale=") == {"scale=quick ", "scale=paper "}
        assert of("reproduce --l") == {"--list "}
        assert of("fetch ") == {"root=", *(f"{each} " for each in CATALOGUE)}

    def test_run_folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert of("encode run=") == set()
        for name in ("tcl-ivae-0123456789", "sweep/tcl-vade-0123456789"):
            (tmp_path / "outputs" / name).mkdir(parents=True)
            (tmp_path / "outputs" / name / "status.json").touch()
        assert of("encode run=") == {"run=latest ", "run=tcl-ivae-0123456789 ", "run=tcl-vade-0123456789 "}
        assert of("score latest tcl-v") == {"tcl-vade-0123456789 "}
        assert of("sample traversals=t") == {"traversals=true "}
        assert of("export ") == {"run=", "format=", "seed=", "out="}

    def test_a_quote_that_is_open_is_no_error(self) -> None:
        assert of("train 'seed=[0,1] model=vade_p") == {"model=vade_pretrained "}


def test_the_script_of_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert completion.main(["fish"]) == 2
    assert capsys.readouterr().err == "ivae_lab.completion: expected one of bash, zsh, got fish\n"


class Terminal:
    """A shell at a terminal, with the completion of `ivae-lab` loaded."""

    def __init__(self, shell: str, descriptor: int) -> None:
        self.descriptor = descriptor
        self.write(f"""{PREPARED[shell]}; eval "$(ivae-lab completion {shell})"; PS1='rea''dy> '\n""")
        self.read("ready> ")

    def write(self, typed: str) -> None:
        os.write(self.descriptor, typed.encode())

    def read(self, until: str) -> re.Match[str]:
        """Read until this comes."""
        said, deadline = "", time.monotonic() + _PATIENCE
        while not (found := re.search(until, said)):
            if not select.select([self.descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"expected {until!r} from the shell, got: {said}")
            said += os.read(self.descriptor, 65536).decode(errors="replace")
        return found

    def completed(self, line: str) -> str:
        """What TAB makes of a line."""
        self.write(f"{CLEAR}{line}{TAB}{SHOW}")
        return self.read(r"<(ivae-lab[^>]*)>")[1]


@contextmanager
def opened(shell: str, path: Path) -> Iterator[Terminal]:
    """A shell that finds `ivae-lab` in a folder."""
    told = {"PATH": f"{path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "TERM": "dumb"}
    executable = shutil.which(shell)
    assert executable
    pid, descriptor = pty.fork()
    if pid == 0:
        os.chdir(path)
        os.execve(executable, [shell, *SHELLS[shell]], {"INPUTRC": os.devnull, **told})
    try:
        yield Terminal(shell, descriptor)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(descriptor)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_real_shell_completes(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"expected {shell}, got none")
    script = tmp_path / "ivae-lab"  # as pip writes it for an entry point
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom ivae_lab.__main__ import main\nsys.exit(main())\n")
    script.chmod(0o755)
    with opened(shell, tmp_path) as terminal:
        assert terminal.completed("ivae-lab trai") == "ivae-lab train "
        assert (
            terminal.completed("ivae-lab train -m model=ivae,vade_p") == "ivae-lab train -m model=ivae,vade_pretrained "
        )
        assert terminal.completed("ivae-lab train model=gin model.tr") == "ivae-lab train model=gin model.transform."
        assert terminal.completed("ivae-lab reproduce willetts2021/figD") == "ivae-lab reproduce willetts2021/figD3 "
        of_a_file = terminal.completed("ivae-lab encode data.path=ivae")
        assert of_a_file.rstrip() == "ivae-lab encode data.path=ivae-lab"
