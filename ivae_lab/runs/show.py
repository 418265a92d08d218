"""Show a finished run on the terminal: scores per seed, their mean with its interval, and paths of its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ivae_lab.runs.agreement_csv import FILE, read_pairs, summarise_pairs
from ivae_lab.runs.folder import CHECKS, read_status
from ivae_lab.runs.headlines import headlines
from ivae_lab.runs.results_csv import read_checks, read_results
from ivae_lab.runs.summaries import interval

TITLES = {
    "mcc_mean": "MCC\nmean",
    "mcc_sample": "MCC\nsample",
    "mcc_weak": "weak MCC\nmean, out",
    "linear_r2": "linear R2\nmean, out",
    "elbo": "ELBO\nnats",
}
_VERDICTS = {True: ("pass", "green"), False: ("fail", "red"), None: ("undecided", "yellow")}
# Metrics with one number per seed, shown under their names in results.csv where the run has them.
FURTHER = (
    *("informative", "mcc_informative", "cluster_accuracy", "cluster_purity", "nmi", "gap"),
    *("prior_affine", "decoder_affine", "prior_scaled", "decoder_scaled"),
)


def show(folder: Path, console: Console) -> None:
    """Print the table of a finished run folder."""
    rows, status = read_results(folder), read_status(folder)
    chosen, split = headlines(rows)
    further = {name: rows[(rows["split"] == split) & (rows["metric"] == name)] for name in FURTHER}
    columns = {TITLES[name]: part for name, part in chosen.items()}
    columns |= {name.replace("_", "\n"): part for name, part in further.items() if len(part)}
    if columns:
        console.print(_table(columns, split))
    if status["state"] == "diverged":
        console.print(f"diverged: {status['error']}; not in the means", style="bold red", soft_wrap=True)
    if any(name.startswith("mcc") for name in chosen):
        console.print(
            "MCC: Pearson, matched by assignment; strong unless it says weak (CCA on one half, scored on the other)."
        )
        console.print("chance: the same number with the sources' rows shuffled. All variants are in results.csv.")
    _show_pairs(folder, console)
    _show_checks(folder, console)
    for name in ("recovered.png", "latents.png", "examples.png", "results.csv", FILE, CHECKS):
        if (folder / name).exists():
            console.print(f"{name:14} {folder / name}", soft_wrap=True, highlight=False)


def _show_pairs(folder: Path, console: Console) -> None:
    """Print the agreement of seeds, where several were compared."""
    if not (folder / FILE).exists():
        return
    rows = read_pairs(folder)
    split = "test" if (rows["split"] == "test").any() else rows["split"].iloc[0]
    in_facets = rows["position"].isna().any() and rows["position"].notna().any()
    summary = summarise_pairs(rows[rows["split"] == split], ["position"] if in_facets else [])
    seeds, pairs, lost = summary.iloc[0][["seeds", "pairs", "diverged"]]
    diverged = f", {lost} of them diverged" if lost else ""
    table = Table(title=f"agreement on the {split} rows: MCC of {pairs} pairs of {seeds} seeds{diverged}")
    for name in ("latents", "alignment", "scored", "mean", "95% interval", "chance"):
        table.add_column(name)
    for row in summary.to_dict("records"):
        alignment = row["alignment"] if pd.isna(row["rank"]) else f"{row['alignment']}, rank {row['rank']}"
        latents = f"{row['latents']}, {row['coefficient']}"
        if in_facets:
            latents += ", all facets" if pd.isna(row["position"]) else f", facet {row['position'] + 1}"
        numbers = (_number(row["mean"]), _between(row["low"], row["high"]), _number(row["chance"]))
        table.add_row(latents, alignment, row["scored"], *numbers)
    console.print(table)
    console.print("Interval: seeds resampled, as pairs share them. scored in: on the half that the CCA was fitted on.")


def _show_checks(folder: Path, console: Console) -> None:
    """Print the verdicts on assumptions, of the first seed, where some were checked."""
    checks = read_checks(folder)
    seeds = sorted({check["seed"] for check in checks})
    if not checks:
        return
    table = Table(title=f"checked on the {checks[0]['split']} rows, seed {seeds[0]} of {len(seeds)}", show_lines=True)
    for column in ("assumption", "", "what was looked at, what breaks it, what it means"):
        table.add_column(column)
    for check in checks:
        if check["seed"] == seeds[0]:
            verdict, style = _VERDICTS[check["passed"]]
            words = " ".join(filter(None, (check[part] for part in ("looked_at", "witness", "meaning"))))
            table.add_row(check["name"], Text(verdict, style), Text(words))
    console.print(table)


def _table(columns: dict[str, pd.DataFrame], split: str) -> Table:
    table = Table(title=f"scores on the {split} rows")
    table.add_column("seed", justify="right")
    for name in columns:
        table.add_column(name, justify="right")
    values = pd.DataFrame(
        {name: part.drop_duplicates("seed").set_index("seed")["value"] for name, part in columns.items()}
    )
    for seed, row in values.iterrows():
        table.add_row(str(seed), *map(_number, row))
    table.add_section()
    table.add_row("mean", *(_number(_mean(part["value"])) for part in columns.values()), style="bold")
    table.add_row("95% interval", *(_interval(part["value"]) for part in columns.values()))
    table.add_row("chance", *(_number(_mean(part["chance"])) for part in columns.values()), style="dim")
    return table


def _mean(values: pd.Series[float]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _interval(values: pd.Series[float]) -> str:
    return _between(*interval(values))


def _between(low: float, high: float) -> str:
    return f"{low:.3f} to {high:.3f}" if np.isfinite(low) else "-"


def _number(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"
