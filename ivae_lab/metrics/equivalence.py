"""Distance of a model from the true generator, up to the maps that Theorem 3.5 of Kivva et al. (2022) leaves open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import permutations, product
from typing import Any

import numpy as np

from ivae_lab.core.arrays import Floats
from ivae_lab.core.mixture_generator import Generator
from ivae_lab.metrics.resampling import Estimate

_REACH = 7.0  # standard deviations of a component beyond which it is taken as 0
_POINTS = {1: 20_001, 2: 301}  # number of latents -> points on each axis of the grid for total variation
_COARSE, _ANGLES = 81, 72  # points on each axis while angles are compared, and number of these angles
_DRAWS = 4000  # draws of z at which decoders are compared


@dataclass(frozen=True)
class GeneratorDistance:
    """Distance between two generators after one is mapped to the other by z -> A z + t."""

    prior: float  # total variation between the priors, 0 to 1
    decoder: float | None  # sqrt(E |f'(A z + t) - f(z)|^2 / Var f(z)) under the true prior; None without networks
    matrix: Floats  # (n, n), A, from the truth's latents to the estimate's
    shift: Floats  # (n,), t


_UNKNOWN = GeneratorDistance(np.nan, np.nan, np.zeros((0, 0)), np.zeros(0))


class Equivalence:
    r"""Rows `prior_affine`, `prior_scaled`, `decoder_affine` and `decoder_scaled`: distances from the true generator.

    Over maps z' = A z + t, of any invertible A (`affine`: (a) and (d) of Theorem 3.5) or of a permutation with scales
    and signs (`scaled`: (b)), the least total variation between the true prior, mapped, and the model's,

    .. math:: \min_{A, t} \tfrac12 \int | p'(A z + t) |\det A| - p(z) | \, dz,

    and at that map the distance of the decoders, sqrt(E |f'(A z + t) - f(z)|^2 / Var f(z)). Priors that are equal up to
    an affine map have the same standardised density up to a rotation. So A and t map the true mean and covariance to
    the model's, and only the rotation is searched for. As densities are compared, a model may have more components than
    the truth, empty or repeated ones. There may be one latent or two.
    """

    def __call__(self, estimate: Estimate) -> list[dict[str, Any]]:
        """Score this seed; no rows where truth or model is no Gaussian mixture, or has more than two latents."""
        truth, model = estimate.truth, estimate.generator
        if truth is None or model is None or truth.means.shape[1] != model.means.shape[1]:
            return []
        if truth.means.shape[1] not in _POINTS:
            return []
        rows = []
        for name, distance_of in (("affine", affine), ("scaled", scaled)):
            try:
                distance = distance_of(truth, model)
            except np.linalg.LinAlgError:  # the prior has collapsed to a point or line: the run keeps its other scores
                distance = _UNKNOWN
            rows.append(estimate.row(f"prior_{name}", distance.prior, scored="all"))
            if distance.decoder is not None and truth.network is not None and model.network is not None:
                rows.append(estimate.row(f"decoder_{name}", distance.decoder, scored="all"))
        return rows


def affine(truth: Generator, model: Generator) -> GeneratorDistance:
    """Compute the least distance over all affine maps."""
    (mean, root), (other_mean, other_root) = _moments(truth), _moments(model)
    one, other = _standardised(truth, mean, root), _standardised(model, other_mean, other_root)
    rotation = _best(one, other, _rotations(one, other))
    return _distance(truth, model, other_root @ rotation @ np.linalg.inv(root), (mean, other_mean))


def scaled(truth: Generator, model: Generator) -> GeneratorDistance:
    """Compute the least distance over permutations with scales, signs and shifts."""
    (mean, root), (other_mean, other_root) = _moments(truth), _moments(model)
    spread, other_spread = (np.diag(np.sqrt(np.diag(factor @ factor.T))) for factor in (root, other_root))
    one, other = _standardised(truth, mean, spread), _standardised(model, other_mean, other_spread)
    rotation = _best(one, other, iter(_signed_permutations(len(mean))))
    return _distance(truth, model, other_spread @ rotation @ np.linalg.inv(spread), (mean, other_mean))


def total_variation(one: Generator, other: Generator, points: int | None = None) -> float:
    """Compute half the integral of |p - p'| of two mixture priors, by the trapezoidal rule on a grid that holds both.

    Raises
    ------
    ValueError
        For more than two latents.
    """
    size = one.means.shape[1]
    if size not in _POINTS:
        raise ValueError(f"expected one latent or two, got {size}")
    both = [_box(generator) for generator in (one, other)]
    low, high = np.minimum(both[0][0], both[1][0]), np.maximum(both[0][1], both[1][1])
    axes = [np.linspace(a, b, points or _POINTS[size]) for a, b in zip(low, high, strict=True)]
    cell = float(np.prod([axis[1] - axis[0] for axis in axes]))
    z = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, size)  # (Q, n)
    return float(0.5 * np.abs(density(one, z) - density(other, z)).sum() * cell)


def density(generator: Generator, z: Floats) -> Floats:
    """Compute p(z) of the mixture: (N, n) to (N,)."""
    whole = np.zeros(len(z))
    for weight, mean, covariance in zip(generator.weights, generator.means, generator.covariances, strict=True):
        factor = np.linalg.inv(np.linalg.cholesky(covariance))
        square = np.square((z - mean) @ factor.T).sum(1)
        whole += weight * np.linalg.det(factor) * np.exp(-0.5 * square) / (2 * np.pi) ** (z.shape[1] / 2)
    return whole


def mapped(generator: Generator, matrix: Floats, shift: Floats) -> Generator:
    """Map the mixture by z -> A z + t, and drop its network."""
    covariances = matrix @ generator.covariances @ matrix.T
    return replace(generator, means=generator.means @ matrix.T + shift, covariances=covariances, network=None)


def _moments(generator: Generator) -> tuple[Floats, Floats]:
    """Compute the mean (n,) and the symmetric root of the covariance (n, n) of the whole mixture."""
    mean = generator.weights @ generator.means
    away = generator.means - mean
    second_moments = generator.covariances + away[:, :, None] * away[:, None, :]  # (K, n, n), about the mean
    values, vectors = np.linalg.eigh(np.einsum("k,kij->ij", generator.weights, second_moments))
    return mean, (vectors * np.sqrt(values)) @ vectors.T


def _standardised(generator: Generator, mean: Floats, root: Floats) -> Generator:
    inverse = np.linalg.inv(root)
    return mapped(generator, inverse, -inverse @ mean)


def _box(generator: Generator) -> tuple[Floats, Floats]:
    """Return the corners of a box that holds all components."""
    std = np.sqrt(np.diagonal(generator.covariances, axis1=1, axis2=2))
    return (generator.means - _REACH * std).min(0), (generator.means + _REACH * std).max(0)


def _best(one: Generator, other: Generator, rotations: Iterator[Floats]) -> Floats:
    shift = np.zeros(one.means.shape[1])
    return min(rotations, key=lambda rotation: total_variation(mapped(one, rotation, shift), other))


def _signed_permutations(size: int) -> list[Floats]:
    identity = np.eye(size)
    return [
        identity[list(order)] * np.array(signs)
        for order in permutations(range(size))
        for signs in product((1.0, -1.0), repeat=size)
    ]


def _rotations(one: Generator, other: Generator) -> Iterator[Floats]:
    """Yield orthogonal matrices, one of them the best: both signs, or in two dimensions the best of each sign."""
    from scipy.optimize import minimize_scalar

    if one.means.shape[1] == 1:
        yield from _signed_permutations(1)
        return
    step = 2 * np.pi / _ANGLES
    for mirror in (1.0, -1.0):

        def left(angle: float, mirror: float = mirror) -> float:
            return total_variation(mapped(one, _rotation(angle, mirror), np.zeros(2)), other, _COARSE)

        start = min(np.arange(_ANGLES) * step, key=left)
        best = minimize_scalar(left, bounds=(start - step, start + step), method="bounded", options={"xatol": 1e-7})
        yield _rotation(float(best.x), mirror)


def _rotation(angle: float, mirror: float) -> Floats:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -mirror * sine], [sine, mirror * cosine]])


def _distance(truth: Generator, model: Generator, matrix: Floats, means: tuple[Floats, Floats]) -> GeneratorDistance:
    shift = means[1] - matrix @ means[0]
    prior = total_variation(mapped(truth, matrix, shift), model)
    return GeneratorDistance(prior, _between(truth, model, lambda z: z @ matrix.T + shift), matrix, shift)


def _between(truth: Generator, model: Generator, to: Callable[[Floats], Floats]) -> float | None:
    if truth.network is None or model.network is None:
        return None
    z = truth.sample(_DRAWS, 0)
    f, other = truth.network(z), model.network(to(z))
    return float(np.sqrt(np.square(other - f).sum() / np.square(f - f.mean(0)).sum()))
