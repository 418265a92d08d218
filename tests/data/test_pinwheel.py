"""The pinwheel: its shape, its label and what is left unknown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from ivae_lab.config.build import build
from ivae_lab.data.pinwheel import Pinwheel

Compose = Callable[..., DictConfig]


@pytest.fixture
def make(composed: Compose) -> Callable[..., Pinwheel]:
    def made(**changes: Any) -> Pinwheel:
        whole = composed("data=pinwheel").data
        data = OmegaConf.masked_copy(whole, [key for key in whole if key != "seed"])  # which is the run's
        data.update(changes)
        return build(data, "data")  # type: ignore[no-any-return]

    return made


def test_untwisted_it_is_a_blob_in_each_direction(make: Callable[..., Pinwheel]) -> None:
    rows = make(points=40000, split=[1, 0, 0], arms=5, rate=0)(0).train
    assert rows.u is not None
    for arm in range(5):
        own = rows.x[rows.u == arm].double().numpy() / 10
        angle = -2 * np.pi * arm / 5
        along, across = own @ [np.cos(angle), np.sin(angle)], own @ [-np.sin(angle), np.cos(angle)]
        assert along.mean() == pytest.approx(1, abs=0.02)
        assert across.mean() == pytest.approx(0, abs=0.005)
        assert along.std() == pytest.approx(0.3, rel=0.05)
        assert across.std() == pytest.approx(0.05, rel=0.05)


def test_an_arm_bends_by_the_exponential_of_its_radius(make: Callable[..., Pinwheel]) -> None:
    rows = make(tangential_std=0, radial_std=0.1)(0).train
    assert rows.u is not None
    x = rows.x.double().numpy() / 10
    radius = np.hypot(*x.T)
    expected = -2 * np.pi * rows.u.numpy() / 3 - 0.25 * np.exp(radius)
    turns = (np.arctan2(x[:, 1], x[:, 0]) - expected) / (2 * np.pi)
    assert np.allclose(turns, np.round(turns), atol=1e-5)


def test_sources_are_unknown_and_rows_keep_their_ids(make: Callable[..., Pinwheel]) -> None:
    splits = make(points=1000)(3)
    assert (splits.spec.x_dim, splits.spec.u_dim, splits.spec.source_dim) == (2, 3, None)
    assert splits.train.z is None
    assert [len(splits.train), len(splits.valid), len(splits.test)] == [800, 0, 200]
    ids = torch.cat([splits.train.index, splits.test.index])
    assert torch.equal(ids.sort().values, torch.arange(1000))
    assert torch.equal(make(points=1000)(3).train.x, splits.train.x)
    assert not torch.equal(make(points=1000)(4).train.x, splits.train.x)
