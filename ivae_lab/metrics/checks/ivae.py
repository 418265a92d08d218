"""The assumptions of Khemakhem et al. (2020), Theorems 1 to 3, one function each: https://arxiv.org/abs/1907.04809.

Numbers of theorems are those of the published version (AISTATS 2020); its Theorem 3 is Theorem 2 of the first one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ivae_lab.core.arrays import Floats, Integers
from ivae_lab.core.exponential_family import ExponentialFamily
from ivae_lab.metrics.check import Check
from ivae_lab.metrics.checks.variability import Modulation, carried, overlaps, told_apart

Labels = NDArray[Any]
_Meanings = dict[bool | None, str]

_UNKNOWN = "The natural parameters of p(z given u) are not known, so neither is their number n k."
_REAL = "u is real-valued: it has no values that rows share, and there is no table of lambda(u)."
_NONE = "There is no u, or the model has no clusters that could stand for it."
_NAN = float("nan")

_COUNT: _Meanings = {
    True: "There are enough values of u for Theorem 1 to apply, if they also modulate the latents (assumption_rank).",
    False: "Theorem 1 does not apply to this data: it takes more values of u, or fewer latents.",
    None: "Whether there are enough values of u for Theorem 1 is open.",
}
_RANK: _Meanings = {
    True: "u modulates latents in n k independent ways, so that Theorem 1 leaves one linear map of their statistics.",
    False: "Some combination of statistics is not modulated by u, so that Theorem 1 does not determine the latents.",
    None: "Whether u modulates the latents in enough independent ways for Theorem 1 is open.",
}
_OVERLAP: _Meanings = {
    True: "The model tells at least n k + 1 values of u apart by their latents, as Theorem 1 needs.",
    False: "The model tells fewer than n k + 1 values of u apart: those that overlap wholly are one for Theorem 1.",
    None: "Whether the model tells enough values of u apart for Theorem 1 is open.",
}
_ACTIVE: _Meanings = {
    True: "Every latent carries information on x, so each can be held against a source.",
    False: "Collapsed latents are noise of the prior: leave them out, and take n for the number of the others.",
    None: "Whether each latent carries information on x is open.",
}
_COMPONENTS: _Meanings = {
    True: "Every component stands for some rows, so that all of them count as values of u.",
    False: "Components that no row takes are learned from no data and do not count as values of u for Theorem 1.",
}
_STATISTIC: _Meanings = {
    True: "With the other assumptions only the order of latents stays open, and of each its statistic (Theorem 3).",
    False: "Theorem 3 does not say that only the order of the latents stays open: they may be mixed, if only linearly.",
    None: "Whether more than the order of the latents stays open is not known.",
}
_SMOOTH_ONLY = (
    "Only for a mixing with all second-order cross derivatives, which one of ReLUs has not, does Theorem 2 (k >= 2) "
    "leave the order alone open."
)


def u_count(prior: ExponentialFamily | None, labels: Labels | None) -> Check:
    """Check (iv), first part: there are n k + 1 distinct values of u among the `labels` (N,) of the rows."""
    name = "assumption_u_count"
    if labels is None and prior is not None and not prior.hidden:
        labels = np.array([])  # no u is no value of u
    if labels is None or labels.ndim > 1:
        why = _NONE if labels is None else _REAL
        return Check(name, "The values of u.", None, why, {}, {"u_values": _NAN}, _COUNT[None])
    values, rows = np.unique(labels, return_counts=True)
    limit = f"Values that none of these {len(labels)} rows has are not counted; the rarest has {min(rows, default=0)}."
    if prior is not None and prior.hidden:
        limit = f"u is the component, which Theorem 1 takes as observed (theorem35 is about this case). {limit}"
    evidence, numbers = {"fewest_rows": int(min(rows, default=0))}, {"u_values": float(len(values))}
    if prior is None:
        return Check(name, f"{len(values)} values of u.", None, _UNKNOWN, evidence, numbers, _COUNT[None], limit)
    passed = len(values) >= prior.needed
    looked_at = f"{len(values)} values of u against n k + 1 = {prior.needed}."
    witness = "" if passed else f"{prior.needed - len(values)} values of u are lacking."
    evidence["needed"] = prior.needed
    return Check(name, looked_at, passed, witness, evidence, numbers, _COUNT[passed], limit)


def rank(prior: ExponentialFamily | None, labels: Labels | None, most_condition: float | None = None) -> Check:
    """Check (iv), second part: n k + 1 values of u, among those of the rows, have an invertible matrix L.

    A model's lambda is inexact: the check is undecided if the best such L has a condition number (see `Modulation`)
    above `most_condition`. None: lambda is exact, as of the truth.
    """
    if prior is None:
        return _no_rank(_UNKNOWN)
    if len(prior.natural) > 1 and labels is not None and labels.ndim > 1:
        return _no_rank(_REAL)
    rows = _seen(len(prior.natural), labels)
    natural = prior.natural[rows]
    if not len(natural) or not np.isfinite(natural).all():
        return _no_rank("Some lambda(u) is not a finite number." if len(natural) else _NONE)
    matrix, size = Modulation.of(natural), natural.shape[1]
    passed, witness = _judged(matrix, size, most_condition)
    numbers = {"l_rank": float(matrix.rank), "l_condition": matrix.condition, "best_condition": matrix.best_condition}
    return Check(
        "assumption_rank",
        f"The matrix L of {size} natural parameters at {len(natural)} values of u: rank {matrix.rank} of {size}, "
        f"condition number {matrix.condition:.3g}; of the best {size + 1} values, parameters scaled, "
        f"{matrix.best_condition:.3g}.",
        passed,
        witness,
        {"values": len(natural), "needed_rank": size, "best_u": rows[matrix.best].tolist()},
        numbers,
        _RANK[passed],
        "Learned lambda(u) are inexact, and inexact numbers are almost surely of full rank: the condition number says "
        "how near they are to a lower one."
        if most_condition is not None
        else "These lambda(u) are exact; the rows only say which values of u were seen.",
    )


def _no_rank(why: str) -> Check:
    numbers = dict.fromkeys(("l_rank", "l_condition", "best_condition"), _NAN)
    return Check("assumption_rank", "The matrix L of natural parameters.", None, why, {}, numbers, _RANK[None])


def _judged(matrix: Modulation, size: int, most_condition: float | None) -> tuple[bool | None, str]:
    if matrix.rank < size:
        return False, f"All lambda(u) lie in a subspace of dimension {matrix.rank}, and {size} are needed."
    if most_condition is not None and matrix.best_condition > most_condition:
        return None, f"A condition number above {most_condition:g} is not told from a rank below {size}."
    return True, ""


def _seen(known: int, labels: Labels | None) -> Integers:
    """Select the rows of a table of lambda that the labels name; all rows without labels, or if there is only one."""
    if known == 1 or labels is None:
        return np.arange(known)
    values = np.unique(labels)
    return values[values < known].astype(int)


def overlap(
    samples: Floats,
    labels: Labels | None,
    prior: ExponentialFamily | None,
    *,
    whole: float,
    least_rows: int,
    most_values: int,
) -> Check:
    """Check that q(z given u) tells n k + 1 values of u apart: two values are told apart if they overlap below `whole`.

    See `overlaps`. Values with fewer than `least_rows` rows are left out; if more than `most_values` are left, that
    many are taken, evenly spaced.
    """
    if labels is None or labels.ndim > 1:
        return _no_overlap(_NONE if labels is None else _REAL)
    values, counts = np.unique(labels, return_counts=True)
    usable = values[counts >= least_rows]
    if len(usable) < 2:
        return _no_overlap(f"{len(usable)} of {len(values)} values of u have {least_rows} rows or more: 2 are needed.")
    chosen = usable[np.linspace(0, len(usable) - 1, min(most_values, len(usable))).round().astype(int)]
    between = overlaps(samples, [np.flatnonzero(labels == value) for value in chosen])
    pairs = between[np.triu_indices(len(chosen), 1)]
    first, second = (indices[np.argmax(pairs)] for indices in np.triu_indices(len(chosen), 1))
    apart, share = len(told_apart(between >= whole)), float((pairs >= whole).mean())
    passed, witness = _enough(apart, prior, len(chosen) < len(values))
    return Check(
        "assumption_overlap",
        f"{len(pairs)} pairs of {len(chosen)} of {len(values)} values of u: the largest overlap is {pairs.max():.3f}, "
        f"of {chosen[first]} and {chosen[second]}; {share:.1%} overlap by {whole:g} or more; {apart} values are told "
        "apart.",
        passed,
        witness,
        {"pair": chosen[[first, second]].tolist(), "values": len(chosen), "left_out": len(values) - len(chosen)},
        {"largest_overlap": float(pairs.max()), "overlapping_pairs": share, "told_apart": float(apart)},
        _OVERLAP[passed],
        f"Gaussians are fitted to {counts[counts >= least_rows].min()} rows a value or more: differences of other "
        "kinds, and small ones, are not seen.",
    )


def _no_overlap(why: str) -> Check:
    numbers = dict.fromkeys(("largest_overlap", "overlapping_pairs", "told_apart"), _NAN)
    return Check("assumption_overlap", "Overlap of q(z given u).", None, why, {}, numbers, _OVERLAP[None])


def _enough(apart: int, prior: ExponentialFamily | None, left_out: bool) -> tuple[bool | None, str]:
    if prior is None:
        return None, _UNKNOWN
    if apart >= prior.needed:
        return True, ""
    witness = f"{apart} values are told apart, {prior.needed} are needed"
    return (None, f"{witness}; others were left out.") if left_out else (False, f"{witness}.")


def active(mean: Floats, sample: Floats, labels: Labels | None, least: float) -> Check:
    """Check that no latent has collapsed: each posterior mean carries at least the share `least` of its variance.

    See `carried`. This is an active unit (Burda et al. 2016, https://arxiv.org/abs/1509.00519, Section 5.2), but
    relative to the latent's own scale. `labels` are the u that the prior depends on.
    """
    name, rows = "assumption_active", len(mean)
    groups = 1 if labels is None else len(np.unique(labels))
    if rows <= groups:
        looked_at, witness = f"{rows} rows.", f"There are {groups} values of u: no variance is left within them."
        return Check(name, looked_at, None, witness, {}, {"active_latents": _NAN}, _ACTIVE[None])
    shares = carried(mean, sample, labels)
    dead = np.flatnonzero(shares < least)
    passed = not len(dead)
    within = "" if labels is None else ", within a value of u,"
    return Check(
        name,
        f"{shares.size - len(dead)} of {shares.size} latents carry information: {least:g} or more of their variance"
        f"{within} is the posterior mean's.",
        passed,
        "" if passed else f"Collapsed: latents {', '.join(map(str, dead))}.",
        {"share": shares.tolist(), "collapsed": dead.tolist()},
        {"active_latents": float(shares.size - len(dead))},
        _ACTIVE[passed],
        f"One posterior sample of each of {rows} rows gives the variance that is not the mean's to about "
        f"{(2 / rows) ** 0.5:.1%}.",
    )


def components(count: int, clusters: Integers) -> Check:
    """Check that no component of a mixture of `count` is dead: each is the most probable one of some row."""
    dead = np.setdiff1d(np.arange(count), clusters)
    passed = not len(dead)
    return Check(
        "assumption_components",
        f"{count - len(dead)} of {count} components are taken by some of {len(clusters)} rows.",
        passed,
        "" if passed else f"No row takes components {', '.join(map(str, dead))}.",
        {"dead": dead.tolist()},
        {"dead_components": float(len(dead))},
        _COMPONENTS[passed],
        f"A component that {3 / len(clusters):.2g} of all rows would take is missed by these in one case of twenty.",
    )


def statistic(prior: ExponentialFamily | None) -> Check:
    """Check Theorem 3's condition: k = 1, and the same T for each latent, with a unique minimum, such as z^2 or |z|."""
    name, limit = "assumption_statistic", "This is about the form of p(z given u): no sample has to tell it."
    if prior is None:
        return Check(name, "The sufficient statistics.", None, _UNKNOWN, {}, {}, _STATISTIC[None])
    kinds = prior.statistics
    passed = kinds in (("z^2",), ("|z|",))
    named = f"k = {len(kinds)}, T = {', '.join(kinds)}"
    why = "T = z has no minimum." if kinds == ("z",) else f"k is {len(kinds)}, not 1. {_SMOOTH_ONLY}"
    evidence = {"k": len(kinds), "statistics": [*kinds]}
    looked_at = f"The sufficient statistics of each latent: {named}."
    return Check(name, looked_at, passed, "" if passed else why, evidence, {}, _STATISTIC[passed], limit)
