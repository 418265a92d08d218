"""Random numbers of a seed: every stream has a name, and depends on the seed and this name alone.

So a seed's numbers do not depend on which seeds run beside it, and a run continued at step t draws what an
uninterrupted one draws there: no generator state needs saving.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def generator(seed: int, stream: str, counter: int = 0) -> torch.Generator:
    """Make a CPU generator for the `counter`-th draw from the named stream of a seed."""
    words = np.random.SeedSequence([seed, zlib.crc32(stream.encode()), counter]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 32 | int(words[1]))


def normals(seeds: list[int], stream: str, counter: int, shape: tuple[int, ...]) -> Tensor:
    """Draw standard normal numbers for each seed: (S, *shape), on the CPU so that every device sees the same."""
    return _each(seeds, lambda seed: torch.randn(shape, generator=generator(seed, stream, counter)))


def permutations(seeds: list[int], stream: str, counter: int, rows: int) -> Tensor:
    """Draw a random order of the rows for each seed: (S, rows)."""
    return _each(seeds, lambda seed: torch.randperm(rows, generator=generator(seed, stream, counter)))


def _each(seeds: list[int], draw: Callable[[int], Tensor]) -> Tensor:
    """One draw per seed; a seed that several runs share is drawn once."""
    drawn = {seed: draw(seed) for seed in dict.fromkeys(seeds)}
    return torch.stack([drawn[seed] for seed in seeds])
