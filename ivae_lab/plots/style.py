"""Style of all figures, and functions that save them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ivae_lab.storage.atomic import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SEQUENTIAL = "viridis"
REPORTED_LINE: dict[str, Any] = {"linestyle": ":", "color": "#555555", "linewidth": 0.8}  # of a number in a paper
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
# Suffix -> metadata: without dates, so equal figures are equal files.
FORMATS: dict[str, dict[str, Any] | None] = {".png": None, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}


def save(figure: Figure, path: Path, suffixes: Sequence[str] = (".png", ".pdf")) -> None:
    """Write a figure under `path`, which has no suffix, in each of the formats."""
    from matplotlib import rc_context

    # Lay out once: any engine, also the placeholder that "none" leaves, draws everything again before each file.
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
    """A drawn figure with its file name, a caption, and a description for readers who do not see it."""

    stem: str
    figure: Figure
    alt: str
    caption: str
