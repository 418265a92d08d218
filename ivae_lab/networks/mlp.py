"""Multi-layer perceptrons, and the encoder and decoder made of them; they compute the same in training and evaluation.

Networks for images are in `images.py`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ivae_lab.config.numbers import PositiveFloat, PositiveInt
from ivae_lab.core.data import DataSpec
from ivae_lab.core.mixture_generator import ReluNetwork
from ivae_lab.distributions.densities import CorrelatedNormal, Normal, Posterior
from ivae_lab.networks.base import (
    Activation,
    Decoder,
    Encoder,
    Init,
    Spread,
    activate,
    initialise,
    log_variance,
    look_up,
)


class MLP(nn.Module):
    """A multi-layer perceptron of (x, u): `layers` linear maps with an activation between them.

    The first layer is W [x, onehot(u)] + b = W_x x + W_u[u] + b, or W_x x + W_u u + b where u is columns of numbers.
    With `in_dim=0` the network is a function of u alone.
    Internally the rows of a batch are columns, h = W h + b: there are more rows than units, and long contiguous lines
    are fast (a compiled step of 50 networks of width 10 takes three quarters of the time).

    Parameters
    ----------
    in_dim, out_dim
        Width of x and of the result.
    u_dim
        M, the number of values of u, or that of its columns; 0 for a network that does not see u.
    hidden, layers
        Width of the hidden layers; number of linear maps.
    activation, slope, init
        See `activate` and `initialise`.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        hidden: PositiveInt,
        layers: PositiveInt,
        activation: Activation,
        slope: PositiveFloat,
        init: Init,
        u_dim: int = 0,
    ) -> None:
        super().__init__()
        self.activation, self.slope = activation, slope
        widths = [in_dim + u_dim, *[hidden] * (layers - 1), out_dim]
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        for linear in self.linears:
            initialise(linear.weight, init)  # type: ignore[arg-type]
        self.u_rows = self._split_first(in_dim) if u_dim else None  # (M, hidden)

    def _split_first(self, in_dim: int) -> nn.Parameter:
        """Take the columns that are multiplied by the one-hot u out of the first matrix."""
        joint: nn.Linear = self.linears[0]  # type: ignore[assignment]
        weight = joint.weight.detach()
        joint.weight = nn.Parameter(weight[:, :in_dim].clone()) if in_dim else None  # type: ignore[assignment]
        return nn.Parameter(weight[:, in_dim:].T.clone())

    def forward(self, x: Tensor | None, u: Tensor | None = None) -> Tensor:
        """(B, in_dim), None where in_dim is 0, and (B,) or (B, k) to (B, out_dim)."""
        first = self.linears[0]
        h = first.bias.unsqueeze(-1) if x is None else _columns(first, x.mT)  # type: ignore[operator]
        if self.u_rows is not None:
            if u is None:
                raise ValueError("expected u for a network that sees u, got none")
            h = h + look_up(self.u_rows, u).mT
        return self._rest(h)

    def table(self) -> Tensor:
        """The network's value at each of the M values of u, for `in_dim=0`: (M, out_dim)."""
        return self._rest((self.u_rows + self.linears[0].bias).mT)  # type: ignore[operator]

    def relu_network(self) -> ReluNetwork | None:
        """Return its weights as plain numbers if its activations are (leaky) ReLUs and it sees no u, else None."""
        if self.activation == "xtanh" or self.u_rows is not None or self.slope >= 1:
            return None
        parameters = [_as_array(parameter) for parameter in self.linears.parameters()]  # weight, bias, weight, ...
        slope = self.slope if self.activation == "leaky_relu" else 0.0
        return ReluNetwork(tuple(parameters[::2]), tuple(parameters[1::2]), slope)

    def _rest(self, h: Tensor) -> Tensor:
        """Apply the layers after the first: (hidden, B) to (B, out_dim)."""
        for linear in self.linears[1:]:
            h = _columns(linear, activate(h, self.activation, self.slope))
        return h.mT


def _as_array(parameter: Tensor) -> NDArray[np.float64]:
    return parameter.detach().double().cpu().numpy()


def _columns(linear: nn.Module, h: Tensor) -> Tensor:
    """A linear layer on columns: (in, B) to (out, B)."""
    return linear.weight @ h + linear.bias.unsqueeze(-1)  # type: ignore[operator]


class GaussianEncoder(Encoder):
    """q(z given x) or q(z given x, u): a Gaussian whose mean and log-variances are MLPs; counts enter as log(1 + x).

    Parameters
    ----------
    sees_u
        Whether u is an input beside x (Khemakhem et al. 2020, Section 5) or not (Willetts and Paige 2021).
    heads
        `separate`: one network for the mean and one for the variance; `shared`: one network with two outputs.
    std
        See `log_variance`.
    covariance
        `diagonal`; or `full`: the network of the variance gives a triangular matrix too. A factorised posterior lacks
        the correlations of p(z given x, u) that the mixing causes, however small the noise, so the model with the
        largest ELBO is not the one with the largest likelihood (Theorem 4 of Khemakhem et al. 2020 requires that the
        family of posteriors contains p(z given x, u)).
    """

    def __init__(
        self,
        spec: DataSpec,
        latent_dim: int,
        *,
        hidden: PositiveInt,
        layers: PositiveInt,
        activation: Activation,
        slope: PositiveFloat,
        init: Init,
        sees_u: bool,
        heads: Literal["separate", "shared"],
        std: Spread,
        covariance: Literal["diagonal", "full"] = "diagonal",
    ) -> None:
        super().__init__()
        if sees_u and not spec.u_dim:
            raise ValueError("expected data with an auxiliary variable u for an encoder that sees u, got data without")
        self.std, self.covariance, self.latent_dim, self.sees_u = std, covariance, latent_dim, sees_u
        self.counts = spec.counts
        spread = latent_dim * (1 + latent_dim) if covariance == "full" else latent_dim
        widths = [latent_dim, spread] if heads == "separate" else [latent_dim + spread]
        self.nets = nn.ModuleList(
            MLP(
                spec.x_dim,
                width,
                hidden=hidden,
                layers=layers,
                activation=activation,
                slope=slope,
                init=init,
                u_dim=spec.u_dim if sees_u else 0,
            )
            for width in widths
        )

    def forward(self, x: Tensor, u: Tensor | None, noise: Tensor | None = None) -> Posterior:
        """(B, d) and (B,) or (B, k) to a Gaussian over (B, n)."""
        if self.counts:  # rates are positive, and span orders of magnitude
            x = torch.log1p(x)
        joint, n = torch.cat([net(x, u) for net in self.nets], -1), self.latent_dim
        if self.covariance == "diagonal":
            mean, spread = joint.chunk(2, -1)  # (B, n) each
            return Normal(mean, log_variance(spread, self.std))
        mean, spread, square = joint.tensor_split([n, 2 * n], -1)
        return CorrelatedNormal(mean, log_variance(spread, self.std), square.reshape(*square.shape[:-1], n, n).tril(-1))


class MLPDecoder(Decoder):
    """Maps z to the parameter of p(x given z): a mean (Gaussian), logits (Bernoulli, codes) or a log-rate (counts)."""

    def __init__(
        self,
        spec: DataSpec,
        latent_dim: int,
        *,
        hidden: PositiveInt,
        layers: PositiveInt,
        activation: Activation,
        slope: PositiveFloat,
        init: Init,
    ) -> None:
        super().__init__()
        widths = (latent_dim, spec.x_dim)
        self.net = MLP(*widths, hidden=hidden, layers=layers, activation=activation, slope=slope, init=init)

    def forward(self, z: Tensor, noise: Tensor | None = None) -> Tensor:
        """(B, n) to (B, d)."""
        return self.net(z)  # type: ignore[no-any-return]
