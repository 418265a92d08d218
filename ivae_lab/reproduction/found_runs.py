"""Which seed of which cell the run folders under the outputs hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ivae_lab.reproduction.cells import Cell
from ivae_lab.runs.folder import is_finished, read_status, run_folders
from ivae_lab.terminal.messages import one_line

if TYPE_CHECKING:
    pass


@dataclass
class Found:
    """Where cells were computed, of all run folders under the outputs.

    `everywhere` has all folders that finished a cell; `unreadable`, of folders whose status does not say what they
    hold, the reason.
    """

    finished: dict[tuple[str, int], tuple[Path, dict[str, Any]]] = field(default_factory=dict)
    unfinished: dict[tuple[str, int], tuple[Path, dict[str, Any]]] = field(default_factory=dict)
    everywhere: dict[tuple[str, int], list[Path]] = field(default_factory=dict)
    unreadable: dict[Path, str] = field(default_factory=dict)

    def missing(self, cell: Cell) -> list[int]:
        """Seeds that are still to be trained."""
        return [seed for seed in cell.seeds if (cell.digest, seed) not in self.finished]


def find(outputs: Path) -> Found:
    """Look through the run folders for cells; of two that hold the same, done stands before diverged, then the newest.

    A folder whose status cannot be read holds nothing, and is named with the reason.
    """
    found = Found()
    for path in run_folders(outputs):
        try:
            status = read_status(path)
            keys = _keys(status)
        except (OSError, ValueError) as error:
            found.unreadable[path] = one_line(error)
            continue
        finished = is_finished(path)
        where = found.finished if finished else found.unfinished
        for key in keys:
            if finished:
                found.everywhere.setdefault(key, []).append(path)
            if key not in where or _rank(status) > _rank(where[key][1]):
                where[key] = (path, status)
    return found


def _keys(status: dict[str, Any]) -> list[tuple[str, int]]:
    """The cell of a run with each of its seeds."""
    try:
        return [(str(status["cell"]), int(seed)) for seed in status["seeds"]]
    except (KeyError, TypeError, ValueError):
        named = ", ".join(sorted(status))
        raise ValueError(f"expected a cell and its seeds in status.json, got {named}: an older version's?") from None


def _rank(status: dict[str, Any]) -> tuple[bool, str]:
    return status["state"] == "done", str(status.get("written", ""))
