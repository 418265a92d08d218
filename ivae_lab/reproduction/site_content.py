"""Content of the report's pages: claims, pictures, numbers, commands and examples of each figure, read from folders."""

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
from ivae_lab.reproduction.evidence import FigureEvidence
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

EXAMPLES = "examples.png"  # the picture in the folder of a run of images
VERDICTS = ("reproduced", "partly", "not reproduced", "not run")
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, yaml.YAMLError)  # errors from reading a damaged file


@dataclass(frozen=True)
class OutputsSource:
    """Evidence for a page that lies under the outputs."""

    folder: Path
    about: About

    def __str__(self) -> str:
        """Name the scale, and how many runs have finished."""
        return f"{self.about.scale} scale under the outputs, {self.about.done} of {self.about.total} runs"

    @property
    def rank(self) -> tuple[bool, int]:
        """Key by which sources are sorted: the paper's scale before quick, then more runs before fewer."""
        return self.about.scale == "paper", self.about.done

    def place(self, folder: Path) -> About:
        """Copy the figure's files into the report; an error if one is missing."""
        folder.mkdir(parents=True)
        pictures = [f"{picture.stem}.{kind}" for picture in self.about.pictures for kind in PICTURES]
        for name in [*self.about.files, *pictures]:
            shutil.copyfile(self.folder / name, folder / name)
        return self.about


@dataclass(frozen=True)
class RecordsSource:
    """Evidence for a page from the records that the project keeps."""

    evidence: FigureEvidence

    def __str__(self) -> str:
        """Name the scale, and how many runs have finished."""
        return f"{self.evidence.scale} scale kept with the project, {self.evidence.done} of {self.evidence.total} runs"

    @property
    def rank(self) -> tuple[bool, int]:
        """Key by which sources are sorted, in the form of `OutputsSource.rank`."""
        return self.evidence.scale == "paper", self.evidence.done

    def place(self, folder: Path) -> About:
        """Draw the figure into the report."""
        return checked(present(self.evidence, folder).about)


@dataclass(frozen=True)
class Example:
    """The picture of one run of images in the report: reconstructions, drawn images and traversals."""

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
        Name of the evidence that the page shows; empty without evidence, and `about` is None then.
    others
        Names of other evidence for the figure.
    problems
        A line for each file that could not be read.
    """

    figure: Figure
    judgements: list[Judgement] = field(default_factory=list)
    about: About | None = None
    shown: str = ""
    others: list[str] = field(default_factory=list)
    summary: pd.DataFrame = field(default_factory=lambda: pd.DataFrame())
    links: dict[str, str] = field(default_factory=dict)  # run -> address of its folder, if that exists
    examples: list[Example] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Address of the page, relative to the report's folder."""
        return f"{self.figure.full_name}.html"

    @property
    def command(self) -> str:
        """The command that makes the figure."""
        return self.about.command if self.about else f"python -m ivae_lab.reproduce {self.figure.full_name}"

    @property
    def scale(self) -> str:
        """The scale of the evidence that the page shows; "-" without evidence."""
        return self.about.scale if self.about else "-"

    def verdict(self, judgement: Judgement) -> str:
        """Return the verdict of a claim as the page shows it; the quick scale gives none."""
        return NO_VERDICT if self.scale == "quick" else judgement.verdict


def collect_all(request: ReportRequest, folder: Path) -> tuple[list[Page], list[str]]:
    """Return a page for every figure whose definition can be read, and a line for everything that cannot."""
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


def collect(figure: Figure, request: ReportRequest, folder: Path) -> Page:
    """Put the best readable evidence for a figure into `folder`, and describe it in a page."""
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


def _sources(figure: Figure, outputs: Path, problems: list[str]) -> list[OutputsSource | RecordsSource]:
    """Sources in which a run has finished, best first; a source that cannot be read becomes a problem."""
    drawn = outputs / "figures" / figure.paper / figure.name
    readers: list[Callable[[], OutputsSource | RecordsSource | None]] = [
        partial(_from_outputs, drawn / "paper"),
        partial(_from_records, figure),
        partial(_from_outputs, drawn / "quick"),
    ]
    sources = []
    for reader in readers:
        try:
            source = reader()
        except _UNREADABLE as error:
            problems.append(_one_line(error))
        else:
            if source is not None and source.rank[1]:
                sources.append(source)
    return sorted(sources, key=lambda source: source.rank, reverse=True)  # of equal ones the first


def _from_outputs(folder: Path) -> OutputsSource | None:
    return OutputsSource(folder, read_about(folder)) if (folder / "about.json").exists() else None


def _from_records(figure: Figure) -> RecordsSource | None:
    try:
        evidence = recorded(figure)
    except _UNREADABLE as error:
        raise ValueError(f"what the project keeps: {_one_line(error)}") from None
    return RecordsSource(evidence) if evidence else None


def _summary(about: About, folder: Path) -> pd.DataFrame:
    """The summary table; an error where a table is damaged, or the rows are not those of the runs."""
    tables = {name: pd.read_csv(folder / f"{name}.csv") for name in [*about.tables, "summary"]}
    lines, runs = set(tables["rows"]["run"]), set(about.runs)
    if lines != runs:
        raise ValueError(f"rows.csv: expected rows of the runs in about.json, got {_difference(lines, runs)}")
    return brief(tables["summary"])


def _difference(lines: set[str], runs: set[str]) -> str:
    absent = [f"none of {', '.join(sorted(runs - lines))}"] if runs - lines else []
    return " and ".join(absent + [f"some of {run}" for run in sorted(map(str, lines - runs))])


def _examples(figure: Figure, paths: Mapping[str, Path], folder: Path) -> list[Example]:
    """Copy the picture of the first run of each setting of the summary that has one under the outputs."""
    rows = pd.read_csv(folder / "rows.csv", keep_default_na=False)
    columns = [column for column in figure.table if column in rows]
    drawn = [run for run in rows["run"].unique() if run in paths and (paths[run] / EXAMPLES).is_file()]
    examples: list[Example] = []
    for _, row in rows[rows["run"].isin(drawn)].drop_duplicates(columns).iterrows():
        example = Example(f"examples-{len(examples)}.png", row["run"], ", ".join(map(str, row[columns])))
        shutil.copyfile(paths[example.run] / EXAMPLES, folder / example.file)
        examples.append(example)
    return examples


def _links(runs: Iterable[str], request: ReportRequest, paper: str) -> dict[str, str]:
    """Addresses of run folders, from the page of a figure."""
    start = request.to.resolve() / paper
    there = {name: request.runs[name].resolve() for name in runs if name in request.runs}
    return {name: f"{quote(Path(os.path.relpath(path, start)).as_posix())}/" for name, path in there.items()}


def _one_line(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"expected {error}, got none"
    return one_line(error)


@dataclass(frozen=True)
class ReportRequest:
    """The checked command line of the report: the outputs to read, and the folder to write."""

    outputs: Path
    to: Path

    @cached_property
    def runs(self) -> dict[str, Path]:
        """Run folders under the outputs, by name."""
        return {path.name: path for path in run_folders(self.outputs)}
