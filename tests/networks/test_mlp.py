"""Networks: what is computed by row look-up equals the plain network on (x, one-hot u)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.functional import one_hot, softplus

from ivae_lab.core.data import DataSpec
from ivae_lab.networks.base import Activation, activate, look_up
from ivae_lab.networks.mlp import MLP, GaussianEncoder, MLPDecoder
from tests.profiles import examples

ACTIVATIONS: tuple[Activation, ...] = ("xtanh", "leaky_relu", "relu")
SMALL: dict[str, Any] = {"hidden": 7, "layers": 3, "activation": "xtanh", "slope": 0.1, "init": "torch"}


def mlp(in_dim: int, out_dim: int, **changes: Any) -> MLP:
    torch.manual_seed(0)
    return MLP(in_dim, out_dim, **(SMALL | changes))


def encoder(**changes: Any) -> GaussianEncoder:
    torch.manual_seed(0)
    settings = SMALL | {"sees_u": False, "heads": "separate", "std": "exp"} | changes
    return GaussianEncoder(DataSpec(4, 5, None, 100, False), 3, **settings)


def joint_weight(net: MLP) -> Tensor:
    """The first matrix as it would meet (x, one-hot u): (hidden, in_dim + M)."""
    first: Any = net.linears[0]
    parts = [] if first.weight is None else [first.weight]
    return torch.cat([*parts, *([] if net.u_rows is None else [net.u_rows.T])], 1)


def reference(net: MLP, joint: Tensor, activation: Activation, slope: float) -> Tensor:
    """A plain nn.Sequential that holds the same numbers."""
    weights = [joint_weight(net), *[linear.weight for linear in net.linears][1:]]
    h = joint
    for number, (weight, linear) in enumerate(zip(weights, net.linears, strict=True)):
        if number:
            shapes: dict[str, nn.Module] = {"leaky_relu": nn.LeakyReLU(slope), "relu": nn.ReLU()}
            h = torch.tanh(h) + slope * h if activation == "xtanh" else shapes[activation](h)
        h = h @ weight.T + linear.bias  # type: ignore[operator]
    return h


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layers", [1, 2, 4])
def test_an_mlp_that_sees_u_is_the_network_on_x_and_one_hot_u(activation: Activation, layers: int) -> None:
    net = mlp(4, 3, u_dim=5, layers=layers, activation=activation, slope=0.3)
    x, u = torch.randn(20, 4), torch.arange(20) % 5
    joint = torch.cat([x, one_hot(u, 5).float()], 1)
    torch.testing.assert_close(net(x, u), reference(net, joint, activation, 0.3))


def test_an_mlp_without_u_is_the_network_on_x() -> None:
    net, x = mlp(4, 3), torch.randn(20, 4)
    torch.testing.assert_close(net(x), reference(net, x, "xtanh", 0.1))
    assert net.u_rows is None


@pytest.mark.parametrize("layers", [1, 3])
def test_a_table_is_the_network_on_each_one_hot_u(layers: int) -> None:
    net = mlp(0, 3, u_dim=5, layers=layers)
    torch.testing.assert_close(net.table(), reference(net, torch.eye(5), "xtanh", 0.1))


@given(
    rows=st.one_of(st.integers(1, 12), st.integers(126, 131)),  # on both sides of what is multiplied
    width=st.integers(1, 6),
    u=st.lists(st.integers(0, 10**6), min_size=1, max_size=40),
    seed=st.integers(0, 100),
)
@settings(max_examples=examples(30))
def test_a_look_up_is_exactly_the_row_and_its_gradient_adds_up(rows: int, width: int, u: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor(u) % rows
    table = torch.randn(rows, width, generator=generator).requires_grad_()
    found, upstream = look_up(table, labels), torch.randn(len(u), width, generator=generator)
    assert torch.equal(found, table[labels])
    (gradient,) = torch.autograd.grad(found, table, upstream)
    torch.testing.assert_close(gradient, torch.zeros(rows, width).index_add(0, labels, upstream), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [5, 128, 129])
def test_a_look_up_in_many_tables_is_one_in_each(rows: int) -> None:
    tables, labels = torch.randn(3, rows, 2), torch.randint(rows, (3, 20))
    found = torch.func.vmap(look_up)(tables, labels)
    for own, table, u in zip(found, tables, labels, strict=True):
        assert torch.equal(own, table[u])


def test_u_matters_and_only_its_own_row() -> None:
    net, x = mlp(4, 3, u_dim=5), torch.randn(5, 4)
    before = net(x, torch.arange(5))
    with torch.no_grad():
        net.u_rows[2] += 1  # type: ignore[index]
    changed = (net(x, torch.arange(5)) != before).any(1)
    assert changed.tolist() == [False, False, True, False, False]


def test_an_mlp_that_sees_u_refuses_to_go_without() -> None:
    with pytest.raises(ValueError, match="expected u"):
        mlp(4, 3, u_dim=5)(torch.randn(5, 4))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@given(value=st.floats(-30, 30), slope=st.floats(0.01, 0.9))
def test_activations_are_their_formulas(activation: Activation, value: float, slope: float) -> None:
    expected = {
        "xtanh": math.tanh(value) + slope * value,
        "leaky_relu": max(value, slope * value),
        "relu": max(value, 0.0),
    }
    got = activate(torch.tensor(value, dtype=torch.float64), activation, slope).item()
    assert got == pytest.approx(expected[activation])


@pytest.mark.parametrize(
    ("init", "bound"), [("xavier_uniform", math.sqrt(6 / (4 + 40 + 200))), ("torch", 1 / math.sqrt(4 + 40))]
)
def test_initial_weights_are_bounded_by_the_joint_fan_in(init: str, bound: float) -> None:
    net = mlp(4, 3, u_dim=40, hidden=200, init=init)
    first: Any = net.linears[0]
    for weight in (first.weight, net.u_rows):
        assert weight is not None
        assert 0.98 * bound < weight.abs().max().item() <= bound * (1 + 1e-6)


def test_xavier_normal_has_the_spread_of_the_joint_fan_in() -> None:
    net = mlp(40, 3, u_dim=60, hidden=200, init="xavier_normal")
    expected = math.sqrt(2 / (40 + 60 + 200))
    assert joint_weight(net).std().item() == pytest.approx(expected, rel=0.03)


def test_splitting_off_u_keeps_the_drawn_weights() -> None:
    net = mlp(4, 3, u_dim=5)
    torch.manual_seed(0)
    torch.testing.assert_close(joint_weight(net), nn.Linear(9, 7).weight, rtol=0, atol=0)


@pytest.mark.parametrize("heads", ["separate", "shared"])
def test_the_encoder_gives_mean_and_log_variance(heads: str) -> None:
    net, x = encoder(heads=heads), torch.randn(6, 4)
    q = net(x, None)
    outputs = torch.cat([part(x) for part in net.nets], 1)
    torch.testing.assert_close(q.mean, outputs[:, :3])
    torch.testing.assert_close(q.log_var, outputs[:, 3:])
    assert len(net.nets) == (2 if heads == "separate" else 1)


def test_separate_heads_share_nothing() -> None:
    net, x = encoder(heads="separate"), torch.randn(6, 4)
    mean = net(x, None).mean
    gradients = torch.autograd.grad(mean.square().sum(), list(net.parameters()))
    of_mean = len(list(net.nets[0].parameters()))
    assert all(gradient.any() for gradient in gradients[:of_mean])
    assert not any(gradient.any() for gradient in gradients[of_mean:])


def test_softplus_gives_the_variance() -> None:
    x = torch.randn(6, 4)
    exp, soft = encoder(std="exp")(x, None), encoder(std="softplus")(x, None)
    torch.testing.assert_close(soft.log_var.exp(), softplus(exp.log_var))
    torch.testing.assert_close(soft.mean, exp.mean)


@pytest.mark.parametrize("sees_u", [False, True])
def test_the_encoder_sees_u_where_asked_to(sees_u: bool) -> None:
    net, x = encoder(sees_u=sees_u), torch.randn(6, 4)
    one, other = (net(x, torch.full((6,), label)).mean for label in (0, 1))
    assert torch.equal(one, other) is not sees_u


def test_an_encoder_that_sees_u_needs_data_with_u() -> None:
    with pytest.raises(ValueError, match="expected data with an auxiliary variable u for an encoder"):
        GaussianEncoder(DataSpec(4, 0, None, 100, False), 3, **SMALL, sees_u=True, heads="separate", std="exp")


def test_the_decoder_is_an_mlp_of_z() -> None:
    net, z = MLPDecoder(DataSpec(4, 0, None, 100, False), 3, **SMALL), torch.randn(6, 3)
    torch.testing.assert_close(net(z), reference(net.net, z, "xtanh", 0.1))


def test_the_released_ivae_has_as_many_parameters_as_in_the_released_code(
    composed: Callable[..., DictConfig], model_of: Callable[..., Any]
) -> None:
    config = composed("model=ivae_released", "data=tcl_khemakhem_released")
    data = config.data
    rows = data.segments * data.samples_per_segment
    model = model_of(config, DataSpec(data.x_dim, data.segments, data.source_dim, rows, False))
    assert sum(parameter.numel() for parameter in model.parameters()) == 56_320
