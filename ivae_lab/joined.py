"""Rows that the project keeps of a figure, joined with those of run folders: only what is new must be computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ivae_lab.cells import Cell
from ivae_lab.present import Evidence, as_kept

UNIT = ["variant", "label"]  # what further tables are taken over by, as a whole


def join(evidence: Evidence, kept: Evidence, cells: Sequence[Cell]) -> int:
    """Fill in, from what is kept of the figure, the seeds that no run folder holds; how many those are.

    A row is the same when its cell's names, settings and seed are. Of a further table, the part of a variant and label
    stays as it was kept where any of their rows is a kept one: it cannot be made anew without their folders.
    """
    names = ["variant", "label", "method", "model", "data", "data_seed", *evidence.figure.columns, "seed"]
    old, new = kept.tables["rows"], evidence.tables["rows"]
    if not set(names) <= set(old.columns):
        return 0
    asked = [{**cell.describe(evidence.figure.columns), "seed": seed} for cell in cells for seed in cell.seeds]
    keys = list(dict.fromkeys(_keys(as_kept(pd.DataFrame(asked)), names)))
    there = dict(zip(_keys(new, names), new.index, strict=True)) if len(new) else {}
    known = {key: row for key, row in zip(_keys(old, names), old.index, strict=True) if key not in there}
    taken = [key for key in keys if key in known]
    if not taken:
        return 0
    from_records = old.loc[[known[key] for key in taken]]
    whole = pd.concat([new, from_records], ignore_index=True)
    order = {key: place for place, key in enumerate(keys)}
    whole["place"] = [order[key] for key in _keys(whole, names)]
    evidence.tables["rows"] = whole.sort_values("place", kind="stable").drop(columns="place").reset_index(drop=True)
    for name in evidence.figure.tables:
        if name in kept.tables:
            evidence.tables[name] = _joined(evidence.tables.get(name), kept.tables[name], from_records)
    evidence.runs |= {run: kept.runs[run] for run in from_records["run"].unique()}
    evidence.missing = _still_missing(evidence, cells, set(taken), names)
    return len(taken)


def _keys(table: pd.DataFrame, names: list[str]) -> list[tuple[str, ...]]:
    """What tells rows apart, as text: a number that was read as 5 is the one that was read as 5.0."""
    return [tuple(map(_text, row)) for row in table[names].itertuples(index=False, name=None)]


def _text(value: Any) -> str:
    if pd.isna(value):
        return ""
    return f"{float(value):.6g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _joined(new: pd.DataFrame | None, old: pd.DataFrame, from_records: pd.DataFrame) -> pd.DataFrame:
    """The kept part of what rows from the records belong to, and the new part of the rest."""
    unit = [column for column in UNIT if column in old]
    if new is None or new.empty or not unit:
        return old
    lasting = set(from_records[unit].itertuples(index=False, name=None))
    kept = [row in lasting for row in old[unit].itertuples(index=False, name=None)]
    made = [row not in lasting for row in new[unit].itertuples(index=False, name=None)]
    return pd.concat([old[kept], new[made]], ignore_index=True)


def _still_missing(
    evidence: Evidence, cells: Sequence[Cell], taken: set[tuple[str, ...]], names: list[str]
) -> list[dict[str, Any]]:
    filled: dict[tuple[Any, ...], set[int]] = {}
    for cell in cells:
        rows = [{**cell.describe(evidence.figure.columns), "seed": seed} for seed in cell.seeds]
        keys = _keys(as_kept(pd.DataFrame(rows)), names)
        own = {seed for seed, key in zip(cell.seeds, keys, strict=True) if key in taken}
        filled.setdefault((cell.line.variant, cell.overrides), set()).update(own)
    left = []
    for each in evidence.missing:
        done = filled[each["variant"], tuple(each["overrides"])]
        if seeds := [seed for seed in each["seeds"] if seed not in done]:
            left.append({**each, "seeds": seeds})
    return left
