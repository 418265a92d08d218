"""Evaluate trained models on the data: latents of every row, and the ELBO, for every seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ivae_lab.core.data import Batch, Image, Splits
from ivae_lab.core.exponential_family import ExponentialFamily
from ivae_lab.core.mixture_generator import Generator
from ivae_lab.distributions.piecewise_mixture import PiecewiseMixture
from ivae_lab.engine.random_streams import normals
from ivae_lab.engine.stack import ENCODE_IMAGES, ENCODE_ROWS, Stack
from ivae_lab.metrics.resampling import Estimate

EXAMPLES, IMAGES, DRAWS = 1000, 100, 8  # rows in examples.npz, of images fewer; draws from each part of the prior
_LARGEST_BYTE = 255


@dataclass(frozen=True)
class Encoded:
    """One split as all seeds see it."""

    split: str
    rows: Batch
    latents: dict[
        str, np.ndarray[Any, Any]
    ]  # "mean" and "sample", each (S, N, n); of some models "cluster" (S, N, ...)
    terms: dict[str, np.ndarray[Any, Any]]  # in nats, averaged over rows, each (S,)
    positions: int  # number of positions of a grid of latents
    facets: int  # number of facets of the latents
    generators: list[Generator | None]  # one for each seed
    priors: list[ExponentialFamily | None]  # one for each seed
    truth: PiecewiseMixture | None  # the distribution of x, if it is known
    true_prior: ExponentialFamily | None  # the prior of the true sources, if it is an exponential family

    @cached_property
    def log_density(self) -> float | None:
        """E[log p(x)] of the true p over these rows, in nats, where it is known."""
        return None if self.truth is None else self.truth.log_prob(self.rows.x.double().cpu()).mean().item()

    def estimate(self, position: int) -> Estimate:
        """Collect the results of one seed for the metrics."""
        return Estimate(
            mean=self.latents["mean"][position],
            sample=self.latents["sample"][position],
            sources=_numpy(self.rows.z),
            u=_numpy(self.rows.u),
            index=self.rows.index.cpu().numpy(),
            terms={name: float(values[position]) for name, values in self.terms.items()},
            clusters=self.latents["cluster"][position] if "cluster" in self.latents else None,
            positions=self.positions,
            facets=self.facets,
            log_density=self.log_density,
            generator=self.generators[position],
            truth=None if self.truth is None else self.truth.generator(),
            prior=self.priors[position],
            true_prior=self.true_prior,
        )


def encode(stack: Stack, splits: Splits, device: torch.device) -> list[Encoded]:
    """Encode the splits that are scored, with one posterior sample per row from each seed's own stream."""
    scored = [(name, rows.to(device)) for name, rows in splits.items() if name in splits.scored]
    models = [stack.model(position) for position in range(len(stack.seeds))]
    known = {
        "generators": [model.generator() for model in models],
        "priors": [model.exponential_family() for model in models],
        "truth": splits.spec.truth,
        "true_prior": splits.prior,
    }
    return [_encode(stack, name, rows, known) for name, rows in scored]


def examples(stack: Stack, rows: Batch, image: Image | None, device: torch.device) -> dict[str, np.ndarray[Any, Any]]:
    """Reconstruct at most `EXAMPLES` evenly spaced rows with every seed: arrays of examples.npz, with the priors.

    For images with as many latents as pixels also "principal_std", of the principal components of all rows, falling.
    """
    most = IMAGES if rows.x.dtype == torch.uint8 else EXAMPLES
    chosen = torch.linspace(0, len(rows) - 1, min(most, len(rows))).long()
    batch = rows[chosen].to(device)
    width = stack.template.positions * stack.template.latent_dim
    noise = normals(stack.seeds, "examples", 0, (DRAWS, width)).to(device)
    outputs = {name: value.cpu().numpy() for name, value in stack.map("examples", batch, noise).items()}  # (S, ...)
    arrays = {"index": batch.index, "x": batch.x, "u": batch.u, "sources": batch.z}
    shape = {} if image is None else {"image": np.array(image.shape)}
    if image is not None and stack.template.latent_dim == rows.x.shape[1]:
        shape["principal_std"] = principal_std(rows.x)
    return outputs | shape | {name: part.cpu().numpy() for name, part in arrays.items() if part is not None}


def principal_std(x: torch.Tensor) -> np.ndarray[Any, Any]:
    """Standard deviations of the principal components of images, for pixels in [0, 1], in falling order."""
    variances = torch.linalg.eigvalsh(torch.cov(x.T.double() / _LARGEST_BYTE)).flip(0)
    return np.asarray(np.sqrt(variances.clamp(min=0).cpu().numpy()))


def posterior_means(stack: Stack, data: Batch, rows: torch.Tensor) -> torch.Tensor:
    """Compute the posterior's mean of some rows, for every seed: (S, N, n)."""
    blocks = torch.split(rows, _encode_rows(data))
    return torch.cat([stack.map("posterior_mean", data[block].to(stack.device)) for block in blocks], 1)


def settle(stack: Stack, train: Batch) -> None:
    """Call `settle` of every seed's model with the training data, if the models need it."""
    if not stack.template.settles:
        return
    rows = _encode_rows(train)
    for position in range(len(stack.seeds)):
        model = stack.model(position)
        with torch.no_grad():
            model.settle(train[start : start + rows].to(stack.device) for start in range(0, len(train), rows))
        stack.replace(position, model)


def _encode(stack: Stack, split: str, rows: Batch, known: dict[str, Any]) -> Encoded:
    model = stack.template
    step = model.rows_together or _encode_rows(rows)
    noise = normals(stack.seeds, f"posterior sample, {split}", 0, (len(rows), model.noise_dim))
    blocks = []
    for start in range(0, len(rows), step):
        sample_noise = noise[:, start : start + step]  # (S, step, noise_dim)
        live = normals(stack.seeds, f"live evaluation, {split}", start, (sample_noise.shape[1], model.live_dim))
        block = rows[start : start + step]
        outputs = stack.map("bound", block, torch.cat([sample_noise, live], -1).to(rows.x.device))
        blocks.append({name: values.cpu() for name, values in outputs.items()})
    whole = {name: torch.cat([block[name] for block in blocks], 1) for name in blocks[0]}  # (S, N, ...)
    return Encoded(
        split=split,
        rows=rows,
        latents={name: whole.pop(name).numpy() for name in ("mean", "sample", "cluster") if name in whole},
        terms={name: values.double().mean(1).numpy() for name, values in whole.items()},
        positions=model.positions,
        facets=model.facets,
        **known,
    )


def _encode_rows(rows: Batch) -> int:
    """Rows to encode at a time: networks for images need more memory per row."""
    return ENCODE_IMAGES if rows.x.dtype == torch.uint8 else ENCODE_ROWS


def _numpy(part: torch.Tensor | None) -> np.ndarray[Any, Any] | None:
    return None if part is None else part.cpu().numpy()
