"""Cells of a figure: every configuration that is to be trained, with its seeds, and where each seed was computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from ivae_lab.config.compose import compose_run
from ivae_lab.config.digests import cell_digest
from ivae_lab.plots.methods import method_of, name_of
from ivae_lab.reproduction.definition import ExperimentError, Figure, Line, Scale

if TYPE_CHECKING:
    pass

# Training rows of a file of images; of what has several parts, by its part.
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
        """Stands for all that a seed's numbers depend on, beside the seed."""
        return cell_digest(self.config)

    @property
    def steps(self) -> int:
        """Optimiser steps, for an estimate of the work."""
        trainer, data = self.config["trainer"], self.config["data"]
        try:
            if trainer["steps"] is not None:
                return int(trainer["steps"])
            return int(trainer["epochs"] * (_training_rows(self.data, data) // trainer["batch_size"]))
        except (TypeError, ValueError, ArithmeticError):  # values that cannot be: the training says which
            return 0

    def describe(self, columns: Sequence[str] = ()) -> dict[str, Any]:
        """What tells its rows from others' in the figure's table."""
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
    """The model's, or where u is made of x, what makes it: an iVAE with a u of its own is a method of its own."""
    made = choices.get("model/auxiliary", "None")
    return method_of(choices["model"] if made == "None" else made)


def _training_rows(name: str, data: dict[str, Any]) -> int:
    """As the configuration says; where it takes all rows of images, about as many as are published."""
    if "points" in data:
        return int(data["points"] * data["split"][0])
    if "segments" in data:
        return int(data["segments"] * data["samples_per_segment"] * data["split"][0])
    named = f"{name} {data['part']}" if "part" in data else name
    published = _PUBLISHED_ROWS.get(named, 1) * len(data.get("batches", [1]))
    return int(data.get("train_rows") or published)


def expand(figure: Figure, scale: Scale, overrides: Sequence[str] = ()) -> list[Cell]:
    """All cells of a figure in a scale; `overrides` are added to every line.

    Two lines may ask for the same cell: it is then trained once.

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
        own = [*line.overrides, *(line.quick if scale == "quick" else []), *overrides]
        for job in _product(own):
            config, choices = compose_run(job)
            named = choices["data"], choices["model"], _method(choices)
            cells.append(Cell(line, job, tuple(range(count)), config, *named))
    if not cells:
        raise ExperimentError(f"{figure.full_name}: expected cells in the {scale} scale, got none")
    return cells


def _product(overrides: Iterable[str]) -> list[tuple[str, ...]]:
    """Every combination of the values; of two overrides of one key the later stands."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType

    parsed = {each.key_or_group: each for each in OverridesParser.create().parse_overrides(list(overrides))}
    for each in parsed.values():
        if each.type is not OverrideType.CHANGE:
            raise ExperimentError(f"expected overrides of the form key=value, got {each.input_line}")
    values = [
        [f"{key}={value}" for value in each.sweep_string_iterator()] if each.is_sweep_override() else [each.input_line]
        for key, each in parsed.items()
    ]
    return list(product(*values))  # type: ignore[arg-type]


def _at(config: dict[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return str(value) if isinstance(value, list | dict) else value
