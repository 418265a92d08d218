"""Densities over latents as dataclasses of their parameters, with log-densities and samples.

They are dataclasses of tensors rather than `torch.distributions` objects, because a training step maps them
over many seeds and compiles them, and because the total correlation needs the density of each dimension.
Tests compare each one with `torch.distributions`, SciPy and numerical integration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

_LOG_2PI = math.log(2 * math.pi)


class Distribution(Protocol):
    """A density over latent vectors; its parameters may differ from row to row."""

    @property
    def mean(self) -> Tensor:
        """Means, or the means of a mixture's components: (B, n) or (K, n), or anything that broadcasts to it."""
        ...

    @property
    def std(self) -> Tensor:
        """Standard deviations, of the same shape as `mean`."""
        ...

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats: (B, n) to (B,)."""
        ...

    def sample(self, rows: int, generator: torch.Generator) -> Tensor:
        """Independent draws: (rows, n)."""
        ...


@dataclass(frozen=True)
class Normal:
    """Independent Gaussians: prod_i N(z_i; m_i, s_i^2)."""

    mean: Tensor  # (B, n), or anything that broadcasts to it
    log_var: Tensor  # (B, n), log s^2

    @property
    def std(self) -> Tensor:
        """Standard deviations s: (B, n)."""
        return torch.exp(0.5 * self.log_var)

    def log_prob_each(self, z: Tensor) -> Tensor:
        """Log-density of each dimension: (B, n)."""
        return -0.5 * (_LOG_2PI + self.log_var + (z - self.mean) ** 2 * torch.exp(-self.log_var))

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density: (B,)."""
        return self.log_prob_each(z).sum(-1)

    def rsample(self, noise: Tensor) -> Tensor:
        """Return the draw m + s noise from standard normal noise (the reparameterisation trick): (B, n)."""
        return self.mean + torch.exp(0.5 * self.log_var) * noise

    def sample(self, rows: int, generator: torch.Generator) -> Tensor:
        """Independent draws: (rows, n)."""
        return self.rsample(_standard_normal(rows, self.mean, generator))


@dataclass(frozen=True)
class CorrelatedNormal:
    """Gaussians with any covariance: N(z; m, L L^T), L = diag(s) (I + C), C zero on and above the diagonal."""

    mean: Tensor  # (B, n)
    log_var: Tensor  # (B, n), log s^2: variances given the dimensions before
    lower: Tensor  # (B, n, n), C

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density: (B,)."""
        scaled = ((z - self.mean) * torch.exp(-0.5 * self.log_var)).unsqueeze(-1)
        identity = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
        noise: Tensor = torch.linalg.solve_triangular(identity + self.lower, scaled, upper=False).squeeze(-1)
        return -0.5 * (_LOG_2PI + self.log_var + noise**2).sum(-1)

    def rsample(self, noise: Tensor) -> Tensor:
        """Return the draw m + L noise from standard normal noise: (B, n)."""
        mixed = noise + (self.lower * noise.unsqueeze(-2)).sum(-1)
        return self.mean + torch.exp(0.5 * self.log_var) * mixed

    def marginals(self) -> Normal:
        """Return the marginal density of each dimension."""
        return Normal(self.mean, self.log_var + torch.log1p((self.lower**2).sum(-1)))


Posterior = Normal | CorrelatedNormal  # what an encoder gives


@dataclass(frozen=True)
class Laplace:
    """Independent Laplace densities: prod_i exp(-|z_i - m_i| / b_i) / (2 b_i)."""

    mean: Tensor  # (B, n), or anything that broadcasts to it
    log_scale: Tensor  # (B, n), log b

    @property
    def std(self) -> Tensor:
        """Standard deviations sqrt(2) b: (B, n)."""
        return math.sqrt(2) * torch.exp(self.log_scale)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density: (B,)."""
        distance = (z - self.mean).abs() * torch.exp(-self.log_scale)
        return -(math.log(2) + self.log_scale + distance).sum(-1)

    def sample(self, rows: int, generator: torch.Generator) -> Tensor:
        """Independent draws, by the inverse distribution function: (rows, n)."""
        normal = _standard_normal(rows, self.mean, generator)
        # log of the tail beyond |normal|, twice: minus a standard exponential, exact far out in the tail
        magnitude: Tensor = -(math.log(2) + torch.special.log_ndtr(-normal.abs()))
        return self.mean + torch.exp(self.log_scale) * magnitude * normal.sign()


@dataclass(frozen=True)
class NormalMixture:
    """A mixture of diagonal Gaussians: sum_k w_k prod_i N(z_i; m_ki, s_ki^2)."""

    log_weights: Tensor  # (K,), normalised
    mean: Tensor  # (K, n)
    log_var: Tensor  # (K, n)

    @property
    def std(self) -> Tensor:
        """Standard deviations of the components: (K, n)."""
        return torch.exp(0.5 * self.log_var)

    @property
    def covariance(self) -> Tensor:
        """Covariances of the components: (K, n, n)."""
        return torch.diag_embed(torch.exp(self.log_var))

    def log_joint(self, z: Tensor) -> Tensor:
        """Joint log-density of z and k, log w_k + log N(z; m_k, s_k^2): (B, n) to (B, K)."""
        components = Normal(self.mean, self.log_var)
        return self.log_weights + components.log_prob(z.unsqueeze(-2))

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density: (B,)."""
        return torch.logsumexp(self.log_joint(z), -1)

    def responsibilities(self, z: Tensor) -> Tensor:
        """Probability of each component, p(k given z): (B, n) to (B, K)."""
        return torch.softmax(self.log_joint(z), -1)

    def sample(self, rows: int, generator: torch.Generator) -> Tensor:
        """Independent draws: a component, then its Gaussian: (rows, n)."""
        chosen = torch.multinomial(self.log_weights.exp(), rows, replacement=True, generator=generator)
        return Normal(self.mean[chosen], self.log_var[chosen]).sample(rows, generator)


@dataclass(frozen=True)
class CorrelatedMixture(NormalMixture):
    """A mixture of Gaussians with any covariance: sum_k w_k N(z; m_k, (A_k^T A_k)^-1), A_k = (I + C_k) diag(1 / s_k).

    The parameters are triangular factors of the precisions, so that a density needs products only, and no solver.
    """

    lower: Tensor  # (K, n, n), C, zero on and above the diagonal

    @property
    def std(self) -> Tensor:
        """Standard deviations of each dimension of the components: (K, n)."""
        return torch.exp(0.5 * self.log_var) * self._inverse().square().sum(-1).sqrt()

    @property
    def covariance(self) -> Tensor:
        """Covariances of the components: (K, n, n)."""
        factor = torch.exp(0.5 * self.log_var).unsqueeze(-1) * self._inverse()
        return factor @ factor.mT

    def log_joint(self, z: Tensor) -> Tensor:
        """Joint log-density of z and k: (B, n) to (B, K)."""
        scaled = (z.unsqueeze(-2) - self.mean) * torch.exp(-0.5 * self.log_var)  # (B, K, n)
        noise = scaled + torch.einsum("kij,...kj->...ki", self.lower, scaled)
        return self.log_weights - 0.5 * (_LOG_2PI + self.log_var + noise**2).sum(-1)

    def sample(self, rows: int, generator: torch.Generator) -> Tensor:
        """Independent draws: a component, then its Gaussian: (rows, n)."""
        chosen = torch.multinomial(self.log_weights.exp(), rows, replacement=True, generator=generator)
        mixed = (self._inverse()[chosen] @ _standard_normal(rows, self.mean, generator).unsqueeze(-1)).squeeze(-1)
        return self.mean[chosen] + torch.exp(0.5 * self.log_var[chosen]) * mixed

    def _inverse(self) -> Tensor:
        """(I + C)^-1: (K, n, n)."""
        identity = torch.eye(self.mean.shape[-1], dtype=self.mean.dtype, device=self.mean.device)
        inverse: Tensor = torch.linalg.solve_triangular(identity + self.lower, identity, upper=False)
        return inverse


@dataclass(frozen=True)
class Facets:
    """A product of mixtures, each over its own part of z: prod_j sum_k w_jk N(z_j; m_jk, S_jk) (Falck et al. 2021).

    The parts are those of `torch.tensor_split`; all mixtures have the same number K of components.
    """

    mixtures: tuple[NormalMixture, ...]  # (J,)

    @property
    def mean(self) -> Tensor:
        """Means of J K of its K^J components, a row for each component of each facet: see `_beside_the_heaviest`."""
        return self._beside_the_heaviest([mixture.mean for mixture in self.mixtures])

    @property
    def std(self) -> Tensor:
        """Standard deviations of the components that `mean` has: (J K, n)."""
        return self._beside_the_heaviest([mixture.std for mixture in self.mixtures])

    def log_joint(self, z: Tensor) -> Tensor:
        """Joint log-density of z_j and its component: (B, n) to (B, J, K)."""
        parts = torch.tensor_split(z, len(self.mixtures), -1)
        return torch.stack([mixture.log_joint(part) for mixture, part in zip(self.mixtures, parts, strict=True)], -2)

    def log_prob_each(self, z: Tensor) -> Tensor:
        """Log-density of each facet: (B, J)."""
        return torch.logsumexp(self.log_joint(z), -1)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density: (B,)."""
        return self.log_prob_each(z).sum(-1)

    def sample(self, rows: int, generator: torch.Generator) -> Tensor:
        """Independent draws, for each facet independently: (rows, n)."""
        return torch.cat([mixture.sample(rows, generator) for mixture in self.mixtures], -1)

    def _beside_the_heaviest(self, tables: list[Tensor]) -> Tensor:
        """Join each row of a facet's table (K, n_j) with the others' rows of their heaviest component: (J K, n)."""
        heaviest = [
            table[mixture.log_weights.argmax()].expand_as(table)
            for mixture, table in zip(self.mixtures, tables, strict=True)
        ]
        rows = [
            torch.cat([tables[j] if j == facet else heaviest[j] for j in range(len(tables))], -1)
            for facet in range(len(tables))
        ]
        return torch.cat(rows)


def tempered(distribution: Distribution, temperature: float) -> Distribution:
    """Multiply all standard deviations of a density, or of a mixture's components, by the temperature.

    Raises
    ------
    ValueError
        If the temperature is not above 0, or not 1 for another kind of density.
    """
    if not temperature > 0:
        raise ValueError(f"expected a temperature above 0, got {temperature}")
    if temperature == 1:
        return distribution
    if isinstance(distribution, Facets):
        return Facets(tuple(tempered(mixture, temperature) for mixture in distribution.mixtures))  # type: ignore[misc]
    shift = math.log(temperature)
    if isinstance(distribution, Laplace):
        return replace(distribution, log_scale=distribution.log_scale + shift)
    if not isinstance(distribution, Normal | NormalMixture):
        raise ValueError(f"expected temperature 1 for {type(distribution).__name__}, got {temperature}")
    return replace(distribution, log_var=distribution.log_var + 2 * shift)


def kl_divergence(q: Posterior, p: Distribution) -> Tensor | None:
    """Compute KL(q || p) in nats where it has a closed form, (B,); None where it has none (mixtures).

    Normal to Normal: 1/2 sum_i [log s_p^2 - log s_q^2 + (s_q^2 + (m_q - m_p)^2) / s_p^2 - 1].
    Normal to Laplace: sum_i [E|z_i - m_p| / b + log 2b] - H(q), where E is the mean of a folded normal.
    For a correlated q, KL(q || p) = sum_i KL(q_i || p_i) + sum_i H(q_i) - H(q), as p has independent dimensions.
    """
    if isinstance(q, CorrelatedNormal):
        marginals = q.marginals()
        independent = kl_divergence(marginals, p)
        return None if independent is None else independent + 0.5 * (marginals.log_var - q.log_var).sum(-1)
    if isinstance(p, Normal):
        ratio = (torch.exp(q.log_var) + (q.mean - p.mean) ** 2) * torch.exp(-p.log_var)
        return 0.5 * (p.log_var - q.log_var + ratio - 1).sum(-1)
    if isinstance(p, Laplace):
        shift, std = q.mean - p.mean, torch.exp(0.5 * q.log_var)
        ratio = shift / std
        distance = std * math.sqrt(2 / math.pi) * torch.exp(-0.5 * ratio**2) + shift * torch.erf(ratio / math.sqrt(2))
        entropy = 0.5 * (_LOG_2PI + 1 + q.log_var)
        return (distance * torch.exp(-p.log_scale) + math.log(2) + p.log_scale - entropy).sum(-1)
    return None


def _standard_normal(rows: int, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, like.shape[-1], generator=generator, dtype=like.dtype).to(like.device)
