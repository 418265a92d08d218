"""Rows of a file cut into training, validation and test part so that neighbours in time, or one group, do not leak."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

SplitBy = Literal["rows", "blocks", "groups"]
Rows = NDArray[np.int64]
_BLOCKS = 100  # number of blocks if their length is not given


def parts_of(
    groups: NDArray[Any], split: list[float], by: SplitBy, block_rows: int | None, gap: int, seed: int
) -> list[Rows]:
    """Row numbers of the three parts, each in order.

    Parameters
    ----------
    groups
        (N,) what stays together, such as sessions; rows are in the order of time within each.
    split
        Fractions of the rows (`blocks` and `rows`) or of the groups.
    by
        `rows`: single rows at random. `blocks`: stretches of `block_rows` rows of a group, whole ones at random.
        `groups`: whole groups at random.
    block_rows
        None: a hundredth of the rows, and at least 2 gap + 1.
    gap
        Rows of a block that are left out where it meets a block of another part, on the side of the training part.
    seed
        The data seed.
    """
    if by == "rows":
        return split_rows(len(groups), split, seed)
    blocks = _blocks(groups, block_rows or max(len(groups) // _BLOCKS, 2 * gap + 1)) if by == "blocks" else groups
    values, of_row = np.unique(blocks, return_inverse=True)
    if len(values) < sum(share > 0 for share in split):
        raise ValueError(f"expected at least as many {by} as parts, got {len(values)} (split_by)")
    part_of = np.empty(len(values), np.int64)
    for part, chosen in enumerate(split_rows(len(values), split, seed)):
        part_of[chosen] = part
    parts = part_of[of_row]  # (N,)
    if gap and by == "blocks":
        parts[_near_others(parts, groups, gap) & (parts == 0)] = -1
    return [np.flatnonzero(parts == part) for part in range(3)]


def _blocks(groups: NDArray[Any], rows: int) -> Rows:
    """The number of each row's block: `rows` rows of a group one after another, (N,)."""
    starts = starts_of(groups)
    lengths = np.diff([*np.flatnonzero(starts), len(groups)])
    within = np.concatenate([np.arange(length) for length in lengths])
    return np.cumsum(within % rows == 0) - 1


def starts_of(groups: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a row is the first of its group, or the first after another group's: (N,)."""
    return np.concatenate([[True], groups[1:] != groups[:-1]])


def _near_others(parts: Rows, groups: NDArray[Any], gap: int) -> NDArray[np.bool_]:
    """Rows with a row of another part, of the same group, at most `gap` rows away: (N,)."""
    near = np.zeros(len(parts), bool)
    for distance in range(1, gap + 1):
        differ = (parts[distance:] != parts[:-distance]) & (groups[distance:] == groups[:-distance])
        near[distance:] |= differ
        near[:-distance] |= differ
    return near


def middles(runs: NDArray[Any], window: int) -> Rows:
    """Rows that have `window` neighbours to both sides in their run of rows: (N,) to row numbers."""
    starts = np.flatnonzero(starts_of(runs))
    ends = np.append(starts[1:], len(runs))
    inner = zip(starts + window, ends - window, strict=True)
    return np.concatenate([np.arange(start, max(start, end)) for start, end in inner])


def split_rows(rows: int, split: list[float], seed: int) -> list[Rows]:
    """Row ids of the parts, each sorted: a random partition of 0..N-1 in the given fractions.

    The permutation has a generator of its own, so the data do not depend on how they are split.
    """
    order = np.random.default_rng([seed, 1]).permutation(rows)
    return [np.sort(part) for part in np.split(order, _split_edges(rows, split))]


def _split_edges(rows: int, split: list[float]) -> Rows:
    """Where the second and the third part begin, (2,)."""
    return np.asarray(np.rint(np.cumsum(split)[:2] * rows), np.int64)


def check_range(name: str, bounds: list[float], lowest: float = -math.inf) -> None:
    """Refuse what are not two numbers in order, from `lowest` on."""
    if len(bounds) != 2 or not lowest <= bounds[0] <= bounds[1] < math.inf or math.isinf(bounds[0]):
        limit = "" if math.isinf(lowest) else f"{lowest:g} <= "
        raise ValueError(f"expected {name} to be [lo, hi] with {limit}lo <= hi, got {list(bounds)}")


def check_split(split: list[float], rows: int) -> None:
    """Refuse what are not three fractions that leave rows for training."""
    if len(split) != 3 or min(split) < 0 or not math.isclose(sum(split), 1, abs_tol=1e-6):
        raise ValueError(f"expected split to be three fractions that sum to 1, got {list(split)}")
    if _split_edges(rows, split)[0] == 0:
        raise ValueError(f"expected split to leave rows for training, got {list(split)} of {rows} rows")
