"""The TCL data: released values, draw order, modulation, mixing, observation, preprocessing and splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import RandomState
from numpy.typing import NDArray
from omegaconf import OmegaConf
from pydantic import TypeAdapter

from ivae_lab.core.data import Batch, Splits
from ivae_lab.data import mixing
from ivae_lab.data.mixing import Floats, Matrices, MatrixLaw, leaky_relu, mix, xtanh
from ivae_lab.data.splitting import split_rows
from ivae_lab.data.tcl import SegmentedSources
from tests.profiles import examples

CONF = Path(__file__).parents[2] / "conf"
VARIANTS = sorted(path.stem for path in (CONF / "data").glob("tcl*.yaml"))
SMALL: dict[str, Any] = {
    "segments": 4,
    "samples_per_segment": 50,
    "source_dim": 3,
    "x_dim": 3,
    "source_family": "gaussian",
    "modulation": "std",
    "modulation_range": [0.5, 3],
    "mean_range": None,
    "mixing_layers": 3,
    "activation": "xtanh",
    "slope": 0.1,
    "nonlinearity_first": False,
    "matrices": "shared",
    "condition_quantile": None,
    "condition_draws": 200,
    "noise_std": 0.0,
    "observation": "real",
    "preprocess": "none",
    "split": [1, 0, 0],
}


def small(**changes: Any) -> SegmentedSources:
    return SegmentedSources(**(SMALL | changes))


def variant(name: str, **changes: Any) -> tuple[SegmentedSources, int]:
    """Build the data set of a YAML; also its data seed."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_container(compose(overrides=[f"+data={name}"]).data)
    assert isinstance(config, dict)
    params = {str(key): value for key, value in config.items()}
    assert params.pop("_target_") == "ivae_lab.data.SegmentedSources"
    seed = params.pop("seed")
    return SegmentedSources(**(params | changes)), seed


def tensors(batch: Batch) -> list[torch.Tensor]:
    assert batch.u is not None
    assert batch.z is not None
    return [batch.x, batch.u, batch.z, batch.index]


def sources(data: SegmentedSources, seed: int = 0) -> NDArray[np.float64]:
    """Draw the true sources by segment, (M, L, n)."""
    z = tensors(data(seed).train)[2]
    return z.double().numpy().reshape(data.segments, data.samples_per_segment, data.source_dim)


def equal(left: Splits, right: Splits) -> bool:
    pairs = zip((left.train, left.valid, left.test), (right.train, right.valid, right.test), strict=True)
    return all(torch.equal(a, b) for one, two in pairs for a, b in zip(tensors(one), tensors(two), strict=True))


# The released data set


def test_released_check_values() -> None:
    data, seed = variant("tcl_khemakhem_released")
    x = data(seed).train.x
    assert x.shape == (40_000, 5)
    std = x.double().std(0, correction=0).numpy()
    np.testing.assert_allclose(std, [1.008, 0.643, 0.685, 0.527, 0.838], atol=6e-4, rtol=0)


def column_by_column(matrix: Floats) -> Floats:
    for j in range(matrix.shape[1]):
        column = matrix[:, j]
        matrix[:, j] = column / np.sqrt((column**2).sum())
    return matrix


def one_matrix_at_a_time(rng: RandomState, rows: int, columns: int, draws: int) -> Floats:
    numbers = []
    for _ in range(draws):
        candidate = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
        numbers.append(np.linalg.cond(column_by_column(candidate)))
    limit = np.percentile(numbers, 25)
    while True:
        candidate = column_by_column((rng.uniform(0, 2, (rows, columns)) - 1).astype(np.float32))
        if not np.linalg.cond(candidate) > limit:
            return candidate


@pytest.mark.parametrize(("n", "d"), [(5, 5), (2, 5), (10, 12)])
@pytest.mark.parametrize("mean_range", [None, [-5, 5]])
@pytest.mark.slow
def test_released_draw_order(n: int, d: int, mean_range: list[float] | None) -> None:
    data, seed = variant(
        "tcl_khemakhem_released",
        samples_per_segment=20,
        source_dim=n,
        x_dim=d,
        mean_range=mean_range,
        condition_draws=1100,
    )
    rng = RandomState(seed)
    std = rng.uniform(0.5, 3, (40, n))
    mean = rng.uniform(-5, 5, (40, n)) if mean_range else np.zeros((40, n))
    z = rng.randn(40 * 20, n).astype(np.float32)
    for row in range(len(z)):
        z[row] *= std[row // 20]
        z[row] += mean[row // 20]
    first = one_matrix_at_a_time(rng, n, d, 1100)
    other = first if n == d else one_matrix_at_a_time(rng, d, d, 1100)
    x = z @ first
    for _ in range(2):
        x = (np.tanh(x) + 0.1 * x) @ other
    train = data(seed).train
    np.testing.assert_array_equal(tensors(train)[2].numpy(), z)
    np.testing.assert_array_equal(train.x.numpy(), x)


def test_chunks_of_candidates_do_not_change_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = mixing.condition_threshold(RandomState(0), (3, 4), 0.25, 100)
    monkeypatch.setattr(mixing, "CHUNK", 7)
    assert mixing.condition_threshold(RandomState(0), (3, 4), 0.25, 100) == whole


# Contract


@given(
    seed=st.integers(0, 2**32 - 1),
    family=st.sampled_from(["gaussian", "laplace"]),
    matrices=st.sampled_from(["fresh", "shared", "orthogonal"]),
    observation=st.sampled_from(["real", "binary"]),
    x_dim=st.integers(3, 6),
)
def test_same_seed_same_bytes(seed: int, family: str, matrices: str, observation: str, x_dim: int) -> None:
    changes = {"source_family": family, "matrices": matrices, "observation": observation, "x_dim": x_dim}
    data = small(noise_std=0.1, split=[0.5, 0.3, 0.2], **changes)
    once = data(seed)
    assert equal(once, data(seed))
    assert not torch.equal(tensors(once.train)[2], tensors(data((seed + 1) % 2**32).train)[2])


def test_seed_0_is_a_seed() -> None:
    assert equal(small()(0), small()(0))
    assert not torch.equal(small()(0).train.x, small()(1).train.x)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants(name: str) -> None:
    data, seed = variant(name, samples_per_segment=10, condition_draws=20)
    assert seed == 1
    splits = data(seed)
    x, u, z, index = tensors(splits.train)
    rows = 10 * data.segments
    assert (x.shape, z.shape) == ((rows, data.x_dim), (rows, data.source_dim))
    assert (x.dtype, u.dtype, z.dtype, index.dtype) == (torch.float32, torch.int64, torch.float32, torch.int64)
    assert torch.equal(index, torch.arange(rows))
    assert torch.equal(u, torch.arange(data.segments).repeat_interleave(10))
    assert x.isfinite().all()
    spec = splits.spec
    assert (spec.x_dim, spec.u_dim, spec.source_dim, spec.train_rows) == (
        data.x_dim,
        data.segments,
        data.source_dim,
        rows,
    )
    assert spec.binary == (name == "tcl_discrete")


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_pass_the_annotations(name: str) -> None:
    data, _ = variant(name)
    for key, annotation in get_type_hints(SegmentedSources, include_extras=True).items():
        TypeAdapter(annotation).validate_python(getattr(data, key))


def test_base_yaml_names_every_key() -> None:
    written = OmegaConf.load(CONF / "data" / "tcl.yaml")
    assert set(written) == {"_target_", "seed", *get_type_hints(SegmentedSources)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tcl", {"segments": 20, "modulation": "std", "mean_range": [-3, 3], "mixing_layers": 4, "slope": 0.2}),
        ("tcl_icebeem", {"mean_range": None, "mixing_layers": 3, "matrices": "orthogonal", "nonlinearity_first": True}),
        ("tcl_khemakhem", {"segments": 40, "modulation": "variance", "modulation_range": [0.5, 3]}),
        ("tcl_khemakhem_released", {"modulation": "std", "matrices": "shared", "condition_quantile": 0.25}),
        ("tcl_2d", {"segments": 5, "source_dim": 2, "x_dim": 2, "mean_range": [-5, 5], "modulation": "variance"}),
        ("tcl_40d", {"segments": 40, "samples_per_segment": 4000, "source_dim": 10, "x_dim": 40}),
        ("tcl_talk", {"segments": 40, "samples_per_segment": 1000, "source_dim": 5, "x_dim": 25}),
        ("tcl_discrete", {"segments": 20, "samples_per_segment": 3000, "source_dim": 10, "x_dim": 100}),
    ],
)
def test_variants_say_what_their_source_says(name: str, expected: dict[str, Any]) -> None:
    data, _ = variant(name)
    assert {key: getattr(data, key) for key in expected} == expected


# Sources


@given(seed=st.integers(0, 1000), lo=st.floats(0.1, 2), width=st.floats(0, 3))
def test_modulation_is_in_its_range(seed: int, lo: float, width: float) -> None:
    for modulation, power in (("variance", 1), ("std", 2)):
        data = small(samples_per_segment=2000, modulation=modulation, modulation_range=[lo, lo + width])
        variances = sources(data, seed).var(1)  # (M, n)
        assert variances.min() > 0.8 * lo**power
        assert variances.max() < 1.2 * (lo + width) ** power


def test_variance_and_std_readings_share_all_other_draws() -> None:
    std = sources(small(modulation="std"))
    variance = sources(small(modulation="variance"))
    ratio = std / variance  # sigma / sqrt(sigma), the same in a segment
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-5)
    np.testing.assert_allclose(std.std(1), ratio[:, 0] * variance.std(1), rtol=1e-5)
    assert ratio.max() > 1.2


@pytest.mark.parametrize(("family", "kurtosis"), [("gaussian", 3), ("laplace", 6)])
def test_source_family(family: str, kurtosis: float) -> None:
    z = sources(small(samples_per_segment=100_000, segments=1, modulation_range=[1, 1], source_family=family))
    np.testing.assert_allclose(z.mean(1), 0, atol=0.02)
    np.testing.assert_allclose(z.var(1), 1, atol=0.03)
    np.testing.assert_allclose((z**4).mean(1) / z.var(1) ** 2, kurtosis, rtol=0.06)


def test_laplace_is_modulated() -> None:
    data = small(samples_per_segment=20_000, source_family="laplace", modulation_range=[4, 4], modulation="variance")
    np.testing.assert_allclose(sources(data).std(1), 2, rtol=0.05)


def test_means_are_drawn_per_segment_and_source() -> None:
    means = sources(small(segments=200, mean_range=[-3, 1], modulation_range=[0, 0]))  # (M, L, n)
    assert (means == means[:, :1]).all()
    assert -3 <= means.min() < -2.9
    assert 0.9 < means.max() <= 1
    assert len(np.unique(means)) == 200 * 3
    np.testing.assert_allclose(sources(small(samples_per_segment=5000)).mean(1), 0, atol=0.2)


# Mixing


def test_order_of_nonlinearity_and_matrix() -> None:
    z = np.array([[2, -4]], np.float32)
    a = np.array([[1, 1], [0, 1]], np.float32)
    b = np.array([[1, 0], [1, -1]], np.float32)

    def halve_below_zero(x: Floats) -> Floats:
        return leaky_relu(x, 0.5)

    # (2, -4) A = (2, -2); h: (2, -1); B: (1, 1)
    np.testing.assert_array_equal(mix(z, [a, b], halve_below_zero, False), [[1, 1]])
    # h: (2, -2); A: (2, 0); h: (2, 0); B: (2, 0)
    np.testing.assert_array_equal(mix(z, [a, b], halve_below_zero, True), [[2, 0]])


def test_activations() -> None:
    x = np.array([-2, 0, 2], np.float32)
    np.testing.assert_allclose(xtanh(x, 0.1), np.tanh(x) + 0.1 * x, rtol=1e-6)
    np.testing.assert_allclose(leaky_relu(x, 3), [-6, 0, 2])
    assert xtanh(x, 0.1).dtype == leaky_relu(x, 0.1).dtype == np.float32


@pytest.mark.parametrize("kind", get_args(Matrices))
@given(seed=st.integers(0, 1000), n=st.integers(2, 6), extra=st.integers(0, 4), layers=st.integers(1, 4))
def test_matrices(kind: Matrices, seed: int, n: int, extra: int, layers: int) -> None:
    d = n + extra
    drawn = MatrixLaw(kind, None, 1).draw(RandomState(seed), n, d, layers)
    assert [a.shape for a in drawn] == [(n, d)] + [(d, d)] * (layers - 1)
    for a in drawn:
        assert a.dtype == np.float32
        assert np.linalg.matrix_rank(a) == len(a)
        if kind == "orthogonal":
            np.testing.assert_allclose(a @ a.T, np.eye(len(a)), atol=1e-5)
        else:
            np.testing.assert_allclose((a**2).sum(0), 1, rtol=1e-5)
    square = {a.tobytes() for a in drawn if a.shape == (d, d)}
    assert len(square) == sum(a.shape == (d, d) for a in drawn) or (kind == "shared" and len(square) == 1)


def test_orthogonal_matrices_are_uniform() -> None:
    rng = RandomState(0)
    drawn = np.stack([mixing.orthogonal_matrix(rng, (3, 3)) for _ in range(4000)])
    np.testing.assert_allclose(drawn.mean(0), 0, atol=0.05)
    np.testing.assert_allclose((drawn**2).mean(0), 1 / 3, atol=0.02)
    assert abs(np.linalg.det(drawn).mean()) < 0.06


def test_condition_rule() -> None:
    rng = RandomState(0)
    median, quarter = (mixing.condition_threshold(rng, (4, 4), q, 2000) for q in (0.5, 0.25))
    assert 1 < quarter < median
    law = MatrixLaw("fresh", 0.25, 2000)
    drawn = law.draw(rng, 4, 4, 20)
    assert max(np.linalg.cond(a) for a in drawn) < 1.1 * quarter
    loose = [mixing.conditioned_matrix(rng, (4, 4), mixing.FULL_RANK) for _ in range(50)]
    assert max(np.linalg.cond(a) for a in loose) > median


@pytest.mark.parametrize("first", [False, True])
def test_square_leaky_relu_mixing_is_invertible(first: bool) -> None:
    data = small(matrices="fresh", activation="leaky_relu", slope=0.2, nonlinearity_first=first)
    rng = RandomState(5)
    z = sources(data, 5).reshape(-1, 3)
    rng.uniform(size=(4, 3))
    rng.standard_normal(z.shape)
    signal = data(5).train.x.double().numpy()
    for layer, matrix in reversed(list(enumerate(MatrixLaw("fresh", None, 1).draw(rng, 3, 3, 3)))):
        signal = np.linalg.solve(matrix.astype(np.float64).T, signal.T).T
        if layer or first:
            signal = np.where(signal > 0, signal, signal / 0.2)
    np.testing.assert_allclose(signal, z, atol=2e-3)


def test_one_layer_is_linear() -> None:
    x = small(mixing_layers=1, x_dim=6)(0).train.x.numpy()
    assert np.linalg.matrix_rank(x) == 3


# Observation


def test_noise() -> None:
    noise = (small(noise_std=0.5)(0).train.x - small()(0).train.x).numpy()
    np.testing.assert_allclose(noise.std(), 0.5, rtol=0.1)
    assert small(noise_std=0.5)(0).train.x.dtype == torch.float32


def test_binary_observations_are_bernoulli_of_the_sigmoid() -> None:
    signal = small(samples_per_segment=5000)(0).train.x
    splits = small(samples_per_segment=5000, observation="binary")(0)
    x = splits.train.x
    assert splits.spec.binary
    assert set(x.flatten().tolist()) == {0.0, 1.0}
    probability = signal.sigmoid()
    score = (x - probability) / (probability * (1 - probability)).sqrt()
    np.testing.assert_allclose(score.mean(0), 0, atol=0.03)
    np.testing.assert_allclose((score * signal).mean(0), 0, atol=0.03)


def test_binary_observations_of_huge_signals() -> None:
    data = small(observation="binary", modulation_range=[1e4, 1e4], mixing_layers=1)
    signal = small(modulation_range=[1e4, 1e4], mixing_layers=1)(0).train.x
    sure = signal.abs() > 20
    assert torch.equal(data(0).train.x[sure], (signal > 0).float()[sure])


# Splits and preprocessing


@settings(max_examples=examples(30))
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 300), cuts=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_splits_partition_the_rows(seed: int, rows: int, cuts: tuple[float, float]) -> None:
    low, high = sorted(cuts)
    split = [low, high - low, 1 - high]
    parts = split_rows(rows, split, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(rows))
    for part, fraction in zip(parts, split, strict=True):
        assert (np.diff(part) > 0).all()
        assert abs(len(part) - fraction * rows) <= 1


def test_data_do_not_depend_on_the_split() -> None:
    whole = small()(3).train
    splits = small(split=[0.6, 0.3, 0.1])(3)
    assert [len(part) for _, part in splits.items()] == [120, 60, 20]
    for _, part in splits.items():
        for cut, full in zip(tensors(part), tensors(whole), strict=True):
            assert torch.equal(cut, full[part.index])
    assert splits.spec.train_rows == 120
    assert not torch.equal(splits.train.index, small(split=[0.6, 0.3, 0.1])(4).train.index)


def test_parts_may_be_empty() -> None:
    splits = small(split=[0.5, 0, 0.5])(0)
    assert [name for name, _ in splits.items()] == ["train", "test"]
    assert splits.valid.x.shape == (0, 3)


@pytest.mark.parametrize("kind", ["standardise", "whiten"])
def test_preprocess_is_fitted_on_the_training_part(kind: str) -> None:
    changes: dict[str, Any] = {"split": [0.5, 0, 0.5], "source_dim": 5, "x_dim": 5}
    raw, done = small(**changes)(0), small(preprocess=kind, **changes)(0)
    x = done.train.x.double().numpy()
    covariance = x.T @ x / len(x)
    if kind == "standardise":
        covariance = np.diag(np.diag(covariance))
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(covariance, np.eye(5), atol=1e-3)
    assert abs(done.test.x.double().var(0) - 1).max() > 1e-3
    # One affine map for all parts, which leaves everything else alone.
    design = np.c_[raw.train.x.double().numpy(), np.ones(len(x))]
    affine = np.linalg.lstsq(design, x, rcond=None)[0]
    expected = np.c_[raw.test.x.double().numpy(), np.ones(len(raw.test))] @ affine
    np.testing.assert_allclose(done.test.x.numpy(), expected, atol=1e-3)
    assert all(torch.equal(a, b) for a, b in zip(tensors(raw.test)[1:], tensors(done.test)[1:], strict=True))
    assert done.train.x.dtype == torch.float32


# Errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_dim": 4}, r"expected source_dim <= x_dim, got source_dim=4, x_dim=3"),
        (
            {"modulation_range": [3, 0.5]},
            r"expected modulation_range to be \[lo, hi\] with 0 <= lo <= hi, got \[3, 0.5",
        ),
        ({"modulation_range": [-1, 2]}, r"expected modulation_range .* got \[-1, 2\]"),
        ({"modulation_range": [1]}, r"expected modulation_range .* got \[1\]"),
        ({"modulation_range": [1, float("nan")]}, r"expected modulation_range .* got \[1, nan\]"),
        ({"mean_range": [2, -2]}, r"expected mean_range to be \[lo, hi\] with lo <= hi, got \[2, -2\]"),
        ({"mean_range": [float("-inf"), 2]}, r"expected mean_range .* got \[-inf, 2\]"),
        ({"matrices": "orthogonal", "condition_quantile": 0.25}, r"expected condition_quantile null .* got 0.25"),
        ({"observation": "binary", "preprocess": "whiten"}, r"expected preprocess=none .* got preprocess=whiten"),
        ({"split": [0.5, 0.2, 0.2]}, r"expected split to be three fractions that sum to 1, got \[0.5, 0.2, 0.2\]"),
        ({"split": [0.5, 0.5]}, r"expected split to be three fractions .* got \[0.5, 0.5\]"),
        ({"split": [1.5, -0.5, 0]}, r"expected split to be three fractions .* got \[1.5, -0.5, 0\]"),
        ({"split": [0, 0.5, 0.5]}, r"expected split to leave rows for training, got \[0, 0.5, 0.5\] of 200 rows"),
        ({"split": [0.001, 0.999, 0]}, r"expected split to leave rows for training"),
    ],
)
def test_impossible_combinations(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_thin_directions_are_not_stretched() -> None:
    """With more observed dimensions than sources, the later axes take the scale of the n-th."""
    changes: dict[str, Any] = {"source_dim": 2, "x_dim": 5, "matrices": "shared"}
    raw, done = (small(preprocess=kind, **changes)(0).train.x.double().numpy() for kind in ("none", "whiten"))
    variances = np.linalg.eigvalsh(np.cov(raw.T, bias=True))[::-1]
    expected = np.diag([1, 1, *(variances[2:] / variances[1])])
    np.testing.assert_allclose(done.T @ done / len(done), expected, atol=1e-4)
    flat = small(mixing_layers=1, x_dim=5, preprocess="whiten")(0).train.x.double().numpy()
    np.testing.assert_allclose(flat.T @ flat / len(flat), np.diag([1, 1, 1, 0, 0]), atol=1e-4)


def test_flat_data_cannot_be_whitened() -> None:
    with pytest.raises(ValueError, match=r"expected x to vary in 3 directions .* to whiten it, got 0"):
        small(modulation_range=[0, 0], preprocess="whiten")(0)
    with pytest.raises(ValueError, match=r"expected x to vary in 5 directions .* to standardise it, got 0"):
        small(modulation_range=[0, 0], x_dim=5, preprocess="standardise")(0)
