"""What trained models say of the data: latents of every row, and the ELBO, for every seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ivae_lab.engine.stack import ENCODE_ROWS, Stack
from ivae_lab.engine.streams import normals
from ivae_lab.metrics.estimate import Estimate
from ivae_lab.types import Batch, Splits

EXAMPLES = 1000  # rows in examples.npz


@dataclass(frozen=True)
class Encoded:
    """One split as all seeds see it."""

    split: str
    rows: Batch
    latents: dict[str, np.ndarray[Any, Any]]  # "mean" and "sample", each (S, N, n)
    terms: dict[str, np.ndarray[Any, Any]]  # in nats, averaged over rows, each (S,)

    def estimate(self, position: int) -> Estimate:
        """What one seed found, as the metrics take it."""
        return Estimate(
            mean=self.latents["mean"][position],
            sample=self.latents["sample"][position],
            sources=_numpy(self.rows.z),
            u=_numpy(self.rows.u),
            index=self.rows.index.cpu().numpy(),
            terms={name: float(values[position]) for name, values in self.terms.items()},
        )


def encode(stack: Stack, splits: Splits, device: torch.device) -> list[Encoded]:
    """Encode every split that has rows, with one posterior sample per row from each seed's own stream."""
    return [_encode(stack, name, rows.to(device)) for name, rows in splits.items()]


def examples(stack: Stack, rows: Batch, device: torch.device) -> dict[str, np.ndarray[Any, Any]]:
    """At most `EXAMPLES` evenly spaced rows as every seed reconstructs them, and the priors: arrays of examples.npz."""
    chosen = torch.linspace(0, len(rows) - 1, min(EXAMPLES, len(rows))).long()
    batch = rows[chosen].to(device)
    said = {name: value.cpu().numpy() for name, value in stack.map("examples", batch).items()}  # (S, ...)
    arrays = {"index": batch.index, "x": batch.x, "u": batch.u, "sources": batch.z}
    return said | {name: part.cpu().numpy() for name, part in arrays.items() if part is not None}


def posterior_means(stack: Stack, data: Batch, rows: torch.Tensor) -> torch.Tensor:
    """The posterior's mean of some rows, for every seed: (S, N, n)."""
    device = next(iter(stack.parameters.values())).device
    blocks = torch.split(rows, ENCODE_ROWS)
    return torch.cat([stack.map("posterior_mean", data[block].to(device)) for block in blocks], 1)


def _encode(stack: Stack, split: str, rows: Batch) -> Encoded:
    noise = normals(stack.seeds, f"posterior sample, {split}", 0, (len(rows), stack.template.noise_dim))
    blocks = [
        stack.map("bound", rows[start : start + ENCODE_ROWS], noise[:, start : start + ENCODE_ROWS].to(rows.x.device))
        for start in range(0, len(rows), ENCODE_ROWS)
    ]
    whole = {name: torch.cat([block[name] for block in blocks], 1).cpu() for name in blocks[0]}  # (S, N, ...)
    return Encoded(
        split=split,
        rows=rows,
        latents={name: whole.pop(name).numpy() for name in ("mean", "sample")},
        terms={name: values.double().mean(1).numpy() for name, values in whole.items()},
    )


def _numpy(part: torch.Tensor | None) -> np.ndarray[Any, Any] | None:
    return None if part is None else part.cpu().numpy()
