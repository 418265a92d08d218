"""How much memory the control groups of this process leave it: Slurm and containers limit it so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class _Names(NamedTuple):
    """Files of a group's folder, and what of its use is kept of files and given up where memory is needed."""

    limit: str
    used: str
    cache: str


_SECOND = _Names("memory.max", "memory.current", "inactive_file ")
_FIRST = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")


def room(groups: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that may still be taken before a limit is met, of either version of control groups.

    A limit of a group above, as that of a Slurm job above its steps, holds too.

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
    limited = [each for each in rooms if each is not None]
    return max(0, min(limited)) if limited else None


def _folders(groups: Path, mounted: Path) -> Iterator[tuple[Path, _Names]]:
    """The group of the process and those above it."""
    lines = groups.read_text().splitlines() if groups.is_file() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, names = (mounted / "memory", _FIRST) if controllers else (mounted, _SECOND)
        own = top / path.lstrip("/")
        yield from ((folder, names) for folder in (own, *own.parents) if folder.is_relative_to(top))


def _room(folder: Path, names: _Names) -> int | None:
    try:
        limit = (folder / names.limit).read_text().strip()
        if limit == "max":
            return None
        used, kept = int((folder / names.used).read_text()), (folder / "memory.stat").read_text().splitlines()
    except OSError:  # the top group has no limit, and a container does not see those above its own
        return None
    return int(limit) - used + sum(int(line.removeprefix(names.cache)) for line in kept if line.startswith(names.cache))
