"""Encode new rows of a table to latents, in blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from ivae_lab.tabular.reading import Table, numbers
from ivae_lab.tabular.writing import Block, block_rows
from ivae_lab.terminal.messages import listed

if TYPE_CHECKING:
    import pandas as pd

    from ivae_lab.inference.trained_model import Trained
    from ivae_lab.tabular.preprocessing import Floats, Preprocessing


def encoded(trained: Trained, table: Table, rows: int | None = None) -> Iterator[Block]:
    """Encode all rows, in blocks of `rows` rows.

    Raises
    ------
    ValueError
        For columns, values or labels that the model can't take: one line.
    """
    columns, of_u = trained.recipe.columns(table.names), _u_columns(trained)
    _check_columns(trained, table, columns, of_u)
    beside = [*of_u, *(name for name in ("index",) if name in table.names and name not in columns)]
    size = rows or block_rows(len(columns))
    blocks = table.blocks([*dict.fromkeys([*columns, *beside])], size)
    for number, frame in enumerate(_overlapping(blocks, trained.recipe.window)):
        yield _latents(trained, frame, columns, of_u, number)


def _u_columns(trained: Trained) -> list[str]:
    """Columns of u, if the encoder sees it."""
    return (trained.recipe.u_columns or ["u"]) if trained.model.encoder_sees_u else []


def _check_columns(trained: Trained, table: Table, columns: list[str], of_u: list[str]) -> None:
    known, expected = trained.recipe.x_columns, trained.spec.x_dim
    if known is not None and set(known) - set(table.names):
        raise ValueError(f"expected the columns {listed(known)} in {table.path}, got {listed(table.names)}")
    if known is None and len(columns) != expected:
        got = f"{len(columns)}: {listed(columns)}"
        raise ValueError(f"expected {expected} columns of x in {table.path}, as in training, got {got}")
    if absent := [name for name in of_u if name not in table.names]:
        raise ValueError(
            f"expected {absent[0]} in {table.path}, which this model's encoder sees, got {listed(table.names)}"
        )


def _overlapping(frames: Iterable[pd.DataFrame], window: int) -> Iterator[pd.DataFrame]:
    """Prepend to each block the last 2 w rows of the one before, so that each row has its neighbours."""
    if not window:
        yield from frames
        return
    import pandas as pd

    before: list[pd.DataFrame] = []
    for frame in frames:
        joined = pd.concat([*before, frame])
        if len(joined) > 2 * window:
            yield joined
        before = [joined.iloc[-2 * window :]]


def _latents(trained: Trained, frame: pd.DataFrame, columns: list[str], of_u: list[str], number: int) -> Block:
    recipe, middle = trained.recipe, slice(trained.recipe.window, len(frame) - trained.recipe.window)
    table = numbers(frame[columns]) if recipe.fill is None and recipe.codes is None else _fitted(recipe, frame[columns])
    x = recipe.windows(table, np.arange(len(frame))[middle])
    u = frame[of_u].to_numpy()[middle] if of_u else None
    posterior = trained.encode(trained.batch(x, u[:, 0] if u is not None and len(of_u) == 1 else u), number)
    index = frame["index"] if "index" in frame and "index" not in columns else frame.index
    named = {"p" if name == "probabilities" else name: values for name, values in posterior.items()}
    return {"index": index.to_numpy()[middle], **named}


def _fitted(recipe: Preprocessing, frame: pd.DataFrame) -> Floats:
    """Convert codes to one-hot columns, or fill in missing numbers."""
    import pandas as pd

    return numbers(pd.DataFrame(recipe.numbers([frame[name].to_numpy() for name in frame]), index=frame.index))
