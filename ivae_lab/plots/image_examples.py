"""Draw a run on images: reconstructions, draws from the prior, and traversals of its first seed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ivae_lab.core.arrays import Floats
from ivae_lab.plots.panels import empty
from ivae_lab.plots.recovered import Arrays
from ivae_lab.plots.style import STYLE, save
from ivae_lab.runs.arrays import read_examples

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BANDS, ACROSS = 2, 16  # rows of original images, each above its reconstructions; images in a row
DRAWN = 10  # at most as many values of u or components have a row of draws


def image_examples(folder: Path, target: Path, title: str) -> None:
    """Draw images over their reconstructions, images drawn from the prior, and traversals, of a run's first seed.

    The rows shown are always the first of `examples.npz`, and the seed is the first. Models without a prior to draw
    from have reconstructions only, those with a grid of codes no traversals.

    Parameters
    ----------
    folder
        A run folder of images.
    target
        Path to write a PNG and a PDF to, without suffix.
    title
        Data and model, such as "vade on mnist".

    Raises
    ------
    FileNotFoundError
        If there is no `examples.npz`.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    arrays = read_examples(folder)
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 6.8 if "traversals" in arrays else 3.8 if "drawn" in arrays else 2.4))
        figure.suptitle(f"{title}, seed {arrays['seed'][0]}")
        _fill(figure, arrays)
        save(figure, target)


def _fill(figure: Figure, arrays: Arrays) -> None:
    """Draw the panels: reconstructions, and below them draws from the prior and traversals side by side."""
    if "drawn" not in arrays:
        _reconstructions(figure.subplots(), arrays)
        return
    if "traversals" not in arrays:
        shown, drawn = figure.subplots(2, height_ratios=[1.9, 1])
        _reconstructions(shown, arrays)
        _mosaic(drawn, arrays["drawn"][0], arrays["image"], "drawn from the prior")
        return
    axes = figure.subplot_mosaic([["shown", "shown"], ["drawn", "moved"]], height_ratios=[1.9, 4.1])
    _reconstructions(axes["shown"], arrays)
    latents = [f"$z_{{{latent}}}$" for latent in arrays["traversed"][0]]
    drawn, parts = arrays["drawn"][0, :DRAWN], arrays["prior_mean"].shape[1]
    rows = f": a row for each\nvalue of u or component ({len(drawn)} of {parts})" if parts > 1 else ""
    _mosaic(axes["drawn"], drawn, arrays["image"], f"drawn from the prior{rows}")
    _mosaic(axes["moved"], arrays["traversals"][0], arrays["image"], "one latent moved, the others kept", latents)


def _reconstructions(axis: Axes, arrays: Arrays) -> None:
    x, made = arrays["x"] / 255, arrays["reconstruction"][0]  # (R, d) each
    bands = min(BANDS, -(-len(x) // ACROSS))
    parts = (part[band * ACROSS : (band + 1) * ACROSS] for band in range(bands) for part in (x, made))
    whole = np.ones((2 * bands, ACROSS, x.shape[1]))
    for row, part in zip(whole, parts, strict=True):
        row[: len(part)] = part
    _mosaic(axis, whole, arrays["image"], "images, and below each its reconstruction", ["x", "x̂"] * bands)


def _mosaic(
    axis: Axes, images: Floats, shape: NDArray[np.integer[Any]], title: str, names: list[str] | None = None
) -> None:
    """Draw rows of images (rows, across, d) as one picture, with the names of the rows."""
    axis.set_title(title)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    axis.set_anchor("N")
    if not np.isfinite(images).all():
        empty(axis, "diverged")
        return
    axis.imshow(tiled(images, tuple(shape)), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    if names is not None:
        height = shape[1] + 1
        axis.set_yticks(np.arange(len(names)) * height + height / 2 - 1, names)
        axis.tick_params(left=False)


def tiled(images: Floats, shape: tuple[int, ...]) -> Floats:
    """Tile images with a white pixel between them: (rows, across, C H W) to (h, w), or (h, w, 3) for colours."""
    rows, across = images.shape[:2]
    channels, height, width = shape
    framed = np.ones((rows, height + 1, across, width + 1, channels))
    framed[:, :height, :, :width] = images.reshape(rows, across, *shape).transpose(0, 3, 1, 4, 2)
    whole = framed.reshape(rows * (height + 1), across * (width + 1), channels)[:-1, :-1]
    return whole[..., 0] if channels == 1 else whole
