"""The user's own data: x and u from a file, with a summary of the rows that is printed before the training."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray

from ivae_lab.config.numbers import Count, Fraction, PositiveInt
from ivae_lab.core.data import Batch, DataSpec, Splits
from ivae_lab.data.splitting import Rows, SplitBy, check_split, middles, parts_of, starts_of
from ivae_lab.tabular.columns import Column, LabelColumn, columns_of, is_label, is_numeric, labels_of, rare
from ivae_lab.tabular.preprocessing import Preprocess, Preprocessing, fit_preprocess
from ivae_lab.tabular.reading import Table, open_table
from ivae_lab.terminal.messages import did_you_mean, listed

Names = str | list[str] | None
Chosen = dict[str, Column]  # columns by name, (N,) each
NAMED = ("u", "sources", "group", "index")  # names of arrays that are used without configuration
_BLOCK = 65536  # rows read at a time


@dataclass(frozen=True)
class Raw:
    """Columns of a file by their role, N rows each, in the order of the file."""

    x: Chosen
    u: Chosen
    sources: Chosen
    group: Column
    index: Rows  # ids
    place: Rows  # positions in the file

    @property
    def rows(self) -> int:
        """N."""
        return len(self.group)

    def __getitem__(self, rows: Rows) -> Raw:
        x, u, sources = (_rows(part, rows) for part in (self.x, self.u, self.sources))
        return Raw(x, u, sources, self.group[rows], self.index[rows], self.place[rows])


@dataclass(frozen=True, kw_only=True)
class File:
    """Rows of an .npz, a .csv or a .parquet.

    Rows are in the order of time, if they have one. Labels of u, constant columns, means for missing values and
    preprocessing are determined on the training part.

    Parameters
    ----------
    path
        An .npz with arrays `x` (N, d) and, optionally, `u` (N,) or (N, k), `sources` (N, n), `group` and `index`
        (N,); or a table with named columns.
    x, u, sources, group, index
        Other names for these, or lists of columns. In a table with named columns x are all columns without another
        role. Rows of one `group`, such as a session, stay together; `index` are ids of rows.
    u_kind
        `labels`: each value has its own prior; `columns`: inputs of networks, numbers as they are, other values as a 0
        or 1 for each value; `auto`: labels for one column of whole numbers or words.
    segments
        Cut the rows, in their order, into this many equal segments; u is the number of the segment.
    observation
        The kind of x: `real`, `binary` (0 and 1), `counts` (0, 1, 2, ...) or `codes` (words or whole numbers).
    window
        x of a row also holds the x of this many rows before it and after it, in the same group.
    missing
        Rows with missing values: `refuse` them, `drop` them, or fill in the training part's `mean` (real x only).
    least_per_u, rare
        Labels with fewer rows: `refuse` them, `drop` their rows, or `merge` them into one.
    split, split_by, block_rows, gap
        Fractions of training, validation and test part, and how rows are split; see `splitting.parts_of`.
    preprocess, leading
        `none`, `standardise` or `whiten`, for real x; whitening scales axes after the first `leading` like the last of
        these (null: all axes to unit variance).
    content
        The file's SHA-256, so that a run knows its data wherever the file lies.
    """

    path: str | None
    x: Names
    u: Names
    sources: Names
    group: str | None
    index: str | None
    u_kind: Literal["auto", "labels", "columns"]
    segments: Annotated[int, Ge(2)] | None
    observation: Literal["real", "binary", "counts", "codes"]
    window: Count
    missing: Literal["refuse", "drop", "mean"]
    least_per_u: PositiveInt
    rare: Literal["refuse", "drop", "merge"]
    split: list[Fraction]
    split_by: SplitBy
    block_rows: PositiveInt | None
    gap: Count
    preprocess: Preprocess
    leading: PositiveInt | None
    content: str | None

    def __post_init__(self) -> None:
        if self.path is None:
            raise ValueError("expected data.path=FILE, an .npz, .csv or .parquet, got none")
        if self.segments is not None and self.u is not None:
            raise ValueError(f"expected u or segments, got u={self.u} and segments={self.segments}")
        if self.segments is not None and self.u_kind == "columns":
            raise ValueError("expected u_kind=auto or labels with segments, got columns")
        if self.observation != "real" and self.preprocess != "none":
            raise ValueError(f"expected preprocess=none with observation={self.observation}, got {self.preprocess}")
        if self.observation != "real" and self.missing == "mean":
            raise ValueError(f"expected missing=refuse or drop with observation={self.observation}, got mean")
        if self.window and self.split_by == "rows":
            raise ValueError(
                f"expected split_by=blocks or groups with window={self.window}, whose rows overlap, got rows"
            )
        if self.window and self.split_by == "blocks" and self.gap < 2 * self.window:
            raise ValueError(f"expected gap of at least {2 * self.window} with window={self.window}, got {self.gap}")

    def __call__(self, seed: int) -> Splits:
        """Read the file and split its rows."""
        table = open_table(Path(str(self.path)))
        raw = self._raw(table)
        summary = [f"{table.path}: {table.rows:,} rows"]
        raw = self._complete(raw, summary)
        raw = self._frequent(raw, summary)
        runs = _runs(raw)
        rows = middles(runs, self.window)
        check_split(self.split, len(rows))
        together = (raw.group if self.split_by == "groups" else runs)[rows]
        parts = parts_of(together, self.split, self.split_by, self.block_rows, self.gap, seed)
        recipe, varying = self._columns(raw, rows[parts[0]], summary)
        with _of_training():
            x = recipe.windows(recipe.numbers([*varying.values()]), rows)
        recipe = self._preprocessed(recipe, x[parts[0]])
        whole = _batch(raw, recipe.apply(x), rows, recipe)
        train, valid, test = (whole[torch.from_numpy(part)] for part in parts)
        spec = self._spec(whole, recipe, len(train))
        summary += [*self._schema(spec, whole), *self._shared_out(whole, [len(part) for part in parts])]
        return Splits(train, valid, test, spec, summary=tuple(summary), recipe=recipe)

    def _raw(self, table: Table) -> Raw:
        """Read the columns, sorted by their role."""
        import pandas as pd

        named = {name: self._names(table, name) for name in NAMED}
        used = {column for names in named.values() for column in names}
        named["x"] = self._names(table, "x") or [column for column in table.names if column not in used]
        if not named["x"]:
            raise ValueError(f"expected columns for x in {table.path}, got {listed(table.names)} only")
        frame = pd.concat(
            [*table.blocks([*dict.fromkeys(column for names in named.values() for column in names)], _BLOCK)]
        )
        columns = {name: {column: frame[column].to_numpy() for column in names} for name, names in named.items()}
        if self.segments is not None:
            columns["u"] = {"segment": np.arange(table.rows) * self.segments // table.rows}
        for name in ("group", "index"):
            if len(columns[name]) > 1:
                raise ValueError(f"expected one column as {name}, got {listed([*columns[name]])}")
        group = next(iter(columns["group"].values()), np.zeros(table.rows, np.int64))
        index = next(iter(columns["index"].values()), np.arange(table.rows))
        self._check_x(columns["x"])
        for name, column in columns["sources"].items():
            if not is_numeric(column):
                raise ValueError(f"expected numbers as sources, got {_example(column)!r} in column {name}")
        return Raw(columns["x"], columns["u"], columns["sources"], group, _ids(index), np.arange(table.rows))

    def _names(self, table: Table, name: str) -> list[str]:
        """Columns for x, u and so on: those that are configured, or in a file of arrays the array of that name."""
        given: Names = getattr(self, name)
        if given is not None:
            names = [given] if isinstance(given, str) else given
            return [column for given_name in names for column in _columns_named(table, f"data.{name}", given_name)]
        arrays = table.path.suffix in (".npz", ".npy") and not (name == "u" and self.segments is not None)
        return _of_array(table, name) if arrays else []

    def _check_x(self, columns: Chosen) -> None:
        """Refuse x that do not fit `observation`."""
        if self.observation == "codes":
            if wrong := [name for name, column in columns.items() if not is_label(column)]:
                raise ValueError(
                    f"expected words or whole numbers as codes, got {columns[wrong[0]].dtype} in column {wrong[0]}"
                )
            return
        for name, column in columns.items():
            if not is_numeric(column):
                raise ValueError(
                    f"expected numbers in column {name}, got {_example(column)!r} (data.x names those of x)"
                )
            values = column[np.isfinite(column)] if column.dtype.kind == "f" else column
            if self.observation == "binary" and not np.isin(values, (0, 1)).all():
                raise ValueError(f"expected 0 and 1 in column {name}, got {values[~np.isin(values, (0, 1))][0]}")
            if self.observation == "counts" and (wrong := (values < 0) | (values != np.round(values))).any():
                raise ValueError(f"expected counts 0, 1, 2, ... in column {name}, got {values[wrong][0]}")

    def _complete(self, raw: Raw, summary: list[str]) -> Raw:
        """Drop rows with missing values, unless they are refused or filled."""
        holes = {name: _missing(column) for name, column in {**raw.x, **raw.u, **raw.sources}.items()}
        filled = set(raw.x) if self.missing == "mean" else set()
        lacking = [hole for name, hole in holes.items() if name not in filled and hole.any()]
        if not lacking:
            return raw
        rows = np.logical_or.reduce(lacking)  # (N,)
        if self.missing != "drop":
            name = next(name for name, hole in holes.items() if name not in filled and hole.any())
            first = int(np.flatnonzero(holes[name])[0])
            raise ValueError(
                f"expected no missing or infinite values, got some in {rows.sum():,} of {raw.rows:,} rows, the first "
                f"in row {first}, column {name} (missing=drop leaves such rows out; missing=mean puts means into x)"
            )
        summary.append(f"{rows.sum():,} rows with missing values left out")
        return raw[np.flatnonzero(~rows)]

    def _frequent(self, raw: Raw, summary: list[str]) -> Raw:
        """Drop rows of rare labels, unless they are refused or merged."""
        if not raw.u or not self._labels(raw):
            return raw
        column = next(iter(raw.u.values()))
        few = rare(column, self.least_per_u)
        if not few or self.rare == "merge":
            return raw
        if self.rare == "refuse":
            raise ValueError(
                f"expected at least {self.least_per_u} rows of each value of u, got fewer of {len(few)}, such as "
                f"{few[0]} (least_per_u=1 takes them, rare=drop leaves them out, rare=merge makes them one)"
            )
        rows = np.isin(column, few)
        summary.append(f"{rows.sum():,} rows of {len(few)} rare values of u left out")
        return raw[np.flatnonzero(~rows)]

    def _labels(self, raw: Raw) -> bool:
        """Return True if u is labels."""
        columns = [*raw.u.values()]
        labels = len(columns) == 1 and is_label(columns[0])
        if self.u_kind == "labels" and not labels:
            got = f"{len(columns)} columns" if len(columns) != 1 else f"{columns[0].dtype} numbers"
            raise ValueError(f"expected one column of whole numbers or words for u_kind=labels, got {got}")
        return labels and self.u_kind != "columns"

    def _columns(self, raw: Raw, train: Rows, summary: list[str]) -> tuple[Preprocessing, Chosen]:
        """Fit the columns' preprocessing on the training rows; return it and the columns of x that vary there."""
        varying = {name: column for name, column in raw.x.items() if _varies(column[train])}
        if not varying:
            raise ValueError(f"expected columns of x that vary, got {len(raw.x)} constant ones")
        if constant := [name for name in raw.x if name not in varying]:
            summary.append(
                f"{len(constant)} constant columns left out: {', '.join(constant[:8])}{', ...' * (len(constant) > 8)}"
            )
        recipe = Preprocessing(x_columns=[*varying], window=self.window, u_columns=[*raw.u])
        if self.missing == "mean":
            recipe = replace(recipe, fill=[float(np.nanmean(column[train])) for column in varying.values()])
        if self.observation == "codes":
            recipe = replace(recipe, codes=[labels_of(column[train], 1, merge=False) for column in varying.values()])
        if raw.u:
            columns = [column[train] for column in raw.u.values()]
            merge = self.rare == "merge"
            u = labels_of(columns[0], self.least_per_u, merge) if self._labels(raw) else columns_of(columns)
            recipe = replace(recipe, u=u)
        return recipe, varying

    def _preprocessed(self, recipe: Preprocessing, x: NDArray[Any]) -> Preprocessing:
        """Add shift and scale, fitted to the training part's x, (N, d), to the recipe."""
        columns = x.shape[1]
        fitted = fit_preprocess(x, self.preprocess, min(self.leading or columns, columns))
        return replace(recipe, shift=fitted.shift, scale=fitted.scale)

    def _spec(self, whole: Batch, recipe: Preprocessing, train_rows: int) -> DataSpec:
        labels = isinstance(recipe.u, LabelColumn)
        u_dim = (
            len(recipe.u.values) if isinstance(recipe.u, LabelColumn) else 0 if whole.u is None else whole.u.shape[1]
        )
        return DataSpec(
            x_dim=whole.x.shape[1],
            u_dim=u_dim,
            source_dim=None if whole.z is None else whole.z.shape[1],
            train_rows=train_rows,
            binary=self.observation == "binary",
            u_kind="labels" if labels or whole.u is None else "columns",
            counts=self.observation == "counts",
            codes=tuple(len(code.values) for code in recipe.codes or ()) * (2 * self.window + 1),
        )

    def _schema(self, spec: DataSpec, whole: Batch) -> list[str]:
        """Describe x, u and the sources in words."""
        columns = {"real": "real numbers", "codes": f"one-hot columns of {len(spec.codes)} codes"}
        kind = columns.get(self.observation, self.observation)
        done = {"none": "", "standardise": ", standardised", "whiten": ", whitened"}[self.preprocess]
        return [
            f"x: {spec.x_dim} {kind} from {whole.x.min():.3g} to {whole.x.max():.3g}{done}",
            f"u: {_u_in_words(whole.u, spec)}",
            f"true sources: {spec.source_dim or 'unknown'}",
        ]

    def _shared_out(self, whole: Batch, parts: list[int]) -> list[str]:
        """Describe in words how many rows each part has."""
        import pandas as pd

        named = zip(("training", "validation", "test"), parts, strict=True)
        by = "single rows" if self.split_by == "rows" else self.split_by
        summary = [f"rows by {by}: " + ", ".join(f"{count:,} {name}" for name, count in named)]
        if left := len(whole) - sum(parts):
            summary.append(f"{left:,} rows near another part left out")
        if doubled := int(pd.DataFrame(whole.x.numpy()).duplicated().sum()):
            summary.append(f"{doubled:,} rows have the x of an earlier row")
        return summary


@contextmanager
def _of_training() -> Iterator[None]:
    """Explain the error of a value that the training part does not have."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}: the training part has no other (split_by, block_rows)") from None


def _batch(raw: Raw, x: NDArray[np.float32], rows: Rows, recipe: Preprocessing) -> Batch:
    """All rows as a model sees them."""
    with _of_training():
        u = recipe.apply_u([column[rows] for column in raw.u.values()])
    z = np.column_stack([*raw.sources.values()]).astype(np.float32)[rows] if raw.sources else None
    return Batch(*(None if part is None else torch.from_numpy(part) for part in (x, u, z, raw.index[rows])))  # type: ignore[arg-type]


def _columns_named(table: Table, key: str, name: str) -> list[str]:
    """The column of that name, or the columns of the array of that name."""
    if columns := _of_array(table, name):
        return columns
    hint = did_you_mean(name, table.names)
    raise ValueError(f"expected {key} among the columns of {table.path}, {listed(table.names)}; got {name}{hint}")


def _of_array(table: Table, name: str) -> list[str]:
    numbered = [column for column in table.names if re.fullmatch(rf"{re.escape(name)}_\d+", column)]
    return [name] if name in table.names else numbered


def _rows(columns: Chosen, rows: Rows) -> Chosen:
    return {name: column[rows] for name, column in columns.items()}


def _runs(raw: Raw) -> NDArray[np.int64]:
    """The number of each row's run: rows of one group with none left out between them, (N,)."""
    left_out = np.diff(raw.place, prepend=raw.place[:1]) > 1
    return np.cumsum(starts_of(raw.group) | left_out) - 1


def _missing(column: Column) -> NDArray[np.bool_]:
    """True where a column has no value: (N,)."""
    if column.dtype.kind == "O":
        return np.array([value is None or value != value for value in column.tolist()])
    return ~np.isfinite(column) if column.dtype.kind == "f" else np.zeros(len(column), bool)


def _varies(column: Column) -> bool:
    values = column[~_missing(column)]
    return len(values) > 0 and bool((values != values[0]).any())


def _ids(index: Column) -> NDArray[np.int64]:
    if index.dtype.kind not in "iu":
        raise ValueError(f"expected whole numbers as index, got {_example(index)!r}")
    if len(np.unique(index)) < len(index):
        raise ValueError("expected each id of index once, got some repeatedly")
    return index.astype(np.int64)


def _example(column: Column) -> Any:
    """The first value that is no number, or else the first value."""
    return next((value for value in column.tolist() if not isinstance(value, int | float)), column.tolist()[0])


def _u_in_words(u: torch.Tensor | None, spec: DataSpec) -> str:
    if u is None:
        return "none"
    if spec.u_kind == "columns":
        return "a column of numbers" if spec.u_dim == 1 else f"{spec.u_dim} columns of numbers"
    counts = torch.bincount(u, minlength=spec.u_dim)
    return f"{spec.u_dim} labels of {counts.min():,} to {counts.max():,} rows"
