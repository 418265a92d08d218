"""Panels of figures: grids of axes, colours of labels, boxes, and points per data seed.

Figures are drawn on `matplotlib.figure.Figure` objects, without pyplot: no global state, no display.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ivae_lab.plots.methods import PALETTE, SCORES, in_words
from ivae_lab.plots.style import REPORTED_LINE, Picture

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def panels(
    names: Iterable[str], width: float, height: float, columns: int = 4, sharey: bool = False
) -> tuple[Figure, dict[str, Axes]]:
    """Make a figure with a panel for each name, in rows of at most `columns`; sizes in inches."""
    from matplotlib.figure import Figure

    listed = list(names)
    across = min(columns, len(listed))
    down = -(-len(listed) // across)
    figure = Figure(figsize=(max(width * across, 4.2), height * down + 0.5))
    axes = figure.subplots(down, across, squeeze=False, sharey=sharey).ravel()
    for spare in axes[len(listed) :]:
        spare.remove()
    return figure, dict(zip(listed, axes, strict=False))


def colours(rows: pd.DataFrame) -> dict[str, str]:
    """Choose a colour for each label: its method's, paler for the second, third, ... label of one method."""
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
    """Seed NumPy's global generator, which seaborn's jitter uses, and restore its state afterwards."""
    before = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(before)


def boxes(axis: Axes, rows: pd.DataFrame, x: str, score: str) -> None:
    """Draw a box per label at each value of x, every seed as a point on it, and the chance floor as a dotted line."""
    import seaborn

    palette = colours(rows)
    labels = list(palette)
    order = sorted(rows[x].dropna().unique())
    shared = {"data": rows, "x": x, "y": score, "hue": "label", "hue_order": labels, "order": order, "ax": axis}
    seaborn.boxplot(**shared, palette=palette, fliersize=0, linewidth=0.6, saturation=1, legend="full")
    with _repeatable():
        side_by_side = x != "label"  # otherwise each label is a value of x
        dark = dict.fromkeys(labels, "#222222")
        seaborn.stripplot(**shared, palette=dark, dodge=side_by_side, size=1.6, legend=False)
    for place, value in enumerate(order):
        floor = rows.loc[rows[x] == value, "chance"].mean()
        axis.plot([place - 0.45, place + 0.45], [floor, floor], ":", color=PALETTE["chance"])
    axis.set_ylim(0, 1)


def points_by_data_seed(rows: pd.DataFrame, score: str, reported: float | None = None) -> Picture:
    """Draw every run as a point over its data seed, and lines through the means of data seeds; a panel per variant."""
    figure, axes = panels(rows["variant"].unique(), width=3.4, height=2.6, columns=2, sharey=True)
    for variant, axis in axes.items():
        of_variant = rows[rows["variant"] == variant]
        for label, colour in colours(of_variant).items():
            part = of_variant[of_variant["label"] == label]
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


def empty(panel: Axes, words: str) -> None:
    """Write in an empty panel why it is empty."""
    panel.text(0.5, 0.5, words, transform=panel.transAxes, ha="center", va="center", color="#7F7F7F")
    panel.tick_params(left=False, labelleft=False)
