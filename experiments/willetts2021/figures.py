"""Figures of Willetts and Paige (2021): run folders to tables, and tables to pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ivae_lab.claims import correlation
from ivae_lab.metrics.mcc import mean_correlation
from ivae_lab.plots import PALETTE, Picture, boxes, in_words, panels, points_by_data_seed
from ivae_lab.present import Tables
from ivae_lab.results import read_examples

SIZE = "data.samples_per_segment"
Paths = Mapping[str, Path]


def linear_floors(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """MCC of PCA and of FastICA on x: what needs no network, on the rows of examples.npz."""
    from sklearn.decomposition import PCA, FastICA

    records = []
    controls = rows[rows["method"] == "vae"].drop_duplicates(["variant", SIZE])
    for _, row in controls.iterrows():
        shown = read_examples(paths[row["run"]])
        n = shown["sources"].shape[1]
        linear = {"pca": PCA(n), "fastica": FastICA(n, random_state=0, max_iter=2000, tol=1e-3)}
        for method, estimator in linear.items():
            score = mean_correlation(estimator.fit_transform(shown["x"].astype(float)), shown["sources"])
            records.append({"variant": row["variant"], SIZE: row[SIZE], "method": method, "mcc": score})
    return pd.DataFrame(records, columns=["variant", SIZE, "method", "mcc"])


def boxes_by_size(tables: Tables) -> Picture:
    """Figure 2: a box over model seeds for each method and size of data, a panel for each variant."""
    rows, floors = tables["rows"], tables["floors"]
    figure, axes = panels(rows["variant"].unique(), width=5.2, height=3, columns=2, sharey=True)
    for variant, axis in axes.items():
        own = rows[rows["variant"] == variant]
        boxes(axis, own, SIZE, "mcc_mean")
        for method, part in floors[floors["variant"] == variant].groupby("method", sort=False):
            places = [sorted(own[SIZE].unique()).index(size) for size in part[SIZE]]
            axis.plot(places, part["mcc"], "--", color=PALETTE[str(method)], linewidth=0.8, label=f"{method} on x")
        axis.set(title=f"{variant} setting", xlabel="samples per segment", ylabel="MCC of the posterior mean")
        axis.legend(loc="upper left", ncols=3)
    medians = rows.groupby(["variant", "label"], sort=False)["mcc_mean"].median()
    return Picture(
        "fig2",
        figure,
        f"Boxplots of MCC against samples per segment. Medians over all sizes: {in_words(medians)}.",
        "MCC with the true sources (posterior mean, Pearson, permutation only), a point per model seed. Dotted: chance "
        "floor; dashed: PCA and FastICA on x.",
    )


def mcc_against_elbo(tables: Tables) -> Picture:
    """Figure 3: a point per run, a regression line with its 95% band, a panel for each variant."""
    import seaborn

    rows = tables["rows"]
    figure, axes = panels(rows["variant"].unique(), width=3.4, height=3, columns=2)
    said = []
    for variant, axis in axes.items():
        own = rows[rows["variant"] == variant]
        r, low, high = correlation(own["elbo"].to_numpy(float), own["mcc_mean"].to_numpy(float))
        said.append(f"{variant} r = {r:.2f} [{low:.2f}, {high:.2f}]")
        seaborn.regplot(own, x="elbo", y="mcc_mean", ax=axis, scatter=False, color=PALETTE["vade"], seed=0)
        sizes = own[SIZE].astype(str)
        seaborn.scatterplot(x=own["elbo"], y=own["mcc_mean"], hue=sizes, palette="viridis", s=14, ax=axis)
        axis.set(title=f"{said[-1]}", xlabel="ELBO, nats a row", ylabel="MCC of the posterior mean")
        axis.legend(title="samples per segment", title_fontsize=7)
    return Picture(
        "fig3",
        figure,
        f"MCC against ELBO, a point per run of VaDE, with regression line. Correlations: {'; '.join(said)}.",
        "A point per model seed; line and 95% band (bootstrap) of a linear regression over all sizes of data.",
    )


def hours(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """Hours of all runs of a model, and seconds of one of them (`seconds` of the run folder, over its seeds)."""
    from ivae_lab.results import read_status

    status = {run: read_status(paths[run]) for run in rows["run"].unique()}
    each = rows["run"].map(lambda run: status[run]["seconds"] / len(status[run]["seeds"]))
    groups = rows.assign(seconds=each).groupby(["variant", "label", "method"], sort=False)["seconds"]
    table = groups.agg(runs="count", seconds_a_run="mean", hours=lambda part: part.sum() / 3600).reset_index()
    return table.assign(data_seed=1, seed=0)  # one total, no spread


def hours_by_model(tables: Tables) -> Picture:
    """Appendix E: a bar per model, beside the paper's six hours."""
    table = tables["hours"]
    figure = Figure(figsize=(4.6, 2.4))
    axis = figure.subplots()
    names = [f"{label}, {variant}" for variant, label in table[["variant", "label"]].itertuples(index=False)]
    axis.barh(names, table["hours"], color=[PALETTE[method] for method in table["method"]])
    for place, (total, one) in enumerate(table[["hours", "seconds_a_run"]].itertuples(index=False)):
        axis.annotate(f" {total:.2f} h, {one:.0f} s a run", (total, place), va="center", fontsize=7)
    axis.axvline(6, linestyle=":", color="#555555")
    axis.annotate("the paper's 6 h ", (6, -0.4), ha="right", fontsize=7)
    axis.set(xlabel="hours for all runs", xlim=(0, 6.5))
    said = "; ".join(f"{name} {total:.2f} h" for name, total in zip(names, table["hours"], strict=True))
    return Picture(
        "compute",
        figure,
        f"Bars of hours for all runs of a model: {said}; the paper says 6 h.",
        "Training time of all seeds and sizes of data, of one core; dotted: the paper's six hours on a laptop.",
    )


def mcc_by_data_seed(tables: Tables) -> Picture:
    """The claim of Figure 2 on each data seed."""
    return points_by_data_seed(tables["rows"], "mcc_mean")
