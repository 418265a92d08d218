"""Exact likelihood of Gaussian mixtures through a network with one hidden layer of (leaky) ReLUs.

Such a network is affine between the points where a unit switches, so that within each such piece p(z) p(x given z) is
a sum of truncated Gaussians (Kivva et al. 2022, (P1) and (F1)). For one latent its integral is a sum of differences of
the normal distribution function; for two latents one of them is integrated in this way, and the other by Gauss-Legendre
rules on panels that end where the integrand has kinks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from ivae_lab.core.mixture_generator import Generator, ReluNetwork
from ivae_lab.distributions.densities import NormalMixture

_REACH = 7.5  # standard deviations beyond which a Gaussian is taken as 0: a mass of 6e-14
_BEYOND = 40.0  # standard deviations of a component up to which the outermost pieces reach
_LEVEL = 1e-12  # squared slope up to which a piece counts as constant
_FLAT = 1e-9  # least weight of a unit: one that hardly depends on a latent switches far away
_POINTS = 8  # Gauss-Legendre points on a panel
_STEP = 0.8  # of a trapezoidal rule, in standard deviations of the noise; its error falls as exp(-2 (pi / step)^2)
_SEEN = 6.0  # standard deviations of z and of the noise that the grid of x covers; a mass of 2e-9 lies beyond
PANELS = 16  # for the outer of two integrals, where a number is reported; enough where the noise is not small
_UNSEEN = -30.0  # log-density up to which a point of the grid is dropped
_ROWS = 256  # rows of x at a time
SLICE = 0.5  # how far a slice through the truth reaches
_LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class PiecewiseMixture:
    """Model x = B a(W z + b) + c + e, with z from a Gaussian mixture, a(h) = max(h, slope h) and e from N(0, v I).

    It has one latent or two, and any number of observed dimensions. All functions can be differentiated and mapped over
    models.
    """

    prior: NormalMixture  # of K components and n latents
    weight: Tensor  # (H, n), W
    bias: Tensor  # (H,), b
    out_weight: Tensor  # (d, H), B
    out_bias: Tensor  # (d,), c
    slope: float
    variance: Tensor  # (), v

    @property
    def numbers(self) -> int:
        """Number of parameters, P."""
        return sum(part.numel() for part in _parameters(self))

    def generator(self) -> Generator:
        """Convert prior and network to plain numbers, without the noise."""
        layers = (self.weight, self.out_weight), (self.bias, self.out_bias)
        weights, biases = (tuple(part.detach().cpu().numpy() for part in parts) for parts in layers)
        prior = (self.prior.log_weights.exp(), self.prior.mean, self.prior.covariance)
        mixture, means, covariances = (part.detach().cpu().numpy() for part in prior)
        return Generator(mixture, means, covariances, ReluNetwork(weights, biases, self.slope))

    def decode(self, z: Tensor) -> Tensor:
        """Apply the network: (..., n) to (..., d)."""
        h = z @ self.weight.mT + self.bias
        return torch.where(h > 0, h, self.slope * h) @ self.out_weight.mT + self.out_bias

    def log_prob(self, x: Tensor, panels: int | None = None) -> Tensor:
        """Compute log p(x): (B, d) to (B,), exactly for one latent, by quadrature of the outer integral for two.

        Without a number of `panels` for the outer integral, panels are doubled until no value changes by more than
        1e-9.
        """
        if self.weight.shape[1] == 1:
            log_joint = self.prior.log_weights, self.prior.mean[:, 0], self.prior.covariance[:, 0, 0]
            return _one_latent(x, self.weight[:, 0], self.bias, self, *log_joint)
        if panels is not None:
            return torch.cat([self._two_latents(rows, panels) for rows in torch.split(x, _ROWS)])
        panels, before = 64, self.log_prob(x, 32)  # fewer of them may change nothing beside the cuts
        while ((now := self.log_prob(x, panels)) - before).abs().max() > 1e-9:
            panels, before = 2 * panels, now
            if panels > 4096:
                raise ArithmeticError("expected an integral that settles to 1e-9, got one that does not")
        return now

    def _two_latents(self, x: Tensor, panels: int) -> Tensor:
        """Integrate the second latent in closed form, and the first by a rule on panels: (B, d) to (B,)."""
        z, weights = self._outer(panels)  # both (Q,)
        log_weights, mean, variance = self._given_first(z)  # all (Q, K)
        bias = self.bias + z.unsqueeze(-1) * self.weight[:, 0]  # (Q, H)
        inner = _one_latent(x.unsqueeze(-2), self.weight[:, 1], bias, self, log_weights, mean, variance)  # (B, Q)
        return torch.logsumexp(inner + torch.log(weights.clamp(min=torch.finfo(weights.dtype).tiny)), -1)

    def _given_first(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Condition each component on the first latent, (Q,): log weight plus log-density, mean and variance of z_2."""
        covariance, mean = self.prior.covariance, self.prior.mean
        first, cross, second = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
        away = z.unsqueeze(-1) - mean[:, 0]  # (Q, K)
        log_density = -0.5 * (_LOG_2PI + torch.log(first) + away**2 / first)
        return (
            self.prior.log_weights + log_density,
            mean[:, 1] + cross / first * away,
            (second - cross**2 / first).expand_as(away),
        )

    def _outer(self, panels: int) -> tuple[Tensor, Tensor]:
        """Compute points and weights for the first latent, on panels that end where the integrand has kinks.

        Kinks are where the lines on which two units switch meet, or where such a line enters a component. The latter
        matters for a nearly upright line, which the first latent crosses within a small interval.
        """
        w, b = self.weight.detach(), self.bias.detach()
        one, other = torch.combinations(torch.arange(len(w)), 2).unbind(1)
        meets = w[one, 0] * w[other, 1] - w[one, 1] * w[other, 0]
        at = (w[one, 1] * b[other] - w[other, 1] * b[one]) / _away_from_zero(meets)
        enters = -(b + w[:, 1] * self._bulk(1).unsqueeze(-1)) / _away_from_zero(w[:, 0])  # (5 K, H)
        return _rule(torch.cat([at, enters.flatten(), self._bulk(0)]), *self._reach(0), panels)

    def _bulk(self, latent: int) -> Tensor:
        """Return further ends of panels, so that narrow components have panels of their own: (5 K,)."""
        mean, std = self.prior.mean[:, latent].detach(), self.prior.std[:, latent].detach()
        return torch.cat([mean + by * std for by in (-3.5, -1.5, 0.0, 1.5, 3.5)])

    def _reach(self, latent: int) -> tuple[Tensor, Tensor]:
        """Return the lowest and the highest value of a latent that are integrated over."""
        mean, std = self.prior.mean[:, latent].detach(), self.prior.std[:, latent].detach()
        return (mean - _REACH * std).amin(), (mean + _REACH * std).amax()

    def nodes(self, panels: int) -> tuple[Tensor, Tensor]:
        """Compute points z (Q, 2) and weights (Q,) to integrate over two latents a function smooth on each piece."""
        first, outer = self._outer(panels)  # (Q1,)
        w = self.weight.detach()
        switches = -(self.bias.detach() + first.unsqueeze(-1) * w[:, 0]) / _away_from_zero(w[:, 1])  # (Q1, H)
        cuts = torch.cat([switches, self._bulk(1).expand(len(first), -1)], -1)
        second, inner = _rule(cuts, *self._reach(1), panels)  # (Q1, Q2)
        z = torch.stack([first.unsqueeze(-1).expand_as(second), second], -1)
        return z.flatten(0, 1), (outer.unsqueeze(-1) * inner).flatten()

    def log_prob_on(self, axes: list[Tensor], panels: int) -> Tensor:
        """Compute log p(x) for two latents at all points of a grid with axes (X1,) and (X2,): (X1 X2,).

        A Gaussian with independent coordinates is a product, so the sum over nodes is a product of matrices. Too few
        nodes give a mixture of narrow Gaussians: still a density, as the weights are scaled to a sum of 1.
        """
        z, weights = self.nodes(panels)
        mass = weights * torch.exp(self.prior.log_prob(z))  # (Q,)
        away = [axis.unsqueeze(-1) - f for axis, f in zip(axes, self.decode(z).unbind(-1), strict=True)]  # (X, Q)
        one, other = (torch.exp(-0.5 * distance**2 / self.variance) for distance in away)
        density = (one * (mass / mass.sum())) @ other.mT / (2 * math.pi * self.variance)
        return torch.log(density.clamp(min=torch.finfo(density.dtype).tiny)).flatten()

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of z given x, (B, n) each, by a sum over evenly spaced z: to about three digits."""
        points = 2001 if self.weight.shape[1] == 1 else 61
        axes = [torch.linspace(0, 1, points, dtype=x.dtype, device=x.device)] * self.weight.shape[1]
        between = [
            low + (high - low) * axis for axis, (low, high) in zip(axes, map(self._reach, range(2)), strict=False)
        ]
        z = torch.cartesian_prod(*between).reshape(-1, len(between))  # (Q, n)
        log_prior, f = self.prior.log_prob(z), self.decode(z)
        means, squares = [], []
        for rows in torch.split(x, _ROWS):
            log_joint = log_prior - 0.5 * ((rows.unsqueeze(-2) - f) ** 2).sum(-1) / self.variance  # (B, Q)
            posterior = torch.softmax(log_joint, -1)
            means.append(posterior @ z)
            squares.append(posterior @ z**2)
        mean = torch.cat(means)
        return mean, (torch.cat(squares) - mean**2).clamp(min=1e-12)

    def sample(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw latents (N, n), their components (N,), and x (N, d)."""
        z = self.prior.sample(rows, generator)
        noise = torch.randn((rows, len(self.out_bias)), generator=generator, dtype=z.dtype)
        component = torch.multinomial(self.prior.responsibilities(z), 1, generator=generator).squeeze(-1)
        return z, component, self.decode(z) + noise * self.variance.sqrt()


class Population:
    """The whole density p(x) of a known model on a grid of x, to integrate another model's log-likelihood over.

    x has one or two dimensions.

    Attributes
    ----------
    entropy
        -E[log p(x)], the least expected negative log-likelihood of any model, in nats.
    """

    def __init__(self, truth: PiecewiseMixture, step: float = _STEP, panels: int = PANELS) -> None:
        if len(truth.out_bias) > 2:
            raise ValueError(f"expected at most 2 observed dimensions for all of p(x), got {len(truth.out_bias)}")
        self.truth, self.latents = truth, truth.weight.shape[1]
        std = truth.variance.sqrt()
        z = truth.prior.mean + _SEEN * truth.prior.std * torch.linspace(-1, 1, 401, dtype=std.dtype).reshape(-1, 1, 1)
        if self.latents == 2:
            z = torch.stack([z[:, None, :, 0].expand(401, 401, -1), z[None, :, :, 1].expand(401, 401, -1)], -1)
        f = truth.decode(z.reshape(-1, self.latents))
        low, high, gap = f.amin(0) - _SEEN * std, f.amax(0) + _SEEN * std, float(step * std)
        self.axes = [torch.arange(float(a), float(b), gap, dtype=std.dtype) for a, b in zip(low, high, strict=True)]
        self.x = torch.cartesian_prod(*self.axes).reshape(-1, len(self.axes))  # (X, d)
        self.log_density = self.log_prob(truth, panels)  # (X,)
        if self.latents == 1:
            seen = self.log_density > _UNSEEN
            self.x, self.log_density = self.x[seen], self.log_density[seen]
        self.mass = torch.exp(self.log_density) * gap ** len(self.axes)
        self.entropy = -(self.mass * self.log_density).sum()

    def log_prob(self, model: PiecewiseMixture, panels: int = 8) -> Tensor:
        """Compute log p(x) of a model with the same number of latents at all points: (X,)."""
        if self.latents == 2 and len(self.axes) == 2:
            return model.log_prob_on(self.axes, panels)
        return model.log_prob(self.x, panels)

    def error(self) -> float:
        """Estimate the error of the entropy, in nats: its change with half the step and twice as many panels."""
        finer = Population(self.truth, _STEP / 2, 2 * PANELS)
        return abs(float(self.entropy - finer.entropy))

    def divergence(self, model: PiecewiseMixture, panels: int = 8) -> Tensor:
        """Compute KL(truth, model) = E[-log p(x)] - entropy, in nats, under the truth: a scalar."""
        return (self.mass * (self.log_density - self.log_prob(model, panels))).sum()


def slices(population: Population, points: int) -> dict[str, Tensor]:
    """Compute the expected negative log-likelihood on slices through the truth, along each of its P parameters.

    Returns "offset" (T,), from `-SLICE` to `SLICE` about the parameter's value; "nll" (P, T), in nats; "least" (P,),
    the offset with the least value, by SciPy's bounded search; "error" (), of the integrals, in nats. Parameters are,
    in this order, logits of the weights, means and log-variances of the prior, then W, b, B and c of the network.
    """
    from scipy.optimize import minimize_scalar

    truth, offset = population.truth, torch.linspace(-SLICE, SLICE, points, dtype=torch.float64)
    flat = torch.cat([part.flatten() for part in _parameters(truth)])

    def nll(position: int, by: float) -> float:
        moved = flat.clone()
        moved[position] += by
        return (population.entropy + population.divergence(_with_parameters(truth, moved), PANELS)).item()

    curves = [[nll(position, float(by)) for by in offset] for position in range(len(flat))]
    least = [
        minimize_scalar(partial(nll, position), bounds=(-SLICE, SLICE), method="bounded", options={"xatol": 1e-8}).x
        for position in range(len(flat))
    ]
    error = torch.tensor(population.error())
    return {"offset": offset, "nll": torch.tensor(curves), "least": torch.tensor(least), "error": error}


def _parameters(model: PiecewiseMixture) -> list[Tensor]:
    prior = model.prior
    of_prior = [prior.log_weights, prior.mean, prior.log_var]
    return [*of_prior, model.weight, model.bias, model.out_weight, model.out_bias]


def _with_parameters(model: PiecewiseMixture, flat: Tensor) -> PiecewiseMixture:
    old = _parameters(model)
    parts = torch.split(flat, [part.numel() for part in old])
    logits, mean, log_var, w, b, out_w, out_b = (
        part.reshape(like.shape) for part, like in zip(parts, old, strict=True)
    )
    prior = NormalMixture(torch.log_softmax(logits, 0), mean, log_var)
    return replace(model, prior=prior, weight=w, bias=b, out_weight=out_w, out_bias=out_b)


def draw(
    seed: int,
    *,
    latent_dim: int,
    x_dim: int,
    hidden: int,
    slope: float,
    components: int,
    noise_std: float,
    scale: float,
) -> PiecewiseMixture:
    """Draw a random model: weights N(0, 1), means uniform on (-3, 3), standard deviations uniform on (.3, 1).

    Each unit switches at a draw of z, as no data could tell where a unit switches outside the range of z. Mixture
    weights are Dirichlet(5, ..., 5). x is centred, and scaled to a standard deviation of `scale` on average.
    """
    rng = np.random.default_rng([seed, 0])
    weight, out_weight = rng.normal(size=(hidden, latent_dim)), rng.normal(size=(x_dim, hidden))
    weights = rng.dirichlet(np.full(components, 5.0))
    mean, std = (rng.uniform(low, high, size=(components, latent_dim)) for low, high in ((-3, 3), (0.3, 1)))
    chosen = rng.choice(components, hidden, p=weights)
    bias = -(weight * (mean[chosen] + std[chosen] * rng.normal(size=(hidden, latent_dim)))).sum(1)
    model = PiecewiseMixture(
        prior=NormalMixture(*map(torch.from_numpy, (np.log(weights), mean, 2 * np.log(std)))),
        weight=torch.from_numpy(weight),
        bias=torch.from_numpy(bias),
        out_weight=torch.from_numpy(out_weight),
        out_bias=torch.zeros(x_dim, dtype=torch.float64),
        slope=slope,
        variance=torch.tensor(noise_std**2, dtype=torch.float64),
    )
    f = model.decode(model.prior.sample(10_000, torch.Generator().manual_seed(seed)))
    factor = scale / f.std(0).mean()
    return replace(model, out_weight=model.out_weight * factor, out_bias=-f.mean(0) * factor)


def _one_latent(
    x: Tensor, w: Tensor, b: Tensor, network: PiecewiseMixture, log_weights: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    """Compute log sum_k w_k int N(z; m_k, s_k^2) N(x; f(z), v I) dz with f(z) = B a(w z + b) + c: (...,).

    x is (..., d), b (..., H); log_weights, mean and variance are (..., K). Between two switches f(z) = a z + e, so the
    integrand is a Gaussian of precision 1 / s_k^2 + a a / v times N(x; a m_k + e, v I + s_k^2 a a^T), and its integral
    a difference of the normal distribution function. The second factor is computed along a and across it separately, so
    that nothing cancels where a component is nearly a point.
    """
    w = _away_from_zero(w)
    switches = torch.sort(-b / w).values  # (..., H)
    ends = (switches[..., :1] - 1, switches[..., -1:] + 1)
    inside = torch.cat([ends[0], (switches[..., 1:] + switches[..., :-1]) / 2, ends[1]], -1).detach()  # (..., R)
    positive = inside.unsqueeze(-1) * w + b.unsqueeze(-2) > 0  # (..., R, H)
    on = torch.where(positive, torch.ones_like(w), torch.full_like(w, network.slope))
    a, e = (on * w) @ network.out_weight.mT, (on * b.unsqueeze(-2)) @ network.out_weight.mT + network.out_bias
    v, rest = network.variance, x.unsqueeze(-2) - e  # (..., R, d)
    mean, variance, log_weights = (part.unsqueeze(-2) for part in (mean, variance, log_weights))  # (..., 1, K)
    precision = 1 / variance + (a * a).sum(-1, keepdim=True) / v  # (..., R, K)
    centre = (mean / variance + (a * rest).sum(-1, keepdim=True) / v) / precision
    size = (a * a).sum(-1, keepdim=True)  # (..., R, 1)
    along = (a * rest).sum(-1, keepdim=True) - size * mean  # (..., R, K): a times x - a m_k - e
    divisor = torch.where(size > _LEVEL, size, torch.ones_like(size))
    across = rest - a * ((a * rest).sum(-1, keepdim=True) / divisor)  # (..., R, d)
    square = (across * across).sum(-1, keepdim=True) / v + along**2 / (divisor * (v + variance * size))
    volume = x.shape[-1] * (_LOG_2PI + torch.log(v)) + torch.log1p(variance * size / v)
    widest = (mean.abs() + _BEYOND * variance.sqrt()).amax((-2, -1)).unsqueeze(-1)
    far = (2 * switches.abs().amax(-1, keepdim=True) + widest + 1).detach()
    low, high = torch.cat([-far, switches], -1).unsqueeze(-1), torch.cat([switches, far], -1).unsqueeze(-1)
    inside_piece = _log_between((low - centre) * precision.sqrt(), (high - centre) * precision.sqrt())
    return torch.logsumexp((log_weights - 0.5 * (square + volume) + inside_piece).flatten(-2), -1)


def _log_between(low: Tensor, high: Tensor) -> Tensor:
    """Compute log(Phi(high) - Phi(low)) without cancellation in the upper tail."""
    upper = low + high > 0
    low, high = torch.where(upper, -high, low), torch.where(upper, -low, high)
    log_high, log_low = _log_ndtr(high), _log_ndtr(low)
    return log_high + torch.log1p(-torch.exp((log_low - log_high).clamp(max=-torch.finfo(low.dtype).eps)))


def _log_ndtr(h: Tensor) -> Tensor:
    """Compute log Phi(h); PyTorch's own function cannot be mapped over models."""
    below, above = h.clamp(max=0) / math.sqrt(2), h.clamp(min=0) / math.sqrt(2)
    return torch.where(
        h < 0, torch.log(torch.special.erfcx(-below) / 2) - below**2, torch.log1p(-torch.special.erfc(above) / 2)
    )


def _away_from_zero(w: Tensor) -> Tensor:
    return torch.where(w.abs() < _FLAT, torch.full_like(w, _FLAT), w)


@cache
def _legendre() -> tuple[tuple[float, ...], tuple[float, ...]]:
    points, weights = np.polynomial.legendre.leggauss(_POINTS)
    return tuple((points + 1) / 2), tuple(weights / 2)


def _rule(kinks: Tensor, low: Tensor, high: Tensor, panels: int) -> tuple[Tensor, Tensor]:
    """Compute points and weights from low to high, on equal panels cut at the kinks (..., k): two arrays (..., Q)."""
    even = low + (high - low) * torch.linspace(0, 1, panels + 1, dtype=kinks.dtype, device=kinks.device)
    edges = torch.cat([even.expand(*kinks.shape[:-1], -1), torch.clamp(kinks, low, high)], -1).sort(-1).values
    width = edges.diff(dim=-1).unsqueeze(-1)
    points, weights = (torch.tensor(part, dtype=kinks.dtype, device=kinks.device) for part in _legendre())
    return (edges[..., :-1].unsqueeze(-1) + width * points).flatten(-2), (width * weights).flatten(-2)
