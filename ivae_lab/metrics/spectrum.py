"""Number of latents that carry information, from the spectrum of their standard deviations (Sorrenson et al. 2020)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ivae_lab.core.arrays import Floats
from ivae_lab.metrics.mcc import match
from ivae_lab.metrics.resampling import Estimate, check_pair

Rule = Literal["gap", "knee"]


def spectrum(latents: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """Compute the standard deviations of latents (N, n) in decreasing order, and the order of the latents: both (n,).

    A flow that preserves volume gives a latent more spread the more of the data's volume it represents.
    """
    std = np.asarray(latents, float).std(0)
    order = np.argsort(-std, kind="stable")
    return std[order], order


def informative(std: Floats, rule: Rule) -> int:
    """Count the leading values of a decreasing spectrum s_1 >= ... >= s_n that stand out.

    `gap`: the k with the largest log s_k - log s_(k+1), for a spectrum of two levels. `knee`: for one that falls
    steeply and then slowly, the k before the point that lies farthest below the straight line from (1, log s_1) to
    (n, log s_n) (Satopaa et al. 2011). Latents without spread are not informative. 0 where a value is not finite.
    """
    std = np.asarray(std, float)
    if not np.isfinite(std).all():
        return 0
    log = np.log(std[std > 0])
    if len(log) < max(2, len(std)):
        return len(log)
    if rule == "gap":
        return int(np.argmax(log[:-1] - log[1:])) + 1
    line = np.linspace(log[0], log[-1], len(log))
    return max(1, int(np.argmax(line - log)))


def leading_correlation(latents: Floats, sources: Floats, count: int) -> float:
    """Compute the strong MCC of the `count` latents of largest spread, (N, n), with the sources, (N, k).

    It is a mean over all sources: a source without a latent counts as 0, so that fewer latents than sources lower it;
    more latents do not.
    """
    check_pair(latents, sources, 2)
    if not np.isfinite(latents).all():
        return float("nan")
    if count == 0:
        return 0.0
    _, order = spectrum(latents)
    matching = match(latents[:, order[:count]], sources)
    return float(np.nansum(np.abs(matching.correlations)) / sources.shape[1])


class Spectrum:
    """Rows `informative`, the number of latents that stand out, and `mcc_informative`, their MCC with the sources.

    Parameters
    ----------
    rule
        See `informative`.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule: Rule = rule

    def __call__(self, estimate: Estimate) -> list[dict[str, Any]]:
        """Score the posterior means of this seed and split."""
        std, _ = spectrum(estimate.mean)
        count = informative(std, self.rule)
        rows = [estimate.row("informative", count, latents="mean", scored="all")]
        if estimate.sources is not None:
            value = leading_correlation(estimate.mean, estimate.sources, count)
            choices = {"coefficient": "pearson", "alignment": "strong", "scored": "all"}
            rows.append(estimate.row("mcc_informative", value, latents="mean", **choices))
        return rows
