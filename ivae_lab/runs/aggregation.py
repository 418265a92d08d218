"""Join the tables of all run folders: rows of seeds, rows of pairs of seeds, and the configuration of each run."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ivae_lab.runs import agreement_csv as pairs
from ivae_lab.runs.flat_config import UNREADABLE, read_config
from ivae_lab.runs.folder import FINISHED, MARKS, check_seal, read_status
from ivae_lab.runs.results_csv import DTYPES, VARIANT
from ivae_lab.storage.atomic import atomic
from ivae_lab.terminal.lazy import Later

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
else:
    pd, pa = Later("pandas"), Later("pyarrow")

ABOUT = {"cell": str, "commit": str, "written": str, "seconds": float}  # keys of status.json that rows get as columns
CACHE = ".aggregate.cache"


def _arrow(dtype: str) -> pa.DataType:
    """Return Arrow's type for a column's pandas type."""
    return {"Int64": pa.int64, "str": pa.string, "float64": pa.float64}[dtype]()


@dataclass(frozen=True)
class TableKind:
    """A kind of table that run folders have: results of seeds, or agreement of pairs of seeds."""

    stem: str  # name of its file, in a run folder and of the aggregate
    types: Mapping[str, str]  # type of each column
    seeds: tuple[str, ...]  # columns that name the seed, or pair of seeds, of a row
    variant: tuple[str, ...]  # columns that tell the rows of one seed or pair apart
    unit_name: str  # "seeds" or "pairs of seeds", for messages

    @property
    def file(self) -> str:
        """Name of the file in a run folder."""
        return f"{self.stem}.csv"

    @cached_property
    def schema(self) -> pa.Schema:
        """Arrow's schema: columns and their types."""
        return pa.schema([(column, _arrow(dtype)) for column, dtype in self.types.items()])


RESULTS = TableKind("results", DTYPES, ("seed",), VARIANT, "seeds")
AGREEMENT = TableKind("agreement", pairs.DTYPES, ("seed_a", "seed_b"), (*pairs.VARIANT, "position"), "pairs of seeds")
KINDS = (RESULTS, AGREEMENT)
LEADING = ("folder", "run_state", *dict.fromkeys(column for kind in KINDS for column in kind.types), *ABOUT)


@dataclass(frozen=True)
class CollectedRun:
    """Status, configuration and tables of one run folder."""

    fingerprint: str  # of the files that were read
    status: dict[str, Any]  # state, error and the keys of ABOUT
    config: dict[str, str | None] = field(default_factory=dict)  # flattened
    tables: dict[str, pa.Table] = field(default_factory=dict)  # of a finished run: every kind, by stem


class DuplicateRows(NamedTuple):
    """A seed, or pair of seeds, with rows in two run folders, of which only one folder's rows are kept."""

    cell: str
    seeds: tuple[int, ...]
    kept: str  # name of the folder whose rows are kept
    left_out: str  # name of the other folder
    difference: float  # largest difference of any number; infinite where only one folder has the number

    def __str__(self) -> str:
        """Return one line for the summary."""
        if np.isinf(self.difference):
            comparison = "one has numbers that the other lacks"
        elif self.difference:
            comparison = f"their numbers differ by at most {self.difference:.3g}"
        else:
            comparison = "their numbers are equal"
        return f"cell {self.cell} seed {_unit(self.seeds)}: kept {self.kept}, not {self.left_out}; {comparison}"


@dataclass
class CollectedRuns:
    """All run folders under the outputs: finished, in progress, failed and unreadable ones, by name."""

    runs: dict[str, CollectedRun] = field(default_factory=dict)  # finished runs
    # By stem, without duplicates; the column `run` is the run's position in `runs`.
    rows: dict[str, pd.DataFrame] = field(default_factory=dict)
    duplicates: dict[str, list[DuplicateRows]] = field(default_factory=dict)  # by stem, largest difference first
    in_progress: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # error of each failed run
    unreadable: dict[str, str] = field(default_factory=dict)  # reason why each cannot be read


def collect(
    folders: Sequence[Path],
    cache: Path | None = None,
    track: Callable[[Sequence[Path]], Iterable[Path]] = iter,
) -> CollectedRuns:
    """Read run folders; one that cannot be read is named with the reason and does not stop the others.

    Parameters
    ----------
    folders
        Run folders of one or several outputs, such as `ivae_lab.runs.folder.run_folders` gives.
    cache
        File that stores finished runs, so that the next call reads only folders that changed; None: no such file.
    track
        Iterates over the folders, and may show progress.
    """
    cached = _load(cache) if cache else {}
    collected, names = CollectedRuns(), _names(folders)
    for name, folder in zip(names, track(folders), strict=True):
        try:
            fingerprint = _fingerprint(folder)
            _enter(collected, name, cached.get(fingerprint) or _read(folder, fingerprint))
        except UNREADABLE as error:
            collected.unreadable[name] = _one_line(error)
    if cache and cached.keys() != {run.fingerprint for run in collected.runs.values()}:
        _save(cache, list(collected.runs.values()))
    for kind in KINDS:
        collected.rows[kind.stem], collected.duplicates[kind.stem] = _resolved(collected.runs, kind)
    return collected


def table(collected: CollectedRuns, kind: TableKind = RESULTS) -> pd.DataFrame:
    """Join all rows with the status and configuration of their runs: numbers typed, text as categories.

    Empty text of the schema is "", as in `results_csv.read_results`; a key that a run does not have is missing.
    """
    rows = collected.rows[kind.stem]
    used, of_row = np.unique(rows["run"].to_numpy(), return_inverse=True)  # (R,) runs, (N,) position among them
    names, everything = list(collected.runs), list(collected.runs.values())
    runs = [everything[position] for position in used]

    columns: dict[str, Any] = {
        "folder": _text([names[position] for position in used]).take(of_row),
        "run_state": _text([run.status["state"] for run in runs]).take(of_row),
        **{column: rows[column].array for column in kind.types},
    }
    for key, dtype in ABOUT.items():
        values = [run.status.get(key) for run in runs]
        columns[key] = (_text(values) if dtype is str else np.array(values, dtype=np.float64)).take(of_row)
    for key in sorted({key for run in runs for key in run.config} - set(LEADING)):
        columns[key] = _text([run.config.get(key) for run in runs]).take(of_row)
    return pd.DataFrame(columns)


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the folders' paths relative to the folder that holds them all."""
    paths = [folder.absolute() for folder in folders]
    shared = os.path.commonpath([path.parent for path in paths]) if paths else ""
    return [str(path.relative_to(shared)) for path in paths]


def _fingerprint(folder: Path) -> str:
    """Return a text that changes when a file that is read changes.

    It is taken before the files are read, so that it is never newer than their content.
    """
    files = dict.fromkeys([*MARKS, *(kind.file for kind in KINDS)])
    return " ".join([str(folder.absolute()), *(_version(folder / name) for name in files)])


def _version(path: Path) -> str:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return "-"
    return f"{stat.st_mtime_ns}:{stat.st_size}:{stat.st_ino}"


def _enter(collected: CollectedRuns, name: str, run: CollectedRun) -> None:
    state = run.status["state"]
    if state in FINISHED:
        collected.runs[name] = run
    elif state == "failed":
        collected.failed[name] = " ".join(str(run.status["error"] or "no error in status.json").split())
    elif state == "running":
        collected.in_progress.append(name)
    else:
        raise ValueError(f"expected state running, done, failed or diverged, got {state!r}")


def _read(folder: Path, fingerprint: str) -> CollectedRun:
    status = read_status(folder)
    for key, dtype in ABOUT.items():
        if not isinstance(status.get(key), dtype | int if dtype is float else dtype) and status.get(key) is not None:
            raise ValueError(f"expected {key} in status.json to be {dtype.__name__}, got {status[key]!r}")
    shown = {key: status.get(key) for key in ("state", "error", *ABOUT)}
    if status["state"] not in FINISHED:
        return CollectedRun(fingerprint, shown)
    config = read_config((folder / "config.yaml").read_text(encoding="utf-8"))
    return CollectedRun(fingerprint, shown, config, {kind.stem: _read_table(folder, kind, status) for kind in KINDS})


def _read_table(folder: Path, kind: TableKind, status: dict[str, Any]) -> pa.Table:
    sealed = kind.file in (status.get("files") or {})
    if not (kind is RESULTS or sealed or (folder / kind.file).exists()):
        return kind.schema.empty_table()
    rows = _read_rows((folder / kind.file).read_text(encoding="utf-8"), kind)
    check_seal(folder, kind.file, status)
    if len(rows) or not sealed:  # a run may have had no row to write; a file without a seal may have been cut off
        _check_seeds(rows, status.get("seeds"), kind)
    return rows


def _read_rows(text: str, kind: TableKind) -> pa.Table:
    """Parse and check the text of a table; `results_csv.read_rows` takes ten times as long and checks less."""
    lines = list(csv.reader(text.splitlines(), strict=True))
    _check_lines(lines, kind)
    columns = {name: column for name, *column in zip(*lines, strict=True)}
    rows = pa.table({name: _typed(name, columns[name], kind) for name in kind.types}, schema=kind.schema)
    doubled = len(rows) - len(set(zip(*(columns[name] for name in (*kind.seeds, *kind.variant)), strict=True)))
    if doubled:
        raise ValueError(f"expected one row per seed and metric variant in {kind.file}, got {doubled} more")
    if unknown := set(columns["state"]) - set(FINISHED):
        raise ValueError(f"expected state done or diverged in {kind.file}, got {min(unknown)!r}")
    return rows


def _check_lines(lines: Sequence[Sequence[str]], kind: TableKind) -> None:
    head = Counter(next(iter(lines), []))
    missing, further = Counter(kind.types.keys()) - head, head - Counter(kind.types.keys())
    if missing or further:
        named = [f"no {name}" for name in missing] + [f"also {name or 'one without a name'}" for name in further]
        raise ValueError(f"expected the columns of this version in {kind.file}, got {', '.join(named)}")
    for number, line in enumerate(lines, 1):
        if len(line) != len(kind.types):
            raise ValueError(f"expected {len(kind.types)} values in line {number} of {kind.file}, got {len(line)}")


def _typed(name: str, column: Sequence[str], kind: TableKind) -> pa.Array:
    arrow = _arrow(kind.types[name])
    if arrow == pa.string():
        return pa.array(column, arrow)
    try:
        return pa.array([text or None for text in column], pa.string()).cast(arrow)
    except pa.ArrowInvalid as error:
        raise ValueError(f"expected numbers in column {name} of {kind.file}, got: {error}") from None


def _check_seeds(rows: pa.Table, seeds: Any, kind: TableKind) -> None:
    """Raise ValueError unless all seeds of the run, or all pairs, have equally many rows: a file may be cut off."""
    counts = Counter(zip(*(rows[column].to_pylist() for column in kind.seeds), strict=True))
    expected = None if seeds is None else set(combinations(sorted(seeds), len(kind.seeds)))
    if not counts or any(None in unit for unit in counts) or (expected is not None and counts.keys() != expected):
        asked, got = (", ".join(map(_unit, units)) or "none" for units in (sorted(expected or ()), counts))
        raise ValueError(f"expected rows of the {kind.unit_name} {asked} in {kind.file}, got {got}")
    fewest, most = min(counts.values()), max(counts.values())
    if fewest != most:
        raise ValueError(
            f"expected as many rows for each of the {kind.unit_name} in {kind.file}, got {fewest} to {most}"
        )


def _unit(seeds: Iterable[int | None]) -> str:
    """Return a seed, or a pair of seeds, in words."""
    return " and ".join(map(str, seeds))


def _resolved(runs_by_name: Mapping[str, CollectedRun], kind: TableKind) -> tuple[pd.DataFrame, list[DuplicateRows]]:
    """Join the rows of the runs; where several runs have the same cell and seed, keep the rows of one."""
    names, runs = list(runs_by_name), list(runs_by_name.values())
    tables = [run.tables[kind.stem] for run in runs]
    rows = _joined(tables, kind)
    rows["run"] = np.repeat(np.arange(len(runs)), [len(part) for part in tables])
    rows["unit"] = rows.groupby(["run", *kind.seeds]).ngroup()
    doubled = _doubled(rows, runs, kind)
    if doubled.empty:
        return rows.drop(columns="unit"), []
    differences = _differences(rows, doubled, kind)
    seeds = zip(*(doubled[column].tolist() for column in kind.seeds), strict=True)
    others = zip(*(doubled[column].tolist() for column in ("cell", "run_kept", "run", "unit")), strict=True)
    duplicates = [
        DuplicateRows(cell, unit_seeds, names[kept], names[left_out], differences[unit])
        for unit_seeds, (cell, kept, left_out, unit) in zip(seeds, others, strict=True)
    ]
    duplicates.sort(key=lambda duplicate: -duplicate.difference)
    return rows[~rows["unit"].isin(doubled["unit"])].drop(columns="unit"), duplicates


def _joined(tables: Iterable[pa.Table], kind: TableKind) -> pd.DataFrame:
    """Concatenate the tables to a data frame whose text columns are categories: most of the memory would be text."""
    joined = pa.concat_tables([kind.schema.empty_table(), *tables]).combine_chunks()
    encoded = [
        column.combine_chunks().dictionary_encode() if column.type == pa.string() else column
        for column in joined.columns
    ]
    frame: pd.DataFrame = pa.table(encoded, names=joined.column_names).to_pandas(
        types_mapper={pa.int64(): pd.Int64Dtype()}.get
    )
    return frame


def _doubled(rows: pd.DataFrame, runs: Sequence[CollectedRun], kind: TableKind) -> pd.DataFrame:
    """List each unit (a run's seed or pair of seeds) that is left out, one row each.

    Columns are those of the unit's seeds, `unit`, `run` and `cell`, and `unit_kept` and `run_kept` of the unit that is
    kept in its place.
    """
    same = ["cell", *kind.seeds]
    done = rows.assign(done=rows["state"] == "done").groupby("unit")["done"].all()
    units = rows.drop_duplicates("unit").set_index("unit", drop=False)[["unit", "run", *kind.seeds]].assign(done=done)
    units["cell"] = np.array([run.status["cell"] for run in runs], dtype=object)[units["run"]]
    units["written"] = np.array([run.status["written"] or "" for run in runs], dtype=object)[units["run"]]
    units = units.dropna(subset="cell").sort_values(["done", "written", "run"], ascending=[False, False, True])
    left_out, columns = units.duplicated(same), [*same, "unit", "run"]
    doubled = units.loc[left_out, columns].merge(units.loc[~left_out, columns], on=same, suffixes=("", "_kept"))
    return doubled.sort_values("unit", ignore_index=True)


def _differences(rows: pd.DataFrame, doubled: pd.DataFrame, kind: TableKind) -> dict[int, float]:
    """Return, for each unit that is left out, the largest difference of any number from that of the unit kept."""
    numbers = rows[["unit", *kind.variant, "value", "chance"]]
    ours = numbers[numbers["unit"].isin(doubled["unit"])]
    theirs = doubled[["unit", "unit_kept"]].merge(numbers.rename(columns={"unit": "unit_kept"}), on="unit_kept")
    both = ours.merge(theirs, on=["unit", *kind.variant], how="outer", suffixes=("", "_kept"), indicator=True)
    gap = np.where(both["_merge"] == "both", 0.0, np.inf)
    for column in ("value", "chance"):
        gap = np.maximum(gap, _gap(both[column].to_numpy(), both[f"{column}_kept"].to_numpy()))
    largest = pd.Series(gap).groupby(both["unit"].to_numpy()).max()
    return dict(zip(largest.index.tolist(), largest.tolist(), strict=True))


def _gap(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # infinite numbers that are equal
        gap = np.where((one == other) | (np.isnan(one) & np.isnan(other)), 0.0, np.abs(one - other))
    return np.nan_to_num(gap, nan=np.inf, posinf=np.inf)


def _text(values: Sequence[str | None]) -> pd.Categorical:
    """Make text categorical, with categories in alphabetical order, which are text also where there are none."""
    known = sorted({value for value in values if value is not None})
    return pd.Categorical(np.array(values, dtype=object), pd.Index(known, dtype="str"))


def write_aggregate(rows: pd.DataFrame, parquet: Path, text: Path) -> None:
    """Write rows of all runs as Parquet and as CSV."""
    from pyarrow.csv import write_csv
    from pyarrow.parquet import write_table

    content = pa.Table.from_pandas(rows, preserve_index=False)
    with atomic(parquet) as temporary:
        write_table(content, temporary, compression="zstd")
    with atomic(text) as temporary:
        write_csv(content, temporary)


def _save(cache: Path, runs: Sequence[CollectedRun]) -> None:
    """Write a seal, then a Parquet table of one line per run, its rows nested."""
    from pyarrow.parquet import write_table

    content = {
        "fingerprint": [run.fingerprint for run in runs],
        "status": [json.dumps(run.status) for run in runs],
        "config": [json.dumps(run.config) for run in runs],
        **{kind.stem: _nested([run.tables[kind.stem] for run in runs], kind) for kind in KINDS},
    }
    body = pa.BufferOutputStream()
    write_table(pa.table(content), body, compression="zstd")
    written = body.getvalue().to_pybytes()
    with atomic(cache) as temporary:
        temporary.write_bytes(_seal(written) + written)


def _nested(tables: Sequence[pa.Table], kind: TableKind) -> pa.ListArray:
    """Pack the tables into an array with one list of rows per run."""
    rows = pa.concat_tables([kind.schema.empty_table(), *tables]).combine_chunks()
    ends = np.cumsum([0, *map(len, tables)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), rows.to_struct_array().combine_chunks())


def _unnested(lists: pa.ListArray) -> list[pa.Table]:
    rows = pa.Table.from_struct_array(lists.values)
    return [rows[start:end] for start, end in pairwise(lists.offsets.to_pylist())]


def _load(cache: Path) -> dict[str, CollectedRun]:
    """Read cached runs by fingerprint; none where the file is absent, damaged, or of another version of this code."""
    from pyarrow.parquet import read_table

    try:
        written = cache.read_bytes()
    except OSError:
        return {}
    length = len(_seal(b""))
    if written[:length] != _seal(written[length:]):
        return {}
    content = read_table(pa.BufferReader(written[length:])).combine_chunks()
    parsed = (map(json.loads, content[name].to_pylist()) for name in ("status", "config"))
    tables = zip(*(_unnested(content[kind.stem].combine_chunks()) for kind in KINDS), strict=True)
    by_stem = (dict(zip((kind.stem for kind in KINDS), of_run, strict=True)) for of_run in tables)
    fingerprints = content["fingerprint"].to_pylist()
    runs = zip(fingerprints, *parsed, by_stem, strict=True)
    return {fingerprint: CollectedRun(fingerprint, *rest) for fingerprint, *rest in runs}


def _seal(body: bytes) -> bytes:
    """Hash the bytes and this code, so that a damaged cache, or one of another version, is not used."""
    return hashlib.sha256(_code() + repr(KINDS).encode() + body).digest()


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _code() -> bytes:
    """Return the source code that makes the cached rows."""
    here = Path(__file__)
    return here.read_bytes() + here.with_name("flat_config.py").read_bytes()
