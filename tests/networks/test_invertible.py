"""Transforms of flows: inverses, log-determinants against autograd, and couplings against FrEIA's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import FrEIA.modules as freia
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import jacrev

from ivae_lab.core.data import DataSpec, Image
from ivae_lab.networks.invertible import (
    Autoregressive,
    Chain,
    Checkerboard,
    Coupling,
    CouplingKind,
    Couplings,
    ImageCouplings,
    Permutation,
    Transform,
)
from tests.profiles import examples

KINDS: list[CouplingKind] = ["gin", "gin_mean", "affine", "additive"]
IMAGE = Image(1, 8, 8)


def spec(size: int, image: Image | None = None) -> DataSpec:
    return DataSpec(size, 3, None, 100, False, image)


def flat(size: int, kind: CouplingKind) -> Transform:
    return Couplings(spec(size), blocks=3, kind=kind, hidden=7, layers=3, clamp=None if kind == "additive" else 2.0)


def of_images(kind: CouplingKind) -> Transform:
    shape = {"conv_blocks": [2, 1], "conv_hidden": [4, 4], "blocks": 1, "hidden": 8, "layers": 3}
    clamp = None if kind == "additive" else 2.0
    return ImageCouplings(spec(64, IMAGE), kind=kind, clamp=clamp, **shape)  # type: ignore[arg-type]


def autoregressive(size: int, kind: str, passes: int | None) -> Transform:
    options = {"layers": 3, "hidden": [16], "bins": 4 if kind == "spline" else None, "linear": True, "turned": False}
    return Autoregressive(spec(size), kind=kind, passes=passes, **options)  # type: ignore[arg-type]


MAKERS: dict[str, tuple[int, Callable[[], Transform]]] = {
    **{f"couplings of {size}, {kind}": (size, partial(flat, size, kind)) for kind in KINDS for size in (2, 5)},
    **{f"couplings of images, {kind}": (64, partial(of_images, kind)) for kind in KINDS},
    **{
        f"autoregressive, {kind}, {passes}": (5, partial(autoregressive, 5, kind, passes))
        for kind in ("affine", "spline")
        for passes in (None, 2)
    },
}


def shaken(transform: Transform, seed: int = 0, scale: float = 0.3) -> Transform:
    """With weights that are not those of a start: every parameter moved."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return transform.double()


@pytest.fixture(params=MAKERS)
def made(request: pytest.FixtureRequest) -> tuple[int, Transform]:
    torch.manual_seed(0)
    size, make = MAKERS[request.param]
    return size, shaken(make(), scale=0.05 if size == 64 else 0.3)


def rows(size: int, count: int = 6) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def jacobian(transform: Transform, x: Tensor) -> Tensor:
    """Of z with respect to one row: (d, d)."""
    return jacrev(lambda row: transform(row[None])[0][0])(x)  # type: ignore[no-any-return]


class TestEveryTransform:
    def test_is_undone_by_its_inverse(self, made: tuple[int, Transform]) -> None:
        size, transform = made
        x = rows(size)
        z, _ = transform(x)
        assert (z - x).abs().max() > 1e-3  # it does something
        torch.testing.assert_close(transform.inverse(z), x, atol=1e-8, rtol=1e-8)
        torch.testing.assert_close(transform(transform.inverse(x))[0], x, atol=1e-8, rtol=1e-8)

    def test_has_the_log_determinant_of_autograd(self, made: tuple[int, Transform]) -> None:
        size, transform = made
        x = rows(size, 3)
        jacobians = torch.stack([jacobian(transform, row) for row in x])
        expected = torch.linalg.slogdet(jacobians).logabsdet
        torch.testing.assert_close(transform(x)[1], expected, atol=1e-8, rtol=1e-8)

    def test_treats_every_row_by_itself(self, made: tuple[int, Transform]) -> None:
        size, transform = made
        x = rows(size)
        z, log_det = transform(x)
        one, own = transform(x[2:3])
        torch.testing.assert_close(one[0], z[2])
        torch.testing.assert_close(own[0], log_det[2])


@pytest.mark.parametrize("kind", ["gin", "gin_mean", "additive"])
@pytest.mark.parametrize("make", [lambda kind: flat(10, kind), of_images])
def test_gin_and_nice_keep_every_volume(kind: CouplingKind, make: Callable[[CouplingKind], Transform]) -> None:
    torch.manual_seed(0)
    transform = shaken(make(kind), scale=0.1)
    x = rows(64 if isinstance(transform, ImageCouplings) else 10)
    assert torch.equal(transform(x)[1], torch.zeros(len(x), dtype=x.dtype))
    assert torch.linalg.slogdet(jacobian(transform, x[0])).logabsdet.abs() < 1e-10


def test_scales_from_which_the_mean_is_taken_stay_bounded_and_one_that_balances_them_does_not() -> None:
    largest = {}
    for kind in ("gin", "gin_mean"):
        given = torch.cat([torch.full((1, 100), 50.0), torch.zeros(1, 100)], 1)  # 99 of 100 log-scales at the clamp
        given[0, 99] = -50.0
        coupling = Coupling(200, kind, nn.Linear, clamp=2.0)
        scale, _ = coupling._scale_and_shift(given)
        assert scale.sum().abs() < 1e-3
        largest[kind] = scale.abs().max().item()
    assert largest["gin"] == pytest.approx(198)
    assert largest["gin_mean"] < 4


def test_glow_does_not_keep_volumes() -> None:
    torch.manual_seed(0)
    log_det = shaken(flat(10, "affine"))(rows(10))[1]
    assert log_det.abs().min() > 1e-3
    assert log_det.std() > 1e-3


@given(seed=st.integers(0, 1000), size=st.integers(2, 9), kind=st.sampled_from(KINDS), scale=st.floats(0.1, 30))
@settings(max_examples=examples(20))
def test_couplings_of_any_size_are_undone(seed: int, size: int, kind: CouplingKind, scale: float) -> None:
    torch.manual_seed(seed)
    transform = shaken(flat(size, kind), seed)
    x = scale * torch.randn(4, size, dtype=torch.float64)
    z, log_det = transform(x)
    torch.testing.assert_close(transform.inverse(z), x, atol=1e-6 * scale, rtol=1e-6)
    assert log_det.shape == (4,)


class TestStart:
    @pytest.mark.parametrize("kind", KINDS)
    def test_couplings_start_as_permutations(self, kind: CouplingKind) -> None:
        x = rows(6).float()
        z, log_det = flat(6, kind)(x)
        assert torch.equal(z.sort(1).values, x.sort(1).values)
        assert not log_det.any()

    def test_seeds_have_permutations_of_their_own(self) -> None:
        orders = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            orders.append(Permutation(50).get_buffer("order"))
        assert not torch.equal(*orders)
        assert torch.equal(orders[0].sort().values, torch.arange(50))


class Linear(nn.Module):
    """A network for couplings; balanced: of scales whose sum is zero, so that what FrEIA subtracts is zero."""

    def __init__(self, inputs: int, outputs: int, balanced: bool) -> None:
        super().__init__()
        self.map, self.balanced = nn.Linear(inputs, outputs).double(), balanced
        with torch.no_grad():
            self.map.weight.mul_(0.1)
            self.map.bias.mul_(0.1)  # the last scale, minus the sum of the others, must be within the clamp

    def forward(self, x: Tensor) -> Tensor:
        raw, shift = self.map(x).chunk(2, 1)
        if self.balanced:
            last = torch.atanh(-torch.tanh(raw[:, :-1]).sum(1, keepdim=True))
            raw = torch.cat([raw[:, :-1], last], 1)
        return torch.cat([raw, shift], 1)


class TestAgainstFrEIA:
    """Its block changes the first half first, ours the second: the halves of its input and output are swapped."""

    @staticmethod
    def theirs(kind: type[nn.Module], ours: Coupling) -> nn.Module:
        networks = iter([ours.of_second, ours.of_first])

        def given(inputs: int, outputs: int) -> nn.Module:
            return next(networks)

        first, second = ours.sizes
        assert first == second
        options = {"subnet_constructor": given, "clamp": 2.0, "clamp_activation": "TANH"}
        return kind([(first + second,)], **options)

    @pytest.mark.parametrize(
        ("kind", "block"),
        [
            ("gin", freia.GINCouplingBlock),  # the last scale is what would balance the others: the same if all do
            ("gin_mean", freia.GINCouplingBlock),
            ("affine", freia.GLOWCouplingBlock),
        ],
    )
    def test_a_block_is_theirs(self, kind: CouplingKind, block: type[nn.Module]) -> None:
        torch.manual_seed(0)
        ours = Coupling(8, kind, lambda i, o: Linear(i, o, kind == "gin"), clamp=2.0)
        theirs = self.theirs(block, ours)
        x = 0.5 * rows(8)
        z, log_det = ours(x)
        (swapped,), theirs_log_det = theirs([torch.cat([x[:, 4:], x[:, :4]], 1)])
        torch.testing.assert_close(torch.cat([swapped[:, 4:], swapped[:, :4]], 1), z)
        torch.testing.assert_close(
            torch.as_tensor(theirs_log_det, dtype=z.dtype).expand(len(z)), log_det, atol=1e-12, rtol=0
        )


def test_a_checkerboard_puts_neighbours_into_channels() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    channels, log_det = Checkerboard()(image)
    assert channels.shape == (1, 4, 2, 2)
    assert channels[0, :, 0, 0].tolist() == [0, 1, 4, 5]
    assert channels[0, 3].tolist() == [[5, 7], [13, 15]]
    assert log_det.tolist() == [0]
    assert torch.equal(Checkerboard().inverse(channels), image)


def test_a_chain_adds_log_determinants_up() -> None:
    torch.manual_seed(0)
    one, other = shaken(flat(4, "affine"), 1), shaken(flat(4, "affine"), 2)
    x = rows(4)
    middle, first = one(x)
    _, second = other(middle)
    torch.testing.assert_close(Chain([one, other])(x)[1], first + second)


def test_a_turned_flow_is_the_flow_of_x_turned() -> None:
    options = {"kind": "spline", "layers": 2, "hidden": [8], "bins": 4, "passes": None, "linear": True}
    turned, other = (Autoregressive(spec(3), turned=True, **options) for _ in range(2))  # type: ignore[arg-type]
    plain = Autoregressive(spec(3), turned=False, **options)  # type: ignore[arg-type]
    plain.load_state_dict({name: value for name, value in turned.state_dict().items() if name != "turn"})
    turn, x = turned.get_buffer("turn"), rows(3).float()
    torch.testing.assert_close(turn @ turn.mT, torch.eye(3), atol=1e-6, rtol=0)
    assert not torch.allclose(turn, other.get_buffer("turn"), atol=0.01)  # each start its own
    for one, same in zip(turned(x), plain(x @ turn), strict=True):
        torch.testing.assert_close(one, same)
    torch.testing.assert_close(turned.inverse(turned(x)[0]), x, atol=1e-4, rtol=0)


class TestRefuses:
    @pytest.mark.parametrize(("kind", "clamp"), [("additive", 2.0), ("gin", None), ("affine", None)])
    def test_a_clamp_without_scales_and_scales_without_one(self, kind: CouplingKind, clamp: float | None) -> None:
        with pytest.raises(ValueError, match=f"null for additive ones, got kind={kind}, clamp={clamp}"):
            Couplings(spec(4), blocks=1, kind=kind, hidden=4, layers=2, clamp=clamp)

    @pytest.mark.parametrize(("kind", "bins"), [("affine", 8), ("spline", None)])
    def test_bins_without_splines_and_splines_without_any(self, kind: str, bins: int | None) -> None:
        options = {"layers": 1, "hidden": [4], "linear": False, "turned": False, "passes": None}
        with pytest.raises(ValueError, match=f"null for affine ones, got kind={kind}, bins={bins}"):
            Autoregressive(spec(4), kind=kind, bins=bins, **options)  # type: ignore[arg-type]

    def test_one_dimension(self) -> None:
        with pytest.raises(ValueError, match="expected x of at least two dimensions for a coupling, got 1"):
            flat(1, "gin")

    def test_images_for_what_are_none(self) -> None:
        options = {"conv_blocks": [1], "conv_hidden": [4], "blocks": 1, "hidden": 8, "layers": 3}
        with pytest.raises(ValueError, match="expected images for convolutional couplings"):
            ImageCouplings(spec(10), kind="gin", clamp=2.0, **options)  # type: ignore[arg-type]

    def test_lists_of_two_lengths(self) -> None:
        options = {"conv_blocks": [1], "conv_hidden": [4, 4], "blocks": 1, "hidden": 8, "layers": 3}
        with pytest.raises(ValueError, match="of one length, got 1 and 2"):
            ImageCouplings(spec(64, IMAGE), kind="gin", clamp=2.0, **options)  # type: ignore[arg-type]

    def test_images_of_an_odd_height(self) -> None:
        options = {"conv_blocks": [1, 1], "conv_hidden": [4, 4], "blocks": 1, "hidden": 8, "layers": 3}
        with pytest.raises(ValueError, match="that can be halved 2 times, got 6 x 8"):
            ImageCouplings(spec(48, Image(1, 6, 8)), kind="gin", clamp=2.0, **options)  # type: ignore[arg-type]
