"""What the project keeps of a figure, in `experiments/<paper>/results/`: its provenance, and tables with their seals.

`present.record` writes it, and `present.recorded` reads the tables too, which takes pandas.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ivae_lab.config.paths import EXPERIMENTS
from ivae_lab.reproduction.definition import Figure

_PROVENANCE = ("scale", "changed", "command", "total", "missing", "lines", "runs")


def kept(figure: Figure, tables: Iterable[str]) -> tuple[Path, dict[str, Path]]:
    """Where a figure's provenance is kept, and each of its tables."""
    folder, name = EXPERIMENTS / figure.paper / "results", figure.name
    return folder / f"{name}.json", {
        key: folder / (f"{name}.csv" if key == "rows" else f"{name}.{key}.csv") for key in tables
    }


def provenance(figure: Figure) -> tuple[dict[str, Any], bool] | None:
    """What is kept of a figure beside its tables, and whether these are sealed; None where nothing is kept.

    Raises
    ------
    OSError, ValueError, KeyError
        If it is not whole, or a table is not as it was recorded.
    """
    about, _ = kept(figure, ())
    if not about.exists():
        return None
    content = json.loads(about.read_text(encoding="utf-8"))
    own = {name: content[name] for name in _PROVENANCE}
    seals = dict(content.get("files", {}))
    for name, sealed in seals.items():
        _check_seal(about.with_name(name), sealed)
    return own, bool(seals)


def seal(path: Path) -> dict[str, Any]:
    """What tells a table from one that was cut or edited: the number of its lines but the first, and its SHA-256."""
    content = path.read_bytes()
    return {"rows": max(content.count(b"\n") - 1, 0), "sha256": hashlib.sha256(content).hexdigest()}


def _check_seal(path: Path, sealed: Mapping[str, Any]) -> None:
    if (found := seal(path)) != sealed:
        rows = f"{found['rows']} rows" if found["rows"] != sealed["rows"] else "another checksum: edited by hand?"
        raise ValueError(f"expected {path.name} as it was recorded, with {sealed['rows']} rows, got {rows}")
