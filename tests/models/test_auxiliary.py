"""u made of x: the orthant of a random projection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from ivae_lab.core.data import Batch, DataSpec, Image, Splits
from ivae_lab.engine.stack import Stack
from ivae_lab.models.auxiliary import Rademacher

Compose = Callable[..., DictConfig]
CPU = torch.device("cpu")
SPEC = DataSpec(40, 0, None, 100, binary=False)
OVERRIDES = ("data=digits", "model=vae", "model/likelihood=images", "model.latent_dim=2")
HASHED = (*OVERRIDES, "prior=conditional_table", "model/auxiliary=rademacher", "model.auxiliary.projections=3")


def made(seed: int, spec: DataSpec = SPEC, projections: int = 7) -> Rademacher:
    torch.manual_seed(seed)
    return Rademacher(spec, projections=projections)


def signs(auxiliary: Rademacher) -> Tensor:
    return auxiliary.get_buffer("signs")


def formula(signs: Tensor, x: Tensor) -> list[int]:
    """Equations C.1 to C.3, row by row; of a tie, which the paper's sign leaves open, the bit is 0."""
    matrix, labels = signs.numpy().astype(np.float64), []
    for row in x.numpy().astype(np.float64):
        labels.append(sum(2**i for i, projection in enumerate(matrix @ row) if projection > 0))
    return labels


def test_is_the_formula() -> None:
    auxiliary, x = made(0), torch.randn(200, 40)
    u = auxiliary(x)
    assert u.tolist() == formula(signs(auxiliary), x)
    assert u.dtype == torch.int64
    assert auxiliary.u_dim == 128
    assert len(set(u.tolist())) > 60  # it uses its labels
    assert 0 <= u.min() <= u.max() < 128


def test_signs_are_fair_and_fixed() -> None:
    auxiliary = made(0, DataSpec(20_000, 0, None, 1, binary=False))
    assert set(signs(auxiliary).flatten().tolist()) == {-1, 1}
    assert signs(auxiliary).mean().abs() < 4 / signs(auxiliary).numel() ** 0.5
    assert not list(auxiliary.parameters())


def test_opposite_points_lie_in_opposite_orthants() -> None:
    auxiliary, x = made(0), torch.randn(100, 40)
    assert torch.equal(auxiliary(x) + auxiliary(-x), torch.full((100,), 127))
    assert torch.equal(auxiliary(3 * x), auxiliary(x))


def test_ties_of_bytes_hang_on_no_order_of_the_terms() -> None:
    """Images whose projection is 0 exactly, whatever the pixels are added up in."""
    auxiliary = made(0, projections=1)
    plus, minus = (torch.nonzero(signs(auxiliary)[0] == sign)[:, 0] for sign in (1, -1))
    pairs = min(len(plus), len(minus))
    x = torch.zeros(500, 40)
    values = torch.randint(256, (500, pairs)).float() / 255
    x[:, plus[:pairs]], x[:, minus[:pairs]] = values, values.flip(1)
    assert not auxiliary(x).any()


class TestInAVAE:
    @pytest.fixture
    def stack_of(
        self, tiny: Compose, splits_of: Callable[[DictConfig], Splits], model_of: Callable[..., Any]
    ) -> Callable[..., tuple[Stack, Splits]]:
        config = tiny(*HASHED)
        splits = splits_of(config)
        return lambda *seeds: (Stack(lambda: model_of(config, splits.spec), list(seeds), CPU), splits)

    def test_each_model_seed_has_its_own(self, stack_of: Callable[..., tuple[Stack, Splits]]) -> None:
        stack, splits = stack_of(0, 1)
        zero, one = stack.map("u", splits.train)
        assert (zero != one).any()
        assert (stack.buffers["auxiliary.signs"][0] != stack.buffers["auxiliary.signs"][1]).any()

    def test_stacked_it_is_the_same_as_alone(self, stack_of: Callable[..., tuple[Stack, Splits]]) -> None:
        together, splits = stack_of(4, 0, 7)
        alone, _ = stack_of(0)
        assert torch.equal(together.map("u", splits.train)[1], alone.map("u", splits.train)[0])
        x = splits.train.x / 255
        assert alone.map("u", splits.train)[0].tolist() == formula(alone.buffers["auxiliary.signs"][0], x)

    def test_it_is_the_same_at_every_step(self, tiny: Compose, train: Callable[..., Any]) -> None:
        """Though images are binarised afresh: training changes neither the signs nor u."""
        module = train(tiny(*HASHED), [0, 1])
        splits: Splits = module.members[0].splits
        assert splits.spec.image == Image(1, 8, 8, redrawn=True)
        again = train(tiny(*HASHED, "trainer.lr=0.1"), [0, 1])
        assert torch.equal(module.stack.map("u", splits.train), again.stack.map("u", splits.train))
        assert not module.members[0].diverged

    def test_it_takes_the_place_of_the_datas_u(
        self, tiny: Compose, splits_of: Callable[[DictConfig], Splits], model_of: Callable[..., Any]
    ) -> None:
        config = tiny(*HASHED)
        splits = splits_of(config)
        model = model_of(config, splits.spec)
        assert (splits.spec.u_dim, model.u_dim) == (10, 8)
        assert model.prior(torch.arange(8)).std.shape == (8, 2)
        part = splits.train
        for other in (Batch(part.x, None, None, part.index), Batch(part.x, 0 * part.index, None, part.index)):
            assert torch.equal(model.u(other), model.u(part))
        without = splits_of(tiny(*HASHED, "data.u=none"))
        assert model_of(config, without.spec).u_dim == 8
