"""Check the assumptions of Theorem 3.5 of Kivva et al. (2022) on a trained model and, where known, on the truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from annotated_types import Ge

from ivae_lab.core.arrays import Floats
from ivae_lab.core.mixture_generator import Generator, ReluNetwork
from ivae_lab.metrics.check import Check
from ivae_lab.metrics.checks.injectivity import injective, weakly_injective
from ivae_lab.metrics.checks.mixture import structure, variance_ratios
from ivae_lab.metrics.resampling import Estimate


class Theorem35:
    """Rows `F2`, `F3`, `P2` and `P3` of the model, and `true_F2` and so on of the truth: 1 holds, 0 does not.

    The value is NaN where an assumption could not be decided. checks.json of the run folder says what was looked at,
    and what breaks an assumption. (F2) and (F3) concern a decoder of (leaky) ReLUs, on the region that the rows'
    latents visit; (P2) and (P3) concern a Gaussian mixture as prior, with one hidden variable, the component.

    Parameters
    ----------
    rows
        Number of latents, evenly spaced among those of the split, whose pieces and region are looked at.
    most_pieces
        Number of affine pieces that are looked at, those with most rows first.
    """

    def __init__(self, *, rows: Annotated[int, Ge(2)], most_pieces: Annotated[int, Ge(1)]) -> None:
        self.rows, self.most_pieces = rows, most_pieces

    def checks(self, estimate: Estimate) -> list[Check]:
        """Make every check of this seed and split; none where neither model nor truth is a Gaussian mixture."""
        of_model = [*self._of(estimate.generator, estimate.mean)] if estimate.state == "done" else []
        return [*of_model, *(check.of_truth() for check in self._of(estimate.truth, estimate.sources))]

    def _of(self, generator: Generator | None, latents: Floats | None) -> Iterator[Check]:
        if generator is None:
            return
        if generator.network is not None and latents is not None:
            yield from self._of_decoder(generator.network, latents)
        yield variance_ratios(generator.covariances)
        variances = np.diagonal(generator.covariances, axis1=1, axis2=2)
        yield structure(generator.weights, generator.means, variances)

    def _of_decoder(self, network: ReluNetwork, latents: Floats) -> list[Check]:
        if not (np.ptp(latents, 0) > 0).all():
            looked_at = f"The latents of {len(latents)} rows, of which some do not vary."
            return [Check(name, looked_at, None, "There is no region to look at.") for name in ("F2", "F3")]
        chosen = np.linspace(0, len(latents) - 1, min(self.rows, len(latents))).astype(int)
        z = np.asarray(latents[chosen], float)
        return [check(network, z, most_pieces=self.most_pieces) for check in (weakly_injective, injective)]
