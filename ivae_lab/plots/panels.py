"""Style of all figures, colours fixed per method, and the figure of recovered against true sources.

Figures are drawn on `matplotlib.figure.Figure` objects, without pyplot: no global state, no display.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ivae_lab.runs.arrays import read_latents
from ivae_lab.storage.atomic import atomic

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ivae_lab.metrics.mcc import Matching

# Okabe and Ito's colours, which colour-blind readers can tell apart, and Tol's for the rest. A method has the same
# colour in every figure.
PALETTE = {
    "ivae": "#0072B2",
    "vae": "#7F7F7F",
    "beta_vae": "#E69F00",
    "beta_tcvae": "#D55E00",
    "vade": "#009E73",
    "mfcvae": "#CC79A7",
    "vampprior": "#AA4499",
    "gmvae": "#88CCEE",
    "gin": "#56B4E9",
    "glow": "#661100",
    "nice": "#DDCC77",
    "iflow": "#44AA99",
    "gmm_flow": "#332288",
    "exact": "#B15928",
    "rademacher": "#882255",
    "rvqvae": "#117733",
    "ae": "#4D4D4D",
    "pca": "#999933",
    "fastica": "#AA7744",
    "segment_ica": "#6699CC",
    "tcl": "#994455",
    "gcl": "#EE99AA",
    "chance": "#BBBBBB",
}
NAMES = {
    "ivae": "iVAE",
    "vae": "VAE",
    "beta_vae": "β-VAE",
    "beta_tcvae": "β-TC-VAE",
    "vade": "VaDE",
    "mfcvae": "MFCVAE",
    "vampprior": "VampPrior",
    "gmvae": "GMVAE",
    "gin": "GIN",
    "glow": "GLOW",
    "nice": "NICE",
    "iflow": "identifiable flow",
    "gmm_flow": "GMM-flow",
    "exact": "exact likelihood",
    "pca": "PCA on x",
    "fastica": "FastICA on x",
    "segment_ica": "segment ICA on x",
    "tcl": "TCL",
    "gcl": "GCL",
}
SCORES = {"mcc_mean": "MCC of the posterior mean", "mcc_sample": "MCC of a posterior sample"}
SEQUENTIAL = "viridis"
REPORTED_LINE: dict[str, Any] = {"linestyle": ":", "color": "#555555", "linewidth": 0.8}  # at what a paper reports
STYLE: dict[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "figure.titlesize": 10,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "savefig.dpi": 200,
    "svg.hashsalt": "ivae_lab",
    "svg.fonttype": "none",
    "figure.constrained_layout.use": True,
}
SEEDS, SOURCES, POINTS = 5, 6, 1000  # most rows and columns of panels, and points in each

Arrays = Mapping[str, NDArray[Any]]


# Suffix -> metadata: without dates, so equal figures are equal files.
FORMATS: dict[str, dict[str, Any] | None] = {".png": None, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}


def save(figure: Figure, path: Path, suffixes: Sequence[str] = (".png", ".pdf")) -> None:
    """Write a figure under `path`, which has no suffix, in each of the formats."""
    from matplotlib import rc_context

    # Laid out once: with an engine, also the placeholder that "none" leaves, all is drawn once more before each file.
    with rc_context({"figure.constrained_layout.use": False}):
        if figure.get_layout_engine() is not None:
            figure.draw_without_rendering()
            figure.set_layout_engine(None)
        for suffix in suffixes:
            metadata = FORMATS[suffix]
            with atomic(path.with_name(path.name + suffix)) as temporary:
                figure.savefig(temporary, metadata=metadata)


@dataclass(frozen=True)
class Picture:
    """A drawn figure with its file name, and in words what it shows, for those who do not see it."""

    stem: str
    figure: Figure
    alt: str
    caption: str


def method_of(model: str) -> str:
    """The method that a choice of `model` belongs to, a key of PALETTE.

    Examples
    --------
    >>> method_of("beta_vae_released")
    'beta_vae'
    """
    fitting = [method for method in PALETTE if model == method or model.startswith(f"{method}_")]
    return max(fitting, key=len, default=model)


def name_of(model: str) -> str:
    """The name of a model's method for legends."""
    return NAMES.get(method_of(model), model)


def panels(
    names: Iterable[str], width: float, height: float, columns: int = 4, sharey: bool = False
) -> tuple[Figure, dict[str, Axes]]:
    """A figure with a panel for each name, in rows of at most `columns`; sizes in inches."""
    from matplotlib.figure import Figure

    named = list(names)
    across = min(columns, len(named))
    down = -(-len(named) // across)
    figure = Figure(figsize=(max(width * across, 4.2), height * down + 0.5))
    axes = figure.subplots(down, across, squeeze=False, sharey=sharey).ravel()
    for spare in axes[len(named) :]:
        spare.remove()
    return figure, dict(zip(named, axes, strict=False))


def colours(rows: pd.DataFrame) -> dict[str, str]:
    """A colour for each label of the rows: its method's, paler for the second, third, ... label of one method."""
    from matplotlib.colors import to_hex, to_rgb

    chosen: dict[str, str] = {}
    used: dict[str, int] = {}
    for label, method in rows[["label", "method"]].drop_duplicates().itertuples(index=False):
        rank = used[method] = used.get(method, -1) + 1
        pale = 1 - 0.6**rank
        red, green, blue = (part + (1 - part) * pale for part in to_rgb(PALETTE.get(method, "#333333")))
        chosen[label] = to_hex((red, green, blue))
    return chosen


@contextmanager
def _repeatable() -> Iterator[None]:
    """Give seaborn's jitter, which takes NumPy's global generator, the same numbers each time, and leave no trace."""
    before = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(before)


def boxes(axis: Axes, rows: pd.DataFrame, x: str, score: str) -> None:
    """A box per label at each value of x with every seed as a point on it, and the chance floor as a dotted line."""
    import seaborn

    palette = colours(rows)
    labels = list(palette)
    order = sorted(rows[x].dropna().unique())
    shared = {"data": rows, "x": x, "y": score, "hue": "label", "hue_order": labels, "order": order, "ax": axis}
    seaborn.boxplot(**shared, palette=palette, fliersize=0, linewidth=0.6, saturation=1, legend="full")
    with _repeatable():
        side_by_side = x != "label"  # else each label has a place of its own
        dark = dict.fromkeys(labels, "#222222")
        seaborn.stripplot(**shared, palette=dark, dodge=side_by_side, size=1.6, legend=False)
    for place, value in enumerate(order):
        floor = rows.loc[rows[x] == value, "chance"].mean()
        axis.plot([place - 0.45, place + 0.45], [floor, floor], ":", color=PALETTE["chance"])
    axis.set_ylim(0, 1)


def points_by_data_seed(rows: pd.DataFrame, score: str, reported: float | None = None) -> Picture:
    """Every run as a point over its data seed, lines through the means of data seeds, a panel for each variant."""
    figure, axes = panels(rows["variant"].unique(), width=3.4, height=2.6, columns=2, sharey=True)
    for variant, axis in axes.items():
        own = rows[rows["variant"] == variant]
        for label, colour in colours(own).items():
            part = own[own["label"] == label]
            axis.plot(part["data_seed"], part[score], "o", color=colour, markersize=2, alpha=0.6)
            means = part.groupby("data_seed")[score].mean()
            axis.plot(means.index, means, "-", color=colour, linewidth=0.8, label=label)
        if reported is not None:
            axis.axhline(reported, **REPORTED_LINE)
        axis.set(title=variant, xlabel="data seed", ylim=(0, 1), xticks=sorted(rows["data_seed"].unique()))
        axis.set_ylabel(SCORES[score])
        axis.legend(loc="lower left", ncols=2)
    medians = rows.groupby(["variant", "label", "data_seed"], sort=False)[score].mean()
    medians = medians.groupby(["variant", "label"], sort=False).median()
    dotted = "" if reported is None else f" Dotted: the {reported:g} that the paper reports."
    return Picture(
        "data_seeds",
        figure,
        f"{SCORES[score]} for each data seed, a line per method. Medians over data seeds: {in_words(medians)}.",
        f"Each point is a model seed, lines join the means of data seeds.{dotted}",
    )


def in_words(values: pd.Series[float]) -> str:
    """Numbers of groups, of a series indexed by several columns, as a sentence for those who do not see the picture."""
    items: Any = values.to_dict().items()
    return "; ".join(f"{', '.join(str(part) for part in key)} {value:.3g}" for key, value in items)


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
        A run folder, its `latents.npz`, or the arrays in there.
    path
        Where to write, without suffix: a PNG and a PDF.
    title
        Says which data and model, such as "tcl, ivae".
    kind
        Which latents: the posterior mean, or one posterior sample.
    split
        Rows of one split, None for all rows.

    Raises
    ------
    ValueError
        If the true sources are unknown, or the split has no rows.
    """
    from matplotlib import rc_context

    arrays = _rows_of_split(read_latents(latents) if isinstance(latents, Path) else latents, split)
    # Margins and titles at known places: finding them takes longer than all the drawing.
    with rc_context(STYLE | {"figure.constrained_layout.use": False, "axes.titley": 1.0}):
        lines = (
            f"{title}: recovered sources",
            _said(arrays, kind, split),
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


def _said(arrays: Arrays, kind: str, split: str | None) -> str:
    """Say what the figure shows and what it leaves out."""
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
    """The scale of u's colours, at a place in fractions of the figure: left, bottom, width, height."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    u = coloured_by(arrays)
    colours = ScalarMappable(Normalize(u.min(), u.max()), SEQUENTIAL)
    ticks = MaxNLocator(integer=u.dtype.kind == "i")  # a label
    label = "u" if arrays["u"].ndim == 1 else "u, first column"
    figure.colorbar(colours, cax=figure.add_axes(place), label=label, ticks=ticks)


def _seed_row(axes: NDArray[Any], arrays: Arrays, kind: str, row: int, drawn: NDArray[Any]) -> None:
    """One seed: a panel per source."""
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
    """What points are coloured by: the labels u, or the first of its columns, (N,)."""
    return arrays["u"] if arrays["u"].ndim == 1 else arrays["u"][:, 0]


def _standardised(values: NDArray[Any]) -> NDArray[np.float64]:
    """Mean 0 and standard deviation 1; a constant, such as a collapsed latent, becomes 0."""
    centred = values.astype(np.float64) - values.mean(dtype=np.float64)
    return np.asarray(centred / centred.std() if np.ptp(values) else np.zeros_like(centred))


def empty(panel: Axes, words: str) -> None:
    """Say in a panel why there is nothing in it."""
    panel.text(0.5, 0.5, words, transform=panel.transAxes, ha="center", va="center", color="#7F7F7F")
    panel.tick_params(left=False, labelleft=False)
