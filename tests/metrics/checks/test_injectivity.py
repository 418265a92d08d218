"""(F2) and (F3) of Kivva et al. (2022) on networks whose answer is known, and what their witnesses claim."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ivae_lab.core.mixture_generator import ReluNetwork
from ivae_lab.metrics.check import Check
from ivae_lab.metrics.checks import injectivity
from ivae_lab.metrics.checks.injectivity import injective, weakly_injective
from tests.profiles import examples

Array = NDArray[np.float64]
LINE = np.linspace(-2, 3, 101)[:, None]  # 0 is among its points: on the border of two pieces, in a piece of its own
LINE[40] = 0


def network(*weights: Any, biases: Any = None, slope: float = 0.0) -> ReluNetwork:
    matrices = tuple(np.array(weight, float) for weight in weights)
    if biases is None:
        biases = [np.zeros(len(matrix)) for matrix in matrices]
    return ReluNetwork(matrices, tuple(np.array(bias, float) for bias in biases), slope)


def random_network(seed: int, *sizes: int, slope: float = 0.0) -> ReluNetwork:
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(out, size)) / np.sqrt(size) for size, out in pairwise(sizes)]
    return network(*weights, biases=[rng.normal(scale=0.3, size=size) for size in sizes[1:]], slope=slope)


def rows(seed: int, count: int, size: int) -> Array:
    return np.random.default_rng([seed, 1]).normal(size=(count, size))


RELU = network([[1]], [[1]])
ABSOLUTE = network([[1], [-1]], [[1, 1]])  # max(x, 0) + max(-x, 0)
ZERO = network([[1]], [[0]])
IDENTITY = network([[1], [-1]], [[1, -1]])  # max(x, 0) - max(-x, 0)


def assert_collides(check: Check, f: ReluNetwork, z: Array, within: bool = True) -> None:
    """What `check` reports is two points, in the box of the rows, that f gives the image it says."""
    assert check.passed is False
    points = np.array([check.evidence["z"], check.evidence["z_other"]])
    assert np.linalg.norm(points[0] - points[1]) > 1e-4
    np.testing.assert_allclose(f(points), [check.evidence["f"]] * 2, atol=1e-7)
    if within:
        assert (points >= z.min(0) - 1e-9).all()
        assert (points <= z.max(0) + 1e-9).all()


class TestReluNetwork:
    @given(
        seed=st.integers(0, 1000),
        sizes=st.lists(st.integers(1, 6), min_size=2, max_size=5),
        slope=st.sampled_from([0.0, 0.1, 0.7]),
    )
    @settings(max_examples=examples(25))
    def test_is_affine_where_its_halfspaces_say(self, seed: int, sizes: list[int], slope: float) -> None:
        f, z = random_network(seed, *sizes, slope=slope), rows(seed, 30, sizes[0])
        patterns, other = f.pieces(z), rows(seed + 1, 30, sizes[0])
        assert patterns.shape == (30, sum(sizes[1:-1]))
        for point, pattern, image in zip(z, patterns, f(z), strict=True):
            matrix, offset = f.affine(pattern)
            np.testing.assert_allclose(matrix @ point + offset, image, atol=1e-12)
            sides, limits = f.halfspaces(pattern)
            inside = (other @ sides.T <= limits).all(1)
            assert inside.tolist() == (f.pieces(other) == pattern).all(1).tolist()

    def test_by_hand(self) -> None:
        f = network([[1], [-1]], [[1, 2]], biases=[[0, 1], [5]], slope=0.5)
        assert f(np.array([[3.0]])).tolist() == [[3 + 2 * 0.5 * -2 + 5]]
        assert f.pieces(np.array([[3.0], [0.5], [0.0]])).tolist() == [[True, False], [True, True], [False, True]]

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: ReluNetwork((), ()), "expected weights of shape"),
            (lambda: network([[1, 2]], [[1, 1]]), "expected layers that take"),
            (lambda: network([[1]], biases=[[1, 1]]), "expected a bias per unit"),
            (lambda: network([[np.nan]]), "expected finite weights"),
            (lambda: network([[1]], slope=1.0), "expected a slope"),
            (lambda: RELU(np.ones((3, 2))), r"expected z of shape \(N, 1\)"),
            (lambda: RELU.affine(np.ones(2, bool)), r"expected a pattern of shape \(1,\)"),
        ],
    )
    def test_says_what_is_wrong(self, make: Callable[[], Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make()


class TestPaper:
    """Example 3.3, which prints `ReLU(x) + ReLU(-x) = x` and means the difference."""

    @pytest.mark.parametrize(
        ("f", "f3", "f2"),
        [(RELU, False, True), (ABSOLUTE, False, False), (ZERO, False, False), (IDENTITY, True, True)],
        ids=["relu", "absolute", "zero", "identity"],
    )
    def test_examples(self, f: ReluNetwork, f3: bool, f2: bool) -> None:
        strong, weak = injective(f, LINE), weakly_injective(f, LINE)
        assert (strong.name, strong.passed, weak.name, weak.passed) == ("F3", f3, "F2", f2)
        assert [bool(check.witness) for check in (strong, weak)] == [not f3, not f2]
        for check in (strong, weak):
            assert json.loads(json.dumps(check.as_row(), allow_nan=False)) == check.as_row()

    def test_relu_loses_rank_below_0(self) -> None:
        check = injective(RELU, LINE)
        assert_collides(check, RELU, LINE)
        assert check.evidence["rank"] == 0
        assert check.evidence["row"][0] < 0
        assert "does not see the direction" in check.witness

    def test_absolute_value_folds_though_some_rows_lie_outside_of_the_mirrored_box(self) -> None:
        strong, weak = injective(ABSOLUTE, LINE), weakly_injective(ABSOLUTE, LINE)
        for check, within in ((strong, True), (weak, False)):
            assert_collides(check, ABSOLUTE, LINE, within)
            np.testing.assert_allclose(check.evidence["z"], -np.array(check.evidence["z_other"]), atol=1e-9)
        assert weak.evidence["rows_tried"] == 100  # all but 0 itself

    def test_the_ball_of_relu_ends_where_0_has_many_preimages(self) -> None:
        evidence = weakly_injective(RELU, LINE).evidence
        assert evidence["z"] == evidence["x0"]
        assert evidence["delta"] == pytest.approx(evidence["x0"][0])


class TestInjective:
    @given(seed=st.integers(0, 1000), size=st.integers(1, 3), depth=st.integers(1, 2))
    @pytest.mark.slow
    def test_square_leaky_layers_are(self, seed: int, size: int, depth: int) -> None:
        rng = np.random.default_rng(seed)
        layers = [np.linalg.qr(rng.normal(size=(size, size)))[0] * rng.uniform(0.5, 2, size) for _ in range(depth + 1)]
        f = network(*layers, biases=[rng.normal(scale=0.5, size=size) for _ in layers], slope=0.2)
        z = rows(seed, 300, size)
        assert injective(f, z).passed is True
        assert weakly_injective(f, z).passed is True

    @pytest.mark.parametrize("seed", range(12))
    @pytest.mark.slow
    def test_a_plane_that_is_turned_over_somewhere_is_folded(self, seed: int) -> None:
        f, z = random_network(seed, 2, 4, 2, slope=0.1), rows(seed, 2000, 2)
        turns = {np.sign(np.linalg.det(f.affine(pattern)[0])) for pattern in np.unique(f.pieces(z), axis=0)}
        check = injective(f, z)
        if len(turns) > 1:
            assert_collides(check, f, z)
            assert "pieces share" in check.witness
        elif check.passed is not True:
            assert_collides(check, f, z)

    @given(seed=st.integers(0, 1000), sizes=st.sampled_from([(2, 6, 3), (2, 4, 4, 3), (2, 5, 2), (3, 4, 3), (2, 3, 1)]))
    def test_what_it_reports_is_true(self, seed: int, sizes: tuple[int, ...]) -> None:
        f, z = random_network(seed, *sizes), rows(seed, 200, sizes[0])
        check = injective(f, z)
        assert check.passed is not None
        if not check.passed:
            assert_collides(check, f, z)

    def test_a_curve_that_crosses_itself_in_a_point(self) -> None:
        # From (0, 0) to (2, 0), (1, 1) and (1, -1), a corner at each whole z: z = 0.5 meets z = 2.5.
        turns = np.diff([[0, 0], [2, 0], [-1, 1], [0, -2]], axis=0).T
        f = network(np.ones((3, 1)), turns, biases=[[0, -1, -2], [0, 0]])
        z = np.linspace(0.01, 3, 50)[:, None]
        check = injective(f, z)
        assert_collides(check, f, z)
        assert sorted([*check.evidence["z"], *check.evidence["z_other"]]) == pytest.approx([0.5, 2.5])
        assert injective(f, z[z[:, 0] < 2.4]).passed is True
        assert weakly_injective(f, z).passed is True

    def test_an_output_that_is_there_twice_hides_a_direction(self) -> None:
        f = network([[1, 2], [1, 2]], [[1, 0], [0, 1], [1, 1]], slope=0.1)
        z = rows(0, 50, 2)
        check = injective(f, z)
        assert_collides(check, f, z)
        assert check.evidence["rank"] == 1
        assert np.abs(check.evidence["direction"]) == pytest.approx(np.array([2, 1]) / np.sqrt(5))
        weak = weakly_injective(f, z)
        assert weak.passed is False
        assert weak.witness == "No piece has rank 2: the highest is 1."

    def test_both_signs_of_every_direction_are_needed(self) -> None:
        both = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
        z = rows(0, 100, 2)
        assert injective(network(both, np.eye(4)), z).passed is True
        check = injective(network(both[:3], np.eye(3)), z)  # nothing sees z_2 < 0
        assert check.passed is False
        assert check.evidence["direction"] == pytest.approx([0, check.evidence["direction"][1]])

    @pytest.mark.parametrize(("f", "passed"), [(ABSOLUTE, False), (IDENTITY, True), (RELU, False)])
    @pytest.mark.parametrize(("unit", "out"), [(1e4, 1e-5), (1e-5, 1e6)])
    @pytest.mark.slow
    def test_units_do_not_matter(self, f: ReluNetwork, passed: bool, unit: float, out: float) -> None:
        moved = network(f.weights[0] / unit, f.weights[1] * out, biases=[f.biases[0], f.biases[1] + 3 * out])
        assert injective(moved, LINE * unit).passed is passed
        assert weakly_injective(moved, LINE * unit).passed is weakly_injective(f, LINE).passed

    def test_says_which_pieces_it_left_out(self) -> None:
        z = LINE[LINE[:, 0] != 0, None].reshape(-1, 1)
        check = injective(ABSOLUTE, z, most_pieces=1)
        assert check.passed is True
        assert "1 of the 2 pieces that 100 rows visit, with 60.0% of them" in check.looked_at
        assert check.evidence["pieces_looked_at"] == 1

    def test_linear_maps(self) -> None:
        z = rows(0, 10, 2)
        assert injective(network([[1, 0], [0, 1], [1, 1]]), z).passed is True
        assert weakly_injective(network([[1, 0], [0, 1]]), z).evidence["delta"] is None
        assert injective(network([[1, 1]]), z).passed is False


class TestWeaklyInjective:
    @given(turns=st.lists(st.integers(-3, 3), min_size=6, max_size=6))
    @pytest.mark.slow
    def test_both_on_a_line_against_counting_preimages(self, turns: list[int]) -> None:
        corners = np.array([-4.0, -2, -1, 0, 1, 2])
        f = network(np.ones((6, 1)), [turns], biases=[-corners, [0]])
        z = np.linspace(-3, 3, 25)[:, None] + np.sqrt(2) / 100
        slopes, values = np.cumsum(turns), f(corners[:, None])[:, 0]
        ends = np.r_[corners[1:], np.inf]
        images, counts = f(z)[:, 0], np.zeros(len(z))
        for slope, start, end, value in zip(slopes, corners, ends, values, strict=True):
            if slope == 0:
                counts[np.isclose(images, value)] += 2  # infinitely many
            else:
                place = start + (images - value) / slope
                counts += (place > start) & (place < end)
        assert weakly_injective(f, z).passed is bool((counts == 1).any())
        assert injective(f, z).passed is (len({*np.sign(slopes)}) == 1 and bool(slopes[0]))

    @given(seed=st.integers(0, 1000), sizes=st.sampled_from([(2, 6, 3), (2, 6, 2), (2, 4, 4, 3)]))
    @pytest.mark.slow
    def test_the_ball_is_hit_from_one_piece_only(self, seed: int, sizes: tuple[int, ...]) -> None:
        f, z = random_network(seed, *sizes), rows(seed, 100, 2)
        check = weakly_injective(f, z, most_rows=20)
        if not check.passed:
            return
        point, x0, delta = np.array(check.evidence["z"]), np.array(check.evidence["x0"]), check.evidence["delta"]
        near = np.concatenate([z, point + rows(seed + 1, 5000, 2), point + delta * rows(seed + 2, 500, 2)])
        visited = (f.pieces(near)[:, None] == np.unique(f.pieces(z), axis=0)).all(2).any(1)
        hit = near[visited & (np.linalg.norm(f(near) - x0, axis=1) < 0.999 * delta)]
        np.testing.assert_allclose(f(point[None])[0], x0)
        assert len(hit) > 0
        assert (f.pieces(hit) == f.pieces(point[None])).all()

    def test_the_ball_stays_away_from_pieces_that_no_row_visits(self) -> None:
        evidence = weakly_injective(ABSOLUTE, np.array([[1.0], [3.0]])).evidence
        assert evidence["pieces_visited"] == 1
        assert evidence["delta"] == pytest.approx(evidence["z"][0])

    def test_rows_on_edges_decide_nothing(self) -> None:
        f = network([[1], [1]], [[1, 1]], biases=[[1, -1], [0]])
        check = weakly_injective(f, np.array([[-1.0], [1.0]]))
        assert check.passed is None
        assert check.witness


@pytest.mark.parametrize("check", [injective, weakly_injective])
class TestBoth:
    def test_a_solver_that_gives_up_decides_nothing(
        self, check: Callable[..., Check], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(injectivity, "linprog", lambda *_, **__: SimpleNamespace(status=4, message="no"))
        for f in (RELU, ABSOLUTE, IDENTITY):
            answer = check(f, LINE)
            assert answer.passed is None
            assert answer.witness

    @pytest.mark.parametrize(
        ("z", "options", "message"),
        [
            (np.ones((3, 2)) * [[1], [2], [3]], {}, r"expected z of shape \(N, 1\)"),
            (np.array([[1.0], [np.nan]]), {}, "expected finite rows"),
            (np.ones((4, 1)), {}, "expected rows of z that differ"),
            (np.ones((0, 1)), {}, "expected rows of z that differ"),
            (LINE, {"tolerance": 0.0}, "expected tolerance and most_pieces above 0"),
            (LINE, {"most_pieces": 0}, "expected tolerance and most_pieces above 0"),
        ],
    )
    def test_says_what_is_wrong(
        self, check: Callable[..., Check], z: Array, options: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            check(RELU, z, **options)


def test_some_row_must_be_tried() -> None:
    with pytest.raises(ValueError, match="expected most_rows above 0"):
        weakly_injective(RELU, LINE, most_rows=0)
