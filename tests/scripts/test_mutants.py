"""The list of one-line faults (`scripts/mutants.py`) speaks of the sources and tests that there are."""

from __future__ import annotations

import re
import shlex
from functools import cache

import pytest

from scripts.mutants import ROOT, Mutant, read

FAULTS = read()


@cache
def text(file: str) -> str:
    return (ROOT / file).read_text()


def has(file: str, within: list[str]) -> bool:
    """Whether a file has a test function, or a class, or a class with this method."""
    if not within:
        return True
    *of_class, name = within
    if not of_class:
        return re.search(rf"^(def|class) {name}\b", text(file), re.MULTILINE) is not None
    lines = re.search(rf"^class {of_class[0]}\b.*?(?=^\S|\Z)", text(file), re.MULTILINE | re.DOTALL)
    return lines is not None and re.search(rf"^    def {name}\b", lines[0], re.MULTILINE) is not None


def test_every_fault_can_still_be_put_in_its_place() -> None:
    stale = []
    for mutant in FAULTS:
        try:
            same = mutant.applied(text(mutant.file)) == text(mutant.file)
        except (ValueError, FileNotFoundError) as error:
            stale.append(str(error))
        else:
            stale += [f"nothing is changed: {mutant.fault}"] * same
    assert stale == []


def test_every_fault_names_tests_that_there_are() -> None:
    named = [(mutant.fault, name) for mutant in FAULTS for name in shlex.split(mutant.tests) or [""]]
    apart = [(fault, name, *name.partition("[")[0].split("::")) for fault, name in named]
    missing = [
        f"{name or 'no test'}: {fault}"
        for fault, name, file, *within in apart
        if not (ROOT / file).is_file() or not has(file, within)
    ]
    assert missing == []


def test_faults_are_told_apart_by_their_words() -> None:
    assert len({mutant.fault for mutant in FAULTS}) == len(FAULTS)


def test_a_text_that_is_not_there_once_is_refused() -> None:
    mutant = Mutant("a.py", "x = 1", "x = 2", "", "")
    assert mutant.applied("y = 1\nx = 1\n") == "y = 1\nx = 2\n"
    for there in ("y = 1\n", "x = 1\nx = 1\n"):
        with pytest.raises(ValueError, match=r"expected once in a\.py: 'x = 1', got it [02] times"):
            mutant.applied(there)
