"""The VampPrior: a mixture whose components are the encoder's posteriors at learned inputs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ivae_lab.config.numbers import PositiveInt
from ivae_lab.distributions.densities import NormalMixture, Posterior

_INSIDE = 0.01  # distance of a bounded pseudo-input from its limits at the start, as a share of their distance


class VampPrior(nn.Module):
    """p(z) = 1/K sum_k q(z given x_k), with K learned pseudo-inputs x_k (Tomczak and Welling 2018, Section 3).

    https://arxiv.org/abs/1705.07120

    Pseudo-inputs start at random training rows. Where x has limits, as images have, x_k = low + (high - low)
    sigmoid(a_k) with free a_k: a clamp, as in the authors' code, would stop learning at the limits, where most pixels
    are. The encoder encodes them in evaluation mode: without dropout, with running statistics.

    Parameters
    ----------
    components
        K.
    """

    starts_from_data = True

    def __init__(self, latent_dim: int, u_dim: int, *, components: PositiveInt) -> None:
        super().__init__()
        self.components = components
        self.register_buffer("log_weights", torch.full((components,), -math.log(components)))
        self.encode: Callable[[Tensor], Posterior] | None = None
        self.limits: tuple[float, float] | None = None

    def attach(self, encode: Callable[[Tensor], Posterior], x_dim: int, limits: tuple[float, float] | None) -> None:
        """Set the encoder, (K, d) to a diagonal Gaussian over (K, n), and the limits of x.

        `encode` is a function: the parameters of a module would count as those of this prior too.
        """
        self.encode, self.limits = encode, limits
        self.free = nn.Parameter(torch.randn(self.components, x_dim))  # x_k, or a_k

    def pseudo_inputs(self) -> Tensor:
        """The x_k: (K, d)."""
        if self.limits is None:
            return self.free
        low, high = self.limits
        return low + (high - low) * torch.sigmoid(self.free)

    def start_at(self, x: Tensor) -> None:
        """Set the pseudo-inputs to these rows, (K, d)."""
        if self.limits is not None:
            low, high = self.limits
            x = torch.logit((x - low) / (high - low), eps=_INSIDE)
        with torch.no_grad():
            self.free.copy_(x)

    def forward(self, u: Tensor | None) -> NormalMixture:
        """The same density whatever u."""
        if self.encode is None:
            raise ValueError("expected a VAE for a VampPrior, whose components are posteriors, got another model")
        q = self.encode(self.pseudo_inputs())
        return NormalMixture(self.get_buffer("log_weights"), q.mean, q.log_var)
