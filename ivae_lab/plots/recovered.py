"""Draw recovered against true sources, a row of panels for each seed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ivae_lab.plots.methods import PALETTE
from ivae_lab.plots.panels import empty
from ivae_lab.plots.style import SEQUENTIAL, STYLE, save
from ivae_lab.runs.arrays import read_latents

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ivae_lab.metrics.mcc import Matching

SEEDS, SOURCES, POINTS = 5, 6, 1000  # most rows and columns of panels, and points in a panel
Arrays = Mapping[str, NDArray[Any]]


def recovered(
    latents: Path | Arrays,
    path: Path,
    title: str,
    kind: Literal["mean", "sample"] = "mean",
    split: str | None = None,
) -> None:
    """Draw true sources against the latents matched to them, one row of panels per seed.

    The first seeds and sources are shown, in their order and never by their score; the figure says where it was cut.
    Latents are matched by the strong MCC with Pearson's coefficient, standardised, and flipped where the correlation
    is negative. Correlations are of all rows, of which at most 1000 are drawn, the same in every panel.

    Parameters
    ----------
    latents
        A run folder, its `latents.npz`, or the arrays of that file.
    path
        Path to write a PNG and a PDF to, without suffix.
    title
        Data and model, such as "tcl, ivae".
    kind
        Latents to draw: the posterior mean, or one posterior sample.
    split
        Rows of one split, None for all rows.

    Raises
    ------
    ValueError
        If the true sources are unknown, or the split has no rows.
    """
    from matplotlib import rc_context

    arrays = _rows_of_split(read_latents(latents) if isinstance(latents, Path) else latents, split)
    # Fixed margins and titles: a layout engine takes longer than all the drawing.
    with rc_context(STYLE | {"figure.constrained_layout.use": False, "axes.titley": 1.0}):
        lines = (
            f"{title}: recovered sources",
            _description(arrays, kind, split),
            "latents standardised, signs flipped to match",
        )
        save(_panels(arrays, kind, lines), path)


def _rows_of_split(arrays: Arrays, split: str | None) -> Arrays:
    if "sources" not in arrays:
        raise ValueError(f"expected latents with true sources, got {', '.join(arrays)}")
    if split is None:
        return arrays
    keep = arrays["split"] == split  # (N,)
    if not keep.any():
        raise ValueError(f"expected a split among {', '.join(np.unique(arrays['split']))}, got {split}")
    cut = {name: arrays[name][keep] for name in ("sources", "u", "index", "split") if name in arrays}
    return {"seed": arrays["seed"], "mean": arrays["mean"][:, keep], "sample": arrays["sample"][:, keep]} | cut


def _description(arrays: Arrays, kind: str, split: str | None) -> str:
    """Describe in words what the figure shows and what it leaves out."""
    seeds, (rows, sources) = len(arrays["seed"]), arrays["sources"].shape
    parts = [f"posterior {kind}, {f'{split} split' if split else 'all splits'}"]
    parts += [f"{POINTS} of {rows} points drawn"] if rows > POINTS else [f"{rows} points"]
    parts += [f"first {SEEDS} of {seeds} seeds"] if seeds > SEEDS else []
    parts += [f"first {SOURCES} of {sources} sources"] if sources > SOURCES else []
    return ", ".join(parts)


def _panels(arrays: Arrays, kind: str, lines: Iterable[str]) -> Figure:
    from matplotlib.figure import Figure

    rows, columns = min(len(arrays["seed"]), SEEDS), min(arrays["sources"].shape[1], SOURCES)
    width, height = 1.4 * columns + 1.7, 1.4 * rows + 1.1  # inches
    figure = Figure(figsize=(width, height))
    heading = "\n".join(textwrap.fill(line, int(15 * width)) for line in lines)  # 15 characters an inch
    top = height - 0.3 - 0.14 * (heading.count("\n") + 1)
    figure.suptitle(heading, fontsize=STYLE["axes.titlesize"], y=1 - 0.05 / height)
    sides = {"left": 0.9 / width, "right": 1 - 0.75 / width, "bottom": 0.45 / height, "top": top / height}
    spaces = {"wspace": 0.1, "hspace": 0.25}
    axes = figure.subplots(rows, columns, squeeze=False, sharex="col", sharey=True, gridspec_kw=sides | spaces)
    drawn = np.random.default_rng(0).permutation(len(arrays["sources"]))[:POINTS]  # in random order: no u on top
    for row in range(rows):
        _seed_row(axes[row], arrays, kind, row, drawn)
    for column in range(columns):
        axes[-1, column].set_xlabel(f"true source {column + 1}")
    figure.supylabel("matched latent", fontsize=STYLE["axes.labelsize"], x=0.05 / width)
    if "u" in arrays:
        edge, high = sides["right"] + 0.12 / width, sides["top"] - sides["bottom"]
        _colour_bar(figure, arrays, (edge, sides["bottom"], 0.12 / width, high))
    return figure


def _colour_bar(figure: Figure, arrays: Arrays, place: tuple[float, float, float, float]) -> None:
    """Draw the scale of u's colours, at a place in fractions of the figure: left, bottom, width, height."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    u = coloured_by(arrays)
    colours = ScalarMappable(Normalize(u.min(), u.max()), SEQUENTIAL)
    ticks = MaxNLocator(integer=u.dtype.kind == "i")  # a label
    label = "u" if arrays["u"].ndim == 1 else "u, first column"
    figure.colorbar(colours, cax=figure.add_axes(place), label=label, ticks=ticks)


def _seed_row(axes: NDArray[Any], arrays: Arrays, kind: str, row: int, drawn: NDArray[Any]) -> None:
    """Draw one seed: a panel per source."""
    from ivae_lab.metrics.mcc import match

    latents, sources = arrays[kind][row], arrays["sources"]  # (N, n), (N, k)
    diverged = not np.isfinite(latents).all()
    matching = match(latents, sources)
    score = "diverged" if diverged else f"MCC {np.nanmean(np.abs(matching.correlations)):.2f}"
    axes[0].set_ylabel(f"seed {arrays['seed'][row]}\n{score}")
    for column, panel in enumerate(axes):
        if diverged or matching.columns[column] < 0:
            empty(panel, "diverged" if diverged else "no latent left")
        else:
            _scatter(panel, arrays, latents, matching, column, drawn)


def _scatter(
    panel: Axes, arrays: Arrays, latents: NDArray[Any], matching: Matching, column: int, drawn: NDArray[Any]
) -> None:
    correlation = matching.correlations[column]
    latent = _standardised(latents[:, matching.columns[column]]) * (-1 if correlation < 0 else 1)  # (N,)
    colour: dict[str, Any] = {"color": PALETTE["ivae"]}
    if "u" in arrays:
        u = coloured_by(arrays)
        colour = {"c": u[drawn], "cmap": SEQUENTIAL, "vmin": u.min(), "vmax": u.max()}
    panel.scatter(
        arrays["sources"][drawn, column], latent[drawn], s=5, alpha=0.6, linewidths=0, rasterized=True, **colour
    )
    panel.set_title(f"|r| = {abs(correlation):.2f}")


def coloured_by(arrays: Arrays) -> NDArray[Any]:
    """Return the values that colour the points, (N,): the labels u, or its first column."""
    return arrays["u"] if arrays["u"].ndim == 1 else arrays["u"][:, 0]


def _standardised(values: NDArray[Any]) -> NDArray[np.float64]:
    """Scale to mean 0 and standard deviation 1; a constant, such as a collapsed latent, becomes 0."""
    centred = values.astype(np.float64) - values.mean(dtype=np.float64)
    return np.asarray(centred / centred.std() if np.ptp(values) else np.zeros_like(centred))
