"""Invertible transforms for flows: x to z with the log-determinant of the Jacobian, and back.

Couplings are implemented here, because no library we use has GIN's volume-preserving one; autoregressive and spline
transforms come from zuko. `transform(spec)` makes a transform, where `spec` is the data's `DataSpec`; it is written for
one model.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Literal

import torch
from annotated_types import MinLen
from torch import Tensor, nn

from ivae_lab.config.numbers import PositiveFloat, PositiveInt
from ivae_lab.core.data import DataSpec
from ivae_lab.networks.mlp import MLP

CouplingKind = Literal["gin", "gin_mean", "affine", "additive"]
Start = Literal["identity", "random"]  # the last layer of a coupling's networks at zero, or as PyTorch draws it
Subnetwork = Callable[[int, int], nn.Module]  # (inputs, outputs) to a network


class Transform(nn.Module):
    """An invertible map between x and z of the same size."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From x (B, ...) to z (B, ...) and log |det dz/dx|, (B,), in nats."""
        raise NotImplementedError

    def inverse(self, z: Tensor) -> Tensor:
        """From z to the x that `forward` maps to it."""
        raise NotImplementedError


class Chain(Transform):
    """Transforms one after another; log-determinants add up."""

    def __init__(self, steps: list[Transform]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Through all of them."""
        log_det = _no_change(x)
        for step in self.steps:
            x, change = step(x)
            log_det = log_det + change
        return x, log_det

    def inverse(self, z: Tensor) -> Tensor:
        """Back through all of them."""
        for step in reversed(self.steps):
            z = step.inverse(z)  # type: ignore[operator]
        return z


class Permutation(Transform):
    """A fixed random order of the first dimension after the rows: of numbers, or of an image's channels."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(size))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, size, ...) to the same."""
        return x[:, self.get_buffer("order")], _no_change(x)

    def inverse(self, z: Tensor) -> Tensor:
        """Restore the original order."""
        return z[:, self.get_buffer("order").argsort()]


class Checkerboard(Transform):
    """Halves height and width: the four pixels of every 2 x 2 square become four channels (Jacobsen et al. 2018)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) to (B, 4 C, H / 2, W / 2)."""
        return nn.functional.pixel_unshuffle(x, 2), _no_change(x)

    def inverse(self, z: Tensor) -> Tensor:
        """(B, 4 C, H, W) to (B, C, 2 H, 2 W)."""
        return nn.functional.pixel_shuffle(z, 2)


class Shape(Transform):
    """Reshapes each row: the same numbers, another shape."""

    def __init__(self, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        super().__init__()
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, *before) to (B, *after)."""
        return x.reshape(-1, *self.after), _no_change(x)

    def inverse(self, z: Tensor) -> Tensor:
        """(B, *after) to (B, *before)."""
        return z.reshape(-1, *self.before)


class Coupling(Transform):
    r"""A block of two couplings: each half is scaled and shifted by the output of a network of the other half.

    .. math:: y_2 = x_2 \odot \exp(s(x_1)) + t(x_1), \quad y_1 = x_1 \odot \exp(s'(y_2)) + t'(y_2)

    with scales clamped to (-c, c) by c tanh. `affine` is RealNVP's (Dinh et al. 2016), one network giving s and t
    (Kingma and Dhariwal 2018). `gin`: the last scale is minus the sum of the others, so that volume is preserved and
    the log-determinant is 0 (Sorrenson et al. 2020, Section 4.1, Equations 8 and 9); the network's output for it is
    not used, but the paper counts its weights among the parameters. That last scale is not clamped, so a half of 392
    pixels can have one of exp(782), and a half of one dimension has none. `gin_mean`: volume is preserved as in FrEIA,
    the authors' library: the mean of all scales is subtracted, so that each is within (-2 c, 2 c). `additive`: no
    scales, as in NICE (Dinh et al. 2014).

    Parameters
    ----------
    size
        Size of the dimension that is halved, the first after the rows; 2 or more.
    kind
        See above.
    subnetwork
        Makes the network of a half from (inputs, outputs).
    clamp
        c; null for `additive`, which has no scales.
    """

    def __init__(self, size: int, kind: CouplingKind, subnetwork: Subnetwork, clamp: float | None) -> None:
        super().__init__()
        if (clamp is None) != (kind == "additive"):
            raise ValueError(
                f"expected a clamp for couplings with scales and null for additive ones, got kind={kind}, clamp={clamp}"
            )
        if size < 2:
            raise ValueError(f"expected x of at least two dimensions for a coupling, got {size}")
        self.kind, self.clamp = kind, clamp
        self.sizes = [size // 2, size - size // 2]
        first, second = self.sizes
        outputs = 1 if kind == "additive" else 2
        self.of_first = subnetwork(first, outputs * second)
        self.of_second = subnetwork(second, outputs * first)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, size, ...) to the same."""
        x1, x2 = torch.split(x, self.sizes, 1)
        scale2, shift2 = self._scale_and_shift(self.of_first(x1))
        y2 = x2 * scale2.exp() + shift2
        scale1, shift1 = self._scale_and_shift(self.of_second(y2))
        y1 = x1 * scale1.exp() + shift1
        # For GIN the sum is 0 by construction; computing it would only add rounding.
        log_det = scale1.flatten(1).sum(1) + scale2.flatten(1).sum(1) if self.kind == "affine" else _no_change(x)
        return torch.cat([y1, y2], 1), log_det

    def inverse(self, z: Tensor) -> Tensor:
        """(B, size, ...) to the same."""
        y1, y2 = torch.split(z, self.sizes, 1)
        scale1, shift1 = self._scale_and_shift(self.of_second(y2))
        x1 = (y1 - shift1) * (-scale1).exp()
        scale2, shift2 = self._scale_and_shift(self.of_first(x1))
        return torch.cat([x1, (y2 - shift2) * (-scale2).exp()], 1)

    def _scale_and_shift(self, output: Tensor) -> tuple[Tensor, Tensor]:
        if self.clamp is None:
            return torch.zeros_like(output), output
        raw, shift = output.chunk(2, 1)
        scale = self.clamp * torch.tanh(raw)
        if self.kind == "gin":
            free = scale[:, :-1]
            scale = torch.cat([free, -free.sum(1, keepdim=True)], 1)
        elif self.kind == "gin_mean":
            scale = scale - scale.mean(1, keepdim=True)
        return scale, shift


class ConvNet(nn.Module):
    """Three 3 x 3 convolutions that keep height and width, ReLU between them; the last one starts at zero.

    Sorrenson et al. 2020, Table 3.
    """

    def __init__(self, inputs: int, outputs: int, *, hidden: int) -> None:
        super().__init__()
        channels = (inputs, hidden, hidden, outputs)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(channels))
        _to_zero(self.layers[-1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        first, second, last = self.layers
        return last(torch.relu(second(torch.relu(first(x)))))  # type: ignore[no-any-return]


def perceptron(inputs: int, outputs: int, *, hidden: int, layers: int, start: Start = "identity") -> MLP:
    """Make the network of a fully connected coupling: ReLU between its layers."""
    net = MLP(inputs, outputs, hidden=hidden, layers=layers, activation="relu", slope=0.1, init="torch")
    if start == "identity":
        _to_zero(net.linears[-1])
    return net


class Couplings(Chain):
    """Blocks of couplings, each after a fixed random permutation (Sorrenson et al. 2020, Table 2).

    Parameters
    ----------
    spec
        The data it is for.
    blocks
        Number of blocks.
    kind, clamp
        See `Coupling`.
    hidden, layers
        Width and number of linear maps of the networks, which start at the identity.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        blocks: PositiveInt,
        kind: CouplingKind,
        hidden: PositiveInt,
        layers: PositiveInt,
        clamp: PositiveFloat | None,
    ) -> None:
        super().__init__(fully_connected(spec.x_dim, blocks, kind, hidden, layers, clamp))


class ImageCouplings(Chain):
    """Convolutional couplings at one or more sizes of the image, then fully connected ones (same paper, Table 3).

    Before each size the image is halved (`Checkerboard`); before each block the channels are permuted.

    Parameters
    ----------
    spec
        The data it is for: images whose height and width can be halved once for each size.
    conv_blocks, conv_hidden
        Number of blocks at each size, and number of channels inside their networks.
    blocks, hidden, layers
        Those of the fully connected blocks at the end.
    kind, clamp
        See `Coupling`.

    Raises
    ------
    ValueError
        For data that are no images, or images that cannot be halved that many times.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        conv_blocks: Annotated[list[PositiveInt], MinLen(1)],
        conv_hidden: Annotated[list[PositiveInt], MinLen(1)],
        blocks: PositiveInt,
        hidden: PositiveInt,
        layers: PositiveInt,
        kind: CouplingKind,
        clamp: PositiveFloat | None,
    ) -> None:
        if spec.image is None:
            raise ValueError("expected images for convolutional couplings, got data that are none")
        if len(conv_blocks) != len(conv_hidden):
            raise ValueError(
                f"expected conv_blocks and conv_hidden of one length, got {len(conv_blocks)} and {len(conv_hidden)}"
            )
        channels, height, width = spec.image.shape
        steps: list[Transform] = [Shape((spec.x_dim,), (channels, height, width))]
        for count, inside in zip(conv_blocks, conv_hidden, strict=True):
            if height % 2 or width % 2:
                raise ValueError(
                    f"expected height and width that can be halved {len(conv_blocks)} times, "
                    f"got {spec.image.height} x {spec.image.width}"
                )
            channels, height, width = 4 * channels, height // 2, width // 2
            steps.append(Checkerboard())
            for _ in range(count):
                steps += [Permutation(channels), Coupling(channels, kind, _convolutional(inside), clamp)]
        steps.append(Shape((channels, height, width), (spec.x_dim,)))
        super().__init__(steps + fully_connected(spec.x_dim, blocks, kind, hidden, layers, clamp))


def fully_connected(
    size: int, blocks: int, kind: CouplingKind, hidden: int, layers: int, clamp: float | None, start: Start = "identity"
) -> list[Transform]:
    """Make `blocks` pairs of a permutation and a coupling."""

    def subnetwork(inputs: int, outputs: int) -> MLP:
        return perceptron(inputs, outputs, hidden=hidden, layers=layers, start=start)

    steps: list[Transform] = []
    for _ in range(blocks):
        steps += [Permutation(size), Coupling(size, kind, subnetwork, clamp)]
    return steps


class Autoregressive(Transform):
    """Autoregressive or coupling transforms of zuko, and a learned linear map after them.

    `affine` layers scale and shift (MAF; Papamakarios et al. 2017), `spline` layers are monotonic rational-quadratic
    splines on [-5, 5] and the identity beyond (NSF; Durkan et al. 2019). Every second layer takes the dimensions in the
    reverse order.

    Parameters
    ----------
    spec
        The data it is for.
    kind
        `affine` or `spline`.
    layers
        Number of layers.
    hidden
        Widths of the layers inside each layer's network.
    bins
        Number of bins of a spline; null for affine layers.
    passes
        Passes that inverting a layer takes: null, one for each dimension (fully autoregressive); 2, a coupling.
    linear
        Whether a learned linear map, as triangular factors L U, is the last step towards z.
    turned
        Whether x is first multiplied by a fixed random orthogonal matrix, so that seeds start from different
        orientations. Learned maps keep their orientation, so some solutions cannot be reached from one start.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        kind: Literal["affine", "spline"],
        layers: PositiveInt,
        hidden: Annotated[list[PositiveInt], MinLen(1)],
        bins: PositiveInt | None,
        passes: PositiveInt | None,
        linear: bool,
        turned: bool,
    ) -> None:
        super().__init__()
        if (bins is None) != (kind == "affine"):
            raise ValueError(f"expected bins for spline layers and null for affine ones, got kind={kind}, bins={bins}")
        import zuko  # slow to import

        if kind == "spline":
            flow = zuko.flows.NSF(spec.x_dim, transforms=layers, bins=bins, hidden_features=hidden, passes=passes)
        else:
            flow = zuko.flows.MAF(spec.x_dim, transforms=layers, hidden_features=hidden, passes=passes)
        self.layers = flow.transform
        start = torch.eye(spec.x_dim) + 0.01 * torch.randn(spec.x_dim, spec.x_dim)
        self.linear = zuko.flows.UnconditionalTransform(zuko.transforms.LULinearTransform, start) if linear else None
        self.turn: Tensor | None
        self.register_buffer("turn", nn.init.orthogonal_(torch.empty(spec.x_dim, spec.x_dim)) if turned else None)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, d) to the same."""
        z, log_det = self.layers().call_and_ladj(x if self.turn is None else x @ self.turn)
        if self.linear is not None:
            z, change = self.linear().call_and_ladj(z)
            log_det = log_det + change
        return z, log_det

    def inverse(self, z: Tensor) -> Tensor:
        """(B, d) to the same, one dimension (or pass) after the other."""
        if self.linear is not None:
            z = self.linear().inv(z)
        x: Tensor = self.layers().inv(z)
        return x if self.turn is None else x @ self.turn.mT


def _convolutional(hidden: int) -> Subnetwork:
    return lambda inputs, outputs: ConvNet(inputs, outputs, hidden=hidden)


def _to_zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def _no_change(x: Tensor) -> Tensor:
    """The log-determinant of a volume-preserving map: zeros, (B,)."""
    return torch.zeros_like(x.flatten(1)[:, 0])
