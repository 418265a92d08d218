"""Functions that all commands share: key=value arguments, help and version, exit codes, and one-line errors."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ivae_lab import __version__
from ivae_lab.storage.atomic import atomic
from ivae_lab.terminal.messages import unknown_key

OK, FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
STOPPED = (INTERRUPTED, TERMINATED)  # by Ctrl-C and SIGTERM
TRUTH = ("true", "false")
COMMANDS = {  # `ivae-lab <name>` runs the module of this name
    "train": "train a model on data, many seeds at once, and score what it recovers",
    "reproduce": "train what a figure of a paper lacks, draw it, and judge its claims",
    "aggregate": "join the rows of all run folders into one table",
    "report": "put every claim and figure into one folder that a browser opens",
    "score": "score two files of latents against each other",
    "encode": "encode new rows by a trained model",
    "sample": "draw new rows from a trained model, or move its latents one by one",
    "export": "write a trained model to files that need no ivae_lab",
    "choose": "choose a key's value, such as the number of latents, after a sweep",
    "fetch": "fetch an image data set from where it is published",
    "completion": "print what makes bash or zsh complete all this by TAB",
}


class BadInputError(ValueError):
    """Files or arguments cannot be used; the message is one line."""


class FailedError(Exception):
    """A valid request did not succeed; the message is one line."""


class TerminatedError(BaseException):
    """The process received SIGTERM."""


def say(name: str, message: object, code: int) -> int:
    """Print one line to stderr that names the command, and return the exit code."""
    print(f"{name}: {message}", file=sys.stderr)
    return code


def done(
    name: str,
    manual: str | None,
    arguments: Sequence[str],
    do: Callable[[Sequence[str]], int | None],
    files: str = "read and write files",
    stopped: str = "stopped; nothing is written",
) -> int:
    """Run a command: answer --help and --version, or call `do`, which SIGTERM stops; return the exit code.

    Parameters
    ----------
    name
        Name of the command in messages: `ivae_lab.score`.
    manual
        Text that --help prints.
    do
        Runs the command with the arguments and returns the exit code; None stands for 0.
    files, stopped
        See `ended`.
    """

    def act() -> int | None:
        if (text := answer(arguments, manual)) is not None:
            print(text)
            return OK
        with _terminable():
            return do(arguments)

    return ended(name, act, files, stopped)


def ended(name: str, act: Callable[[], int | None], files: str, stopped: str) -> int:
    """Call `act` and return the exit code; print errors that a user can mend as one line, others as a traceback.

    Parameters
    ----------
    files
        The expectation that an OSError breaks, for its message: "read and write files".
    stopped
        Message after Ctrl-C or SIGTERM.
    """
    try:
        code = act()
        sys.stdout.flush()
    except BadInputError as error:
        return say(name, error, BAD_INPUT)
    except FailedError as error:
        return say(name, error, FAILED)
    except BrokenPipeError:
        return _unheard()
    except OSError as error:
        return say(name, f"expected to {files}, got: {error}", BAD_INPUT)
    except KeyboardInterrupt:
        return say(name, stopped, INTERRUPTED)
    except TerminatedError:
        return say(name, stopped, TERMINATED)
    return OK if code is None else code


def answer(arguments: Sequence[str], manual: str | None) -> str | None:
    """Return the version or the manual if the arguments ask for it; None if not, or if there is no manual."""
    if "--version" in arguments:
        return f"ivae_lab {__version__}"
    asked = "--help" in arguments or "-h" in arguments
    return manual.strip() if asked and manual is not None else None


@contextmanager
def _terminable() -> Iterator[None]:
    """Make SIGTERM raise TerminatedError, so that unfinished files are removed."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise TerminatedError


def _unheard() -> int:
    """Discard the rest of stdout, which nobody reads any more (`| head -1`), so that Python does not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


def pairs(arguments: Sequence[str], keys: Collection[str], needed: Collection[str] = ()) -> dict[str, str]:
    """Split key=value arguments into a dict.

    Raises
    ------
    BadInputError
        If a key is unknown, given twice or has no value, or if a needed key is missing.
    """
    given: dict[str, str] = {}
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in keys:
            raise BadInputError(f"{key}: {unknown_key(key, [*keys])}")
        if not value or key in given:
            raise BadInputError(f"expected {key}= once and with a value, got {' '.join(arguments)}")
        given[key] = value
    if absent := [key for key in keys if key in needed and key not in given]:
        raise BadInputError(f"expected {absent[0]}=, got {' '.join(arguments) or 'nothing'}")
    return given


def whole(key: str, text: str, least: int) -> int:
    """Parse a whole number of at least `least`, or raise BadInputError."""
    if not text.isdecimal() or int(text) < least:
        raise BadInputError(f"expected {key}= a whole number of at least {least}, got {text}")
    return int(text)


def one_of(key: str, text: str, choices: Collection[str]) -> str:
    """Return the text if it is one of the choices, or raise BadInputError."""
    if text not in choices:
        raise BadInputError(f"expected {key}= one of {', '.join(choices)}, got {text}")
    return text


@contextmanager
def written(path: Path, key: str = "out") -> Iterator[Path]:
    """Like `atomic`, but fail at once if the path cannot be written.

    Raises
    ------
    BadInputError
        If the path cannot be written.
    """
    try:
        with atomic(path) as temporary:
            temporary.touch()
            yield temporary
    except OSError as error:
        raise BadInputError(f"expected to write {key}={path}, got: {error.strerror or error}") from None


@contextmanager
def wrong_input() -> Iterator[None]:
    """Turn a ValueError, raised where files or values are wrong, into a BadInputError."""
    try:
        yield
    except ValueError as error:
        raise BadInputError(str(error)) from None
