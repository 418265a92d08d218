"""Read and check about.json of a figure, which `present.present` writes beside pictures and tables."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ivae_lab.reproduction.claims import Judgement
from ivae_lab.reproduction.definition import Scale
from ivae_lab.terminal.messages import one_line

SUMMARIES = ("summary.csv", "summary.md", "summary.tex", "verdicts.csv", "verdicts.md", "verdicts.tex")
PICTURES = ("svg", "png", "pdf")

FileName = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]  # of a file beside about.json: never a path


class _Read(BaseModel):
    """A part of about.json; a newer version may have written more."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Drawn(_Read):
    """A picture: `<stem>.svg`, `.png` and `.pdf`."""

    stem: FileName
    alt: str
    caption: str


class Lacking(_Read):
    """Seeds of a configuration that have no rows, and the reason."""

    overrides: list[str]
    variant: str
    seeds: list[int]
    state: str
    error: str | None = None
    folder: str | None = None


class Sweep(_Read):
    """A line of the experiment with one model and data set: number of configurations, and the first of them.

    Older records do not split lines by model and data set; model and data are None there.
    """

    variant: str
    label: str
    model: str | None = None
    data: str | None = None
    cells: int
    seeds: list[int]
    first: list[str]
    config: dict[str, Any]

    @property
    def heading(self) -> str:
        """Variant, model and data, which distinguish it from other sweeps of the figure with the same label."""
        named = {"variant": self.variant, "model": self.model, "data": self.data}
        return ", ".join(f"{name}: {value}" for name, value in named.items() if value is not None)

    @property
    def command(self) -> str:
        """The command that trains the first configuration alone."""
        seeds = f"seed=[{','.join(map(str, self.seeds))}]"
        return f"python -m ivae_lab.train {shlex.join([*self.first, seeds])}"

    @property
    def resolved(self) -> str:
        """The whole configuration of the first, as YAML."""
        return str(yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True))


class RunFolder(_Read):
    """Where numbers come from."""

    state: str
    seeds: list[int] = []
    seconds: float | None = None
    commit: str | None = None
    written: str | None = None
    device: str | None = None
    threads: int | None = None
    versions: dict[str, Any] | None = None
    error: str | None = None

    @property
    def environment(self) -> str:
        """Device, threads and versions, in words."""
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}" if self.threads else "threads unknown"
        versions = [f"{name} {version}" for name, version in (self.versions or {}).items()]
        return ", ".join([self.device or "device unknown", threads, *versions])


class About(_Read):
    """about.json of a figure, as `present.present` writes it."""

    title: str
    where: str
    claim: str
    score: str
    scale: Scale
    changed: list[str]
    command: str
    total: int
    done: int
    seconds: float
    missing: list[Lacking]
    lines: list[Sweep]
    runs: dict[str, RunFolder]
    pictures: list[Drawn]
    tables: list[FileName]
    deviations: list[str]
    verdicts: list[Judgement]

    @property
    def environments(self) -> list[tuple[str, int]]:
        """Every environment, with the number of runs that were made there."""
        return Counter(run.environment for run in self.runs.values()).most_common()

    @property
    def unfinished(self) -> list[Lacking]:
        """Missing seeds, those of failed or stopped runs first."""
        return sorted(self.missing, key=lambda lacking: lacking.state == "not run")

    @property
    def files(self) -> list[str]:
        """All files of the figure's folder, about.json included, without the pictures."""
        return [*(f"{name}.csv" for name in self.tables), *SUMMARIES, "about.json"]


def read_about(folder: Path) -> About:
    """Read about.json of a figure's folder.

    Raises
    ------
    ValueError
        If it is not in the form that `present.present` writes: one line.
    """
    path = folder / "about.json"
    try:
        return checked(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{path}: {one_line(error)}") from None


def checked(content: Any) -> About:
    """Check the content of an about.json.

    Raises
    ------
    ValueError
        If it is not in the form that `present.present` writes: one line.
    """
    try:
        return About.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'about.json'}: {first['msg']}") from None
