"""Digests that identify runs: they depend on everything that changes a run's numbers, and on nothing else.

The module of a class does not change numbers, so a digest contains the class's name alone (`targets`).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ivae_lab.config.targets import with_names

# Parts of the configuration that change the numbers of a run, and so its name; outputs, logger, compute do not.
NUMBERS = ("data", "model", "prior", "trainer", "metric")


def digest(config: Any) -> str:
    """Hash a plain configuration tree to ten hexadecimal digits, whatever the modules of the classes that it names."""
    return _digits(with_names(config))


def _digits(tree: Any) -> str:
    canonical = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def numbers(config: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a plain configuration that changes numbers: without the paths of the data files."""
    data = {key: value for key, value in config["data"].items() if key not in ("root", "path")}
    return {name: config[name] for name in NUMBERS} | {"data": data}


def cell_digest(config: dict[str, Any]) -> str:
    """Return the digest of all that a seed's numbers depend on, besides the seed: it is the same in every run."""
    return digest(numbers(config))


def run_digest(config: dict[str, Any], seeds: list[int]) -> str:
    """Return the digest of all that a run's numbers depend on, its seeds included."""
    return digest(_of_run(config, seeds))


def run_digest_by_paths(config: dict[str, Any], seeds: list[int]) -> str:
    """Return the digest of earlier versions, which contained the paths of modules: old checkpoints have it."""
    return _digits(_of_run(config, seeds))


def _of_run(config: dict[str, Any], seeds: list[int]) -> dict[str, Any]:
    return {**numbers(config), "seed": seeds}
