"""Checks a configuration against the constructors it names, then builds the objects.

Every mapping with a `_target_` is held against the signature of that target: a key that it does not take,
a value of the wrong type or out of range, and a missing key are one-line errors that name the key by its
path on the command line. Types are the annotations of the constructor, checked by pydantic in strict mode.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter, ValidationError


class ConfigError(ValueError):
    """A configuration that cannot be built: one line that says what was expected and what came."""


def build(config: DictConfig, path: str, **extra: Any) -> Any:
    """Build what `config` describes; `extra` are arguments that do not come from the configuration.

    Raises
    ------
    ConfigError
        With the path of the offending key, what was expected there and what came.
    """
    check(OmegaConf.to_container(config, resolve=True), path, given=frozenset(extra))
    try:
        return instantiate(config, **extra)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError):
            raise ConfigError(f"{path}: {cause}") from cause
        raise


def check(node: Any, path: str, given: frozenset[str] = frozenset()) -> None:
    """Hold a plain configuration tree against the constructors that its `_target_` keys name."""
    if isinstance(node, Mapping) and "_target_" in node:
        _check_target(node, path, given)
    elif isinstance(node, Mapping):
        for key, child in node.items():
            check(child, f"{path}.{key}")


def _check_target(node: Mapping[str, Any], path: str, given: frozenset[str]) -> None:
    target = get_object(node["_target_"])
    parameters = inspect.signature(target).parameters
    hints = get_type_hints(target if inspect.isfunction(target) else target.__init__, include_extras=True)
    for key, value in node.items():
        if key.startswith("_"):
            continue
        if key not in parameters:
            raise ConfigError(f"{path}.{key}: {_unknown(key, [*parameters])}")
        if isinstance(value, Mapping) and "_target_" in value:
            _check_target(value, f"{path}.{key}", frozenset())
        else:
            check_value(value, hints.get(key, Any), f"{path}.{key}")
    required = {name for name, p in parameters.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD}
    missing = sorted(required - set(node) - given)
    if missing and not node.get("_partial_"):
        raise ConfigError(f"{path}: expected the key {missing[0]!r} for {node['_target_']}, got none")


def check_value(value: Any, annotation: Any, path: str) -> None:
    """Raise ConfigError unless `value` fits the annotation (no conversion: '5' is not a number)."""
    try:
        TypeAdapter(annotation).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"[{part}]" for part in first["loc"] if isinstance(part, int))
        expected = first["msg"].replace("Input should be ", "")
        raise ConfigError(
            f"{path}{where}: expected {expected}, got {first['input']!r} ({type(first['input']).__name__})"
        ) from None


def _unknown(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=3)
    hint = f" (did you mean {', '.join(near)}?)" if near else ""
    return f"expected one of {', '.join(sorted(known))}; got an unknown key{hint}"
