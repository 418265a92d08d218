"""Cells of a figure: every configuration that is to be trained, with its seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from ivae_lab.config.compose import compose_run
from ivae_lab.config.digests import cell_digest
from ivae_lab.plots.methods import method_of, name_of
from ivae_lab.reproduction.definition import ExperimentError, Figure, Line, Scale

# Training rows of an image data set; "<name> <part>" for data sets with several parts.
_PUBLISHED_ROWS = {
    "digits": 1_500,
    "mnist": 60_000,
    "emnist letters": 124_800,
    "emnist digits": 240_000,
    "cifar10": 10_000,
    "svhn": 73_257,
    "dsprites full": 737_280,
    "dsprites subset": 46_080,
}


@dataclass(frozen=True)
class Cell:
    """One configuration of a figure, without its seeds' numbers."""

    line: Line
    overrides: tuple[str, ...]  # of one run, without `seed`
    seeds: tuple[int, ...]
    config: dict[str, Any]  # the groups that change numbers, resolved
    data: str
    model: str
    method: str  # a key of PALETTE

    @property
    def digest(self) -> str:
        """Digest of everything that a seed's numbers depend on, except the seed."""
        return cell_digest(self.config)

    @property
    def steps(self) -> int:
        """Optimiser steps, for an estimate of the work."""
        trainer, data = self.config["trainer"], self.config["data"]
        try:
            if trainer["steps"] is not None:
                return int(trainer["steps"])
            return int(trainer["epochs"] * (_training_rows(self.data, data) // trainer["batch_size"]))
        except (TypeError, ValueError, ArithmeticError):  # invalid values: the training names them
            return 0

    def describe(self, columns: Sequence[str] = ()) -> dict[str, Any]:
        """Return the columns that identify its rows in the figure's table."""
        fixed = {
            "variant": self.line.variant,
            "label": self.line.label or name_of(self.model),
            "method": self.method,
            "model": self.model,
            "data": self.data,
            "data_seed": self.config["data"]["seed"],
        }
        return fixed | {column: _at(self.config, column) for column in columns}


def _method(choices: dict[str, str]) -> str:
    """Return the model's method; a model that computes u from x counts as the method of its auxiliary variable."""
    auxiliary = choices.get("model/auxiliary", "None")
    return method_of(choices["model"] if auxiliary == "None" else auxiliary)


def _training_rows(name: str, data: dict[str, Any]) -> int:
    """Number of training rows of the configuration; if it takes all rows of images, about the published number."""
    if "points" in data:
        return int(data["points"] * data["split"][0])
    if "segments" in data:
        return int(data["segments"] * data["samples_per_segment"] * data["split"][0])
    named = f"{name} {data['part']}" if "part" in data else name
    published = _PUBLISHED_ROWS.get(named, 1) * len(data.get("batches", [1]))
    return int(data.get("train_rows") or published)


def expand(figure: Figure, scale: Scale, overrides: Sequence[str] = ()) -> list[Cell]:
    """Return all cells of a figure in a scale; `overrides` are added to every line.

    Two lines may contain the same cell: it is then trained once.

    Raises
    ------
    ExperimentError
        If the figure has no cells in this scale, or an override is not of the form key=value.
    """
    cells = []
    for line in figure.cells:
        if scale not in line.scales:
            continue
        count = (line.seeds or figure.seeds)[scale]
        of_line = [*line.overrides, *(line.quick if scale == "quick" else []), *overrides]
        for job in _product(of_line):
            config, choices = compose_run(job)
            named = choices["data"], choices["model"], _method(choices)
            cells.append(Cell(line, job, tuple(range(count)), config, *named))
    if not cells:
        raise ExperimentError(f"{figure.full_name}: expected cells in the {scale} scale, got none")
    return cells


def _product(overrides: Iterable[str]) -> list[tuple[str, ...]]:
    """Every combination of the values; of two overrides of one key the later counts."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType

    parsed = {item.key_or_group: item for item in OverridesParser.create().parse_overrides(list(overrides))}
    for item in parsed.values():
        if item.type is not OverrideType.CHANGE:
            raise ExperimentError(f"expected overrides of the form key=value, got {item.input_line}")
    values = [
        [f"{key}={value}" for value in item.sweep_string_iterator()] if item.is_sweep_override() else [item.input_line]
        for key, item in parsed.items()
    ]
    return list(product(*values))  # type: ignore[arg-type]


def _at(config: dict[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return str(value) if isinstance(value, list | dict) else value
