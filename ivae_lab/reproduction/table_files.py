"""Tables of a figure as CSV files."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ivae_lab.storage.atomic import atomic
from ivae_lab.terminal.lazy import Later

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Later("pandas")

NAMED = ("variant", "label", "method", "model", "data", "split", "state", "run", "commit", "written")  # text columns


def read_table(path: Path) -> pd.DataFrame:
    """Read a recorded table."""
    try:
        return _read_kept(path)
    except pd.errors.EmptyDataError:  # nothing had finished
        return pd.DataFrame()


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, whole or not at all; numbers to six digits, more than seeds agree on."""
    write_text(path, _csv(table))


def _csv(table: pd.DataFrame) -> str:
    return str(table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def _read_kept(source: Path | io.StringIO) -> pd.DataFrame:
    """Read a table of `write_table`: only empty cells are missing values, and names are text even if digits."""
    return pd.read_csv(source, dtype=dict.fromkeys(NAMED, "str"), keep_default_na=False, na_values=[""])


def as_kept(table: pd.DataFrame) -> pd.DataFrame:
    """Round-trip a table through CSV, so that fresh and recorded rows draw identically."""
    return _read_kept(io.StringIO(_csv(table))) if len(table.columns) else table


def json_text(content: Mapping[str, Any]) -> str:
    """Format JSON with a line for each entry of the top level, and for each run, so that diffs are readable."""
    parts = [f"{json.dumps(key)}: {_entry(value)}" for key, value in content.items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _entry(value: Any) -> str:
    if isinstance(value, dict) and value:
        return "{\n" + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v, default=str)}" for k, v in value.items()) + "\n }"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"  {json.dumps(item, default=str)}" for item in value) + "\n ]"
    return json.dumps(value, default=str)


def write_text(path: Path, text: str) -> None:
    """Write a text whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
