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

import sys
from collections.abc import Sequence
from pathlib import Path

from ivae_lab.reproduction.definition import ExperimentError, names
from ivae_lab.reproduction.site_content import ReportRequest, collect_all
from ivae_lab.reproduction.site_render import render, replacing
from ivae_lab.terminal.command_line import FAILED, OK, done, say

_NAME = "ivae_lab.report"
KEYS: dict[str, tuple[str, ...]] = {"outputs": (), "to": ()}


def parse(arguments: Sequence[str]) -> ReportRequest:
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
    return ReportRequest(outputs, Path(given.get("to", outputs / "report")))


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    files, stopped = "read the outputs and to write the report", "stopped; an older report is as it was"
    return done(_NAME, __doc__, arguments, lambda given: write(parse(given)), files, stopped)


def write(request: ReportRequest) -> int:
    """Collect and render everything; say where it lies and what could not be read."""
    with replacing(request.to) as folder:
        pages, problems = collect_all(request, folder)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
