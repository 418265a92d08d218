"""What Theorem 3.5 of Kivva et al. (2022) leaves between a model and the truth, on built cases; its assumptions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivae_lab.core.arrays import Floats
from ivae_lab.core.mixture_generator import Generator, ReluNetwork
from ivae_lab.metrics.checks.kivva2022 import Theorem35
from ivae_lab.metrics.equivalence import Equivalence, affine, density, mapped, scaled, total_variation
from ivae_lab.metrics.gap import Gap
from ivae_lab.metrics.resampling import Estimate

SEEDS = st.integers(0, 10_000)


def generator(seed: int, size: int, components: int = 3, slope: float = 0.0) -> Generator:
    rng = np.random.default_rng(seed)
    layers = rng.normal(size=(4, size)), rng.normal(size=(2, 4))
    network = ReluNetwork(layers, (rng.normal(size=4), rng.normal(size=2)), slope)
    covariances = np.stack([np.diag(std**2) for std in rng.uniform(0.3, 1, (components, size))])
    weights = rng.dirichlet(np.full(components, 5.0))
    return Generator(weights, rng.uniform(-3, 3, (components, size)), covariances, network)


def moved(truth: Generator, matrix: Floats, shift: Floats) -> Generator:
    """The same model of x with the latents A z + t, its components in another order."""
    assert truth.network is not None
    back = np.linalg.inv(matrix)
    first, *weights = truth.network.weights
    bias, *biases = truth.network.biases
    network = ReluNetwork((first @ back, *weights), (bias - first @ back @ shift, *biases), truth.network.slope)
    other = mapped(truth, matrix, shift)
    order = np.arange(len(truth.weights))[::-1]
    return Generator(other.weights[order], other.means[order], other.covariances[order], network)


def estimate(found: Generator | None, truth: Generator | None, **terms: float) -> Estimate:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200, 1)) if truth is None else truth.sample(200, 0)
    return Estimate(z, z, z, None, np.arange(200), terms, generator=found, truth=truth)


def values(metric: Equivalence | Theorem35 | Gap, of: Estimate) -> dict[str, float]:
    rows = of.rows_of(metric.checks(of)) if isinstance(metric, Theorem35) else metric(of)
    return {row["metric"]: row["value"] for row in rows}


class TestTotalVariation:
    @pytest.mark.parametrize("size", [1, 2])
    def test_is_half_the_mean_of_the_relative_difference(self, size: int) -> None:
        one, other = generator(1, size), generator(2, size, 2)
        z = one.sample(200_000, 0)
        ratio = density(other, z) / density(one, z)
        value = np.maximum(1 - ratio, 0)  # its mean under p is the total variation
        error = value.std() / len(z) ** 0.5
        assert total_variation(one, other) == pytest.approx(value.mean(), abs=4 * error + 1e-4)

    def test_of_what_is_far_apart_it_is_1_and_of_the_same_0(self) -> None:
        one = generator(3, 1)
        assert total_variation(one, one) == 0
        assert total_variation(one, mapped(one, np.eye(1), np.array([50.0]))) == pytest.approx(1, abs=1e-4)

    def test_of_three_latents_it_says_so(self) -> None:
        with pytest.raises(ValueError, match="expected one latent or two, got 3"):
            total_variation(generator(0, 3), generator(0, 3))


class TestEquivalence:
    @given(SEEDS, st.floats(0.2, 5), st.sampled_from([1.0, -1.0]), st.floats(-5, 5))
    def test_one_latent_up_to_scale_sign_and_shift(self, seed: int, scale: float, sign: float, shift: float) -> None:
        truth = generator(seed, 1)
        for distance in (affine, scaled):
            found = distance(truth, moved(truth, np.array([[sign * scale]]), np.array([shift])))
            assert found.prior < 1e-6
            assert found.decoder is not None
            assert found.decoder < 1e-6

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.slow
    def test_two_latents_up_to_an_affine_map(self, seed: int) -> None:
        truth, rng = generator(seed, 2), np.random.default_rng(seed)
        matrix, shift = rng.normal(size=(2, 2)) + np.eye(2), rng.normal(size=2)
        other = moved(truth, matrix, shift)
        found = affine(truth, other)
        assert found.prior < 1e-4
        assert found.decoder is not None
        assert found.decoder < 1e-4
        np.testing.assert_allclose(found.matrix, matrix, atol=1e-4)
        np.testing.assert_allclose(found.shift, shift, atol=1e-3)
        assert scaled(truth, other).prior > 0.05, "no permutation with scales does it"

    def test_two_latents_up_to_a_permutation_with_scales(self) -> None:
        truth = generator(5, 2)
        matrix = np.array([[0.0, -2.0], [0.5, 0.0]])
        found = scaled(truth, moved(truth, matrix, np.array([1.0, -1.0])))
        assert found.prior < 1e-10
        np.testing.assert_allclose(found.matrix, matrix, atol=1e-10)

    @given(SEEDS, SEEDS)
    def test_another_model_is_away(self, seed: int, other: int) -> None:
        if seed != other:
            assert affine(generator(seed, 1), generator(other, 1, 2)).prior > 1e-4

    def test_more_components_than_the_truth_may_be_the_same_density(self) -> None:
        truth = generator(6, 1, 2)
        split = replace(
            truth,
            weights=np.array([0.4 * truth.weights[0], 0.6 * truth.weights[0], truth.weights[1]]),
            means=truth.means[[0, 0, 1]],
            covariances=truth.covariances[[0, 0, 1]],
        )
        assert affine(truth, split).prior < 1e-10

    def test_two_components_that_nearly_are_one_are_near_it(self) -> None:
        two = Generator(np.array([0.5, 0.5]), np.array([[-0.3], [0.3]]), np.ones((2, 1, 1)), None)
        one = Generator(np.ones(1), np.ones((1, 1)), np.full((1, 1, 1), 9.0), None)
        found = affine(two, one)
        assert found.prior < 0.005
        assert abs(found.matrix[0, 0]) == pytest.approx(3 / 1.09**0.5)

    def test_only_the_decoder_may_be_away(self) -> None:
        truth = generator(7, 1)
        found = affine(truth, replace(truth, network=generator(8, 1).network))
        assert found.prior < 1e-10
        assert found.decoder is not None
        assert found.decoder > 0.1

    def test_rows_have_a_value_for_each(self) -> None:
        truth = generator(9, 1)
        names = {"prior_affine", "decoder_affine", "prior_scaled", "decoder_scaled"}
        assert set(values(Equivalence(), estimate(truth, truth))) == names
        assert set(values(Equivalence(), estimate(replace(truth, network=None), truth))) == {
            "prior_affine",
            "prior_scaled",
        }

    def test_a_prior_without_width_has_no_distance(self) -> None:
        truth = generator(9, 1)
        thin = replace(truth, means=np.zeros((3, 1)), covariances=np.zeros((3, 1, 1)))
        found = values(Equivalence(), estimate(thin, truth))
        assert len(found) == 4
        assert np.isnan([*found.values()]).all()

    def test_no_rows_without_truth_or_with_another_or_a_large_number_of_latents(self) -> None:
        truth = generator(9, 1)
        many = generator(9, 3)
        for of in (
            estimate(truth, None),
            estimate(None, truth),
            estimate(generator(9, 2), truth),
            estimate(many, many),
        ):
            assert Equivalence()(of) == []


class TestTheorem35:
    def test_says_what_holds_of_the_model_and_of_the_truth(self) -> None:
        truth = replace(
            generator(1, 1), network=ReluNetwork((np.array([[1.0], [-1.0]]), np.eye(2)), (np.zeros(2),) * 2)
        )
        folded = ReluNetwork((np.array([[1.0], [-1.0]]), np.array([[1.0, 1.0]])), (np.zeros(2), np.zeros(1)))  # |z|
        found = values(Theorem35(rows=100, most_pieces=20), estimate(replace(truth, network=folded), truth))
        assert found == {
            **{"F2": 0, "F3": 0, "P2": 1, "P3": 1},
            **{"true_F2": 1, "true_F3": 1, "true_P2": 1, "true_P3": 1},
        }

    def test_gives_a_witness(self) -> None:
        folded = ReluNetwork((np.array([[1.0], [-1.0]]), np.array([[1.0, 1.0]])), (np.zeros(2), np.zeros(1)))
        checks = Theorem35(rows=100, most_pieces=20).checks(estimate(replace(generator(1, 1), network=folded), None))
        assert [check.name for check in checks] == ["F2", "F3", "P2", "P3"]
        assert "share an image" in next(check.witness for check in checks if check.name == "F3")

    def test_of_latents_that_collapsed_it_can_not_tell_and_says_so(self) -> None:
        of = replace(estimate(generator(1, 1), None), mean=np.zeros((200, 1)))
        metric = Theorem35(rows=100, most_pieces=20)
        assert np.isnan([values(metric, of)[name] for name in ("F2", "F3")]).all(), "as many rows for every seed"
        assert [check.witness for check in metric.checks(of)[:2]] == ["There is no region to look at."] * 2

    def test_of_what_is_no_mixture_it_says_nothing(self) -> None:
        assert Theorem35(rows=100, most_pieces=20).checks(estimate(None, None)) == []

    def test_of_a_mixture_without_a_relu_network_it_checks_the_mixture(self) -> None:
        found = values(Theorem35(rows=100, most_pieces=20), estimate(replace(generator(1, 2), network=None), None))
        assert set(found) == {"P2", "P3"}


class TestGap:
    def test_is_what_the_elbo_lacks(self) -> None:
        of = replace(estimate(None, None, elbo=-3.0), log_density=-2.5)
        assert values(Gap(), of) == {"log_density": -2.5, "gap": 0.5}

    def test_is_nothing_where_the_density_is_not_known(self) -> None:
        assert Gap()(estimate(None, None, elbo=-3.0)) == []
