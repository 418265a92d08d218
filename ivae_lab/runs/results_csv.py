"""The row schema, and everything that reads or writes a run folder without training: no torch here.

A run folder holds `config.yaml` (resolved), `network.csv` (the parameters of one model), `spec.json` and `recipe.json`
(what the model was told of its data, and what was done to these), `status.json`, `results.csv`, `history.csv`,
`latents.npz`, `examples.npz` and `checkpoints/`, and, where several seeds were compared with each other,
`agreement.csv` (see `pairs.py`). Its files are written to a temporary name and renamed, so a file that is there was
written whole; `status.json` holds a checksum of itself and of the files of a finished run, which tells when the disk or
a hand has changed them since.

`results.csv` is in long form, one row per seed x split x metric variant; a cell is empty where the column does not
apply or the number is not one (`state` then says why):

============  ==========================================================================================
column        meaning
============  ==========================================================================================
seed          seed of the model: initial weights, shuffling, noise
data_seed     seed of the data set
split         train, valid or test
metric        mcc, linear_r2, elbo, log_likelihood, kl, cluster_accuracy, ...
latents       what was scored: mean (of the posterior) or sample (one posterior sample)
coefficient   pearson or spearman
alignment     strong (permutation and sign only) or weak (a linear map by CCA first)
rank          number of components of the CCA
scored        rows that were scored: all; in (the half that the map was fitted on) or out (the other half)
points        number of rows that were scored
latent_dim    n, columns of the latents
source_dim    k, columns of the true sources; an MCC is a mean over min(n, k) matched pairs
value         the metric
chance        its chance floor: the same metric, rows of the sources re-paired at random
state         done, or diverged where a latent or a term of the loss is not a finite number
============  ==========================================================================================
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ivae_lab.config.digests import digest
from ivae_lab.terminal.lazy import Later
from ivae_lab.terminal.messages import did_you_mean, listed

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Later("pandas")

DTYPES = {
    "seed": "Int64",
    "data_seed": "Int64",
    "split": "str",
    "metric": "str",
    "latents": "str",
    "coefficient": "str",
    "alignment": "str",
    "rank": "Int64",
    "scored": "str",
    "points": "Int64",
    "latent_dim": "Int64",
    "source_dim": "Int64",
    "value": "float64",
    "chance": "float64",
    "state": "str",
}
COLUMNS = tuple(DTYPES)
# What tells one number from another: rows that agree in these differ in their seeds only.
VARIANT = tuple(c for c in COLUMNS if c not in ("seed", "data_seed", "value", "chance", "state"))
TEXT = [column for column, dtype in DTYPES.items() if dtype == "str"]
FINISHED = ("done", "diverged")
MARKS = ("config.yaml", "status.json", "results.csv")  # a folder that has one of these is a run folder,
JOINED = "results.parquet"  # unless it has this: what the aggregator leaves beside a results.csv of its own
CHECKS = "checks.json"
OUTPUTS = Path("outputs")  # where run folders are, unless a command is told otherwise
LATEST = "latest"
# What a finished run is judged by; `status.json` has their sizes and checksums.
SEALED = (
    *("results.csv", "history.csv", "latents.npz", "examples.npz", "agreement.csv", CHECKS),
    *("spec.json", "recipe.json"),
)

Row = dict[str, Any]  # one row of a table, by column


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`, with its suffix; what was written there then becomes `path`.

    A reader sees the old file or the new one, never half of it, also after a crash. If the writing raises, the
    temporary file is removed and the old file stays.

    Examples
    --------
    >>> with atomic(folder / "latents.npz") as temporary:  # doctest: +SKIP
    ...     np.savez(temporary, mean=mean)
    """
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_results(path: Path, rows: Iterable[Row]) -> None:
    """Write rows, each with exactly the columns of the schema, as `results.csv`.

    Raises
    ------
    ValueError
        If a row lacks a column or has another one.
    """
    write_rows(path, rows, COLUMNS)


def write_rows(path: Path, rows: Iterable[Row], columns: tuple[str, ...]) -> None:
    """Write rows, each with exactly these columns, as CSV; errors as of `write_results`."""
    rows = list(rows)
    for row in rows:
        _check_columns(row, columns)
    with atomic(path) as temporary:
        pd.DataFrame(rows, columns=columns, dtype=object).to_csv(temporary, index=False)


def read_results(folder: Path) -> pd.DataFrame:
    """Rows of a run folder.

    Raises
    ------
    FileNotFoundError
        If there is no `results.csv`.
    ValueError
        If it does not have the columns of the schema, a number is not one, or it is not the file that the run wrote.
    """
    return read_rows(folder, "results.csv", COLUMNS)


def read_rows(folder: Path, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """Rows of a file of a run folder that has exactly these columns; errors as of `read_results`."""
    table = read_table(folder / name)
    _check_columns(table.columns, columns)
    if (folder / "status.json").exists():
        check_seal(folder, name, read_status(folder))
    return table


def read_checks(folder: Path) -> list[Row]:
    """What was checked of each seed of a finished run, see `ivae_lab.metrics.checks.check`; nothing where nothing was.

    Raises
    ------
    ValueError
        If it is not the file that the run wrote.
    """
    if not (folder / CHECKS).exists():
        return []
    check_seal(folder, CHECKS, read_status(folder))
    return list(json.loads((folder / CHECKS).read_text(encoding="utf-8")))


def read_table(path: Path) -> pd.DataFrame:
    """Read any table with columns of the schema, such as the aggregate: theirs typed, further columns as pandas reads.

    Numbers come back as they were written; empty text is "", an empty whole number `pd.NA`.
    """
    table = pd.read_csv(path, dtype=DTYPES, low_memory=False)
    return table.fillna({column: "" for column in TEXT if column in table})


def run_folders(outputs: Path) -> list[Path]:
    """Run folders under `outputs`, however deep, but none in another or under a hidden one; by path.

    A folder that cannot be looked into is among them: whoever reads it says why.
    """
    found: list[Path] = []
    seen: set[str] = set()

    def cannot(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):  # there is none, or no more
            found.append(Path(error.filename))

    for folder, inside, files in os.walk(outputs, onerror=cannot, followlinks=True):
        if folder != os.fspath(outputs) and JOINED not in files and not {*MARKS}.isdisjoint(files):
            found.append(Path(folder))
            inside.clear()
            continue
        real = os.path.realpath(folder)  # links may lead in a circle
        inside[:] = [] if real in seen else [name for name in inside if not name.startswith(".")]
        seen.add(real)
    return sorted(found)


def found_run(text: str, outputs: Path = OUTPUTS) -> Path:
    """Find the run folder that a text names: its path, `latest`, or how its name and no other begins.

    `latest` is the run folder below the outputs that was written last. FOLDER/latest and FOLDER/BEGINNING look below
    another folder.

    Raises
    ------
    ValueError
        If there is none, or are several.
    """
    path = Path(text)
    if path.exists():
        return path
    root, name = (path.parent, path.name) if len(path.parts) > 1 else (outputs, text)
    folders = run_folders(root)
    if name == LATEST and folders:
        return max(folders, key=lambda folder: (_written(folder), folder))
    names = [folder.name for folder in folders]
    meant = [folder for folder in folders if folder.name == name] or [
        folder for folder in folders if folder.name.startswith(name)
    ]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise ValueError(f"expected the name of one run folder below {root}, got {text}: {listed(meant)}")
    near = did_you_mean(name, names) or f"; there are: {listed(names)}"
    raise ValueError(f"expected a run folder, {LATEST}, or how a name below {root} begins, got {text}{near}")


def _written(folder: Path) -> int:
    """When a run folder was written last, in nanoseconds."""
    return max(((folder / mark).stat().st_mtime_ns for mark in MARKS if (folder / mark).exists()), default=0)


def read_status(folder: Path) -> dict[str, Any]:
    """`status.json` of a run folder.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is not a JSON object with a state, or not as it was written.
    """
    status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    if not isinstance(status, dict) or "state" not in status:
        raise ValueError("expected status.json to hold an object with a state, got none")
    checksum = status.pop("checksum", None)
    if checksum is not None and checksum != digest(status):
        raise ValueError("expected status.json as the run wrote it, got another checksum: damaged, or edited by hand")
    return status


def write_status(folder: Path, status: dict[str, Any]) -> None:
    """Write `status.json` with its checksum."""
    with atomic(folder / "status.json") as temporary:
        temporary.write_text(json.dumps({**status, "checksum": digest(status)}, indent=2) + "\n")


def seal(folder: Path) -> dict[str, list[Any]]:
    """What tells each file that a finished run is judged by, of those that are there, from another."""
    return {name: _seal(folder / name) for name in SEALED if (folder / name).exists()}


def check_seal(folder: Path, name: str, status: dict[str, Any]) -> None:
    """Hold a file against what `status.json` says of it; a run of before this was written says nothing.

    Raises
    ------
    ValueError
        If they differ.
    """
    sealed = (status.get("files") or {}).get(name)
    if sealed is not None and sealed != _seal(folder / name):
        raise ValueError(f"expected {name} as the run wrote it, got another checksum: damaged, or edited by hand")


def _seal(path: Path) -> list[Any]:
    """Size in bytes and SHA-256; of arrays the size alone, as they are large, and reading a zip file finds damage."""
    if path.suffix == ".npz":
        return [path.stat().st_size]
    content = path.read_bytes()
    return [len(content), hashlib.sha256(content).hexdigest()]


def read_latents(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays of `latents.npz`, given by its run folder or itself: S seeds, N rows, n latents, k sources.

    `mean` and `sample` (S, N, n), `seed` (S,), `index` (N,), `split` (N,), and where known `sources` (N, k), `u` (N,);
    `cluster` (S, N), or (S, N, facets), of a model with clusters; `positions` () of one whose latents are a grid of so
    many places, `facets` () of one with so many parts, and `x` (N, d) if it is of images.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    return _arrays(path / "latents.npz" if path.is_dir() else path)


def read_examples(folder: Path) -> dict[str, NDArray[Any]]:
    """Arrays of `examples.npz`: R rows, S seeds, d observed dimensions, M values of u (or components, or 1).

    `index` (R,), `x` (R, d), `reconstruction` (S, R, d), `prior_mean` and `prior_std` (S, M, n), `seed` (S,), and where
    known `sources` (R, k), `u` (R,). Of images also `image` (C, H, W), and of most models `drawn` (S, M, r, d), drawn
    from the prior, and `traversals` (S, n', steps, d) of the latents `traversed` (S, n'). Of flows of images with
    classes also `class_traversals`, `class_traversed` and `class_drawn`, see `Flow`.

    Raises
    ------
    FileNotFoundError
        If there is none: a run of before this file was written.
    """
    return _arrays(folder / "examples.npz")


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:  # else NumPy leaves a torn file open
        return dict(arrays)


def is_finished(folder: Path) -> bool:
    """Whether the run in `folder` needs no more work: done or diverged, its results and latents there and undamaged."""
    return lack(folder) is None


def lack(folder: Path) -> str | None:
    """What keeps the run in `folder` from being finished, in words; None where nothing does."""
    try:
        status = read_status(folder)
        if status["state"] not in FINISHED:
            return f"expected state done or diverged, got {status['state']}"
        for name in SEALED:
            check_seal(folder, name, status)
    except FileNotFoundError as error:
        return f"expected {Path(error.filename).name}, got none"
    except ValueError as error:
        return str(error)
    absent = [name for name in ("results.csv", "latents.npz") if not (folder / name).is_file()]
    return f"expected {absent[0]}, got none" if absent else None


def interval(
    values: Sequence[float] | NDArray[np.floating[Any]] | pd.Series[float],
    confidence: float = 0.95,
    draws: int = 9999,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over seeds.

    Each value must be one seed's: values of pairs of seeds share seeds, and resampling them makes an interval that is
    too narrow. Values that are not finite (diverged seeds) are left out, as in the mean that the interval belongs to;
    `summarise` counts them beside it.

    Parameters
    ----------
    values
        One number per seed.
    confidence
        Share of the resampled means between low and high.
    draws
        Number of resamples.
    seed
        Seeds the resampling: the same values always have the same interval.

    Returns
    -------
    tuple
        Low and high. (NaN, NaN) for fewer than two finite values; (v, v) where all equal v.
    """
    from scipy.stats import bootstrap

    finite = _finite(values)
    if len(finite) < 2:
        return float("nan"), float("nan")
    if np.ptp(finite) == 0:
        return float(finite[0]), float(finite[0])
    result = bootstrap(
        (finite,),
        np.mean,
        confidence_level=confidence,
        n_resamples=draws,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def summarise(rows: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """One row per metric variant, over seeds.

    Parameters
    ----------
    rows
        Rows of the schema, such as `read_results` gives, or rows of several runs with further columns.
    by
        Further columns that tell numbers apart, such as `model.beta` of the aggregate, or `data_seed`.

    Returns
    -------
    DataFrame
        `by`, the columns of `VARIANT`, then `mean` over seeds of the finite values, `low` and `high` (its 95%
        bootstrap interval), `seeds` (all of them), `diverged` (how many of them are not in the mean) and `chance`
        (mean of the chance floors), in the order in which the variants first appear.

    Raises
    ------
    ValueError
        If a seed appears twice under one variant: rows of several configurations would be mixed up.
    """
    keys = [*by, *(column for column in VARIANT if column not in by)]
    doubled = rows.duplicated([*keys, "seed", "data_seed"])
    if doubled.any():
        raise ValueError(
            f"expected one row per seed and metric variant, got {int(doubled.sum())} more: "
            "name the columns that tell them apart in `by`"
        )
    groups = rows.groupby(keys, sort=False, dropna=False)
    records = [dict(zip(keys, key, strict=True)) | _over_seeds(group) for key, group in groups]
    columns = [*keys, "mean", "low", "high", "seeds", "diverged", "chance"]
    return pd.DataFrame(records, columns=columns).astype({key: rows[key].dtype for key in keys})


def _over_seeds(rows: pd.DataFrame) -> dict[str, float | int]:
    finite = _finite(rows["value"])
    low, high = interval(finite)
    return {
        "mean": _mean(finite),
        "low": low,
        "high": high,
        "seeds": len(rows),
        "diverged": len(rows) - len(finite),
        "chance": _mean(_finite(rows["chance"])),
    }


def _finite(values: Any) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    return numbers[np.isfinite(numbers)]


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _check_columns(columns: Iterable[str], expected: tuple[str, ...]) -> None:
    given = list(columns)
    if set(given) != set(expected):
        raise ValueError(f"expected the columns {', '.join(expected)}, got {', '.join(map(str, given)) or 'none'}")


def _sync(path: Path) -> None:
    """Wait until the file or folder is on the disk, so that the name never comes before the content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
