"""Joins the rows of all run folders and their configurations into one tidy table.

    python -m ivae_lab.aggregate [outputs=outputs]

Writes `outputs/results.csv`: the columns of `ivae_lab.results`, after `folder` (name of the run folder) and
`run_state` (state in its `status.json`), and before one column per key of the configurations, such as
`model.latent_dim`. A key that has the name of an earlier column (`seed`) is left out: the row says it for its own seed.
Nothing is trained or instantiated, and running it again gives the same table.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from ivae_lab.results import COLUMNS, FINISHED, atomic, read_results, read_status

LEADING = ("folder", "run_state", *COLUMNS)
MARKS = ("config.yaml", "status.json", "results.csv")  # a folder that has one of these is a run folder


@dataclass
class Findings:
    """What was found under the outputs, folder by folder."""

    tables: list[pd.DataFrame] = field(default_factory=list)  # one per run that has finished
    in_progress: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # name to the error of the run
    unreadable: dict[str, str] = field(default_factory=dict)  # name to the reason


def run_folders(outputs: Path) -> list[Path]:
    """Run folders directly under `outputs`, by name."""
    folders = sorted(outputs.iterdir()) if outputs.is_dir() else []
    return [folder for folder in folders if any((folder / mark).is_file() for mark in MARKS)]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str | None]:
    """Turn a configuration into one text per leaf under its dotted name; lists, numbers and truth values as JSON.

    Examples
    --------
    >>> flatten({"seed": [0, 1], "model": {"beta": 4.0, "prior": None}})
    {'seed': '[0, 1]', 'model.beta': '4.0', 'model.prior': None}
    """
    flat: dict[str, str | None] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            text = value if value is None or isinstance(value, str) else json.dumps(value, default=str)
            flat[f"{prefix}{key}"] = text
    return flat


def collect(folders: Sequence[Path]) -> Findings:
    """Read run folders; one that can't be read is named with the reason and does not stop the others."""
    found = Findings()
    for folder in folders:
        try:
            status = read_status(folder)
            if status["state"] in FINISHED:
                found.tables.append(_table(folder, status["state"]))
            elif status["state"] == "failed":
                found.failed[folder.name] = str(status.get("error"))
            elif status["state"] == "running":
                found.in_progress.append(folder.name)
            else:
                raise ValueError(f"expected state running, done, failed or diverged, got {status['state']!r}")
        except (OSError, ValueError, yaml.YAMLError) as error:
            found.unreadable[folder.name] = _one_line(error)
    return found


def join(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All rows under the union of the columns, those of the configurations by name; empty where a run lacks one."""
    further = sorted({column for table in tables for column in table.columns} - set(LEADING))
    rows = [record for table in tables for record in table.to_dict("records")]
    return pd.DataFrame(rows, columns=[*LEADING, *further], dtype=object)


def main(arguments: Sequence[str]) -> int:
    """Run the command; 0, or 2 where the arguments are wrong or there is no run."""
    name, _, value = arguments[0].partition("=") if arguments else ("outputs", "=", "outputs")
    if len(arguments) > 1 or name != "outputs" or not value:
        print(f"expected at most one argument, outputs=FOLDER, got {' '.join(arguments)}", file=sys.stderr)
        return 2
    outputs = Path(value)
    folders = run_folders(outputs)
    if not folders:
        print(f"no runs under {outputs}: `python -m ivae_lab.train model=ivae data=tcl` makes one", file=sys.stderr)
        return 2
    found = collect(folders)
    table, path = join(found.tables), outputs / "results.csv"
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False)
    _report(found, len(table), path)
    return 0


def _table(folder: Path, state: str) -> pd.DataFrame:
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    if not isinstance(config, Mapping):
        raise ValueError(f"expected config.yaml to hold keys, got {type(config).__name__}")
    columns = {key: value for key, value in flatten(config).items() if key not in LEADING}
    return read_results(folder).assign(folder=folder.name, run_state=state, **columns)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _report(found: Findings, rows: int, path: Path) -> None:
    from rich.console import Console
    from rich.text import Text

    lines = [f"{path}: {rows} rows of {len(found.tables)} run folders"]
    lines += [f"in progress: {name}" for name in found.in_progress]
    lines += [f"failed: {name}: {error}" for name, error in found.failed.items()]
    lines += [f"unreadable: {name}: {reason}" for name, reason in found.unreadable.items()]
    console = Console(soft_wrap=True)
    for line in lines:
        console.print(Text(line))  # as text: a name with brackets is no markup


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
