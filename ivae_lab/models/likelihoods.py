"""p(x given z): what a decoder's output means."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ivae_lab.distributions import Normal
from ivae_lab.types import DataSpec, Fraction, PositiveFloat


class GaussianLikelihood(nn.Module):
    """p(x given z) = N(x; f(z), v I): additive noise (Khemakhem et al. 2020, Equation 6).

    Parameters
    ----------
    spec
        The data it is for.
    variance
        v; where it is learned, its value at the start.
    learned
        Learn log v, one number for all dimensions.
    start_variance, anneal_fraction
        Where given, v goes geometrically from `start_variance` to `variance` over that fraction of the training.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        variance: PositiveFloat,
        learned: bool = False,
        start_variance: PositiveFloat | None = None,
        anneal_fraction: Fraction = 0.0,
    ) -> None:
        super().__init__()
        if spec.binary:
            raise ValueError(
                "expected real-valued observations for a Gaussian likelihood, got binary (model/likelihood=bernoulli)"
            )
        if (start_variance is not None) != (anneal_fraction > 0):
            raise ValueError(
                "expected both or neither of start_variance and anneal_fraction, "
                f"got start_variance={start_variance} and anneal_fraction={anneal_fraction}"
            )
        self.start = math.log(start_variance / variance) if start_variance is not None else 0.0
        self.anneal_fraction = anneal_fraction
        log_variance = torch.tensor(math.log(variance))
        if learned:
            self.log_variance = nn.Parameter(log_variance)
        else:
            self.register_buffer("log_variance", log_variance)

    def log_prob(self, x: Tensor, output: Tensor, progress: Tensor) -> Tensor:
        """Log p(x given z) in nats: (B,)."""
        log_variance: Tensor = self.log_variance
        if self.anneal_fraction:
            log_variance = log_variance + self.start * (1 - progress / self.anneal_fraction).clamp(min=0)
        return Normal(output, log_variance).log_prob(x)

    def mean(self, output: Tensor) -> Tensor:
        """Expected x given the decoder's output: (B, d)."""
        return output

    def sample(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """Draw x given the decoder's output: (B, d)."""
        return Normal(output, self.log_variance).sample(len(output), generator)


class BernoulliLikelihood(nn.Module):
    """p(x given z) = prod_i Bernoulli(x_i; sigmoid(f_i(z))) (Khemakhem et al. 2020, Supplement E, Equation 29)."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        if not spec.binary:
            raise ValueError("expected binary observations for a Bernoulli likelihood, got real-valued data")

    def log_prob(self, x: Tensor, output: Tensor, progress: Tensor) -> Tensor:
        """Log p(x given z) in nats: (B,)."""
        return (x * output - nn.functional.softplus(output)).sum(-1)

    def mean(self, output: Tensor) -> Tensor:
        """Probabilities of a 1: (B, d)."""
        return torch.sigmoid(output)

    def sample(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """Draw x given the decoder's output: (B, d)."""
        uniform = torch.rand(output.shape, generator=generator).to(output.device)
        return (uniform < torch.sigmoid(output)).to(output.dtype)
