"""Linear baselines, which are fitted instead of trained: principal components, FastICA, and ICA by segments."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ivae_lab.config.numbers import PositiveFloat, PositiveInt
from ivae_lab.core.data import Batch, DataSpec
from ivae_lab.models.features import Affine, Array, Features, Unmixing


class Linear(Features):
    """z = W (x - m), fitted to all training rows at once; it has no parameters, so the optimiser takes no step.

    Parameters
    ----------
    spec, prior, latent_dim
        As of `Features`.

    Raises
    ------
    ValueError
        As `Features`, and for more latents than x has dimensions.
    """

    settles = True

    def __init__(
        self, spec: DataSpec, prior: Callable[[int, int], nn.Module], *, latent_dim: PositiveInt | None
    ) -> None:
        super().__init__(spec, prior, latent_dim)
        if self.latent_dim > spec.x_dim:
            raise ValueError(
                f"expected a latent_dim of at most the {spec.x_dim} dimensions of x for a linear model, "
                f"got {self.latent_dim}"
            )
        self.map = Affine(spec.x_dim, self.latent_dim)

    def unmixing(self, x: Array, u: NDArray[np.int64] | None) -> Unmixing:
        """Fit the method to all training rows, (N, d) and (N,)."""
        raise NotImplementedError

    def settle(self, blocks: Iterable[Batch]) -> None:
        """Fit the method to the training data."""
        x, u = zip(*((block.x, block.u) for block in blocks), strict=True)
        labels = None if u[0] is None else torch.cat(u).cpu().numpy()
        self.map.fit(lambda rows: self.unmixing(rows, labels), torch.cat(x))

    def features(self, x: Tensor) -> Tensor:
        """(B, d) to (B, n)."""
        return self.map(x)  # type: ignore[no-any-return]

    def bound(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """The latents, and "converged": 1 if the method's iterations converged, else 0."""
        latents = super().bound(batch, noise)
        return latents | {"converged": self.map.get_buffer("converged").expand(len(batch.x))}

    def examples(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Reconstructions of x from the latents, and the prior's parameters."""
        reconstruction = self.map.inverse(self.features(batch.x))
        return {"reconstruction": reconstruction, **self.prior_parameters(self.prior(None))}

    def sample(self, rows: int, u: Tensor | None, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """Draw x from standard normal latents: it has the data's mean, and its covariance as far as n latents allow."""
        z = temperature * self.prior(None).sample(rows, generator)
        return self.map.inverse(z)


class PrincipalComponents(Linear):
    """Whitened principal components: uncorrelated latents of unit variance, by falling variance in x."""

    def unmixing(self, x: Array, u: NDArray[np.int64] | None) -> Unmixing:
        """The leading components, each divided by its standard deviation."""
        from sklearn.decomposition import PCA  # takes more than a second

        pca = PCA(self.latent_dim, svd_solver="full").fit(x)
        with np.errstate(divide="ignore", invalid="ignore"):  # a direction in which x is constant gives no latent
            return Unmixing(pca.components_ / np.sqrt(pca.explained_variance_)[:, None], pca.mean_)


class IndependentComponents(Linear):
    """FastICA (Hyvarinen 1999, IEEE Transactions on Neural Networks 10:3): latents as far from Gaussian as possible.

    It finds a Gaussian source only if its variance differs over the rows, which makes its tails heavy.

    Parameters
    ----------
    spec, prior, latent_dim
        As in `Linear`.
    iterations, tolerance
        Limit of the iterations, and the tolerance at which they end before it. They begin at a random matrix, each
        model seed at its own.
    """

    def __init__(
        self,
        spec: DataSpec,
        prior: Callable[[int, int], nn.Module],
        *,
        latent_dim: PositiveInt | None,
        iterations: PositiveInt,
        tolerance: PositiveFloat,
    ) -> None:
        super().__init__(spec, prior, latent_dim=latent_dim)
        self.iterations, self.tolerance = iterations, tolerance
        self.register_buffer("first", torch.randn(self.latent_dim, self.latent_dim))

    def unmixing(self, x: Array, u: NDArray[np.int64] | None) -> Unmixing:
        """Run `fast_ica` from this model's matrix."""
        return fast_ica(x, self.get_buffer("first"), self.iterations, self.tolerance)


def fast_ica(x: Array, start: Tensor, iterations: int, tolerance: float) -> Unmixing:
    """Run scikit-learn's FastICA on rows (N, d) from a matrix (n, n): parallel, contrast log cosh, unit variances."""
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    method = FastICA(
        len(start), whiten="unit-variance", max_iter=iterations, tol=tolerance, w_init=start.double().cpu().numpy()
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        method.fit(x)
    converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    return Unmixing(method.components_, method.mean_, converged)


class SegmentComponents(Linear):
    r"""Linear ICA of non-stationary sources: one matrix that makes the covariance diagonal at every value of u.

    The model: sources s are independent given u, their variances depend on u, and x = A s, so that
    :math:`C_u = \mathrm{Cov}(x \mid u) = A D_u A^T` with diagonal :math:`D_u`. With :math:`\sum_u p_u C_u` whitened, A
    is a rotation, and the joint diagonaliser of all :math:`C_u` inverts it, for Gaussian sources too (Matsuoka, Ohya
    and Kawamoto 1995, Neural Networks 8:3; Pham and Cardoso 2001, IEEE Transactions on Signal Processing 49:9). Means
    may depend on u as well. Two sources whose variances stay in proportion remain mixed.

    Parameters
    ----------
    spec, prior, latent_dim
        As in `Linear`; with fewer latents than dimensions of x, ICA of the leading components of the whitened
        covariance.
    sweeps
        Limit of the sweeps over all pairs of latents. The method is deterministic: all model seeds find the same.

    Raises
    ------
    ValueError
        As `Linear`, for data without u, and where u is columns of numbers.
    """

    labels_only = True

    def __init__(
        self,
        spec: DataSpec,
        prior: Callable[[int, int], nn.Module],
        *,
        latent_dim: PositiveInt | None,
        sweeps: PositiveInt,
    ) -> None:
        super().__init__(spec, prior, latent_dim=latent_dim)
        self.sweeps = sweeps
        if not spec.u_dim:
            raise ValueError("expected data with an auxiliary variable u for ICA by segments, got data without")

    def unmixing(self, x: Array, u: NDArray[np.int64] | None) -> Unmixing:
        """Whiten x, then rotate it."""
        assert u is not None  # the data have one
        covariances, shares = segment_covariances(x, u)
        variances, directions = np.linalg.eigh(np.tensordot(shares, covariances, 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            whitening = (directions / np.sqrt(variances)).T[::-1][: self.latent_dim]  # (n, d)
        if not np.isfinite(whitening).all():
            return Unmixing(np.full_like(whitening, np.nan), x.mean(0), converged=False)
        white = whitening @ covariances @ whitening.T * np.sqrt(shares)[:, None, None]
        rotation, converged = jointly_diagonal(white, self.sweeps)
        return Unmixing(rotation.T @ whitening, x.mean(0), converged)


def segment_covariances(x: Array, u: NDArray[np.int64]) -> tuple[Array, Array]:
    """Covariances (M, d, d) of the rows at each value of u, around their own means, and the shares of rows, (M,)."""
    values, counts = np.unique(u, return_counts=True)
    covariances = np.stack([np.cov(x[u == value].T, bias=True) for value in values])
    return covariances.reshape(len(values), x.shape[1], x.shape[1]), counts / len(u)


def jointly_diagonal(matrices: Array, sweeps: int, tolerance: float = 1e-8) -> tuple[Array, bool]:
    r"""Return the rotation V that makes all V^T C_u V as diagonal as possible, and whether the method converged.

    It minimises :math:`\sum_u \sum_{i \ne j} (V^T C_u V)_{ij}^2` by Jacobi rotations, of one pair after another, each
    by its best angle (Cardoso and Souloumiac 1996, SIAM Journal on Matrix Analysis 17:1), until no angle exceeds the
    tolerance, in radians.

    Parameters
    ----------
    matrices
        Symmetric, (M, n, n).
    sweeps
        Limit of the sweeps over all pairs.
    """
    rotation, turned = np.eye(matrices.shape[1]), matrices.copy()
    for _ in range(sweeps):
        largest = 0.0
        for pair in combinations(range(len(rotation)), 2):
            angle = _best_angle(turned[:, pair][:, :, pair])
            largest = max(largest, abs(angle))
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            rotation[:, pair] = rotation[:, pair] @ turn
            turned[:, :, pair] = turned[:, :, pair] @ turn
            turned[:, pair] = turn.T @ turned[:, pair]
        if largest < tolerance:
            return rotation, True
    return rotation, False


def _best_angle(pairs: Array) -> float:
    """The angle in (-pi/4, pi/4] that makes all 2 x 2 matrices, (M, 2, 2), most diagonal."""
    difference, off = pairs[:, 0, 0] - pairs[:, 1, 1], 2 * pairs[:, 0, 1]
    cosine, sine = difference @ difference - off @ off, 2 * difference @ off
    return float(0.5 * np.arctan2(sine, cosine + np.hypot(cosine, sine)))
