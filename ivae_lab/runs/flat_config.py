"""A run's configuration as one row: nested keys become columns with dots in their names."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import yaml

from ivae_lab.config.targets import with_names

_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # nine times as fast where libyaml is there
_SECTION = re.compile(r"(?<=\n)(?=[^\s#-])")  # where the next key of the outermost level begins
UNREADABLE = (OSError, ValueError, TypeError, RecursionError, csv.Error, yaml.YAMLError)  # of damaged files


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str | None]:
    """Turn a configuration into one text per leaf under its dotted name; lists, numbers and truth values as JSON.

    Examples
    --------
    >>> flatten({"seed": [0, 1], "model": {"beta": 4.0, "prior": None}})
    {'seed': '[0, 1]', 'model.beta': '4.0', 'model.prior': None}
    """
    flat: dict[str, str | None] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            text = value if value is None or isinstance(value, str) else json.dumps(value, default=str)
            flat[f"{prefix}{key}"] = text
    return flat


def read_config(text: str) -> dict[str, str | None]:
    """Parse and flatten the text of a `config.yaml`.

    Each key of the outermost level is parsed by itself, and once per distinct text: runs of a sweep share most of
    them. Where that is not possible (anchors, a key twice, ...) the whole text is parsed, with the same result.

    Raises
    ------
    ValueError
        If it is not a mapping.
    YAMLError
        If it is not YAML.
    """
    try:
        sections = [_parsed(section) for section in _SECTION.split(text)]
        keys = [key for names, _ in sections for key in names]
        if len(set(keys)) == len(keys):
            return {name: value for _, flat in sections for name, value in flat.items()}
    except UNREADABLE:
        pass
    return _parsed(text)[1]


@lru_cache(maxsize=4096)
def _parsed(text: str) -> tuple[list[str], dict[str, str | None]]:
    """Return the keys of the outermost level, and the flattened configuration."""
    config = yaml.load(text, Loader=_YAML)
    if not isinstance(config, dict):
        raise ValueError(f"expected config.yaml to hold keys, got {type(config).__name__}")
    return list(config), flatten(with_names(config))
