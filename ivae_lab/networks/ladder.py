"""Networks with a facet of the latents at each of their layers: the ladder of MFCVAE, and the same layers without it.

Falck et al. 2021 (https://arxiv.org/abs/2106.05241), after the ladder of Zhao et al. 2017: the first facets hold the
properties of x that few layers can extract. Layers h_l = act(W_l h_(l-1) + b_l) of the widths w_1 .. w_L, h_0 = x.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import torch
from annotated_types import MinLen
from torch import Tensor, nn
from torch.nn import functional as F

from ivae_lab.config.numbers import NonNegativeFloat, PositiveFloat, PositiveInt
from ivae_lab.core.data import DataSpec
from ivae_lab.distributions.densities import Normal
from ivae_lab.networks.base import Decoder, Encoder
from ivae_lab.networks.images import Layers, LayersDecoder, LayersEncoder

Widths = Annotated[list[PositiveInt], MinLen(1)]


class LadderEncoder(Encoder):
    """q(z given x) = prod_j q(z_j given x): mean and log-variance of facet j are linear in the j-th layer, h_j.

    Parameters
    ----------
    spec
        The data it is for.
    latent_dim
        n, the latents of all facets together, split as in `FacetMixtures`.
    widths
        w_1 .. w_J; each layer has a facet.
    slope
        Slope of the activation below 0: 0 is ReLU, .01 PyTorch's leaky ReLU.
    """

    def __init__(
        self,
        spec: DataSpec,
        latent_dim: int,
        *,
        widths: Widths,
        slope: NonNegativeFloat,
    ) -> None:
        super().__init__()
        self.slope = slope
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise([spec.x_dim, *widths]))
        parts = _parts(latent_dim, len(widths))
        self.heads = nn.ModuleList(nn.Linear(width, 2 * part) for width, part in zip(widths, parts, strict=True))

    def forward(self, x: Tensor, u: Tensor | None, noise: Tensor | None = None) -> Normal:
        """(B, d) to a Gaussian over (B, n)."""
        h, joint = x, []
        for layer, head in zip(self.layers, self.heads, strict=True):
            h = F.leaky_relu(layer(h), self.slope)
            joint.append(head(h).chunk(2, -1))
        means, log_vars = zip(*joint, strict=True)
        return Normal(torch.cat(means, -1), torch.cat(log_vars, -1))


class LadderDecoder(Decoder):
    """Maps z to the parameter of p(x given z): the last facet goes through all layers, the others join on the way.

    d_J = r_J(z_J), d_j = l_(j+1)(d_(j+1)) + c a_j r_j(z_j), and x from l_1(d_1), where the rungs r_j: n_j to w_j and
    the layers l_j: w_j to w_(j-1) are linear maps with an activation (w_0 = w_1), and a_j is the fade of facet j.

    Parameters
    ----------
    spec, latent_dim, widths, slope
        As in `LadderEncoder`.
    gate
        c, the factor on the rungs of all facets but the last.
    """

    def __init__(
        self,
        spec: DataSpec,
        latent_dim: int,
        *,
        widths: Widths,
        slope: NonNegativeFloat,
        gate: PositiveFloat,
    ) -> None:
        super().__init__()
        self.slope, self.gate = slope, gate
        parts = _parts(latent_dim, len(widths))
        self.rungs = nn.ModuleList(nn.Linear(part, width) for part, width in zip(parts, widths, strict=True))
        self.layers = nn.ModuleList(nn.Linear(b, a) for a, b in pairwise([widths[0], *widths]))
        self.last = nn.Linear(widths[0], spec.x_dim)

    def forward(self, z: Tensor, noise: Tensor | None = None, fade: Tensor | None = None) -> Tensor:
        """(B, n), and (J,) if facets fade in, to (B, d)."""
        facets = [self._active(rung, part) for rung, part in zip(self.rungs, self._split(z), strict=True)]
        shares = [1.0] * len(facets) if fade is None else fade
        h = facets[-1]
        for j in reversed(range(len(facets))):
            if j < len(facets) - 1:
                h = h + self.gate * shares[j] * facets[j]
            h = self._active(self.layers[j], h)
        return self.last(h)  # type: ignore[no-any-return]

    def _active(self, linear: nn.Module, h: Tensor) -> Tensor:
        return F.leaky_relu(linear(h), self.slope)

    def _split(self, z: Tensor) -> tuple[Tensor, ...]:
        return torch.tensor_split(z, len(self.rungs), -1)


def shared_encoder(spec: DataSpec, latent_dim: int, *, widths: Widths, slope: NonNegativeFloat) -> Encoder:
    """Make an encoder with the layers of `LadderEncoder`, but with all latents linear in the last layer."""
    return LayersEncoder(Layers(*_dense([spec.x_dim, *widths], slope)), widths[-1], latent_dim, "exp")


def shared_decoder(spec: DataSpec, latent_dim: int, *, widths: Widths, slope: NonNegativeFloat) -> Decoder:
    """Make a decoder with the layers of `shared_encoder` in reverse order, on all latents at once."""
    layers = _dense([latent_dim, *reversed(widths)], slope)
    return LayersDecoder(Layers(*layers, nn.Linear(widths[0], spec.x_dim)))


def _dense(widths: list[int], slope: float) -> list[nn.Module]:
    """Linear maps between these widths, each with its activation."""
    return [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.LeakyReLU(slope))]


def _parts(latent_dim: int, facets: int) -> list[int]:
    """The number of latents of each facet."""
    if latent_dim < facets:
        raise ValueError(f"expected at least as many latents as rungs of the ladder ({facets}), got {latent_dim}")
    return [len(part) for part in torch.arange(latent_dim).tensor_split(facets)]
