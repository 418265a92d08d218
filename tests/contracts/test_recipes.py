"""docs/architecture.md says how to add things: one of each is added so, in a copy of the project, and used."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from ivae_lab.runs.folder import read_status
from ivae_lab.runs.results_csv import read_results
from tests.running import command

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
ADDED = {
    "ivae_lab/data/mine.py": """
from dataclasses import dataclass

import numpy as np
import torch

from ivae_lab.config.numbers import PositiveInt
from ivae_lab.core.data import Batch, DataSpec, Splits


@dataclass(frozen=True, kw_only=True)
class Mine:
    points: PositiveInt

    def __call__(self, seed: int) -> Splits:
        z = np.random.default_rng(seed).normal(size=(self.points, 2)).astype(np.float32)
        whole = Batch(torch.from_numpy(2 * z), None, torch.from_numpy(z), torch.arange(self.points))
        return Splits(whole, whole[:0], whole[:0], DataSpec(2, 0, 2, self.points, False))
""",
    "conf/data/mine.yaml": "_target_: ivae_lab.data.Mine\nseed: 1\npoints: 64\n",
    "ivae_lab/models/mine.py": """
from ivae_lab.models.vae import VAE


class MyModel(VAE):
    pass
""",
    "conf/model/mine.yaml": """
defaults:
  - vae
  - override /prior@_global_.prior: mine
  - _self_
_target_: ivae_lab.models.MyModel
""",
    "ivae_lab/priors/mine.py": """
import torch
from torch import Tensor, nn

from ivae_lab.distributions.densities import Normal


class WideNormal(nn.Module):
    def __init__(self, latent_dim: int, u_dim: int) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(latent_dim))

    def forward(self, u: Tensor | None) -> Normal:
        zero = self.get_buffer("zero")
        return Normal(zero, zero + 1)
""",
    "conf/prior/mine.yaml": "_target_: ivae_lab.priors.WideNormal\n_partial_: true\n",
    "ivae_lab/metrics/mine.py": """
from typing import Any

from ivae_lab.metrics.resampling import Estimate


class Rows:
    def __call__(self, estimate: Estimate) -> list[dict[str, Any]]:
        return [estimate.row("rows", float(len(estimate.mean)), scored="all")]
""",
    "conf/metric/mine.yaml": "mine:\n  _target_: ivae_lab.metrics.Rows\n",
    "hydra_plugins/mine.py": """
from hydra._internal.core_plugins.basic_launcher import BasicLauncher


class MyLauncher(BasicLauncher):
    def launch(self, job_overrides, initial_job_idx):
        print(f"{len(job_overrides)} runs by my launcher")
        return super().launch(job_overrides, initial_job_idx)
""",
    "conf/hydra/launcher/mine.yaml": "_target_: hydra_plugins.mine.MyLauncher\n",
    "experiments/mine2020/figures.py": """
from matplotlib.figure import Figure

from ivae_lab.plots.style import Picture


def dots(tables):
    figure = Figure(figsize=(6, 3))
    figure.subplots().plot(tables["rows"]["mcc_mean"].astype(float), ".")
    return Picture("dots", figure, "MCCs as dots.", "A dot per seed.")
""",
    "experiments/mine2020/reported.csv": "figure,claim,statement,value,tolerance,where\n"
    "mine,high,It is found,0.9,0.05,Figure 1\n",
    "experiments/mine2020/mine.yaml": """
title: Made
where: Figure 1
claim: It is found.
seeds: {quick: 1, paper: 2}
draw: [dots]
cells: [{variant: ours, label: mine, overrides: [model=mine, data=mine]}]
claims: [{claim: high, test: within, of: {method: mine}}]
""",
}
FACES = {"data": "Mine", "models": "MyModel", "priors": "WideNormal", "metrics": "Rows"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project to which one of each was added, by the files that the page names."""
    for folder in ("ivae_lab", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in ADDED.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text.lstrip("\n"))
    for package, name in FACES.items():
        path = tmp_path / "ivae_lab" / package / "__init__.py"
        entry = f"\\1    from ivae_lab.{package}.mine import {name} as {name}\n"
        path.write_text(re.sub(r"(if TYPE_CHECKING:\n)", entry, path.read_text()))
    return tmp_path


def run(module: str, *arguments: str, cwd: Path) -> str:
    done = command(*arguments, cwd=cwd, module=module, PYTHONPATH=f"{cwd}{os.pathsep}{ROOT}")
    assert done.code == 0, done.out + done.err
    return done.out


def test_one_of_each_can_be_added_by_the_recipes(project: Path) -> None:
    for name in ADDED:
        package = re.match(r"(ivae_lab/\w+|conf/\w+|hydra_plugins|experiments)/", name)
        assert package is not None
        assert package[1].replace("experiments", "experiments/<paper>") in PAGE, name
    sweep = ("-m", "model=mine", "data=mine", "metric=[mcc,mine]", "seed=0,1", "hydra/launcher=mine")
    sizes = ("trainer.steps=4", "trainer.batch_size=16", "model.encoder.hidden=8", "show=false")
    assert "2 runs by my launcher" in run("ivae_lab.train", *sweep, *sizes, cwd=project)
    folders = sorted(path.parent for path in (project / "outputs").glob("*/status.json"))
    assert [read_status(folder)["state"] for folder in folders] == ["done", "done"]
    rows = read_results(folders[0])
    assert rows[rows["metric"] == "rows"]["value"].tolist() == [64.0]
    listed = run("ivae_lab.reproduce", "--list", cwd=project)
    assert "mine2020/mine" in listed
