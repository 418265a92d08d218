"""What the project keeps of a figure, in `experiments/<paper>/results/`: its provenance, and tables with their seals.

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
    """Where a figure's provenance is kept, and each of its tables."""
    folder, name = EXPERIMENTS / figure.paper / "results", figure.name
    return folder / f"{name}.json", {
        key: folder / (f"{name}.csv" if key == "rows" else f"{name}.{key}.csv") for key in tables
    }


def provenance(figure: Figure) -> dict[str, Any] | None:
    """Read what is kept of a figure beside its tables, and hold these against their seals; None if nothing is kept.

    Raises
    ------
    OSError, ValueError, KeyError
        If it is not whole, or a table is not as it was recorded.
    """
    about, _ = kept(figure, ())
    if not about.exists():
        return None
    content = json.loads(about.read_text(encoding="utf-8"))
    for name, sealed in content["files"].items():
        _check_seal(about.with_name(name), sealed)
    return {name: content[name] for name in _PROVENANCE}


def seal(path: Path) -> dict[str, Any]:
    """What tells a table from one that was cut or edited: the number of its lines but the first, and its SHA-256."""
    content = path.read_bytes()
    return {"rows": max(content.count(b"\n") - 1, 0), "sha256": hashlib.sha256(content).hexdigest()}


def _check_seal(path: Path, sealed: Mapping[str, Any]) -> None:
    if (found := seal(path)) != sealed:
        rows = f"{found['rows']} rows" if found["rows"] != sealed["rows"] else "another checksum: edited by hand?"
        raise ValueError(f"expected {path.name} as it was recorded, with {sealed['rows']} rows, got {rows}")


def record(evidence: FigureEvidence) -> list[Path]:
    """Keep the tables and the provenance of a figure with the project, under experiments/<paper>/results/.

    The provenance has the number of rows and the SHA-256 of each table, which `recorded` holds them against.
    """
    about, paths = kept(evidence.figure, evidence.tables)
    about.parent.mkdir(parents=True, exist_ok=True)
    for key, path in paths.items():
        write_table(path, evidence.tables[key])
    files = {path.name: seal(path) for path in paths.values()}
    write_text(about, json_text(evidence.plain() | {"files": files}))
    return [*paths.values(), about]


def recorded(figure: Figure) -> FigureEvidence | None:
    """What the project keeps of a figure; None where it keeps nothing.

    Raises
    ------
    OSError, ValueError, KeyError
        If it is not whole, or not as it was recorded.
    """
    found = provenance(figure)
    if found is None:
        return None
    _, paths = kept(figure, ("rows", *figure.tables))
    tables = {key: read_table(path) for key, path in paths.items() if path.exists()}
    return FigureEvidence(figure, tables=tables, **found)
