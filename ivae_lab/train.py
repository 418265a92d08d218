"""The main command: `ivae-lab train model=vade data=tcl`, or `python -m ivae_lab.train`.

Exit codes: 0 done (or found finished), 1 a run that failed or in which a seed diverged, 2 bad input,
130 and 143 stopped by Ctrl-C or SIGTERM and ready to be continued.
"""

from __future__ import annotations

import gc
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import partial

import hydra
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from omegaconf import DictConfig

from ivae_lab.config.manual import manual, wrong
from ivae_lab.config.paths import CONFIG
from ivae_lab.launch import sweep
from ivae_lab.terminal.command_line import OK, BadInputError, answer, ended
from ivae_lab.terminal.lazy import leaving

_INTERRUPTED = "interrupted before the run began"
_RAISES = "HYDRA_FULL_ERROR"  # variable: 1 has Hydra raise errors, in place of printing them and of exit code 1


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return ended(sweep.NAME, partial(_act, arguments), "read and write the run's files", _INTERRUPTED)


def _act(arguments: Sequence[str]) -> int:
    if (text := answer(arguments, manual(arguments))) is not None:
        print(text)
        return OK
    _check_flags(arguments)
    before, user_wants_all = len(sweep.exit_codes), os.environ.get(_RAISES) == "1"
    try:
        with _told(arguments):
            _compose_and_run()
    except HydraException as error:
        if user_wants_all:
            raise
        raise BadInputError(wrong(error, arguments)) from None
    return max(sweep.exit_codes[before:], default=OK)


@hydra.main(version_base="1.3", config_path=str(CONFIG), config_name="config")
def _compose_and_run(config: DictConfig) -> float | None:
    """Do one run of the composed configuration; its held-out ELBO, for a sweeper that searches for the best."""
    with leaving(f"{sweep.NAME}: {_INTERRUPTED}"), _lasting():
        from ivae_lab.training.job import do, objective
    code = do(config)
    sweep.exit_codes.append(code)
    if code > 128:  # told to stop: a sweep does not go on either
        sys.exit(code)
    return objective(config)


@contextmanager
def _lasting() -> Iterator[None]:
    """Keep the garbage collector from what the first import brings: it is there to the end.

    Looking through PyTorch's hundred thousand objects again and again takes a tenth of its import, and of its end.
    """
    first = "torch" not in sys.modules
    if first:
        gc.disable()
    yield
    if first:
        gc.freeze()
        gc.enable()


@contextmanager
def _told(arguments: Sequence[str]) -> Iterator[None]:
    """Give Hydra the arguments where it reads them, and have it raise its errors."""
    argv, raises = sys.argv, os.environ.get(_RAISES)
    sys.argv, os.environ[_RAISES] = [sweep.NAME, *arguments], "1"
    try:
        yield
    finally:
        sys.argv = argv
        del os.environ[_RAISES]
        os.environ |= {} if raises is None else {_RAISES: raises}


def _check_flags(arguments: Sequence[str]) -> None:
    """Say what Hydra's parser of flags would say, without the ten lines of its usage."""
    printed = io.StringIO()
    try:
        with redirect_stderr(printed):
            get_args_parser().parse_args(arguments)
    except SystemExit:
        reason = printed.getvalue().rpartition("error: ")[2].strip()
        raise BadInputError(f"expected overrides such as model=ivae, or flags of --hydra-help, got: {reason}") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
