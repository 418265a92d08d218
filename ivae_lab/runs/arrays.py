"""Arrays of a run folder: latents of all seeds, and examples of rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_latents(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays of `latents.npz`, given by its run folder or itself: S seeds, N rows, n latents, k sources.

    `mean` and `sample` (S, N, n), `seed` (S,), `index` (N,), `split` (N,), and where known `sources` (N, k), `u` (N,);
    `cluster` (S, N), or (S, N, facets), of a model with clusters; `positions` () of one whose latents are a grid of so
    many places, `facets` () of one with so many parts, and `x` (N, d) if it is of images.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    return _arrays(path / "latents.npz" if path.is_dir() else path)


def read_examples(folder: Path) -> dict[str, NDArray[Any]]:
    """Arrays of `examples.npz`: R rows, S seeds, d observed dimensions, M values of u (or components, or 1).

    `index` (R,), `x` (R, d), `reconstruction` (S, R, d), `prior_mean` and `prior_std` (S, M, n), `seed` (S,), and where
    known `sources` (R, k), `u` (R,). Of images also `image` (C, H, W), and of most models `drawn` (S, M, r, d), drawn
    from the prior, and `traversals` (S, n', steps, d) of the latents `traversed` (S, n'). Of flows of images with
    classes also `class_traversals`, `class_traversed` and `class_drawn`, see `Flow`.

    Raises
    ------
    FileNotFoundError
        If there is none: a run of before this file was written.
    """
    return _arrays(folder / "examples.npz")


def position_of(arrays: Mapping[str, NDArray[Any]], seed: int) -> int:
    """The place of a model seed's latents along the first axis of `mean` and `sample`."""
    return int(np.flatnonzero(arrays["seed"] == seed)[0])


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:  # else NumPy leaves a torn file open
        return dict(arrays)
