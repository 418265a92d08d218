"""Encoder and decoder of a trained model as separate modules, written in formats that other programs read."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ivae_lab.core.data import Batch
from ivae_lab.distributions.densities import CorrelatedNormal
from ivae_lab.inference.trained_model import Trained

AGREEMENT = 1e-5  # largest difference from the model, as a share of the numbers' size
_TRACED_ROWS, _CHECKED_ROWS = 3, 65
Run = Callable[..., tuple[Tensor, ...]]


class PortableEncoder(nn.Module):
    """Maps x before preprocessing, (B, d), and u if it is seen, to the posterior's mean and standard deviation."""

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        recipe = trained.recipe
        self.model, self.bytes, self.prepares = trained.model, trained.spec.image is not None, recipe.shift is not None
        self.register_buffer("shift", torch.tensor(recipe.shift or [0.0], dtype=torch.float64))
        self.register_buffer("scale", torch.tensor(recipe.scale or [[1.0]], dtype=torch.float64))

    def forward(self, x: Tensor, u: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, d) and (B,) to (B, n) and (B, n)."""
        if self.prepares:
            x = ((x.double() - self.get_buffer("shift")) @ self.get_buffer("scale")).float()
        q = self.model.encode(Batch(x.byte() if self.bytes else x, u, None, x[:, 0]))
        return q.mean, (q.marginals() if isinstance(q, CorrelatedNormal) else q).std


class PortableDecoder(nn.Module):
    """Maps z (B, n) to the expected x before preprocessing, (B, d)."""

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        recipe = trained.recipe
        self.model, self.prepared = trained.model, recipe.shift is not None
        self.register_buffer("shift", torch.tensor(recipe.shift or [0.0], dtype=torch.float64))
        scale = torch.tensor(recipe.scale or [[1.0]], dtype=torch.float64)
        self.register_buffer("unscale", torch.linalg.inv(scale))

    def forward(self, z: Tensor) -> tuple[Tensor]:
        """(B, n) to (B, d)."""
        x = self.model.expected(z)
        if self.prepared:
            x = (x.double() @ self.get_buffer("unscale") + self.get_buffer("shift")).float()
        return (x,)


@dataclass(frozen=True)
class Portable:
    """A module, example inputs, and the model's own outputs for them."""

    name: str
    module: nn.Module
    inputs: tuple[Tensor, ...]  # (rows, ...) each
    expected: tuple[Tensor, ...]

    @property
    def traced(self) -> tuple[Tensor, ...]:
        """A few of the rows, for writers that trace a call."""
        return tuple(tensor[:_TRACED_ROWS].clone() for tensor in self.inputs)

    def check(self, run: Run) -> None:
        """Check the outputs of the module, written and read back, against the model's.

        Raises
        ------
        ValueError
            If they differ by more than `AGREEMENT`.
        """
        with torch.no_grad():
            outputs = run(*self.inputs)
        for ours, theirs in zip(self.expected, outputs, strict=True):
            gap = float(((ours - theirs).abs() / ours.abs().clamp(min=1)).max())
            if not gap <= AGREEMENT:
                raise ValueError(f"expected the exported {self.name} to agree with the model to {AGREEMENT}, got {gap}")


def portable(trained: Trained) -> list[Portable]:
    """Make encoder and decoder, with random rows and the model's outputs for them."""
    numbers = torch.Generator().manual_seed(0)
    model = trained.model
    z = torch.randn(_CHECKED_ROWS, model.latent_dim * model.positions, generator=numbers)
    x, u = _rows(trained, numbers), _u(trained, numbers)
    posterior = trained.encode(replace(trained.batch(x.numpy()), u=u))
    encoder = Portable(
        "encoder",
        PortableEncoder(trained).eval(),
        (x, u) if model.encoder_sees_u else (x,),
        (torch.from_numpy(posterior["mean"]), torch.from_numpy(posterior["sd"])),
    )
    decoded = torch.from_numpy(trained.decode(z.numpy())).float()
    return [encoder, Portable("decoder", PortableDecoder(trained).eval(), (z,), (decoded,))]


def _rows(trained: Trained, numbers: torch.Generator) -> Tensor:
    """Draw rows of the data's kind, before preprocessing: (rows, d)."""
    spec, shape = trained.spec, (_CHECKED_ROWS, trained.spec.x_dim)
    if spec.image is not None or spec.counts:
        return torch.randint(256 if spec.image is not None else 9, shape, generator=numbers).float()
    x = torch.from_numpy(trained.recipe.invert(torch.randn(shape, generator=numbers).numpy()))
    return (x > 0).float() if spec.binary else x.float()


def _u(trained: Trained, numbers: torch.Generator) -> Tensor:
    """Draw positions of labels, (rows,), or columns of u as the model takes them, (rows, k)."""
    if trained.spec.u_kind == "columns":
        return torch.randn(_CHECKED_ROWS, trained.spec.u_dim, generator=numbers)
    return torch.randint(max(trained.u_dim, 1), (_CHECKED_ROWS,), generator=numbers)


def _torchscript(part: Portable, path: Path) -> Run:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", ".*torch.jit.*", DeprecationWarning)  # asked for by name
        warnings.filterwarnings("ignore", category=torch.jit._trace.TracerWarning)  # other numbers of rows are checked
        torch.jit.trace(part.module, part.traced, check_trace=False).save(str(path))  # type: ignore[no-untyped-call]
        return torch.jit.load(str(path))  # type: ignore[no-any-return, no-untyped-call]


def _pt2(part: Portable, path: Path) -> Run:
    rows = torch.export.Dim("rows", min=1)
    shapes = tuple({0: rows} for _ in part.inputs)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings(
            "ignore", "No complete tensor found", UserWarning
        )  # of transposed ones; these are whole
        torch.export.save(torch.export.export(part.module, part.traced, dynamic_shapes=shapes), path)
    return torch.export.load(path).module()


WRITERS: dict[str, Callable[[Portable, Path], Run]] = {"torchscript": _torchscript, "pt2": _pt2}
