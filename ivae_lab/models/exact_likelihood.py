"""Maximum likelihood without a bound: a mixture prior through a small ReLU network (Kivva et al. 2022, Section 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ivae_lab.config.numbers import Count, PositiveFloat, PositiveInt
from ivae_lab.core.data import Batch, DataSpec
from ivae_lab.core.mixture_generator import Generator
from ivae_lab.distributions.densities import Normal, NormalMixture, tempered
from ivae_lab.distributions.piecewise_mixture import PANELS, PiecewiseMixture, Population, slices
from ivae_lab.models.base import Model, mixture_generator
from ivae_lab.models.likelihoods import GaussianLikelihood, Likelihood
from ivae_lab.networks.base import Decoder
from ivae_lab.networks.mlp import MLP, MLPDecoder

SLICED = ("offset", "nll", "least", "error")  # buffers with the results of `slices`
_FARTHEST = 50.0  # bound of a parameter's size in a search: beyond it there is only rounding
_SETTLED = 1e-3  # a search goes on while a restart lowers the loss by more than this share


class Search:
    """SciPy's L-BFGS on the exact negative log-likelihood, from the point where the optimiser's steps end.

    Parameters
    ----------
    of
        `population`: all of p(x), if the data's density is known, so that nothing depends on the rows drawn and the
        truth is a minimiser; `rows`: the training rows.
    evaluations
        Limit of the evaluations of the likelihood in each run of L-BFGS.
    hops, step
        Number of further runs from near the best point so far, with each parameter moved by up to `step` (monotonic
        basin hopping, Wales and Doye 1997; Leary 2000): there are many local minima beside the truth.
    restarts
        Limit of the runs at the end, from the best point, as long as they help: L-BFGS ends when its estimate of the
        curvature is no longer good.
    panels
        Panels for the outer of two integrals, in the search; reported numbers use 16.
    slices
        Points of each slice of the likelihood through the truth, over the population; 0 for none.
    """

    def __init__(
        self,
        *,
        of: Literal["population", "rows"],
        evaluations: PositiveInt,
        hops: Count,
        step: PositiveFloat,
        restarts: Count,
        panels: PositiveInt,
        slices: Count,
    ) -> None:
        self.of, self.evaluations, self.panels, self.slices = of, evaluations, panels, slices
        self.hops, self.step, self.restarts = hops, step, restarts

    def __call__(self, function: Callable[[], Tensor], parameters: list[nn.Parameter]) -> None:
        """Move the parameters to a local minimum of the function."""
        from scipy.optimize import basinhopping, minimize

        def at(values: NDArray[np.float64], /) -> tuple[float, NDArray[np.float64]]:
            nn.utils.vector_to_parameters(torch.from_numpy(values), parameters)
            with torch.enable_grad():
                value = function()
            slopes = torch.autograd.grad(value, parameters)
            return value.item(), nn.utils.parameters_to_vector(slopes).numpy()

        start = nn.utils.parameters_to_vector(parameters).detach().numpy()
        options = {"maxfun": self.evaluations, "maxiter": self.evaluations, "maxcor": 30, "ftol": 0, "gtol": 1e-10}
        bounds = [(-_FARTHEST, _FARTHEST)] * len(start)
        run: dict[str, Any] = {"jac": True, "method": "L-BFGS-B", "options": options, "bounds": bounds}
        if self.hops:  # at temperature 0 only a better point is accepted
            start = basinhopping(at, start, self.hops, 0, self.step, run, rng=0, interval=5).x  # type: ignore[arg-type]
        before = float("inf")
        for _ in range(1 + self.restarts):
            result = minimize(at, start, **run)
            if not result.fun < before * (1 - _SETTLED):
                break
            start, before = result.x, result.fun
        nn.utils.vector_to_parameters(torch.from_numpy(start), parameters)


class Exact(Model):
    """x = f(z) + e with z of a Gaussian mixture and f of one hidden layer, trained on log p(x) itself.

    The optimiser's steps use the rows of a batch as for any model; then a `Search` may go on to the minimum. Latents
    are the mean of p(z given x), to about three digits, and "elbo" is log p(x): there is no gap between them.

    Parameters
    ----------
    spec, prior
        The data it is for; (latent_dim, u_dim) to a module of the group `prior` that gives a Gaussian mixture.
    latent_dim
        n, one or two; None takes the number of true sources.
    decoder, likelihood
        An `MLPDecoder` of two linear maps with (leaky) ReLU between them, and a `GaussianLikelihood`.
    panels
        Panels for the outer of two integrals, in the optimiser's steps.
    search
        None: the optimiser's steps only. With a search over the population the term "divergence" is KL(truth, model),
        in nats, over all of p(x), by a finer rule.
    """

    def __init__(
        self,
        spec: DataSpec,
        prior: Callable[[int, int], nn.Module],
        *,
        latent_dim: PositiveInt | None,
        decoder: Callable[[DataSpec, int], Decoder],
        likelihood: Callable[[DataSpec], Likelihood],
        panels: PositiveInt,
        search: Search | None = None,
    ) -> None:
        super().__init__()
        if latent_dim is None:
            latent_dim = spec.source_dim
        if latent_dim not in (1, 2):
            raise ValueError(f"expected latent_dim of 1 or 2 for an exact likelihood, got {latent_dim}")
        if search is not None and search.of == "population" and spec.truth is None:
            raise ValueError(
                "expected data whose density is known for search.of=population (data=gmm_relu), got others"
            )
        if search is not None and search.of == "population" and spec.x_dim > 2:
            raise ValueError(f"expected at most 2 observed dimensions for search.of=population, got {spec.x_dim}")
        self.latent_dim = self.noise_dim = latent_dim
        self.u_dim, self.panels, self.search, self.truth = spec.u_dim, panels, search, spec.truth
        self.decoder, self.likelihood = decoder(spec, latent_dim), likelihood(spec)
        self.prior = prior(latent_dim, spec.u_dim)
        self._check()
        self.settles = search is not None
        self.register_buffer("divergence", torch.tensor(torch.nan))
        if search is not None and search.slices and spec.truth is not None:
            numbers = spec.truth.numbers
            self.register_buffer("offset", torch.zeros(search.slices))
            self.register_buffer("nll", torch.zeros(numbers, search.slices))
            self.register_buffer("least", torch.zeros(numbers))
            self.register_buffer("error", torch.zeros(()))

    def _check(self) -> None:
        net = self.decoder.net if isinstance(self.decoder, MLPDecoder) else None
        if not isinstance(net, MLP) or len(net.linears) != 2 or net.activation == "xtanh":
            raise ValueError(
                "expected a decoder of two layers with activation=relu or leaky_relu for an exact likelihood"
            )
        if not isinstance(self.likelihood, GaussianLikelihood) or self.likelihood.anneal_fraction:
            raise ValueError("expected a Gaussian likelihood without annealing for an exact likelihood")
        if not isinstance(self.prior(None), NormalMixture):
            kind = type(self.prior).__name__
            raise ValueError(f"expected a Gaussian mixture as prior for an exact likelihood (prior=gmm), got {kind}")

    def generator(self) -> Generator | None:
        """Prior and decoder as plain numbers."""
        return mixture_generator(self.prior(None), self.decoder)

    def piecewise(self) -> PiecewiseMixture:
        """Prior, decoder and noise as one distribution of x, which has a density."""
        net: MLP = self.decoder.net  # type: ignore[assignment]
        first, last = net.linears
        slope = net.slope if net.activation == "leaky_relu" else 0.0
        weights = (first.weight, first.bias, last.weight, last.bias)
        return PiecewiseMixture(self.prior(None), *weights, slope, self.likelihood.log_variance.exp())  # type: ignore[operator,arg-type]

    def loss(self, batch: Batch, noise: Tensor, progress: Tensor) -> dict[str, Tensor]:
        """-log p(x), in nats per row."""
        log_likelihood = self.piecewise().log_prob(batch.x, self.panels).mean()
        return {
            "loss": -log_likelihood,
            "elbo": log_likelihood,
            "log_likelihood": log_likelihood,
            "kl": torch.zeros_like(log_likelihood),
        }

    def settle(self, blocks: Iterable[Batch]) -> None:
        """Run the search from the current parameters, in double precision, and store the divergence from the truth."""
        if self.search is None or not all(value.isfinite().all() for value in self.parameters()):
            return
        exact = deepcopy(self).double().cpu()
        if self.search.of == "population" and self.truth is not None:
            population = Population(self.truth)
            self.search(lambda: population.divergence(exact.piecewise(), self.search.panels), [*exact.parameters()])  # type: ignore[union-attr]
            with torch.no_grad():
                exact.get_buffer("divergence").copy_(population.divergence(exact.piecewise(), PANELS))
                for name, values in (slices(population, self.search.slices) if self.search.slices else {}).items():
                    exact.get_buffer(name).copy_(values)
        else:
            x = torch.cat([block.x for block in blocks]).double().cpu()
            self.search(lambda: -exact.piecewise().log_prob(x, self.search.panels).mean(), [*exact.parameters()])  # type: ignore[union-attr]
        self.load_state_dict(exact.state_dict())

    def encode(self, batch: Batch) -> Normal:
        """Mean and variance of p(z given x)."""
        mean, variance = self.piecewise().moments(batch.x)
        return Normal(mean, torch.log(variance))

    def bound(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Moments of p(z given x), a sample of the Gaussian with these moments, and log p(x)."""
        q, log_likelihood = self.encode(batch), self.piecewise().log_prob(batch.x, PANELS)
        outputs = {"mean": q.mean, "sample": q.rsample(noise), "elbo": log_likelihood, "log_likelihood": log_likelihood}
        if self.search is not None and self.search.of == "population":
            outputs["divergence"] = self.get_buffer("divergence").expand_as(log_likelihood)
        return outputs | {"cluster": self.prior(None).log_joint(q.mean).argmax(-1)}

    def examples(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Reconstructions at the posterior's mean, the components of the prior, and slices if the search has them.

        The slices are those of `ivae_lab.distributions.piecewise_mixture.slices`: "slice_offset" (T,), "slice_nll"
        (P, T), "slice_least" (P,), "slice_error" ().
        """
        sliced = {f"slice_{name}": value for name, value in self.named_buffers() if name in SLICED}
        return sliced | {
            "reconstruction": self.expected(self.posterior_mean(batch)),
            **self.prior_parameters(self.prior(None)),
        }

    def expected(self, z: Tensor) -> Tensor:
        """The expected x given z: (..., n) to (..., d)."""
        return self.decoder(z)  # type: ignore[no-any-return]

    def sample(self, rows: int, u: Tensor | None, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """Draw z from the prior, then x given z."""
        z = tempered(self.prior(None), temperature).sample(rows, generator)
        return self.likelihood.sample(self.decoder(z), generator)
