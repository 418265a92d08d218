"""Checks a configuration against the constructors it names, then builds the objects.

Every mapping with a `_target_` is held against the signature of that target: a key that it does not take,
a value of the wrong type or out of range, and a missing key are one-line errors that name the key by its
path on the command line. Types are the annotations of the constructor, checked by pydantic in strict mode.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any, get_type_hints

from hydra._internal.utils import _locate  # `get_object` logs a second line where there is nothing
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, TypeAdapter, ValidationError

from ivae_lab.config.targets import TARGET, known, place_of, with_places
from ivae_lab.terminal.messages import did_you_mean, one_line, unknown_key


class ConfigError(ValueError):
    """A configuration that cannot be built: one line that says what was expected and what came."""


def build(config: DictConfig, path: str, **extra: Any) -> Any:
    """Build what `config` describes; `extra` are arguments that do not come from the configuration.

    Raises
    ------
    ConfigError
        With the path of the offending key, what was expected there and what came.
    """
    plain = OmegaConf.to_container(config, resolve=True)
    check(plain, path, given=frozenset(extra))
    placed = with_places(plain)
    try:
        # Hydra would make a configuration of a dataclass: without the methods, and no longer of its class.
        return instantiate(placed, _partial_=True)(**extra) if extra else instantiate(placed)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError):
            raise ConfigError(f"{path}: {cause}") from cause
        raise
    except ValueError as error:  # of the call with `extra`
        raise ConfigError(f"{path}: {error}") from error


def check(node: Any, path: str, given: frozenset[str] = frozenset()) -> None:
    """Hold a plain configuration tree against the constructors that its `_target_` keys name."""
    if isinstance(node, Mapping) and TARGET in node:
        _check_target(node, path, given)
    elif isinstance(node, Mapping):
        for key, child in node.items():
            check(child, f"{path}.{key}")


def _check_target(node: Mapping[str, Any], path: str, given: frozenset[str]) -> None:
    target = _found(node[TARGET], f"{path}.{TARGET}")
    own = _configurable(target, factory=bool(node.get("_partial_")), given=given)
    hints = get_type_hints(target if inspect.isfunction(target) else target.__init__, include_extras=True)
    for key, value in node.items():
        if key.startswith("_"):
            continue
        if key not in own:
            raise ConfigError(f"{path}.{key}: {unknown_key(key, [*own])}")
        if isinstance(value, Mapping) and TARGET in value:
            _check_target(value, f"{path}.{key}", frozenset())
        else:
            check_value(value, hints.get(key, Any), f"{path}.{key}")
    missing = sorted({name for name, p in own.items() if p.default is p.empty} - set(node))
    if missing:
        raise ConfigError(f"{path}: expected the key {missing[0]!r} for {node[TARGET]}, got none")


def _found(target: Any, path: str) -> Any:
    """Import the class or function that a `_target_` names."""
    check_value(target, str, path)
    try:
        found = _locate(place_of(target))
    except (ImportError, ValueError) as error:
        near = did_you_mean(target, [place_of(name) for name in known()])
        reason = one_line(error.__cause__ or error)
        raise ConfigError(f"{path}: expected a class or function, got {target!r}{near}: {reason}") from error
    if not callable(found):
        raise ConfigError(f"{path}: expected a class or function, got {target!r}, a {type(found).__name__}")
    return found


def _configurable(target: Any, factory: bool, given: frozenset[str]) -> dict[str, inspect.Parameter]:
    """Find the arguments that the configuration gives: of a factory (`_partial_`) the keyword-only ones.

    The others it is told when it is called.
    """
    kinds = {"KEYWORD_ONLY"} if factory else {"POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY"}
    parameters = inspect.signature(target).parameters
    return {name: p for name, p in parameters.items() if p.kind.name in kinds and name not in given}


def check_value(value: Any, annotation: Any, path: str) -> None:
    """Raise ConfigError unless `value` fits the annotation (no conversion: '5' is not a number)."""
    adapter: TypeAdapter[Any] = _adapter(annotation)
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError as error:
        errors = error.errors()
        wrong = errors[0]["input"]
        where = "".join(f"[{part}]" for part in errors[0]["loc"] if isinstance(part, int))
        # One error for each branch of a union: all that would have been right is named.
        choices = [each["msg"].replace("Input should be ", "") for each in errors if each["input"] is wrong]
        if not where and _accepts_null(adapter):
            choices.append("null")
        expected = " or ".join(dict.fromkeys(choices))
        raise ConfigError(f"{path}{where}: expected {expected}, got {wrong!r} ({type(wrong).__name__})") from None


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    """Of a class of ours, which comes from a `_target_` only, nothing but an instance is right."""
    return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))


def _accepts_null(adapter: TypeAdapter[Any]) -> bool:
    try:
        adapter.validate_python(None, strict=True)
    except ValidationError:
        return False
    return True
