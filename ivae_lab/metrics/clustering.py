"""Scores of a model's clusters against the labels u, which the model may not have seen.

References
----------
Accuracy: Xie et al. (2016), Unsupervised Deep Embedding for Clustering Analysis, section 4:
https://arxiv.org/abs/1511.06335, as in VaDE (Jiang et al. 2017): https://arxiv.org/abs/1611.05148. Normalised mutual
information and purity: Manning et al. (2008), Introduction to Information Retrieval, section 16.3.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from ivae_lab.core.arrays import Integers
from ivae_lab.metrics.resampling import Estimate, shuffles

Labels = NDArray[Any]


def cluster_accuracy(clusters: Integers, labels: Labels) -> float:
    """Share of the rows whose cluster is matched to their label, under the best one-to-one matching of the two.

    Where there are more clusters than labels, rows of clusters without a label count as wrong.

    Parameters
    ----------
    clusters, labels
        Shape (N,) each.
    """
    from scipy.optimize import linear_sum_assignment

    counts = _counts(clusters, labels)
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum() / len(labels))


def cluster_purity(clusters: Integers, labels: Labels) -> float:
    """Share of the rows whose label is the most frequent one of their cluster: (N,), (N,).

    The more clusters there are, the higher it is by chance alone.
    """
    return float(_counts(clusters, labels).max(axis=1).sum() / len(labels))


def nmi(clusters: Integers, labels: Labels) -> float:
    """Mutual information of clusters and labels, (N,) and (N,), over the arithmetic mean of their entropies."""
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(labels, clusters))


_SCORES: dict[str, Callable[[Integers, Labels], float]] = {
    "cluster_accuracy": cluster_accuracy,
    "cluster_purity": cluster_purity,
    "nmi": nmi,
}


class Clustering:
    """Rows of `cluster_accuracy`, `cluster_purity` and `nmi` of a model's clusters against u, with their chance floors.

    If a model has several clusterings, each has its own rows: `nmi_facet_1` and so on.

    Parameters
    ----------
    chance_draws
        Number of re-pairings of the rows; the chance floor is the mean over them.
    chance_seed
        Seeds the re-pairings.
    """

    def __init__(self, chance_draws: Annotated[int, Gt(0)], chance_seed: Annotated[int, Ge(0)]) -> None:
        self.chance_draws, self.chance_seed = chance_draws, chance_seed

    def __call__(self, estimate: Estimate) -> list[dict[str, Any]]:
        """Score this seed and split; no rows where the model has no clusters or the data no labels u."""
        clusters, labels = estimate.clusters, estimate.u
        if clusters is None or labels is None or labels.ndim > 1:
            return []
        facets = _by_facet(clusters)
        if not np.isfinite(estimate.mean).all():  # then no cluster is the most probable
            names = [name + facet for name, facet in product(_SCORES, facets)]
            return [estimate.row(name, float("nan"), latents="mean", scored="all") for name in names]
        rows = []
        for (name, score), (facet, of_facet) in product(_SCORES.items(), facets.items()):
            orders = shuffles(len(labels), self.chance_draws, self.chance_seed)
            chance = float(np.mean([score(of_facet, labels[order]) for order in orders]))
            value = score(of_facet, labels)
            rows.append(estimate.row(name + facet, value, latents="mean", scored="all", chance=chance))
        return rows


def _by_facet(clusters: Integers) -> dict[str, Integers]:
    """Split clusters (N,) or (N, facets) by facet, under the suffix that the facet adds to the name of a score."""
    if clusters.ndim == 1:
        return {"": clusters}
    return {f"_facet_{number}": of_facet for number, of_facet in enumerate(clusters.T, 1)}


def _counts(clusters: Integers, labels: Labels) -> Integers:
    """Count the rows of each cluster and label: (clusters, labels)."""
    from sklearn.metrics.cluster import contingency_matrix

    return np.asarray(contingency_matrix(labels, clusters).T)
