"""Joins the rows of all run folders and their configurations into one tidy table.

    ivae-lab aggregate [outputs=FOLDER or outputs=A,B,C]

Reads every run folder under these folders, however deep, and writes `results.parquet` (typed, small)
and `results.csv` (the same for other tools) into the first; `agreement.parquet` and `agreement.csv`, of pairs of seeds,
where a run has some. One row is one number, with the columns

- `folder` (its path below the folder that all read folders share) and `run_state` (state in its `status.json`),
- those of `ivae_lab.runs.results_csv`, or of `ivae_lab.runs.agreement_csv`,
- `cell` (stands for all that a seed's numbers depend on besides the seed), `commit`, `written` and `seconds` (of the
  run's training) from its `status.json`, empty where it does not say,
- one per key of the configurations, such as `model.latent_dim`, as text, a class by its name; empty where a run has no
  such key. A key that has the name of an earlier column (`seed`) is left out: the row says it for its own seed.

Only runs that are done or diverged have rows. A run that failed or is in progress has no number, so it has no row
either; it is named in what the command prints, as is a folder that cannot be read, with the reason. A folder is taken
as a whole or not at all: one of whose tables lacks a column, a seed or part of one is named and gives no rows.

Where several folders have the same cell and seed (or pair of seeds), the rows of one are kept: done before diverged,
then the run that was written last, then the first by name. The others are counted and named, and whether their numbers
differ. A folder without a cell (made by an older version) is not compared.

What was read is kept in `.aggregate.cache` beside the results, and only folders that have changed are read again.
The table is the same without it, to the byte; it may be deleted at any time. Nothing is trained or instantiated.

Exit codes: 0 done, 2 bad input, no run, or nothing can be written, 130 and 143 stopped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ivae_lab.runs.aggregation import (
    CACHE,
    KINDS,
    RESULTS,
    CollectedRuns,
    DuplicateRows,
    TableKind,
    collect,
    table,
    write_aggregate,
)
from ivae_lab.runs.folder import run_folders
from ivae_lab.terminal.command_line import BadInputError, done

if TYPE_CHECKING:
    from rich.console import Console

KEYS: dict[str, tuple[str, ...]] = {"outputs": ()}
_PATIENCE = 1.0  # seconds without a progress bar
_LISTED = 20  # duplicates that are named
RULE = "kept is done before diverged, then what was written last, then the first by name"


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return done("ivae_lab.aggregate", __doc__, arguments, _run, "read the outputs and to write into the first")


def _run(arguments: Sequence[str]) -> None:
    name, _, value = arguments[0].partition("=") if arguments else ("outputs", "=", "outputs")
    roots = [Path(root) for root in value.split(",") if root]
    if len(arguments) > 1 or name not in KEYS or len(roots) < value.count(",") + 1:
        got = " ".join(arguments)
        raise BadInputError(f"expected at most one argument, outputs=FOLDER or outputs=A,B,C, got {got}")
    _aggregate(roots)


def _aggregate(roots: Sequence[Path]) -> None:
    from rich.console import Console

    found_in = {root: run_folders(root.resolve()) for root in roots}
    folders = sorted({folder for folders in found_in.values() for folder in folders})
    if not folders:
        command = f"python -m ivae_lab.train model=ivae data=tcl outputs={roots[0]}"
        raise BadInputError(f"expected runs under {', '.join(map(str, roots))}, got none: `{command}` makes one")
    found = collect(folders, roots[0] / CACHE, _tracked)
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    for kind in KINDS:
        rows, paths = table(found, kind), [roots[0] / f"{kind.stem}.parquet", roots[0] / kind.file]
        if rows.empty and kind is not RESULTS:
            for path in paths:
                path.unlink(missing_ok=True)  # of runs that are there no more
            continue
        write_aggregate(rows, *paths)
        console.print(f"{paths[0]}, {paths[1].name}: {len(rows)} rows of {rows['folder'].nunique()} run folders")
    for root in (root for root, inside in found_in.items() if not inside):
        console.print(f"no runs under {root}")
    _report(found, console)


def _report(found: CollectedRuns, console: Console) -> None:
    for name in found.in_progress:
        console.print(f"in progress: {name}")
    for name, error in found.failed.items():
        console.print(f"failed: {name}: {error}")
    for name, reason in found.unreadable.items():
        console.print(f"unreadable: {name}: {reason}")
    without = [name for name, run in found.runs.items() if run.status.get("cell") is None]
    if without:
        console.print(
            f"not compared, because status.json has no cell: {len(without)} run folders, such as {without[0]}"
        )
    for kind in KINDS:
        _report_duplicates(found.duplicates[kind.stem], kind, console)


def _report_duplicates(duplicates: Sequence[DuplicateRows], kind: TableKind, console: Console) -> None:
    if duplicates:
        console.print(f"{len(duplicates)} {kind.unit_name} are in several folders; {RULE}")
    for duplicate in duplicates[:_LISTED]:
        console.print(f"duplicate: {duplicate}")
    if len(duplicates) > _LISTED:
        console.print(f"and {len(duplicates) - _LISTED} more duplicates, with no larger difference")


def _tracked(folders: Sequence[Path]) -> Iterator[Path]:
    """Iterate with a progress bar on a terminal, once it has taken a while."""
    from rich.console import Console
    from rich.progress import Progress

    begun = time.monotonic()
    progress = Progress(console=Console(stderr=True), transient=True)
    shown = progress.add_task("reading run folders", total=len(folders))
    try:
        for folder in folders:
            yield folder
            progress.advance(shown)
            if progress.console.is_terminal and time.monotonic() - begun > _PATIENCE:
                progress.start()
    finally:
        if progress.live.is_started:
            progress.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
