"""Check (P2) and (P3) of Kivva et al. (2022) on a Gaussian mixture, from its exact parameters.

Components, U_i, Z_t and their states are counted from 0, as in the arrays.

References
----------
Kivva et al. (2022), Identifiability of deep generative models without auxiliary information, sections 3.2 and 3.3:
https://arxiv.org/abs/2206.10044. Counts of components as sums over neighbourhoods: Kivva et al. (2021), Learning
latent causal graphs via mixture oracles: https://arxiv.org/abs/2106.15563.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, combinations, permutations
from math import prod
from typing import Any

import numpy as np

from ivae_lab.core.arrays import Bools, Floats, Integers
from ivae_lab.metrics.check import Check

Partition = tuple[int, ...]  # of states: for each the first one of its block

ROUNDING = 1e-6  # values nearer than this, relative to their scale, are the same: parameters may be single precision
SEARCHED = 64  # the most components that a finer structure is searched for: a matter of seconds


def variance_ratios(covariances: Floats, least_gap: float = 0.05) -> Check:
    """Check (P2): Z_t are independent given U, and two states u, v have ratios r_t = (Σ_u)_tt / (Σ_v)_tt that differ.

    Of all pairs of components, the one with the largest least gap min_(s != t) |log r_s - log r_t| is judged. A single
    latent has only one ratio: it passes with any number of components, and has no gap. The paper does not require
    u != v; this matters only for a single component of a single latent, where "up to scaling and translation" and "up
    to affine transformations" mean the same.

    Parameters
    ----------
    covariances
        Σ_u of the components of positive probability: (K, m, m).
    least_gap
        Ratios nearer than this are distinct in theory and hard to tell apart in data, which `looked_at` then says.

    Raises
    ------
    ValueError
        Where the covariances have another shape, are not finite or not symmetric, or a variance is not positive.
    """
    variances, correlations = _variances_and_correlations(np.asarray(covariances, float))
    worst = np.unravel_index(correlations.argmax(), correlations.shape)
    correlation = float(correlations[worst])
    pair, logs, gap = _widest(np.log(variances))
    independent, distinct, wide = correlation <= ROUNDING, gap > ROUNDING, gap > max(least_gap, ROUNDING)
    components, latents = variances.shape
    near = f", which differ, but by {gap:.2g} only in their logarithms: hard to tell apart in data"
    looked_at = (
        f"The correlations within {_count(components, 'component')} of {_count(latents, 'latent')} "
        f"and the variance ratios of each pair of components{near if distinct and not wide else ''}."
    )
    if not independent:
        witness = f"In component {worst[0]}, Z_{worst[1]} and Z_{worst[2]} have a correlation of {correlation:.2g}."
    else:
        witness = "" if distinct else _equal_ratios(pair, logs, components)
    evidence = {
        "independent": independent,
        "largest_correlation": correlation,
        "distinct": distinct,
        "pair": list(pair),
        "ratios": np.exp(logs).tolist(),
        "gap": gap if np.isfinite(gap) else None,
        "least_gap": least_gap,
        "above_least_gap": wide,
    }
    return Check("P2", looked_at, independent and distinct, witness, evidence)


def structure(table: Floats, means: Floats, variances: Floats) -> Check:
    """Check (P3) for U = (U_1, ..., U_k) and Z_t that are independent Gaussians given U.

    With Definition 3.4, Z_t is in ne(U_i) where its Gaussian differs between two states of U_i given some u_(-i).

    (a) P(Z' | ne(Z') = u) differs from P(Z' | ne(Z') = v) for all Z' and all states u != v of positive probability.
    (c) No ne(U_i) is a subset of another.
    (b) No U' of more variables gives the same P(Z), among those that themselves satisfy (a) and (c) and have a
    component of P(Z) for each state (J = Π d_i in section 3): without these, any U_i of 4 states would be two of 2.

    So read, (b) follows from (a) where every state has positive probability: P(Z') has Π_(i in ne(Z')) d_i components,
    so P(Z) determines, for every set S of latents, the product of the d_i with ne(U_i) = S. U has a variable for each
    S where it is not 1, and by (c) U' has one at most. Where (a) fails, at most one U' satisfies (a) and (c), and it
    is constructed: the partition of the components by U'_i is the finest that is coarser than those by each Z_t in
    ne(U'_i). Where states have probability zero, which the paper's J = Π d_i excludes, (b) is not decided if no U' is
    found; beyond `SEARCHED` components it is not decided if (a) fails.

    For k = 1 the paper says that (P3) holds, although a U of 4 states may be two bits of which Z_1 tells one and Z_2
    the other, which (a) and (b) exclude by their wording. We follow the paper as far as learning P(Z) is learning
    P(U, Z): k = 1 passes where the components differ. The clauses by their wording are in the evidence.

    Parameters
    ----------
    table
        P(U): (d_1, ..., d_k).
    means, variances
        Of each Z_t given U: (d_1, ..., d_k, m).

    Raises
    ------
    ValueError
        Where the shapes do not fit, `table` is no distribution, a mean is not finite or a variance not positive.

    Notes
    -----
    Meant for small structures: with states of probability zero, (a) goes through all 2^m subsets of Z. Without,
    a single Z_t tells two states apart whenever a Z' does, so that each Z_t alone is enough.
    """
    table, means, variances = (np.asarray(array, float) for array in (table, means, variances))
    _check_structure(table, means, variances)
    classes = _gaussians(means, variances)
    neighbours = _neighbours(table > 0, classes)
    clash, subset = _clash(table, classes, neighbours), _subset(neighbours)
    maximal, finer = (True, None) if not clash and (table > 0).all() else _search(table, classes)
    evidence = {
        "sizes": list(table.shape),
        "neighbours": [np.flatnonzero(row).tolist() for row in neighbours],
        "a": not clash,
        "b": maximal,
        "c": not subset,
        "finer": finer,
    }
    looked_at = (
        f"{_count(table.ndim, 'hidden variable')} of {_times(table.shape)} states, {(table > 0).sum()} of them "
        f"of positive probability, and {_count(means.shape[-1], 'latent')}"
    )
    if table.ndim == 1:
        twins = _twins(table, classes)
        looked_at += ": for a single one, whether its components differ"
        looked_at += f", which also are those of {_times(finer['sizes'])} hidden states" if finer else ""
        return Check("P3", f"{looked_at}.", not twins, twins, evidence)
    split = f"(b) fails, as {_times(finer['sizes'])} hidden states give the same P(Z)" if finer else ""
    witness = "; ".join(filter(None, [clash, split, subset]))
    if witness:
        return Check("P3", f"{looked_at}.", False, f"{witness}.", evidence)
    unsure = "" if maximal else "(b) is not decided, as states of U have probability zero."
    return Check("P3", f"{looked_at}.", maximal, unsure, evidence)


def _variances_and_correlations(covariances: Floats) -> tuple[Floats, Floats]:
    """Variances (K, m), and the sizes of the correlations with zeros on the diagonal (K, m, m)."""
    shape = covariances.shape
    if len(shape) != 3 or shape[1] != shape[2] or 0 in shape:
        raise ValueError(f"expected covariances of shape (K, m, m), got {shape}")
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    if not np.isfinite(covariances).all() or not (variances > 0).all():
        raise ValueError("expected finite covariances with positive variances, got others")
    std = np.sqrt(variances)
    correlations = covariances / std[:, :, None] / std[:, None]
    if np.abs(correlations - correlations.transpose(0, 2, 1)).max() > ROUNDING:
        raise ValueError("expected symmetric covariances, got others")
    return variances, np.abs(correlations) * (1 - np.eye(shape[1]))


def _widest(logs: Floats) -> tuple[tuple[int, int], Floats, float]:
    """Find the pair of components with the largest least gap, from log variances (K, m): log ratios (m,), and gap."""
    first, second = np.triu_indices(len(logs), 1 if len(logs) > 1 else 0)
    ratios = logs[first] - logs[second]  # (pairs, m)
    gaps = np.diff(np.sort(ratios, axis=1), axis=1).min(axis=1, initial=np.inf)
    best = int(gaps.argmax())
    return (int(first[best]), int(second[best])), ratios[best], float(gaps[best])


def _equal_ratios(pair: tuple[int, int], logs: Floats, components: int) -> str:
    """Say which latents have the same ratio even in the best pair."""
    order = np.argsort(logs)
    nearest = int(np.diff(logs[order]).argmin())
    one, other = sorted(order[nearest : nearest + 2])
    of = f"even of components {pair[0]} and {pair[1]}" if components > 1 else "there is one component only"
    return f"Not all variance ratios differ ({of}): those of Z_{one} and Z_{other} are both {np.exp(logs[one]):.4g}."


def _check_structure(table: Floats, means: Floats, variances: Floats) -> None:
    if table.ndim == 0 or table.size == 0 or not (table >= 0).all() or abs(table.sum() - 1) > ROUNDING:
        raise ValueError(f"expected a table of probabilities that sum to 1, got {table.tolist()}")
    shape = (*table.shape, *means.shape[-1:])
    if means.shape != shape or len(shape) == table.ndim or variances.shape != shape or shape[-1] == 0:
        raise ValueError(
            f"expected means and variances of shape {table.shape} + (m,), got {means.shape} and {variances.shape}"
        )
    if not np.isfinite(means).all() or not np.isfinite(variances).all() or not (variances > 0).all():
        raise ValueError("expected finite means and positive, finite variances, got others")


def _gaussians(means: Floats, variances: Floats) -> Integers:
    """Number the Gaussians of each Z_t given each state of U, equal ones alike: (d_1, ..., d_k, m)."""
    latents = means.shape[-1]
    columns = zip(means.reshape(-1, latents).T, variances.reshape(-1, latents).T, strict=True)
    return np.stack([_blocks(_same(mean, variance)) for mean, variance in columns], axis=1).reshape(means.shape)


def _same(mean: Floats, variance: Floats) -> Bools:
    """Compare Gaussians of (J,) means and variances: (J, J), True where two are the same."""
    near: Bools = np.abs(mean[:, None] - mean) <= ROUNDING * np.sqrt(variance)
    return near & (np.abs(np.log(variance[:, None] / variance)) <= ROUNDING)


def _blocks(same: Bools) -> Integers:
    """Find the finest partition with equal states (J, J) in one block: (J,), the first state of each one's block."""
    from scipy.sparse.csgraph import connected_components

    labels = connected_components(same, directed=False)[1]
    first: Integers = (labels[:, None] == labels).argmax(axis=1)
    return first


def _neighbours(support: Bools, classes: Integers) -> Bools:
    """Find which Z_t are in ne(U_i), (k, m): given some u_(-i), Z_t has several Gaussians over the states of U_i."""
    rows = []
    for axis in range(support.ndim):
        high = np.where(support[..., None], classes, -1).max(axis)
        low = np.where(support[..., None], classes, classes.max() + 1).min(axis)
        rows.append((high > low).reshape(-1, classes.shape[-1]).any(0))
    return np.array(rows)


def _clash(table: Floats, classes: Integers, neighbours: Bools) -> str:
    """Say where (a) fails: a Z' and two states of ne(Z') that give it the same mixture. Empty if (a) holds."""
    support = table > 0
    states, gaussians, weights = np.argwhere(support), classes[support], table[support]
    latents = range(classes.shape[-1])
    sizes = [1] if support.all() else [size + 1 for size in latents]
    for subset in chain.from_iterable(combinations(latents, size) for size in sizes):
        variables = np.flatnonzero(neighbours[:, subset].any(1))
        given, of = _distinct(states[:, variables])
        components, at = _distinct(gaussians[:, subset])
        joint = np.zeros((len(given), len(components)))
        np.add.at(joint, (of, at), weights)
        mixtures = joint / joint.sum(1, keepdims=True)
        twins = np.argwhere(np.triu(np.abs(mixtures[:, None] - mixtures).max(2) <= ROUNDING, 1))
        if len(twins):
            one, other = (_tuple(given[twin]) for twin in twins[0])
            names = f"{_names('Z', subset)} is the same given {_names('U', variables)}"
            return f"(a) fails, as {names} = {one} and = {other}"
    return ""


def _subset(neighbours: Bools) -> str:
    """Say where (c) fails: a ne(U_i) that is a subset of another. Empty if (c) holds."""
    for one, other in permutations(range(len(neighbours)), 2):
        if not (neighbours[one] & ~neighbours[other]).any():
            small, large = (_names("Z", np.flatnonzero(neighbours[at])) for at in (one, other))
            return f"(c) fails, as ne(U_{one}) = {{{small}}} is a subset of ne(U_{other}) = {{{large}}}"
    return ""


def _twins(table: Floats, classes: Integers) -> str:
    """Name two states of a single hidden variable that have the same component. Empty if there are none."""
    states, gaussians = np.flatnonzero(table), classes[table > 0]
    for one, other in combinations(range(len(states)), 2):
        if (gaussians[one] == gaussians[other]).all():
            return f"U_0 = {states[one]} and U_0 = {states[other]} have the same component, so P(Z) cannot tell them."
    return ""


def _search(table: Floats, classes: Integers) -> tuple[bool | None, dict[str, Any] | None]:
    """Return the verdict on (b), None where it is not decided, and the finer structure for which it fails."""
    support = table > 0
    components, first = np.unique(classes[support], axis=0, return_index=True)
    if len(components) > SEARCHED:
        return None, None
    finer = _only_structure(components)
    if finer is None or finer.shape[1] <= table.ndim:
        return (True if support.all() else None), None
    states = np.argwhere(support)[first]
    return False, {"sizes": (finer.max(0) + 1).tolist(), "of": states.tolist(), "to": finer.tolist()}


def _only_structure(components: Integers) -> Integers | None:
    """Construct the only U of two or more variables that satisfies (a) and (c), from distinct components (J, m).

    Returns its states (J, k), or None. By (a), Z_t partitions the components as the states of ne(Z_t) do, so a
    partition coarser than several Z_t is that by the states of the U_i that they have in common. By (c), the Z_t of
    ne(U_i) have U_i alone in common; and where some Z_t have U_i alone in common, ne(U_i) is not a subset of another,
    so that only (a) is left to check.
    """
    columns = [_distinct(np.array(part)[:, None])[1] for part in _coarsest(components)]
    if len(columns) < 2:
        return None
    states = np.stack(columns, axis=1)
    sizes = states.max(0) + 1
    if prod(sizes.tolist()) != len(states) or len(np.unique(states, axis=0)) < len(states):
        return None
    classes = np.empty((*sizes, components.shape[1]), np.intp)
    classes[tuple(states.T)] = components
    uniform = np.full(sizes, 1 / len(states))  # (a) depends on which states are possible, not on how probable
    return None if _clash(uniform, classes, _neighbours(uniform > 0, classes)) else states


def _coarsest(components: Integers) -> list[Partition]:
    """List the coarsest partitions, but the trivial one, among those by each Z_t and those coarser than several Z_t.

    The list is empty if there are more than J - 1 partitions in all: k variables have 2^k - 1 <= J - 1 subsets.
    """
    trivial = (0,) * len(components)
    parts = {_partition(column[:, None] == column) for column in components.T} - {trivial}
    for part in list(parts):
        parts |= {_meet(part, other) for other in parts} - {trivial}
        if len(parts) >= len(components):
            return []
    return sorted(part for part in parts if all(_meet(part, other) in (part, trivial) for other in parts))


def _partition(same: Bools) -> Partition:
    return tuple(_blocks(same).tolist())


def _meet(one: Partition, other: Partition) -> Partition:
    """Return the finest partition that is coarser than both."""
    first, second = np.array(one), np.array(other)
    return _partition((first[:, None] == first) | (second[:, None] == second))


def _distinct(rows: Integers) -> tuple[Integers, Integers]:
    """Return the distinct rows of (J, n), and for each row the number of its distinct row: (J,)."""
    distinct, inverse = np.unique(rows, axis=0, return_inverse=True)
    return distinct, inverse.reshape(-1)  # numpy 2.0 gives it another axis


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def _times(sizes: Iterable[int]) -> str:
    return " x ".join(map(str, sizes))


def _tuple(state: Integers) -> str:
    return str(state[0]) if len(state) == 1 else str(tuple(state.tolist()))


def _names(letter: str, indices: Iterable[int]) -> str:
    return ", ".join(f"{letter}_{index}" for index in indices)
