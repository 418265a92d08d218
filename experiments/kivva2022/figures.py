"""Figures 1 and 2 and the MNIST experiment of Kivva et al. (2022): run folders to tables, and tables to pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import rankdata, zscore

from ivae_lab.metrics.clustering import cluster_purity, nmi
from ivae_lab.metrics.mcc import match
from ivae_lab.metrics.resampling import shuffles
from ivae_lab.plots.image_examples import tiled
from ivae_lab.plots.methods import PALETTE, in_words
from ivae_lab.plots.panels import boxes, panels
from ivae_lab.plots.style import REPORTED_LINE, Picture
from ivae_lab.reproduction.evidence import Tables
from ivae_lab.runs.agreement_csv import pairs_of, pseudo_values
from ivae_lab.runs.arrays import read_examples, read_latents
from ivae_lab.runs.results_csv import read_results

CELL = ["variant", "label", "method", "data", "data_seed"]  # what seeds are compared within
SCORES = {"all": "mcc_strong", "in": "mcc_in", "out": "mcc_out"}  # by the rows that are scored
SHOWN = {"mcc_strong": "permutation and sign", "mcc_out": "affine, out of sample"}
ALIGNED = {"permuted": "permutation and sign", "affine": "affine"}  # columns of `spaces`
ARMS, DRAWN = "viridis", 300  # rows of each seed that are drawn
FACETS = {0: "shallow", 1: "deep"}  # by position in agreement.csv; none: both as one
JOINT = "joint"
THICKNESSES = 5  # groups of as many digits each, from thin to thick
SIDE, ACROSS = 28, 12  # of a digit, in pixels; digits of each cluster that are drawn
Paths = Mapping[str, Path]
Array = NDArray[np.float64]


def _settings(rows: pd.DataFrame) -> Iterator[tuple[dict[str, Any], dict[int, str]]]:
    """Each setting, and its run folder by seed."""
    for values, own in rows.groupby(CELL, sort=False):
        yield dict(zip(CELL, values, strict=True)), dict(zip(own["seed"], own["run"], strict=True))


def agreement_of_pairs(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """MCC of every pair of seeds on the test part, with its chance floor, named by its alignment, and of each facet.

    Few latents: a CCA of full rank is the only one.
    """
    tables = []
    for cell, runs in _settings(rows):
        pairs = pairs_of({seed: paths[run] for seed, run in runs.items()})
        pairs = pairs[(pairs["split"] == "test") & (pairs["coefficient"] == "pearson")]
        facet = pairs["position"].map(FACETS).fillna(JOINT)
        kept = pairs.assign(score=pairs["scored"].map(SCORES), facet=facet)
        tables.append(kept[["seed_a", "seed_b", "score", "facet", "value", "chance"]].assign(**cell))
    table = pd.concat(tables)
    return table.drop(columns="facet") if (table["facet"] == JOINT).all() else table


def agreement_by_seed(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """What each seed contributes to the mean over pairs (the jackknife's pseudo-values), and the chance floor."""
    records = []
    pairs = agreement_of_pairs(rows, paths)
    columns = [*CELL, "facet"] if "facet" in pairs else CELL
    for values, own in pairs.groupby(columns, sort=False):
        by_score = pd.DataFrame({str(score): pseudo_values(part) for score, part in own.groupby("score", sort=False)})
        floor = own.loc[own["score"] == "mcc_out", "chance"].mean()
        cell: dict[str, Any] = dict(zip(columns, values, strict=True))
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


# MNIST --------------------------------------------------------------------------------------------------------------


def thickness(images: NDArray[np.uint8]) -> Array:
    """Mean width of the strokes of each grey image, in pixels: (N, H, W) to (N,).

    Twice the area of the ink over the length of its boundary, 2 sum x / sum |grad x|: of grey edges the sum over all
    levels of grey (the co-area formula). A stroke of width w and length l has w l / (l + w).
    """
    x = np.pad(images.astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    down, across = np.diff(x, axis=1)[:, :, :-1], np.diff(x, axis=2)[:, :-1]
    boundary = np.hypot(down, across).sum((1, 2))
    return np.asarray(2 * x.sum((1, 2)) / np.maximum(boundary, 1e-12))


def _test_part(folder: Path) -> tuple[dict[str, NDArray[Any]], NDArray[np.uint8]]:
    """Clusters, digits and seeds of a run, and the images, of the test rows; of a model without facets no images."""
    arrays = read_latents(folder)
    test = arrays["split"] == "test"
    images = arrays["x"][test].reshape(-1, SIDE, SIDE) if "x" in arrays else np.zeros((0, SIDE, SIDE), np.uint8)
    clusters = {"cluster": arrays["cluster"][:, test]} if "cluster" in arrays else {}
    return {**clusters, "u": arrays["u"][test], "seed": arrays["seed"]}, images


def clusterings(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """How much the clusters of each facet are the digits, and how much the thickness of strokes, on test rows.

    `nmi` and `purity` against the ten digits and against five groups of thickness, of as many rows each; the floors of
    the NMI, from one re-pairing of the rows; and how many clusters are used. Models without clusters have no rows.
    """
    records = []
    for run, own in rows.groupby("run", sort=False):
        arrays, images = _test_part(paths[str(run)])
        if "cluster" not in arrays:
            continue
        labels = {"digit": arrays["u"], "stroke": _groups(thickness(images))}
        (order,) = shuffles(len(images), 1, 0)
        for _, row in own.iterrows():
            clusters = arrays["cluster"][arrays["seed"].tolist().index(row["seed"])]  # (N, J)
            for position, facet in FACETS.items():
                found = clusters[:, position]
                record = {column: row[column] for column in [*CELL, "seed"]}
                record |= {"facet": facet, "clusters": len(np.unique(found))}
                for name, label in labels.items():
                    record |= {f"nmi_{name}": nmi(found, label), f"purity_{name}": cluster_purity(found, label)}
                    record[f"chance_{name}"] = nmi(found, label[order])
                records.append(record)
    return pd.DataFrame(records)


def _groups(values: Array) -> NDArray[np.intp]:
    """Groups of as many values each, from small to large: (N,)."""
    return ((rankdata(values, "ordinal") - 1) * THICKNESSES // len(values)).astype(np.intp)


def boxes_by_facet(tables: Tables) -> Picture:
    """MCC of pairs of seeds of each facet and of both as one, a panel for each alignment."""
    pairs = tables["pairs"].rename(columns={"value": "mcc"})
    pairs = pairs.assign(label=pairs["label"] + ", " + pairs["variant"])
    figure, axes = panels(SHOWN.values(), width=3.6, height=3.2, columns=2, sharey=True)
    for (score, name), axis in zip(SHOWN.items(), axes.values(), strict=True):
        boxes(axis, pairs[pairs["score"] == score], "facet", "mcc")
        axis.set(title=name, xlabel="facet", ylabel="MCC of pairs of seeds")
        axis.legend(loc="lower left")
    means = pairs[pairs["score"].isin(SHOWN)].groupby(["label", "facet", "score"], sort=False)["mcc"].mean()
    return Picture(
        "mfcvae_agreement",
        figure,
        f"Boxplots of the MCC between seeds. Means: {in_words(means)}.",
        "MCC between the posterior means of two seeds on test images, a point per pair; dotted: chance floor.",
    )


def digit_against_stroke(tables: Tables) -> Picture:
    """What the clusters of each facet are about: a point for each seed and facet."""
    table = tables["clusters"]
    figure, axes = panels(table["variant"].unique(), width=3, height=3, columns=2, sharey=True)
    for variant, axis in axes.items():
        for facet, own in table[table["variant"] == variant].groupby("facet", sort=False):
            axis.scatter(own["nmi_digit"], own["nmi_stroke"], s=14, label=f"{facet} facet")
        axis.set(title=variant, xlabel="NMI with the digit", ylabel="NMI with the thickness", xlim=(0, 1), ylim=(0, 1))
        axis.legend()
    means = table.groupby(["variant", "facet"], sort=False)[["nmi_digit", "nmi_stroke"]].mean()
    said = f"digit {in_words(means['nmi_digit'])}; stroke {in_words(means['nmi_stroke'])}"
    return Picture(
        "mfcvae_clusters",
        figure,
        f"Normalised mutual information of each facet's clusters with digit and thickness. Means: {said}.",
        "A point for each seed: clusters of test images against ten digits, and against five groups of thickness.",
    )


def digits_by_cluster(rows: pd.DataFrame, paths: Paths) -> Picture:
    """Test digits sorted by the clusters of each facet, of the first seed: a row for each cluster, largest first."""
    row = rows[rows["method"] == "mfcvae"].iloc[0]
    arrays, images = _test_part(paths[row["run"]])
    clusters = arrays["cluster"][arrays["seed"].tolist().index(row["seed"])]
    figure = Figure(figsize=(7.2, 7.2))
    for (position, facet), axis in zip(FACETS.items(), figure.subplots(1, len(FACETS)), strict=True):
        numbers, counts = np.unique(clusters[:, position], return_counts=True)
        shown = np.ones((len(numbers), ACROSS, SIDE**2))
        for place, number in enumerate(numbers[np.argsort(-counts)]):
            first = images[clusters[:, position] == number][:ACROSS]
            shown[place, : len(first)] = first.reshape(len(first), -1) / 255
        axis.imshow(tiled(shown, (1, SIDE, SIDE)), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(f"{facet} facet: {len(numbers)} clusters in use")
        axis.set_axis_off()
    named = f"{row['label']}, {row['variant']}, seed {row['seed']}"
    return Picture(
        "mfcvae_digits",
        figure,
        f"Test digits of {named}, sorted by the clusters of each facet.",
        f"{named}: the first {ACROSS} test digits of each cluster, whatever they look like, the largest cluster first.",
    )


# Figure 1 -----------------------------------------------------------------------------------------------------------

MINIMAL = 1e-9  # nats above the truth up to which a start is at a minimiser; the integrals' error is below
LIKELY = 1e-6  # nats: a model this near to the truth can't be told from it by a million rows
SAME = 0.02  # largest distance, of priors (total variation) and decoders, at which a model counts as the truth
PARTS = ("prior", "decoder")
DASHED = {**REPORTED_LINE, "linestyle": "--"}
ASSUMPTIONS = ["true_F2", "true_F3", "true_P2"]
DISTANCES = [f"{part}_{kind}" for part in PARTS for kind in ("affine", "scaled")]
# Of the parameters that a slice varies, in their order: how many there are of K, n, hidden units H and d
KINDS = {
    "weights of the prior": ("K",),
    "means": ("K", "n"),
    "log-variances": ("K", "n"),
    "W": ("H", "n"),
    "b": ("H",),
    "B": ("d", "H"),
    "c": ("d",),
}
SIZES = {"n": "data.latent_dim", "d": "data.x_dim", "K": "data.components", "H": "data.hidden"}
SIMULATION = ["variant", "label", "method", "data", "data_seed"]


def starts(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """Where each start of a search ended: its divergence from the truth in nats, and what Theorem 3.5 leaves between.

    `distance` is the largest that the theorem says is 0: of the priors, up to permutation and scales where (P2) holds
    of the truth, else up to an affine map; and of the decoders, at the same map, where (F3) holds.
    """
    own = rows[rows["variant"] == "search"]
    read = [read_results(paths[run]).assign(run=run) for run in own["run"].unique()]
    wide = pd.concat(read).pivot_table(index=["run", "seed"], columns="metric", values="value")
    wide = wide.reindex(columns=["divergence", *DISTANCES, *ASSUMPTIONS]).reset_index()
    table = own[[*SIMULATION, "seed", "run", "elbo", "state"]].merge(wide, on=["run", "seed"], how="left")
    kind = np.where(table["true_P2"] == 1, "scaled", "affine")
    distance = {part: np.where(kind == "scaled", table[f"{part}_scaled"], table[f"{part}_affine"]) for part in PARTS}
    injective = table["true_F3"] == 1
    worst = np.where(injective, np.fmax(distance["prior"], distance["decoder"]), distance["prior"])
    return table.drop(columns=["run", *DISTANCES]).assign(distance=worst)


def simulations(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """A row for each simulated model: whether the search found the truth, and whether it found another minimiser.

    By Gibbs' inequality no model is likelier than the truth. `found`: a start ended within `LIKELY` of it, and is the
    truth up to `SAME`; `other`: one ended within `MINIMAL` of it, and is not; `unique`: found, and no other; `alike`: a
    start ended within `LIKELY` and is not the truth, so that rows could hardly tell.
    """
    records = []
    for values, own in starts(rows, paths).groupby(SIMULATION, sort=False):
        likely, same = own["divergence"] < LIKELY, own["distance"] < SAME
        other = bool((~same & (own["divergence"] < MINIMAL)).any())
        holds = own.iloc[0]
        records.append(
            {
                **dict(zip(SIMULATION, values, strict=True)),
                **{assumption: holds[assumption] for assumption in ASSUMPTIONS},
                "seed": 0,
                "starts": len(own),
                "at_truth": int((likely & same).sum()),
                "least": own["divergence"].min(),
                "found": float((likely & same).any()),
                "other": float(other),
                "unique": float((likely & same).any() and not other),
                "alike": float((likely & ~same).any()),
                "chance": np.nan,
            }
        )
    return pd.DataFrame(records)


def slices(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """The likelihood along each parameter through the truth: `excess` over the truth's, in nats, at each `offset`.

    `away`: how far from the truth it is best on that slice, by a search between the points; `below`: by how much it is
    better than the truth anywhere on its points, in nats; `error`: of the integrals.
    """
    parts = []
    for _, row in rows[rows["variant"] == "slices"].iterrows():
        shown = read_examples(paths[row["run"]])
        counts = {name: int(row[column]) for name, column in SIZES.items()}
        kinds = [kind for kind, sizes in KINDS.items() for _ in range(int(np.prod([counts[size] for size in sizes])))]
        offset, nll, least, error = (shown[f"slice_{name}"][0] for name in ("offset", "nll", "least", "error"))
        excess = nll - nll[:, len(offset) // 2 : len(offset) // 2 + 1]  # the middle is the truth itself
        for number, kind in enumerate(kinds):
            named = {column: row[column] for column in [*SIMULATION, "seed"]} | {"kind": kind, "parameter": number}
            away = abs(float(least[number]))
            below = max(0.0, -float(excess[number].min()))
            curve = {"offset": offset, "excess": excess[number], "away": away, "below": below, "error": float(error)}
            parts.append(pd.DataFrame({**named, **curve}))
    return pd.concat(parts).round({"offset": 4, "excess": 8, "away": 8, "below": 12})


def minimisers(tables: Tables) -> Picture:
    """Of every start its divergence from the truth against its distance from it, a panel for each setting."""
    table, found = tables["starts"], tables["simulations"]
    figure, axes = panels(table["label"].unique(), width=2.4, height=2.1, columns=3)
    for label, axis in axes.items():
        own = table[table["label"] == label]
        at = own["divergence"].clip(lower=1e-16)
        axis.scatter(at, own["distance"].clip(1e-9, 10), c=own["data_seed"] % 10, cmap="tab10", s=9, linewidths=0)
        axis.axvline(LIKELY, **DASHED)
        axis.axhline(SAME, **REPORTED_LINE)
        share = found[found["label"] == label]
        said = f"truth found in {share['unique'].sum():.0f} of {len(share)}, another in {share['other'].sum():.0f}"
        axis.set(xscale="log", yscale="log", xlabel="KL from the truth (nats)", ylabel="distance")
        axis.set(xlim=(5e-17, 20), ylim=(5e-10, 20))
        axis.set_title(f"{label}\n{said}", fontsize=6)
    return Picture(
        "minimisers",
        figure,
        f"Where each start ended. Share of simulations in which the truth alone was found: "
        f"{in_words(found.groupby('label', sort=False)['unique'].mean())}.",
        "A point for each start, a colour for each simulation. Left of the dashed line a start is as likely as the "
        "truth; below the dotted one it is the truth up to what Theorem 3.5 leaves open.",
    )


def likelihood_slices(tables: Tables) -> Picture:
    """Figure 1: the negative log-likelihood along each parameter, through the truth, a panel for each example."""
    table = tables["slices"]
    colour = dict(zip(KINDS, PALETTE.values(), strict=False))
    figure, axes = panels(table["label"].unique(), width=2.4, height=2.0, columns=3)
    for label, axis in axes.items():
        for (kind, _), curve in table[table["label"] == label].groupby(["kind", "parameter"], sort=False):
            axis.plot(curve["offset"], curve["excess"], color=colour[str(kind)], linewidth=0.8, label=kind)
        axis.axvline(0, **DASHED)
        axis.set(title=label, xlabel="parameter, from the truth", ylabel="excess nats")
        axis.set_yscale("symlog", linthresh=1e-3)
        axis.set_ylim(bottom=-1e-3)
    first = next(iter(axes.values()))
    handles = dict(zip(*reversed(first.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), fontsize=6)
    largest = table.groupby("label", sort=False)["away"].max()
    return Picture(
        "slices",
        figure,
        "Negative log-likelihood along each parameter through the truth (dashed). Largest distance between the truth "
        f"and where a slice is least: {in_words(largest)}.",
        "Expected under the true density, by exact integration, so that there is no sampling error; that of the "
        f"integrals is at most {table['error'].max():.0e} nats.",
    )
