"""The map from the bytes of images to a model's observations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ivae_lab.core.data import Image

_LEVELS = 256


class Pixels(nn.Module):
    """Maps bytes b to observations: b / 255 for binary images, b / 255 - 1/2 for others.

    If the image is `redrawn`, an observation is 1 with probability b / 255 and else 0, drawn anew at every step
    ("fresh binarisation"). Bytes 0 and 255 then give 0 and 1 with certainty: images that were binarised once do not
    change.

    Parameters
    ----------
    image, binary
        Those of the data's `DataSpec`.
    """

    def __init__(self, image: Image, binary: bool) -> None:
        super().__init__()
        self.redrawn, self.offset = image.redrawn, 0.0 if binary else 0.5
        self.noise_dim = image.channels * image.height * image.width if image.redrawn else 0
        levels = torch.arange(_LEVELS, dtype=torch.float64) / (_LEVELS - 1)
        thresholds = torch.special.ndtri(levels)  # of standard normal numbers
        self.register_buffer("thresholds", thresholds.to(torch.get_default_dtype()))

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """(B, d) bytes and (B, noise_dim) standard normal numbers to (B, d); without noise the expected observation."""
        if self.redrawn and noise is not None:
            return (noise < self.get_buffer("thresholds")[x.long()]).to(self.get_buffer("thresholds").dtype)
        return x.to(torch.get_default_dtype()) / (_LEVELS - 1) - self.offset

    def shown(self, x: Tensor) -> Tensor:
        """Observations as grey or colour values in [0, 1]."""
        return (x + self.offset).clamp(0, 1)
