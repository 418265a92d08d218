"""What `train --help` prints, and what is wrong with overrides, on one line."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from string import Template

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from ivae_lab.config.overrides import composed, groups, keys, without_hydra
from ivae_lab.terminal.messages import did_you_mean, one_line


def wrong(error: HydraException, arguments: Sequence[str]) -> str:
    """Say on one line what is wrong with the overrides."""
    cause = error.__cause__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        expected = f"expected one of {', '.join(error.options)}"
        return f"{group}: {expected}, got {choice}{did_you_mean(choice, error.options)}"
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and (key := cause.full_key):
        near = did_you_mean(key, _known(arguments))
        return f"{key}: expected a key of the configuration, got an unknown one{near}; +{key}= adds it"
    if isinstance(error, OverrideParseException):
        reasons = [line for line in error.message.splitlines() if not line.startswith(("Error parsing", "See "))]
        return f"expected an override such as model=ivae, got {error.override}: {' '.join(reasons)}"
    return one_line(error)


def _known(arguments: Sequence[str]) -> list[str]:
    """Groups, and the keys that there are with the choices among the arguments."""
    known = groups()
    with suppress(HydraException):
        return [*known, *keys(without_hydra(composed([each for each in arguments if each.partition("=")[0] in known])))]
    return [*known]


def manual(arguments: Sequence[str]) -> str | None:
    """What `--help` prints: Hydra's own, which copies all that it knows for each group, takes three times as long.

    None where no help is asked for, or Hydra must answer: what has flags or keys of its own, or is wrong.
    """
    overrides = [each for each in arguments if each not in ("-h", "--help")]
    asked = len(overrides) < len(arguments)
    if not asked or any(each.startswith("-") or "=" not in each or "hydra" in each for each in overrides):
        return None
    with suppress(HydraException):
        config = composed(overrides)
        return Template(config.hydra.help.template).substitute(
            APP_CONFIG_GROUPS=_groups(), CONFIG=OmegaConf.to_yaml(without_hydra(config))
        )
    return None


def _groups() -> str:
    """A line for each group of the configuration: its choices."""
    named = ((name, choices) for name, choices in groups().items() if name.partition("/")[0] != "hydra")
    return "".join(f"{name}: {', '.join(choices)}\n" for name, choices in named)
