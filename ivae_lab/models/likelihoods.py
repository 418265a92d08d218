"""Likelihoods p(x given z), parameterised by a decoder's output."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from ivae_lab.config.numbers import Fraction, PositiveFloat
from ivae_lab.core.data import DataSpec
from ivae_lab.distributions.densities import Normal

_HALF = 1 / 510  # half the distance between two values of a byte, as a share of their range
# For each kind of observations (`DataSpec.observation`): its name in messages, and the choices of model/likelihood.
_KINDS = {
    "real": ("real-valued", "gaussian"),
    "binary": ("binary", "bernoulli"),
    "counts": ("counts as", "poisson or negative_binomial"),
    "codes": ("codes as", "categorical"),
}


def _check(spec: DataSpec, kind: str, likelihood: str) -> None:
    """Refuse data of another kind."""
    if spec.observation != kind:
        got, choices = _KINDS[spec.observation]
        got = "real-valued data" if spec.observation == "real" else got.removesuffix(" as")
        hint = f"model/likelihood={choices}"
        raise ValueError(f"expected {_KINDS[kind][0]} observations for {likelihood}, got {got} ({hint})")


class Likelihood(nn.Module):
    """The interface of p(x given z) to a model; x and the decoder's output are (B, d)."""

    def log_prob(self, x: Tensor, output: Tensor, progress: Tensor) -> Tensor:
        """Log p(x given z) in nats, (B,); `progress` is the share of the training that is done."""
        raise NotImplementedError

    def mean(self, output: Tensor) -> Tensor:
        """Expected x given the decoder's output: (B, d)."""
        raise NotImplementedError

    def sample(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """Draw x given the decoder's output: (B, d)."""
        raise NotImplementedError


class GaussianLikelihood(Likelihood):
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
        _check(spec, "real", "a Gaussian likelihood")
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


class BernoulliLikelihood(Likelihood):
    """p(x given z) = prod_i Bernoulli(x_i; sigmoid(f_i(z))) (Khemakhem et al. 2020, Supplement E, Equation 29).

    For grey images that are not binarised, x_i in [0, 1] is the weight of a 1: minus a cross-entropy, no density.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        _check(spec, "binary", "a Bernoulli likelihood")

    def log_prob(self, x: Tensor, output: Tensor, progress: Tensor) -> Tensor:
        """Log p(x given z) in nats: (B,)."""
        return self.log_probs(x, output).sum(-1)

    def log_probs(self, x: Tensor, output: Tensor) -> Tensor:
        """Log p(x_i given z) of each x_i, in nats: (B, d)."""
        return x * output - nn.functional.softplus(output)

    def mean(self, output: Tensor) -> Tensor:
        """Probabilities of a 1: (B, d)."""
        return torch.sigmoid(output)

    def sample(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """Draw x given the decoder's output: (B, d)."""
        uniform = torch.rand(output.shape, generator=generator).to(output.device)
        return (uniform < torch.sigmoid(output)).to(output.dtype)


class PoissonLikelihood(Likelihood):
    """p(x given z) = prod_i Poisson(x_i; exp f_i(z)), for counts, such as a neuron's spikes in a window of time."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        _check(spec, "counts", f"a {type(self).__name__}")

    def log_prob(self, x: Tensor, output: Tensor, progress: Tensor) -> Tensor:
        """Log p(x given z) in nats: (B,)."""
        return (x * output - output.exp() - torch.lgamma(x + 1)).sum(-1)

    def mean(self, output: Tensor) -> Tensor:
        """Rates: (B, d)."""
        return output.exp()

    def sample(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """Draw x given the decoder's output: (B, d)."""
        return torch.poisson(output.exp().cpu(), generator).to(output.device)


class NegativeBinomialLikelihood(PoissonLikelihood):
    """p(x given z) = prod_i NB(x_i; mean m_i = exp f_i(z), r_i): counts that vary more than Poisson's, by m^2 / r.

    Log p(x_i) = log Gamma(x + r) - log Gamma(r) - log x! + x log(m / (m + r)) + r log(r / (m + r)).

    Parameters
    ----------
    spec
        The data it is for.
    successes
        r at the start; it is learned, one for each i.
    """

    def __init__(self, spec: DataSpec, *, successes: PositiveFloat) -> None:
        super().__init__(spec)
        self.log_successes = nn.Parameter(torch.full((spec.x_dim,), math.log(successes)))

    def log_prob(self, x: Tensor, output: Tensor, progress: Tensor) -> Tensor:
        """Log p(x given z) in nats: (B,)."""
        r, logits = self.log_successes.exp(), output - self.log_successes
        ways = torch.lgamma(x + r) - torch.lgamma(r) - torch.lgamma(x + 1)
        log_sigmoid = nn.functional.logsigmoid
        return (ways + x * log_sigmoid(logits) + r * log_sigmoid(-logits)).sum(-1)

    def sample(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """Draw x given the decoder's output: (B, d)."""
        r = self.log_successes.detach().exp().double().cpu().numpy()
        mean = output.detach().exp().double().cpu().numpy()
        seed = int(torch.randint(2**62, (), generator=generator))
        drawn = np.random.default_rng(seed).negative_binomial(r, r / (r + mean))
        return torch.from_numpy(drawn).to(output)


class CategoricalLikelihood(Likelihood):
    """p(x given z) = prod_i Categorical(x_i; softmax of a code's part of f(z)); x and f(z) are one-hot columns."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        _check(spec, "codes", "a CategoricalLikelihood")
        self.codes = list(spec.codes)

    def log_prob(self, x: Tensor, output: Tensor, progress: Tensor) -> Tensor:
        """Log p(x given z) in nats: (B,)."""
        log_probabilities = torch.cat([logits.log_softmax(-1) for logits in self._cut(output)], -1)
        return (x * log_probabilities).sum(-1)

    def mean(self, output: Tensor) -> Tensor:
        """Probabilities of every value of every code: (B, d)."""
        return torch.cat([logits.softmax(-1) for logits in self._cut(output)], -1)

    def sample(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """Draw x given the decoder's output, as one-hot columns: (B, d)."""
        probabilities = self._cut(self.mean(output).cpu())
        drawn = [torch.multinomial(p, 1, generator=generator).squeeze(-1) for p in probabilities]
        pairs = zip(drawn, self.codes, strict=True)
        return torch.cat([nn.functional.one_hot(code, values) for code, values in pairs], -1).to(output)

    def _cut(self, columns: Tensor) -> tuple[Tensor, ...]:
        return torch.split(columns, self.codes, -1)


class VaryingPixels(BernoulliLikelihood):
    """Bernoulli without the pixels that hardly vary: log p(x given z), and so the ELBO, leaves out their terms.

    Willetts and Paige's (2021) released code does so for MNIST with MLPs and ResNets. The choice of pixels does not
    depend on how the images are binarised, so all model seeds of a data seed leave out the same.

    Parameters
    ----------
    spec
        The data it is for.
    least_deviation
        Smallest standard deviation of a pixel that is kept, over the training part, of values in [0, 1].
    """

    def __init__(self, spec: DataSpec, *, least_deviation: PositiveFloat) -> None:
        super().__init__(spec)
        if spec.image is None or spec.image.deviation is None:
            raise ValueError("expected grey images for a likelihood of the pixels that vary, got other data")
        kept = spec.image.deviation >= least_deviation
        if not kept.any():
            largest = float(spec.image.deviation.max())
            raise ValueError(
                f"expected least_deviation at most {largest:.3g}, the pixels' largest, got {least_deviation}"
            )
        self.register_buffer("kept", kept.float())

    def log_probs(self, x: Tensor, output: Tensor) -> Tensor:
        """Log p(x_i given z) of each x_i, in nats, and 0 for those left out: (B, d)."""
        return super().log_probs(x, output) * self.get_buffer("kept")


class DiscretisedLogistic(Likelihood):
    """p(x given z) for colour images: a logistic around f(z), discretised to the 256 values of a byte.

    p(x_i) = S((x_i + h - f_i(z)) / s) - S((x_i - h - f_i(z)) / s) with the logistic function S and half the distance
    of two values, h = 1 / 510; the lowest and the highest value take the mass beyond them, so that the 256
    probabilities sum to 1. One scale s is learned for all pixels (Willetts and Paige 2021, section 4.2; Kingma et al.
    2016, section C.5: https://arxiv.org/abs/1606.04934).

    Parameters
    ----------
    spec
        The data it is for.
    scale
        s at the start; x is in [-1/2, 1/2].
    """

    def __init__(self, spec: DataSpec, *, scale: PositiveFloat) -> None:
        super().__init__()
        if spec.image is None or spec.binary:
            raise ValueError(
                f"expected colour images for a discretised logistic likelihood, got "
                f"{'binary images' if spec.binary else 'data that are no images'}"
            )
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def log_prob(self, x: Tensor, output: Tensor, progress: Tensor) -> Tensor:
        """Log p(x given z) in nats: (B,)."""
        inverse = torch.exp(-self.log_scale)
        centred = x - output
        below_upper = nn.functional.logsigmoid((centred + _HALF) * inverse)
        above_lower = nn.functional.logsigmoid((_HALF - centred) * inverse)
        between = below_upper + above_lower + torch.log(-torch.expm1(-2 * _HALF * inverse))  # S(a) - S(b), a > b
        inner = torch.where(x > _HALF - 0.5, torch.where(x < 0.5 - _HALF, between, above_lower), below_upper)
        return inner.sum(-1)

    def mean(self, output: Tensor) -> Tensor:
        """The logistic's centre, within the range of x: (B, d)."""
        return output.clamp(-0.5, 0.5)

    def sample(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """Draw x given the decoder's output: (B, d)."""
        uniform = torch.rand(output.shape, generator=generator).clamp(min=1e-7).to(output.device)
        drawn = output + torch.exp(self.log_scale) * torch.logit(uniform)
        levels = torch.round((drawn + 0.5) / (2 * _HALF)) * (2 * _HALF) - 0.5
        return levels.clamp(-0.5, 0.5)


def image_likelihood(spec: DataSpec, *, scale: PositiveFloat) -> Likelihood:
    """Make a Bernoulli for binary and grey images, for colour ones a discretised logistic that starts at that scale.

    Willetts and Paige 2021, section 4.2.
    """
    return BernoulliLikelihood(spec) if spec.binary else DiscretisedLogistic(spec, scale=scale)
