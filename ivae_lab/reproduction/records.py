"""Records of a figure in `experiments/<paper>/results/`: its provenance, and its tables with their checksums.

`record` writes it, and `recorded` reads the tables too, which takes pandas.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ivae_lab.config.paths import EXPERIMENTS
from ivae_lab.reproduction.definition import Figure
from ivae_lab.reproduction.evidence import FigureEvidence
from ivae_lab.reproduction.table_files import json_text, read_table, write_table, write_text

_PROVENANCE = ("scale", "changed", "command", "total", "missing", "lines", "runs")


def kept(figure: Figure, tables: Iterable[str]) -> tuple[Path, dict[str, Path]]:
    """Return the paths of a figure's recorded provenance, and of each of its tables."""
    folder, name = EXPERIMENTS / figure.paper / "results", figure.name
    return folder / f"{name}.json", {
        key: folder / (f"{name}.csv" if key == "rows" else f"{name}.{key}.csv") for key in tables
    }


def provenance(figure: Figure) -> dict[str, Any] | None:
    """Read what is kept of a figure beside its tables, and hold these against their seals; None if nothing is kept.

    Raises
    ------
    OSError, ValueError, KeyError
        If it is incomplete, or a table is not as it was recorded.
    """
    about, _ = kept(figure, ())
    if not about.exists():
        return None
    content = json.loads(about.read_text(encoding="utf-8"))
    told = {name: content[name] for name in _PROVENANCE}
    for name, sealed in content["files"].items():
        _check_seal(about.with_name(name), sealed)
    return told


def seal(path: Path) -> dict[str, Any]:
    """Return the number of a table's lines but the first, and its SHA-256, by which a cut or edit is noticed."""
    content = path.read_bytes()
    return {"rows": max(content.count(b"\n") - 1, 0), "sha256": hashlib.sha256(content).hexdigest()}


def _check_seal(path: Path, sealed: Mapping[str, Any]) -> None:
    if (actual := seal(path)) != sealed:
        rows = f"{actual['rows']} rows" if actual["rows"] != sealed["rows"] else "another checksum: edited by hand?"
        raise ValueError(f"expected {path.name} as it was recorded, with {sealed['rows']} rows, got {rows}")


def record(evidence: FigureEvidence) -> list[Path]:
    """Write tables and provenance of a figure to experiments/<paper>/results/; return the paths.

    The provenance has the number of rows and the SHA-256 of each table, against which `recorded` checks them.
    """
    about, paths = kept(evidence.figure, evidence.tables)
    about.parent.mkdir(parents=True, exist_ok=True)
    for key, path in paths.items():
        write_table(path, evidence.tables[key])
    files = {path.name: seal(path) for path in paths.values()}
    write_text(about, json_text(evidence.plain() | {"files": files}))
    return [*paths.values(), about]


def recorded(figure: Figure) -> FigureEvidence | None:
    """Read the record of a figure; None without one.

    Raises
    ------
    OSError, ValueError, KeyError
        If it is not whole, or not as it was recorded.
    """
    kept_provenance = provenance(figure)
    if kept_provenance is None:
        return None
    _, paths = kept(figure, ("rows", *figure.tables))
    tables = {key: read_table(path) for key, path in paths.items() if path.exists()}
    return FigureEvidence(figure, tables=tables, **kept_provenance)
