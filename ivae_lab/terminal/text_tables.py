"""Tables for README, papers and terminals: Markdown, LaTeX (booktabs) and rich."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ivae_lab.terminal.lazy import Later

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Later("pandas")

# Name for readers -> column of a summary (`ivae_lab.reproduction.summary`).
SPREAD = {
    "median": "median",
    "sd data": "sd_data",
    "sd model": "sd_model",
    "best ELBO": "by_elbo",
    "oracle": "oracle",
    "chance": "chance",
}
_NUMBERS = ("mean", "low", "high", "data_seeds", "seeds", "diverged", *SPREAD.values())


def text(value: Any) -> str:
    """Format a cell: floats to three digits, "-" for a missing value."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and value != value) or value is pd.NA:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def brief(summary: pd.DataFrame) -> pd.DataFrame:
    """Shorten a summary (`ivae_lab.reproduction.summary`) to fewer columns, with names for readers."""
    shortened = summary[[column for column in summary if column not in _NUMBERS]]
    shortened = shortened.rename(columns=lambda column: str(column).rpartition(".")[2].replace("_", " "))
    several = bool((summary["data_seeds"] > 1).any())
    shortened["mean [95%]"] = summary.apply(_interval, axis=1)
    for name, column in SPREAD.items():
        if several or column != "sd_data":
            shortened[name] = summary[column]
    data_seeds = summary["data_seeds"].astype(str) + " x " if several else ""
    shortened["seeds"] = data_seeds + summary["seeds"].astype(str)
    shortened["diverged"] = summary["diverged"]
    return shortened


def _interval(row: pd.Series[Any]) -> str:
    mean, low, high = (f"{row[name]:.3f}" for name in ("mean", "low", "high"))
    return mean if low == "nan" else f"{mean} [{low}, {high}]"


def markdown(table: pd.DataFrame) -> str:
    """Format a table as Markdown, with a newline at its end."""
    lines = [[_inline(str(column)) for column in table.columns], ["---"] * len(table.columns)]
    lines += [[_inline(text(value)) for value in row] for row in table.itertuples(index=False, name=None)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _inline(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")


def latex(table: pd.DataFrame) -> str:
    """Format a table as LaTeX in the style of booktabs; Greek letters as mathematics, which every LaTeX knows."""
    return str(table.map(text).to_latex(index=False, escape=True)).replace("β", r"$\beta$")


def show(table: pd.DataFrame, title: str, whole: str | None = None) -> Any:
    """Format a table for the terminal (`rich.table.Table`); the column `whole` is never folded."""
    return show_rows([*map(str, table.columns)], table.itertuples(index=False, name=None), title, whole)


def show_rows(columns: Sequence[str], rows: Iterable[Iterable[Any]], title: str, whole: str | None = None) -> Any:
    """Format rows that are in no data frame, otherwise like `show`."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=Text(title), title_justify="left")  # Text, as [words] in brackets are markup elsewhere
    for column in columns:
        shown.add_column(Text(column), overflow="fold", no_wrap=column == whole)
    for row in rows:
        shown.add_row(*(Text(text(value)) for value in row))
    return shown
