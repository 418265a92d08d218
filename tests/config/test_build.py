"""A wrong configuration is one line: the path of the key, what was expected there, what came."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from ivae_lab.config.build import ConfigError, build, check, check_value
from ivae_lab.config.numbers import Count, Decay, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from ivae_lab.core.data import DataSpec

SPEC = DataSpec(x_dim=3, u_dim=4, source_dim=2, train_rows=100, binary=False)
GIVEN = frozenset({"spec", "prior"})  # what a model is given besides its configuration
Compose = Callable[..., DictConfig]


def error_of(config: DictConfig, group: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check(OmegaConf.to_container(config[group], resolve=True), group, GIVEN if group == "model" else frozenset())
    message = str(caught.value)
    assert "\n" not in message
    return message


def changed(config: DictConfig, override: str) -> DictConfig:
    """As Hydra changes a value, in a configuration that is composed once."""
    parsed = OverridesParser.create().parse_override(override)
    OmegaConf.update(config, parsed.key_or_group, parsed.value())
    return config


@pytest.mark.parametrize(
    ("group", "key", "near", "known"),
    [
        ("model", "latent_dims", "latent_dim", "pretrain_steps"),
        ("model.encoder", "hiden", "hidden", "sees_u"),  # a nested factory (`_partial_`)
        ("model.objective", "warm_up", "warmup", "kl"),  # a nested object
        ("prior", "component", "components", "init"),  # a factory
        ("trainer", "learning_rate", None, "lr"),
        ("compute", "thread", "threads", "device"),
    ],
)
@pytest.mark.slow
def test_an_unknown_key_is_named_with_the_known_ones_and_a_near_miss(
    composed: Compose, group: str, key: str, near: str | None, known: str
) -> None:
    message = error_of(composed("model=vade", f"+{group}.{key}=1"), group.split(".")[0])
    assert message.startswith(f"{group}.{key}: expected one of ")
    listed = message.split("expected one of ")[1].split(";")[0].split(", ")
    assert known in listed
    assert listed == sorted(listed)
    assert "got an unknown key" in message
    if near is not None:
        assert near in message.split("did you mean ")[1]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.latent_dim=five", "model.latent_dim: expected a valid integer or null, got 'five' (str)"),
        ("model.latent_dim='5'", "model.latent_dim: expected a valid integer or null, got '5' (str)"),
        ("model.latent_dim=true", "model.latent_dim: expected a valid integer or null, got True (bool)"),
        ("model.latent_dim=2.0", "model.latent_dim: expected a valid integer or null, got 2.0 (float)"),
        ("model.latent_dim=[2]", "model.latent_dim: expected a valid integer or null, got [2] (list)"),
        ("model.latent_dim=0", "model.latent_dim: expected greater than 0 or null, got 0 (int)"),
        ("model.pretrain_steps=-1", "model.pretrain_steps: expected greater than or equal to 0, got -1 (int)"),
        ("model.pretrain_steps=null", "model.pretrain_steps: expected a valid integer, got None (NoneType)"),
        ("model.beta=-0.5", "model.beta: expected greater than or equal to 0, got -0.5 (float)"),
        ("model.beta=true", "model.beta: expected a valid number, got True (bool)"),
        ("model.beta=high", "model.beta: expected a valid number, got 'high' (str)"),
        ("model.encoder.hidden=wide", "model.encoder.hidden: expected a valid integer, got 'wide' (str)"),
        ("model.encoder.hidden=0", "model.encoder.hidden: expected greater than 0, got 0 (int)"),
        ("model.encoder.layers=0", "model.encoder.layers: expected greater than 0, got 0 (int)"),
        ("model.decoder.layers=-1", "model.decoder.layers: expected greater than 0, got -1 (int)"),
        ("model.encoder.sees_u=1", "model.encoder.sees_u: expected a valid boolean, got 1 (int)"),
        ("model.likelihood.variance=0.0", "model.likelihood.variance: expected greater than 0, got 0.0 (float)"),
        ("model.objective.warmup=1.5", "model.objective.warmup: expected less than or equal to 1, got 1.5 (float)"),
        ("model.decoder=3", "model.decoder: expected callable, got 3 (int)"),
        ("prior.components=0", "prior.components: expected greater than 0, got 0 (int)"),
        ("prior.components=1.5", "prior.components: expected a valid integer, got 1.5 (float)"),
        ("trainer.lr=0", "trainer.lr: expected greater than 0, got 0 (int)"),
        ("trainer.lr=nan", "trainer.lr: expected a finite number, got nan (float)"),
        ("trainer.betas=[0.9,1.0]", "trainer.betas[1]: expected less than 1, got 1.0 (float)"),
        ("trainer.batch_size=-64", "trainer.batch_size: expected greater than 0, got -64 (int)"),
        ("compute.threads=0", "compute.threads: expected greater than 0 or null, got 0 (int)"),
    ],
)
def test_a_value_that_does_not_fit_is_named(composed: Compose, override: str, expected: str) -> None:
    assert error_of(changed(composed("model=vade"), override), override.split(".")[0]) == expected


@pytest.mark.parametrize(
    ("override", "choices"),
    [
        ("model.encoder.activation=gelu", ["xtanh", "leaky_relu", "relu"]),
        ("model.encoder.heads=two", ["separate", "shared"]),
        ("model.objective.kl=exact", ["closed", "sampled"]),
        ("prior.init=random", ["xavier_uniform", "xavier_normal", "gmm"]),
        ("trainer.schedule=linear", ["constant", "cosine", "drop", "plateau"]),
        ("compute.device=tpu", ["auto", "cpu", "cuda"]),
    ],
)
def test_the_choices_are_listed(composed: Compose, override: str, choices: list[str]) -> None:
    path, value = override.split("=")
    message = error_of(changed(composed("model=vade"), override), path.split(".")[0])
    assert message.startswith(f"{path}: expected ")
    assert message.endswith(f"got '{value}' (str)")
    assert re.findall(r"'(\w+)'", message)[:-1] == choices


def test_an_integer_is_a_number(composed: Compose) -> None:
    config = composed("model=vade", "model.beta=4", "trainer.lr=1")
    check(OmegaConf.to_container(config.model, resolve=True), "model", GIVEN)
    check(OmegaConf.to_container(config.trainer, resolve=True), "trainer")


def test_four_weights_are_four(composed: Compose) -> None:
    message = error_of(composed("model=ivae_released", "model.objective.weights=[1.0,1.0,1.0]"), "model")
    assert message.startswith("model.objective.weights: expected ")
    assert "4" in message
    message = error_of(composed("model=ivae_released", "model.objective.weights=[1.0,1.0,one,1.0]"), "model")
    assert message == "model.objective.weights[2]: expected a valid number, got 'one' (str)"


@pytest.mark.parametrize("key", ["lr", "batch_size"])
def test_a_missing_key_is_named(composed: Compose, key: str) -> None:
    message = error_of(composed(f"~trainer.{key}"), "trainer")
    assert message == f"trainer: expected the key '{key}' for ivae_lab.engine.Training, got none"


@pytest.mark.parametrize(("path", "key"), [("model.encoder", "sees_u"), ("model.likelihood", "variance")])
def test_a_missing_key_of_a_nested_factory_is_named(composed: Compose, path: str, key: str) -> None:
    config = composed("model=vade", f"~{path}.{key}")
    target = OmegaConf.select(config, path)["_target_"]
    assert error_of(config, "model") == f"{path}: expected the key '{key}' for {target}, got none"


@pytest.mark.parametrize("key", ["spec", "prior"])
def test_what_is_given_besides_the_configuration_is_no_key(composed: Compose, key: str) -> None:
    assert error_of(composed(f"+model.{key}=gmm"), "model").startswith(
        f"model.{key}: expected one of auxiliary, beta, decoder, "
    )


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["prior=gmm", "+prior.latent_dim=3"],
            "prior.latent_dim: expected one of components, covariance, init, variance; got ",
        ),
        (["prior=normal", "+prior.latent_dim=3"], "prior.latent_dim: expected no keys; got "),
    ],
)
@pytest.mark.slow
def test_what_a_factory_is_told_later_is_no_key(composed: Compose, overrides: list[str], expected: str) -> None:
    assert error_of(composed(*overrides), "prior") == f"{expected}an unknown key"


def test_what_is_given_besides_the_configuration_is_not_missing(composed: Compose) -> None:
    config = OmegaConf.to_container(composed("model=vade").model, resolve=True)
    check(config, "model", GIVEN)
    with pytest.raises(ConfigError, match="model: expected the key 'prior'"):
        check(config, "model", GIVEN - {"prior"})


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("model.likelihood.start_variance=0.3",), "model: expected both or neither of start_variance and anneal_"),
        (("prior=conditional", "prior.scale=one"), "model: expected a learned mean or a learned scale"),
        (("model/objective=four_terms", "model.objective.end_at=0.5"), "expected both or neither of end_weights"),
    ],
)
@pytest.mark.slow
def test_what_a_constructor_refuses_carries_the_path(
    composed: Compose, overrides: tuple[str, ...], expected: str
) -> None:
    config = composed("model=vae", *overrides)
    with pytest.raises(ConfigError, match=re.escape(expected)) as caught:
        build(config.model, "model", spec=SPEC, prior=build(config.prior, "prior"))
    assert str(caught.value).startswith("model")
    assert "\n" not in str(caught.value)


def test_a_trainer_takes_steps_or_epochs(composed: Compose) -> None:
    for override in ("trainer.epochs=3", "trainer.steps=null"):
        with pytest.raises(ConfigError, match=r"^trainer: expected exactly one of steps and epochs, got steps="):
            build(composed(override).trainer, "trainer")


def test_mixtures_without_components_are_refused_before_they_are_built(composed: Compose) -> None:
    for components in ("0", "-3"):
        with pytest.raises(ConfigError, match=r"^prior\.components: expected greater than 0, got "):
            build(composed("prior=gmm", f"prior.components={components}").prior, "prior")


def test_a_plain_mapping_is_walked(composed: Compose) -> None:
    config = composed("metric=[mcc,elbo]")
    with open_dict(config):
        config.metric.mcc.colour = "red"
    assert error_of(config, "metric").startswith("metric.mcc.colour: expected one of ")


def test_build_builds_what_is_described(composed: Compose) -> None:
    config = composed("model=vade", "model.encoder.hidden=11", "prior.components=6")
    torch.manual_seed(0)
    model: Any = build(config.model, "model", spec=SPEC, prior=build(config.prior, "prior"))
    assert len(model.prior.logits) == 6
    assert model.encoder.nets[0].linears[0].weight.shape == (11, 3)
    assert model.decoder.net.linears[0].weight.shape == (11, 2)  # follows the encoder's


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (
            "ivae_lab.nets.GausianEncoder",
            "expected a class or function, got 'ivae_lab.nets.GausianEncoder' "
            "(did you mean ivae_lab.networks.GaussianEncoder, ",
        ),
        ("nowhere.Encoding", "expected a class or function, got 'nowhere.Encoding': No module named 'nowhere'"),
        ("ivae_lab.models", "expected a class or function, got 'ivae_lab.models', a module"),
        ("..VAE", "expected a class or function, got '..VAE': Error loading '..VAE': invalid dotstring. "),
        ("", "expected a class or function, got '': Empty path"),
        (5, "expected a valid string, got 5 (int)"),
    ],
)
def test_a_target_that_is_not_there_is_named(composed: Compose, target: str | int, expected: str) -> None:
    config = composed("model=vade")
    config.model.encoder["_target_"] = target
    assert error_of(config, "model").startswith(f"model.encoder._target_: {expected}")


def test_what_is_given_arrives_as_it_is(composed: Compose) -> None:
    """Hydra makes configurations of the dataclasses that it is given, without their methods."""
    config = composed("model=vae").model
    with open_dict(config):
        config.encoder = config.decoder = {"_target_": "tests.config.test_build.refuse", "_partial_": True}
    with pytest.raises(ConfigError, match=r"^model: DataSpec$"):
        build(config, "model", spec=SPEC, prior=lambda n, m: None)


def refuse(spec: DataSpec, latent_dim: int) -> None:
    raise ValueError(type(spec).__name__)


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (PositiveInt, [1, 10**9], [0, -1, 1.0, True, "1", None]),
        (Count, [0, 5], [-1, False, 0.0]),
        (PositiveFloat, [1e-300, 2, 0.5], [0, 0.0, -1.0, float("nan"), "1.0", True]),
        (NonNegativeFloat, [0, 0.0], [-1e-12, float("nan")]),
        (Fraction, [0, 0.5, 1, 1.0], [-0.1, 1.1, float("nan")]),
        (Decay, [0.1, 0.999], [0, 1, 0.0, 1.0]),
        (PositiveInt | None, [1, None], [0, "none"]),
    ],
)
def test_number_types_take_what_they_say(annotation: Any, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        check_value(value, annotation, "key")
    for value in bad:
        with pytest.raises(ConfigError, match=r"^key: expected .*, got "):
            check_value(value, annotation, "key")
