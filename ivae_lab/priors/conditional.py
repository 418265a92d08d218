"""Priors that depend on u: p(z given u), which makes an iVAE identifiable (Khemakhem et al. 2020, Equation 7).

Both are evaluated at each of the M values of u once, and a row looks its value up: M rows of work instead of B. Where u
is columns of numbers, an MLP takes each row's.
The number k of sufficient statistics is the number of learned parameters per latent: `mean: zero` leaves
k = 1 (T = z^2 or |z|), `mean: learned` k = 2 for the Gaussian family; `scale: one` with a learned mean is k = 1
with T = z. A Laplace family with learned means is no exponential family, so Theorem 1 does not apply to it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ivae_lab.config.numbers import PositiveFloat, PositiveInt
from ivae_lab.core.exponential_family import ExponentialFamily
from ivae_lab.distributions.densities import Laplace, Normal
from ivae_lab.distributions.natural_parameters import Family, Tables, add_noise_, exponential_family, natural_parameters
from ivae_lab.networks.base import Activation, Init, initialise, look_up
from ivae_lab.networks.mlp import MLP


class ConditionalPrior(nn.Module):
    """p(z given u) = prod_i p(z_i; m_i(u), s_i(u)), with m and log s (log s^2 if Gaussian) given per value of u.

    Subclasses provide the two (M, n) tables.

    Parameters
    ----------
    latent_dim, u_dim
        n and M, or the number of columns of u.
    family
        `gaussian` or `laplace`.
    mean
        `zero` or `learned`.
    scale
        `one` or `learned`.

    Attributes
    ----------
    labels_only
        Whether u must be labels: the prior does not take columns of numbers.
    """

    labels_only = True

    def __init__(
        self,
        latent_dim: int,
        u_dim: int,
        family: Family,
        mean: Literal["zero", "learned"],
        scale: Literal["one", "learned"],
    ) -> None:
        super().__init__()
        if not u_dim:
            raise ValueError("expected data with an auxiliary variable u for a conditional prior, got data without")
        if mean == "zero" and scale == "one":
            raise ValueError(
                "expected a learned mean or a learned scale, so that something depends on u; got mean=zero, scale=one"
            )
        self.family: Family = family
        self.learned = [name for name, kind in (("mean", mean), ("scale", scale)) if kind == "learned"]
        self.register_buffer("zero", torch.zeros(latent_dim))

    def tables(self) -> Tables:
        """The learned tables by name, each (M, n)."""
        raise NotImplementedError

    def natural_parameters(self) -> Tensor | None:
        """Natural parameters at each value of u, (M, n k); None where the densities are no exponential family."""
        return natural_parameters(self.tables(), self.family)

    def at(self, u: Tensor) -> Tables:
        """The learned parameters at each row's u, (B, n) each, by name."""
        return {name: look_up(table, u) for name, table in self.tables().items()}

    def exponential_family(self) -> ExponentialFamily | None:
        """The prior as plain numbers; None where the densities are no exponential family."""
        return exponential_family(self.tables(), self.family)

    def forward(self, u: Tensor | None) -> Normal | Laplace:
        """(B,) labels or (B, k) columns to a distribution over (B, n)."""
        if u is None:
            raise ValueError("expected u for a conditional prior, got none")
        learned, zero = self.at(u), self.get_buffer("zero")
        mean, scale = (learned.get(name, zero) for name in ("mean", "scale"))
        return Normal(mean, scale) if self.family == "gaussian" else Laplace(mean, scale)


class TablePrior(ConditionalPrior):
    """A conditional prior whose parameters are free for each value of u: a look-up table."""

    def __init__(
        self,
        latent_dim: int,
        u_dim: int,
        *,
        family: Family,
        mean: Literal["zero", "learned"],
        scale: Literal["one", "learned"],
        init: Init,
    ) -> None:
        super().__init__(latent_dim, u_dim, family, mean, scale)
        self.rows = nn.ParameterDict({name: _drawn(u_dim, latent_dim, init) for name in self.learned})

    def tables(self) -> Tables:
        """The parameters themselves."""
        return dict(self.rows.items())

    def add_noise(self, noise: Tensor) -> None:
        """Add noise, (M, n k), to the natural parameters."""
        add_noise_(self.tables(), self.family, noise)


class MLPPrior(ConditionalPrior):
    """A conditional prior whose parameters are MLPs of u, one network for each of mean and scale."""

    labels_only = False

    def __init__(
        self,
        latent_dim: int,
        u_dim: int,
        *,
        family: Family,
        mean: Literal["zero", "learned"],
        scale: Literal["one", "learned"],
        hidden: PositiveInt,
        layers: PositiveInt,
        activation: Activation,
        slope: PositiveFloat,
        init: Init,
    ) -> None:
        super().__init__(latent_dim, u_dim, family, mean, scale)
        self.nets = nn.ModuleDict(
            {
                name: MLP(
                    0,
                    latent_dim,
                    hidden=hidden,
                    layers=layers,
                    activation=activation,
                    slope=slope,
                    init=init,
                    u_dim=u_dim,
                )
                for name in self.learned
            }
        )

    def tables(self) -> Tables:
        """The networks at every value of u."""
        return {name: net.table() for name, net in self.nets.items()}  # type: ignore[operator]

    def at(self, u: Tensor) -> Tables:
        """Evaluate the networks once at every value of u, or at each row's columns."""
        return {name: net(None, u) for name, net in self.nets.items()} if u.is_floating_point() else super().at(u)


def _drawn(rows: int, columns: int, init: Init) -> nn.Parameter:
    table = torch.zeros(rows, columns)
    initialise(table, init)
    return nn.Parameter(table)
