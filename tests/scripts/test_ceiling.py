"""The ceiling script against closed forms: a linear mixing, where p(x given u) and the posterior are Gaussian."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy.stats import multivariate_normal

from ivae_lab.config.paths import CONFIG
from ivae_lab.data.tcl import SegmentedSources
from ivae_lab.metrics.mcc import mean_correlation
from scripts import ceiling

LINEAR = ("data=tcl_2d", "data.mixing_layers=1", "data.samples_per_segment=60")


Printed = Callable[..., list[float]]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Printed:
    """(*overrides) to the numbers that the script prints for linear data."""

    def run(*overrides: str) -> list[float]:
        monkeypatch.setattr(sys, "argv", ["ceiling.py", *LINEAR, *overrides])
        ceiling.main()
        return [float(line.split(":")[1].split()[0]) for line in capsys.readouterr().out.splitlines()]

    return run


def linear(**changes: object) -> tuple[SegmentedSources, int]:
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        data = OmegaConf.to_container(compose(overrides=[f"+{LINEAR[0]}", *LINEAR[1:]]).data)
    assert isinstance(data, dict)
    seed = data.pop("seed")
    return instantiate(data | changes), seed


def test_log_likelihood_is_that_of_the_gaussian_of_each_segment(printed: Printed) -> None:
    data, seed = linear(preprocess="whiten")
    truth, train = data.truth(seed), data(seed).train
    assert train.u is not None
    raw = linear()[0](seed).train.x.double().numpy()
    x = train.x.double().numpy()
    affine = np.linalg.lstsq(np.c_[raw, np.ones(len(raw))], x, rcond=None)[0]  # whitening, (3, 2)
    a = truth.matrices[0].astype(float) @ affine[:2]
    densities = [
        multivariate_normal(truth.mean[m] @ a + affine[2], a.T @ np.diag(truth.std[m] ** 2) @ a).logpdf(
            x[train.u.numpy() == m]
        )
        for m in range(data.segments)
    ]
    assert abs(printed()[0] - np.concatenate(densities).mean()) < 2e-3


@pytest.mark.slow
def test_posterior_mean_given_x_and_u_is_the_linear_one(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling, "SIDE", 200)
    data, seed = linear(noise_std=0.3)
    truth, train = data.truth(seed), data(seed).train
    assert train.u is not None
    assert train.z is not None
    a = truth.matrices[0].astype(float)
    means = []
    for row, u in zip(train.x.double().numpy(), train.u.tolist(), strict=True):
        precision = np.diag(truth.std[u] ** -2) + a @ a.T / 0.09
        means.append(np.linalg.solve(precision, truth.mean[u] / truth.std[u] ** 2 + a @ row / 0.09))
    expected = mean_correlation(np.stack(means), train.z.double().numpy())
    assert abs(printed("data.noise_std=.3")[2] - expected) < 2e-3
