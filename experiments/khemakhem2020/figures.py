"""Figures of Khemakhem et al. (2020) and of the talk on it: run folders to tables, and tables to pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ivae_lab.metrics.mcc import match, mean_correlation
from ivae_lab.plots.aligned_sources import align
from ivae_lab.plots.methods import PALETTE, in_words
from ivae_lab.plots.panels import boxes, colours, panels, points_by_data_seed
from ivae_lab.plots.style import REPORTED_LINE, Picture
from ivae_lab.reproduction.evidence import Tables
from ivae_lab.runs.arrays import position_of, read_examples, read_latents

DIM = "data.source_dim"
STRETCH = 120  # rows of a stretch of signals
SHOWN = 5  # sources drawn of it
MOST_COLUMNS = 6  # more models than this are drawn in a block per variant
POINTS = 500  # in a cloud
UNCHANGED = "as it is"  # the label of the recipe that others are held against
TRUE = "#111111"  # dark beside every method's colour
ANGLES = np.arange(0, 91, 5)  # degrees
Paths = Mapping[str, Path]
Array = NDArray[np.float64]


# Figure 2 ---------------------------------------------------------------------------------------------------------


def training_curves(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """MCC along the training, over the seeds of each label: mean, least and largest at each recorded step."""
    parts = []
    for run, own in rows.groupby("run", sort=False):
        history = pd.read_csv(paths[str(run)] / "history.csv", usecols=["step", "seed", "mcc"])
        named = own[["variant", "label", "method", "seed"]]
        parts.append(history.merge(named, on="seed"))
    joined = pd.concat(parts)
    groups = joined.groupby(["variant", "label", "method", "step"], sort=False)["mcc"]
    return groups.agg(mean="mean", least="min", largest="max", seeds="count").reset_index()


def mcc_during_training(tables: Tables) -> Picture:
    """Figure 2a: a curve per method, a panel per variant."""
    curves = tables["training"]
    figure, axes = panels(curves["variant"].unique(), width=2.3, height=2.6, sharey=True)
    for variant, axis in axes.items():
        own = curves[curves["variant"] == variant]
        for label, colour in colours(own).items():
            part = own[own["label"] == label]
            axis.plot(part["step"], part["mean"], color=colour, label=label)
            axis.fill_between(part["step"], part["least"], part["largest"], color=colour, alpha=0.2, linewidth=0)
        axis.axhline(0.95, **REPORTED_LINE)
        axis.set(title=variant, xlabel="optimiser steps", ylim=(0, 1))
        axis.legend(loc="lower right")
    next(iter(axes.values())).set_ylabel("MCC of the posterior mean")
    last = curves.sort_values("step").groupby(["variant", "label"], sort=False)["mean"].last()
    return Picture(
        "fig2a",
        figure,
        f"MCC against optimiser steps, one line per method. At the end: {in_words(last)}.",
        "Mean over model seeds of the MCC with the true sources during training; bands from the lowest to the highest "
        "seed. Dotted: the .95 that the paper reports for iVAE.",
    )


def mcc_against_dimension(tables: Tables) -> Picture:
    """Figure 2b: MCC against n, a line per method, a panel per variant."""
    rows = tables["rows"]
    figure, axes = panels(rows["variant"].unique(), width=2.3, height=2.6, sharey=True)
    for variant, axis in axes.items():
        own = rows[rows["variant"] == variant]
        for label, colour in colours(own).items():
            groups = own[own["label"] == label].groupby(DIM)["mcc_sample"]
            mean, low, high = groups.mean(), groups.min(), groups.max()
            axis.plot(mean.index, mean, "o-", color=colour, label=label, markersize=3)
            axis.fill_between(mean.index, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.axhline(0.95, **REPORTED_LINE)
        axis.set(title=variant, xlabel="n, number of sources", ylim=(0, 1), xticks=sorted(rows[DIM].unique()))
        axis.legend(loc="lower left")
    next(iter(axes.values())).set_ylabel("MCC of a posterior sample")
    means = rows[rows[DIM] == rows[DIM].max()].groupby(["variant", "label"], sort=False)["mcc_sample"].mean()
    return Picture(
        "fig2b",
        figure,
        f"MCC against the number of sources, one line per method. At n = {rows[DIM].max()}: {in_words(means)}.",
        "Mean over seeds, bands from the lowest to the highest. Dotted: .95.",
    )


def mcc_by_data_seed(tables: Tables) -> Picture:
    """The claim of Figure 2a on each data seed."""
    return points_by_data_seed(tables["rows"], "mcc_mean", reported=0.95)


def means_by_data_seed(tables: Tables) -> Picture:
    """A claim about posterior means on each data seed, for which the paper has no number."""
    return points_by_data_seed(tables["rows"], "mcc_mean")


def samples_by_data_seed(tables: Tables) -> Picture:
    """A claim about posterior samples on each data seed, for which the paper has no number."""
    return points_by_data_seed(tables["rows"], "mcc_sample")


def boxes_by_label(tables: Tables) -> Picture:
    """A box of MCC over model seeds for each label."""
    rows = tables["rows"]
    figure, axes = panels(rows["variant"].unique(), width=2.6, height=2.8)
    for variant, axis in axes.items():
        boxes(axis, rows[rows["variant"] == variant].assign(all=""), "all", "mcc_mean")
        axis.set(title=variant, xlabel="", ylabel="MCC of the posterior mean")
        axis.legend(loc="upper right")
    means = rows.groupby(["variant", "label"], sort=False)["mcc_mean"].mean()
    return Picture(
        "mcc",
        figure,
        f"Boxplots of MCC. Means: {in_words(means)}.",
        "MCC with the true sources (posterior mean, Pearson, permutation only), a point per model seed. "
        "Dotted: chance floor.",
    )


# Figures 3 and 4, the talk's second example ------------------------------------------------------------------------


def signals(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """A contiguous stretch of true sources with the matched latents of the first model seed, to the sources' scale."""
    parts = []
    for named, latents, sources, _ in _first_seeds(rows, paths):
        start = int(np.random.default_rng(0).integers(len(sources) - STRETCH))
        aligned, correlations = align(latents, sources)
        for source in range(min(SHOWN, sources.shape[1])):
            stretch = slice(start, start + STRETCH)
            part = pd.DataFrame({"true": sources[stretch, source], "recovered": aligned[stretch, source]})
            part["source"], part["time"] = source + 1, np.arange(start, start + STRETCH)
            part["correlation"] = abs(correlations[source])
            parts.append(labelled(part, named))
    return pd.concat(parts)


def stretch_of_signals(tables: Tables) -> Picture:
    """Figures 3 and 4: dashed the source, solid the latent, a column per model; many models a block per variant."""
    table = tables["signals"]
    models = list(table[["variant", "label", "method"]].drop_duplicates().itertuples(index=False, name=None))
    by_variant = [list(group) for _, group in groupby(models, key=lambda model: model[0])]
    blocks = [models] if len(models) <= MOST_COLUMNS else by_variant
    sources, across = sorted(table["source"].unique()), max(map(len, blocks))
    figure = Figure(figsize=(max(2.4 * across, 4.5), len(blocks) * (0.9 * len(sources) + 0.5) + 0.4))
    for part, block in zip(figure.subfigures(len(blocks), 1, squeeze=False).ravel(), blocks, strict=True):
        _signals_of(part, block, table, sources, across)
    named = {str(line.get_label()): line for axis in figure.axes for line in axis.get_lines()}
    order = sorted(named, key=lambda name: name == "true")
    figure.legend([named[name] for name in order], order, loc="outside lower center", fontsize=7, ncols=5)
    means = table.groupby(["variant", "label"], sort=False)["correlation"].mean()
    return Picture(
        "signals",
        figure,
        f"Source signals, dashed, over recovered latents. Mean correlation of the sources shown: {in_words(means)}.",
        f"A contiguous stretch of {STRETCH} rows, the same for all models; latents (posterior mean) matched to "
        "sources, brought to their scale and sign; correlations are of all rows. First model seed.",
    )


def _signals_of(
    part: FigureBase, models: list[tuple[str, str, str]], table: pd.DataFrame, sources: list[int], across: int
) -> None:
    """One block of `across` columns, a panel per model and source."""
    axes = part.subplots(len(sources), across, squeeze=False, sharex=True, sharey="row")
    for spare in axes[:, len(models) :].ravel():
        spare.remove()
    for column, (variant, label, method) in enumerate(models):
        own = table[(table["variant"] == variant) & (table["label"] == label)]
        axes[0, column].annotate(f"{label}\n({variant})", (0.5, 1.35), xycoords="axes fraction", ha="center")
        axes[-1, column].set_xlabel("time")
        for axis, source in zip(axes[:, column], sources, strict=True):
            stretch = own[own["source"] == source]
            colour = PALETTE[method]
            axis.plot(stretch["time"], stretch["recovered"], color=colour, linewidth=0.8, label=f"recovered, {label}")
            axis.plot(stretch["time"], stretch["true"], "--", color=TRUE, linewidth=0.7, label="true")
            axis.set_title(f"|r| = {stretch['correlation'].iloc[0]:.2f}", fontsize=7)
            axis.xaxis.set_major_locator(MaxNLocator(3))
    for axis, source in zip(axes[:, 0], sources, strict=True):
        axis.set_ylabel(f"source {source}")


def labelled(table: pd.DataFrame, values: Mapping[str, Any]) -> pd.DataFrame:
    """The table with further columns, each of one value."""
    for name, value in values.items():
        table[name] = value
    return table


def _first_seeds(rows: pd.DataFrame, paths: Paths) -> Iterator[tuple[dict[str, Any], Array, Array, NDArray[Any]]]:
    """(names, latents (N, n), sources (N, n), u) of the first model seed of each variant and label."""
    for (variant, label, method), own in rows.groupby(["variant", "label", "method"], sort=False):
        first = own.sort_values(["data_seed", "seed"]).iloc[0]
        arrays = read_latents(paths[first["run"]])
        position = position_of(arrays, first["seed"])
        named = {"variant": variant, "label": label, "method": method}
        yield named, arrays["mean"][position].astype(float), arrays["sources"].astype(float), arrays["u"]


# Figure 1, the talk's first example ---------------------------------------------------------------------------------


def fig1_points(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """The clouds of Figure 1's five panels, from the first seed of each variant."""
    parts = []
    for variant, own in rows.groupby("variant", sort=False):
        noisy, clean = (own[own["data.noise_std"].astype(bool) == noise].iloc[0] for noise in (True, False))
        parts.append(_cloud(paths, noisy, "sample").assign(variant=variant))
        mixed = read_examples(paths[clean["run"]])
        parts.append(_points("b mixed sources", mixed["x"], mixed["u"]).assign(variant=variant))
    return pd.concat(parts)


def talk_points(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """The clouds of the talk's panels, from the first seed of each model."""
    parts = []
    for (variant, label), own in rows.groupby(["variant", "label"], sort=False):
        parts.append(labelled(_cloud(paths, own.iloc[0], "mean"), {"variant": variant, "label": label}))
    return pd.concat(parts)


def _cloud(paths: Paths, row: pd.Series[Any], kind: str) -> pd.DataFrame:
    """Sources, observations, aligned latents, reconstructions and draws from the learned prior of one run and seed."""
    shown, arrays = read_examples(paths[row["run"]]), read_latents(paths[row["run"]])
    position = position_of(arrays, row["seed"])
    latents, sources = arrays[kind][position].astype(float), arrays["sources"].astype(float)
    chosen = np.isin(arrays["index"], shown["index"])
    aligned, _ = align(latents, sources)
    parts = [
        _points("a true sources", sources[chosen], shown["u"]),
        _points("c observations", shown["x"], shown["u"]),
        _points("d recovered latents", aligned[chosen], shown["u"]),
        _points("f reconstructions", shown["reconstruction"][position], shown["u"]),
    ]
    mean, std = shown["prior_mean"][position], shown["prior_std"][position]  # (M, n) each
    if len(mean) > 1:
        drawn = mean[shown["u"]] + std[shown["u"]] * np.random.default_rng(0).standard_normal(sources[chosen].shape)
        parts.append(_points("e learned prior", align(latents, sources, drawn)[0], shown["u"]))
    return pd.concat(parts).assign(mcc=mean_correlation(latents, sources))


def _points(panel: str, points: Array, u: NDArray[Any]) -> pd.DataFrame:
    return pd.DataFrame({"panel": panel, "first": points[:, 0], "second": points[:, 1], "u": u}).iloc[
        :: len(u) // POINTS
    ]


def two_dimensions(tables: Tables) -> Picture:
    """Figure 1: a row of five panels for each variant."""
    points = tables["points"]
    names = ["a true sources", "b mixed sources", "c observations", "d recovered latents", "e learned prior"]
    variants = list(points["variant"].unique())
    figure = _clouds(points, [("variant", variant) for variant in variants], names)
    scores = points.groupby("variant", sort=False)["mcc"].first()
    said = "; ".join(f"{variant} {value:.2f}" for variant, value in scores.items())
    return Picture(
        "fig1",
        figure,
        "Five clouds of points coloured by segment: true sources, mixed sources, observations, posterior samples and "
        f"the learned prior. MCC of the first seed: {said}.",
        "Latents and prior brought to the order, sign, mean and scale of the sources. Colours are segments.",
    )


def latents_and_reconstructions(tables: Tables) -> Picture:
    """The talk's slides: original latents, observations, recovered latents, reconstructions, a row per model."""
    points = tables["points"]
    points = points.assign(model=points["label"] + ", " + points["variant"])
    names = ["a true sources", "c observations", "d recovered latents", "f reconstructions"]
    figure = _clouds(points, [("model", model) for model in points["model"].unique()], names)
    scores = points.groupby("model", sort=False)["mcc"].first()
    said = "; ".join(f"{model} {value:.2f}" for model, value in scores.items())
    return Picture(
        "talk_2d",
        figure,
        "Clouds of points coloured by segment: true sources, observations, recovered latents and reconstructions, a "
        f"row for each model. MCC of the first seed: {said}.",
        "Latents (posterior mean) brought to the order, sign, mean and scale of the sources. Colours are segments.",
    )


def _clouds(points: pd.DataFrame, rows: list[tuple[str, str]], names: list[str]) -> Figure:
    figure = Figure(figsize=(1.5 * len(names) + 0.4, 1.5 * len(rows) + 0.7))
    axes = figure.subplots(len(rows), len(names), squeeze=False)
    for line, (column, value) in zip(axes, rows, strict=True):
        own = points[points[column] == value]
        for axis, name in zip(line, names, strict=True):
            part = own[own["panel"] == name]
            axis.scatter(part["first"], part["second"], c=part["u"], s=3, cmap="viridis", linewidths=0, rasterized=True)
            axis.set_title(f"({name[0]}) {name[2:]}", fontsize=7)
            axis.tick_params(labelsize=5)
        line[0].set_ylabel(f"{value}\nMCC {own['mcc'].dropna().iloc[0]:.2f}", fontsize=7)
    return figure


# Theorems 1 and 2 ----------------------------------------------------------------------------------------------------


def affine_maps(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """Entries of A for the first model seed of each variant and dimension."""
    parts = []
    for (variant, dim), own in rows.groupby(["variant", DIM], sort=False):
        latents, sources = _latents_of(paths, own.iloc[0])
        matrix, explained = affine_map(latents, sources, _order(str(variant)))
        entries = pd.DataFrame([{"row": i, "column": j, "value": value} for (i, j), value in np.ndenumerate(matrix)])
        parts.append(labelled(entries, {"variant": variant, DIM: dim, "explained": explained}))
    return pd.concat(parts)


def permutation_distances(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """How far A is from a permutation, for every run and seed, and how much of the statistics it explains."""
    records = []
    for _, row in rows.iterrows():
        latents, sources = _latents_of(paths, row)
        order = _order(row["variant"])
        matrix, explained = affine_map(latents, sources, order)
        own = {"amari": amari(block_norms(matrix, order)), "explained": explained}
        records.append({name: row[name] for name in ("variant", "label", "data_seed", "seed", DIM, "mcc_mean")} | own)
    return pd.DataFrame(records)


def _order(variant: str) -> int:
    """K of a variant that begins with "k = K"."""
    return int(variant.removeprefix("k = ").partition(",")[0])


def _latents_of(paths: Paths, row: pd.Series[Any]) -> tuple[Array, Array]:
    arrays = read_latents(paths[row["run"]])
    position = position_of(arrays, row["seed"])
    return arrays["mean"][position].astype(float), arrays["sources"].astype(float)


def statistics(z: Array, order: int) -> Array:
    """T(z): z^2 for k = 1; (z, z^2) of each dimension for k = 2, (N, k n); each of mean 0 and standard deviation 1."""
    values = z**2 if order == 1 else np.stack([z, z**2], -1).reshape(len(z), -1)
    standardised: Array = (values - values.mean(0)) / np.maximum(values.std(0), 1e-12)
    return standardised


def affine_map(latents: Array, sources: Array, order: int) -> tuple[Array, float]:
    """A of T(sources) = A T(latents) + c by least squares, rows in the order of the sources, and the share explained.

    The latents are put in the order of the sources first, so that a permutation shows as a diagonal.
    """
    columns = match(latents, sources).columns
    t_latents, t_sources = statistics(latents[:, columns], order), statistics(sources, order)
    solved, *_ = np.linalg.lstsq(t_latents, t_sources, rcond=None)
    residual = t_sources - t_latents @ solved
    return np.asarray(solved.T, np.float64), 1 - float((residual**2).sum() / (t_sources**2).sum())


def block_norms(matrix: Array, order: int) -> Array:
    """Frobenius norms of the k x k blocks: (k n, k n) to (n, n)."""
    n = len(matrix) // order
    return np.asarray(np.sqrt((matrix.reshape(n, order, n, order) ** 2).sum((1, 3))))


def amari(matrix: Array) -> float:
    """Amari's index of |A|, divided by its largest value 2 n (n - 1): 0 for a scaled permutation, 1 for equal entries.

    sum_i (sum_j |a_ij| / max_j |a_ij| - 1) + sum_j (sum_i |a_ij| / max_i |a_ij| - 1) (Amari, Cichocki and Yang 1996).
    """
    a, n = np.abs(matrix), len(matrix)
    along_rows, along_columns = (a / a.max(1, keepdims=True)).sum(1) - 1, (a / a.max(0, keepdims=True)).sum(0) - 1
    return float((along_rows.sum() + along_columns.sum()) / (2 * n * (n - 1)))


def matrices(tables: Tables) -> Picture:
    """A as a heat map for each k and n, with its distance to a permutation."""
    entries, distances = tables["matrix"], tables["distance"]
    cases = list(entries[["variant", DIM]].drop_duplicates().itertuples(index=False, name=None))
    figure, axes = panels([f"{variant}, n = {dim}" for variant, dim in cases], width=2.2, height=2.4, columns=3)
    for (name, axis), (variant, dim) in zip(axes.items(), cases, strict=True):
        own = entries[(entries["variant"] == variant) & (entries[DIM] == dim)]
        grid = own.pivot(index="row", columns="column", values="value").to_numpy()
        axis.imshow(grid, cmap="RdBu_r", vmin=-1, vmax=1)
        part = distances[(distances["variant"] == variant) & (distances[DIM] == dim)]
        axis.set_title(f"{name}\nAmari {part['amari'].mean():.2f}, explained {part['explained'].mean():.2f}")
        axis.set(xlabel="T of the latents", ylabel="T of the sources", xticks=[], yticks=[])
        for edge in range(_order(variant), len(grid), _order(variant)):
            axis.axhline(edge - 0.5, color="#999999", linewidth=0.4)
            axis.axvline(edge - 0.5, color="#999999", linewidth=0.4)
    means = distances.groupby(["variant", DIM], sort=False)["amari"].mean()
    return Picture(
        "thm2",
        figure,
        f"Heat maps of the matrix A. Distance to a permutation, mean over seeds: {in_words(means)}.",
        "A between standardised sufficient statistics of latents (first model seed, in the order of the sources) and "
        "sources: red 1, blue -1. Lines mark the blocks of a source. Numbers are means over seeds: Amari's index, 0 "
        "for a scaled permutation, and the share of the statistics' variance that the linear map explains.",
    )


# Section 2.2 --------------------------------------------------------------------------------------------------------


def rotations(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """What rotating the latents by each angle does to the likelihood and to the MCC, for every model seed."""
    return pd.DataFrame([record for _, row in rows.iterrows() for record in _rotated(row, paths)])


def rotation_losses(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """The likelihood lost at 45 degrees, and the MCC of rotated with unrotated latents (`same`)."""
    table = rotations(rows, paths)
    return table[table["angle"] == 45].assign(loss=lambda each: -each["change"]).drop(columns=["change", "angle"])


def _rotated(row: pd.Series[Any], paths: Paths) -> Iterator[dict[str, Any]]:
    arrays = read_latents(paths[row["run"]])
    position = position_of(arrays, row["seed"])
    z, u = arrays["sample"][position].astype(float), arrays["u"]
    conditional = row["method"] == "ivae"
    before = _log_prior(z, u if conditional else None)
    for angle in ANGLES:
        turn = np.deg2rad(angle)
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        after = z @ matrix.T
        yield {name: row[name] for name in ("variant", "label", "method", "data_seed", "seed")} | {
            "angle": int(angle),
            "change": _log_prior(after, u if conditional else None) - before,
            "mcc": mean_correlation(after, arrays["sources"]),
            "same": mean_correlation(after, z),
        }


def _log_prior(z: Array, u: NDArray[Any] | None) -> float:
    """Mean of log p(z given u) in nats: N(0, I) without u; with u zero-mean Gaussians of the best variances for it."""
    if u is None:
        return float((-0.5 * (z**2 + np.log(2 * np.pi))).sum(1).mean())
    variances = pd.DataFrame(z**2).groupby(u).transform("mean").to_numpy()
    return float((-0.5 * (z**2 / variances + np.log(2 * np.pi * variances))).sum(1).mean())


def likelihood_of_rotations(tables: Tables) -> Picture:
    """Change of the log-likelihood, and MCC, against the angle."""
    table = tables["rotation"]
    figure = Figure(figsize=(6, 2.7))
    likelihood, score = figure.subplots(1, 2)
    for label, colour in colours(table).items():
        own = table[table["label"] == label].groupby("angle")[["change", "mcc", "same"]].mean()
        likelihood.plot(own.index, own["change"], color=colour, label=label)
        score.plot(own.index, own["mcc"], color=colour, label=f"{label}: with the true sources")
        score.plot(own.index, own["same"], "--", color=colour, label=f"{label}: with its own unrotated latents")
    ticks = [0, 15, 30, 45, 60, 75, 90]
    likelihood.set(xlabel="rotation of the latents (degrees)", ylabel="change of log p(x), nats a row", xticks=ticks)
    score.set(xlabel="rotation of the latents (degrees)", ylabel="MCC", ylim=(0, 1), xticks=ticks)
    likelihood.legend()
    score.legend(loc="lower center", fontsize=6)
    at45 = tables["loss"].groupby("label", sort=False)["loss"].mean()
    said = "; ".join(f"{label} {value:.3g}" for label, value in at45.items())
    return Picture(
        "unidentifiable",
        figure,
        f"Change of log-likelihood and MCC against the rotation angle. Nats lost at 45 degrees: {said}.",
        "Rotating model and posterior leaves a VAE's likelihood as it is at every angle, though its latents differ, "
        "and an iVAE's falls, except at 0 and 90 degrees, where the rotation is a permutation. Means over model seeds.",
    )


# Beyond the paper -----------------------------------------------------------------------------------------------------


def gains(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """What each change of the recipe gains in ELBO and MCC over the recipe as it is, on the same data set."""
    at = ["variant", "data_seed", "seed"]
    base = rows[rows["label"] == UNCHANGED].set_index(at)[["elbo", "mcc_mean"]]
    changed = rows[rows["label"] != UNCHANGED].set_index(at)
    changed = changed[changed.index.isin(base.index)]
    changed[["elbo", "mcc_mean"]] -= base.loc[changed.index]
    return changed.reset_index()[["variant", "label", "method", "data_seed", "seed", "elbo", "mcc_mean"]]


def mcc_against_elbo(tables: Tables) -> Picture:
    """A panel per variant: small points a data seed's gains, large ones their means; labels in colours and marks."""
    table = tables["gains"]
    figure = Figure(figsize=(9, 3.6))
    variants = table["variant"].unique()
    axes = figure.subplots(1, len(variants), squeeze=False, sharex=True, sharey=True)[0]
    tones = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#7F7F7F"]
    for number, (label, own) in enumerate(table.groupby("label", sort=False)):
        look = {"color": tones[number % 7], "marker": "osDv^P*X<>p"[number % 11], "linestyle": ""}
        for axis, variant in zip(axes, variants, strict=True):
            part = own[own["variant"] == variant]
            axis.plot(part["elbo"], part["mcc_mean"], **look, markersize=2, alpha=0.5)
            axis.plot(part["elbo"].mean(), part["mcc_mean"].mean(), **look, markersize=7, label=label)
    for axis, variant in zip(axes, variants, strict=True):
        axis.axhline(0, **REPORTED_LINE)
        axis.axvline(0, **REPORTED_LINE)
        axis.set(title=variant, xlabel="gain in ELBO of whitened x, nats a row")
        axis.set_xscale("symlog", linthresh=0.1)  # from hundredths of a nat to seven
        axis.set_xlim(2 * min(table["elbo"].min(), -0.1), 2 * max(table["elbo"].max(), 0.1))
    axes[0].set_ylabel("gain in MCC of the posterior mean")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
    means = table.groupby(["variant", "label"], sort=False)[["elbo", "mcc_mean"]].mean()
    said = "; ".join(f"{', '.join(key)}: ELBO {elbo:+.2f}, MCC {mcc:+.2f}" for key, elbo, mcc in means.itertuples())
    return Picture(
        "recipe",
        figure,
        f"Gain in MCC against gain in ELBO of recipes that differ from model=ivae in one thing. Means: {said}.",
        "Small points: one data seed each, the recipe's minus model=ivae's on the same data; large points: means. "
        "The horizontal axis is linear up to .1 nats and logarithmic beyond. Nothing is chosen by the MCC.",
    )
