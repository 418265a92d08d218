"""The evidence lower bound and its terms, as rows."""

from __future__ import annotations

from typing import Any

from ivae_lab.metrics.resampling import Estimate


class ELBOTerms:
    """One row per term that the model reports, under the term's own name, in nats per row of the data.

    `elbo = E_q(z|x,u)[log p(x|z) + log p(z|u) - log q(z|x,u)]`, averaged over the rows of the split; a model names its
    terms (`log_likelihood`, `kl` and so on), and each of them becomes a row.
    """

    def __call__(self, estimate: Estimate) -> list[dict[str, Any]]:
        """Return the rows of this seed and split."""
        return [estimate.row(name, value, scored="all") for name, value in estimate.terms.items()]
