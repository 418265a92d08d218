"""Gap between the log of the true density of the data, where it is known, and the ELBO."""

from __future__ import annotations

from typing import Any

from ivae_lab.metrics.resampling import Estimate


class Gap:
    """Rows `log_density`, E[log p*(x)] of the true p*, and `gap`, E[log p*(x)] - ELBO, in nats per row of the data.

    Over the whole population the gap is KL(p*, p) + E[KL(q(z given x), p(z given x))] of a model p with posterior q,
    so it is 0 only for the true density with its exact posterior; over the rows of a split it may fall slightly below.
    """

    def __call__(self, estimate: Estimate) -> list[dict[str, Any]]:
        """Score this seed and split; no rows where the density is not known."""
        if estimate.log_density is None or "elbo" not in estimate.terms:
            return []
        values = {"log_density": estimate.log_density, "gap": estimate.log_density - estimate.terms["elbo"]}
        return [estimate.row(name, value, scored="all") for name, value in values.items()]
