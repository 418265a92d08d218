"""Networks for images, layer by layer as Tables A.2 to A.4 of Willetts and Paige 2021: MLP, ConvNet and ResNet.

They are written for one model, as those in `mlp.py`. Encoders see x only; weights start as PyTorch draws them. Images
come and go as rows, (B, C * H * W). Where the tables leave something open, the simplest choice is made and documented.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ivae_lab.core.data import DataSpec
from ivae_lab.distributions.densities import Normal
from ivae_lab.networks.base import Decoder, Encoder, Spread, log_variance

_SLOPE, _DROPOUT = 0.1, 0.1
_WIDTHS = (16, 32, 64, 128, 256, 512)  # channels of the ResNets
_HALVED = 2 ** (len(_WIDTHS) - 1)  # the factor by which their smallest images are smaller


class Dropout(nn.Module):
    """Keeps a unit with probability 1 - p, and then divides it by that; does nothing in evaluation mode.

    Parameters
    ----------
    width
        Units; as many standard normal numbers per row are its noise.
    p
        Probability of a 0.
    """

    def __init__(self, width: int, p: float) -> None:
        super().__init__()
        self.width, self.keep = width, 1 - p
        self.threshold = torch.special.ndtri(torch.tensor(p, dtype=torch.float64)).item()

    def forward(self, h: Tensor, noise: Tensor | None) -> Tensor:
        """(B, width) and (B, width) to (B, width)."""
        return h if noise is None else h * (noise > self.threshold) / self.keep


class BatchNorm(nn.Module):
    """Batch normalisation of the channels of images (Ioffe and Szegedy 2015: https://arxiv.org/abs/1502.03167).

    It does the same as `torch.nn.BatchNorm2d`: training mode uses the mean and variance of the batch, and updates the
    running ones in place, with the unbiased variance; evaluation mode uses the running ones.
    """

    momentum, eps = 0.1, 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, h: Tensor, noise: Tensor | None) -> Tensor:
        """(B, C, H, W) to the same shape; noise of any width means training mode."""
        running = self.get_buffer("running_mean"), self.get_buffer("running_var")
        mean, var = running if noise is None else self._of_batch(h, *running)  # (C,) each
        scale = self.weight * torch.rsqrt(var + self.eps)
        return h * _per_channel(scale) + _per_channel(self.bias - mean * scale)

    def _of_batch(self, h: Tensor, running_mean: Tensor, running_var: Tensor) -> tuple[Tensor, Tensor]:
        var, mean = torch.var_mean(h, (0, 2, 3), correction=0)
        count = h.numel() / h.shape[1]
        unbiased = var.detach() * (count / (count - 1))
        for running, value in ((running_mean, mean.detach()), (running_var, unbiased)):
            running.mul_(1 - self.momentum).add_(value * self.momentum)
        return mean, var


def _per_channel(values: Tensor) -> Tensor:
    return values[:, None, None]  # (C, 1, 1)


class WeightNormConv(nn.Module):
    """A convolution that keeps the size, with weights g v / ||v||: one length g for each filter.

    Salimans and Kingma 2016 (https://arxiv.org/abs/1602.07868). Both start so that the weights are as PyTorch draws
    them; there is no initialisation by data.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, bias: bool = True) -> None:
        super().__init__()
        drawn = nn.Conv2d(channels_in, channels_out, kernel, bias=bias)
        self.padding = kernel // 2
        self.direction, self.bias = drawn.weight, drawn.bias  # v
        self.length = nn.Parameter(_lengths(drawn.weight.detach()))  # g, (C', 1, 1, 1)

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H, W)."""
        weight = self.direction * (self.length / _lengths(self.direction))
        return F.conv2d(h, weight, self.bias, padding=self.padding)


def _lengths(filters: Tensor) -> Tensor:
    return filters.square().sum((1, 2, 3), keepdim=True).sqrt()


class ResBlock(nn.Module):
    """A residual block that halves or doubles the size: resize(skip(h)) + conv(relu(resize(conv(relu(h))))).

    Table A.4 gives sizes, channels, stride 1 and weight normalisation only. So it is resized by averages of 2 x 2 when
    halved, by repetition (nearest neighbour) when doubled. Convolutions have filter size 3 and padding 1, activations
    come first, since a ReLU follows the last block, and where channels change the skip is a 1 x 1 convolution without
    bias. The first convolution changes the channels when the size doubles, the second when it halves: decoder blocks
    are encoder blocks backwards.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        between = min(channels_in, channels_out)
        self.halves = channels_in < channels_out
        self.first = WeightNormConv(channels_in, between, 3)
        self.second = WeightNormConv(between, channels_out, 3)
        self.skip = WeightNormConv(channels_in, channels_out, 1, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H / 2, W / 2) for C' > C, else to (B, C', 2 H, 2 W)."""
        inner = self._resize(self.first(F.relu(h)))
        skipped = self.skip(self._resize(h)) if self.halves else self._resize(self.skip(h))  # at the smaller size
        return skipped + self.second(F.relu(inner))  # type: ignore[no-any-return]

    def _resize(self, h: Tensor) -> Tensor:
        return F.avg_pool2d(h, 2) if self.halves else F.interpolate(h, scale_factor=2.0, mode="nearest")


class Layers(nn.Module):
    """Layers one after another; the noise is split among those that differ in training mode.

    Attributes
    ----------
    noise_dim
        Standard normal numbers per row.
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.each = nn.ModuleList(layers)
        self.widths = [layer.width if isinstance(layer, Dropout) else 0 for layer in layers]
        self.noise_dim = sum(self.widths)

    def forward(self, h: Tensor, noise: Tensor | None) -> Tensor:
        """Return the output of the last layer."""
        pieces = [None] * len(self.widths) if noise is None else torch.split(noise, self.widths, -1)
        for layer, piece in zip(self.each, pieces, strict=True):
            h = layer(h, piece) if isinstance(layer, (Dropout, BatchNorm)) else layer(h)
        return h


class LayersEncoder(Encoder):
    """q(z given x): layers to `width` features, then linear heads for the mean and the spread (`log_variance`)."""

    def __init__(self, layers: Layers, width: int, latent_dim: int, std: Spread) -> None:
        super().__init__()
        self.layers, self.std, self.noise_dim = layers, std, layers.noise_dim
        self.heads = nn.Linear(width, 2 * latent_dim)  # both in one product

    def forward(self, x: Tensor, u: Tensor | None, noise: Tensor | None = None) -> Normal:
        """(B, d) and (B, noise_dim) to a Gaussian over (B, n)."""
        mean, spread = self.heads(self.layers(x, noise)).chunk(2, -1)  # (B, n) each
        return Normal(mean, log_variance(spread, self.std))


class LayersDecoder(Decoder):
    """Maps z to the parameter of p(x given z): logits (Bernoulli) or centres (discretised logistic)."""

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        self.layers, self.noise_dim = layers, layers.noise_dim

    def forward(self, z: Tensor, noise: Tensor | None = None) -> Tensor:
        """(B, n) and (B, noise_dim) to (B, d)."""
        return self.layers(z, noise)  # type: ignore[no-any-return]


def mlp_encoder(spec: DataSpec, latent_dim: int, *, std: Spread) -> Encoder:
    """The MLP encoder of Willetts and Paige 2021, Table A.2; for any x, images or not."""
    layers = Layers(*_dense(spec.x_dim, 512, 384), Dropout(384, _DROPOUT), *_dense(384, 256, 256))
    return LayersEncoder(layers, 256, latent_dim, std)


def mlp_decoder(spec: DataSpec, latent_dim: int) -> Decoder:
    """The MLP decoder of Table A.2."""
    layers = (*_dense(latent_dim, 256, 256), Dropout(256, _DROPOUT), *_dense(256, 384, 512))
    return LayersDecoder(Layers(*layers, nn.Linear(512, spec.x_dim)))


def _dense(*widths: int) -> list[nn.Module]:
    """Linear maps between these widths, a leaky ReLU after each."""
    return [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.LeakyReLU(_SLOPE))]


def convnet_encoder(spec: DataSpec, latent_dim: int, *, std: Spread) -> Encoder:
    """The ConvNet encoder of Table A.3, for images whose height and width 4 divides.

    Convolutions before a batch normalisation have no bias, here and in the decoder: it would cancel.
    """
    channels, height, width = _quartered(spec)
    layers = Layers(
        nn.Unflatten(1, (channels, 4 * height, 4 * width)),
        *_normalised(nn.Conv2d(channels, 8, 3, padding=1, bias=False)),
        *_normalised(nn.Conv2d(8, 16, 3, padding=1, bias=False)),
        nn.MaxPool2d(2),
        *_normalised(nn.Conv2d(16, 32, 3, padding=1, bias=False)),
        *_normalised(nn.Conv2d(32, 64, 3, padding=1, bias=False)),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 64, (height, width)),
        nn.Flatten(1),
        *_dense(64, 64),
    )
    return LayersEncoder(layers, 64, latent_dim, std)


def convnet_decoder(spec: DataSpec, latent_dim: int) -> Decoder:
    """The ConvNet decoder of Table A.3."""
    channels, height, width = _quartered(spec)
    layers = Layers(
        *_dense(latent_dim, 64),
        nn.Linear(64, 64),
        nn.Unflatten(1, (64, 1, 1)),
        *_normalised(nn.ConvTranspose2d(64, 64, (height, width), bias=False)),
        *_normalised(nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1, bias=False)),
        *_normalised(nn.ConvTranspose2d(32, 16, 3, padding=1, bias=False)),
        *_normalised(nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1, bias=False)),
        nn.Conv2d(8, channels, 3, padding=1),
        nn.Flatten(1),
    )
    return LayersDecoder(layers)


def _normalised(convolution: nn.Conv2d | nn.ConvTranspose2d) -> tuple[nn.Module, ...]:
    return convolution, BatchNorm(convolution.out_channels), nn.ELU()


def _quartered(spec: DataSpec) -> tuple[int, int, int]:
    channels, height, width = _image_shape(spec)
    if height % 4 or width % 4:
        raise ValueError(f"expected images whose height and width 4 divides, got {height} x {width}")
    return channels, height // 4, width // 4


def resnet_encoder(spec: DataSpec, latent_dim: int, *, std: Spread) -> Encoder:
    """The ResNet encoder of Table A.4: five blocks, each of twice the channels and half the size.

    Images are padded with zeros on all sides to the next multiples of 32: 28 x 28 to 32 x 32.
    """
    shape = _image_shape(spec)
    rows, columns = _smallest(*shape[1:])
    layers = Layers(
        nn.Unflatten(1, shape),
        nn.ZeroPad2d(_padding(*shape[1:])),
        nn.Conv2d(shape[0], _WIDTHS[0], 1),
        *(ResBlock(a, b) for a, b in pairwise(_WIDTHS)),
        nn.ReLU(),
        nn.Flatten(1),
    )
    return LayersEncoder(layers, _WIDTHS[-1] * rows * columns, latent_dim, std)


def resnet_decoder(spec: DataSpec, latent_dim: int) -> Decoder:
    """The ResNet decoder of Table A.4; it makes an image of the padded size and crops it to the middle."""
    channels, height, width = _image_shape(spec)
    rows, columns = _smallest(height, width)
    layers = Layers(
        nn.Linear(latent_dim, _WIDTHS[-1] * rows * columns),
        nn.Unflatten(1, (_WIDTHS[-1], rows, columns)),
        *(ResBlock(a, b) for a, b in pairwise(reversed(_WIDTHS))),
        nn.ReLU(),
        nn.Conv2d(_WIDTHS[0], channels, 1),
        nn.ZeroPad2d([-side for side in _padding(height, width)]),  # type: ignore[arg-type]
        nn.Flatten(1),
    )
    return LayersDecoder(layers)


def _smallest(height: int, width: int) -> tuple[int, int]:
    """The size after the last halving."""
    return math.ceil(height / _HALVED), math.ceil(width / _HALVED)


def _padding(height: int, width: int) -> tuple[int, int, int, int]:
    """Padding at the left, right, top and bottom that makes height and width multiples of `_HALVED`."""
    across, down = -width % _HALVED, -height % _HALVED
    return across // 2, across - across // 2, down // 2, down - down // 2


def _image_shape(spec: DataSpec) -> tuple[int, int, int]:
    if spec.image is None:
        raise ValueError("expected images for a network of convolutions, got data that are no images")
    return spec.image.shape
