"""Render the report's pages from templates, and replace the report's folder as a whole."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ivae_lab.reproduction.about_json import PICTURES
from ivae_lab.reproduction.claims import NO_VERDICT
from ivae_lab.reproduction.definition import SCALES, ExperimentError
from ivae_lab.reproduction.site_content import VERDICTS, Page
from ivae_lab.reproduction.table_files import write_table
from ivae_lab.terminal.lazy import Later
from ivae_lab.terminal.text_tables import text

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment
else:
    pd = Later("pandas")

TEMPLATES = Path(__file__).resolve().parent / "site_pages"
STATIC = ("style.css", "table.js")
MADE_BY = '<meta name="generator" content="ivae_lab.report">'  # tells a report from a folder that must not be replaced


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
        yield from (head | claim.record() | {"verdict": page.verdict(claim)} for claim in page.judgements)


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
    """Format a duration in its two largest units.

    Examples
    --------
    >>> duration(11520)
    '3 h 12 min'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def spans(numbers: Sequence[int]) -> str:
    """List whole numbers, with consecutive ones joined.

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
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in joined)


def _leading(text_shown: str) -> str:
    """The first word, by which a column is sorted: most texts begin with a number."""
    return next(iter(text_shown.split()), "")


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Give an empty folder that replaces `folder` at the end; if the writing raises, the old folder stays.

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
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
        if lonely and not folder.exists():
            folder.parent.rmdir()


def _replaceable(folder: Path) -> bool:
    if not folder.is_dir():
        return not folder.exists()
    index = folder / "index.html"
    return not any(folder.iterdir()) or (index.is_file() and MADE_BY in index.read_text("utf-8", errors="replace"))
