"""Agreement of pairs of seeds: the rows of `agreement.csv`, pairs whose seeds lie in two run folders, and intervals.

`agreement.csv` of a run folder with several seeds is in long form, one row per pair of seeds x split x variant:

==============  ========================================================================================
column          meaning
==============  ========================================================================================
seed_a, seed_b  seeds of the two models, seed_a < seed_b
data_seed       seed of the data set
split           train, valid or test
latents         latents that were compared: mean (of the posterior) or sample (one posterior sample)
coefficient     pearson or spearman
alignment       strong (permutation and sign only) or weak (a linear map by CCA first)
rank            number of components of the CCA
scored          rows that were scored: all; in (the half that the CCA was fitted on) or out (the other half)
points          number of rows that were scored
position        place in a grid of latents, or facet, from 0; empty where there is neither, and of all facets as one
latent_dim      n, columns of the latents (at the position)
value           the MCC between the latents of the two seeds
chance          its chance floor: the same, rows of one of the two re-paired at random
state           done, or diverged where one of the two seeds is
==============  ========================================================================================
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ivae_lab.metrics.resampling import Estimate, PairMetric
from ivae_lab.runs.arrays import read_latents
from ivae_lab.runs.folder import read_status
from ivae_lab.runs.results_csv import DTYPES as RESULT_DTYPES
from ivae_lab.runs.results_csv import Row, read_rows, write_rows
from ivae_lab.terminal.lazy import Later

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Later("pandas")

FILE = "agreement.csv"
COLUMNS = (
    *("seed_a", "seed_b", "data_seed", "split", "latents", "coefficient", "alignment", "rank", "scored", "points"),
    *("position", "latent_dim", "value", "chance", "state"),
)
# Columns that tell one number from another: rows that agree in these differ in their seeds only.
VARIANT = ("split", "latents", "coefficient", "alignment", "rank", "scored", "points", "latent_dim")
DTYPES = {column: RESULT_DTYPES.get(column, "Int64") for column in COLUMNS}


def score_pairs(
    metric: PairMetric,
    estimates: Mapping[int, Estimate],
    diverged: Collection[int],
    fixed: Row,
    which: Collection[tuple[int, int]] | None = None,
) -> list[Row]:
    """Score pairs of seeds: rows of the metric with the `fixed` columns added, pairs of `diverged` seeds marked."""
    rows = [{**row, **fixed} for row in metric.pairs(estimates, which)]
    for row in rows:
        if not {row["seed_a"], row["seed_b"]}.isdisjoint(diverged):
            row["state"] = "diverged"
    return rows


def write_pairs(path: Path, rows: Iterable[Row]) -> None:
    """Write rows, each with exactly the columns of the schema, as `agreement.csv`.

    Raises
    ------
    ValueError
        If a row lacks a column or has another one.
    """
    write_rows(path, rows, COLUMNS)


def read_pairs(folder: Path) -> pd.DataFrame:
    """Read `agreement.csv` of a run folder.

    Raises
    ------
    FileNotFoundError
        If there is none: the run has one seed, does not have this metric, or is older than the metric.
    ValueError
        If it does not have the columns of the schema, or is not the file that the run wrote.
    """
    return read_rows(folder, FILE, COLUMNS).astype(DTYPES)


def pairs_of(folders_by_seed: Mapping[int, Path]) -> pd.DataFrame:
    """Read or compute the rows of all pairs of seeds of one configuration, whose seeds may lie in several run folders.

    Pairs whose seeds lie in one folder are read from its `agreement.csv`; all others are computed from `latents.npz`,
    as the metric `agreement` of the first folder's configuration says, which takes up to a second each.

    Parameters
    ----------
    folders_by_seed
        Run folder of each seed.

    Raises
    ------
    FileNotFoundError
        If a folder lacks a file.
    ValueError
        If the configuration has no metric `agreement`, or a folder lacks its seed.
    """
    seeds = sorted(folders_by_seed)
    whole = [folder for folder in dict.fromkeys(folders_by_seed.values()) if (folder / FILE).exists()]
    tables = [_among(read_pairs(folder), folder, folders_by_seed) for folder in whole]
    known = {pair for table in tables for pair in table[["seed_a", "seed_b"]].itertuples(index=False, name=None)}
    lacking = [pair for pair in combinations(seeds, 2) if pair not in known]
    if lacking:
        tables.append(pd.DataFrame(_computed(folders_by_seed, lacking), columns=COLUMNS).astype(DTYPES))
    if not tables:
        return pd.DataFrame(columns=COLUMNS)
    return pd.concat(tables).sort_values(["seed_a", "seed_b"], kind="stable", ignore_index=True)


def _among(rows: pd.DataFrame, folder: Path, folders_by_seed: Mapping[int, Path]) -> pd.DataFrame:
    """Select the pairs whose two seeds are both to be taken from `folder`."""
    seeds = [seed for seed, of_seed in folders_by_seed.items() if of_seed == folder]
    return rows[rows["seed_a"].isin(seeds) & rows["seed_b"].isin(seeds)]


def _computed(folders_by_seed: Mapping[int, Path], pairs: Collection[tuple[int, int]]) -> list[Row]:
    used = {seed: folders_by_seed[seed] for seed in sorted({seed for pair in pairs for seed in pair})}
    folders = [*dict.fromkeys(used.values())]
    status = {folder: read_status(folder) for folder in folders}
    arrays = {folder: read_latents(folder) for folder in folders}
    diverged = [seed for seed, folder in used.items() if str(seed) in status[folder].get("diverged", {})]
    metric = _metric(folders[0])
    rows: list[Row] = []
    for split in dict.fromkeys(arrays[folders[0]]["split"].tolist()):
        estimates = {seed: _estimate(arrays[folder], seed, split) for seed, folder in used.items()}
        fixed = {"split": split, "data_seed": status[folders[0]]["data_seed"]}
        rows += score_pairs(metric, estimates, diverged, fixed, pairs)
    return rows


def _metric(folder: Path) -> PairMetric:
    from omegaconf import OmegaConf

    from ivae_lab.config.build import build  # Hydra, which reading rows does without

    config = OmegaConf.load(folder / "config.yaml")
    if "agreement" not in config.metric:
        raise ValueError(f"expected a metric agreement in {folder.name}, got {', '.join(config.metric) or 'none'}")
    return build(config.metric.agreement, "metric.agreement")  # type: ignore[no-any-return]


def _estimate(arrays: Mapping[str, NDArray[Any]], seed: int, split: str) -> Estimate:
    """Take the latents of one seed and split from the arrays of `latents.npz`."""
    seeds, rows = arrays["seed"].tolist(), arrays["split"] == split  # (S,), (N,)
    if seed not in seeds:
        raise ValueError(f"expected latents of seed {seed}, got those of {seeds}")
    mean, sample = (arrays[kind][seeds.index(seed)][rows] for kind in ("mean", "sample"))
    positions, facets = (int(arrays.get(name, 1)) for name in ("positions", "facets"))
    return Estimate(mean, sample, None, None, arrays["index"][rows], {}, positions=positions, facets=facets)


def interval_over_seeds(
    pairs: pd.DataFrame, confidence: float = 0.95, draws: int = 9999, seed: int = 0
) -> tuple[float, float]:
    """Compute the percentile bootstrap interval of the mean over pairs of seeds, by resampling seeds.

    Pairs share seeds, so they are no independent numbers, and resampling them would make an interval that is too
    narrow. Seeds are drawn with replacement, as many as there are; a draw's mean is over the pairs of different seeds
    among the drawn, each as often as it occurs there. A seed drawn twice is not paired with itself, and a draw of
    nothing but one seed has no pair and is left out.

    Parameters
    ----------
    pairs
        Columns `seed_a`, `seed_b` and `value`; each pair has one row, or one per position. Values that are not finite
        are left out, as in the mean that the interval belongs to.
    confidence
        Share of the resampled means between low and high.
    draws
        Number of resamples.
    seed
        Seeds the resampling: the same values always have the same interval.

    Returns
    -------
    tuple
        Low and high; (NaN, NaN) for fewer than three seeds with finite values.
    """
    finite = pairs[np.isfinite(pairs["value"].astype(float))]
    names, places = np.unique(finite[["seed_a", "seed_b"]].to_numpy(dtype=np.int64), return_inverse=True)
    if len(names) < 3:
        return float("nan"), float("nan")
    a, b = places.reshape(-1, 2).T  # (P,) each
    times = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), draws)  # (D, S)
    weights = times[:, a] * times[:, b]  # (D, P)
    some = weights.any(axis=1)
    means = weights[some] @ finite["value"].to_numpy(dtype=np.float64) / weights[some].sum(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def summarise_pairs(rows: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Summarise rows over pairs of seeds: mean, interval and counts, one row per variant.

    Parameters
    ----------
    rows
        Rows of the schema, such as `read_pairs` gives, or rows of several configurations with further columns.
    by
        Further columns that tell numbers apart, such as `label` or `data_seed`.

    Returns
    -------
    DataFrame
        `by`, the columns of `VARIANT`, then `mean` over pairs (and positions) of the finite values, `low` and `high`
        (its 95% interval, bootstrapped over seeds), `chance` (mean of the chance floors), `seeds` and `pairs` (all of
        them), and `diverged` (pairs that are not in the mean), in the order in which the variants first appear.

    Raises
    ------
    ValueError
        If a pair appears twice under one variant: rows of several configurations would be mixed up.
    """
    keys = [*by, *VARIANT]
    doubled = int(rows.duplicated([*keys, "seed_a", "seed_b", "position"]).sum())
    if doubled:
        raise ValueError(f"expected one row per pair and variant, got {doubled} more: name what tells them apart in by")
    groups = rows.groupby(keys, sort=False, dropna=False)
    records = [dict(zip(keys, key, strict=True)) | _over_pairs(group) for key, group in groups]
    return pd.DataFrame(records, columns=[*keys, "mean", "low", "high", "chance", "seeds", "pairs", "diverged"])


def _over_pairs(rows: pd.DataFrame) -> dict[str, float | int]:
    finite = rows[np.isfinite(rows["value"].astype(float))]
    low, high = interval_over_seeds(finite)
    pairs, lost = (len(part[["seed_a", "seed_b"]].drop_duplicates()) for part in (rows, rows.drop(finite.index)))
    counts = {"seeds": len({*rows["seed_a"], *rows["seed_b"]}), "pairs": pairs, "diverged": lost}
    return {"mean": finite["value"].mean(), "low": low, "high": high, "chance": rows["chance"].mean(), **counts}


def pseudo_values(pairs: pd.DataFrame) -> pd.Series[float]:
    """Compute one number per seed, its contribution to the mean over pairs, so that seeds can be resampled as usual.

    They are the jackknife's pseudo-values S t - (S - 1) t_s of S seeds, where t is the mean over all pairs and t_s the
    mean over the pairs without seed s. Their mean is t, and their variance divided by S is that of t, although pairs
    share seeds. A pseudo-value may lie outside [0, 1]. (Quenouille 1956; Arvesen 1969 for means over pairs,
    https://doi.org/10.1214/aoms/1177697287.)

    Parameters
    ----------
    pairs
        Columns `seed_a`, `seed_b` and `value`; rows of one pair (places of a grid) are averaged first.

    Returns
    -------
    Series
        By seed; NaN for a seed that diverged. A single pair is one number: the first seed has its value, the second
        NaN.
    """
    ends = ["seed_a", "seed_b"]
    by_pair = pairs.groupby(ends)["value"].mean().reset_index()
    values = pd.Series(np.nan, index=sorted({*by_pair["seed_a"], *by_pair["seed_b"]}), dtype=float)
    finite = by_pair[np.isfinite(by_pair["value"].astype(float))]
    seeds = sorted({*finite["seed_a"], *finite["seed_b"]})
    mean = finite["value"].mean()
    if len(seeds) == 2:
        values[seeds[0]] = mean
        return values
    for seed in seeds:
        without = finite.loc[(finite[ends] != seed).all(axis=1), "value"].mean()
        values[seed] = len(seeds) * mean - (len(seeds) - 1) * without
    return values
