"""p(x given z): what a decoder's output means."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ivae_lab.distributions import Normal
from ivae_lab.types import DataSpec, Fraction, PositiveFloat

_HALF = 1 / 510  # of the distance between two values of a byte, as parts of their range


class Likelihood(nn.Module):
    """What a model asks of p(x given z); x and the decoder's output are (B, d)."""

    def log_prob(self, x: Tensor, output: Tensor, progress: Tensor) -> Tensor:
        """Log p(x given z) in nats, (B,); `progress` is the share of the training done."""
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


class BernoulliLikelihood(Likelihood):
    """p(x given z) = prod_i Bernoulli(x_i; sigmoid(f_i(z))) (Khemakhem et al. 2020, Supplement E, Equation 29).

    Of grey images that are not binarised, x_i in [0, 1] is the weight of a 1: minus a cross-entropy, no density.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        if not spec.binary:
            raise ValueError("expected binary observations for a Bernoulli likelihood, got real-valued data")

    def log_prob(self, x: Tensor, output: Tensor, progress: Tensor) -> Tensor:
        """Log p(x given z) in nats: (B,)."""
        return self.log_probs(x, output).sum(-1)

    def log_probs(self, x: Tensor, output: Tensor) -> Tensor:
        """Of each x_i: (B, d)."""
        return x * output - nn.functional.softplus(output)

    def mean(self, output: Tensor) -> Tensor:
        """Probabilities of a 1: (B, d)."""
        return torch.sigmoid(output)

    def sample(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """Draw x given the decoder's output: (B, d)."""
        uniform = torch.rand(output.shape, generator=generator).to(output.device)
        return (uniform < torch.sigmoid(output)).to(output.dtype)


class VaryingPixels(BernoulliLikelihood):
    """Bernoulli without the pixels that hardly vary: their terms are left out of log p(x given z), in ELBO too.

    As Willetts and Paige's (2021) released code does for MNIST with MLPs and ResNets. Which pixels it is does not
    depend on how the images are binarised, so all seeds of a data seed leave out the same.

    Parameters
    ----------
    spec
        The data it is for.
    least_deviation
        Smallest standard deviation over the training part, of values in [0, 1], of a pixel that is kept.
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
        """Of each x_i, and 0 of those left out: (B, d)."""
        return super().log_probs(x, output) * self.get_buffer("kept")


class DiscretisedLogistic(Likelihood):
    """p(x given z) of colour images: a logistic around f(z), put into the 256 values that a byte can have.

    p(x_i) = S((x_i + h - f_i(z)) / s) - S((x_i - h - f_i(z)) / s) with the logistic function S and half the distance
    of two values, h = 1 / 510; the lowest and the highest value take what is beyond them, so that the 256
    probabilities sum to 1. One scale s is learned for all (Willetts and Paige 2021, section 4.2; Kingma et al. 2016,
    section C.5: https://arxiv.org/abs/1606.04934).

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


def of_images(spec: DataSpec, *, scale: PositiveFloat) -> Likelihood:
    """Bernoulli for binary and grey images, a discretised logistic of that scale at the start for colour ones.

    Willetts and Paige 2021, section 4.2.
    """
    return BernoulliLikelihood(spec) if spec.binary else DiscretisedLogistic(spec, scale=scale)
