"""Objectives of a VAE. All read the same `Evidence`: one reparameterised sample and its densities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Len
from torch import Tensor

from ivae_lab.config.numbers import Fraction
from ivae_lab.distributions.densities import Distribution, Normal, Posterior, kl_divergence


@dataclass(frozen=True)
class Evidence:
    """The results of one pass through a VAE for a batch."""

    log_likelihood: Tensor  # (B,) log p(x given z)
    posterior: Posterior  # q(z given x [, u])
    prior: Distribution  # p(z [given u])
    z: Tensor  # (B, n) the sample of the posterior
    train_rows: int  # N, the size of the training set

    def sampled_kl(self) -> Tensor:
        """Log q(z given x) - log p(z) at the sample: unbiased for the KL, (B,)."""
        return self.posterior.log_prob(self.z) - self.prior.log_prob(self.z)

    def kl(self) -> Tensor:
        """KL(q || p), (B,): in closed form if there is one, else at the sample."""
        closed = kl_divergence(self.posterior, self.prior)
        return self.sampled_kl() if closed is None else closed

    def terms(self) -> dict[str, Tensor]:
        """The terms of the ELBO, (B,) each: the ELBO is "log_likelihood" - "kl"."""
        return {"log_likelihood": self.log_likelihood, "kl": self.kl()}


@dataclass(frozen=True)
class ELBO:
    """-[log p(x given z) - w beta KL(q || p)] (Khemakhem et al. 2020, Equation 8; beta: Higgins et al. 2017).

    With a mixture prior and its one sample this is VaDE's single-sample ELBO (Willetts and Paige 2021, Equation 6).

    Parameters
    ----------
    warmup
        The weight w rises linearly from 0 to 1 over this fraction of the training; 0: w = 1 throughout.
    kl
        `closed`: in closed form where there is one; `sampled`: always at the sample.
    """

    warmup: Fraction = 0.0
    kl: Literal["closed", "sampled"] = "closed"

    def __call__(self, evidence: Evidence, beta: float | Tensor, progress: Tensor) -> Tensor:
        """The loss, a scalar."""
        kl = evidence.kl() if self.kl == "closed" else evidence.sampled_kl()
        if self.warmup:
            beta = beta * (progress / self.warmup).clamp(max=1)
        return -(evidence.log_likelihood - beta * kl).mean()


@dataclass(frozen=True)
class FourTerms:
    """The ELBO split into four weighted terms (Chen et al. 2018), as Khemakhem et al.'s released code trains it.

    -(a log p(x given z) - b [log q(z given x) - log q(z)] - c [log q(z) - sum_i log q(z_i)]
      - d [sum_i log q(z_i) - log p(z given u)]),
    where log q(z) and log q(z_i) are estimated from the minibatch: logsumexp over the batch minus log(B N).
    With a = b = c = d = 1 the estimates cancel, and it is the single-sample ELBO.

    Parameters
    ----------
    weights
        a, b, c, d.
    beta_scales
        The weights that `model.beta` multiplies: `kl` (b, c and d) or `total_correlation` (c alone: beta-TC-VAE).
    end_weights, end_at
        Where given, the weights move linearly to `end_weights` over the fraction `end_at` of the training.
    """

    weights: Annotated[list[float], Len(4, 4)]
    beta_scales: Literal["kl", "total_correlation"] = "kl"
    end_weights: Annotated[list[float], Len(4, 4)] | None = None
    end_at: Fraction = 0.0

    def __post_init__(self) -> None:
        if (self.end_weights is not None) != (self.end_at > 0):
            raise ValueError(
                f"expected both or neither of end_weights and end_at, got {self.end_weights} and {self.end_at}"
            )

    def __call__(self, evidence: Evidence, beta: float | Tensor, progress: Tensor) -> Tensor:
        """The loss, a scalar."""
        a, b, c, d = self._current(progress)
        others = beta if self.beta_scales == "kl" else 1.0
        b, c, d = b * others, c * beta, d * others
        log_q_given_x = evidence.posterior.log_prob(evidence.z)
        log_q, log_q_product = aggregate_posterior(evidence.posterior, evidence.z, evidence.train_rows)
        reconstruction = a * evidence.log_likelihood
        information = b * (log_q_given_x - log_q)
        total_correlation = c * (log_q - log_q_product)
        dimension_wise = d * (log_q_product - evidence.prior.log_prob(evidence.z))
        return -(reconstruction - information - total_correlation - dimension_wise).mean()

    def _current(self, progress: Tensor) -> list[float] | list[Tensor]:
        if self.end_weights is None:
            return self.weights
        moved = (progress / self.end_at).clamp(max=1)
        return [start + (end - start) * moved for start, end in zip(self.weights, self.end_weights, strict=True)]


def aggregate_posterior(q: Posterior, z: Tensor, train_rows: int) -> tuple[Tensor, Tensor]:
    """Minibatch-weighted estimates of log q(z) and sum_i log q(z_i), each (B,) (Chen et al. 2018, Equation 5).

    log q(z) is estimated by logsumexp_b log q(z given x_b) - log(B N), and likewise log q(z_i) of each dimension.
    """
    assert isinstance(q, Normal)  # the VAE has checked it: dimensions are taken one by one
    pairs = Normal(q.mean.unsqueeze(0), q.log_var.unsqueeze(0)).log_prob_each(z.unsqueeze(1))  # (B, B, n)
    log_size = math.log(len(z) * train_rows)
    log_q = torch.logsumexp(pairs.sum(-1), 1) - log_size
    log_q_product = (torch.logsumexp(pairs, 1) - log_size).sum(-1)
    return log_q, log_q_product
