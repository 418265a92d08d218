"""The prior of a relaxed VQ-VAE: a mixture of codes that all have the same weight and spread."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ivae_lab.config.numbers import PositiveFloat, PositiveInt
from ivae_lab.distributions.densities import NormalMixture


class Codebook(nn.Module):
    """p(z) = 1/K sum_k N(z; m_k, I): only the codes m_k are learned.

    Its responsibilities are the posterior over codes of a relaxed VQ-VAE (Willetts and Paige 2021, Appendix B).

    Parameters
    ----------
    codes
        K.
    spread
        Standard deviation of the codes at the start.
    """

    def __init__(self, latent_dim: int, u_dim: int, *, codes: PositiveInt, spread: PositiveFloat) -> None:
        super().__init__()
        self.mean = nn.Parameter(spread * torch.randn(codes, latent_dim))
        self.register_buffer("log_weights", torch.full((codes,), -math.log(codes)))
        self.register_buffer("log_var", torch.zeros(codes, latent_dim))

    def forward(self, u: Tensor | None) -> NormalMixture:
        """The same density whatever u."""
        return NormalMixture(self.get_buffer("log_weights"), self.mean, self.get_buffer("log_var"))
