"""Check the assumptions of Khemakhem et al. (2020), Theorems 1 to 3, on a model and, where known, on the truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray

from ivae_lab.core.exponential_family import ExponentialFamily
from ivae_lab.metrics.check import Check
from ivae_lab.metrics.checks.ivae import active, components, overlap, rank, statistic, u_count
from ivae_lab.metrics.resampling import Estimate


class Assumptions:
    """Rows of verdicts, 1 holds, 0 does not, NaN undecided, and of the numbers behind them; words are in checks.json.

    =======================  ========================================  =============================================
    verdict                  assumption                                rows of numbers
    =======================  ========================================  =============================================
    `assumption_u_count`     n k + 1 values of u (Theorem 1, iv)       `u_values`
    `assumption_rank`        an invertible matrix L (Theorem 1, iv)    `l_rank`, `l_condition`, `best_condition`
    `assumption_overlap`     n k + 1 values of u that q(z given u)     `largest_overlap`, `overlapping_pairs` (their
                             tells apart                               share), `told_apart` (values)
    `assumption_active`      no collapsed latent                       `active_latents`
    `assumption_components`  of a mixture: no component without rows   `dead_components`
    `assumption_statistic`   k = 1, a unique minimum of T (Theorem 3)
    =======================  ========================================  =============================================

    Where p(z given u) of the true sources is known, `true_assumption_u_count` and so on are the verdicts on it. For a
    mixture prior u is the component, and the u of a row is its most probable component.

    Parameters
    ----------
    most_condition
        Above this condition number of the best L, the rank is undecided.
    whole_overlap
        From this Bhattacharyya coefficient on, two values of u count as one.
    least_rows
        Values of u with fewer rows are not compared.
    most_values
        At most this many values of u are compared, all pairs of them.
    least_active
        Share of a latent's variance that the posterior's mean must carry.
    """

    def __init__(
        self,
        *,
        most_condition: Annotated[float, Ge(1)],
        whole_overlap: Annotated[float, Gt(0), Le(1)],
        least_rows: Annotated[int, Ge(2)],
        most_values: Annotated[int, Ge(2)],
        least_active: Annotated[float, Gt(0), Le(1)],
    ) -> None:
        self.most_condition, self.whole_overlap = most_condition, whole_overlap
        self.least_rows, self.most_values, self.least_active = least_rows, most_values, least_active

    def checks(self, estimate: Estimate) -> list[Check]:
        """Make every check of this seed and split."""
        of_model = [*self._of_model(estimate)] if estimate.state == "done" else []
        return [*of_model, *(check.of_truth() for check in self._of_truth(estimate.true_prior, estimate.u))]

    def _of_model(self, estimate: Estimate) -> Iterator[Check]:
        prior, count, u = estimate.prior, _components(estimate), estimate.u
        labels = u if count is None else estimate.clusters
        yield u_count(prior, labels)
        yield rank(prior, labels, self.most_condition)
        yield overlap(
            estimate.sample,
            labels,
            prior,
            whole=self.whole_overlap,
            least_rows=self.least_rows,
            most_values=self.most_values,
        )
        by_label = prior is not None and not prior.hidden and len(prior.natural) > 1 and u is not None and u.ndim == 1
        yield active(estimate.mean, estimate.sample, u if by_label else None, self.least_active)
        if count is not None and estimate.clusters is not None:
            yield components(count, estimate.clusters)
        yield statistic(prior)

    def _of_truth(self, prior: ExponentialFamily | None, u: NDArray[Any] | None) -> Iterator[Check]:
        if prior is not None:
            yield u_count(prior, u)
            yield rank(prior, u)
            yield statistic(prior)


def _components(estimate: Estimate) -> int | None:
    """Return K of a model whose prior is one mixture; None for another model."""
    if estimate.prior is not None:
        return len(estimate.prior.natural) if estimate.prior.hidden else None
    return None if estimate.generator is None else len(estimate.generator.weights)
