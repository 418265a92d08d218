"""Test a paper's claims on our rows: verdicts in words and numbers, without judgement by hand.

=============  ====================================================================================================
test           holds when, of the score's mean over seeds (a bootstrap interval of 95% goes with every mean)
=============  ====================================================================================================
at_least       it is at or above the paper's value
at_most        it is at or below the paper's value
within         it is no farther from the paper's value than the tolerance
above          it is above the other method's, and the interval of the difference lies above 0
not_below      it is at most a margin below the other method's: the interval of the difference lies above -margin
correlated     Pearson's correlation of two columns is positive, and its interval lies above 0
widens         its difference to the other method's has a positive slope over a column (least squares of the means at
               each value), and the interval of the slope lies above 0
=============  ====================================================================================================

The margin is the claim's tolerance in `reported.csv`, or .05 without one: an MCC that is lower by less counts as just
as good. Few seeds make intervals wide, so these do not lie above -margin, and a single seed's difference has none:
little data is no evidence that two methods are alike. If the interval reaches -margin, `not_below` fails if all of it
lies below 0, and is undecided otherwise.

Verdicts: `reproduced`, if every comparison holds; `partly`, if some hold or could not be made, if one is undecided, or
if the mean misses the paper's value (or 0) but its interval reaches it; `not reproduced`; `not run`, if there are no
rows, or too few for a correlation. The interval is over data seeds if there are several (each seed's models are
averaged first, and methods are compared on the data seeds that both have), else over model seeds; a correlation's
interval is over all rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ivae_lab.reproduction.definition import Claim, ExperimentError, Figure, Reported, Selector, reported
from ivae_lab.runs.summaries import interval
from ivae_lab.terminal.lazy import Later

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Later("pandas")

Verdict = Literal["reproduced", "partly", "not reproduced", "not run"]
NO_VERDICT = "none, quick"  # shown in place of a verdict: the quick scale trains too little to judge a claim
Degree = Literal["holds", "nearly", "fails", "missing"]  # missing: no rows to compare with, or too few
Values = NDArray[np.float64]
DRAWS = 9999
ROUNDING = 1e-12  # tolerance of comparisons: .7 + .1 is less than .8
MARGIN = 0.05  # the MCC of an equally good method may be lower by this
WORDS = {
    "at_least": "mean at or above the paper's value",
    "at_most": "mean at or below the paper's value",
    "within": "mean within the tolerance of the paper's value",
    "above": "mean above each other method's, the 95% interval of the difference above 0",
    "not_below": "the 95% interval of the difference to each other method's mean above minus the margin, which is the "
    f"claim's tolerance or {MARGIN}",
    "correlated": "Pearson correlation positive, its 95% interval above 0",
    "widens": "the slope of the difference to each other method's mean positive, its 95% interval above 0",
}


@dataclass(frozen=True)
class Judgement:
    """One claim, tested on the rows of one variant."""

    claim: str
    statement: str
    where: str
    theirs: str
    variant: str
    ours: str
    seeds: int  # model seeds per setting, the fewest
    data_seeds: int
    test: str
    verdict: Verdict
    reason: str

    def record(self) -> dict[str, Any]:
        """Return the judgement as a row of a table."""
        return asdict(self)


@dataclass(frozen=True)
class _Comparison:
    degree: Degree
    ours: str  # our numbers
    why: str


def judge(figure: Figure, tables: Mapping[str, pd.DataFrame]) -> list[Judgement]:
    """Test all claims of a figure, for each variant of its rows."""
    return [judgement for claim in figure.claims for judgement in _judge(figure, claim, tables.get(claim.table))]


def _judge(figure: Figure, claim: Claim, rows: pd.DataFrame | None) -> Iterator[Judgement]:
    variants = [] if rows is None or rows.empty else list(rows.groupby("variant", sort=False))
    if rows is not None and variants:
        _check_columns(figure, claim, rows)
    tested = [(str(variant), part) for variant, part in variants if len(picked(part, claim.of))]
    for variant, part in tested:
        yield _judgement(figure, claim, variant, part, list(_compare(figure, claim, part)))
    if not tested:
        yield _judgement(figure, claim, "-", pd.DataFrame(), [])


def _check_columns(figure: Figure, claim: Claim, rows: pd.DataFrame) -> None:
    selectors = [column for selector in (claim.of, *claim.than) for column in selector]
    read = ["variant", "label", "data_seed", "seed", claim.score or figure.score, *selectors]
    read += [claim.per] if claim.per else []
    read += [claim.against] if claim.against else []
    if absent := [column for column in read if column not in rows]:
        named = f"{figure.full_name}: {claim.claim}"
        raise ExperimentError(f"{named}: expected columns of {claim.table}, got none called {', '.join(absent)}")


def _judgement(
    figure: Figure, claim: Claim, variant: str, rows: pd.DataFrame, comparisons: list[_Comparison]
) -> Judgement:
    states = _states(figure, claim)
    made = [comparison for comparison in comparisons if comparison.degree != "missing"]
    used = picked(rows, claim.of) if made else pd.DataFrame()
    return Judgement(
        claim=claim.claim,
        statement=states.statement,
        where=states.where,
        theirs=_theirs(states),
        variant=variant,
        ours=_ours(comparisons),
        seeds=_seeds_per_setting(used),
        data_seeds=int(used["data_seed"].nunique()) if len(used) else 0,
        test=WORDS[claim.test],
        verdict=_verdict([comparison.degree for comparison in comparisons]),
        reason="; ".join(_reasons(figure, claim, rows, comparisons)),
    )


def _reasons(figure: Figure, claim: Claim, rows: pd.DataFrame, comparisons: list[_Comparison]) -> Iterator[str]:
    """Every comparison in numbers, and the number of rows that are left out."""
    if not comparisons:
        yield "no finished runs to compare"
        return
    yield from (comparison.why for comparison in comparisons)
    used = pd.concat([picked(rows, selector) for selector in (claim.of, *claim.than)])
    if lost := int((~np.isfinite(used[claim.score or figure.score].astype(float))).sum()):
        yield f"{lost} of {len(used)} rows diverged and are left out"


def _verdict(degrees: list[Degree]) -> Verdict:
    made = [degree for degree in degrees if degree != "missing"]
    if not made:
        return "not run"
    if all(degree == "holds" for degree in degrees):
        return "reproduced"
    return "not reproduced" if all(degree == "fails" for degree in made) else "partly"


def _ours(comparisons: list[_Comparison]) -> str:
    """Summarise our result in a few words; every number is in the reason."""
    if len(comparisons) <= 2:
        return "; ".join(comparison.ours for comparison in comparisons) or "-"
    made = [comparison.degree for comparison in comparisons if comparison.degree != "missing"]
    counted = f"holds in {made.count('holds')} of {len(made)} comparisons"
    missing = len(comparisons) - len(made)
    return f"{counted}, {missing} not run" if missing else counted


def _states(figure: Figure, claim: Claim) -> Reported:
    stated = reported(figure.paper)
    if claim.claim not in stated:
        raise ExperimentError(f"{figure.full_name}: expected a claim of {figure.paper}/reported.csv, got {claim.claim}")
    return stated[claim.claim]


def _theirs(states: Reported) -> str:
    if states.value is None:
        return "ordering"
    return f"{states.value:.8g}" if states.tolerance is None else f"{states.value:.8g} ± {states.tolerance:g}"


def _seeds_per_setting(rows: pd.DataFrame) -> int:
    if rows.empty:
        return 0
    return int(rows.groupby(["data_seed", "label"], dropna=False)["seed"].nunique().min())


def _compare(figure: Figure, claim: Claim, rows: pd.DataFrame) -> Iterator[_Comparison]:
    """Every comparison that the claim makes on the rows of one variant."""
    score = claim.score or figure.score
    margin = _margin(claim, _states(figure, claim))
    for name, part in _parts(rows, claim.per):
        ours = picked(part, claim.of)
        if ours.empty:
            if any(len(picked(part, other)) for other in claim.than):
                yield _absent(claim.of, name)
            continue
        if claim.test == "correlated":
            yield _correlated(ours, claim.against, score, name)
        elif claim.than:
            for other in claim.than:
                against = picked(part, other)
                names = _names(ours, claim.of, against, other)
                if len(against) and claim.test == "widens":
                    yield _widening(ours, against, names, claim.against, score, name)
                elif len(against):
                    yield _ordered(ours, against, names, score, name, margin)
                else:
                    yield _absent(other, name)
        else:
            yield _valued(claim, units(ours, score), _states(figure, claim), name)


def _absent(selector: Selector, name: str) -> _Comparison:
    who = ", ".join(map(str, selector.values()))
    return _Comparison("missing", f"{name}no {who}", f"{name}not compared: no runs of {who}")


def _parts(rows: pd.DataFrame, per: str | None) -> Iterator[tuple[str, pd.DataFrame]]:
    if per is None:
        yield "", rows
        return
    short = per.rpartition(".")[2]
    for value, part in rows.groupby(per, sort=True):
        yield f"{short} {value}: ", part


def picked(rows: pd.DataFrame, selector: Selector) -> pd.DataFrame:
    """Select the rows that have the selector's values."""
    for column, value in selector.items():
        values = value if isinstance(value, list) else [value]
        rows = rows[rows[column].isin(values)]
    return rows


def units(rows: pd.DataFrame, score: str) -> pd.Series[float]:
    """Return the independent values over which an interval is computed.

    They are means of data seeds if there are several, else the values of the model seeds; of finite scores only.
    """
    finite = rows[np.isfinite(rows[score].astype(float))]
    finite = finite.sort_values(["data_seed", "seed", score])  # sums are rounded, in an order that must not matter
    if rows["data_seed"].nunique() > 1:
        return finite.groupby("data_seed")[score].mean()
    return finite.groupby("seed")[score].mean()


def _valued(claim: Claim, values: pd.Series[float], states: Reported, name: str) -> _Comparison:
    if states.value is None or (claim.test == "within" and states.tolerance is None):
        raise ExperimentError(
            f"{claim.claim}: expected a value (and tolerance) in reported.csv for {claim.test}, got none"
        )
    value = states.value
    if values.empty:
        return _Comparison("fails", f"{name}diverged", f"{name}every seed diverged")
    mean, (low, high) = float(values.mean()), interval(values)
    slack = states.tolerance or 0.0
    lowest = value - slack if claim.test == "within" else value if claim.test == "at_least" else -np.inf
    highest = value + slack if claim.test == "within" else value if claim.test == "at_most" else np.inf
    holds = lowest - ROUNDING <= mean <= highest + ROUNDING
    reaches = high >= lowest - ROUNDING and low <= highest + ROUNDING
    bounds = f"{lowest:.8g} to {highest:.8g}" if claim.test == "within" else f"{claim.test.replace('_', ' ')} {value:g}"
    numbers = f"{name}{_mean(mean, low, high)}"
    return _Comparison("holds" if holds else "nearly" if reaches else "fails", numbers, f"{numbers}, asked {bounds}")


def _margin(claim: Claim, states: Reported) -> float | None:
    """The amount by which the method may be below the other one; None if it must be above."""
    if claim.test != "not_below":
        return None
    return MARGIN if states.tolerance is None else states.tolerance


def _ordered(
    ours: pd.DataFrame, other: pd.DataFrame, names: tuple[str, str], score: str, name: str, margin: float | None
) -> _Comparison:
    who, whom = names
    a, b, paired = _comparable(ours, other, score)
    if a.empty or b.empty:
        return _Comparison("fails", f"{name}{who if a.empty else whom} diverged", f"{name}every seed diverged")
    difference = float(a.mean() - b.mean())
    low, high = difference_interval(a, b, paired)
    numbers = f"{name}{who} {a.mean():.3f}, {whom} {b.mean():.3f}"
    why = f"{name}{who} - {whom} = {_mean(difference, low, high)}"
    if margin is None:
        return _Comparison(_positive(difference, low), numbers, why)
    return _Comparison(_not_below(low, high, margin), numbers, f"{why}, asked above {-margin:g}")


def _positive(value: float, low: float) -> Degree:
    """Judge whether a value and its interval are above 0; NaN, the interval of a single seed, is not."""
    return "holds" if low > ROUNDING else "nearly" if value > ROUNDING else "fails"


def _not_below(low: float, high: float, margin: float) -> Degree:
    """Decide non-inferiority by the interval of a difference; NaN, of a single seed, decides nothing."""
    if low + margin > ROUNDING:
        return "holds"
    return "fails" if high < -ROUNDING else "nearly"


def _comparable(ours: pd.DataFrame, other: pd.DataFrame, score: str) -> tuple[pd.Series[float], pd.Series[float], bool]:
    """Return the units of two methods, and whether they are pairs: on the data seeds that both have, if any."""
    shared = set(ours["data_seed"]) & set(other["data_seed"])
    if not shared:
        return units(ours, score), units(other, score), False
    a, b = (units(rows[rows["data_seed"].isin(shared)], score) for rows in (ours, other))
    if len(shared) > 1 and len(a) and len(b):
        both = a.index.intersection(b.index)
        return a[both], b[both], True
    return a, b, False


def difference_interval(a: pd.Series[float], b: pd.Series[float], paired: bool) -> tuple[float, float]:
    """95% bootstrap interval of mean(a) - mean(b): paired by index (data seeds), or of two groups of seeds."""
    from scipy.stats import bootstrap

    if paired:
        return interval((a - b).dropna())
    if len(a) < 2 or len(b) < 2:
        return float("nan"), float("nan")
    result = bootstrap(
        (a.to_numpy(float), b.to_numpy(float)),
        lambda x, y, axis: np.mean(x, axis) - np.mean(y, axis),
        n_resamples=DRAWS,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _widening(
    ours: pd.DataFrame, other: pd.DataFrame, names: tuple[str, str], column: str, score: str, name: str
) -> _Comparison:
    name += " - ".join(names)
    if units(ours, score).empty or units(other, score).empty:
        return _Comparison("fails", f"{name} diverged", f"{name}: every seed diverged")
    slope, low, high = difference_slope(ours, other, column, score)
    if np.isnan(slope):
        return _Comparison("missing", f"{name} at one {column}", f"{name}: fewer than two values of {column}")
    numbers = f"{name}: {_mean(slope, low, high)} for each step of {column.rpartition('.')[2]}"
    return _Comparison(_positive(slope, low), numbers, numbers)


def difference_slope(own: pd.DataFrame, other: pd.DataFrame, column: str, score: str) -> tuple[float, float, float]:
    """Slope of mean(own) - mean(other) over the values of a column that both have, with its 95% bootstrap interval.

    The slope sum_x w_x (a_x - b_x), w_x = (x - mean x) / sum (x - mean x)^2, is of least squares; NaN for fewer than
    two values. Seeds are drawn anew within each method and value; of a single seed it has none (NaN).
    """
    values = sorted(set(own[column]) & set(other[column]))
    scores = [[units(rows[rows[column] == value], score).to_numpy(float) for rows in (own, other)] for value in values]
    both = [(value, pair) for value, pair in zip(values, scores, strict=True) if all(map(len, pair))]
    if len(both) < 2:
        return float("nan"), float("nan"), float("nan")
    centred = np.asarray([value for value, _ in both], float)
    centred -= centred.mean()
    weights = np.outer(centred / (centred**2).sum(), [1, -1]).ravel()
    groups = [group for _, pair in both for group in pair]
    slope = float(sum(weight * group.mean() for weight, group in zip(weights, groups, strict=True)))
    if min(map(len, groups)) < 2:
        return slope, float("nan"), float("nan")
    rng = np.random.default_rng(0)
    drawn = [rng.choice(group, (DRAWS, len(group))).mean(1) for group in groups]
    low, high = np.quantile(weights @ np.stack(drawn), [0.025, 0.975])
    return slope, float(low), float(high)


def _correlated(rows: pd.DataFrame, x: str, y: str, name: str) -> _Comparison:
    r, low, high = correlation(rows[x].to_numpy(float), rows[y].to_numpy(float))
    if np.isnan(r):
        return _Comparison(
            "missing", f"{name}no correlation", f"{name}fewer than three runs, or all with the same value"
        )
    numbers = f"{name}r = {_mean(r, low, high)}"
    return _Comparison(_positive(r, low), numbers, numbers)


def correlation(x: Values, y: Values) -> tuple[float, float, float]:
    """Pearson's correlation of the finite pairs, with its 95% bootstrap interval; NaN for fewer than three pairs.

    Resamples in which a variable does not vary have no correlation and are left out. The order of the pairs does not
    matter.
    """
    finite = np.isfinite(x) & np.isfinite(y)
    pairs = np.stack([x[finite], y[finite]])  # (2, N)
    if pairs.shape[1] < 3 or (np.ptp(pairs, axis=1) == 0).any():
        return float("nan"), float("nan"), float("nan")
    pairs = pairs[:, np.lexsort(pairs)]
    drawn = np.random.default_rng(0).integers(pairs.shape[1], size=(DRAWS, pairs.shape[1]))
    resampled = pairs[:, drawn]  # (2, DRAWS, N)
    varied = (np.ptp(resampled, axis=2) > 0).all(0)
    low, high = np.quantile(_pearson(*resampled[:, varied]), [0.025, 0.975])
    return float(_pearson(*pairs)), float(low), float(high)


def _pearson(x: Values, y: Values) -> Values:
    """Correlation over the last axis."""
    x, y = ((v - v.mean(-1, keepdims=True)) / np.ptp(v, axis=-1, keepdims=True) for v in (x, y))
    return np.asarray((x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1)))


def _names(ours: pd.DataFrame, of: Selector, other: pd.DataFrame, than: Selector) -> tuple[str, str]:
    """Name two sides by their labels, and if these are equal, by the other values that distinguish them."""
    who, whom = (", ".join(map(str, rows["label"].unique())) for rows in (ours, other))
    return (who, whom) if who != whom else (who + _apart(ours, of, than), whom + _apart(other, than, of))


def _apart(rows: pd.DataFrame, selector: Selector, other: Selector) -> str:
    columns = [column for column, value in selector.items() if other.get(column) != value]
    parts = [f"{column.rpartition('.')[2]} {' or '.join(map(str, rows[column].unique()))}" for column in columns]
    return f" ({', '.join(parts)})" if parts else ""


def _mean(value: float, low: float, high: float) -> str:
    return f"{_number(value)} [{_number(low)}, {_number(high)}]" if np.isfinite(low) else _number(value)


def _number(value: float) -> str:
    """Format to three digits after the point, or to one significant digit if these would be zeros."""
    return f"{value:.0e}" if 0 < abs(value) < 0.0005 else f"{value + 0.0:.3f}"  # no "-0.000"
