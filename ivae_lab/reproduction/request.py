"""The command line of `reproduce`, parsed and checked before anything is trained."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ivae_lab.config.digests import NUMBERS, digest
from ivae_lab.reproduction.definition import SCALES, ExperimentError, Figure, Scale, load, names
from ivae_lab.terminal.command_line import TRUTH
from ivae_lab.terminal.messages import one_line

# Settings that change where and how a run is computed, not its numbers.
NEUTRAL = ("compute", "logger", "hydra", "hydra/launcher")
# Overrides of `python -m ivae_lab.train` that this command has no use for.
REFUSED = {
    "seed": "as the figure says how many seeds there are",
    "force": "as a run is trained again once its folder is removed",
    "show": "as the figure's table is shown",
}
FLAGS = {"train": "true", "record": "false", "wait": "true", "retry": "false"}
NAME = "ivae_lab.reproduce"
KEYS = {"scale": SCALES, "outputs": (), **dict.fromkeys(FLAGS, TRUTH)}  # of this command, with their choices


@dataclass(frozen=True)
class ReproduceRequest:
    """The checked command line of `reproduce`."""

    figures: list[str]
    scale: Scale
    train: bool
    record: bool
    wait: bool
    retry: bool
    outputs: Path
    changed: list[str]  # overrides that change numbers
    neutral: list[str]

    def folder(self, figure: Figure) -> Path:
        """The folder for a figure's files."""
        name = f"{self.scale}-{digest(sorted(self.changed))}" if self.changed else self.scale
        return self.outputs / "figures" / figure.paper / figure.name / name

    @property
    def launcher(self) -> str | None:
        """The launcher among the overrides, if there is one."""
        launchers = (setting.partition("=")[2] for setting in self.neutral if setting.startswith("hydra/launcher="))
        return next(launchers, None)

    def command(self, figure: Figure) -> str:
        """The command that makes a figure."""
        return f"python -m ivae_lab.reproduce {shlex.join([figure.full_name, f'scale={self.scale}', *self.changed])}"


def parse(arguments: Sequence[str]) -> ReproduceRequest:
    """Read the command line.

    Raises
    ------
    ExperimentError
        One line: what was expected, what came.
    """
    wanted = [argument for argument in arguments if "=" not in argument]
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    if len(wanted) != 1:
        raise ExperimentError(
            f"expected one figure, a paper, or all, got {' '.join(wanted) or 'none'}; --list names them"
        )
    scale = given.pop("scale", "quick")
    if scale not in SCALES:
        raise ExperimentError(f"scale: expected quick or paper, got {scale!r}")
    flags = {name: _flag(name, given.pop(name, default)) for name, default in FLAGS.items()}
    outputs = Path(given.pop("outputs", "outputs"))
    _check_overrides(given)
    neutral = [f"{key}={value}" for key, value in given.items() if key.split(".")[0] in NEUTRAL]
    changed = [f"{key}={value}" for key, value in given.items() if key.split(".")[0] not in NEUTRAL]
    if flags["record"] and changed:
        raise ExperimentError(f"record: expected no changed numbers, got {' '.join(changed)}")
    request = ReproduceRequest(_figures(wanted[0]), scale, **flags, outputs=outputs, changed=changed, neutral=neutral)
    if not request.wait and request.launcher != "slurm":
        raise ExperimentError(f"wait: expected hydra/launcher=slurm with wait=false, got {request.launcher or 'none'}")
    return request


def _check_overrides(given: dict[str, str]) -> None:
    for key, value in given.items():
        if key in REFUSED:
            raise ExperimentError(f"{key}: expected no override, {REFUSED[key]}, got {value!r}")
        if re.split("[./]", key.lstrip("+~"))[0] not in (*NUMBERS, *NEUTRAL):
            known = f"{', '.join(KEYS)} or an override of {', '.join(NUMBERS)}"
            raise ExperimentError(f"{key}: expected {known}, got {key}={value}")


def _flag(name: str, value: str) -> bool:
    if value not in TRUTH:
        raise ExperimentError(f"{name}: expected true or false, got {value!r}")
    return value == "true"


def _figures(wanted: str) -> list[str]:
    known = names()
    some = [name for name in known if wanted in ("all", name.split("/")[0])]
    return some or [load(wanted).full_name]


def check_neutral(overrides: Sequence[str]) -> None:
    """Refuse an unknown key in the overrides that every training gets, before anything is trained."""
    from hydra.errors import HydraException

    from ivae_lab.config.overrides import composed

    if overrides:
        try:
            composed(overrides)
        except HydraException as error:
            raise ExperimentError(one_line(error)) from None
