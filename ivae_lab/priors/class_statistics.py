"""The prior of GIN: a Gaussian for each class, with the means and variances of the rows of that class."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ivae_lab.core.exponential_family import ExponentialFamily
from ivae_lab.distributions.densities import CorrelatedNormal, Normal, Posterior
from ivae_lab.distributions.natural_parameters import exponential_family
from ivae_lab.networks.base import look_up

_LEAST_VARIANCE = 1e-8  # the variance of a class with one row in a batch


class ClassStatistics(nn.Module):
    """p(z given u) = N(z; m(u), diag s^2(u)), where m and s^2 are statistics of the latents themselves, not learned.

    In training they are the batch's means and variances per class (Sorrenson et al. 2020, Equations 11 and 12), and
    gradients flow through them. `settle` stores those of all training rows for use after the training; before it they
    are 0 and 1. A class with one row in a batch has the smallest variance and no gradient, so batches should have many
    rows of each class.
    """

    labels_only = True
    settles = True

    def __init__(self, latent_dim: int, u_dim: int) -> None:
        super().__init__()
        if not u_dim:
            raise ValueError("expected data with an auxiliary variable u for statistics per class, got data without")
        self.register_buffer("mean", torch.zeros(u_dim, latent_dim))
        self.register_buffer("log_var", torch.zeros(u_dim, latent_dim))

    def forward(self, u: Tensor | None) -> Normal:
        """(B,) labels to a distribution over (B, n)."""
        if u is None:
            raise ValueError("expected u for statistics per class, got none")
        return Normal(look_up(self.get_buffer("mean"), u), look_up(self.get_buffer("log_var"), u))

    def exponential_family(self) -> ExponentialFamily | None:
        """The prior as plain numbers, for use after `settle`."""
        return exponential_family({"mean": self.get_buffer("mean"), "scale": self.get_buffer("log_var")}, "gaussian")

    def of_batch(self, z: Tensor, u: Tensor) -> Normal:
        """Return the distribution with the statistics of a batch: (B, n) and (B,) to one over (B, n)."""
        weights = self._one_hot(u, z.dtype)  # (M, B)
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1)
        mean = look_up(weights @ z, u)
        variance = weights @ (z - mean) ** 2  # (M, n)
        return Normal(mean, look_up(torch.log(variance + _LEAST_VARIANCE), u))

    @torch.no_grad()
    def settle(self, blocks: Iterable[tuple[Posterior, Tensor]]) -> None:
        """Store the statistics of blocks of posteriors and labels, (B, n) and (B,); a class without rows is unchanged.

        The variance of a latent over a class is that of the posteriors' means plus the mean of their variances.
        """
        mean, log_var = self.get_buffer("mean"), self.get_buffer("log_var")
        rows = torch.zeros(len(mean), 1, dtype=torch.float64, device=mean.device)
        sums, squares = torch.zeros_like(mean, dtype=torch.float64), torch.zeros_like(mean, dtype=torch.float64)
        for posterior, u in blocks:
            marginals = posterior.marginals() if isinstance(posterior, CorrelatedNormal) else posterior
            z, one_hot = marginals.mean.double(), self._one_hot(u, torch.float64)
            rows += one_hot.sum(1, keepdim=True)
            sums += one_hot @ z
            squares += one_hot @ (z**2 + marginals.log_var.double().exp())
        seen = rows.squeeze(1) > 0
        centre = sums[seen] / rows[seen]
        variance = (squares[seen] / rows[seen] - centre**2).clamp(min=0)
        mean[seen], log_var[seen] = centre.to(mean), torch.log(variance + _LEAST_VARIANCE).to(mean)

    def _one_hot(self, u: Tensor, dtype: torch.dtype) -> Tensor:
        """(B,) to (M, B)."""
        classes = torch.arange(len(self.get_buffer("mean")), device=u.device)
        return (classes.unsqueeze(-1) == u).to(dtype)
