"""Networks between images and a grid of vectors, a quarter of the image's height and width (8 x 8 of 32 x 32).

Willetts and Paige 2021, Appendix B, name an implementation of VQ-VAEs and give no sizes: two halvings by convolutions
of filter size 4, two residual blocks, batch normalisation and ReLU, as van den Oord et al. 2017
(https://arxiv.org/abs/1711.00937) describe. Modes as in `images.py`: `noise` of any width means training mode.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ivae_lab.config.numbers import PositiveInt
from ivae_lab.core.data import DataSpec
from ivae_lab.networks.images import BatchNorm

_HALVED = 4


class _Block(nn.Module):
    """h + norm(1x1 conv(relu(norm(3x3 conv(relu(h))))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.wide_norm = BatchNorm(channels)
        self.narrow = nn.Conv2d(channels, channels, 1, bias=False)
        self.narrow_norm = BatchNorm(channels)

    def forward(self, h: Tensor, noise: Tensor | None) -> Tensor:
        """(B, C, H, W) to the same shape."""
        inner = torch.relu(self.wide_norm(self.wide(torch.relu(h)), noise))
        return h + self.narrow_norm(self.narrow(inner), noise)  # type: ignore[no-any-return]


class GridEncoder(nn.Module):
    """Maps images to vectors on a grid, row by row.

    Parameters
    ----------
    spec
        The data it is for; height and width of the images must be multiples of 4.
    latent_dim
        n, the length of a vector.
    channels
        Width of the network.

    Attributes
    ----------
    positions
        P, the number of vectors.
    """

    def __init__(self, spec: DataSpec, latent_dim: int, *, channels: PositiveInt) -> None:
        super().__init__()
        self.image, height, width = _grid_of(spec)
        self.positions = height * width
        self.first = nn.Conv2d(self.image[0], channels, 4, 2, 1, bias=False)
        self.second = nn.Conv2d(channels, channels, 4, 2, 1, bias=False)
        self.norms = nn.ModuleList([BatchNorm(channels), BatchNorm(channels)])
        self.blocks = nn.ModuleList([_Block(channels), _Block(channels)])
        self.last = nn.Conv2d(channels, latent_dim, 1)

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """(B, d) to (B, P, n)."""
        h = x.reshape(-1, *self.image)
        for halve, norm in zip((self.first, self.second), self.norms, strict=True):
            h = torch.relu(norm(halve(h), noise))
        for block in self.blocks:
            h = block(h, noise)
        return self.last(h).flatten(2).mT  # type: ignore[no-any-return]


class GridDecoder(nn.Module):
    """Maps vectors on a grid to the parameter of the likelihood; arguments as for `GridEncoder`.

    There is no normalisation before the first block: it would cancel a shift of all vectors, whose gradient would then
    be rounding only, and Adam would follow that.
    """

    def __init__(self, spec: DataSpec, latent_dim: int, *, channels: PositiveInt) -> None:
        super().__init__()
        image, *self.grid = _grid_of(spec)
        self.first = nn.Conv2d(latent_dim, channels, 1)
        self.blocks = nn.ModuleList([_Block(channels), _Block(channels)])
        self.doubled = nn.ConvTranspose2d(channels, channels, 4, 2, 1, bias=False)
        self.norm = BatchNorm(channels)
        self.last = nn.ConvTranspose2d(channels, image[0], 4, 2, 1)

    def forward(self, z: Tensor, noise: Tensor | None) -> Tensor:
        """(B, P, n) to (B, d)."""
        h = self.first(z.mT.reshape(len(z), -1, *self.grid))
        for block in self.blocks:
            h = block(h, noise)
        h = torch.relu(self.norm(self.doubled(torch.relu(h)), noise))
        return self.last(h).flatten(1)  # type: ignore[no-any-return]


def _grid_of(spec: DataSpec) -> tuple[tuple[int, int, int], int, int]:
    """(C, H, W) of the images, and height and width of the grid."""
    if spec.image is None:
        raise ValueError("expected images for a grid of latents, got data that are no images")
    _, height, width = spec.image.shape
    if height % _HALVED or width % _HALVED:
        raise ValueError(f"expected images whose sides are multiples of {_HALVED}, got {height} x {width}")
    return spec.image.shape, height // _HALVED, width // _HALVED
