"""What all commands share: help and version, exit codes, a line for what went wrong, and none for a closed pipe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ivae_lab import __main__, __version__
from ivae_lab.runs.folder import is_finished
from ivae_lab.terminal.command_line import COMMANDS, BadInputError, FailedError, done
from tests import warm
from tests.running import TINY, command, ended, environment, run_folder

CLOSED = [("ivae_lab",), ("ivae_lab", "reproduce", "--list"), ("ivae_lab.train", "--help")]


def fails(error: BaseException) -> int:
    """What `done` makes of an error."""

    def do(arguments: Sequence[str]) -> None:
        raise error

    return done("ivae_lab.this", "manual", ["key=1"], do, "read b", "stopped; nothing is lost")


class TestDone:
    @pytest.mark.parametrize(
        ("error", "code", "said"),
        [
            (BadInputError("expected a, got b"), 2, "expected a, got b"),
            (FailedError("no mirror"), 1, "no mirror"),
            (OSError("no space"), 2, "expected to read b, got: no space"),
            (KeyboardInterrupt(), 130, "stopped; nothing is lost"),
        ],
    )
    def test_what_a_user_can_mend_is_one_line_with_the_name_of_the_command(
        self, error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert fails(error) == code
        assert capsys.readouterr() == ("", f"ivae_lab.this: {said}\n")

    def test_sigterm_clears_away_and_is_143(self, capsys: pytest.CaptureFixture[str]) -> None:
        cleared: list[bool] = []
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

        def do(arguments: Sequence[str]) -> None:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                signal.pause()
            finally:
                cleared.append(True)

        assert done("ivae_lab.this", None, [], do) == 143
        assert capsys.readouterr().err == "ivae_lab.this: stopped; nothing is written\n"
        assert cleared == [True]
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    def test_other_errors_are_not_hidden(self) -> None:
        with pytest.raises(ZeroDivisionError):
            fails(ZeroDivisionError())

    @pytest.mark.parametrize(("code", "given"), [(0, None), (0, 0), (1, 1)])
    def test_the_code_of_what_is_done_is_given(self, code: int, given: int | None) -> None:
        assert done("ivae_lab.this", None, ["key=1"], lambda arguments: given) == code

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [(["a", "--help"], "manual\n"), (["-h"], "manual\n"), (["a", "--version"], f"ivae_lab {__version__}\n")],
    )
    def test_help_and_version_come_before_all_else(
        self, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert done("ivae_lab.this", "\nmanual\n", arguments, lambda _: 1) == 0
        assert capsys.readouterr() == (said, "")


class TestIvaeLab:
    @pytest.mark.parametrize(
        ("name", "said"), [("trian", "did you mean train"), ("--list", "got --list"), ("mnist", "got mnist\n")]
    )
    def test_an_unknown_command_is_one_line_with_the_nearest(
        self, name: str, said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert __main__.main([name, "model=ivae"]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"ivae-lab: expected one of {', '.join(COMMANDS)}, got ")
        assert said in err
        assert err.count("\n") == 1

    def test_it_trains(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        warm.leave_pictures_empty(monkeypatch.setattr)
        before = sys.argv
        assert __main__.main(["train", *TINY, "seed=0", "show=false"]) == 0
        assert is_finished(run_folder(tmp_path / "outputs"))
        assert sys.argv is before

    def test_a_command_says_and_gives_what_it_does_by_itself(self, tmp_path: Path) -> None:
        wrong = "data.segments=-3"
        said = command("train", wrong, cwd=tmp_path, module="ivae_lab")
        assert said == command(wrong, cwd=tmp_path, module="ivae_lab.train")
        assert (said.code, said.out) == (2, "")
        assert said.err == "ivae_lab.train: data.segments: expected greater than 0, got -3 (int)\n"


@pytest.mark.parametrize("call", CLOSED, ids=" ".join)
def test_a_closed_pipe_is_silent(call: tuple[str, ...], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)  # as `| head -1`, which has read its line
    process = warm.Popen(
        [sys.executable, "-m", *call],
        cwd=tmp_path,
        env=environment(),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    said = ended(process)
    assert (said.code, said.err) == (1, "")
