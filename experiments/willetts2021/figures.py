"""Figures of Willetts and Paige (2021): run folders to tables, and tables to pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ivae_lab.plots.methods import PALETTE, in_words
from ivae_lab.plots.panels import boxes, panels, points_by_data_seed
from ivae_lab.plots.style import Picture
from ivae_lab.reproduction.claims import correlation
from ivae_lab.reproduction.evidence import Tables
from ivae_lab.runs.agreement_csv import pairs_of, pseudo_values
from ivae_lab.runs.results_csv import read_results

SIZE, WIDTH = "data.samples_per_segment", "model.latent_dim"
LINEAR = ("pca", "fastica")
PAPER_HOURS, PAPER_RUNS = 6, 50  # Appendix E
NETWORK = ["variant", "label", WIDTH]
CELL = ["variant", "label", "method", "data", "data_seed", WIDTH]  # what seeds are compared within
# Names of the alignments in tables and pictures; `rank` is full or the released code's 20.
STRONG, IN, OUT, IN_20, OUT_20 = "mcc_strong", "mcc_in", "mcc_out", "mcc_in_20", "mcc_out_20"
SHOWN = {
    STRONG: "permutation only",
    IN: "CCA of full rank, in sample",
    OUT: "CCA of full rank, out of sample",
    IN_20: "CCA of rank 20, in sample",
    OUT_20: "CCA of rank 20, out of sample",
}
DRAWN = (IN_20, OUT_20, OUT, STRONG)  # the paper's two, and what they leave out
CLUSTERS = {"cluster_accuracy": "accuracy", "cluster_purity": "purity", "nmi": "nmi"}  # metric -> column
Paths = Mapping[str, Path]


def boxes_by_size(tables: Tables) -> Picture:
    """Figure 2: a box over model seeds for each method and size of data, a panel for each variant.

    Linear methods on x, which need no training, are lines.
    """
    rows = tables["rows"]
    linear = rows["method"].isin(LINEAR)
    figure, axes = panels(rows["variant"].unique(), width=5.2, height=3, columns=2, sharey=True)
    for variant, axis in axes.items():
        own = rows[(rows["variant"] == variant) & ~linear]
        lines = rows[(rows["variant"] == variant) & linear].groupby(["method", "label"], sort=False)
        boxes(axis, own, SIZE, "mcc_mean")
        sizes = sorted(own[SIZE].unique())
        for (method, label), part in lines:
            means = part.groupby(SIZE)["mcc_mean"].mean().reindex(sizes)
            axis.plot(range(len(sizes)), means, "--", color=PALETTE[str(method)], linewidth=0.8, label=label)
        axis.set(title=f"{variant} setting", xlabel="samples per segment", ylabel="MCC of the posterior mean")
        axis.legend(loc="upper left", ncols=3)
    medians = rows.groupby(["variant", "label"], sort=False)["mcc_mean"].median()
    return Picture(
        "mcc_by_size",
        figure,
        f"Boxplots of MCC against samples per segment. Medians over all sizes: {in_words(medians)}.",
        "MCC with the true sources (posterior mean, Pearson, permutation only), a point per model seed. Dotted: chance "
        "floor; dashed: PCA and FastICA on x, mean over seeds.",
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
    from ivae_lab.runs.folder import read_status

    status = {run: read_status(paths[run]) for run in rows["run"].unique()}
    each = rows["run"].map(lambda run: status[run]["seconds"] / len(status[run]["seeds"]))
    groups = rows.assign(seconds=each).groupby(["variant", "label", "method"], sort=False)["seconds"]
    table = groups.agg(runs="count", seconds_a_run="mean", hours=lambda part: part.sum() / 3600).reset_index()
    return table.assign(data_seed=1, seed=0)  # one total, no spread


def hours_by_model(tables: Tables) -> Picture:
    """Appendix E: a bar per model, beside the paper's six hours; both also for one run."""
    table, theirs = tables["hours"], PAPER_HOURS * 3600 / PAPER_RUNS
    figure = Figure(figsize=(4.6, 2.4))
    axis = figure.subplots()
    names = [f"{label}, {variant}" for variant, label in table[["variant", "label"]].itertuples(index=False)]
    axis.barh(names, table["hours"], color=[PALETTE[method] for method in table["method"]])
    for place, (total, one) in enumerate(table[["hours", "seconds_a_run"]].itertuples(index=False)):
        axis.annotate(f" {total:.2f} h, {one:.0f} s a run", (total, place), va="center", fontsize=7)
    axis.axvline(PAPER_HOURS, linestyle=":", color="#555555")
    axis.annotate(f"the paper's {PAPER_HOURS} h, {theirs:.0f} s a run ", (PAPER_HOURS, -0.4), ha="right", fontsize=7)
    axis.set(xlabel="hours for all runs", xlim=(0, 6.5))
    ours = zip(names, table["hours"], table["seconds_a_run"], strict=True)
    said = "; ".join(f"{name} {total:.2f} h, {one:.0f} s a run" for name, total, one in ours)
    return Picture(
        "compute",
        figure,
        f"Bars of hours for all runs of a model: {said}; the paper says {PAPER_HOURS} h, {theirs:.0f} s a run.",
        "Training time of all seeds and sizes of data, of one core; dotted: the paper's six hours on a laptop, which "
        f"are {theirs:.0f} s for each of {PAPER_RUNS} runs, ten seeds on five sizes of data.",
    )


def mcc_by_data_seed(tables: Tables) -> Picture:
    """The claim of Figure 2 on each data seed."""
    return points_by_data_seed(tables["rows"], "mcc_mean")


@cache
def _pairs_of(folders_by_seed: tuple[tuple[int, Path], ...]) -> pd.DataFrame:
    """All pairs of finished runs, once for all tables: those across folders take up to a second each."""
    return pairs_of(dict(folders_by_seed))


def _agreement(rows: pd.DataFrame, paths: Paths) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """For each setting its columns, and the rows of all pairs of its seeds on the test part, with their `score`.

    Of up to 20 latents the full rank is the released code's too: the rows then stand for both.
    """
    for values, own in rows.groupby(CELL, sort=False):
        pairs = _pairs_of(tuple((seed, paths[run]) for seed, run in zip(own["seed"], own["run"], strict=True)))
        pairs = pairs[(pairs["split"] == "test") & (pairs["latents"] == "mean")]
        names = pairs["scored"].map({"all": STRONG, "in": IN, "out": OUT})
        named = [
            pairs.assign(score=names)[(pairs["rank"] == pairs["latent_dim"]) | (names == STRONG)],
            pairs.assign(score=names + "_20")[pairs["rank"] == pairs["latent_dim"].clip(upper=20)],
        ]
        cell = dict(zip(CELL, values, strict=True))
        cell["setting"] = f"{cell['data']}, {cell[WIDTH]}"
        yield cell, pd.concat(named).sort_index(kind="stable")


def agreement_pairs(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """MCC of every pair of seeds, with its chance floor: what the boxes are over."""
    kept = ["seed_a", "seed_b", "position", "score", "value", "chance"]
    tables = [pairs[kept].assign(**cell) for cell, pairs in _agreement(rows, paths)]
    return pd.concat(tables)[[*CELL, "setting", *kept]] if tables else pd.DataFrame(columns=[*CELL, "setting", *kept])


def place_pairs(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """As `agreement_pairs`, of the strong MCC alone: there are 64 places for each pair."""
    pairs = agreement_pairs(rows, paths)
    return pairs[pairs["score"] == STRONG]


def agreement_by_seed(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """What each seed contributes to the mean over pairs (the jackknife's pseudo-values), and the chance floor."""
    records = []
    for cell, pairs in _agreement(rows, paths):
        by_score = pairs.groupby("score", sort=False)
        values = pd.DataFrame({str(score): pseudo_values(part) for score, part in by_score})
        floor = pairs.loc[pairs["score"] == (STRONG if pairs["position"].notna().any() else OUT_20), "chance"].mean()
        records.append(values.rename_axis("seed").reset_index().assign(**cell, chance=floor))
    return pd.concat(records) if records else pd.DataFrame()


def clustering(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """How well each seed's clusters are the classes of the test rows, with the chance floors of accuracy and NMI.

    The former is `chance`, as in every table. A model without clusters has no rows.
    """
    scored = pd.concat(read_results(paths[run]).assign(run=run) for run in rows["run"].unique())
    scored = scored[(scored["split"] == "test") & scored["metric"].isin(CLUSTERS)]
    values, floors = (
        scored.pivot(index=["run", "seed"], columns="metric", values=column).reindex(columns=[*CLUSTERS])
        for column in ("value", "chance")
    )
    floors = floors.rename(columns={"cluster_accuracy": "chance", "nmi": "nmi_chance"})[["chance", "nmi_chance"]]
    table = values.rename(columns=CLUSTERS).join(floors).reset_index()
    return rows[[*CELL, "run", "seed"]].merge(table, on=["run", "seed"]).drop(columns="run")


def boxes_of_pairs(tables: Tables) -> Picture:
    """Figures 4 to 6 and C.2: a box over pairs of seeds for each width and method, panels for data and alignments."""
    pairs = tables["pairs"]
    pairs = pairs.assign(label=pairs["label"] + pairs["variant"].map({"released": ", released"}).fillna(""))
    names = {f"{data}: {SHOWN[score]}": (data, score) for data in pairs["data"].unique() for score in DRAWN}
    figure, axes = panels(names, width=2.6, height=2.6, columns=len(DRAWN), sharey=True)
    for name, axis in axes.items():
        data, score = names[name]
        own = pairs[(pairs["data"] == data) & (pairs["score"] == score)].rename(columns={"value": "mcc"})
        boxes(axis, own, WIDTH, "mcc")
        axis.set(title=name, xlabel="$d_z$", ylabel="MCC of pairs of seeds")
    _one_legend(figure, list(axes.values()))
    return Picture(
        "agreement",
        figure,
        f"Boxplots of the MCC between seeds. Means out of sample at rank 20: {_means(pairs, OUT_20)}.",
        "MCC between the posterior means of two seeds on test images, a point per pair; dotted: chance floor.",
    )


def boxes_by_place(tables: Tables) -> Picture:
    """Figure B.1: a box over all places of the grid and pairs of seeds, for each model."""
    pairs = tables["pairs"]
    figure, axes = panels(pairs["variant"].unique(), width=2.6, height=2.8, columns=2, sharey=True)
    for variant, axis in axes.items():
        own = pairs[pairs["variant"] == variant].rename(columns={"value": "mcc"})
        boxes(axis, own, "label", "mcc")
        axis.set(title=f"{variant} widths", xlabel="", ylabel="MCC of a place, permutation only")
    _one_legend(figure, list(axes.values()))
    return Picture(
        "figB1",
        figure,
        f"Boxplots of the MCC between seeds at each place of the grid. Means: {_means(pairs, STRONG)}.",
        "MCC between two seeds at a place of the grid, on test images, a point per place and pair; dotted: chance.",
    )


def _one_legend(figure: Figure, axes: list[Axes]) -> None:
    """One legend below all panels."""
    handles, labels = axes[0].get_legend_handles_labels()
    for axis in axes:
        if legend := axis.get_legend():
            legend.remove()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))


def _means(pairs: pd.DataFrame, score: str) -> str:
    own = pairs[pairs["score"] == score]
    return in_words(own.groupby(["variant", "label", "data", WIDTH], sort=False)["value"].mean())


def network_layers(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """Every parameter of encoder and decoder with its shape."""
    tables = []
    for _, row in rows.iterrows():
        weights = pd.read_csv(paths[row["run"]] / "network.csv")
        own = weights[weights["name"].str.startswith(("encoder.", "decoder."))]
        tables.append(own.assign(**{column: row[column] for column in NETWORK}))
    return pd.concat(tables)[[*NETWORK, "name", "shape", "numbers"]]


def network_sizes(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """How many weights encoder and decoder have."""
    layers = network_layers(rows, paths)
    layers["part"] = layers["name"].str.extract(r"^(\w+)\.", expand=False)
    sizes = layers.groupby([*NETWORK, "part"], sort=False)["numbers"].sum().unstack().reset_index()
    weights = sizes["encoder"] + sizes["decoder"]
    return sizes.assign(weights=weights, data_seed=1, seed=0, chance=float("nan"))  # no spread


def bars_of_sizes(tables: Tables) -> Picture:
    """Tables A.2 to A.4 in one number: weights of encoder and decoder of each network."""
    sizes = tables["sizes"]
    figure = Figure(figsize=(5.4, 1.2 + 0.22 * len(sizes)))
    axis = figure.subplots()
    names = [f"{label}, {variant}, d_z {width}" for variant, label, width in sizes[NETWORK].itertuples(index=False)]
    axis.barh(names, sizes["encoder"] / 1e6, color=PALETTE["vade"], label="encoder")
    axis.barh(names, sizes["decoder"] / 1e6, left=sizes["encoder"] / 1e6, color=PALETTE["ivae"], label="decoder")
    for place, weights in enumerate(sizes["weights"]):
        axis.annotate(f" {weights:,}", (weights / 1e6, place), va="center", fontsize=7)
    axis.set(xlabel="million weights", xlim=(0, 1.2 * sizes["weights"].max() / 1e6))
    axis.legend(loc="center right")
    said = "; ".join(f"{name} {weights:,}" for name, weights in zip(names, sizes["weights"], strict=True))
    return Picture("tablesA", figure, f"Bars of numbers of weights: {said}.", "Weights by network, image and d_z.")
