"""One command per figure: `ivae-lab reproduce khemakhem2020/fig2b scale=quick`.

    ivae-lab reproduce --list                      all figures: paper, claim, state
    ivae-lab reproduce <paper>/<figure>            train what is missing, draw, judge
    ivae-lab reproduce <paper>                     every figure of a paper
    ivae-lab reproduce all                         every figure

    scale=quick|paper    quick (the default): minutes on two cores, smaller than the paper, and labelled so; paper: its
                         sizes, steps and seeds
    train=false          draw with what is there
    hydra/launcher=slurm train on a cluster, all missing cells as one array job (docs/cluster.md)
    wait=false           with it: leave right after the submission; the same command shows how it stands, submits what
                         has become missing, and draws when all is there
    retry=true           train again also what raised an error of its own under this very code
    record=true          keep rows and provenance in experiments/<paper>/results/, beside rows that were kept before and
                         that no run folder holds; those of the quick scale only while there are none of the paper's
    outputs=FOLDER       where run folders and figures lie (outputs)
    compute.threads=1    ... and any other override of `ivae-lab train`; one that changes numbers gives the figure
                         a folder of its own and is named on it

Cells that are finished are not trained again, wherever they were computed under the outputs; what was interrupted
continues. Exit codes: 0 all there, 1 a cell failed, diverged or is missing (the figure is drawn with what exists), 2
bad input, 130 and 143 stopped and ready to be continued. Of several figures, one that cannot be made is named, the
others are made, and the largest code is given.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from rich.console import Console

from ivae_lab.reproduction.definition import ExperimentError, Figure, load
from ivae_lab.reproduction.recorded_rows import name_unreadable, records_of, set_aside
from ivae_lab.reproduction.request import KEYS as KEYS  # for completion
from ivae_lab.reproduction.request import NAME, ReproduceRequest, check_neutral, parse
from ivae_lab.reproduction.show import list_figures, print_unfinished, report
from ivae_lab.reproduction.train_missing import CellTraining
from ivae_lab.terminal.command_line import BAD_INPUT, FAILED, OK, STOPPED, done, say
from ivae_lab.terminal.messages import one_line


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    files, stopped = "read and write under the outputs", "stopped; the same command continues"
    return done(NAME, __doc__, arguments or ["--help"], _run, files, stopped)


def _run(arguments: Sequence[str]) -> int:
    console = Console(markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 120  # a log: the table fits
    if arguments[0] == "--list":
        return list_figures(arguments[1:], console)
    return _all(parse(arguments), console)


def _all(request: ReproduceRequest, console: Console) -> int:
    """Reproduce each figure; one that cannot be made does not stop the others. The largest exit code."""
    check_neutral(request.neutral)
    name_unreadable(request.outputs, console)
    codes: dict[str, int] = {}
    several = len(request.figures) > 1
    for number, name in enumerate(request.figures, 1):
        if several:
            console.print(f"figure {number} of {len(request.figures)}", highlight=False)
        codes[name] = _one(name, request, console)
        if codes[name] in STOPPED:
            break
    else:
        if several:
            _sum_up(codes, console)
    return max(codes.values())


def _one(name: str, request: ReproduceRequest, console: Console) -> int:
    """Reproduce a figure; its exit code."""
    try:
        return reproduce(load(name), request, console)
    except ExperimentError as error:
        return say(NAME, error, BAD_INPUT)
    except OSError:
        raise
    except Exception:  # such as an error in the paper's figures.py: the traceback is what helps
        traceback.print_exc()
        return say(NAME, f"{name}: could not be made, see above; what was trained is kept", FAILED)


def _sum_up(codes: dict[str, int], console: Console) -> None:
    """Name the figures that failed: among many, their own messages have scrolled away."""
    bad = [f"{name} ({code})" for name, code in codes.items() if code]
    others = f"; others: {', '.join(bad)}" if bad else ""
    console.print(f"{len(codes) - len(bad)} of {len(codes)} figures ended with exit code 0{others}", soft_wrap=True)


def reproduce(figure: Figure, request: ReproduceRequest, console: Console) -> int:
    """Train the missing cells of a figure, draw it, and say what came out."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from ivae_lab.reproduction.cells import expand
    from ivae_lab.reproduction.evidence import FigureEvidence, gather
    from ivae_lab.reproduction.found_runs import find
    from ivae_lab.reproduction.join_records import join
    from ivae_lab.reproduction.present import present
    from ivae_lab.reproduction.records import record

    console.rule(f"{figure.full_name}: {figure.title}")
    kept = records_of(figure, request.scale) if request.record else []
    try:
        cells = expand(figure, request.scale, request.changed)
    except (HydraException, OmegaConfBaseException) as error:
        raise ExperimentError(f"{figure.full_name}: {one_line(error)}") from None
    training = CellTraining(cells, request, console)
    if request.train and (code := training.run()) in STOPPED:
        return code
    found = find(request.outputs)
    if not request.wait and training.queued:
        training.say_progress(found)
        console.print("under way; the same command shows how it stands, and draws when all is there", soft_wrap=True)
        return OK
    for line in set_aside(found, cells):
        console.print(line, style="bold red", soft_wrap=True, highlight=False)
    evidence = FigureEvidence(figure, request.scale, request.changed, request.command(figure))
    gather(figure, cells, found, evidence)
    if rows := sum(join(evidence, each, cells) for each in kept):
        console.print(f"{rows} rows that no run folder holds stay as they are recorded", soft_wrap=True)
    training.explain(evidence)
    if not evidence.done:
        print_unfinished(evidence.plain() | {"problems": evidence.problems}, console)
        console.print(f"no runs; {evidence.command} trains them", soft_wrap=True, highlight=False)
        return training.code if training.code == BAD_INPUT else FAILED
    shown = present(evidence, request.folder(figure))
    report(shown, console)
    if request.record:
        for path in record(evidence):
            console.print(f"recorded {path}", soft_wrap=True, highlight=False)
    diverged = any(run["diverged"] for run in evidence.runs.values())  # of the seeds that the figure asks for
    return FAILED if evidence.missing or diverged else OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
