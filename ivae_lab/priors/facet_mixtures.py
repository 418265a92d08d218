"""The prior of an MFCVAE: the latents are split into facets, each with its own mixture."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ivae_lab.config.numbers import PositiveFloat, PositiveInt
from ivae_lab.distributions.densities import Facets
from ivae_lab.priors.mixture import GaussianMixture


class FacetMixtures(nn.Module):
    """p(z) = prod_j sum_k w_jk N(z_j; m_jk, S_jk): several independent clusterings (Falck et al. 2021, Section 3).

    https://arxiv.org/abs/2106.05241

    Parameters
    ----------
    facets
        J; the n latents are split into parts as equal as possible, the first the longest (`torch.tensor_split`).
    components, init, covariance, variance
        As in `GaussianMixture`, for each facet.

    Raises
    ------
    ValueError
        If there are fewer latents than facets.
    """

    def __init__(
        self,
        latent_dim: int,
        u_dim: int,
        *,
        facets: PositiveInt,
        components: PositiveInt,
        init: Literal["xavier_uniform", "xavier_normal", "gmm"],
        covariance: Literal["diagonal", "full"],
        variance: PositiveFloat | None,
    ) -> None:
        super().__init__()
        if latent_dim < facets:
            raise ValueError(f"expected at least as many latents as facets ({facets}), got {latent_dim}")
        self.facets, self.components, self.starts_from_data = facets, components, init == "gmm"
        self.each = nn.ModuleList(
            GaussianMixture(
                len(part), u_dim, components=components, init=init, covariance=covariance, variance=variance
            )
            for part in torch.arange(latent_dim).tensor_split(facets)
        )

    def forward(self, u: Tensor | None) -> Facets:
        """The same density whatever u."""
        return Facets(tuple(mixture(u) for mixture in self.each))

    def fit(self, z: Tensor, seed: int) -> None:
        """Fit the mixture of each facet to its part of the rows of z, (N, n)."""
        for mixture, part in zip(self.each, z.tensor_split(self.facets, -1), strict=True):
            mixture.fit(part, seed)  # type: ignore[operator]
