"""Check a configuration against the constructors it names, then build the objects.

Every mapping with a `_target_` is compared with the signature of that target: an unknown key, a value of the wrong type
or out of range, and a missing key are one-line errors that name the key by its path on the command line. Types are the
annotations of the constructor, checked by pydantic in strict mode.
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
    """A configuration cannot be built; the message is one line with the expected and the given value."""


def build(config: DictConfig, path: str, **extra: Any) -> Any:
    """Build the object that `config` describes; `extra` are arguments that do not come from the configuration.

    Raises
    ------
    ConfigError
        With the path of the offending key, the expected and the given value.
    """
    plain = OmegaConf.to_container(config, resolve=True)
    check(plain, path, given=frozenset(extra))
    placed = with_places(plain)
    try:
        # Called with `extra`, as Hydra would turn a dataclass among its own arguments into a configuration.
        return instantiate(placed, _partial_=True)(**extra) if extra else instantiate(placed)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError):
            raise ConfigError(f"{path}: {cause}") from cause
        raise
    except ValueError as error:  # raised by the call with `extra`
        raise ConfigError(f"{path}: {error}") from error


def check(node: Any, path: str, given: frozenset[str] = frozenset()) -> None:
    """Check a plain configuration tree against the constructors that its `_target_` keys name; raise ConfigError."""
    if isinstance(node, Mapping) and TARGET in node:
        _check_target(node, path, given)
    elif isinstance(node, Mapping):
        for key, child in node.items():
            check(child, f"{path}.{key}")


def _check_target(node: Mapping[str, Any], path: str, given: frozenset[str]) -> None:
    target = _imported(node[TARGET], f"{path}.{TARGET}")
    parameters = _configurable(target, factory=bool(node.get("_partial_")), given=given)
    hints = get_type_hints(target if inspect.isfunction(target) else target.__init__, include_extras=True)
    for key, value in node.items():
        if key.startswith("_"):
            continue
        if key not in parameters:
            raise ConfigError(f"{path}.{key}: {unknown_key(key, [*parameters])}")
        if isinstance(value, Mapping) and TARGET in value:
            _check_target(value, f"{path}.{key}", frozenset())
        else:
            check_value(value, hints.get(key, Any), f"{path}.{key}")
    missing = sorted({name for name, p in parameters.items() if p.default is p.empty} - set(node))
    if missing:
        raise ConfigError(f"{path}: expected the key {missing[0]!r} for {node[TARGET]}, got none")


def _imported(target: Any, path: str) -> Any:
    """Import the class or function that a `_target_` names."""
    check_value(target, str, path)
    try:
        imported = _locate(place_of(target))
    except (ImportError, ValueError) as error:
        near = did_you_mean(target, [place_of(name) for name in known()])
        reason = one_line(error.__cause__ or error)
        raise ConfigError(f"{path}: expected a class or function, got {target!r}{near}: {reason}") from error
    if not callable(imported):
        raise ConfigError(f"{path}: expected a class or function, got {target!r}, a {type(imported).__name__}")
    return imported


def _configurable(target: Any, factory: bool, given: frozenset[str]) -> dict[str, inspect.Parameter]:
    """List the parameters that a configuration may give, without those `given` otherwise.

    For a factory (`_partial_`) these are the keyword-only ones: the code that calls it passes the others.
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
        # A union has one error per branch: the message names every type that would fit.
        choices = [branch["msg"].replace("Input should be ", "") for branch in errors if branch["input"] is wrong]
        if not where and _accepts_null(adapter):
            choices.append("null")
        expected = " or ".join(dict.fromkeys(choices))
        raise ConfigError(f"{path}{where}: expected {expected}, got {wrong!r} ({type(wrong).__name__})") from None


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    """Return pydantic's checker of an annotation; one of our own classes accepts instances only."""
    return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))


def _accepts_null(adapter: TypeAdapter[Any]) -> bool:
    try:
        adapter.validate_python(None, strict=True)
    except ValidationError:
        return False
    return True
