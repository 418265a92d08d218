"""Schema of `results.csv`, and functions that read and write the tables of a run folder. No PyTorch here.

A run folder holds `config.yaml` (resolved), `network.csv` (the parameters of one model), `spec.json` (the description
of the data that the model was built for), `recipe.json` (the preprocessing of the data), `status.json`, `results.csv`,
`history.csv`, `latents.npz`, `examples.npz` and `checkpoints/`, and, where several seeds were compared with each other,
`agreement.csv` (see `agreement_csv.py`). Files are written to a temporary name and renamed, so a file that exists is
whole; `status.json` holds checksums of itself and of the files of a finished run, which detect later changes by the
disk or by hand.

`results.csv` is in long form, one row per seed x split x metric variant; a cell is empty where the column does not
apply or the number is not one (`state` then says why):

============  ==========================================================================================
column        meaning
============  ==========================================================================================
seed          seed of the model: initial weights, shuffling, noise
data_seed     seed of the data set
split         train, valid or test
metric        mcc, linear_r2, elbo, log_likelihood, kl, cluster_accuracy, ...
latents       latents that were scored: mean (of the posterior) or sample (one posterior sample)
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

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ivae_lab.runs.folder import CHECKS, check_seal, read_status
from ivae_lab.storage.atomic import atomic
from ivae_lab.terminal.lazy import Later

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
# Columns that tell one number from another: rows that agree in these differ in their seeds only.
VARIANT = tuple(c for c in COLUMNS if c not in ("seed", "data_seed", "value", "chance", "state"))
TEXT = [column for column, dtype in DTYPES.items() if dtype == "str"]

Row = dict[str, Any]  # one row of a table, by column


def write_results(path: Path, rows: Iterable[Row]) -> None:
    """Write rows, each with exactly the columns of the schema, as `results.csv`.

    Raises
    ------
    ValueError
        If a row lacks a column or has another one.
    """
    write_rows(path, rows, COLUMNS)


def write_rows(path: Path, rows: Iterable[Row], columns: tuple[str, ...]) -> None:
    """Write rows, each with exactly these columns, as CSV; errors are those of `write_results`."""
    rows = list(rows)
    for row in rows:
        check_columns(row, columns)
    with atomic(path) as temporary:
        pd.DataFrame(rows, columns=columns, dtype=object).to_csv(temporary, index=False)


def read_results(folder: Path) -> pd.DataFrame:
    """Read `results.csv` of a run folder.

    Raises
    ------
    FileNotFoundError
        If there is no `results.csv`.
    ValueError
        If it does not have the columns of the schema, a number is not one, or it is not the file that the run wrote.
    """
    return read_rows(folder, "results.csv", COLUMNS)


def read_rows(folder: Path, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read a table of a run folder that has exactly these columns; errors are those of `read_results`."""
    table = read_table(folder / name)
    check_columns(table.columns, columns)
    if (folder / "status.json").exists():
        check_seal(folder, name, read_status(folder))
    return table


def read_checks(folder: Path) -> list[Row]:
    """Read the checks of a finished run's assumptions, see `ivae_lab.metrics.check`; an empty list without any.

    Raises
    ------
    ValueError
        If the file is not as the run wrote it.
    """
    if not (folder / CHECKS).exists():
        return []
    check_seal(folder, CHECKS, read_status(folder))
    return list(json.loads((folder / CHECKS).read_text(encoding="utf-8")))


def read_table(path: Path) -> pd.DataFrame:
    """Read a table with columns of the schema, such as the aggregate, and give these columns their types.

    Further columns have the types that pandas infers. Numbers come back as they were written; empty text is "", an
    empty whole number `pd.NA`.
    """
    table = pd.read_csv(path, dtype=DTYPES, low_memory=False)
    return table.fillna({column: "" for column in TEXT if column in table})


def check_columns(columns: Iterable[str], expected: tuple[str, ...]) -> None:
    """Refuse a table that lacks a column or has another one, by `ValueError`."""
    given = list(columns)
    if set(given) != set(expected):
        raise ValueError(f"expected the columns {', '.join(expected)}, got {', '.join(map(str, given)) or 'none'}")
