"""The interface between a model of any kind and the engine. Code here is written for one seed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ivae_lab.core.data import Batch, DataSpec
from ivae_lab.core.exponential_family import ExponentialFamily
from ivae_lab.core.mixture_generator import Generator
from ivae_lab.distributions.densities import CorrelatedNormal, Distribution, Facets, NormalMixture, Posterior
from ivae_lab.models.identifiability import Noise, Penalty
from ivae_lab.networks.mlp import MLPDecoder

# Pictures of a model of images: most components or values of u, most latents in traversals, and steps of a traversal.
_MOST_DRAWN, _MOST_TRAVERSED, TRAVERSAL_STEPS = 20, 10, 9


def latents_for(spec: DataSpec, latent_dim: int | None) -> int:
    """Return the number of latents: `latent_dim`, or without it the number of true sources of the data.

    Raises
    ------
    ValueError
        If neither is known.
    """
    if latent_dim is not None:
        return latent_dim
    if spec.source_dim is None:
        raise ValueError("expected latent_dim for data without known sources, got none")
    return spec.source_dim


def mixture_generator(prior: NormalMixture, decoder: nn.Module) -> Generator | None:
    """Return a mixture and, if it is a ReLU network, a decoder as plain numbers; None if they define no density."""
    parts = (prior.log_weights.exp(), prior.mean, prior.covariance, *decoder.parameters())
    if not all(part.isfinite().all() for part in parts) or not (prior.std > 0).all():
        return None
    weights, means, covariances = (part.detach().double().cpu().numpy() for part in parts[:3])
    network = decoder.net.relu_network() if isinstance(decoder, MLPDecoder) else None
    return Generator(weights / weights.sum(), means, covariances, network)


def check_u(module: nn.Module, spec: DataSpec) -> None:
    """Refuse a prior or a model that has parameters for each value of u where u is columns of numbers."""
    if spec.u_kind == "columns" and getattr(module, "labels_only", False):
        hint = "model=gcl takes them" if isinstance(module, Model) else "prior=conditional takes them"
        kind = type(module).__name__
        raise ValueError(f"expected u as labels for a {kind}, got {spec.u_dim} columns of numbers ({hint})")


class Model(nn.Module):
    """A trainable model of x, with latents z.

    The engine maps these methods over many seeds at once (`torch.func.vmap`), so they draw no random numbers
    of their own (noise comes in) and branch on no tensor's value. `loss` may change buffers in place (the running
    statistics of batch normalisation), nothing else does.

    Attributes
    ----------
    latent_dim
        n.
    positions
        Positions of a grid, each with n latents: means and samples are (N, positions n), position after position.
    facets
        Parts that the n latents are split into (`torch.tensor_split`), each with its own clusters.
    noise_dim
        Standard normal numbers per row for the sample of the posterior.
    live_dim
        Further standard normal numbers per row, for randomness in training only, such as dropout.
    rows_together
        Rows per call of `bound`, if rows affect each other (batch statistics); None: any number.
    u_dim
        M, the number of values of u, or that of its columns; 0 without u.
    u_is_labels
        Whether u is labels, and not columns of numbers.
    pretrain_steps
        Optimiser steps on `pretraining_loss` before the main objective; 0 for none.
    starts_from_data
        Whether the engine must call `start` with encoded training data when the main objective begins.
    settles
        Whether the engine must call `settle` with the training data when the training is over.
    encoder_sees_u
        Whether `encode` reads the data's u.
    identifiability
        The measure that keeps the matrix L of the prior invertible; None: there is none.
    """

    encoder_sees_u: bool = False
    latent_dim: int
    positions: int = 1
    facets: int = 1
    noise_dim: int
    live_dim: int = 0
    rows_together: int | None = None
    u_dim: int
    u_is_labels: bool = True
    pretrain_steps: int = 0
    starts_from_data: bool = False
    settles: bool = False
    prior: nn.Module
    identifiability: Noise | Penalty | None = None

    def loss(self, batch: Batch, noise: Tensor, progress: Tensor) -> dict[str, Tensor]:
        """The objective to minimise under "loss", and terms to report (in nats per row): scalars.

        `noise` is (B, noise_dim + live_dim), standard normal; `progress` is a scalar in [0, 1], the share of the
        training done.
        """
        raise NotImplementedError

    def pretraining_loss(self, batch: Batch, noise: Tensor, progress: Tensor) -> dict[str, Tensor]:
        """Return the objective of the pretraining phase, in the form of `loss`."""
        raise NotImplementedError

    def encode(self, batch: Batch) -> Posterior:
        """The posterior over z, a Gaussian over (B, n)."""
        raise NotImplementedError

    def posterior_mean(self, batch: Batch) -> Tensor:
        """The mean of the posterior over z: (B, n)."""
        return self.encode(batch).mean

    def latents(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """The posterior of each row: "mean", "sd" and one "sample", (B, n) each; with clusters also "probabilities".

        Networks are in evaluation mode, the sample is made of `noise` (B, noise_dim + live_dim). Probabilities are p(k
        given z) at the mean, (B, K), whose largest is the cluster of `bound`; of several facets (B, facets, K).
        """
        q = self.encode(batch)
        sample = q.rsample(noise[:, : q.mean.shape[-1]]) if self.noise_dim else q.mean
        std = (q.marginals() if isinstance(q, CorrelatedNormal) else q).std
        latents = {"mean": q.mean, "sd": std, "sample": sample}
        probabilities = self.probabilities(batch, q.mean)
        return latents if probabilities is None else latents | {"probabilities": probabilities}

    def probabilities(self, batch: Batch, mean: Tensor) -> Tensor | None:
        """Probabilities of the prior's components at the posterior's mean, as in `latents`; None without components."""
        prior = self.prior(self.u(batch)) if hasattr(self.prior, "components") else None
        return torch.softmax(prior.log_joint(mean), -1) if isinstance(prior, NormalMixture | Facets) else None

    def expected(self, z: Tensor) -> Tensor:
        """The expected x given z, for images in [0, 1]: (..., n) to (..., d)."""
        raise NotImplementedError

    def bound(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Evaluate a trained model on each row, (B, ...): "mean" and "sample" of the posterior, "elbo" and its terms.

        The sample is made from `noise` (B, noise_dim + live_dim), and the terms, in nats, are evaluated at the sample.
        A model of clusters adds "cluster", the most probable one at the posterior's mean, int64; with several facets
        (B, facets).
        """
        raise NotImplementedError

    def examples(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Reconstructions, prior parameters and, for images, draws and traversals; `noise` (r, positions n) is normal.

        "reconstruction" (B, d), the expected x at the posterior's mean; "prior_mean" and "prior_std" (M, n), of the
        prior at each u (columns of numbers: at each row's), or of each component of a mixture, or of one row. Images
        are in [0, 1], and come with "drawn" (M', r, d), the expected x at r draws from the prior at each of the first u
        or components, and "traversals" (n', steps, d), where one latent after the other moves over the range of the
        rows' codes while the others stay at the first row's. For a grid of codes "drawn" is (1, r, d), and there are no
        traversals. `noise` is standard normal.
        """
        raise NotImplementedError

    def prior_parameters(self, prior: Distribution) -> dict[str, Tensor]:
        """Return means and standard deviations of a prior for `examples`, broadcast to one shape."""
        mean, std = prior.mean + 0 * prior.std, prior.std + 0 * prior.mean
        parameters = {"prior_mean": mean, "prior_std": std}
        return {name: value.reshape(-1, self.latent_dim) for name, value in parameters.items()}

    def prior_of_z(self, u: Tensor | None) -> Distribution:
        """The distribution that is shown as the prior of z, given u."""
        return self.prior(u)  # type: ignore[no-any-return]

    def generator(self) -> Generator | None:
        """Prior and decoder as plain numbers; None where the prior is no Gaussian mixture that all rows share."""
        return None

    def exponential_family(self) -> ExponentialFamily | None:
        """p(z given u) as plain numbers; None where it is no known exponential family."""
        known = getattr(self.prior, "exponential_family", None) if self.prior_has_values else None
        return None if known is None else known()

    def start(self, rows: Batch, z: Tensor, seed: int) -> None:
        """Set parameters from the N training rows and their codes z, (N, n), once, when the main objective begins."""
        raise NotImplementedError

    def u(self, batch: Batch) -> Tensor | None:
        """The auxiliary variable that the prior is conditioned on: (B,) labels or (B, k) columns."""
        return batch.u

    @property
    def prior_has_values(self) -> bool:
        """True if the prior takes finitely many forms, one per label u or component; False for columns of numbers."""
        return self.u_is_labels or not hasattr(self.prior, "labels_only")

    def shown_u(self, batch: Batch) -> Tensor | None:
        """The u at which a prior is shown: every value of u; for columns of numbers, those of each row."""
        u = self.u(batch)
        return u if u is None or u.is_floating_point() else torch.arange(self.u_dim, device=u.device)

    def drawn(self, prior: Distribution, noise: Tensor) -> Tensor:
        """Draw from the prior at each of the first u, or from the heaviest components: (M', r, n), noise (r, n)."""
        parameters = self.prior_parameters(prior)
        mean, std = parameters["prior_mean"], parameters["prior_std"]
        first = torch.arange(min(_MOST_DRAWN, len(mean)), device=mean.device)
        if isinstance(prior, NormalMixture):
            first = prior.log_weights.topk(len(first)).indices
        return mean[first].unsqueeze(1) + std[first].unsqueeze(1) * noise

    def moved(self, code: Tensor, reach: float) -> tuple[Tensor, Tensor]:
        """Move each of the latents that vary most over the rows of `code`, (r, n), by itself, for traversals.

        A latent moves up to `reach` standard deviations to both sides of its mean, while the others stay at the first
        row's values. Return the codes, (n', steps, n), and the positions of these latents, (n',).
        """
        chosen = code.std(0).topk(min(_MOST_TRAVERSED, self.latent_dim)).indices  # (n',)
        steps = torch.linspace(-reach, reach, TRAVERSAL_STEPS, device=code.device)
        to = code.mean(0)[chosen].unsqueeze(-1) + code.std(0)[chosen].unsqueeze(-1) * steps  # (n', steps)
        at = nn.functional.one_hot(chosen, self.latent_dim).to(code.dtype).unsqueeze(1)  # (n', 1, n)
        return code[0] * (1 - at) + to.unsqueeze(-1) * at, chosen

    def settle(self, blocks: Iterable[Batch]) -> None:
        """Pass the posteriors of the training data to the prior, in blocks of rows, once, when the training is over."""
        self.prior.settle((self.encode(block), self.u(block)) for block in blocks)  # type: ignore[operator]

    def prior_in_training(self, z: Tensor, u: Tensor | None) -> Distribution:
        """The prior at u, (B,), for latents z, (B, n); a prior made of statistics takes those of this batch."""
        of_batch = getattr(self.prior, "of_batch", None)
        return self.prior(u) if of_batch is None else of_batch(z, u)  # type: ignore[no-any-return]

    def natural_differences(self) -> Tensor | None:
        """The matrix L of `identifiability.py`, (n k, M - 1); None where the prior has none."""
        return None

    def add_noise(self, noise: Tensor) -> None:
        """Add noise, (M, n k), to the natural parameters of the prior."""
        raise NotImplementedError

    def sample(self, rows: int, u: Tensor | None, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """Draw new observations, (rows, d); u is (rows,) for a model whose prior needs it.

        The temperature multiplies the prior's standard deviations, of a mixture those of its components.
        """
        raise NotImplementedError

    def forward(self, method: str, *arguments: Any) -> Any:
        """Call a method by name: `torch.func.functional_call` reaches modules through forward only."""
        return getattr(self, method)(*arguments)
