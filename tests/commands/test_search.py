"""Optuna's sweeper through the real command: what it is told, and that the same command continues."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from ivae_lab.runs.headlines import held_out_elbo
from ivae_lab.runs.results_csv import COLUMNS, read_results, write_results
from ivae_lab.tabular.preprocessing import Preprocessing
from tests.own import own_file
from tests.running import command

SEARCH = ("-m", "hydra/sweeper=search", "model.latent_dim=range(1,4)", "trainer.lr=tag(log,interval(.001,.1))")
OWN = ("data=file", f"data.path={own_file()}", "model=vae", "trainer.steps=20", "trainer.batch_size=16", "show=false")
SMALL = ("seed=[0,1]", "data.block_rows=8", "compute.threads=1")


@pytest.mark.slow
def test_a_search_maximises_the_held_out_elbo_and_goes_on(tmp_path: Path) -> None:
    first = command(*SEARCH, *OWN, *SMALL, "hydra.sweeper.n_trials=1", cwd=tmp_path)
    assert first.code == 0, first.err
    longer = command(*SEARCH, *OWN, *SMALL, "hydra.sweeper.n_trials=2", cwd=tmp_path)
    assert longer.code == 0, longer.err
    assert longer.out.count("already finished") == 1
    folders = [path.parent for path in (tmp_path / "outputs").glob("*/results.csv")]
    assert len(folders) == 2
    found = yaml.safe_load((tmp_path / "outputs" / "optimization_results.yaml").read_text())
    assert found["best_value"] == pytest.approx(max(map(held_out_elbo, folders)))
    best = max(folders, key=held_out_elbo)
    assert (
        yaml.safe_load((best / "config.yaml").read_text())["model"]["latent_dim"]
        == found["best_params"]["model.latent_dim"]
    )
    rows = read_results(best)
    held_out = rows[(rows["metric"] == "elbo") & (rows["split"] == "valid")]["value"]
    assert held_out_elbo(best) == pytest.approx(held_out.mean())  # nothing was preprocessed


def test_elbos_are_held_against_each_other_in_the_units_of_the_rows(tmp_path: Path) -> None:
    """Of a Gaussian that fits, log p(x) is the same however x was scaled for the model."""
    rng, scales = np.random.default_rng(0), np.array([2.0, 0.1])
    x = rng.normal(size=(1000, 2)) * scales
    expected = stats.norm(0, scales).logpdf(x).sum(1).mean()
    for name, recipe in {
        "none": Preprocessing(),
        "scaled": Preprocessing(shift=[0, 0], scale=np.diag(1 / scales).tolist()),
    }.items():
        folder, seen = tmp_path / name, recipe.apply(x)
        folder.mkdir()
        (folder / "recipe.json").write_text(recipe.to_json())
        elbo = stats.norm(0, seen.std(0)).logpdf(seen).sum(1).mean()
        fixed = {**dict.fromkeys(COLUMNS), "metric": "elbo", "split": "valid", "state": "done"}
        write_results(folder / "results.csv", [{**fixed, "seed": seed, "value": elbo} for seed in (0, 1)])
        assert held_out_elbo(folder) == pytest.approx(expected, abs=0.01)
