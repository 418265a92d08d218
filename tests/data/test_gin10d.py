"""The artificial data of Sorrenson et al. (2020): what is drawn, and that its mixing keeps the sources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from ivae_lab.config.build import build
from ivae_lab.data.gin10d import GIN10D

Compose = Callable[..., DictConfig]


@pytest.fixture
def make(composed: Compose) -> Callable[..., GIN10D]:
    def made(name: str = "gin10d", **changes: Any) -> GIN10D:
        whole = composed(f"data={name}").data
        data = OmegaConf.masked_copy(whole, [key for key in whole if key != "seed"])  # which is the run's
        data.update(changes)
        return build(data, "data")  # type: ignore[no-any-return]

    return made


class TestSources:
    @pytest.mark.slow
    def test_clusters_have_the_papers_means_and_variances(self, make: Callable[..., GIN10D]) -> None:
        means, variances = [], []
        for seed in range(30):
            rows = make(points=5000)(seed).train
            assert rows.z is not None
            assert rows.u is not None
            for cluster in range(5):
                own = rows.z[rows.u == cluster].double()
                means += own.mean(0).tolist()
                variances += own.var(0).tolist()
        # Uniform on [-5, 5] and on [.5, 3], seen through some thousand rows each.
        assert np.abs(means).max() < 5.3
        assert np.std(means) == pytest.approx(10 / 12**0.5, rel=0.1)
        assert 0.4 < min(variances) < 0.65
        assert 2.7 < max(variances) < 3.4
        assert np.mean(variances) == pytest.approx(1.75, rel=0.08)
        of_clusters = np.reshape(variances, (30, 5, 2))
        assert np.median(of_clusters.max(1) / of_clusters.min(1)) > 2

    @pytest.mark.slow
    def test_the_released_ones_are_half_as_wide(self, make: Callable[..., GIN10D]) -> None:
        spreads, means = [], []
        for seed in range(30):
            rows = make("gin10d_released", points=5000)(seed).train
            assert rows.z is not None
            assert rows.u is not None
            for cluster in range(5):
                own = rows.z[rows.u == cluster].double()
                spreads += own.std(0).tolist()
                means += own.mean(0).tolist()
        assert np.mean(spreads) == pytest.approx(0.875, rel=0.08)
        assert max(spreads) < 1.6
        assert np.abs(means).max() < 2.7

    def test_a_gap_moves_means_and_leaves_spreads(self, make: Callable[..., GIN10D]) -> None:
        near, far = (make(points=4000, gap=gap)(3).train for gap in (1.0, 3.0))
        assert near.u is not None
        assert near.z is not None
        assert far.z is not None
        for cluster in range(5):
            own, moved = near.z[near.u == cluster], far.z[near.u == cluster]
            np.testing.assert_allclose(moved.std(0), own.std(0), rtol=1e-4)
            np.testing.assert_allclose((moved - own).std(0), 0, atol=1e-5)
            assert (moved - own).mean(0).norm() > own.mean(0).norm()  # three times as far out, within the mean's error

    def test_labels_are_all_there_in_equal_shares(self, make: Callable[..., GIN10D]) -> None:
        rows = make(points=30_000, clusters=3)(1).train
        assert rows.u is not None
        np.testing.assert_allclose(np.bincount(rows.u) / 30_000, 1 / 3, atol=0.02)


class TestMixing:
    def test_without_noise_x_lies_on_a_sheet_of_two_dimensions(self, make: Callable[..., GIN10D]) -> None:
        """The tangent space at a point, from its neighbours in z, has rank 2; with the noise it has rank 10."""
        ranks = []
        for noise_std in (0.0, 0.01):
            rows = make(points=60_000, noise_std=noise_std)(2).train
            assert rows.z is not None
            z, x = rows.z.double().numpy(), rows.x.double().numpy()
            near = np.argsort(((z - z.mean(0)) ** 2).sum(1))[:60]
            values = np.linalg.svd(x[near] - x[near].mean(0), compute_uv=False)
            ranks.append(int((values > 1e-2 * values[0]).sum()))
        assert ranks[0] <= 4  # two, and what their bends show of further ones
        assert ranks[1] > 6

    def test_every_dimension_of_x_depends_on_the_sources(self, make: Callable[..., GIN10D]) -> None:
        rows = make(points=2000, noise_std=0.0)(1).train
        assert (rows.x.std(0) > 0.01).all()

    def test_is_not_linear(self, make: Callable[..., GIN10D]) -> None:
        """Ten linear features of x approximate two sources well, yet not on every data seed."""
        missed = []
        for seed in range(5):
            rows = make(points=20_000)(seed).train
            assert rows.z is not None
            x, z = rows.x.double().numpy(), rows.z.double().numpy()
            design = np.c_[x, np.ones(len(x))]
            residual = z - design @ np.linalg.lstsq(design, z, rcond=None)[0]
            missed += (residual.var(0) / z.var(0)).tolist()
        assert max(missed) > 0.05

    def test_the_seed_draws_the_weights(self, make: Callable[..., GIN10D]) -> None:
        latents = np.random.default_rng(0).normal(size=(50, 10))
        one, again, other = (make()._mixed(latents, seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, again)
        assert not np.allclose(one.std(0), other.std(0), rtol=0.1)

    @pytest.mark.parametrize(("mixing", "keeps"), [("affine", False), ("gin", True), ("gin_mean", True)])
    def test_volumes_are_kept_by_the_couplings_that_keep_them(
        self, make: Callable[..., GIN10D], mixing: str, keeps: bool
    ) -> None:
        data, step = make(mixing=mixing), 1e-2
        start = np.random.default_rng(0).normal(size=10)
        moved = np.concatenate([start + step * np.eye(10), start - step * np.eye(10)])
        x = data._mixed(moved, 1).double().numpy()
        log_volume = np.linalg.slogdet((x[:10] - x[10:]) / (2 * step)).logabsdet
        assert (abs(log_volume) < 0.1) == keeps  # x is float32

    def test_points_gap_and_noise_leave_clusters_and_mixing_as_they_are(self, make: Callable[..., GIN10D]) -> None:
        """So that data sets of two sizes are the same experiment: sums over rows agree as far as samples do."""
        few, many = (make(points=points, noise_std=0.0)(1).train for points in (20_000, 30_000))
        for cluster in range(5):
            parts = [part.x[part.u == cluster].double().numpy() for part in (few, many)]
            deviation = np.sqrt(parts[0].var(0) / len(parts[0]) + parts[1].var(0) / len(parts[1]))
            assert (np.abs(parts[0].mean(0) - parts[1].mean(0)) < 5 * deviation).all()


class TestSplit:
    def test_the_rows_are_the_same_however_they_are_split(self, make: Callable[..., GIN10D]) -> None:
        whole, cut = make(points=100)(1), make(points=100, split=[0.8, 0, 0.2])(1)
        assert (len(cut.train), len(cut.valid), len(cut.test)) == (80, 0, 20)
        assert cut.spec.train_rows == 80
        np.testing.assert_array_equal(cut.test.x, whole.train.x[cut.test.index])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean_range": [1, -1]}, r"expected mean_range to be \[lo, hi\] with lo <= hi, got \[1, -1\]"),
        ({"modulation_range": [2, 1]}, r"expected modulation_range to be \[lo, hi\]"),
        ({"modulation_range": [-1, 1]}, "modulation_range"),
        ({"split": [0.5, 0.6, 0]}, "expected split to be three fractions that sum to 1"),
        ({"clusters": 0}, "clusters"),
        ({"mixing": "additive"}, "mixing"),
    ],
)
def test_refuses_what_cannot_be(make: Callable[..., GIN10D], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)
