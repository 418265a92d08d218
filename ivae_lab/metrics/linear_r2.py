"""R^2 of a linear map from the latents to the true sources, on rows that the map was not fitted on."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, MinLen

from ivae_lab.core.arrays import Floats
from ivae_lab.metrics.resampling import Estimate, LatentName, check_pair, halves, shuffles


def linear_r2(latents: Floats, sources: Floats, half_seed: int) -> float:
    """Compute R^2 of least squares from latents to sources, fitted on one half of the rows, scored on the other.

    `R^2 = mean_j [1 - sum_i (s_ij - p_ij)^2 / sum_i (s_ij - mean_i s_ij)^2]` over held-out rows i, where p is the
    prediction: 1 for latents that are an invertible affine map of the sources, about 0 for unrelated ones, and below 0
    for predictions worse than the mean. A source that is constant there counts 0 unless it is predicted exactly.

    Parameters
    ----------
    latents, sources
        Shapes (N, n) and (N, k).
    half_seed
        Seeds the choice of the half that the map is fitted on.

    Returns
    -------
    float
        NaN where a value is not finite.

    Raises
    ------
    ValueError
        If the shapes do not fit or there are fewer than 4 rows.
    """
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import r2_score

    check_pair(latents, sources, rows=4)
    if not (np.isfinite(latents).all() and np.isfinite(sources).all()):
        return float("nan")
    fitted, held_out = halves(len(latents), half_seed)
    a, b = latents.astype(np.float64), sources.astype(np.float64)
    predicted = LinearRegression().fit(a[fitted], b[fitted]).predict(a[held_out])
    return float(r2_score(b[held_out], predicted, multioutput="uniform_average"))


def chance_r2(latents: Floats, sources: Floats, half_seed: int, draws: int, seed: int) -> float:
    """Compute the chance floor of `linear_r2`: its mean over `draws` random re-pairings of the rows, from `seed`."""
    orders = shuffles(len(sources), draws, seed)
    return float(np.mean([linear_r2(latents, sources[order], half_seed) for order in orders]))


class LinearR2:
    """Rows of `linear_r2`, each with its chance floor: one per kind of latents.

    Parameters
    ----------
    latents
        Latents to score: the posterior `mean`, one posterior `sample`, or both.
    chance_draws
        Number of re-pairings; the chance floor is the mean over them.
    half_seed
        Seeds the half of the rows that the map is fitted on.
    chance_seed
        Seeds the re-pairings.
    """

    def __init__(
        self,
        latents: Annotated[list[LatentName], MinLen(1)],
        chance_draws: Annotated[int, Gt(0)],
        half_seed: Annotated[int, Ge(0)],
        chance_seed: Annotated[int, Ge(0)],
    ) -> None:
        self.latents = latents
        self.chance_draws, self.half_seed, self.chance_seed = chance_draws, half_seed, chance_seed

    def __call__(self, estimate: Estimate) -> list[dict[str, Any]]:
        """Score this seed and split; no rows where the sources are unknown."""
        if estimate.sources is None:
            return []
        return [self._row(estimate, estimate.sources, latents) for latents in self.latents]

    def _row(self, estimate: Estimate, sources: Floats, latents: LatentName) -> dict[str, Any]:
        z = getattr(estimate, latents)  # (N, n)
        value = linear_r2(z, sources, self.half_seed)
        chance = chance_r2(z, sources, self.half_seed, self.chance_draws, self.chance_seed)
        points = len(halves(len(z), self.half_seed)[1])
        return estimate.row("linear_r2", value, latents=latents, scored="out", points=points, chance=chance)
