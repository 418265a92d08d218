"""Draw a run whose true sources are unknown: its latents, coloured by u."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ivae_lab.plots.panels import empty
from ivae_lab.plots.recovered import POINTS, Arrays, coloured_by
from ivae_lab.plots.style import SEQUENTIAL, STYLE, save
from ivae_lab.runs.arrays import read_latents

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize

SEEDS, LATENTS = 3, 4  # most seeds and latents that are drawn
FEW = 10  # most labels that have distinct colours


def latents_by_u(folder: Path, target: Path, title: str) -> None:
    """Draw posterior means of the first seeds, a row for each, coloured by u.

    If u are labels, the latents that vary most are drawn in pairs, one over the other; if u are numbers, these latents
    are drawn over the first column of u. The latent that varies most stands first; numbers are those of latents.npz.

    Parameters
    ----------
    folder
        A run folder with u in its `latents.npz`.
    target
        Path to write a PNG and a PDF to, without suffix.
    title
        Data and model, such as "ivae on file".
    """
    from matplotlib import rc_context
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    arrays = read_latents(folder / "latents.npz")
    seeds = min(len(arrays["seed"]), SEEDS)
    labels = arrays["u"].ndim == 1
    across = min(arrays["mean"].shape[2], LATENTS)
    columns = max(across // 2, 1) if labels else across
    with rc_context(STYLE):
        figure = Figure(figsize=(1.8 * columns + 1.2, 1.7 * seeds + 0.7))
        axes = figure.subplots(seeds, columns, squeeze=False)
        for row, panels in enumerate(axes):
            _seed(panels, arrays, row, labels)
        shown = ScalarMappable(*_colouring(labels, coloured_by(arrays)))
        ticks = MaxNLocator(integer=labels)
        figure.colorbar(shown, ax=axes, label="u" if labels else "u, first column", pad=0.02, ticks=ticks)
        figure.suptitle(f"{title}: posterior means", fontsize=STYLE["axes.titlesize"])
        save(figure, target)


def _seed(axes: NDArray[Any], arrays: Arrays, row: int, labels: bool) -> None:
    z, u = arrays["mean"][row], coloured_by(arrays)  # (N, n), (N,)
    axes[0].annotate(f"seed {arrays['seed'][row]}", (0, 1.04), xycoords="axes fraction", fontsize=7)
    if not np.isfinite(z).all():
        for axis in axes:
            empty(axis, "diverged")
        return
    drawn = np.random.default_rng(0).permutation(len(z))[:POINTS]  # in random order: no u on top
    order = np.argsort(-z.std(0), kind="stable")
    for place, axis in enumerate(axes):
        x, y = (2 * place, 2 * place + 1) if labels else (None, place)
        _scatter(axis, z[drawn], u[drawn], order, x, y, labels)


def _scatter(
    axis: Axes, z: NDArray[Any], u: NDArray[Any], order: NDArray[Any], x: int | None, y: int, labels: bool
) -> None:
    """Draw a latent over another, or over u where `x` is None; the last latent takes the place of a missing one."""
    above = min(y, z.shape[1] - 1)
    across = u if x is None else z[:, order[x]]
    norm, cmap = _colouring(labels, u)
    axis.scatter(across, z[:, order[above]], c=u, norm=norm, cmap=cmap, s=4, alpha=0.7, linewidths=0, rasterized=True)
    axis.set_xlabel("u" if x is None else f"latent {order[x] + 1}")
    axis.set_ylabel(f"latent {order[above] + 1}")


def _colouring(labels: bool, u: NDArray[Any]) -> tuple[Normalize, Colormap]:
    """Choose distinct colours for a few labels, otherwise a sequential scale."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, Normalize

    if labels and u.max() < FEW:
        return Normalize(-0.5, u.max() + 0.5), ListedColormap(colormaps["tab10"].colors[: u.max() + 1])  # type: ignore[attr-defined]
    return Normalize(u.min(), u.max()), colormaps[SEQUENTIAL]
