"""Arrays of a run folder: latents of all seeds, and examples of rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_latents(path: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of `latents.npz`, given its path or its run folder: S seeds, N rows, n latents, k sources.

    `mean` and `sample` (S, N, n), `seed` (S,), `index` (N,), `split` (N,), and where known `sources` (N, k), `u` (N,).
    A model with clusters adds `cluster` (S, N) or (S, N, facets), one with a grid of latents their number of
    `positions` (), one with facets their number `facets` (); images add `x` (N, d).

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    return _arrays(path / "latents.npz" if path.is_dir() else path)


def read_examples(folder: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of `examples.npz`: R rows, S seeds, d observed dimensions, M values of u (or components, or 1).

    `index` (R,), `x` (R, d), `reconstruction` (S, R, d), `prior_mean` and `prior_std` (S, M, n), `seed` (S,), and where
    known `sources` (R, k), `u` (R,). Images add `image` (C, H, W), and of most models `drawn` (S, M, r, d), draws
    from the prior, and `traversals` (S, n', steps, d) of the latents `traversed` (S, n'). Flows of images with classes
    add `class_traversals`, `class_traversed` and `class_drawn`, see `Flow`.

    Raises
    ------
    FileNotFoundError
        If there is none: the run is older than this file.
    """
    return _arrays(folder / "examples.npz")


def position_of(arrays: Mapping[str, NDArray[Any]], seed: int) -> int:
    """The place of a model seed's latents along the first axis of `mean` and `sample`."""
    return int(np.flatnonzero(arrays["seed"] == seed)[0])


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:  # else NumPy leaves a torn file open
        return dict(arrays)
