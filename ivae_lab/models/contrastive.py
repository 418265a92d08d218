"""Contrastive learning: features of x that predict its u, without a density of x (TCL and GCL)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Literal

import torch
from annotated_types import MinLen
from torch import Tensor, nn

from ivae_lab.config.numbers import PositiveFloat, PositiveInt
from ivae_lab.core.data import Batch, DataSpec
from ivae_lab.models.features import Affine, Features
from ivae_lab.models.linear import fast_ica
from ivae_lab.networks.base import look_up

Statistic = Literal["identity", "absolute", "square"]
STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda h: h,
    "absolute": torch.abs,
    "square": torch.square,
}


class LinearICA(nn.Module):
    """FastICA of features, where each seed starts from its own matrix; see `linear.IndependentComponents`."""

    def __init__(self, latent_dim: int, *, iterations: PositiveInt, tolerance: PositiveFloat) -> None:
        super().__init__()
        self.iterations, self.tolerance = iterations, tolerance
        self.map = Affine(latent_dim, latent_dim)  # the identity until the training is over
        self.register_buffer("first", torch.randn(latent_dim, latent_dim))

    def forward(self, h: Tensor) -> Tensor:
        """(B, n) to (B, n)."""
        return self.map(h)  # type: ignore[no-any-return]

    def fit(self, h: Tensor) -> None:
        """Fit FastICA to the features of all training rows, (N, n)."""
        start = self.get_buffer("first")
        self.map.fit(lambda rows: fast_ica(rows, start, self.iterations, self.tolerance), h)


class Contrastive(Features):
    r"""Features h(x) and a regression on their statistics T_j whose coefficients depend on u.

    .. math:: r(x, u) = \sum_{i=1}^n \sum_j \lambda_{ij}(u) T_j(h_i(x)) + b(u)

    If each source given u is of an exponential family with the statistics T_j, this is their log-density, up to terms
    that do not depend on u: with `identity` and `square`, all Gaussians.

    Parameters
    ----------
    spec, prior, latent_dim
        As in `Features`.
    network
        (d, outputs) to the network that computes the features, such as an `MLP`.
    statistics
        The T_j.
    ica
        Linear ICA, fitted to the features when the training is over; None: the latents are the features.

    Raises
    ------
    ValueError
        As `Features`, and for data without u.
    """

    extra = 0  # outputs of the network beside the features

    def __init__(
        self,
        spec: DataSpec,
        prior: Callable[[int, int], nn.Module],
        *,
        latent_dim: PositiveInt | None,
        network: Callable[[int, int], nn.Module],
        statistics: Annotated[list[Statistic], MinLen(1)],
        ica: Callable[[int], LinearICA] | None = None,
    ) -> None:
        super().__init__(spec, prior, latent_dim)
        if not spec.u_dim:
            raise ValueError("expected data with an auxiliary variable u for contrastive learning, got data without")
        self.network = network(spec.x_dim, self.latent_dim + self.extra)
        self.regression = nn.Linear(self.latent_dim * len(statistics), spec.u_dim)  # a row for each u
        self.statistics = [STATISTICS[name] for name in statistics]
        self.ica = ica(self.latent_dim) if ica is not None else None
        self.settles = ica is not None

    def contrast(self, x: Tensor, u: Tensor, noise: Tensor) -> Tensor:
        """The loss: (B, d), (B,) and (B, live_dim) to a scalar, in nats per row."""
        raise NotImplementedError

    def loss(self, batch: Batch, noise: Tensor, progress: Tensor) -> dict[str, Tensor]:
        """The loss of the classification; ELBO and its terms are NaN."""
        assert batch.u is not None  # the data have one
        loss = self.contrast(batch.x, batch.u, noise)
        nothing = torch.full_like(loss, torch.nan)
        return {"loss": loss, "elbo": nothing, "log_likelihood": nothing, "kl": nothing}

    def settle(self, blocks: Iterable[Batch]) -> None:
        """Fit linear ICA to the features of all training rows."""
        assert self.ica is not None
        self.ica.fit(torch.cat([self._outputs(block.x)[0] for block in blocks]))

    def features(self, x: Tensor) -> Tensor:
        """The latents: features, after linear ICA if there is one."""
        h, _ = self._outputs(x)
        return h if self.ica is None else self.ica(h)

    def examples(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Return nothing: there is no map from latents to x."""
        return {}

    def _outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Split the network's output into features, (B, n), and the rest, (B, extra)."""
        h, rest = self.network(x).tensor_split([self.latent_dim], -1)
        return h, rest

    def _statistics(self, h: Tensor) -> Tensor:
        return torch.cat([statistic(h) for statistic in self.statistics], -1)  # (B, n k)


class TCL(Contrastive):
    r"""Time-contrastive learning: multinomial logistic regression of the segment u on the features of x.

    .. math:: -\log p(u \mid x) = -r(x, u) + \log \sum_v \exp r(x, v)

    Hyvarinen and Morioka 2016 (https://arxiv.org/abs/1605.06336), Section 4, then linear ICA (Section 5). There the
    hidden units are maxout units; here the network is that of the other models. The paper's features are y = |h|, with
    h the last layer, for Laplace sources (`statistics: [absolute]`), and its latents, the linear ICA of y, determine a
    source up to its sign. Here sources are compared with signed latents, so the linear ICA is that of h. If means do
    not depend on u, the loss is the same for a feature that follows |s|: an MCC with s is then too low.
    """

    labels_only = True

    def contrast(self, x: Tensor, u: Tensor, noise: Tensor) -> Tensor:
        """Cross-entropy of u."""
        return nn.functional.cross_entropy(self._logits(x), u)

    def bound(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """The latents, and the cross-entropy of u."""
        assert batch.u is not None  # the data have one
        loss = nn.functional.cross_entropy(self._logits(batch.x), batch.u, reduction="none")
        return super().bound(batch, noise) | {"cross_entropy": loss}

    def _logits(self, x: Tensor) -> Tensor:
        return self.regression(self._statistics(self._outputs(x)[0]))  # type: ignore[no-any-return]  # (B, M)


class GCL(Contrastive):
    r"""Generalised contrastive learning: logistic regression between (x, u) and (x, u*), with u* from other rows.

    .. math:: \tfrac12 \mathbb{E} \log(1 + e^{-R(x, u)}) + \tfrac12 \mathbb{E} \log(1 + e^{R(x, u^*)})

    with :math:`R(x, u) = r(x, u) + a(x)`, whose optimum is :math:`\log p(x \mid u) - \log p(x)`
    (Hyvarinen, Sasaki and Turner 2019, https://arxiv.org/abs/1805.08651: Equations 7 to 9, and Theorem 3 for a sum of
    this form). The network gives a(x) beside the features. u* is u, permuted within the batch. Where u is columns of
    numbers, lambda and b are linear in them.
    """

    extra = 1  # a(x)
    live_dim = 1  # the order of these numbers is the permutation

    def contrast(self, x: Tensor, u: Tensor, noise: Tensor) -> Tensor:
        """The mean loss over rows with their own u and rows with another row's u."""
        h, offset = self._outputs(x)
        statistics = self._statistics(h)
        matched = self._regress(statistics, u) + offset.squeeze(-1)
        permuted = self._regress(statistics, u[noise[:, 0].argsort()]) + offset.squeeze(-1)
        return (nn.functional.softplus(-matched) + nn.functional.softplus(permuted)).mean() / 2

    def _regress(self, statistics: Tensor, u: Tensor) -> Tensor:
        """r(x, u): (B, n k) and (B,) to (B,). Nothing else reads u."""
        table = torch.cat([self.regression.weight, self.regression.bias.unsqueeze(-1)], -1)  # (M, n k + 1)
        slopes, offset = look_up(table, u).tensor_split([-1], -1)
        return (statistics * slopes).sum(-1) + offset.squeeze(-1)
