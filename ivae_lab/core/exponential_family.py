"""Conditional exponential families as plain numbers, the priors of Theorem 1 of Khemakhem et al. (2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ivae_lab.core.arrays import Floats

SufficientStatistic = Literal["z", "z^2", "|z|"]


@dataclass(frozen=True, eq=False)
class ExponentialFamily:
    """p(z given u) = prod_i Q_i(z_i) exp(sum_j T_j(z_i) lambda_ij(u)) / Z_i(u), the same T_1 to T_k for each z_i.

    Khemakhem et al. 2020, Equation 7.
    """

    natural: Floats  # (M, n k), lambda at each value of u, that of T_1 first; (1, n k) for a density without u
    statistics: tuple[SufficientStatistic, ...]  # T_1 to T_k
    hidden: bool = False  # u is the component of a mixture, and not observed

    @property
    def needed(self) -> int:
        """Number of values of u that the theorem needs: n k + 1."""
        return int(self.natural.shape[1]) + 1
