"""Figures of Sorrenson et al. (2020), GIN: run folders to tables, and tables to pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ivae_lab.metrics.mcc import match, mean_correlation
from ivae_lab.metrics.spectrum import informative, leading_correlation, spectrum
from ivae_lab.plots.aligned_sources import align
from ivae_lab.plots.image_examples import tiled
from ivae_lab.plots.methods import PALETTE, in_words
from ivae_lab.plots.panels import colours, panels
from ivae_lab.plots.style import REPORTED_LINE, Picture
from ivae_lab.reproduction.evidence import Tables
from ivae_lab.runs.arrays import position_of, read_examples, read_latents
from ivae_lab.runs.results_csv import read_results

POINTS, GAP, RATE = "data.points", "data.gap", "trainer.lr"
CELL = ["variant", "label", "method", "data", "data_seed", "seed", POINTS, GAP, RATE]
CLOUD = 1500  # points in a cloud
LINEAR = "PCA on x"
Paths = Mapping[str, Path]


# What is found ------------------------------------------------------------------------------------------------------


def found(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """How many latents each seed finds informative, whether as many as there are sources, and their MCC with these.

    Rows of `linear` go along, and `mcc_mean`, the MCC of all latents, informative or not.
    """
    scored = pd.concat(read_results(paths[run]).assign(run=run) for run in rows["run"].unique())
    scored = scored[scored["metric"].isin(["informative", "mcc_informative"]) & (scored["split"] == "train")]
    table = scored.pivot(index=["run", "seed"], columns="metric", values="value").reset_index()
    sources = scored.groupby("run")["source_dim"].first().rename("sources").reset_index()
    table = rows[[*CELL, "run", "chance", "elbo", "mcc_mean"]].merge(table, on=["run", "seed"]).merge(sources, on="run")
    success = (table["informative"] == table["sources"]).astype(float)
    table = table.assign(success=success).drop(columns=["run", "sources"])
    return pd.concat([table, linear(rows, paths)], ignore_index=True)


def linear(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """What needs no training, by the same rule: the principal components of x, on the 1,000 rows of examples.npz."""
    from sklearn.decomposition import PCA

    records = []
    for _, row in rows.drop_duplicates(["variant", "data", "data_seed", POINTS, GAP]).iterrows():
        shown = read_examples(paths[row["run"]])
        x, sources = shown["x"].astype(float), shown["sources"].astype(float)
        components = PCA(x.shape[1]).fit_transform(x)
        count = informative(spectrum(components)[0], "gap")
        scores = {
            "mcc_mean": mean_correlation(components, sources),
            "informative": float(count),
            "mcc_informative": leading_correlation(components, sources, count),
            "success": float(count == sources.shape[1]),
        }
        own = {column: row[column] for column in CELL if column != RATE}
        records.append({**own, "label": LINEAR, "method": "pca", **scores})
    return pd.DataFrame(records)


def spectra(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """Standard deviations of all latents of each seed, in decreasing order."""
    parts = []
    for run, own in rows.groupby("run", sort=False):
        arrays = read_latents(paths[str(run)])
        for _, row in own.iterrows():
            std, _ = spectrum(arrays["mean"][position_of(arrays, int(row["seed"]))])
            named = {column: row[column] for column in CELL}
            parts.append(pd.DataFrame({**named, "rank": np.arange(1, len(std) + 1), "std": std}))
    return pd.concat(parts)


def clouds(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """Sources, and the latents that are matched to them, to their scale, of the first data seed of each panel."""
    parts = []
    for _, own in rows.groupby(["variant", "label", POINTS], sort=False):
        first = own.sort_values(["data_seed", "seed"]).iloc[0]
        arrays = read_latents(paths[first["run"]])
        latents, sources = arrays["mean"][position_of(arrays, int(first["seed"]))], arrays["sources"]
        moved, correlations = align(latents.astype(float), sources.astype(float))
        chosen = np.linspace(0, len(sources) - 1, min(CLOUD, len(sources))).astype(int)
        named = {column: first[column] for column in ("variant", "label", "method", POINTS, "data_seed")}
        columns = {"u": arrays["u"][chosen]}
        for source in range(2):
            columns[f"true_{source + 1}"] = sources[chosen, source]
            columns[f"recovered_{source + 1}"] = moved[chosen, source]
            named[f"r_{source + 1}"] = abs(correlations[source])
        parts.append(pd.DataFrame({**named, **columns}))
    return pd.concat(parts)


def reconstruction(tables: Tables) -> Picture:
    """Figures 2, 6, 7 and 8: sources, their reconstruction and the spectrum, a row for each variant."""
    points, spectrum_table, scores = tables["clouds"], tables["spectra"], tables["found"]
    keys = ["variant", "label", POINTS]
    shown = list(points[keys].drop_duplicates().itertuples(index=False, name=None))
    figure = Figure(figsize=(7.2, 2.3 * len(shown) + 0.3))
    axes = figure.subplots(len(shown), 3, squeeze=False)
    for row, values in zip(axes, shown, strict=True):
        cloud, spread, score = (_of(table, keys, values) for table in (points, spectrum_table, scores))
        named = f"{values[1]}, {values[0]}, {values[2]:,} points"
        first = f"data seed {cloud['data_seed'].iloc[0]}"
        for axis, what, title in ((row[0], "true", "sources"), (row[1], "recovered", "matched latents")):
            axis.scatter(cloud[f"{what}_1"], cloud[f"{what}_2"], c=cloud["u"], cmap="viridis", s=2, linewidths=0)
            axis.set(title=f"{title}, {first}", xlabel="1", ylabel="2")
        row[0].set_title(f"{named}\nsources, {first}")
        row[1].set_title(f"matched latents, {first}\n|r| = {cloud['r_1'].iloc[0]:.2f}, {cloud['r_2'].iloc[0]:.2f}")
        colour = PALETTE[str(cloud["method"].iloc[0])]
        for number, (_, own) in enumerate(spread.groupby(["data_seed", "seed"], sort=False)):
            style: dict[str, Any] = {"color": "black", "linewidth": 1.2} if not number else {"color": colour}
            row[2].plot(own["rank"], own["std"], "o-", markersize=2, alpha=0.8, **style)
        share = f"two found in {score['success'].sum():.0f} of {len(score)}"
        row[2].set(title=f"spectrum of each data seed\n{share}", xlabel="latent", yscale="log")
        row[2].set_ylabel("standard deviation")
        row[2].set_xticks(range(1, int(spread["rank"].max()) + 1))
    means = scores.groupby(keys, sort=False)
    return Picture(
        "reconstruction",
        figure,
        "Scatterplots of true sources and of the latents matched to them, coloured by cluster, and the spectrum of "
        f"standard deviations. Share of runs with two informative latents: {in_words(means['success'].mean())}. "
        f"MCC of the informative latents: {in_words(means['mcc_informative'].mean())}.",
        "Latents matched to sources by correlation, brought to their sign and scale. Spectra: black the data seed that "
        "is drawn, the others in colour. Informative are the latents above the largest gap of the log spectrum.",
    )


def _of(table: pd.DataFrame, keys: list[str], values: tuple[Any, ...]) -> pd.DataFrame:
    for key, value in zip(keys, values, strict=True):
        table = table[table[key] == value]
    return table


# Observations of Section 4.3.1 --------------------------------------------------------------------------------------


def success_grid(tables: Tables) -> Picture:
    """The first and second observation: a map of success against gap and number of points, for each variant."""
    scores = tables["found"][tables["found"]["label"] != LINEAR]
    figure, axes = panels(scores["variant"].unique(), width=3.4, height=2.6, columns=2)
    for variant, axis in axes.items():
        own = scores[scores["variant"] == variant]
        share = own.pivot_table(index=POINTS, columns=GAP, values="success", aggfunc="mean")
        mcc = own.pivot_table(index=POINTS, columns=GAP, values="mcc_informative", aggfunc="mean")
        axis.imshow(share, cmap="viridis", vmin=0, vmax=1, aspect="auto", origin="lower")
        for (row, column), value in np.ndenumerate(share.to_numpy()):
            said = f"{value:.0%}\nMCC {mcc.to_numpy()[row, column]:.2f}"
            axis.annotate(said, (column, row), ha="center", va="center", color="black" if value > 0.5 else "white")
        axis.set(title=variant, xlabel="gap, factor on the distances of the clusters", ylabel="points")
        axis.set_xticks(range(share.shape[1]), [f"{gap:g}" for gap in share.columns])
        axis.set_yticks(range(share.shape[0]), [f"{points:,}" for points in share.index])
    means = scores.groupby(["variant", POINTS, GAP], sort=False)["success"].mean()
    return Picture(
        "overlap",
        figure,
        f"Share of runs that find two informative latents, against gap and points: {in_words(means)}.",
        "Share of data seeds in which two latents are found informative, and the mean MCC of the informative ones.",
    )


def success_by_rate(tables: Tables) -> Picture:
    """The third observation: MCC of the informative latents against the learning rate, a point per data seed."""
    scores = tables["found"][tables["found"]["label"] != LINEAR]
    figure, axes = panels(scores["variant"].unique(), width=3.2, height=2.6, columns=2, sharey=True)
    for variant, axis in axes.items():
        own = scores[scores["variant"] == variant]
        for label, colour in colours(own).items():
            part = own[own["label"] == label]
            axis.plot(part[RATE], part["mcc_informative"], "o", color=colour, markersize=2.5, alpha=0.6)
            groups = part.groupby(RATE)
            axis.plot(groups["mcc_informative"].mean(), "-", color=colour, label="MCC, mean")
            axis.plot(groups["success"].mean(), "--", color="#555555", label="share with two found")
        axis.set(title=variant, xscale="log", xlabel="initial learning rate", ylim=(0, 1.03))
        axis.axvline(0.01, **REPORTED_LINE)
        axis.legend(loc="lower right")
    next(iter(axes.values())).set_ylabel("MCC of the informative latents")
    means = scores.groupby(["variant", RATE], sort=False)["mcc_informative"].mean()
    return Picture(
        "learning_rate",
        figure,
        f"MCC of the informative latents against the learning rate. Means: {in_words(means)}.",
        "A point per data seed; dotted: the paper's rate.",
    )


# Likelihood, and the inverse -----------------------------------------------------------------------------------------


def inverse_errors(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """The largest |x - f(g(x))| of each seed over the rows of examples.npz."""
    records = []
    for _, row in rows.iterrows():
        shown = read_examples(paths[row["run"]])
        again = shown["reconstruction"][position_of(shown, int(row["seed"]))]
        records.append({column: row[column] for column in CELL} | {"error": float(np.abs(again - shown["x"]).max())})
    return pd.DataFrame(records).assign(chance=float("nan"))


def held_out_likelihood(tables: Tables) -> Picture:
    """A point per data seed for each flow: log-likelihood of rows that it has not seen; and the inverse's error."""
    rows, errors = tables["rows"], tables["inverse"]
    figure = Figure(figsize=(6.4, 2.8))
    likelihood, inverse = figure.subplots(1, 2)
    for label, colour in colours(rows).items():
        own, wrong = rows[rows["label"] == label], errors[errors["label"] == label]
        likelihood.plot(own["data_seed"], own["elbo"], "o-", color=colour, markersize=3, label=label)
        inverse.plot(wrong["data_seed"], wrong["error"], "o-", color=colour, markersize=3, label=label)
    likelihood.set(xlabel="data seed", ylabel="log-likelihood, nats a row, held out")
    inverse.set(xlabel="data seed", ylabel="largest |x - f(g(x))|, float32", yscale="log")
    for axis in (likelihood, inverse):
        axis.set_xticks(sorted(rows["data_seed"].unique()))
    likelihood.legend()
    means = rows.groupby(["label", "variant"], sort=False)["elbo"].mean()
    largest = errors.groupby(["label", "variant"], sort=False)["error"].max()
    return Picture(
        "likelihood",
        figure,
        f"Log-likelihood of held-out rows for each flow and data seed. Means: {in_words(means)}. "
        f"Largest errors of the inverse: {in_words(largest)}.",
        "A point per data seed.",
    )


# Digits -------------------------------------------------------------------------------------------------------------

OF_DIGITS = ["variant", "label", "method", "data", "data_seed", "seed"]
NOISE_STD = 0.01  # that is added to images in training
LEADING, DETAILED = 8, 22  # the paper's latents of global shape, and of any
PARTS = {"all latents": 0, "22 leading": 1, "22 leading, T = .8": 2}  # of `class_drawn` in examples.npz


def image_spectra(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """Standard deviations of all latents of the test images, and of the principal components of x, falling.

    Principal components are of the test images too, and have the noise of the training added: N(0, .01^2).
    """
    parts = []
    for _, row in rows.iterrows():
        arrays = read_latents(paths[row["run"]])
        latents = arrays["mean"][position_of(arrays, int(row["seed"]))][arrays["split"] == "test"]
        std, _ = spectrum(latents)
        parts.append(pd.DataFrame({**_named(row), "rank": np.arange(1, len(std) + 1), "std": std}))
    for _, row in rows.drop_duplicates(["variant", "data", "data_seed"]).iterrows():
        std = np.sqrt(read_examples(paths[row["run"]])["principal_std"] ** 2 + NOISE_STD**2)
        named = {**_named(row), "label": LINEAR, "method": "pca"}
        parts.append(pd.DataFrame({**named, "rank": np.arange(1, len(std) + 1), "std": std}))
    return pd.concat(parts)


def _named(row: pd.Series[Any]) -> dict[str, Any]:
    return {column: row[column] for column in OF_DIGITS}


def knees(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """Where each spectrum has its knee (`informative`), and how sharp it is: see `sharpness`."""
    records = []
    for key, part in image_spectra(rows, paths).groupby(OF_DIGITS, sort=False):
        std = part["std"].to_numpy()
        found = {"informative": float(informative(std, "knee")), "sharpness": sharpness(std)}
        records.append(dict(zip(OF_DIGITS, key, strict=True)) | found)
    return pd.DataFrame(records).assign(chance=float("nan"))


def sharpness(std: NDArray[np.float64]) -> float:
    """How far a falling spectrum's log bends below the straight line between its ends, as a share of its fall.

    0 for a line; 1 would be a spectrum that falls at once and then stays (Satopaa et al. 2011).
    """
    log = np.log(std[std > 0])
    line = np.linspace(log[0], log[-1], len(log))
    return float((line - log).max() / (log[0] - log[-1]))


def spectra_with_knees(tables: Tables) -> Picture:
    """Figure 3: the spectrum of GIN, whole and its first 60, and that of PCA; dotted: the paper's knee."""
    spread, found = tables["spectra"], tables["knees"]
    variants = spread["variant"].unique()
    figure = Figure(figsize=(7.2, 2.5 * len(variants) + 0.3))
    for row, variant in zip(figure.subplots(len(variants), 3, squeeze=False), variants, strict=True):
        own, knee = spread[spread["variant"] == variant], found[found["variant"] == variant]
        (_, flow), (_, pca) = sorted(own.groupby("label"), key=lambda each: str(each[0]) == LINEAR)
        for axis, part, most in zip(row, (flow, flow, pca), (None, 60, None), strict=True):
            label = part["label"].iloc[0]
            at = knee.loc[knee["label"] == label, "informative"]
            for _, seed in part[part["rank"] <= (most or np.inf)].groupby(["data_seed", "seed"]):
                axis.plot(seed["rank"], seed["std"], color=PALETTE[seed["method"].iloc[0]])
            axis.axvline(at.mean(), color="black", linewidth=0.8)
            axis.axvline(DETAILED, **REPORTED_LINE)
            ranks = f", first {most}" if most else ""
            axis.set(title=f"{label}, {variant}{ranks}\nknee at {at.mean():.0f}", xlabel="latent", yscale="log")
        row[1].axvline(LEADING, **REPORTED_LINE)
        row[0].set_ylabel("standard deviation")
    means = found.groupby(["label", "variant"], sort=False)
    return Picture(
        "spectra_of_digits",
        figure,
        f"Falling spectra of standard deviations. Knees: {in_words(means['informative'].mean())}. "
        f"Sharpness: {in_words(means['sharpness'].mean())}.",
        "Line: the knee by the rule (the latent before the point farthest below the straight line between the ends of "
        "the log spectrum); dotted: the paper's 22, and in the middle its 8 of global shape.",
    )


def moved_pixels(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """What each leading latent does to the digits of each class: the mean of |x(+1) - x(-1)| over the pixels."""
    parts = []
    for _, row in rows.iterrows():
        change = _changes(_of_seed(paths[row["run"]], row["seed"], "class_traversals")).mean(-1)  # (n', M)
        rank, digit = np.indices(change.shape).reshape(2, -1)
        parts.append(pd.DataFrame({**_named(row), "rank": rank + 1, "digit": digit, "moved": change.ravel()}))
    return pd.concat(parts)


def _of_seed(folder: Path, seed: int, name: str) -> NDArray[np.float64]:
    shown = read_examples(folder)
    return np.asarray(shown[name][position_of(shown, int(seed))], float)


def _changes(traversals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Heatmaps of Figures 4, 5, 10 to 15, |x(+1) - x(-1)| in standard deviations: (n', M, steps, d) to (n', M, d)."""
    steps = traversals.shape[2]
    return np.asarray(np.abs(traversals[:, :, 3 * (steps // 4)] - traversals[:, :, steps // 4]))


def global_and_local(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """Of the 8 leading latents, the 14 after them and two more: how much they move, and how evenly over the digits.

    `evenness` is the least of the ten digits' moves divided by the largest, `moved` their mean, both averaged over the
    latents; `share` is `moved` over that of the 14.
    """
    moved = moved_pixels(rows, paths)
    bands = pd.cut(moved["rank"], [0, LEADING, DETAILED, np.inf], labels=["1 to 8", "9 to 22", "23 and 24"])
    by_digit = moved.assign(band=bands.astype(str)).groupby([*OF_DIGITS, "band", "rank"], sort=False)["moved"]
    each = pd.DataFrame({"evenness": by_digit.min() / by_digit.max(), "moved": by_digit.mean()})
    table = each.groupby([*OF_DIGITS, "band"], sort=False).mean().reset_index()
    local = table[table["band"] == "9 to 22"].set_index(OF_DIGITS)["moved"].rename("local")
    table = table.join(local, on=OF_DIGITS)
    return table.assign(share=table["moved"] / table["local"], chance=float("nan")).drop(columns="local")


def map_of_moves(tables: Tables) -> Picture:
    """How much each leading latent moves each digit, a map for each variant, of its first seed."""
    moved, bands = tables["moved"], tables["bands"]
    figure, axes = panels(moved["variant"].unique(), width=7.0, height=2.6, columns=1)
    for variant, axis in axes.items():
        own = moved[moved["variant"] == variant]
        first = own[(own["data_seed"] == own["data_seed"].iloc[0]) & (own["seed"] == own["seed"].iloc[0])]
        grid = first.pivot_table(index="digit", columns="rank", values="moved")
        drawn = axis.imshow(grid, cmap="viridis", aspect="auto")
        figure.colorbar(drawn, ax=axis, label="mean |x(+1) - x(-1)|")
        axis.set(title=f"{variant}, seed {first['seed'].iloc[0]}", xlabel="latent", ylabel="digit")
        axis.set_xticks(range(grid.shape[1]), grid.columns)
        axis.set_yticks(range(grid.shape[0]), grid.index)
        for edge in (LEADING, DETAILED):
            axis.axvline(edge - 0.5, color="white", linestyle=":")
    means = bands.groupby(["variant", "band"], sort=False)
    return Picture(
        "moves",
        figure,
        f"Maps of how much each latent moves the pixels of each digit. Means: {in_words(means['moved'].mean())}. "
        f"Evenness over digits: {in_words(means['evenness'].mean())}.",
        "Mean over the pixels; dotted: after 8 and 22 latents.",
    )


def traversals(rows: pd.DataFrame, paths: Paths) -> Picture:
    """Figures 4, 5, 10 to 15: a block for each leading latent, a row for each digit, -2 to +2 standard deviations."""
    row = rows.iloc[0]
    shown = read_examples(paths[row["run"]])
    moved = _of_seed(paths[row["run"]], row["seed"], "class_traversals")  # (n', M, steps, d)
    heat = _changes(moved)
    heat = heat / heat.max((1, 2), keepdims=True)
    whole = np.concatenate([moved, heat[:, :, None]], 2)
    across = 4
    down = -(-len(whole) // across)
    figure = Figure(figsize=(1.8 * across, 2.0 * down + 0.4))
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for number, (axis, images) in enumerate(zip(axes, whole, strict=False)):
        axis.imshow(tiled(images, tuple(shown["image"])), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(f"latent {number + 1}")
    for axis in axes:
        axis.set_axis_off()
    named = f"{row['label']}, {row['variant']}, seed {row['seed']}"
    return Picture(
        "traversals",
        figure,
        f"Digits while one of the {len(whole)} leading latents of {named} moves and the others stay at their mean.",
        f"{named}. A row for each digit; from left to right the latent goes from -2 to +2 standard deviations of the "
        "class; last column: the change between -1 and +1, each block to its largest.",
    )


def styles(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """Of drawn digits: whether the style of a draw is the same in all classes, and how much noise is in them.

    `style` is the correlation over draws between two classes of ink (mean of x) and of slant (how far the mean of a
    row of pixels shifts from row to row), a mean over both and all pairs of classes; `noise` the mean of x where all of
    the shown real images are black.
    """
    records = []
    for _, row in rows.iterrows():
        shown = read_examples(paths[row["run"]])
        drawn = _of_seed(paths[row["run"]], row["seed"], "class_drawn")  # (3, M, r, d)
        _, height, width = shown["image"]
        black = (shown["x"] == 0).all(0)
        for part, number in PARTS.items():
            images = drawn[number].reshape(*drawn.shape[1:3], height, width)
            same = [_between_classes(each) for each in (images.mean((2, 3)), _slant(images))]
            noise = float(drawn[number][..., black].mean())
            records.append({**_named(row), "part": part, "style": float(np.mean(same)), "noise": noise})
    return pd.DataFrame(records).assign(chance=float("nan"))


def _slant(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """The slope of the column on the row of a pixel, weighted by its ink: (M, r, h, w) to (M, r)."""
    weight = images / np.maximum(images.sum((2, 3), keepdims=True), 1e-12)
    row, column = (axis.astype(float) for axis in np.indices(images.shape[2:]))
    down, across = (axis - (weight * axis).sum((2, 3), keepdims=True) for axis in (row, column))
    spread = (weight * down**2).sum((2, 3))
    return np.asarray((weight * down * across).sum((2, 3)) / np.maximum(spread, 1e-12))


def _between_classes(values: NDArray[np.float64]) -> float:
    """Mean correlation over draws of all pairs of classes: (M, r) to a number."""
    with np.errstate(invalid="ignore"):  # NaN where a class does not vary
        correlations = np.asarray(np.corrcoef(values))
    return float(correlations[np.triu_indices(len(values), 1)].mean())


def samples(rows: pd.DataFrame, paths: Paths) -> Picture:
    """Figure 9: drawn digits, a row for each draw and a column for each class, at full and at reduced temperature."""
    row = rows.iloc[0]
    shown = read_examples(paths[row["run"]])
    drawn = _of_seed(paths[row["run"]], row["seed"], "class_drawn")
    figure = Figure(figsize=(7.2, 2.6))
    for axis, (part, number) in zip(figure.subplots(1, len(PARTS)), PARTS.items(), strict=True):
        images = tiled(drawn[number].swapaxes(0, 1), tuple(shown["image"]))  # a row for each draw
        axis.imshow(images, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(part)
        axis.set_axis_off()
    named = f"{row['label']}, {row['variant']}, seed {row['seed']}"
    return Picture(
        "samples",
        figure,
        f"Digits drawn from {named}: with all latents drawn, with 22 leading ones, and with these at temperature .8.",
        f"{named}. Columns are classes, a row has the same draw for all; latents that are not drawn are at their mean.",
    )


def styles_kept(tables: Tables) -> Picture:
    """Style kept across classes and noise on black ground, for each way to draw."""
    found = tables["styles"]
    figure = Figure(figsize=(6.4, 2.4))
    axes = figure.subplots(1, 2, squeeze=False)[0]
    names = [f"{variant}\n{part}" for variant, part in found[["variant", "part"]].itertuples(index=False)]
    for axis, column, label in zip(axes, ("style", "noise"), ("correlation of style", "noise on black"), strict=True):
        axis.barh(names, found[column], color=PALETTE["gin"])
        axis.set(xlabel=label)
        axis.invert_yaxis()
    means = found.groupby(["variant", "part"], sort=False)
    return Picture(
        "styles",
        figure,
        f"Bars of style kept, {in_words(means['style'].mean())}, and of noise, {in_words(means['noise'].mean())}.",
        "Style: correlation of ink and slant between classes, over draws. Noise: mean of x where real ones are black.",
    )


# Tables 2 and 3 -----------------------------------------------------------------------------------------------------


def network_sizes(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """How many numbers each network learns."""
    numbers = [pd.read_csv(paths[run] / "network.csv")["numbers"].sum() for run in rows["run"]]
    named = rows[["variant", "label", "method", "data_seed", "seed"]]
    return named.assign(numbers=numbers, chance=float("nan"))  # no spread


def bars_of_sizes(tables: Tables) -> Picture:
    """The parameter counts of Appendix D."""
    sizes = tables["sizes"]
    figure = Figure(figsize=(5, 1 + 0.4 * len(sizes)))
    axis = figure.subplots()
    names = [f"{label}, {variant}" for variant, label in sizes[["variant", "label"]].itertuples(index=False)]
    axis.barh(names, sizes["numbers"], color=PALETTE["gin"])
    for place, numbers in enumerate(sizes["numbers"]):
        axis.annotate(f" {numbers:,}", (numbers, place), va="center", fontsize=7)
    axis.set(xlabel="learnable parameters", xscale="log", xlim=(1000, 2e7))
    said = "; ".join(f"{name} {numbers:,}" for name, numbers in zip(names, sizes["numbers"], strict=True))
    return Picture("tables23", figure, f"Bars of numbers of parameters: {said}.", "Learnable parameters.")


# Table 1 ------------------------------------------------------------------------------------------------------------

LIKELIEST, OTHERS, COLUMNS = "flow, likeliest", "flow, other starts", "columns of x"
OF_FAMILIES = ["variant", "method", "data", "data_seed", "seed", "data.family"]


def relations(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """How near to a line true and recovered sources are, over the sources of a run: R², slopes, and their signs.

    `slope_error` is the mean of ||a| - 1|, `upright` the share of slopes above 0. The seed of the highest likelihood
    on each data set has a label of its own, and so have the columns of x.
    """
    records = []
    for _, own in rows.groupby(["variant", "data_seed"], sort=False):
        best = own.sort_values("elbo").index[-1]
        for place, row in own.iterrows():
            named = {column: row[column] for column in OF_FAMILIES}
            latents, truth = _recovered(paths[row["run"]], row["seed"])
            label = LIKELIEST if place == best else OTHERS
            records.append({**named, "label": label, "elbo": row["elbo"], **_lines(latents, truth)})
        shown = read_examples(paths[row["run"]])
        records.append({**named, "label": COLUMNS, "method": "x", **_lines(shown["x"], shown["sources"])})
    return pd.DataFrame(records).assign(chance=float("nan"))


def _recovered(path: Path, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    arrays = read_latents(path)
    return arrays["mean"][position_of(arrays, int(seed))], arrays["sources"]


def _lines(latents: NDArray[Any], sources: NDArray[Any]) -> dict[str, float]:
    """R² and slope of y on the y' that is matched to it, over the sources."""
    matching = match(latents.astype(float), sources.astype(float))
    slopes = matching.correlations * sources.std(0) / latents[:, matching.columns].std(0)
    return {
        "r2": float((matching.correlations**2).mean()),
        "slope_error": float(np.abs(np.abs(slopes) - 1).mean()),
        "upright": float((slopes > 0).mean()),
    }


def related_pairs(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """Points of the likeliest seed of each family and data set: true sources y and the y' matched to them."""
    parts = []
    for _, own in rows.groupby(["variant", "data_seed"], sort=False):
        row = own.sort_values("elbo").iloc[-1]
        latents, truth = _recovered(paths[row["run"]], row["seed"])
        matching = match(latents.astype(float), truth.astype(float))
        chosen = np.linspace(0, len(truth) - 1, min(CLOUD // 3, len(truth))).astype(int)
        for source, column in enumerate(matching.columns):
            points = {"latent": latents[chosen, column], "true": truth[chosen, source]}
            named = {name: row[name] for name in OF_FAMILIES}
            parts.append(pd.DataFrame({**named, "label": LIKELIEST, "source": source + 1, **points}))
    return pd.concat(parts)


def relations_drawn(tables: Tables) -> Picture:
    """True source against recovered latent, in y, a panel for each family and a row for each data set."""
    points, scores = tables["pairs"], tables["relations"]
    families, seeds = points["variant"].unique(), sorted(points["data_seed"].unique())
    figure = Figure(figsize=(1.9 * len(families), 2.1 * len(seeds) + 0.4))
    grid = figure.subplots(len(seeds), len(families), squeeze=False)
    for (row, column), axis in np.ndenumerate(grid):
        family, seed = families[column], seeds[row]
        own = points[(points["variant"] == family) & (points["data_seed"] == seed)]
        for source, part in own.groupby("source"):
            axis.scatter(part["latent"], part["true"], s=2, linewidths=0, color=f"C{source}", alpha=0.6)
        score = scores[(scores["variant"] == family) & (scores["data_seed"] == seed) & (scores["label"] == LIKELIEST)]
        middle = own[["latent", "true"]].mean()
        for sign in (1, -1):
            axis.axline(tuple(middle), slope=sign, **REPORTED_LINE)
        axis.set_title(f"{family}, data seed {seed}\nR² {score['r2'].mean():.3f}", fontsize=8)
        axis.set(xlabel="latent" if row == len(seeds) - 1 else "", ylabel="" if column else "true source")
    means = scores.groupby(["label", "variant"], sort=False)["r2"].mean()
    return Picture(
        "table1",
        figure,
        f"True sources against recovered ones on the real line, for each family. R² of a line: {in_words(means)}.",
        "Both sources (colours) of the likeliest of the starts, as y = z, log z or logit z. Dotted: slopes 1 and -1.",
    )
