"""A figure of a paper as data: the cells to train, the pictures to draw, and the claims of the paper.

`experiments/<paper>/<figure>.yaml` holds a `Figure`, `experiments/<paper>/reported.csv` the paper's numbers and
orderings, and `experiments/<paper>/figures.py` the functions that draw. Nothing here trains or draws.
"""

from __future__ import annotations

import difflib
import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from ivae_lab.config.paths import EXPERIMENTS
from ivae_lab.terminal.command_line import BadInputError
from ivae_lab.terminal.messages import one_line

Scale = Literal["quick", "paper"]
SCALES: tuple[Scale, ...] = ("quick", "paper")
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # nine times as fast where libyaml is there
Selector = dict[str, Any]  # column of the figure's rows -> the value, or a list of values, that a row must have


class ExperimentError(BadInputError):
    """A figure that does not exist, or whose definition is invalid; the message is one line."""


class _Strict(BaseModel):
    """Base of the definitions: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Line(_Strict):
    """A sweep: overrides for `python -m ivae_lab.train -m`, without `seed`."""

    variant: str  # paper, released, ours, ... : claims are tested for each variant by itself
    overrides: list[str]
    quick: list[str] = []  # further overrides in the quick scale; one of the same key replaces
    label: str | None = None  # in legends and tables; by default the method's name
    seeds: dict[Scale, PositiveInt] | None = None  # number of model seeds, if it differs from the figure's
    scales: list[Scale] = list(SCALES)  # scales that train this line


class SettingChoice(_Strict):
    """A choice among the values of a configuration key: in every group of runs, the best value is kept."""

    over: str
    by: str  # the column whose mean over seeds is largest: elbo; anything with the true sources is an oracle


class Claim(_Strict):
    """A test of a claim of `reported.csv` on rows: each selector picks rows, `per` tests each value of a column."""

    claim: str  # its id in reported.csv
    test: Literal["at_least", "at_most", "within", "above", "not_below", "correlated", "widens"]
    of: Selector = {}
    than: list[Selector] = []
    per: str | None = None
    score: str | None = None  # a column of the rows; by default the figure's
    against: str = ""  # the other column of a correlation; the column over which a difference widens
    table: str = "rows"

    @model_validator(mode="after")
    def _fits_its_test(self) -> Self:
        ordering = self.test in ("above", "not_below", "widens")
        if ordering != bool(self.than):
            raise ValueError(
                f"expected `than` with above, not_below and widens and with no other test, got {self.test}"
            )
        if (self.test in ("correlated", "widens")) != bool(self.against):
            raise ValueError(f"expected `against` with correlated and widens and with no other test, got {self.test}")
        return self


class Reported(_Strict):
    """A row of `reported.csv`: a number or an ordering that the paper states."""

    claim: str
    figure: str
    where: str
    statement: str
    value: float | None  # None for an ordering
    tolerance: float | None


class Figure(_Strict):
    """Everything that `python -m ivae_lab.reproduce <paper>/<figure>` needs to know.

    Attributes
    ----------
    title, where, claim
        Its title, its place in the paper, and its claim, in a sentence.
    cells
        The sweeps to train.
    seeds
        Model seeds 0, 1, ... in each scale.
    score, scored
        The column that the figure is about, and the table that has it: the rows, or a further one.
    columns
        Keys of the configuration that become columns of the rows.
    choose
        Settings that the paper chose among; the choices are made in this order before anything is drawn or tested.
    table
        Columns of the summary table: it has a line for each combination of their values.
    tables
        Further tables, made by functions of `figures.py` from the run folders: name -> function.
    draw, draw_runs
        Functions of `figures.py` that draw pictures: from the tables, and from the rows and the run folders, for
        arrays too large for a table. The latter are drawn only where the run folders exist.
    examples
        Whether the report shows the images of a run: false where the runs are hardly trained.
    claims, deviations
        The tests of claims, and the differences from the paper.
    """

    title: str
    where: str
    claim: str
    cells: list[Line] = Field(min_length=1)
    seeds: dict[Scale, PositiveInt]
    score: str = "mcc_mean"
    scored: str = "rows"
    columns: list[str] = []
    choose: list[SettingChoice] = []
    table: list[str] = ["variant", "label"]
    tables: dict[str, str] = {}
    draw: list[str] = Field(min_length=1)
    draw_runs: list[str] = []
    examples: bool = True
    claims: list[Claim] = []
    deviations: list[str] = []
    paper: str = ""
    name: str = ""

    @model_validator(mode="after")
    def _refers_to_what_is_there(self) -> Self:
        counted = [line.seeds or self.seeds for line in self.cells]
        if unknown := [scale for scale in SCALES if any(scale not in seeds for seeds in counted)]:
            raise ValueError(f"expected numbers of seeds in each scale, got none in {', '.join(unknown)}")
        if unset := [choice.over for choice in self.choose if choice.over not in self.columns]:
            raise ValueError(f"expected choices over keys that are among the columns, got {', '.join(unset)}")
        asked = [self.scored, *(claim.table for claim in self.claims)]
        if absent := [table for table in asked if table not in ("rows", *self.tables)]:
            raise ValueError(f"expected a score and claims of the rows or one of the tables, got {', '.join(absent)}")
        return self

    @property
    def full_name(self) -> str:
        """`<paper>/<figure>`."""
        return f"{self.paper}/{self.name}"


def names() -> list[str]:
    """Names of all figures, as `<paper>/<figure>`, in the order of papers and of names."""
    return [f"{path.parent.name}/{path.stem}" for path in sorted(EXPERIMENTS.glob("*/*.yaml"))]


def load(name: str) -> Figure:
    """Read a figure.

    Raises
    ------
    ExperimentError
        If there is none of this name (with the nearest names), or its file is invalid.
    """
    path = EXPERIMENTS / f"{name}.yaml"
    if name not in names():
        raise ExperimentError(f"expected a figure, got {name!r}; {_nearest(name)}")
    paper, figure = name.split("/")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=YAML_LOADER)
        if not isinstance(content, dict) or {"paper", "name"} & set(content):
            raise ExperimentError(f"{name}.yaml: expected the keys of a figure, without paper and name, got others")
        return Figure.model_validate({**content, "paper": paper, "name": figure})
    except ValidationError as error:
        raise ExperimentError(f"{name}.yaml: {_first_of(error)}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ExperimentError(f"{name}.yaml: expected YAML, got: {one_line(error)}") from None


def _first_of(error: ValidationError) -> str:
    """The first error, on one line."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "value_error":  # raised by a validator of this module, whose message has the value
        return f"{where}: {first['ctx']['error']}" if where else str(first["ctx"]["error"])
    return f"{where}: {first['msg']}, got {first['input']!r}"


def _nearest(name: str) -> str:
    """Suggest figures: those of a similar full name first, then those of a similar name in any paper."""
    known = names()
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    short = {full.split("/")[1] for full in known}
    alike = difflib.get_close_matches(name.split("/")[-1], short, n=3, cutoff=0.6)
    near += [full for figure in alike for full in known if full.split("/")[1] == figure and full not in near]
    return f"nearest: {', '.join(near[:5])}" if near else f"there are: {', '.join(known)}"


@cache
def reported(paper: str) -> dict[str, Reported]:
    """Read the numbers and orderings that a paper states, by the claim's id."""
    import pandas as pd

    try:
        table = pd.read_csv(EXPERIMENTS / paper / "reported.csv").astype(object)
        rows = table.where(table.notna(), None).to_dict("records")
        stated = [Reported.model_validate(row) for row in rows]
    except ValidationError as error:
        raise ExperimentError(f"{paper}/reported.csv: {_first_of(error)}") from None
    except (OSError, ValueError) as error:
        raise ExperimentError(f"{paper}/reported.csv: expected a table, got: {one_line(error)}") from None
    if len({row.claim for row in stated}) < len(stated):
        raise ExperimentError(f"{paper}/reported.csv: expected a row for each claim, got several for one")
    return {row.claim: row for row in stated}


@cache
def _functions(paper: str) -> ModuleType:
    path = EXPERIMENTS / paper / "figures.py"
    spec = importlib.util.spec_from_file_location(f"ivae_lab_experiments_{paper}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ExperimentError(f"expected {paper}/figures.py, got none")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def function(paper: str, name: str) -> Callable[..., Any]:
    """Return a function of the paper's `figures.py`."""
    attribute = getattr(_functions(paper), name, None)
    if attribute is None:
        raise ExperimentError(f"expected a function of {paper}/figures.py, got {name!r}")
    return attribute  # type: ignore[no-any-return]
