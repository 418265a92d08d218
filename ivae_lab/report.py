"""One static folder with every claim and figure, which opens from disk: `ivae-lab report`.

    ivae-lab report                             outputs/report/index.html
    ivae-lab report [outputs=FOLDER] [to=FOLDER]

    outputs=FOLDER       where run folders and figures lie (outputs)
    to=FOLDER            where the report goes (`report` in the outputs); an older report there is replaced, once the
                         new one is complete

A figure is shown by the best evidence there is: its own folder of the paper scale (`outputs/figures/<paper>/<figure>/
paper`), else what the project keeps of it (`experiments/<paper>/results/`, drawn here), else its own folder of the
quick scale, whose claims get no verdict and are not counted; else it is listed with the command that makes it. Evidence
that cannot be read is named, and the next best is taken. Of models of images, where their run folders are under the
outputs, the page of a figure shows examples too. The same evidence gives the same report, to the byte.

Exit codes: 0 all that is there is in the report, 1 some could not be read, 2 bad input or no results at all,
130 and 143 stopped.
"""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import yaml

from ivae_lab.reproduction.about_json import PICTURES, About, checked, read_about
from ivae_lab.reproduction.claims import NO_VERDICT, Judgement, judge
from ivae_lab.reproduction.definition import SCALES, ExperimentError, Figure, load, names
from ivae_lab.reproduction.present import Evidence, present, recorded, write_table
from ivae_lab.runs.folder import run_folders
from ivae_lab.terminal.command_line import FAILED, OK, done, say
from ivae_lab.terminal.lazy import Later
from ivae_lab.terminal.messages import one_line
from ivae_lab.terminal.text_tables import brief, text

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment
else:
    pd = Later("pandas")

_NAME = "ivae_lab.report"
KEYS: dict[str, tuple[str, ...]] = {"outputs": (), "to": ()}
TEMPLATES = Path(__file__).resolve().parent / "report_pages"
STATIC = ("style.css", "table.js")
EXAMPLES = "examples.png"  # what a run of images leaves in its folder
MADE_BY = '<meta name="generator" content="ivae_lab.report">'  # tells a report from a folder that must not be replaced
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


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    outputs: Path
    to: Path

    @cached_property
    def runs(self) -> dict[str, Path]:
        """Run folders under the outputs, by name."""
        return {path.name: path for path in run_folders(self.outputs)}


def parse(arguments: Sequence[str]) -> Request:
    """Read the command line.

    Raises
    ------
    ExperimentError
        One line: what was expected, what came.
    """
    given = dict(each.partition("=")[::2] for each in arguments)
    if given.keys() - KEYS.keys() or not all(given.values()):
        raise ExperimentError(f"expected [outputs=FOLDER] [to=FOLDER], got {' '.join(arguments)}")
    outputs = Path(given.get("outputs", "outputs"))
    if "outputs" in given and not outputs.is_dir():
        raise ExperimentError(f"outputs: expected a folder, got {given['outputs']}")
    return Request(outputs, Path(given.get("to", outputs / "report")))


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    files, stopped = "read the outputs and to write the report", "stopped; an older report is as it was"
    return done(_NAME, __doc__, arguments, lambda given: write(parse(given)), files, stopped)


def write(request: Request) -> int:
    """Collect and render everything; say where it lies and what could not be read."""
    with replacing(request.to) as folder:
        pages, problems = _collect_all(request, folder)
        for problem in problems:
            say(_NAME, problem, FAILED)
        if not any(page.about for page in pages):
            raise ExperimentError(
                f"expected results under {request.outputs / 'figures'} or kept with the project, got none; "
                f"`python -m ivae_lab.reproduce {next(iter(names()), 'all')}` makes some"
            )
        render(pages, problems, folder)
    shown = sum(page.about is not None for page in pages)
    print(f"{shown} of {len(pages)} figures have results; {request.to / 'index.html'}")
    return FAILED if problems else OK


def _collect_all(request: Request, folder: Path) -> tuple[list[Page], list[str]]:
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


def render(pages: Sequence[Page], problems: Sequence[str], folder: Path) -> None:
    """Write the pages, their style and their script, and the table of claims as CSV."""
    environment = _environment()
    for name in STATIC:
        shutil.copyfile(TEMPLATES / name, folder / name)
    write_table(folder / "claims.csv", pd.DataFrame(_claims(pages)))
    index = environment.get_template("index.html.j2").render(root="", pages=pages, problems=problems)
    (folder / "index.html").write_text(index, encoding="utf-8")
    template = environment.get_template("figure.html.j2")
    for page, before, after in zip(pages, [None, *pages], [*pages[1:], None], strict=False):
        path = folder / page.url
        path.parent.mkdir(exist_ok=True)
        path.write_text(template.render(root="../", page=page, before=before, after=after), encoding="utf-8")


def _claims(pages: Sequence[Page]) -> Iterator[dict[str, Any]]:
    for page in pages:
        head = {"paper": page.figure.paper, "figure": page.figure.name, "scale": page.scale}
        yield from (head | each.record() | {"verdict": page.verdict(each)} for each in page.judgements)


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": text, "duration": duration, "spans": spans, "leading": _leading}
    environment.globals |= {"MADE_BY": MADE_BY, "VERDICTS": VERDICTS, "NO_VERDICT": NO_VERDICT}
    environment.globals |= {"PICTURES": PICTURES, "SCALES": SCALES}
    return environment


def duration(seconds: float) -> str:
    """A time in the two units that matter.

    Examples
    --------
    >>> duration(11520)
    '3 h 12 min'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def spans(numbers: Sequence[int]) -> str:
    """Whole numbers with neighbours joined.

    Examples
    --------
    >>> spans([0, 1, 2, 5])
    '0 to 2, 5'
    """
    joined: list[list[int]] = []
    for number in sorted(set(numbers)):
        if joined and joined[-1][-1] == number - 1:
            joined[-1].append(number)
        else:
            joined.append([number])
    return ", ".join(f"{each[0]} to {each[-1]}" if len(each) > 1 else str(each[0]) for each in joined)


def _leading(said: str) -> str:
    """The first word, by which a column is sorted: most begin with a number."""
    return next(iter(said.split()), "")


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `folder` in the end; if the writing raises, what was there stays.

    Raises
    ------
    ExperimentError
        If something else than a report is there.
    """
    if not _replaceable(folder):
        raise ExperimentError(f"to: expected a report, an empty folder, or none yet, got {folder}")
    folder = folder.resolve()
    fresh = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    old = fresh.with_name(f"{fresh.name}-old")
    lonely = not folder.parent.exists()
    fresh.mkdir(parents=True)
    try:
        yield fresh
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    finally:
        if old.exists() and not folder.exists():  # the second name did not work out
            old.rename(folder)
        for each in (fresh, old):
            shutil.rmtree(each, ignore_errors=True)
        if lonely and not folder.exists():
            folder.parent.rmdir()


def _replaceable(folder: Path) -> bool:
    if not folder.is_dir():
        return not folder.exists()
    index = folder / "index.html"
    return not any(folder.iterdir()) or (index.is_file() and MADE_BY in index.read_text("utf-8", errors="replace"))


def _one_line(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"expected {error}, got none"
    return one_line(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
