"""A metric that fails after the training, which a run cannot know before."""

from __future__ import annotations

from typing import Any

from ivae_lab.metrics.resampling import Estimate

TRIED_ROWS = 500  # what a run tries its metrics on before it trains


class Breaking:
    """Raises an error on as many rows as a training has, and none on fewer."""

    def __call__(self, estimate: Estimate) -> list[dict[str, Any]]:
        if len(estimate.mean) > TRIED_ROWS:
            raise ArithmeticError("a metric that breaks")
        return []
