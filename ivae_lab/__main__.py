"""The command `ivae-lab`, or `python -m ivae_lab`: a subcommand for each thing that the lab does."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module

from ivae_lab.terminal.command_line import COMMANDS, OK, BadInputError, answer, ended
from ivae_lab.terminal.messages import did_you_mean

_MANUAL = """\
A lab that checks the claims of papers on identifiable representation learning.

    ivae-lab COMMAND [ARGUMENT ...]

{commands}

`ivae-lab COMMAND --help` says more of each, `ivae-lab --version` which version this is. `python -m ivae_lab COMMAND`
and `python -m ivae_lab.COMMAND` do the same.

Exit codes: 0 done, 1 failed, 2 bad input (one line says what was expected and what came), 130 and 143 stopped."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; by default the one that this process was started with."""
    given = sys.argv[1:] if arguments is None else arguments
    return ended("ivae-lab", partial(_act, given), "read and write files", "stopped")


def _act(arguments: Sequence[str]) -> int:
    name, *rest = arguments or ["--help"]
    if name in COMMANDS:
        code: int = import_module(f"ivae_lab.{name}").main(rest)
        return code
    commands = "\n".join(f"    {each:11} {about}" for each, about in COMMANDS.items())
    if (text := answer([name], _MANUAL.format(commands=commands))) is not None:
        print(text)
        return OK
    raise BadInputError(f"expected one of {', '.join(COMMANDS)}, got {name}{did_you_mean(name, [*COMMANDS])}")


if __name__ == "__main__":
    sys.exit(main())
