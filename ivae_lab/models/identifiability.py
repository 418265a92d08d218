"""The condition on a prior for identifiability (Khemakhem et al. 2020, Theorem 1, iv), and ways to enforce it.

The matrix L has a column lambda(u_j) - lambda(u_0) for each further value of u (or component of a mixture), where
lambda(u), n k numbers, are the natural parameters of p(z given u). The theory requires n k + 1 values of u whose L is
invertible: they exist if all columns together, (n k, M - 1), have rank n k. With fewer values the theory does not
apply, yet rank M - 1 still means that no lambda(u) is an affine combination of the others.

Willetts and Paige 2021, Section 3, name two measures to keep it so, `Noise` and `Penalty`, and report that the first
was never invoked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ivae_lab.config.numbers import PositiveFloat

_LEAST_RATIO = torch.finfo(torch.float32).eps ** 0.5  # s_r / s_1 below which the penalty keeps the slope at this ratio


@dataclass(frozen=True)
class Noise:
    """Noise on the natural parameters of a seed's prior, at the end of each chunk of steps after which L lacks rank.

    It comes from the seed's own stream. The prior must have a free parameter for each natural one: an MLP does not.

    Cost: VaDE's compiled step takes 1.01 times as long (`docs/speed.md`): a decomposition of L for each chunk of steps.

    Parameters
    ----------
    noise_std
        Standard deviation of the noise on each natural parameter.
    """

    noise_std: PositiveFloat


@dataclass(frozen=True)
class Penalty:
    """alpha CN(L), a term of the loss (Willetts and Paige 2021, footnote 2), on the CPU only.

    With singular values s_1 >= ... >= s_r of L, CN(L) = s_1 / s_r has the slope s_1 / s_r^2, which is unbounded where L
    loses rank, and one such step would freeze the prior: Adam's second moment remembers it for thousands of steps.
    So where s_r < sqrt(eps) s_1, eps of float32 (CN(L) > 2896), value and slope are those at this bound: the slope is
    at most alpha / (eps s_1), and still increases s_r. Elsewhere the penalty is the paper's.

    Cost: VaDE's compiled step takes 1.5 times as long (`docs/speed.md`): a decomposition of L and its gradient.

    Parameters
    ----------
    alpha
        Weight of the penalty.
    """

    alpha: PositiveFloat

    def __call__(self, differences: Tensor | None) -> Tensor:
        """Return the penalty of L, (n k, M - 1): a scalar."""
        assert differences is not None  # the VAE has checked it
        values = singular_values(differences)
        largest, least = values[..., 0], values[..., -1]
        floor = _LEAST_RATIO * largest
        bounded = least + (floor - least).clamp(min=0).detach()
        # L = 0 (a table that starts at zero) has no condition number, and no direction that would improve it.
        return self.alpha * largest / torch.where(largest == 0, 1, bounded)


def natural_differences(natural: Tensor) -> Tensor:
    """Return L for natural parameters (M, n k): (n k, M - 1)."""
    return (natural[1:] - natural[:1]).mT


def applies(differences: Tensor) -> bool:
    """Return True if there are the n k + 1 values of u that the theory needs."""
    return differences.shape[-1] >= differences.shape[-2]


def singular_values(differences: Tensor) -> Tensor:
    """Singular values of L, (..., n k, M - 1), in falling order: (..., min(n k, M - 1)); NaN where L is not finite.

    Its gradient is finite where singular values are equal, and zero at L = 0.
    """
    finite = differences.isfinite().all((-2, -1), keepdim=True)
    usable = finite & differences.ne(0).any((-2, -1), keepdim=True)
    # LAPACK raises for numbers that are not finite, so one seed that diverged would end the training of all.
    values = torch.linalg.svdvals(torch.where(usable, differences, 1))
    values = torch.where(usable.squeeze(-1), values, 0)
    return torch.where(finite.squeeze(-1), values, torch.nan)


def tolerance(differences: Tensor) -> float:
    """The smallest singular value, relative to the largest, that counts towards the rank: NumPy's rule, for float32.

    Parameters of a model are float32, whatever precision the singular values are computed in.
    """
    return max(differences.shape[-2:]) * torch.finfo(torch.float32).eps


def rank_and_condition(differences: Tensor) -> tuple[Tensor, Tensor]:
    """Return `rank` and `condition_number` of L from one decomposition."""
    values = singular_values(differences)
    counted = (values > tolerance(differences) * values[..., :1]).sum(-1)
    return torch.where(values[..., 0].isnan(), torch.nan, counted), values[..., 0] / values[..., -1]


def rank(differences: Tensor) -> Tensor:
    """The rank of L, (..., n k, M - 1), as floats: (...); NaN where L is not finite."""
    return rank_and_condition(differences)[0]


def condition_number(differences: Tensor) -> Tensor:
    """CN(L), the largest singular value over the smallest, for L (..., n k, M - 1): (...)."""
    return rank_and_condition(differences)[1]
