"""Draw a data set and build a model of a configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ivae_lab.config.build import ConfigError, build
from ivae_lab.core.data import DataSpec, Splits
from ivae_lab.models.base import Model


def draw_data(config: DictConfig) -> Splits:
    """Draw the data set that a composed configuration describes, with its `data.seed`."""
    resolved: dict[str, Any] = OmegaConf.to_container(config.data, resolve=True)  # type: ignore[assignment]
    seed = resolved.pop("seed")
    with named("data"):
        return build(OmegaConf.create(resolved), "data")(seed)  # type: ignore[no-any-return]


def build_model(config: DictConfig, spec: DataSpec) -> Model:
    """Build one model of a composed configuration, with its prior, for the data that `spec` describes."""
    prior = build(config.prior, "prior")
    return build(config.model, "model", spec=spec, prior=prior)  # type: ignore[no-any-return]


@contextmanager
def named(path: str) -> Iterator[None]:
    """Prefix the error of an impossible value with its part of the configuration."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
