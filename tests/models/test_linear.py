"""Linear baselines: against scikit-learn, on mixtures whose sources are known, what they refuse, their run folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import ortho_group
from sklearn.decomposition import PCA

from ivae_lab.config.build import ConfigError
from ivae_lab.core.data import Batch, DataSpec, Image
from ivae_lab.distributions.densities import Normal
from ivae_lab.metrics.mcc import mean_correlation
from ivae_lab.models.linear import (
    IndependentComponents,
    Linear,
    PrincipalComponents,
    SegmentComponents,
    jointly_diagonal,
)
from ivae_lab.priors.standard import StandardLaplace, StandardNormal
from ivae_lab.runs.arrays import read_examples
from ivae_lab.runs.folder import read_status
from ivae_lab.runs.results_csv import read_results
from tests.running import here

Array = NDArray[np.float64]
Labels = NDArray[np.integer[Any]]
N, ROWS, SEGMENTS = 3, 4000, 20


def of(rng: np.random.Generator, kind: str) -> tuple[Array, Labels]:
    """Sources (ROWS, N), which are 20 segments one after another, and their segments."""
    u = np.arange(ROWS) * SEGMENTS // ROWS
    if kind == "laplace":
        return rng.laplace(size=(ROWS, N)), u
    if kind == "gaussian":
        return rng.normal(size=(ROWS, N)), u
    std, mean = rng.uniform(0.3, 2, (SEGMENTS, N)), rng.normal(size=(SEGMENTS, N))
    return rng.normal(size=(ROWS, N)) * std[u] + mean[u], u


def spec_of(dims: int, **changes: Any) -> DataSpec:
    return replace(DataSpec(dims, SEGMENTS, N, ROWS, binary=False), **changes)


def fitted(kind: Callable[..., Linear], x: Array, u: Labels, seed: int = 0, **keys: object) -> tuple[Linear, Batch]:
    """A model after all rows, given in two blocks, and the rows."""
    rows = Batch(torch.from_numpy(x).float(), torch.from_numpy(u), None, torch.arange(len(x)))
    torch.manual_seed(seed)
    model = kind(spec_of(x.shape[1]), StandardNormal, **{"latent_dim": None, **keys})
    model.settle([rows[:1000], rows[1000:]])
    return model, rows


def pca(*given: object, **keys: object) -> Linear:
    return PrincipalComponents(*given, **keys)  # type: ignore[arg-type]


def fastica(*given: object, **keys: object) -> Linear:
    return IndependentComponents(*given, **{"iterations": 2000, "tolerance": 1e-5, **keys})  # type: ignore[arg-type]


def segment_ica(*given: object, **keys: object) -> Linear:
    return SegmentComponents(*given, **{"sweeps": 100, **keys})  # type: ignore[arg-type]


def score(model: Linear, rows: Batch, sources: Array) -> float:
    return mean_correlation(model.posterior_mean(rows).numpy(), sources)


def mixture(kind: str, dims: int = N) -> tuple[Array, Array, Labels]:
    """Mixed rows, their sources and segments."""
    rng = np.random.default_rng(0)
    sources, u = of(rng, kind)
    return sources @ rng.normal(size=(N, dims)) + 10, sources, u


def test_principal_components_are_scikit_learns() -> None:
    x, _, u = mixture("laplace", dims=5)
    x += np.random.default_rng(1).normal(size=x.shape)
    model, rows = fitted(pca, x, u)
    expected = PCA(N, whiten=True).fit(x)
    np.testing.assert_allclose(model.posterior_mean(rows).numpy(), expected.transform(x), atol=1e-4)
    shown = model.examples(rows, torch.zeros(8, N))["reconstruction"].numpy()
    np.testing.assert_allclose(shown, expected.inverse_transform(expected.transform(x)), atol=1e-4)


def test_draws_have_the_mean_and_covariance_of_the_rows() -> None:
    x, _, u = mixture("laplace")
    model, _ = fitted(pca, x, u)
    drawn = model.sample(100_000, None, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(drawn.mean(0), x.mean(0), atol=0.05)
    np.testing.assert_allclose(np.cov(drawn.numpy().T), np.cov(x.T), atol=0.05 * np.cov(x.T).max())
    halved = model.sample(100_000, None, torch.Generator().manual_seed(0), 0.5)
    torch.testing.assert_close(halved - halved.mean(0), (drawn - drawn.mean(0)) / 2, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [pca, fastica, segment_ica])
def test_latents_are_points_that_need_x_alone_and_lead_back_to_it(kind: Callable[..., Linear]) -> None:
    x, _, u = mixture("segments", dims=5)  # of rank 3
    model, rows = fitted(kind, x, u)
    alone = Batch(rows.x, None, None, rows.index)
    posterior = model.encode(alone)
    assert isinstance(posterior, Normal)
    assert posterior.log_var.max() == -torch.inf
    bound = model.bound(alone, torch.zeros(len(x), 0))
    assert torch.equal(bound["mean"], posterior.mean)
    assert torch.equal(bound["sample"], posterior.mean)
    assert set(bound) == {"mean", "sample", "converged"}
    assert (bound["converged"] == 1).all()
    torch.testing.assert_close(model.examples(alone, torch.zeros(8, N))["reconstruction"], rows.x, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("kind", "sources", "finds"),
    [
        (fastica, "laplace", True),
        (segment_ica, "segments", True),
        (segment_ica, "laplace", False),  # stationary
        (fastica, "gaussian", False),
        (pca, "laplace", False),
        (pca, "segments", False),
    ],
)
def test_each_finds_what_it_is_for(kind: Callable[..., Linear], sources: str, finds: bool) -> None:
    for dims in (N, 5):
        x, true, u = mixture(sources, dims)
        model, rows = fitted(kind, x, u)
        assert (score(model, rows, true) > 0.99) == finds


def test_gaussian_sources_that_vary_little_need_u() -> None:
    """Two values of u, with standard deviations that hardly differ: nearly Gaussian over all rows, and so given u."""
    rng = np.random.default_rng(3)
    u = np.arange(ROWS) % 2
    sources = rng.normal(size=(ROWS, 2)) * np.array([[1.0, 1.2], [1.2, 1.0]])[u]
    x = sources @ np.array([[1.0, 0.8], [-0.6, 1.0]])
    (by_u, rows), (blind, _) = fitted(segment_ica, x, u, latent_dim=2), fitted(fastica, x, u, latent_dim=2)
    assert score(by_u, rows, sources) > 0.99
    assert score(blind, rows, sources) < 0.95


def test_model_seeds_are_where_fast_ica_begins() -> None:
    x, _, u = mixture("laplace")
    one, again, other = (fitted(fastica, x, u, seed)[0].map.get_buffer("unmixing") for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    x, _, u = mixture("segments")
    first, second = (fitted(segment_ica, x, u, seed)[0].map.get_buffer("unmixing") for seed in (0, 1))
    assert torch.equal(first, second)


def test_what_did_not_converge_says_so() -> None:
    x, _, u = mixture("laplace")
    model, rows = fitted(fastica, x, u, iterations=1)
    assert (model.bound(rows, torch.zeros(ROWS, 0))["converged"] == 0).all()
    model, rows = fitted(segment_ica, x, u, sweeps=1)
    assert (model.bound(rows, torch.zeros(ROWS, 0))["converged"] == 0).all()


@pytest.mark.parametrize("kind", [pca, fastica, segment_ica])
def test_rows_that_are_not_finite_give_latents_that_are_not(kind: Callable[..., Linear]) -> None:
    x, _, u = mixture("laplace")
    x[17, 0] = np.inf
    model, rows = fitted(kind, x, u)
    assert not model.posterior_mean(rows).isfinite().any()


def test_the_joint_diagonaliser_undoes_a_rotation_up_to_order_and_sign() -> None:
    rng = np.random.default_rng(0)
    rotation = ortho_group.rvs(6, random_state=0)
    matrices = rotation @ (rng.uniform(0.1, 3, (9, 6))[:, :, None] * np.eye(6)) @ rotation.T
    found, ended = jointly_diagonal(matrices, sweeps=50)
    assert ended
    np.testing.assert_allclose(found.T @ found, np.eye(6), atol=1e-12)
    permutation = np.abs(found.T @ rotation)
    np.testing.assert_allclose(np.sort(permutation, 1)[:, -1], 1, atol=1e-8)
    np.testing.assert_allclose(permutation.sum(0), 1, atol=1e-7)


def test_of_noisy_matrices_no_small_rotation_is_better() -> None:
    rng = np.random.default_rng(1)
    matrices = rng.normal(size=(7, 4, 4))
    matrices += matrices.transpose(0, 2, 1)

    def off(rotation: Array) -> float:
        turned = rotation.T @ matrices @ rotation
        return float((turned**2).sum() - (np.diagonal(turned, axis1=1, axis2=2) ** 2).sum())

    found, ended = jointly_diagonal(matrices, sweeps=200)
    assert ended
    assert off(found) < off(np.eye(4))
    for place in range(20):
        step = np.random.default_rng(place).normal(size=(4, 4)) * 1e-3
        near, _ = np.linalg.qr(np.eye(4) + step - step.T)
        assert off(found @ near) > off(found)


@pytest.mark.parametrize(
    ("changes", "keys", "message"),
    [
        ({}, {"latent_dim": 6}, "expected a latent_dim of at most the 5 dimensions of x for a linear model, got 6"),
        ({"source_dim": None}, {}, "expected latent_dim for data without known sources, got none"),
        ({"u_dim": 0}, {}, "expected data with an auxiliary variable u for ICA by segments, got data without"),
        ({"image": Image(1, 1, 5)}, {}, "expected real-valued observations .*, got images"),
        ({}, {"prior": StandardLaplace}, "expected prior=normal for a model that has no density of x, got StandardL"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], keys: dict[str, object], message: str) -> None:
    given = {"latent_dim": None, "prior": StandardNormal, **keys}
    with pytest.raises(ValueError, match=message):
        segment_ica(spec_of(5, **changes), **given)


@pytest.mark.slow
def test_a_run_leaves_a_whole_folder_without_a_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = ["data.segments=8", "data.samples_per_segment=100", f"outputs={tmp_path}"]
    arguments = [
        "-m",
        "metric=[mcc,elbo]",
        "metric.mcc.chance_draws=1",
        "model=segment_ica",
        "data.seed=1,2",
        "seed=[0,1,2,3,4,5,6,7,8]",
        *sizes,
    ]
    done = here(arguments, capsys, monkeypatch)
    assert (done.code, done.err) == (0, "")
    assert "0 steps" in done.out
    assert "ELBO" not in done.out
    folders = sorted(path.parent for path in tmp_path.glob("*/results.csv"))
    assert len(folders) == 2
    for folder in folders:
        rows, status = read_results(folder), read_status(folder)
        assert status["state"] == "done"
        assert not {"elbo", "log_likelihood"} & set(rows["metric"])
        scored = rows.query(
            "metric == 'mcc' and latents == 'mean' and alignment == 'strong' and coefficient == 'pearson'"
        )
        assert scored["value"].nunique() == 1, "seeds agree"
        assert read_examples(folder)["reconstruction"].shape == (9, 800, 5)
        assert pd.read_csv(folder / "history.csv").empty
    again = here(arguments, capsys, monkeypatch)
    assert again.code == 0
    assert "encoding" not in again.out


def test_a_prior_that_would_not_be_heeded_is_bad_input(composed: object, model_of: object) -> None:
    with pytest.raises(ConfigError, match=r"^model: expected prior=normal"):
        model_of(composed("model=pca", "prior=gmm"), spec_of(5))  # type: ignore[operator]
