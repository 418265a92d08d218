"""What a finished run says on the terminal."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ivae_lab.metrics.resampling import Estimate
from ivae_lab.runs.folder import write_status
from ivae_lab.runs.results_csv import read_results, write_results
from ivae_lab.runs.show import show
from ivae_lab.training.group import execute
from ivae_lab.training.run import prepare
from tests.running import TINY, make_run

ESTIMATE = Estimate(
    mean=np.zeros((10, 2)), sample=np.zeros((10, 2)), sources=None, u=None, index=np.arange(10), terms={}
)


def said(folder: Path, *numbers: tuple[int, str, float]) -> list[str]:
    """The lines of a run with these metrics of seeds."""
    more: dict[str, Any] = {"data_seed": 1, "split": "test"}
    rows = [{**ESTIMATE.row(metric, value, scored="all"), "seed": seed, **more} for seed, metric, value in numbers]
    write_results(folder / "results.csv", rows)
    write_status(folder, {"state": "done"})
    stream = StringIO()
    show(folder, Console(file=stream, width=120))
    return [" ".join(line.replace("│", " ").replace("┃", " ").split()) for line in stream.getvalue().splitlines()]


def test_metrics_without_latents_are_shown_where_they_were_asked_for(tmp_path: Path) -> None:
    lines = said(tmp_path, (0, "gap", 0.25), (1, "gap", 0.75), (0, "decoder_affine", 0.1))
    assert "seed affine gap" in lines or "seed gap affine" in lines
    assert "0 0.250 0.100" in lines
    assert "1 0.750 -" in lines  # a number that a seed lacks
    assert "mean 0.500 0.100" in lines
    assert not any("elbo" in line.lower() for line in lines)


def test_means_are_over_the_seeds_that_have_a_number(tmp_path: Path) -> None:
    lines = said(tmp_path, (0, "gap", 0.25), (1, "gap", float("nan")), (2, "gap", 0.75), (3, "gap", float("inf")))
    assert "1 -" in lines or "1 nan" in lines
    assert "mean 0.500" in lines


def test_a_run_without_numbers_of_seeds_has_no_table_of_them(tmp_path: Path) -> None:
    assert not any("scores on" in line for line in said(tmp_path))


def test_a_run_without_scores_says_so(tmp_path: Path) -> None:
    stream = StringIO()
    run = make_run(*TINY, "metric=[gap]", "seed=0", f"outputs={tmp_path}")
    run.console = Console(file=stream, width=120, markup=False)
    prepare(run.settings.compute)
    assert execute([run], Console(quiet=True)) == ["done"]
    assert stream.getvalue() == "no scores: metric=[gap] has nothing to say of this model and data\n"
    assert read_results(run.settings.folder).empty
