"""Auxiliary variables u that are computed from x, for data without u, or in place of the data's u."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ivae_lab.config.numbers import PositiveInt
from ivae_lab.core.data import DataSpec


class Auxiliary(nn.Module):
    """A function from x to u in 0..u_dim-1.

    Attributes
    ----------
    u_dim
        M, the number of values of u.
    """

    u_dim: int

    def forward(self, x: Tensor) -> Tensor:
        """(B, d) to int64 labels (B,)."""
        raise NotImplementedError


class Rademacher(Auxiliary):
    """u is the orthant of a random projection: u = sum_i 2^i [(A x)_i > 0], A of N rows of fair signs +-1.

    Willetts and Paige 2021, Appendix C, Equations C.1 to C.3. A is drawn once, with the initial weights of the model,
    so each model seed has its own, as in the paper. x are the observations as networks see them, except that images
    that are binarised afresh at every step enter as their probabilities, so that u does not change from step to step.
    For images that were binarised once, u is computed from zeros and ones, so a row that is scored with
    `test_binarisation=fixed` may have another u than in training; `data.binarisation=fixed` makes both equal.

    Parameters
    ----------
    spec
        The data it is for.
    projections
        N; u has 2^N values.
    """

    def __init__(self, spec: DataSpec, *, projections: PositiveInt) -> None:
        super().__init__()
        self.u_dim = 2**projections
        self.register_buffer("signs", torch.randint(2, (projections, spec.x_dim)).float() * 2 - 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, d) to int64 labels (B,)."""
        signs = self.get_buffer("signs")
        # In float64 a sum over an image's values is exact, so ties do not depend on the order of the terms.
        bits = (x.double() @ signs.mT.double() > 0).long()  # (B, N)
        return (bits << torch.arange(len(signs), device=x.device)).sum(-1)
