"""Priors without parameters: the prior of a plain VAE."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ivae_lab.core.exponential_family import ExponentialFamily
from ivae_lab.distributions.densities import Laplace, Normal
from ivae_lab.distributions.natural_parameters import exponential_family


class StandardNormal(nn.Module):
    """p(z) = N(0, I): rotations of z leave it unchanged, so the model is not identifiable.

    Khemakhem et al. 2020, Section 2.2.
    """

    def __init__(self, latent_dim: int, u_dim: int) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(latent_dim))

    def forward(self, u: Tensor | None) -> Normal:
        """The same density whatever u."""
        zero = self.get_buffer("zero")
        return Normal(zero, zero)

    def exponential_family(self) -> ExponentialFamily | None:
        """The prior as plain numbers, with one value of u."""
        return exponential_family({"scale": self.get_buffer("zero").unsqueeze(0)}, "gaussian")


class StandardLaplace(nn.Module):
    """p(z) = prod_i exp(-|z_i|) / 2, the other prior of the VAE baseline (Khemakhem et al. 2020, Section 5)."""

    def __init__(self, latent_dim: int, u_dim: int) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(latent_dim))

    def forward(self, u: Tensor | None) -> Laplace:
        """The same density whatever u."""
        zero = self.get_buffer("zero")
        return Laplace(zero, zero)

    def exponential_family(self) -> ExponentialFamily | None:
        """The prior as plain numbers, with one value of u."""
        return exponential_family({"scale": self.get_buffer("zero").unsqueeze(0)}, "laplace")
