"""A prior of a two-parameter exponential family, whose parameters are free for each value of u."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ivae_lab.distributions.two_parameter import TwoParameterDensity, TwoParameterFamily
from ivae_lab.networks.base import look_up


class FamilyTable(nn.Module):
    """p(z given u) = prod_i p(z_i; a_i(u), b_i(u)) (Sorrenson et al. 2020, Appendix C): k = 2.

    Latents are y = log z, or logit z for the beta distribution: see `distributions/two_parameter.py`.

    Parameters
    ----------
    latent_dim, u_dim
        n and M.
    family
        The family of z.
    """

    labels_only = True

    def __init__(self, latent_dim: int, u_dim: int, *, family: TwoParameterFamily) -> None:
        super().__init__()
        if not u_dim:
            raise ValueError("expected data with an auxiliary variable u for a conditional prior, got data without")
        self.family: TwoParameterFamily = family
        self.log_first = nn.Parameter(torch.zeros(u_dim, latent_dim))
        self.log_second = nn.Parameter(torch.zeros(u_dim, latent_dim))

    def forward(self, u: Tensor | None) -> TwoParameterDensity:
        """(B,) labels to a distribution over (B, n)."""
        if u is None:
            raise ValueError("expected u for a conditional prior, got none")
        return TwoParameterDensity(self.family, look_up(self.log_first, u), look_up(self.log_second, u))
