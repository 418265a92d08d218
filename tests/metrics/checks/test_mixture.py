"""(P2) and (P3): built mixtures that satisfy or break each clause, and (P3) against its wording, state by state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from itertools import combinations, permutations
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ivae_lab.metrics.check import Check
from ivae_lab.metrics.checks.mixture import structure, variance_ratios
from tests.profiles import examples

Array = NDArray[Any]
SIZES = [(2,), (4,), (6,), (8,), (2, 2), (2, 3), (4, 2), (2, 2, 2), (1, 3)]


def diagonal(*variances: list[float]) -> Array:
    return np.array([np.diag(row) for row in variances], float)


def uniform(*sizes: int) -> Array:
    return np.full(sizes, 1 / np.prod(sizes))


def by_means(table: Array, means: Array) -> Check:
    return structure(table, means, np.ones(means.shape))


def stacked(*means: Array) -> Array:
    """Means of Z_0, Z_1, ... over the states of U."""
    return np.stack(np.broadcast_arrays(*means), axis=-1).astype(float)


def bits() -> Array:
    """Means of two latents over two bits, each with a bit of its own."""
    return stacked(*np.indices((2, 2)))


class TestVarianceRatios:
    def test_two_components_with_distinct_ratios_pass(self) -> None:
        check = variance_ratios(diagonal([1, 2], [1, 4]))
        assert check.passed is True
        assert check.witness == ""
        assert check.evidence["pair"] == [0, 1]
        assert check.evidence["ratios"] == pytest.approx([1, 0.5])
        assert check.evidence["gap"] == pytest.approx(np.log(2))
        assert check.evidence["above_least_gap"] is True
        assert "2 components of 2 latents" in check.looked_at

    def test_one_covariance_scaled_as_a_whole_is_not_enough(self) -> None:
        check = variance_ratios(diagonal([1, 2, 3], [2, 4, 9], [3, 6, 9]))
        assert check.passed is False
        assert "Z_0 and Z_1" in check.witness
        assert check.evidence["gap"] == pytest.approx(0, abs=1e-12)

    def test_all_ratios_of_one_pair_have_to_differ(self) -> None:
        """Each two latents are told apart by some pair here, all three by none."""
        assert variance_ratios(diagonal([1, 1, 1], [1, 1, 2], [1, 2, 2])).passed is False

    def test_the_pair_with_the_widest_gap_is_named(self) -> None:
        check = variance_ratios(diagonal([1, 1], [1, 2], [1, 9], [9, 1]))
        assert check.evidence["pair"] == [2, 3]
        assert check.evidence["gap"] == pytest.approx(4 * np.log(3))

    def test_correlated_latents_are_named(self) -> None:
        covariances = diagonal([1, 2, 3], [1, 4, 9])
        covariances[1, 0, 2] = covariances[1, 2, 0] = -0.6
        check = variance_ratios(covariances)
        assert check.passed is False
        assert "component 1, Z_0 and Z_2" in check.witness
        assert check.evidence["largest_correlation"] == pytest.approx(0.2)
        assert (check.evidence["independent"], check.evidence["distinct"]) == (False, True)

    def test_correlations_are_relative(self) -> None:
        covariances = 1e-10 * diagonal([1, 2], [1, 4])
        covariances[0, 0, 1] = covariances[0, 1, 0] = 1e-11
        assert variance_ratios(covariances).passed is False
        covariances = 1e10 * diagonal([1, 2], [1, 4])
        covariances[0, 0, 1] = covariances[0, 1, 0] = 1
        assert variance_ratios(covariances).passed is True

    def test_rounding_makes_no_difference_distinct(self) -> None:
        scaled = np.array([0.1, 0.3, 0.7], np.float32)
        covariances = np.array([np.diag(scaled), np.diag(scaled * np.float32(1.1))])
        assert variance_ratios(covariances).passed is False

    @pytest.mark.parametrize(("least", "said"), [(0.05, True), (0.005, False)])
    def test_a_small_gap_passes_and_is_said(self, least: float, said: bool) -> None:
        check = variance_ratios(diagonal([1, 1], [1, 1.01]), least)
        assert check.passed is True
        assert check.evidence["above_least_gap"] is not said
        assert ("hard to tell" in check.looked_at) is said

    @pytest.mark.parametrize("components", [1, 2])
    def test_a_single_latent_passes(self, components: int) -> None:
        check = variance_ratios(np.ones((components, 1, 1)))
        assert check.passed is True
        assert check.evidence["gap"] is None
        assert check.evidence["ratios"] == [1]

    def test_a_single_component_of_several_latents_fails(self) -> None:
        check = variance_ratios(diagonal([1, 2]))
        assert check.passed is False
        assert "one component only" in check.witness

    @given(seed=st.integers(0, 10_000), components=st.integers(1, 4), latents=st.integers(1, 4))
    @settings(max_examples=examples(30))
    def test_order_of_components_and_latents_and_their_scales_are_free(
        self, seed: int, components: int, latents: int
    ) -> None:
        rng = np.random.default_rng(seed)
        variances = rng.choice([0.5, 1, 2, 3], (components, latents))
        moved = variances[rng.permutation(components)][:, rng.permutation(latents)] * rng.uniform(0.01, 100, latents)
        first, second = (variance_ratios(np.array([np.diag(row) for row in rows])) for rows in (variances, moved))
        assert first.passed == second.passed
        assert first.evidence["gap"] == pytest.approx(second.evidence["gap"], abs=1e-9)

    @pytest.mark.parametrize(
        "covariances",
        [
            np.ones((2, 2)),
            np.ones((2, 2, 3)),
            np.ones((0, 2, 2)),
            diagonal([1, 0], [1, 1]),
            diagonal([1, np.nan], [1, 1]),
            np.array([[[1, 0.5], [0, 1]]]),
        ],
    )
    def test_what_is_no_covariance_is_refused(self, covariances: Array) -> None:
        with pytest.raises(ValueError, match=r"^expected .*, got "):
            variance_ratios(covariances)


class TestStructure:
    def test_two_bits_with_a_latent_each_pass(self) -> None:
        check = by_means(uniform(2, 2), bits())
        assert check.passed is True
        assert check.witness == ""
        assert check.evidence["neighbours"] == [[0], [1]]
        assert [check.evidence[clause] for clause in "abc"] == [True, True, True]
        assert "2 hidden variables of 2 x 2 states" in check.looked_at

    def test_a_shared_latent_may_be_had_beside_ones_own(self) -> None:
        one, other = np.indices((3, 2))
        check = by_means(uniform(3, 2), stacked(one, 2 * one + 7 * other, other))
        assert check.passed is True
        assert check.evidence["neighbours"] == [[0, 1], [1, 2]]

    def test_variances_tell_states_apart_too(self) -> None:
        assert structure(uniform(2, 2), np.zeros((2, 2, 2)), 1 + bits()).passed is True

    def test_a_fails_where_a_latent_has_one_gaussian_in_two_states(self) -> None:
        one, other = np.indices((3, 2))
        check = by_means(uniform(3, 2), stacked(np.minimum(one, 1), one, other))
        assert check.passed is False
        assert check.witness == "(a) fails, as Z_0 is the same given U_0 = 1 and = 2."
        assert [check.evidence[clause] for clause in "abc"] == [False, True, True]

    def test_a_fails_where_several_variables_give_a_latent_one_gaussian(self) -> None:
        one, other = np.indices((2, 2))
        check = by_means(uniform(2, 2), stacked(one, other, one + other))
        assert check.witness == "(a) fails, as Z_2 is the same given U_0, U_1 = (0, 1) and = (1, 0)."

    def test_b_fails_where_a_variable_is_two(self) -> None:
        four, other = np.indices((4, 2))
        check = by_means(uniform(4, 2), stacked(four // 2, four % 2, other))
        assert check.passed is False
        assert "(b) fails, as 2 x 2 x 2 hidden states give the same P(Z)" in check.witness
        assert [check.evidence[clause] for clause in "abc"] == [False, False, True]

    def test_b_is_sought_among_the_components_of_z(self) -> None:
        """Of 8 states 4 components are left, which two bits give just as well: as many variables as U has."""
        four = np.indices((4, 2))[0]
        check = by_means(uniform(4, 2), stacked(four // 2, four % 2))
        assert [check.evidence[clause] for clause in "abc"] == [False, True, False]

    def test_c_fails_where_a_variable_has_no_latent_of_its_own(self) -> None:
        one, other = np.indices((2, 2))
        check = by_means(uniform(2, 2), stacked(one, 2 * one + other))
        assert check.passed is False
        assert check.witness == "(c) fails, as ne(U_1) = {Z_1} is a subset of ne(U_0) = {Z_0, Z_1}."
        assert [check.evidence[clause] for clause in "abc"] == [True, True, False]

    @pytest.mark.parametrize("sizes", [(2, 2), (2, 1)])
    def test_c_fails_where_a_variable_has_no_latent(self, sizes: tuple[int, int]) -> None:
        check = by_means(uniform(*sizes), stacked(np.indices(sizes)[0]))
        assert "ne(U_1) = {} is a subset" in check.witness

    def test_a_dependence_only_where_the_others_are_in_one_state_counts(self) -> None:
        one, other = np.indices((2, 2))
        assert by_means(uniform(2, 2), stacked(one, one * other)).evidence["neighbours"] == [[0, 1], [1]]

    def test_impossible_states_say_nothing(self) -> None:
        """Z_1 depends on U_0 in a state of probability zero only."""
        one, other = np.indices((2, 3))
        means = stacked(one, other + 10 * one * (other == 2))
        assert by_means(np.array([[0.2, 0.2, 0.2], [0.2, 0.2, 0]]), means).evidence["neighbours"] == [[0], [1]]

    def test_with_impossible_states_b_is_not_decided(self) -> None:
        check = by_means(np.array([[0.5, 0.2], [0.3, 0]]), bits())
        assert check.passed is None
        assert [check.evidence[clause] for clause in "abc"] == [True, None, True]
        assert "(b) is not decided" in check.witness

    def test_a_finer_structure_is_found_in_spite_of_impossible_states(self) -> None:
        five, other = np.indices((5, 2))
        table = np.array([[1, 1]] * 4 + [[0, 0]]) / 8
        assert by_means(table, stacked(five // 2, five % 2, other)).evidence["b"] is False

    @pytest.mark.parametrize(("share", "same"), [(0.5, True), (0.3, False)])
    def test_a_compares_mixtures_where_neighbours_do_not_say_all(self, share: float, same: bool) -> None:
        """U_1 = U_2, so that neither is a neighbour; given U_0, Z_0 has two Gaussians, in shares that U_0 swaps."""
        one, block, _ = np.indices((2, 2, 2))
        check = by_means(np.array([np.diag([share, 1 - share])] * 2) / 2, stacked((one + block) % 2))
        assert check.evidence["neighbours"] == [[0], [], []]
        assert check.evidence["a"] is not same

    def test_a_looks_at_several_latents_where_states_are_impossible(self) -> None:
        """Z_0 has other shares given U_0 = 0 and 1, but the same where Z_1 fixes U_1 = 0."""
        one, two, block, _ = np.indices((2, 2, 2, 2))
        ones = np.array([[0.3, 0.3], [0.7, 0.6]])  # of the block, P(U_2 = U_3 = 1 | U_0, U_1)
        table = np.zeros((2, 2, 2, 2))
        table[..., 0, 0], table[..., 1, 1] = (1 - ones) / 4, ones / 4
        check = by_means(table, stacked((one + block) % 2, two))
        assert check.evidence["neighbours"] == [[0], [1], [], []]
        assert "Z_0, Z_1 is the same given U_0, U_1 = (0, 0) and = (1, 0)" in check.witness

    def test_too_many_components_are_not_searched(self) -> None:
        many, other = np.indices((40, 2))
        check = by_means(uniform(40, 2), stacked(many // 2, many % 2, other))
        assert check.passed is False
        assert check.evidence["b"] is None

    def test_many_binary_variables_pass(self) -> None:
        assert by_means(uniform(*[2] * 7), stacked(*np.indices([2] * 7))).passed is True

    def test_a_single_variable_passes_as_the_paper_says(self) -> None:
        check = by_means(uniform(3), stacked(np.arange(3)))
        assert check.passed is True
        assert [check.evidence[clause] for clause in "abc"] == [True, True, True]

    def test_a_single_variable_that_is_two_passes_and_the_two_are_told(self) -> None:
        four = np.arange(4)
        check = by_means(uniform(4), stacked(four // 2, four % 2))
        assert check.passed is True
        assert "2 x 2 hidden states" in check.looked_at
        assert [check.evidence[clause] for clause in "abc"] == [False, False, True]
        finer = check.evidence["finer"]
        assert finer["sizes"] == [2, 2]
        bit = {tuple(own): new for own, new in zip(finer["of"], finer["to"], strict=True)}
        assert sum(one == other for one, other in zip(bit[0,], bit[1,], strict=True)) == 1
        assert sum(one == other for one, other in zip(bit[0,], bit[3,], strict=True)) == 0

    def test_the_finer_structure_says_which_state_is_which(self) -> None:
        state = np.array([5, 0, 3, 4, 1, 2])
        means = stacked(state // 3, state % 3)
        finer = by_means(uniform(6), means).evidence["finer"]
        pairs = [(own[0], new) for own, new in zip(finer["of"], finer["to"], strict=True)]
        for (own, new), (other, another) in combinations(pairs, 2):
            assert (np.array(new) == another).sum() == (means[own] == means[other]).sum()

    def test_all_sets_of_bits_may_be_told(self) -> None:
        bit = np.indices((2, 2, 2)).reshape(3, 8)
        sets = [[weight & 1, weight >> 1 & 1, weight >> 2] for weight in range(1, 8)]
        check = by_means(uniform(8), stacked(*(np.array(own) * [1, 2, 4] @ bit for own in sets)))
        assert check.evidence["finer"]["sizes"] == [2, 2, 2]

    def test_a_bit_that_only_three_latents_have_in_common_is_found(self) -> None:
        bit = np.indices((2, 2, 2, 2)).reshape(4, 16)
        three = [bit[list(own)].T @ [1, 2, 4] for own in combinations(range(4), 3)]
        assert by_means(uniform(16), stacked(*three)).evidence["finer"]["sizes"] == [2, 2, 2, 2]

    def test_bits_are_not_taken_for_finer_where_another_latent_breaks_a(self) -> None:
        """Z_3 tells the second bit only where the first one is 1."""
        first, second, third = np.indices((2, 2, 2)).reshape(3, 8)
        check = by_means(uniform(8), stacked(first, second, third, first * (1 + second)))
        assert [check.evidence[clause] for clause in "abc"] == [False, True, True]

    def test_three_components_are_no_two_bits(self) -> None:
        check = by_means(uniform(3), stacked(np.array([0, 0, 1]), np.array([0, 1, 1])))
        assert [check.evidence[clause] for clause in "abc"] == [False, True, True]

    def test_a_single_variable_fails_where_two_states_are_one_component(self) -> None:
        check = by_means(uniform(3), stacked(np.array([0, 1, 0])))
        assert check.passed is False
        assert "U_0 = 0 and U_0 = 2" in check.witness
        assert by_means(np.array([0.5, 0.5, 0]), stacked(np.array([0, 1, 0]))).passed is True

    @pytest.mark.parametrize("scale", [1e-9, 1e9])
    def test_means_differ_relative_to_their_spread(self, scale: float) -> None:
        assert structure(uniform(2, 2), scale * bits(), np.full((2, 2, 2), scale**2)).passed is True

    def test_rounding_makes_no_difference(self) -> None:
        means, variances = 1e3 * (1 + bits()), 0.1 + bits()
        means = np.concatenate([means, means[..., :1]], axis=-1)
        variances = np.concatenate([variances, variances[..., :1]], axis=-1)
        rounded = means * (1 + 1e-12 * np.random.default_rng(0).normal(size=means.shape))
        assert structure(uniform(2, 2), rounded, variances).evidence["neighbours"] == [[0, 2], [1]]

    @pytest.mark.parametrize(
        ("table", "means", "variances"),
        [
            (uniform(2, 2) * 1.1, bits(), np.ones((2, 2, 2))),
            (np.array([[0.5, 0.6], [-0.1, 0]]), bits(), np.ones((2, 2, 2))),
            (np.full((2, 2), np.nan), bits(), np.ones((2, 2, 2))),
            (np.array(1.0), np.ones(2), np.ones(2)),
            (uniform(2, 2), bits()[..., 0], np.ones((2, 2))),
            (uniform(2, 2), bits(), np.ones((2, 2, 3))),
            (uniform(2, 2), np.ones((2, 2, 0)), np.ones((2, 2, 0))),
            (uniform(2, 2), bits(), bits()),
            (uniform(2, 2), np.inf * np.ones((2, 2, 2)), np.ones((2, 2, 2))),
        ],
    )
    def test_what_is_no_structure_is_refused(self, table: Array, means: Array, variances: Array) -> None:
        with pytest.raises(ValueError, match=r"(?s)^expected .*, got "):
            structure(table, means, variances)

    @given(data=st.data(), seed=st.integers(0, 10_000), sizes=st.sampled_from(SIZES), zeros=st.booleans())
    @settings(max_examples=examples(20))
    def test_names_of_variables_states_and_latents_and_their_scales_are_free(
        self, data: st.DataObject, seed: int, sizes: tuple[int, ...], zeros: bool
    ) -> None:
        rng = np.random.default_rng(seed)
        means = data.draw(kept(sizes))
        table = rng.dirichlet(np.ones(np.prod(sizes))).reshape(sizes)
        if zeros:
            table = np.where(rng.random(sizes) < 0.2, 0, table) + 1e-3 * (np.indices(sizes).sum(0) == 0)
            table /= table.sum()
        first = structure(table, means, np.exp(means))
        axes = rng.permutation(len(sizes))
        table, means = table.transpose(axes), means.transpose(*axes, len(sizes))
        for axis, size in enumerate(table.shape):
            order = rng.permutation(size)
            table, means = table.take(order, axis), means.take(order, axis)
        latents = rng.permutation(means.shape[-1])
        scale, shift = 10 ** rng.uniform(-8, 8, means.shape[-1]), rng.normal(size=means.shape[-1])
        variances = np.exp(means)[..., latents] * scale**2
        second = structure(table, means[..., latents] * scale + shift, variances)
        assert first.passed == second.passed
        assert [first.evidence[key] for key in "abc"] == [second.evidence[key] for key in "abc"]
        back = [sorted(np.argsort(latents)[first.evidence["neighbours"][axis]].tolist()) for axis in axes]
        assert second.evidence["neighbours"] == back
        assert bool(first.witness) == bool(second.witness) == (first.passed is not True)

    @given(data=st.data(), sizes=st.sampled_from(SIZES))
    @settings(max_examples=examples(20))
    def test_clauses_are_those_of_the_wording(self, data: st.DataObject, sizes: tuple[int, ...]) -> None:
        means = data.draw(kept(sizes))
        evidence = by_means(uniform(*sizes), means).evidence
        neighbours = neighbours_by_wording(means)
        assert [set(own) for own in evidence["neighbours"]] == neighbours
        assert evidence["a"] == a_by_wording(means, neighbours)
        assert evidence["c"] == c_by_wording(neighbours)
        assert evidence["b"] == (not any(good(finer) for finer in finer_grids(means)))
        if evidence["finer"]:
            finer = np.empty((*evidence["finer"]["sizes"], means.shape[-1]))
            finer[tuple(np.transpose(evidence["finer"]["to"]))] = means[tuple(np.transpose(evidence["finer"]["of"]))]
            assert finer.ndim > means.ndim
            assert good(finer)
        json.dumps(evidence)


@st.composite
def kept(draw: st.DrawFn, sizes: tuple[int, ...]) -> Array:
    """Means of latents that each tell one or two variables of another structure of as many states, or are arbitrary."""
    count = prod(sizes)
    inner = draw(st.sampled_from([sizes, *(other for other in SIZES if prod(other) == count)]))
    variables = np.indices(inner).reshape(len(inner), -1)
    columns = [3 * variables[at] for at in range(len(inner)) if draw(st.integers(0, 3))]
    for _ in range(draw(st.integers(not columns, 2))):
        weights = draw(st.lists(st.integers(0, 2), min_size=len(inner), max_size=len(inner)))
        columns.append(np.array(weights) @ variables)
    if draw(st.integers(0, 9)) == 0:
        columns.append(np.array(draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))))
    return np.stack([column.reshape(sizes) for column in columns], axis=-1) / 9


def neighbours_by_wording(means: Array) -> list[set[int]]:
    *sizes, latents = means.shape
    found: list[set[int]] = [set() for _ in sizes]
    for one, other in combinations(np.ndindex(*sizes), 2):
        differ = [axis for axis, _ in enumerate(sizes) if one[axis] != other[axis]]
        if len(differ) == 1:
            found[differ[0]] |= {latent for latent in range(latents) if means[one][latent] != means[other][latent]}
    return found


def a_by_wording(means: Array, neighbours: list[set[int]]) -> bool:
    *sizes, latents = means.shape
    for count in range(1, latents + 1):
        for subset in combinations(range(latents), count):
            axes = [axis for axis, own in enumerate(neighbours) if own & set(subset)]
            seen = {tuple(state[axis] for axis in axes): tuple(means[state][[*subset]]) for state in np.ndindex(*sizes)}
            if len(set(seen.values())) < len(seen):
                return False
    return True


def c_by_wording(neighbours: list[set[int]]) -> bool:
    return not any(one <= other for one, other in permutations(neighbours, 2))


def good(means: Array) -> bool:
    neighbours = neighbours_by_wording(means)
    return c_by_wording(neighbours) and a_by_wording(means, neighbours)


def finer_grids(means: Array) -> Iterator[Array]:
    """All grids of more variables, of the components of Z, up to the names of their states."""
    components = np.unique(means.reshape(-1, means.shape[-1]), axis=0)
    shapes: dict[int, list[tuple[int, ...]]] = {4: [(2, 2)], 6: [(2, 3)], 8: [(2, 4), (2, 2, 2)]}
    for sizes in shapes.get(len(components), []):
        if len(sizes) >= means.ndim:
            yield from components[grids(sizes)]


@cache
def grids(sizes: tuple[int, ...]) -> Array:
    """The first component is in the first state of all variables, whose other states are in order along the axes."""
    found = []
    for order in permutations(range(1, prod(sizes))):
        grid = np.array([0, *order]).reshape(sizes)
        lines = [np.moveaxis(grid, axis, 0).reshape(size, -1)[:, 0] for axis, size in enumerate(sizes)]
        if all((np.diff(line) > 0).all() for line in lines) and (
            len(set(sizes)) > 1 or grid.flat[1] < grid[-1].flat[0]
        ):
            found.append(grid)
    return np.array(found)
