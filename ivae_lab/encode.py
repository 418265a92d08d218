"""Encodes new rows by a trained model: the posterior's mean, standard deviation and one sample of each.

    ivae-lab encode run=FOLDER data.path=FILE [out=FILE] [seed=S]

run        a run folder, finished; or `latest`, or how its name below outputs/ and no other begins
data.path  rows as the run's data were before any preprocessing, which is done here as it was fitted there: an .npz
           with x (N, d), an x.npy, a .parquet or a .csv with a column for each of the d. Where the encoder sees u, its
           labels are the array u (beside an x.npy: u.npy) or the column u. Row ids are the array or column index, else
           the rows' numbers. All but .npz are read block by block: they may be larger than memory. Of a run of
           data=file columns have the names that they had there; of one with data.window=w, rows are taken as one
           stretch of time, whose first and last w are left out
out        a .parquet (default: <name of the data>-latents.parquet here), written block by block; or an .npz, for what
           fits in memory, which `ivae-lab score` reads too
seed       which model of a run with several

Columns: index; mean_0, mean_1, ...; sd_0, ...; sample_0, ... (from the seed's own stream: the same command draws the
same); and for a prior with components p_0, p_1, ...: p(k given z) at the mean, p_j_k of component k of facet j. In an
.npz these are arrays index (N,), mean, sd, sample (N, n) and p (N, K).

Exit codes: 0 encoded, 2 bad input, 130 and 143 stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ivae_lab.runs.folder import run_folder
from ivae_lab.tabular.reading import Table, numbers, open_table
from ivae_lab.tabular.writing import Block, block_rows, out_path, stream
from ivae_lab.terminal.command_line import done, pairs, whole, wrong_input
from ivae_lab.terminal.messages import listed

if TYPE_CHECKING:
    import pandas as pd

    from ivae_lab.inference.trained_model import Trained
    from ivae_lab.tabular.preprocessing import Floats, Recipe

KEYS: dict[str, tuple[str, ...]] = {"run": (), "data.path": (), "out": (), "seed": ()}


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return done("ivae_lab.encode", __doc__, arguments, _run)


def encoded(trained: Trained, table: Table, rows: int | None = None) -> Iterator[Block]:
    """The latents of all rows, in blocks of so many.

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
    """Those of u, where the encoder sees it."""
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
    """Blocks that begin with the last 2 w rows of the one before, so that each row of theirs has its neighbours."""
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
    found = trained.encode(trained.batch(x, u[:, 0] if u is not None and len(of_u) == 1 else u), number)
    index = frame["index"] if "index" in frame and "index" not in columns else frame.index
    named = {"p" if name == "probabilities" else name: values for name, values in found.items()}
    return {"index": index.to_numpy()[middle], **named}


def _fitted(recipe: Recipe, frame: pd.DataFrame) -> Floats:
    """Codes as one-hot columns, or numbers with what stands for missing ones."""
    import pandas as pd

    return numbers(pd.DataFrame(recipe.numbers([frame[name].to_numpy() for name in frame]), index=frame.index))


def _run(arguments: Sequence[str]) -> None:
    given = pairs(arguments, KEYS, needed=("run", "data.path"))
    path = Path(given["data.path"])
    out = out_path(given.get("out", f"{path.stem}-latents.parquet"))
    seed = whole("seed", given["seed"], 0) if "seed" in given else None
    with wrong_input():
        table = open_table(path)
    folder = run_folder(given["run"])
    from rich.console import Console

    from ivae_lab.inference.trained_model import load

    with wrong_input():
        trained = load(folder, seed)
        stream(out, encoded(trained, table), table.rows, Console(stderr=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
