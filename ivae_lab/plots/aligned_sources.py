"""Latents brought to the sources that they are matched with, so that both can be drawn on the same axes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ivae_lab.metrics.mcc import match

Array = NDArray[np.float64]


def align(latents: Array, sources: Array, others: Array | None = None) -> tuple[Array, Array]:
    """Bring latents (N, n) to the order, sign, mean and scale of the sources (N, k); the signed correlations go along.

    With `others`, rows that the same map is applied to (points of the prior), these are returned in their place.
    """
    matching = match(latents, sources)
    matched = latents[:, matching.columns]
    scale = sources.std(0) / np.maximum(matched.std(0), 1e-12) * np.sign(matching.correlations)
    moved = matched if others is None else others[..., matching.columns]
    return (moved - matched.mean(0)) * scale + sources.mean(0), matching.correlations
