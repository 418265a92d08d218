"""Join recorded rows of a figure with those of run folders, so that only new cells must be computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ivae_lab.config.targets import with_names
from ivae_lab.reproduction.cells import Cell
from ivae_lab.reproduction.evidence import FigureEvidence
from ivae_lab.reproduction.table_files import as_kept
from ivae_lab.terminal.lazy import Later

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Later("pandas")

_RUN = ["variant", "data_seed", "seed"]  # a table with these columns is joined row by row
_UNIT = ["variant", "label"]  # in other tables all rows with one value of these come from one side
Key = tuple[str, ...]


def join(evidence: FigureEvidence, kept: FigureEvidence, cells: Sequence[Cell]) -> int:
    """Fill in seeds that no run folder holds from the record of this or another figure; return their number.

    Reuse a recorded row if its sweep starts with the same overrides, its configuration agrees on every key both have,
    and its identifying columns match the cell. A further table without seeds is a mean over them: if only some rows of
    a variant and label are recorded ones, the recorded part stays as it was, and a problem says so.
    """
    names = ["variant", "label", "method", "model", "data", "data_seed", *evidence.figure.columns, "seed"]
    old, new = kept.tables["rows"], evidence.tables["rows"]
    if not set(names) <= set(old.columns):
        return 0
    there = set(_keys(new, names)) if len(new) else set()
    asked = _asked(evidence, _unchanged(cells, kept), names)
    known = {key: row for key, row in zip(_keys(old, names), old.index, strict=True) if key not in there}
    taken = [key for key in asked if key in known]
    if not taken:
        return 0
    elsewhere = [column for column in kept.figure.columns if column not in evidence.figure.columns]
    from_records = old.loc[[known[key] for key in taken]].drop(columns=elsewhere)
    order = {key: place for place, key in enumerate(_asked(evidence, cells, names))}
    # As objects: True beside a number that is missing would be 1.0.
    whole = pd.concat([new.astype(object), from_records.astype(object)], ignore_index=True).infer_objects()
    whole["place"] = [order[key] for key in _keys(whole, names)]
    evidence.tables["rows"] = whole.sort_values("place", kind="stable").drop(columns="place").reset_index(drop=True)
    for name, maker in evidence.figure.tables.items():
        if name in kept.tables and kept.figure.tables[name] == maker:
            made = evidence.tables.get(name, kept.tables[name].iloc[:0])
            by_row = set(_RUN) <= set(kept.tables[name].columns)
            shared = [column for column in names if column in kept.tables[name] and column in made]
            if by_row:
                evidence.tables[name] = _rows_joined(made, kept.tables[name], from_records, shared)
            else:
                evidence.tables[name] = _units_joined(made, kept.tables[name], from_records)
                if mixed := _mixed(new, from_records):
                    evidence.problems.append(f"{name}.csv: of recorded runs only, without the new ones, for {mixed}")
    for run in from_records["run"].unique():
        evidence.runs.setdefault(run, kept.runs[run])
    evidence.missing = _still_missing(evidence, cells, set(taken), names)
    return len(taken)


def _unchanged(cells: Sequence[Cell], kept: FigureEvidence) -> list[Cell]:
    """The cells of sweeps that were recorded with their present configuration."""
    recorded = {(line["variant"], tuple(line["first"])): _flat(line["config"]) for line in kept.lines}
    first: dict[int, Cell] = {}
    for cell in cells:
        first.setdefault(id(cell.line), cell)
    same = set()
    for line, cell in first.items():
        then, now = recorded.get((cell.line.variant, cell.overrides)), _flat(cell.config)
        if then is not None and all(then[key] == now[key] for key in then.keys() & now.keys()):
            same.add(line)
    return [cell for cell in cells if id(cell.line) in same]


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every value by its path; a class by its name, without its module."""
    return dict(_leaves(with_names(config)))


def _leaves(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _asked(evidence: FigureEvidence, cells: Sequence[Cell], names: list[str]) -> list[Key]:
    """The key of every cell and seed, in order, each once."""
    rows = [{**cell.describe(evidence.figure.columns), "seed": seed} for cell in cells for seed in cell.seeds]
    return list(dict.fromkeys(_keys(as_kept(pd.DataFrame(rows)), names))) if rows else []


def _keys(table: pd.DataFrame, names: list[str]) -> list[Key]:
    """The identifying columns of each row as text, in which 5 and 5.0 are equal."""
    return [tuple(map(_text, row)) for row in table[names].itertuples(index=False, name=None)]


def _text(value: Any) -> str:
    if pd.isna(value):
        return ""
    return f"{float(value):.6g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _rows_joined(new: pd.DataFrame, old: pd.DataFrame, from_records: pd.DataFrame, shared: list[str]) -> pd.DataFrame:
    """All new rows, and recorded rows of seeds that come from the records, of any label, that have no new row."""
    lasting, made = set(_keys(from_records, _RUN)), set(_keys(new, shared)) if len(new) else set()
    both = zip(_keys(old, _RUN), _keys(old, shared), strict=True)
    kept = [run in lasting and key not in made for run, key in both]
    return pd.concat([old[kept], new], ignore_index=True)


def _units_joined(new: pd.DataFrame, old: pd.DataFrame, from_records: pd.DataFrame) -> pd.DataFrame:
    """Recorded rows for the units that have rows from the records, and new rows for the others."""
    unit = [column for column in _UNIT if column in old and column in new]
    if new.empty or not unit:
        return old
    lasting = set(_keys(from_records, unit))
    kept = [key in lasting for key in _keys(old, unit)]
    made = [key not in lasting for key in _keys(new, unit)]
    return pd.concat([old[kept], new[made]], ignore_index=True)


def _mixed(new: pd.DataFrame, from_records: pd.DataFrame) -> str:
    """Variants and labels that have rows both from run folders and from the records."""
    if new.empty:
        return ""
    return "; ".join(sorted(", ".join(key) for key in set(_keys(new, _UNIT)) & set(_keys(from_records, _UNIT))))


def _still_missing(
    evidence: FigureEvidence, cells: Sequence[Cell], taken: set[Key], names: list[str]
) -> list[dict[str, Any]]:
    filled: dict[tuple[Any, ...], set[int]] = {}
    for cell in cells:
        seeds = {seed for seed, key in zip(cell.seeds, _asked(evidence, [cell], names), strict=True) if key in taken}
        filled.setdefault((cell.line.variant, cell.overrides), set()).update(seeds)
    left = []
    for entry in evidence.missing:
        done = filled[entry["variant"], tuple(entry["overrides"])]
        if open_seeds := [seed for seed in entry["seeds"] if seed not in done]:
            left.append({**entry, "seeds": open_seeds})
    return left
