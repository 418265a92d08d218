"""Natural parameters of the exponential families that priors are made of (Khemakhem et al. 2020, Equation 7).

A family is given by its learned tables, each (M, n): `mean` m, and `scale`, log s^2 of a Gaussian or log b of a Laplace
density. A table that is missing is zero.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ivae_lab.core.exponential_family import ExponentialFamily, SufficientStatistic

Family = Literal["gaussian", "laplace"]
Tables = dict[str, Tensor]
# The natural parameter of the scale is -c exp(-scale).
_C = {"gaussian": 0.5, "laplace": 1.0}
_SCALE_STATISTICS: dict[Family, SufficientStatistic] = {"gaussian": "z^2", "laplace": "|z|"}


def natural_parameters(tables: Tables, family: Family) -> Tensor | None:
    """Compute the natural parameters at each value of u: (M, n k), or None for Laplace densities with learned means.

    They are m / s^2 if the mean is learned, followed by -1 / (2 s^2) or -1 / b if the scale is learned. T = (z, z^2)
    for Gaussians, z or z^2 alone for those of unit scale or zero mean, and |z| for Laplace densities of zero mean.
    Laplace densities with learned means are no exponential family.
    """
    if "mean" in tables and family == "laplace":
        return None
    if "scale" not in tables:
        return tables["mean"]
    precision = torch.exp(-tables["scale"])
    means = [tables["mean"] * precision] if "mean" in tables else []
    return torch.cat([*means, -_C[family] * precision], -1)


def exponential_family(tables: Tables, family: Family, *, hidden: bool = False) -> ExponentialFamily | None:
    """Convert the tables to plain numbers; None where `natural_parameters` is None.

    `hidden` says that u is the component of a mixture.
    """
    natural = natural_parameters(tables, family)
    if natural is None:
        return None
    statistics: dict[str, SufficientStatistic] = {"mean": "z", "scale": _SCALE_STATISTICS[family]}
    chosen = tuple(statistic for table, statistic in statistics.items() if table in tables)
    return ExponentialFamily(natural.detach().double().cpu().numpy(), chosen, hidden)


@torch.no_grad()
def add_noise_(tables: Tables, family: Family, noise: Tensor) -> None:
    """Add `noise`, (M, n k), to the natural parameters, and change the tables in place accordingly.

    A precision falls at most to half of its value, as noise could make it negative.
    """
    natural = natural_parameters(tables, family)
    assert natural is not None  # a model refuses noise for a prior that has no natural parameters
    noisy = natural + noise
    if "scale" not in tables:
        tables["mean"].copy_(noisy)
        return
    n = tables["scale"].shape[-1]
    precision = torch.minimum(noisy[:, -n:], natural[:, -n:] / 2) / -_C[family]
    tables["scale"].copy_(-precision.log())
    if "mean" in tables:
        tables["mean"].copy_(noisy[:, :n] / precision)
