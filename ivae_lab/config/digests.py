"""What makes two runs the same: digests of everything that changes numbers, and of nothing else.

Where the module of a class lies changes none, so a digest has the class's name alone (`targets`).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ivae_lab.config.targets import with_names

# What changes the numbers of a run, and so its name; everything else (outputs, logger, compute) does not.
NUMBERS = ("data", "model", "prior", "trainer", "metric")


def digest(config: Any) -> str:
    """Ten hexadecimal digits that stand for a plain configuration tree, wherever the classes that it names lie."""
    return _digits(with_names(config))


def _digits(tree: Any) -> str:
    canonical = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def numbers(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a plain configuration that changes numbers: where the files of the data lie does not."""
    data = {key: value for key, value in config["data"].items() if key not in ("root", "path")}
    return {name: config[name] for name in NUMBERS} | {"data": data}


def cell_digest(config: dict[str, Any]) -> str:
    """Stands for what a seed's numbers depend on, besides the seed: the same cell has it in every run."""
    return digest(numbers(config))


def run_digest(config: dict[str, Any], seeds: list[int]) -> str:
    """Stands for what a run's numbers depend on."""
    return digest(_of_run(config, seeds))


def run_digest_by_paths(config: dict[str, Any], seeds: list[int]) -> str:
    """Give the digest that a run had while the paths of modules were in it: its checkpoint has it still."""
    return _digits(_of_run(config, seeds))


def _of_run(config: dict[str, Any], seeds: list[int]) -> dict[str, Any]:
    return {**numbers(config), "seed": seeds}
