"""Memory that the control groups of this process leave to it: Slurm and containers limit it by control groups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class _Names(NamedTuple):
    """Files of a group's folder with its limit and use, and the key of the file cache that it gives up when needed."""

    limit: str
    used: str
    cache: str


_SECOND = _Names("memory.max", "memory.current", "inactive_file ")
_FIRST = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")


def room(groups: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that the process may still take before it reaches a limit, of either version of control groups.

    A limit of a parent group, such as a Slurm job above its steps, holds too.

    Parameters
    ----------
    groups
        The file that names the groups of the process.
    mounted
        Where the groups are.

    Returns
    -------
    int or None
        None where nothing is limited, or there are no control groups.
    """
    rooms = [_room(folder, names) for folder, names in _folders(groups, mounted)]
    limited = [free for free in rooms if free is not None]
    return max(0, min(limited)) if limited else None


def _folders(groups: Path, mounted: Path) -> Iterator[tuple[Path, _Names]]:
    """The group of the process and those above it."""
    lines = groups.read_text().splitlines() if groups.is_file() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, names = (mounted / "memory", _FIRST) if controllers else (mounted, _SECOND)
        group = top / path.lstrip("/")
        yield from ((folder, names) for folder in (group, *group.parents) if folder.is_relative_to(top))


def _room(folder: Path, names: _Names) -> int | None:
    try:
        limit = (folder / names.limit).read_text().strip()
        if limit == "max":
            return None
        used, stat = int((folder / names.used).read_text()), (folder / "memory.stat").read_text().splitlines()
    except OSError:  # the top group has no limit, and a container does not see its parent groups
        return None
    return int(limit) - used + sum(int(line.removeprefix(names.cache)) for line in stat if line.startswith(names.cache))
