"""The number of informative latents, and their MCC with the sources."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ivae_lab.metrics.resampling import Estimate
from ivae_lab.metrics.spectrum import Rule, Spectrum, informative, leading_correlation, spectrum

RNG = np.random.default_rng(0)


def scaled(*scales: float, rows: int = 4000) -> NDArray[Any]:
    return np.array(scales) * RNG.normal(size=(rows, len(scales)))


class TestSpectrum:
    def test_is_sorted_and_says_whose_it_is(self) -> None:
        std, order = spectrum(scaled(0.1, 3, 1))
        assert order.tolist() == [1, 2, 0]
        np.testing.assert_allclose(std, [3, 1, 0.1], rtol=0.05)

    @given(seed=st.integers(0, 100))
    def test_the_count_does_not_depend_on_order_sign_or_scale(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        latents = rng.normal(size=(200, 6)) * rng.uniform(0.01, 3, 6)
        moved = 7.5 * latents[:, rng.permutation(6)] * rng.choice([-1, 1], 6) + 3
        for rule in ("gap", "knee"):
            assert informative(spectrum(latents)[0], rule) == informative(spectrum(moved)[0], rule)


class TestInformative:
    @pytest.mark.parametrize("rule", ["gap", "knee"])
    @pytest.mark.parametrize("count", [1, 2, 3, 7])
    def test_finds_a_step(self, rule: Rule, count: int) -> None:
        std = np.r_[np.linspace(3, 1, count), np.linspace(0.011, 0.009, 10 - count)]
        assert informative(std, rule) == count

    def test_a_knee_is_where_a_steep_spectrum_turns_flat(self) -> None:
        log = np.r_[np.linspace(2, -2, 22, endpoint=False), np.linspace(-2, -2.5, 700)]
        assert abs(informative(np.exp(log), "knee") - 22) <= 1

    def test_latents_without_spread_say_nothing(self) -> None:
        assert informative(np.array([1.0, 0.9, 0.0]), "gap") == 2
        assert informative(np.array([0.0, 0.0]), "knee") == 0

    def test_a_diverged_model_has_none(self) -> None:
        assert informative(np.array([np.nan, 1.0]), "gap") == 0

    def test_a_single_latent_is_informative(self) -> None:
        assert informative(np.array([0.3]), "gap") == 1


class TestLeadingCorrelation:
    def test_sources_among_noise_are_found(self) -> None:
        sources = scaled(1, 1)
        latents = np.c_[scaled(0.01, 0.01), -2 * sources[:, 1], scaled(0.01), sources[:, 0] + 5]
        assert leading_correlation(latents, sources, 2) == pytest.approx(1)

    def test_a_source_without_a_latent_costs(self) -> None:
        sources = scaled(1, 1)
        assert leading_correlation(np.c_[sources[:, 0], scaled(0.1)], sources, 1) == pytest.approx(0.5, abs=0.03)
        assert leading_correlation(sources, sources, 0) == 0

    def test_a_source_split_over_two_latents_costs(self) -> None:
        sources = scaled(1, 1)
        low = sources[:, 0] < 0
        split = np.c_[sources[:, 1], np.where(low, sources[:, 0], 0), np.where(low, 0, sources[:, 0])]
        assert leading_correlation(split, sources, 3) < 0.95

    def test_latents_that_are_not_finite_have_none(self) -> None:
        sources = scaled(1, 1)
        assert np.isnan(leading_correlation(np.full_like(sources, np.nan), sources, 2))


@pytest.mark.parametrize("known", [True, False])
def test_rows(known: bool) -> None:
    sources = scaled(1, 1)
    latents = np.c_[sources, scaled(0.01, 0.01)]
    index = np.arange(len(latents))
    rows = Spectrum("gap")(Estimate(latents, latents, sources if known else None, None, index, {}))
    found = {row["metric"]: row["value"] for row in rows}
    assert found.pop("informative") == 2
    assert found == ({"mcc_informative": pytest.approx(1)} if known else {})
