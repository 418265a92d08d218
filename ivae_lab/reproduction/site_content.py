"""What the report shows of each figure: its claims, pictures, numbers, commands and examples, gathered from folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import yaml

from ivae_lab.reproduction.about_json import PICTURES, About, checked, read_about
from ivae_lab.reproduction.claims import NO_VERDICT, Judgement, judge
from ivae_lab.reproduction.definition import Figure, load, names
from ivae_lab.reproduction.evidence import Evidence
from ivae_lab.reproduction.present import present
from ivae_lab.reproduction.records import recorded
from ivae_lab.runs.folder import run_folders
from ivae_lab.terminal.lazy import Later
from ivae_lab.terminal.messages import one_line
from ivae_lab.terminal.text_tables import brief

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Later("pandas")

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Later("pandas")

EXAMPLES = "examples.png"  # what a run of images leaves in its folder
VERDICTS = ("reproduced", "partly", "not reproduced", "not run")
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, yaml.YAMLError)  # what reading a damaged file raises


@dataclass(frozen=True)
class Own:
    """Evidence under the outputs."""

    folder: Path
    about: About

    def __str__(self) -> str:
        """How much of what."""
        return f"{self.about.scale} scale under the outputs, {self.about.done} of {self.about.total} runs"

    @property
    def rank(self) -> tuple[bool, int]:
        """The paper's scale before quick, then the more runs the better."""
        return self.about.scale == "paper", self.about.done

    def place(self, folder: Path) -> About:
        """Copy it into the report, if it is whole."""
        folder.mkdir(parents=True)
        pictures = [f"{picture.stem}.{kind}" for picture in self.about.pictures for kind in PICTURES]
        for name in [*self.about.files, *pictures]:
            shutil.copyfile(self.folder / name, folder / name)
        return self.about


@dataclass(frozen=True)
class Kept:
    """Evidence that the project keeps."""

    evidence: Evidence

    def __str__(self) -> str:
        """How much of what."""
        return f"{self.evidence.scale} scale kept with the project, {self.evidence.done} of {self.evidence.total} runs"

    @property
    def rank(self) -> tuple[bool, int]:
        """As `Own.rank`."""
        return self.evidence.scale == "paper", self.evidence.done

    def place(self, folder: Path) -> About:
        """Draw it in the report."""
        return checked(present(self.evidence, folder).about)


@dataclass(frozen=True)
class Example:
    """What one run makes of images: its picture in the report."""

    file: str  # beside the figure's pictures
    run: str
    setting: str

    @property
    def alt(self) -> str:
        """The picture in words."""
        further = "of a model with a prior, images drawn from it and traversals of single latents"
        return f"{self.setting}: test images over their reconstructions and, {further}."


@dataclass
class Page:
    """A figure in the report.

    Attributes
    ----------
    shown
        The evidence that is shown, and what was read of it; None where there is none.
    others
        Evidence that is there too.
    problems
        What could not be read.
    """

    figure: Figure
    judgements: list[Judgement] = field(default_factory=list)
    about: About | None = None
    shown: str = ""
    others: list[str] = field(default_factory=list)
    summary: pd.DataFrame = field(default_factory=lambda: pd.DataFrame())
    links: dict[str, str] = field(default_factory=dict)  # run -> address of its folder, where it is there
    examples: list[Example] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """From the report's folder."""
        return f"{self.figure.full_name}.html"

    @property
    def command(self) -> str:
        """What makes it."""
        return self.about.command if self.about else f"python -m ivae_lab.reproduce {self.figure.full_name}"

    @property
    def scale(self) -> str:
        """Of the evidence that is shown."""
        return self.about.scale if self.about else "-"

    def verdict(self, judgement: Judgement) -> str:
        """What is shown as the verdict of a claim: of the quick scale, that there is none."""
        return NO_VERDICT if self.scale == "quick" else judgement.verdict


def collect_all(request: Request, folder: Path) -> tuple[list[Page], list[str]]:
    """A page for every figure whose definition can be read, and all that could not be read."""
    pages, problems = [], []
    for name in names():
        try:
            page = collect(load(name), request, folder / name)
        except _UNREADABLE as error:
            problems.append(f"{name}: {_one_line(error)}")
        else:
            pages.append(page)
            problems += [f"{name}: {problem}" for problem in page.problems]
    return pages, problems


def collect(figure: Figure, request: Request, folder: Path) -> Page:
    """Put the best evidence that can be read into `folder`, and what there is to say of it into a page."""
    page = Page(figure)
    for source in _sources(figure, request.outputs, page.problems):
        if page.about is not None:
            page.others.append(str(source))
            continue
        try:
            page.about = source.place(folder)
            page.summary = _summary(page.about, folder)
            page.shown = str(source)
        except Exception as error:  # drawing runs functions of the experiment on whatever a damaged file holds
            page.problems.append(f"{source}: {_one_line(error)}")
            page.about = None
            shutil.rmtree(folder, ignore_errors=True)
    if page.about is not None and figure.examples:
        try:
            page.examples = _examples(figure, request.runs, folder)
        except OSError as error:
            page.problems.append(f"examples: {_one_line(error)}")
    page.judgements = page.about.verdicts if page.about else judge(figure, {})
    page.links = _links(page.about.runs if page.about else (), request, folder.parent.name)
    return page


def _sources(figure: Figure, outputs: Path, problems: list[str]) -> list[Own | Kept]:
    """Evidence in which something has finished, best first; what cannot be read becomes a problem."""
    own = outputs / "figures" / figure.paper / figure.name
    readers: list[Callable[[], Own | Kept | None]] = [
        partial(_own, own / "paper"),
        partial(_kept, figure),
        partial(_own, own / "quick"),
    ]
    sources = []
    for reader in readers:
        try:
            found = reader()
        except _UNREADABLE as error:
            problems.append(_one_line(error))
        else:
            if found is not None and found.rank[1]:
                sources.append(found)
    return sorted(sources, key=lambda source: source.rank, reverse=True)  # of equal ones the first


def _own(folder: Path) -> Own | None:
    return Own(folder, read_about(folder)) if (folder / "about.json").exists() else None


def _kept(figure: Figure) -> Kept | None:
    try:
        evidence = recorded(figure)
    except _UNREADABLE as error:
        raise ValueError(f"what the project keeps: {_one_line(error)}") from None
    return Kept(evidence) if evidence else None


def _summary(about: About, folder: Path) -> pd.DataFrame:
    """The summary table; an error where a table is damaged, or the rows are not those of the runs."""
    tables = {name: pd.read_csv(folder / f"{name}.csv") for name in [*about.tables, "summary"]}
    lines, runs = set(tables["rows"]["run"]), set(about.runs)
    if lines != runs:
        raise ValueError(f"rows.csv: expected rows of the runs in about.json, got {_difference(lines, runs)}")
    return brief(tables["summary"])


def _difference(lines: set[str], runs: set[str]) -> str:
    said = [f"none of {', '.join(sorted(runs - lines))}"] if runs - lines else []
    return " and ".join(said + [f"some of {each}" for each in sorted(map(str, lines - runs))])


def _examples(figure: Figure, paths: Mapping[str, Path], folder: Path) -> list[Example]:
    """Copy the picture of the first run of each setting of the summary that has one under the outputs."""
    rows = pd.read_csv(folder / "rows.csv", keep_default_na=False)
    columns = [column for column in figure.table if column in rows]
    drawn = [run for run in rows["run"].unique() if run in paths and (paths[run] / EXAMPLES).is_file()]
    found: list[Example] = []
    for _, row in rows[rows["run"].isin(drawn)].drop_duplicates(columns).iterrows():
        example = Example(f"examples-{len(found)}.png", row["run"], ", ".join(map(str, row[columns])))
        shutil.copyfile(paths[example.run] / EXAMPLES, folder / example.file)
        found.append(example)
    return found


def _links(runs: Iterable[str], request: Request, paper: str) -> dict[str, str]:
    """Addresses of run folders, from the page of a figure."""
    start = request.to.resolve() / paper
    there = {name: request.runs[name].resolve() for name in runs if name in request.runs}
    return {name: f"{quote(Path(os.path.relpath(path, start)).as_posix())}/" for name, path in there.items()}


def _one_line(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"expected {error}, got none"
    return one_line(error)


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    outputs: Path
    to: Path

    @cached_property
    def runs(self) -> dict[str, Path]:
        """Run folders under the outputs, by name."""
        return {path.name: path for path in run_folders(self.outputs)}
