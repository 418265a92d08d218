"""Compare latents with sources or other latents: matched rows, MCCs of every kind, chance floors and intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ivae_lab.metrics.agreement import Agreement
from ivae_lab.metrics.mcc import Coefficient
from ivae_lab.metrics.resampling import Estimate
from ivae_lab.runs.arrays import read_latents
from ivae_lab.runs.results_csv import Row
from ivae_lab.tabular.reading import UNREADABLE, has_header
from ivae_lab.terminal.command_line import BadInputError
from ivae_lab.terminal.lazy import Later
from ivae_lab.terminal.messages import one_line

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Later("pandas")

COEFFICIENTS: list[Coefficient] = ["pearson", "spearman"]
CHANCE_DRAWS, DRAWS = 10, 200
FEWEST_ROWS = 4  # each half then has the two rows that a correlation needs
SCORED = {"all": "all", "in": "fitted", "out": "others"}
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LatentTable:
    """A table of latents, with its file, row ids, seed and split."""

    path: Path
    values: Floats  # (N, n)
    ids: NDArray[Any] | None = None  # (N,)
    seed: int | None = None  # None: the file has one table only
    split: str | None = None  # None: all rows

    @property
    def name(self) -> str:
        """File, seed and split, for messages."""
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"{self.path}{seed}, {self.split} rows" if self.split else f"{self.path}{seed}"


def read(path: Path, seed: int | None = None, split: str | None = None) -> LatentTable:
    """Read latents from a run folder, an .npz or a .csv.

    Parameters
    ----------
    path
        A run folder, an .npz with an array `mean` (N, n) or (S, N, n), or a .csv of numbers.
    seed, split
        The seed and split to read; ignored where the file has no seeds or splits.

    Raises
    ------
    BadInputError
        If there is no such file, seed or split, if there are several seeds and none is named, or if the file holds no
        table of numbers.
    """
    if not path.is_dir() and path.suffix not in (".npz", ".csv"):
        raise BadInputError(f"expected a run folder, an .npz or a .csv, got {path}")
    try:
        return _of_csv(path) if path.suffix == ".csv" else _of_arrays(path, read_latents(path), seed, split)
    except BadInputError:
        raise
    except UNREADABLE as error:
        raise BadInputError(f"expected latents in {path}, got: {one_line(error)}") from None


def _of_csv(path: Path) -> LatentTable:
    table = pd.read_csv(path, header=0 if has_header(path) else None)
    id_columns = [name for name in ("index", "Unnamed: 0") if name in table]  # the second: as pandas writes an index
    ids = table.pop(id_columns[0]).to_numpy() if id_columns else None
    if wrong := [str(name) for name in table if not pd.api.types.is_numeric_dtype(table[name])]:
        raise BadInputError(f"expected numbers in {path}, got text in column {', '.join(wrong)}")
    return _checked(LatentTable(path, table.to_numpy(dtype=np.float64), ids))


def _of_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], seed: int | None, split: str | None) -> LatentTable:
    if "mean" not in arrays:
        raise BadInputError(f"expected an array `mean` in {path}, got {', '.join(arrays) or 'none'}")
    mean = arrays["mean"]
    if mean.ndim not in (2, 3) or mean.dtype.kind not in "fiu":
        raise BadInputError(f"expected numbers (N, n) or (S, N, n) in {path}, got {mean.dtype} {mean.shape}")
    seed, values = _one_seed(path, arrays, seed) if mean.ndim == 3 else (None, mean)
    table = _checked(LatentTable(path, values.astype(np.float64), arrays.get("index"), seed))
    return _one_split(table, arrays["split"], split) if "split" in arrays else table


def _one_seed(path: Path, arrays: Mapping[str, NDArray[Any]], seed: int | None) -> tuple[int, NDArray[Any]]:
    """Return the named seed, or the only one, and its latents (N, n)."""
    mean = arrays["mean"]  # (S, N, n)
    seeds: list[int] = np.ravel(arrays.get("seed", np.arange(len(mean)))).tolist()
    if len(seeds) != len(mean):
        raise BadInputError(f"expected a seed for each of {len(mean)} models in {path}, got {len(seeds)}")
    chosen = seeds[0] if seed is None and len(seeds) == 1 else seed
    if chosen is None or chosen not in seeds:
        got = "none" if chosen is None else chosen
        raise BadInputError(f"expected seed= one of {', '.join(map(str, seeds))} for {path}, got {got}")
    return chosen, mean[seeds.index(chosen)]


def _one_split(table: LatentTable, splits: NDArray[Any], split: str | None) -> LatentTable:
    """Select the rows of the named split; without a name those of `test`, or all rows where there is no `test`."""
    if splits.shape != (len(table.values),):
        raise BadInputError(
            f"expected a split for each of {len(table.values)} rows in {table.path}, got {splits.shape}"
        )
    names = [*dict.fromkeys(splits.tolist())]
    if split is None and "test" not in names:
        return table
    chosen = split or "test"
    if chosen not in names:
        raise BadInputError(f"expected split= one of {', '.join(map(str, names))} for {table.path}, got {split}")
    rows = splits == chosen  # (N,)
    return replace(table, values=table.values[rows], ids=None if table.ids is None else table.ids[rows], split=chosen)


def _checked(table: LatentTable) -> LatentTable:
    """Return the table, or raise BadInputError if it has no columns, or its ids are not one per row and distinct."""
    rows, columns = table.values.shape
    if columns == 0:
        raise BadInputError(f"expected at least one column in {table.path}, got none")
    if table.ids is not None and table.ids.shape != (rows,):
        raise BadInputError(f"expected an id for each of {rows} rows in {table.path}, got shape {table.ids.shape}")
    if table.ids is not None and len(pd.unique(table.ids)) < rows:
        raise BadInputError(f"expected each row id once in {table.path}, got some repeatedly")
    return table


def matched(a: LatentTable, b: LatentTable) -> tuple[Floats, Floats, str]:
    """Select the rows that both tables have, in the same order: two arrays (N, n), and in words how they were matched.

    Raises
    ------
    BadInputError
        If rows can't be matched or too few are left, columns differ in number, or one is constant or not finite.
    """
    if a.ids is not None and b.ids is not None:
        of_a, of_b = pd.Index(a.ids), pd.Index(b.ids)
        rows = of_a.intersection(of_b)
        x, y = a.values[of_a.get_indexer(rows)], b.values[of_b.get_indexer(rows)]
        how = f"matched by id: {len(rows)}, of {len(a.ids)} in A and {len(b.ids)} in B"
    elif a.ids is not None or b.ids is not None:
        raise BadInputError(
            f"expected row ids (`index`) in both files or none, got some in {(b if a.ids is None else a).path} only"
        )
    elif len(a.values) != len(b.values):
        raise BadInputError(
            f"expected as many rows, or row ids (`index`), got {len(a.values)} and {len(b.values)} rows"
        )
    else:
        x, y, how = a.values, b.values, f"matched by order, as there are no ids: {len(a.values)}"
    _check(x, a.name)
    _check(y, b.name)
    if x.shape[1] != y.shape[1]:
        raise BadInputError(f"expected as many columns, got {x.shape[1]} and {y.shape[1]}")
    return x, y, how


def _check(values: Floats, name: str) -> None:
    """Raise BadInputError unless there are enough rows, all finite, and every column varies."""
    if len(values) < FEWEST_ROWS:
        raise BadInputError(f"expected at least {FEWEST_ROWS} rows that both files have, got {len(values)}")
    if wrong := int((~np.isfinite(values)).any(axis=1).sum()):
        raise BadInputError(f"expected finite numbers in {name}, got NaN or infinity in {wrong} of {len(values)} rows")
    if constant := [str(column) for column in np.flatnonzero(np.ptp(values, axis=0) == 0)]:
        raise BadInputError(f"expected columns that vary in {name}, got constant {', '.join(constant)}")


def score(a: Floats, b: Floats, draws: int = DRAWS) -> list[Row]:
    """Compute every variant of the MCC of two tables, with its chance floor and 95% interval over rows.

    Parameters
    ----------
    a, b
        Shape (N, n) each, finite, rows in the same order.
    draws
        Bootstrap resamples of the rows.

    Returns
    -------
    list
        Rows with `coefficient`, `alignment`, `rank`, `scored`, `points`, `value`, `low`, `high` and `chance`; see
        `ivae_lab.runs.agreement_csv`.

    Raises
    ------
    ValueError
        If the shapes do not fit or there are fewer than 4 rows.
    """
    metric = Agreement(["mean"], COEFFICIENTS, [20, None], CHANCE_DRAWS, half_seed=0, chance_seed=0)
    estimates = {
        seed: Estimate(table, table, None, None, np.arange(len(table)), {}) for seed, table in enumerate((a, b))
    }
    intervals = metric.intervals_over_rows(a, b, draws)
    rows = []
    for row in metric.pairs(estimates):
        variant = {key: row[key] for key in ("coefficient", "alignment", "rank", "scored", "points", "value")}
        low, high = intervals[row["coefficient"], (row["alignment"], row["rank"], row["scored"])]
        rows.append(variant | {"low": low, "high": high, "chance": row["chance"]})
    return rows


def readable(row: Row) -> Row:
    """Return a row of `score` with the names and words that the terminal shows."""
    return {
        "coefficient": row["coefficient"],
        "alignment": "strong" if row["rank"] is None else f"weak, rank {row['rank']}",
        "scored on": f"{row['points']} {SCORED[row['scored']]}",
        "MCC": row["value"],
        "95% over rows": f"{row['low']:.3f} to {row['high']:.3f}",
        "chance": row["chance"],
    }
