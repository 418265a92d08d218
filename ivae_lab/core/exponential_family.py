"""An exponential family given u as plain numbers: what Theorem 1 of Khemakhem et al. (2020) is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ivae_lab.core.arrays import Floats

Statistic = Literal["z", "z^2", "|z|"]


@dataclass(frozen=True, eq=False)
class ExponentialFamily:
    """p(z given u) = prod_i Q_i(z_i) exp(sum_j T_j(z_i) lambda_ij(u)) / Z_i(u), the same T_1 to T_k for each z_i.

    Khemakhem et al. 2020, Equation 7.
    """

    natural: Floats  # (M, n k), lambda at each value of u, those of T_1 first; (1, n k) of a density without u
    statistics: tuple[Statistic, ...]  # T_1 to T_k
    hidden: bool = False  # u is not observed: the component of a mixture

    @property
    def needed(self) -> int:
        """The n k + 1 values of u that the theorem asks for."""
        return int(self.natural.shape[1]) + 1
