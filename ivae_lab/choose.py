"""Chooses a key's value, such as the number of latents, by held-out ELBO, with the agreement of seeds beside it.

    ivae-lab choose [key=model.latent_dim] [outputs=FOLDER or outputs=A,B] [OTHER.KEY=VALUE ...] [out=choice]

after a sweep such as

    ivae-lab train -m data=file data.path=own.npz model.latent_dim=1,2,3,4,5 data.seed=1,2,3 'seed=[0,1,2]'

Runs under the outputs may differ in `key` and in their seeds. Where they differ in something else too, such as
trainer.steps, OTHER.KEY=VALUE takes those with that value.

The ELBO is that of the validation rows, of the test rows where there are none, in nats per row of the data as they came
(what preprocessing does to a density is undone). Model seeds are restarts: a value's ELBO is that of the best restart,
in the mean over data seeds, since a restart in a poor optimum says nothing of the value; all restarts' mean is shown
beside it. The standard error is over data seeds, or where there is one only, over model seeds. By the rule of one
standard error (Breiman et al. 1984) the smallest value is chosen whose ELBO is within one standard error of the best.
Agreement is the mean MCC between seeds (strong, Pearson, posterior means): near 1 where every restart finds the same
latents, which is what can be known where there are no true sources. A seed that diverged counts as no number and is
named. At the chosen value, the restart of best ELBO is named.

Writes choice.csv, and choice.png and choice.pdf, into the first of the outputs, or where `out` says.

Exit codes: 0 chosen, 2 bad input, 130 and 143 stopped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ivae_lab.plots.style import STYLE, save
from ivae_lab.runs.aggregation import AGREEMENT, collect, table
from ivae_lab.runs.folder import run_folders
from ivae_lab.runs.headlines import log_volume
from ivae_lab.runs.selection import SweepChoice, check_key, choose, differing, matching
from ivae_lab.terminal.command_line import BadInputError, done, written
from ivae_lab.terminal.messages import listed
from ivae_lab.terminal.text_tables import show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEYS: dict[str, tuple[str, ...]] = {"key": (), "outputs": (), "out": ()}  # and those of the configuration


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return done("ivae_lab.choose", __doc__, arguments, _run)


def _run(arguments: Sequence[str]) -> None:
    given = _pairs(arguments)
    key, outputs = given.pop("key", "model.latent_dim"), given.pop("outputs", "outputs")
    roots = [Path(each) for each in outputs.split(",")]
    out = Path(given.pop("out", str(roots[0] / "choice")))
    folders = sorted({folder for root in roots for folder in run_folders(root.resolve())})
    if not folders:
        raise BadInputError(f"expected runs under {outputs}, got none")
    found = collect(folders)
    base = Path(os.path.commonpath([folder.parent for folder in folders]))
    rows, pairs = matching(table(found), given), matching(table(found, AGREEMENT), given)
    check_key(rows, key)
    if rows.empty:
        raise BadInputError(f"expected finished runs with {' '.join(map('='.join, given.items())) or 'rows'}, got none")
    if others := differing(rows, key):
        values = listed(sorted(map(str, rows[others[0]].unique())))
        raise BadInputError(
            f"expected runs that differ in {key} and seeds only, got {listed(others)} too: {others[0]}= takes those of "
            f"one value, of {values}"
        )
    volumes = {name: log_volume(base / name) for name in rows["folder"].unique()}
    choice = choose(rows.assign(volume=rows["folder"].map(volumes).astype(float)), pairs, key)
    _write(choice, out)
    _print(choice, out)


def _pairs(arguments: Sequence[str]) -> dict[str, str]:
    parted = [argument.partition("=") for argument in arguments]
    if wrong := [argument for argument, (key, _, value) in zip(arguments, parted, strict=True) if not key or not value]:
        raise BadInputError(f"expected KEY=VALUE, got {wrong[0]}")
    given = {key: value for key, _, value in parted}
    if len(given) < len(parted):
        raise BadInputError(f"expected each key once, got {' '.join(arguments)}")
    return given


def _write(choice: SweepChoice, out: Path) -> None:
    from matplotlib import rc_context

    with written(out.with_name(f"{out.name}.csv")) as temporary:
        choice.summary.to_csv(temporary, index=False)
    with rc_context(STYLE):
        save(_drawn(choice), out)


def _drawn(choice: SweepChoice) -> Figure:
    """The ELBO over the key's values, with its standard errors and the choice, and below it the agreement."""
    from matplotlib.figure import Figure

    summary, agreed = choice.summary, choice.summary["agreement"].notna().any()
    figure = Figure(figsize=(4.2, 4.4 if agreed else 2.8))
    above, *below = figure.subplots(2 if agreed else 1, 1, sharex=True, squeeze=False).ravel()
    above.errorbar(summary[choice.key], summary["elbo"], summary["se"], marker="o", markersize=3, capsize=2)
    best = summary.loc[summary[choice.key] == choice.best].iloc[0]
    above.axhline(best["elbo"] - np.nan_to_num(best["se"]), linestyle=":", color="#555555", linewidth=0.8)
    above.axvline(choice.value, color="#BBBBBB", linewidth=4, zorder=0)
    above.set_ylabel(f"ELBO ({choice.split} rows, nats)")
    above.set_title(f"{choice.key} = {choice.value:g} by the one-standard-error rule")
    for axis in below:
        axis.plot(summary[choice.key], summary["agreement"], marker="o", markersize=3)
        axis.axvline(choice.value, color="#BBBBBB", linewidth=4, zorder=0)
        axis.set(ylabel="MCC between seeds", ylim=(0, 1))
    figure.axes[-1].set_xlabel(choice.key)
    figure.axes[-1].set_xticks(summary[choice.key])
    return figure


def _print(choice: SweepChoice, out: Path) -> None:
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    summary = choice.summary.convert_dtypes()
    console.print(show(summary, f"held-out ELBO of the {choice.split} rows, by {choice.key}"))
    folder, seed = choice.restart
    console.print(
        f"chosen: {choice.key}={choice.value:g}, the smallest within a standard error of the best, {choice.best:g}"
    )
    console.print(f"restart of best ELBO there: seed {seed} of {folder}", soft_wrap=True)
    console.print(f"{out}.csv, {out.name}.png, {out.name}.pdf", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
