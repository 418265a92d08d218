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
from ivae_lab.plots import PALETTE, REPORTED_LINE, Picture, colours, in_words, panels
from ivae_lab.present import Tables
from ivae_lab.results import read_examples, read_latents, read_results

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
            std, _ = spectrum(arrays["mean"][_position(arrays, int(row["seed"]))])
            named = {column: row[column] for column in CELL}
            parts.append(pd.DataFrame({**named, "rank": np.arange(1, len(std) + 1), "std": std}))
    return pd.concat(parts)


def clouds(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """Sources, and the latents that are matched to them, to their scale, of the first data seed of each panel."""
    parts = []
    for _, own in rows.groupby(["variant", "label", POINTS], sort=False):
        first = own.sort_values(["data_seed", "seed"]).iloc[0]
        arrays = read_latents(paths[first["run"]])
        latents, sources = arrays["mean"][_position(arrays, int(first["seed"]))], arrays["sources"]
        moved, correlations = _aligned(latents.astype(float), sources.astype(float))
        chosen = np.linspace(0, len(sources) - 1, min(CLOUD, len(sources))).astype(int)
        named = {column: first[column] for column in ("variant", "label", "method", POINTS, "data_seed")}
        columns = {"u": arrays["u"][chosen]}
        for source in range(2):
            columns[f"true_{source + 1}"] = sources[chosen, source]
            columns[f"recovered_{source + 1}"] = moved[chosen, source]
            named[f"r_{source + 1}"] = abs(correlations[source])
        parts.append(pd.DataFrame({**named, **columns}))
    return pd.concat(parts)


def _position(arrays: Mapping[str, NDArray[Any]], seed: int) -> int:
    return int(np.flatnonzero(arrays["seed"] == seed)[0])


def _aligned(latents: NDArray[np.float64], sources: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The latents that are matched to the sources, to their mean, scale and sign; and the signed correlations."""
    matching = match(latents, sources)
    own = latents[:, matching.columns]
    scale = sources.std(0) / np.maximum(own.std(0), 1e-12) * np.sign(matching.correlations)
    return (own - own.mean(0)) * scale + sources.mean(0), matching.correlations


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
        again = shown["reconstruction"][_position(shown, int(row["seed"]))]
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
