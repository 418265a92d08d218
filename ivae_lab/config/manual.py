"""Text of `train --help`, and one-line messages about wrong overrides."""

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
    """Return one line that says what is wrong with the overrides."""
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
    """List all groups, and the keys of the configuration that the choices among the arguments give."""
    known = groups()
    choices = [argument for argument in arguments if argument.partition("=")[0] in known]
    with suppress(HydraException):
        return [*known, *keys(without_hydra(composed(choices)))]
    return [*known]


def manual(arguments: Sequence[str]) -> str | None:
    """Return the text that `--help` prints; None where no help is asked for, or Hydra must answer.

    Hydra must answer if arguments have its own flags or keys, or are wrong. Its help, which copies all that it knows
    for each group, takes three times as long.
    """
    overrides = [argument for argument in arguments if argument not in ("-h", "--help")]
    asked = len(overrides) < len(arguments)
    if not asked or any(text.startswith("-") or "=" not in text or "hydra" in text for text in overrides):
        return None
    with suppress(HydraException):
        config = composed(overrides)
        return Template(config.hydra.help.template).substitute(
            APP_CONFIG_GROUPS=_groups(), CONFIG=OmegaConf.to_yaml(without_hydra(config))
        )
    return None


def _groups() -> str:
    """Format the choices of each group of the configuration, a line per group."""
    shown = ((name, choices) for name, choices in groups().items() if name.partition("/")[0] != "hydra")
    return "".join(f"{name}: {', '.join(choices)}\n" for name, choices in shown)
