"""Command lines of key=value arguments: one clear line and exit code 2 for what is wrong with them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

OK, BAD_INPUT, INTERRUPTED = 0, 2, 130


class BadInputError(ValueError):
    """Files or arguments of which nothing can be made: one line."""


def done(arguments: Sequence[str], manual: str | None, do: Callable[[Sequence[str]], None]) -> int:
    """Do what a command line asks for, or print the manual, and return the exit code."""
    if "--help" in arguments or "-h" in arguments:
        print((manual or "").strip())
        return OK
    try:
        do(arguments)
    except BadInputError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted; nothing is written", file=sys.stderr)
        return INTERRUPTED
    return OK


def pairs(arguments: Sequence[str], keys: Sequence[str], needed: Collection[str] = ()) -> dict[str, str]:
    """The arguments by their keys, each of which is known and given once, and those that are needed.

    Raises
    ------
    BadInputError
        Otherwise.
    """
    given: dict[str, str] = {}
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in keys:
            from ivae_lab.build import unknown_key  # takes a while to import

            raise BadInputError(f"{key}: {unknown_key(key, [*keys])}")
        if not value or key in given:
            raise BadInputError(f"expected {key}= once and with a value, got {' '.join(arguments)}")
        given[key] = value
    if absent := [key for key in keys if key in needed and key not in given]:
        raise BadInputError(f"expected {absent[0]}=, got {' '.join(arguments) or 'nothing'}")
    return given


def whole(key: str, text: str, least: int) -> int:
    """A whole number that is large enough."""
    if not text.isdecimal() or int(text) < least:
        raise BadInputError(f"expected {key}= a whole number of at least {least}, got {text}")
    return int(text)


def one_of(key: str, text: str, choices: Sequence[str]) -> str:
    """One of a few words."""
    if text not in choices:
        raise BadInputError(f"expected {key}= one of {', '.join(choices)}, got {text}")
    return text


@contextmanager
def written(path: Path, key: str = "out") -> Iterator[Path]:
    """As `results.atomic`; that nothing can be written there is found at once.

    Raises
    ------
    BadInputError
        If nothing can.
    """
    from ivae_lab.results import atomic

    try:
        with atomic(path) as temporary:
            temporary.touch()
            yield temporary
    except OSError as error:
        raise BadInputError(f"expected to write {key}={path}, got: {error.strerror or error}") from None


@contextmanager
def wrong_input() -> Iterator[None]:
    """What is wrong with files and values, as a `BadInputError`."""
    try:
        yield
    except ValueError as error:
        raise BadInputError(str(error)) from None
