"""What makes two runs the same: digests of everything that changes numbers, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from typing import Any

# What changes the numbers of a run, and so its name; everything else (outputs, logger, compute) does not.
NUMBERS = ("data", "model", "prior", "trainer", "metric")


def digest(config: Any) -> str:
    """Ten hexadecimal digits that stand for a plain configuration tree."""
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"))
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
    return digest({**numbers(config), "seed": seeds})
