"""Figures of Willetts and Paige (2021): tables to pictures."""

from __future__ import annotations

from matplotlib.figure import Figure

from ivae_lab.plots import Picture, boxes
from ivae_lab.present import Tables

SIZE = "data.samples_per_segment"


def boxes_by_size(tables: Tables) -> Picture:
    """Figure 2: a box over model seeds for each method and size of data, a panel for each variant."""
    rows = tables["rows"]
    variants = list(rows["variant"].unique())
    figure = Figure(figsize=(3.4 * len(variants), 3))
    axes = figure.subplots(1, len(variants), squeeze=False, sharey=True)[0]
    for axis, variant in zip(axes, variants, strict=True):
        boxes(axis, rows[rows["variant"] == variant], SIZE, "mcc_mean")
        axis.set_title(f"{variant} setting")
        axis.set_xlabel("samples per segment")
    axes[0].set_ylabel("MCC of the posterior mean")
    axes[0].legend(loc="lower right")
    medians = rows.groupby(["variant", "label"])["mcc_mean"].median()
    said = "; ".join(f"{variant}, {label}: {value:.2f}" for (variant, label), value in medians.items())
    return Picture(
        "fig2",
        figure,
        f"Boxplots of MCC against samples per segment. Medians over all sizes: {said}.",
        "MCC with the true sources (posterior mean, Pearson, permutation only), a point per model seed. "
        "Dotted: chance floor.",
    )
