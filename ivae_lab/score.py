"""Scores two files of latents against each other: every MCC with its chance floor and interval. Nothing is trained.

    ivae-lab score A B [seed=S or seed=S,T] [split=NAME] [draws=D] [csv=FILE]

A and B, with as many columns each, are any of

- a run folder (`latest`, or how its name below outputs/ begins, will do) or its `latents.npz`;
- an .npz with `mean` (N, n), or (S, N, n) of several seeds with their numbers `seed` (S,), and where rows have ids
  `index` (N,), where they have parts `split` (N,);
- a .csv of numbers with or without a header; a column `index`, or one without a name, holds row ids.

B may as well be true sources. Rows are matched by their ids, and those that only one file has left out; without ids,
by their order.

seed      which seed of a file with several: S of both, or S of A and T of B
split     which rows of a file with splits: train, valid or test (default: test, or all where there are none)
draws     bootstrap resamples of the rows (default 200: a minute for 10,000 rows of 50 columns)
csv       writes the numbers there

Variants are those of `agreement.csv`, for Pearson and Spearman: strong, and weak by a CCA of full rank and of rank 20
where there are more columns. Intervals are 95%, over rows, as there is one pair: they say what other rows would change,
not what another seed would. See `ivae_lab.metrics.agreement`.

Exit codes: 0 scored, 2 bad input, 130 and 143 stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ivae_lab.runs.compare import CHANCE_DRAWS, DRAWS, matched, read, readable, score
from ivae_lab.runs.folder import run_folder
from ivae_lab.runs.results_csv import Row
from ivae_lab.terminal.command_line import BadInputError, done, whole, written
from ivae_lab.terminal.lazy import Later
from ivae_lab.terminal.text_tables import show

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Later("pandas")

KEYS = {"seed": (), "split": ("train", "valid", "test"), "draws": (), "csv": ()}
MEANING = """\
strong: permutation and sign only. weak: a CCA of this rank first, fitted on a random half of the rows.
scored on: how many rows, all or those that the CCA was fitted on or the others; the assignment was solved there, too.
95%: percentile bootstrap over rows, alignment and assignment solved again; not over seeds, as there is one pair.
chance: the same number with the rows of B re-paired at random, the mean of {chance} re-pairings."""


@dataclass(frozen=True)
class ScoreRequest:
    """The checked command line of `score`."""

    paths: tuple[Path, Path]
    seeds: tuple[int | None, int | None] = (None, None)
    split: str | None = None
    draws: int = DRAWS
    csv: Path | None = None


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return done("ivae_lab.score", __doc__, arguments, lambda given: _run(parse(given)))


def parse(arguments: Sequence[str]) -> ScoreRequest:
    """Read two paths and key=value arguments."""
    pairs = [argument.partition("=")[::2] for argument in arguments if argument.partition("=")[0] in KEYS]
    paths = [argument for argument in arguments if argument.partition("=")[0] not in KEYS]
    given = dict(pairs)
    if len(paths) != 2 or len(given) != len(pairs) or "" in given.values():
        got = " ".join(arguments) or "nothing"
        raise BadInputError(f"expected two files and any of {'=, '.join(KEYS)}=, each once, got {got}")
    seeds = [whole("seed", seed, 0) for seed in given["seed"].split(",")] if "seed" in given else [None]
    if len(seeds) > 2:
        raise BadInputError(f"expected seed=S or seed=S,T, got seed={given['seed']}")
    return ScoreRequest(
        (_meant(paths[0]), _meant(paths[1])),
        (seeds[0], seeds[-1]),
        given.get("split"),
        whole("draws", given.get("draws", str(DRAWS)), 2),
        Path(given["csv"]) if "csv" in given else None,
    )


def _meant(text: str) -> Path:
    """Return a file by its path, or a run folder by its name."""
    return Path(text) if Path(text).suffix else run_folder(text)


def _run(request: ScoreRequest) -> None:
    from rich.console import Console

    a, b = (read(path, seed, request.split) for path, seed in zip(request.paths, request.seeds, strict=True))
    for key, given, used in (
        ("seed", request.seeds[0], (a.seed, b.seed)),
        ("split", request.split, (a.split, b.split)),
    ):
        if given is not None and used == (None, None):
            raise BadInputError(f"expected no {key}=, as neither file has one, got {given}")
    x, y, how = matched(a, b)
    console = Console(markup=False, emoji=False, highlight=False)
    with console.status(f"scoring, {request.draws} resamples"):
        rows = score(x, y, request.draws)
    title = f"MCC of {x.shape[1]} columns\nA: {a.name}\nB: {b.name}\nrows {how}"
    console.print(show(pd.DataFrame(map(readable, rows)), title))
    console.print(MEANING.format(chance=CHANCE_DRAWS), soft_wrap=True)
    if request.csv is not None:
        _write(request.csv, [{"a": a.name, "b": b.name, **row} for row in rows])


def _write(path: Path, rows: Sequence[Row]) -> None:
    with written(path, "csv") as temporary:
        pd.DataFrame(rows).astype({"rank": "Int64"}).to_csv(temporary, index=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
