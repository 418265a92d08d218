"""Code that all networks share: the protocol of encoders and decoders, activations, initial weights, and tables of u.

Networks are written for one model and one batch of rows; `engine/` maps them over many seeds. An encoder is made by
`encoder(spec, latent_dim)` and called as `encoder(x, u, noise)`; a decoder is made likewise and called as
`decoder(z, noise)`. `noise` (B, noise_dim) is standard normal, for dropout: with it a network is in training mode,
without it in evaluation mode.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ivae_lab.distributions.densities import Posterior

Activation = Literal["xtanh", "leaky_relu", "relu"]
Init = Literal["torch", "xavier_uniform", "xavier_normal"]
Spread = Literal["exp", "softplus"]
_PRODUCT_ROWS = 128  # largest table that `look_up` multiplies


def activate(h: Tensor, activation: Activation, slope: float) -> Tensor:
    """tanh(h) + slope h (`xtanh`), max(h, slope h) (`leaky_relu`) or max(h, 0) (`relu`), elementwise."""
    if activation == "xtanh":
        return torch.tanh(h) + slope * h
    if activation == "leaky_relu":
        return nn.functional.leaky_relu(h, slope)
    return torch.relu(h)


def initialise(weight: Tensor, init: Init) -> None:
    """Draw a weight matrix in place; `torch` keeps what PyTorch's own layer has drawn."""
    if init == "xavier_uniform":
        nn.init.xavier_uniform_(weight)
    elif init == "xavier_normal":
        nn.init.xavier_normal_(weight)


def log_variance(spread: Tensor, std: Spread) -> Tensor:
    """Return log s^2 from a network's output: s^2 is the output's exponential (`exp`) or its softplus (`softplus`)."""
    return torch.log(nn.functional.softplus(spread)) if std == "softplus" else spread


def look_up(table: Tensor, u: Tensor) -> Tensor:
    """Look up the rows of a table at labels: (M, D) and (B,) to (B, D). Columns of u (B, M) weigh the rows.

    A table of few rows is multiplied by the one-hot u. That is exact, and its gradient is a product as well: adding
    up the gradients of equal labels one by one, as indexing does, takes several times as long when many models are
    trained at once, and its order is not fixed on a GPU.
    """
    if u.is_floating_point():
        return u @ table
    if len(table) > _PRODUCT_ROWS:
        return table[u]
    one_hot = (torch.arange(len(table), device=u.device).unsqueeze(-1) == u).to(table.dtype)  # (M, B)
    return (table.mT @ one_hot).mT


class Encoder(nn.Module):
    """Maps x, and u if it sees u, to a posterior over z.

    Attributes
    ----------
    noise_dim
        Standard normal numbers per row for dropout.
    sees_u
        Whether u is an input beside x.
    """

    noise_dim: int = 0
    sees_u: bool = False

    def forward(self, x: Tensor, u: Tensor | None, noise: Tensor | None = None) -> Posterior:
        """(B, d), (B,) and (B, noise_dim) to a Gaussian over (B, n)."""
        raise NotImplementedError


class Decoder(nn.Module):
    """Maps z to the parameter of the likelihood; `noise_dim` as in an `Encoder`."""

    noise_dim: int = 0

    def forward(self, z: Tensor, noise: Tensor | None = None) -> Tensor:
        """(B, n) and (B, noise_dim) to (B, d)."""
        raise NotImplementedError
