"""Figure 2 of Kivva et al. (2022): run folders to tables, and tables to pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ivae_lab.metrics.mcc import match
from ivae_lab.pairs import pairs_of, pseudo_values
from ivae_lab.plots import Picture, panels
from ivae_lab.present import Tables
from ivae_lab.results import read_latents

CELL = ["variant", "label", "method", "data", "data_seed"]  # what seeds are compared within
SCORES = {"all": "mcc_strong", "in": "mcc_in", "out": "mcc_out"}  # by the rows that are scored
SHOWN = {"mcc_strong": "permutation and sign", "mcc_out": "affine, out of sample"}
ARMS = "viridis"
Paths = Mapping[str, Path]
Array = NDArray[np.float64]


def _settings(rows: pd.DataFrame) -> Iterator[tuple[dict[str, Any], dict[int, str]]]:
    """Each setting, and its run folder by seed."""
    for values, own in rows.groupby(CELL, sort=False):
        yield dict(zip(CELL, values, strict=True)), dict(zip(own["seed"], own["run"], strict=True))


def agreement_of_pairs(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """MCC of every pair of seeds on the test part, with its chance floor, named by its alignment.

    Two latents: a CCA of full rank is the only one.
    """
    tables = []
    for cell, runs in _settings(rows):
        pairs = pairs_of({seed: paths[run] for seed, run in runs.items()})
        pairs = pairs[(pairs["split"] == "test") & (pairs["coefficient"] == "pearson")]
        kept = pairs.assign(score=pairs["scored"].map(SCORES))[["seed_a", "seed_b", "score", "value", "chance"]]
        tables.append(kept.assign(**cell))
    return pd.concat(tables)


def agreement_by_seed(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """What each seed contributes to the mean over pairs (the jackknife's pseudo-values), and the chance floor."""
    records = []
    for values, own in agreement_of_pairs(rows, paths).groupby(CELL, sort=False):
        by_score = pd.DataFrame({str(score): pseudo_values(part) for score, part in own.groupby("score", sort=False)})
        floor = own.loc[own["score"] == "mcc_out", "chance"].mean()
        table = by_score.rename_axis("seed").reset_index()
        records.append(table.assign(**dict(zip(CELL, values, strict=True)), chance=floor))
    return pd.concat(records)


def spaces(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """Latents of every seed on the test rows: as they are (`alignment` permutation: signs and order of the first
    seed's) and after the affine map that brings them nearest to the first seed's, by least squares.
    """
    records = []
    for cell, runs in _settings(rows):
        reference: Array | None = None
        for seed, run in runs.items():
            arrays = read_latents(paths[run])
            test = arrays["split"] == "test"
            latents = arrays["mean"][arrays["seed"].tolist().index(seed)][test].astype(float)  # (N, 2)
            latents = (latents - latents.mean(0)) / latents.std(0)
            reference = latents if reference is None else reference
            found = match(latents, reference)
            permuted = latents[:, found.columns] * np.sign(found.correlations)
            affine = latents @ np.linalg.lstsq(latents, reference, rcond=None)[0]  # both are centred
            for alignment, z in {"permutation and sign": permuted, "affine": affine}.items():
                own = {"alignment": alignment, "seed": seed, "arm": arrays["u"][test], "z1": z[:, 0], "z2": z[:, 1]}
                records.append(pd.DataFrame(own).assign(**cell))
    return pd.concat(records).round(4)


def latent_spaces(tables: Tables) -> Picture:
    """Figure 2: a panel for each seed, a row for each alignment, model and variant, coloured by arm."""
    table = tables["spaces"]
    by = ["label", "variant", "alignment"]
    groups = list(table.groupby(by, sort=False))
    seeds = table["seed"].unique()
    names = [(*group, seed) for group, _ in groups for seed in seeds]
    figure, axes = panels(map(str, names), width=1.7, height=1.6, columns=len(seeds))
    for group, own in groups:
        for seed in seeds:
            axis, part = axes[str((*group, seed))], own[own["seed"] == seed]
            axis.scatter(part["z1"], part["z2"], c=part["arm"], cmap=ARMS, s=2, linewidths=0, rasterized=True)
            axis.set(title=f"seed {seed}", xticks=[], yticks=[])
            if seed == seeds[0]:
                axis.set_ylabel(f"{group[0]}, {group[1]}\n{group[2]}", fontsize=6)
    return Picture(
        "fig2",
        figure,
        f"Scatter plots of the two latents of {len(seeds)} seeds for each model and alignment, coloured by arm.",
        "Posterior means of test rows, standardised and aligned with the first seed's; colours: arms.",
    )


def matrices(tables: Tables) -> Picture:
    """MCC of all pairs of seeds: a panel for each model and alignment."""
    pairs = tables["pairs"]
    groups = {
        f"{label}, {variant}\n{SHOWN[score]}": own
        for (label, variant, score), own in pairs.groupby(["label", "variant", "score"], sort=False)
        if score in SHOWN
    }
    seeds = sorted({*pairs["seed_a"], *pairs["seed_b"]})
    figure, axes = panels(groups, width=2.4, height=2.3, columns=2)
    for name, axis in axes.items():
        square = np.full((len(seeds), len(seeds)), np.nan)
        for a, b, value in groups[name][["seed_a", "seed_b", "value"]].itertuples(index=False):
            square[seeds.index(b), seeds.index(a)] = value
            axis.annotate(f"{value:.2f}", (seeds.index(a), seeds.index(b)), ha="center", va="center", fontsize=6)
        axis.imshow(square, vmin=0, vmax=1, cmap="Blues", alpha=0.6)
        axis.set(title=name, xlabel="seed", ylabel="seed", xticks=range(len(seeds)), yticks=range(len(seeds)))
    means = "; ".join(f"{name} {own['value'].mean():.2f}" for name, own in groups.items()).replace("\n", ", ")
    return Picture(
        "pairs", figure, f"MCC of pairs of seeds. Means: {means}.", "MCC between the posterior means of two seeds."
    )
