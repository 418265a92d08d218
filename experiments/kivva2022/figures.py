"""Figure 2 of Kivva et al. (2022): run folders to tables, and tables to pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import zscore

from ivae_lab.metrics.mcc import match
from ivae_lab.pairs import pairs_of, pseudo_values
from ivae_lab.plots import Picture, panels
from ivae_lab.present import Tables
from ivae_lab.results import read_latents

CELL = ["variant", "label", "method", "data", "data_seed"]  # what seeds are compared within
SCORES = {"all": "mcc_strong", "in": "mcc_in", "out": "mcc_out"}  # by the rows that are scored
SHOWN = {"mcc_strong": "permutation and sign", "mcc_out": "affine, out of sample"}
ALIGNED = {"permuted": "permutation and sign", "affine": "affine"}  # columns of `spaces`
ARMS, DRAWN = "viridis", 300  # rows of each seed that are drawn
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
        cell: dict[str, Any] = dict(zip(CELL, values, strict=True))
        records.append(by_score.rename_axis("seed").reset_index().assign(**cell, chance=floor))
    return pd.concat(records)


def spaces(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """Latents of every seed on the first test rows, standardised and aligned with the first seed's in two ways.

    `permuted_1`, `permuted_2`: permutation and sign only; `affine_1`, `affine_2`: the linear map that brings them
    nearest to the first seed's, by least squares. Both are found on all test rows.
    """
    records = []
    for cell, runs in _settings(rows):
        reference: Array | None = None
        for seed, run in runs.items():
            arrays = read_latents(paths[run])
            test = arrays["split"] == "test"
            latents = zscore(arrays["mean"][arrays["seed"].tolist().index(seed)][test].astype(np.float64))  # (N, 2)
            if not np.isfinite(latents).all():
                continue  # a seed that diverged has nothing to draw
            reference = latents if reference is None else reference
            found = match(latents, reference)
            aligned = {
                "permuted": latents[:, found.columns] * np.sign(found.correlations),
                "affine": latents @ np.linalg.lstsq(latents, reference, rcond=None)[0],  # both are centred
            }
            columns = {f"{name}_{axis + 1}": z[:, axis] for name, z in aligned.items() for axis in range(2)}
            own = pd.DataFrame({"arm": arrays["u"][test], **columns})[:DRAWN]
            records.append(own.assign(**cell, seed=seed))
    return pd.concat(records).round(3)


def latent_spaces(tables: Tables) -> Picture:
    """Figure 2: a panel for each seed, a row for each model, variant and alignment, coloured by arm."""
    table = tables["spaces"]
    groups, seeds = dict(list(table.groupby(["label", "variant"], sort=False))), table["seed"].unique()
    keys = list(product(groups, ALIGNED, seeds))
    figure, axes = panels(map(str, keys), width=1.7, height=1.6, columns=len(seeds))
    for key, axis in zip(keys, axes.values(), strict=True):
        (label, variant), alignment, seed = key
        own = groups[label, variant]
        part = own[own["seed"] == seed]
        z = part[f"{alignment}_1"], part[f"{alignment}_2"]
        axis.scatter(*z, c=part["arm"], cmap=ARMS, s=3, linewidths=0, rasterized=True)
        axis.set(title=f"seed {seed}", xticks=[], yticks=[])
        if seed == seeds[0]:
            axis.set_ylabel(f"{label}, {variant}\n{ALIGNED[alignment]}", fontsize=6)
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
    figure, axes = panels(groups, width=2.4, height=2.3, columns=2)
    for name, axis in axes.items():
        square = groups[name].pivot(index="seed_b", columns="seed_a", values="value")
        axis.imshow(square, vmin=0, vmax=1, cmap="Blues", alpha=0.6)
        for (row, column), value in np.ndenumerate(square):
            if np.isfinite(value):
                axis.annotate(f"{value:.2f}", (column, row), ha="center", va="center", fontsize=6)
        axis.set(title=name, xlabel="seed", ylabel="seed")
        axis.set_xticks(range(square.shape[1]), square.columns)
        axis.set_yticks(range(square.shape[0]), square.index)
    means = "; ".join(f"{name} {own['value'].mean():.2f}" for name, own in groups.items()).replace("\n", ", ")
    return Picture(
        "pairs", figure, f"MCC of pairs of seeds. Means: {means}.", "MCC between the posterior means of two seeds."
    )
