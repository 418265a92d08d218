"""Cells of a figure: every configuration that is to be trained, with its seeds, and where each seed was computed."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from ivae_lab.config.digests import NUMBERS, cell_digest
from ivae_lab.config.paths import CONFIG
from ivae_lab.plots.panels import method_of, name_of
from ivae_lab.reproduction.definition import ExperimentError, Figure, Line, Scale
from ivae_lab.runs.folder import is_finished, read_status, run_folders
from ivae_lab.terminal.messages import one_line

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

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
            config, choices = _composed(job)
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


def _composed(job: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """The resolved configuration of a run, and its choices.

    Composing takes a tenth of a second, so configurations that differ in values only share it.
    """
    groups = tuple(each for each in job if chooses_group(each))
    composed, choices = _composed_groups(groups)
    config: DictConfig = pickle.loads(composed)
    for each in map(parse_override, (each for each in job if each not in groups)):
        OmegaConf.update(config, each.key_or_group, each.value(), force_add=False)
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return {name: plain[name] for name in NUMBERS}, choices


def chooses_group(override: str) -> bool:
    """Whether it chooses a YAML of a group, in place of changing a value."""
    key = override.partition("=")[0]
    return "/" in key or key in NUMBERS


@cache
def parse_override(override: str) -> Override:
    """An override as Hydra reads it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(override)


@cache
def _composed_groups(overrides: tuple[str, ...]) -> tuple[bytes, dict[str, str]]:
    """The configuration pickled, which is copied seven times as fast as by `deepcopy`, and its choices."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(config_dir=str(CONFIG), version_base="1.3"):
        whole = compose("config", list(overrides), return_hydra_config=True)
    choices = {key: str(value) for key, value in whole.hydra.runtime.choices.items()}
    own = OmegaConf.masked_copy(whole, [*NUMBERS])
    OmegaConf.set_struct(own, True)  # an unknown key is an error
    return pickle.dumps(own), choices


def _at(config: dict[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return str(value) if isinstance(value, list | dict) else value


@dataclass
class Found:
    """Where cells were computed, of all run folders under the outputs.

    `everywhere` has all folders that finished a cell; `unreadable`, of folders whose status does not say what they
    hold, the reason.
    """

    finished: dict[tuple[str, int], tuple[Path, dict[str, Any]]] = field(default_factory=dict)
    unfinished: dict[tuple[str, int], tuple[Path, dict[str, Any]]] = field(default_factory=dict)
    everywhere: dict[tuple[str, int], list[Path]] = field(default_factory=dict)
    unreadable: dict[Path, str] = field(default_factory=dict)

    def missing(self, cell: Cell) -> list[int]:
        """Seeds that are still to be trained."""
        return [seed for seed in cell.seeds if (cell.digest, seed) not in self.finished]


def find(outputs: Path) -> Found:
    """Look through the run folders for cells; of two that hold the same, done stands before diverged, then the newest.

    A folder whose status cannot be read holds nothing, and is named with the reason.
    """
    found = Found()
    for path in run_folders(outputs):
        try:
            status = read_status(path)
            keys = _keys(status)
        except (OSError, ValueError) as error:
            found.unreadable[path] = one_line(error)
            continue
        finished = is_finished(path)
        where = found.finished if finished else found.unfinished
        for key in keys:
            if finished:
                found.everywhere.setdefault(key, []).append(path)
            if key not in where or _rank(status) > _rank(where[key][1]):
                where[key] = (path, status)
    return found


def _keys(status: dict[str, Any]) -> list[tuple[str, int]]:
    """The cell of a run with each of its seeds."""
    try:
        return [(str(status["cell"]), int(seed)) for seed in status["seeds"]]
    except (KeyError, TypeError, ValueError):
        named = ", ".join(sorted(status))
        raise ValueError(f"expected a cell and its seeds in status.json, got {named}: an older version's?") from None


def _rank(status: dict[str, Any]) -> tuple[bool, str]:
    return status["state"] == "done", str(status.get("written", ""))
