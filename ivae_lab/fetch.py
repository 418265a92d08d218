"""Fetch an image data set from where it is published.

    ivae-lab fetch NAME [root=FOLDER]

NAME is a data set of `ivae-lab fetch --list`. FOLDER is the data root: by default the environment's
IVAE_LAB_DATA, else `data`. What is there already is checked and not fetched again; what was interrupted is continued.
An archive that was put there by hand is used. Files get their names only when their checksums are right.

Exit codes: 0 all files are there, 1 some could not be fetched, 2 bad input, 130 and 143 stopped.
"""

from __future__ import annotations

import difflib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ivae_lab.data.images.catalogue import (
    CATALOGUE,
    at_hand,
    candidates,
    data_root,
)
from ivae_lab.data.images.download import fetch
from ivae_lab.terminal.command_line import BadInputError, FailedError, done

KEYS: dict[str, tuple[str, ...]] = {"root": ()}


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    stopped = f"stopped; to continue: python -m ivae_lab.fetch {shlex.join(arguments)}"
    return done("ivae_lab.fetch", __doc__, arguments, _run, stopped=stopped)


def _run(arguments: Sequence[str]) -> None:
    name, root = parse(arguments)
    if name is None:
        show(root)
        return
    try:
        fetch(name, root)
    except OSError as error:
        raise FailedError(f"expected to write the files, got: {error}") from None


def parse(arguments: Sequence[str]) -> tuple[str | None, Path]:
    """Name of the data set (none: list them) and the data root."""
    roots = [each.removeprefix("root=") for each in arguments if each.startswith("root=")]
    names = [each for each in arguments if not each.startswith("root=")]
    if len(names) != 1 or len(roots) > 1 or "" in roots:
        raise BadInputError(
            f"expected one data set and at most one root=FOLDER, got {shlex.join(arguments) or 'nothing'}"
        )
    name, root = names[0], data_root(roots[0] if roots else None)
    if name == "--list":
        return None, root
    if name not in CATALOGUE:
        near = difflib.get_close_matches(name, CATALOGUE, n=3, cutoff=0.5)
        raise BadInputError(f"expected a data set, got {name}; nearest: {', '.join(near or CATALOGUE)}")
    return name, root


def show(root: Path) -> None:
    """Say what can be fetched, and how much of it is there."""
    for name, entry in CATALOGUE.items():
        files = [entry.files[path] for download in entry.downloads for path in download.gives]
        there = sum(bool(candidates(at_hand(file, root), root)) for file in files)
        print(f"{name:9} {there} of {len(files)} files in {root}; {entry.about}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
