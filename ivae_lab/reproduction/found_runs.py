"""Search the run folders under the outputs for the seeds of cells."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ivae_lab.config.digests import cell_digest
from ivae_lab.config.targets import place_of
from ivae_lab.reproduction.cells import Cell
from ivae_lab.reproduction.definition import YAML_LOADER
from ivae_lab.runs.folder import is_finished, read_status, run_folders
from ivae_lab.terminal.messages import one_line

_TARGETS = re.compile(r"^ *_target_: (\S+)$", re.MULTILINE)


@dataclass
class FoundRuns:
    """The run folders under the outputs, by the cell and seed that they hold.

    Attributes
    ----------
    finished, unfinished
        (cell, seed) -> its folder, the best of several, and the folder's status.
    everywhere
        (cell, seed) -> all folders that finished it.
    unreadable
        Folder -> the reason why its status does not say what it holds.
    """

    finished: dict[tuple[str, int], tuple[Path, dict[str, Any]]] = field(default_factory=dict)
    unfinished: dict[tuple[str, int], tuple[Path, dict[str, Any]]] = field(default_factory=dict)
    everywhere: dict[tuple[str, int], list[Path]] = field(default_factory=dict)
    unreadable: dict[Path, str] = field(default_factory=dict)

    def missing(self, cell: Cell) -> list[int]:
        """Seeds that are still to be trained."""
        return [seed for seed in cell.seeds if (cell.digest, seed) not in self.finished]


def find(outputs: Path) -> FoundRuns:
    """Search the run folders for cells; of two with the same cell, prefer done to diverged, then the newer one.

    A folder whose status cannot be read counts as empty, and is named with the reason.
    """
    found = FoundRuns()
    for path in run_folders(outputs):
        try:
            status = read_status(path)
            keys = _keys(path, status)
        except (OSError, ValueError, yaml.YAMLError) as error:
            found.unreadable[path] = one_line(error)
            continue
        finished = is_finished(path)
        best = found.finished if finished else found.unfinished
        for key in keys:
            if finished:
                found.everywhere.setdefault(key, []).append(path)
            if key not in best or _rank(status) > _rank(best[key][1]):
                best[key] = (path, status)
    return found


def _keys(path: Path, status: dict[str, Any]) -> list[tuple[str, int]]:
    """Pairs of a run's cell and each of its seeds."""
    try:
        cell = _cell(path / "config.yaml", status)
        return [(cell, int(seed)) for seed in status["seeds"]]
    except (KeyError, TypeError, ValueError):
        named = ", ".join(sorted(status))
        raise ValueError(f"expected a cell and its seeds in status.json, got {named}: an older version's?") from None


def _cell(config: Path, status: dict[str, Any]) -> str:
    """Name the cell of a run as its status does; as its configuration does, where that has paths that are not today's.

    Runs of before are such ones, and their status has a digest of these paths.
    """
    text = config.read_text(encoding="utf-8") if config.exists() else ""
    if all(place_of(target) == target for target in _TARGETS.findall(text)):
        return str(status["cell"])
    return cell_digest(yaml.load(text, Loader=YAML_LOADER))


def _rank(status: dict[str, Any]) -> tuple[bool, str]:
    return status["state"] == "done", str(status.get("written", ""))
