"""Scores two tables of latents against each other: every MCC with its interval and chance floor. Nothing is trained.

usage: python -m ivae_lab.score A B [seed=S or seed=S,T] [split=NAME] [rank=R] [draws=D] [csv=FILE] [matching=FILE]

A and B are each a run folder or its latents.npz, any .npz with `mean` (N, n) and, optionally, row ids `index` (N,), or
a .csv of numbers with or without a header. Rows are matched by their ids where both have some, else by their order.
B may as well hold true sources.

seed      of a file with several seeds, which: S of both, or S of A and T of B (default: the first of each)
split     of a run, its rows: train, valid or test (default: all)
rank      of the CCA (default: as many as the smaller table has columns)
draws     bootstrap resamples of the rows (default 200; 0: no intervals)
csv       writes the variants there; matching: writes there which column goes to which

Strong is permutation and sign only; weak a CCA first, fitted on a random half of the rows and scored on it (in) and on
the other half (out). Interval: percentile bootstrap, 95%: rows are drawn with replacement, of each half by itself where
there are halves, and alignment and assignment solved again. It says what other rows would change, not what another
model seed would. Resampled rows repeat, so near the floor it lies too high. Chance: rows of B re-paired at random.

Exit codes: 0 scored, 2 bad input.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ivae_lab.metrics.estimate import Integers, halves
from ivae_lab.metrics.mcc import (
    Coefficient,
    Scored,
    Side,
    chance_correlation,
    match,
    matched_mean,
    mean_correlation,
    one_thread,
    standardise,
    variate_correlations,
    weak_chance_correlation,
    weak_mean_correlation,
)
from ivae_lab.results import atomic, read_latents

COEFFICIENTS: tuple[Coefficient, ...] = ("pearson", "spearman")
CHANCE_DRAWS, HALF_SEED, CHANCE_SEED, BOOTSTRAP_SEED = 10, 0, 0, 0
CONFIDENCE = 0.95
FEWEST_ROWS = 4  # a half of two rows has a correlation
OK, BAD_INPUT = 0, 2
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
Floats = NDArray[np.float64]
Row = dict[str, Any]


class BadInputError(ValueError):
    """Files or arguments of which nothing can be scored: one line."""


@dataclass(frozen=True)
class Request:
    """What the command line says."""

    paths: tuple[Path, Path]
    seeds: tuple[int | None, int | None] = (None, None)  # None: the first
    split: str | None = None
    rank: int | None = None
    draws: int = 200
    csv: Path | None = None
    matching: Path | None = None


@dataclass
class Latents:
    """A table of latents and what must be said of it."""

    values: Floats  # (N, n)
    ids: NDArray[Any] | None  # (N,)
    notes: list[str] = field(default_factory=list)


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    if not arguments or any(each in ("-h", "--help") for each in arguments):
        print((__doc__ or "").strip())
        return OK if arguments else BAD_INPUT
    try:
        _run(parse(arguments))
    except BadInputError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        print(f"error: expected to write the results, got: {error}", file=sys.stderr)
        return BAD_INPUT
    return OK


def parse(arguments: Sequence[str]) -> Request:
    """Two paths and key=value arguments."""
    keys = ("seed", "split", "rank", "draws", "csv", "matching")
    given = {key: value for key, equals, value in (each.partition("=") for each in arguments) if equals and key in keys}
    paths = [each for each in arguments if each.partition("=")[0] not in keys]
    if len(paths) != 2 or len(given) + 2 != len(arguments) or "" in given.values():
        raise BadInputError(f"expected two files and any of {'=, '.join(keys)}=, each once, got {' '.join(arguments)}")
    seeds = [_whole("seed", each, 0) for each in given["seed"].split(",")] if "seed" in given else [None]
    if len(seeds) > 2:
        raise BadInputError(f"expected seed=S or seed=S,T, got seed={given['seed']}")
    return Request(
        (Path(paths[0]), Path(paths[1])),
        (seeds[0], seeds[-1]),
        given.get("split"),
        _whole("rank", given["rank"], 1) if "rank" in given else None,
        _whole("draws", given.get("draws", "200"), 0),
        Path(given["csv"]) if "csv" in given else None,
        Path(given["matching"]) if "matching" in given else None,
    )


def read(path: Path, seed: int | None, split: str | None) -> Latents:
    """Latents of a run folder, an .npz or a .csv; of several seeds the first, or `seed`.

    Raises
    ------
    BadInputError
        If there is no such file, seed or split, or it does not hold a table of numbers.
    """
    try:
        table = _of_csv(path) if path.suffix == ".csv" else _of_arrays(path, read_latents(path), seed, split)
    except BadInputError:
        raise
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInputError(f"expected latents in {path}, got: {reason}") from None
    if path.suffix == ".csv" and (seed is not None or split is not None):
        table.notes.append(f"{path}: a CSV has no seeds or splits; seed and split are of the other file")
    return table


def _of_csv(path: Path) -> Latents:
    """Numbers with or without a header; the first line is one where an entry of it is no number."""
    first = pd.read_csv(path, header=None, nrows=1, dtype=str).iloc[0]
    header = 0 if pd.to_numeric(first, errors="coerce").isna().sum() > first.isna().sum() else None
    table = pd.read_csv(path, header=header)
    wrong = [str(name) for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    if wrong:
        raise BadInputError(f"expected numbers in {path}, got text in column {', '.join(wrong)}")
    return Latents(table.to_numpy(dtype=np.float64), None)


def _of_arrays(path: Path, arrays: dict[str, NDArray[Any]], seed: int | None, split: str | None) -> Latents:
    if "mean" not in arrays:
        raise BadInputError(f"expected an array `mean` in {path}, got {', '.join(arrays) or 'none'}")
    mean, ids, notes = arrays["mean"], arrays.get("index"), []
    if mean.ndim == 3:
        seeds = arrays["seed"].tolist() if "seed" in arrays else list(range(len(mean)))
        chosen = seeds[0] if seed is None and seeds else seed
        if chosen not in seeds or len(seeds) != len(mean):
            raise BadInputError(f"expected a seed of {path}, one of {seeds}, got {chosen}")
        mean = mean[seeds.index(chosen)]
        notes.append(f"{path}: seed {chosen} of {', '.join(map(str, seeds))}")
    elif seed is not None:
        notes.append(f"{path}: has no seeds, so seed is not used")
    if mean.ndim != 2 or mean.shape[1] == 0 or mean.dtype.kind not in "fiu":
        raise BadInputError(f"expected numbers (N, n) or (S, N, n) in {path}, got {mean.dtype} {arrays['mean'].shape}")
    if ids is not None and ids.shape != (len(mean),):
        raise BadInputError(f"expected an id for each of {len(mean)} rows in {path}, got shape {ids.shape}")
    if split is not None and "split" in arrays:
        rows = arrays["split"] == split  # (N,)
        if rows.shape != (len(mean),) or not rows.any():
            raise BadInputError(
                f"expected a split of {path}, one of {sorted(set(arrays['split'].tolist()))}, got {split}"
            )
        mean, ids = mean[rows], None if ids is None else ids[rows]
    elif split is not None:
        notes.append(f"{path}: has no splits, so all of its rows are taken")
    return Latents(mean.astype(np.float64), ids, notes)


def joined(a: Latents, b: Latents, names: tuple[Path, Path]) -> tuple[Floats, Floats, list[str]]:
    """The rows that both tables have and in which all is finite, in the same order, and what must be said of them.

    Raises
    ------
    BadInputError
        If ids repeat, numbers of rows differ where there are no ids, or too few rows are left.
    """
    notes = [*a.notes, *b.notes]
    if a.ids is not None and b.ids is not None:
        x, y = _by_id(a, b, names)
        lost = len(a.values) - len(x), len(b.values) - len(y)
        if any(lost):
            notes.append(f"{len(x)} rows have ids in both; left out are {lost[0]} of A and {lost[1]} of B")
    elif len(a.values) != len(b.values):
        raise BadInputError(f"expected as many rows, or ids in both, got {len(a.values)} and {len(b.values)} rows")
    else:
        x, y = a.values, b.values
        notes.append("rows matched by their order: not both files have ids")
    finite = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    if not finite.all():
        notes.append(f"left out {int((~finite).sum())} of {len(x)} rows: not all of their numbers are finite")
    x, y = x[finite], y[finite]
    if len(x) < FEWEST_ROWS:
        raise BadInputError(f"expected at least {FEWEST_ROWS} rows to compare, got {len(x)}: {'; '.join(notes)}")
    return x, y, [*notes, *_of_columns(x, y)]


def _by_id(a: Latents, b: Latents, names: tuple[Path, Path]) -> tuple[Floats, Floats]:
    for table, name in zip((a, b), names, strict=True):
        if table.ids is not None and len(np.unique(table.ids)) < len(table.ids):
            raise BadInputError(f"expected each row id once in {name}, got repeated ones")
    _, of_a, of_b = np.intersect1d(a.ids, b.ids, assume_unique=True, return_indices=True)  # type: ignore[arg-type]
    return a.values[of_a], b.values[of_b]


def _of_columns(x: Floats, y: Floats) -> Iterator[str]:
    constant = [[str(j) for j in np.flatnonzero(np.ptp(table, axis=0) == 0)] for table in (x, y)]
    for name, columns, table in zip("AB", constant, (x, y), strict=True):
        if len(columns) == table.shape[1]:
            raise BadInputError(f"expected a column that varies, got only constant ones in {name}")
        if columns:
            yield f"constant in {name}: column {', '.join(columns)}; counts as correlation 0"
    if x.shape[1] != y.shape[1]:
        least = min(x.shape[1], y.shape[1])
        yield f"{x.shape[1]} columns in A, {y.shape[1]} in B: the mean is over the {least} matched pairs"


@one_thread()
def score(a: Floats, b: Floats, rank: int | None = None, draws: int = 200) -> list[Row]:
    """Every variant of the MCC of two tables with matched rows, its interval over rows and its chance floor.

    Parameters
    ----------
    a, b
        Shapes (N, n) and (N, k), finite.
    rank
        Of the CCA; None: min(n, k).
    draws
        Bootstrap resamples of the rows; 0: the intervals are NaN.

    Returns
    -------
    list
        Rows with `coefficient`, `alignment`, `rank`, `scored`, `points`, `value`, `low`, `high` and `chance`.

    Raises
    ------
    ValueError
        If the shapes do not fit, there are fewer than 4 rows, or `rank` is not in 1..min(n, k).
    """
    return [row for coefficient in COEFFICIENTS for row in _variants(a, b, coefficient, rank, draws)]


def _variants(a: Floats, b: Floats, coefficient: Coefficient, rank: int | None, draws: int) -> Iterator[Row]:
    values: dict[Scored, float] = {"all": mean_correlation(a, b, coefficient)}
    values |= weak_mean_correlation(a, b, coefficient, rank, HALF_SEED)
    chances: dict[Scored, float] = {"all": chance_correlation(a, b, coefficient, CHANCE_DRAWS, CHANCE_SEED)}
    chances |= weak_chance_correlation(a, b, coefficient, rank, HALF_SEED, CHANCE_DRAWS, CHANCE_SEED)
    rank = rank or min(a.shape[1], b.shape[1])
    drawn = list(_resampled(a, b, coefficient, rank, draws))
    points: dict[Scored, int] = {"all": len(a), "in": (len(a) + 1) // 2, "out": len(a) // 2}
    edges = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    for scored, value in values.items():
        low, high = np.quantile([each[scored] for each in drawn], edges) if drawn else (np.nan, np.nan)
        strong = scored == "all"
        choices = {"alignment": "strong" if strong else "weak", "rank": None if strong else rank, "scored": scored}
        numbers = {"value": value, "low": float(low), "high": float(high), "chance": chances[scored]}
        yield {"coefficient": coefficient, **choices, "points": points[scored], **numbers}


def _resampled(a: Floats, b: Floats, coefficient: Coefficient, rank: int, draws: int) -> Iterator[dict[Scored, float]]:
    """MCC by where it is scored; a row never is in both halves, or out of sample would be in sample."""
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    fitted, held_out = halves(len(a), HALF_SEED)
    for _ in range(draws):
        rows, own, other = _again(np.arange(len(a)), rng), _again(fitted, rng), _again(held_out, rng)
        found: dict[Scored, float] = {
            "all": matched_mean(standardise(a[rows], coefficient).T @ standardise(b[rows], coefficient))
        }
        correlations = variate_correlations(Side.of(a, own, other), Side.of(b, own, other), coefficient)
        yield found | {scored: matched_mean(part[:rank, :rank]) for scored, part in correlations.items()}


def _again(rows: Integers, rng: np.random.Generator) -> Integers:
    """As many of the rows, with replacement."""
    return rng.choice(rows, len(rows))


def matching(a: Floats, b: Floats) -> list[Row]:
    """The strong MCC's pairs: `coefficient`, `column_b`, `column_a` (None where none is left) and signed `correlation`."""
    rows = []
    for coefficient in COEFFICIENTS:
        found = match(a, b, coefficient)
        for column, (partner, correlation) in enumerate(zip(found.columns, found.correlations, strict=True)):
            pair = {"column_b": column, "column_a": int(partner) if partner >= 0 else None}
            rows.append({"coefficient": coefficient, **pair, "correlation": float(correlation)})
    return rows


def _run(request: Request) -> None:
    a, b = (read(path, seed, request.split) for path, seed in zip(request.paths, request.seeds, strict=True))
    x, y, notes = joined(a, b, request.paths)
    least = min(x.shape[1], y.shape[1])
    if request.rank is not None and request.rank > least:
        raise BadInputError(f"expected rank=1 to rank={least}, got rank={request.rank}")
    rows, pairs = score(x, y, request.rank, request.draws), matching(x, y)
    for path, table in ((request.csv, rows), (request.matching, pairs)):
        if path is not None:
            with atomic(path) as temporary:
                pd.DataFrame(table, dtype=object).to_csv(temporary, index=False)
    console = Console(markup=False, highlight=False)
    _show(console, f"MCC of {request.paths[0]} (A) and {request.paths[1]} (B)", rows)
    _show(console, "strong matching: which column of A stands for which of B", pairs)
    for note in notes:
        console.print(f"note: {note}", soft_wrap=True)
    console.print(
        "Interval: 95% over rows, resampled; alignment and matching solved again. See --help.", soft_wrap=True
    )


def _show(console: Console, title: str, rows: Sequence[Row]) -> None:
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column.replace("_", " "))
    for row in rows:
        table.add_row(*map(_entry, row.values()))
    console.print(table)


def _entry(value: Any) -> str:
    if value is None or value != value:  # NaN
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _whole(key: str, text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise BadInputError(f"expected {key}= a whole number of at least {least}, got {text}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
