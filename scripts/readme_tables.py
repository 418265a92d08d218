"""Write the tables of the README files from the rows that the project keeps, or check that they are current.

    python scripts/readme_tables.py           rewrite what stands between the markers
    python scripts/readme_tables.py --check   exit 1 where a table is not that of the committed rows

Markers are `<!-- table: NAME -->` and `<!-- end -->`. NAME is `verdicts`, `verdicts PAPER`, `summary FIGURE`, or `pairs
FIGURE`. No row is changed and nothing is trained: `python -m ivae_lab.reproduce FIGURE scale=paper record=true` makes
the rows. What is of the quick scale is marked, and gets no verdict: it says what little training does.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pandas as pd

from ivae_lab.reproduction.claims import NO_VERDICT, Judgement, judge
from ivae_lab.reproduction.definition import load, names
from ivae_lab.reproduction.records import recorded
from ivae_lab.reproduction.summary import summary
from ivae_lab.terminal.text_tables import brief, markdown

ROOT = Path(__file__).resolve().parents[1]
PAPERS = sorted(path.with_name("README.md") for path in ROOT.glob("experiments/*/reported.csv"))
FILES = (ROOT / "experiments" / "README.md", *PAPERS)
BLOCK = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
ALIGNED = {
    "mcc_in_20": "rank 20, in",
    "mcc_out_20": "rank 20, out",
    "mcc_in": "full rank, in",
    "mcc_out": "full rank, out",
    "mcc_strong": "no CCA",
}
ICONS = {"reproduced": "✓", "partly": "~", "not reproduced": "✗", "not run": "·"}


def verdicts(paper: str | None = None) -> str:
    """Every claim of the figures that have rows, theirs beside ours."""
    rows = [row for name in names() if paper in (None, name.split("/")[0]) for row in _claims(name, long=bool(paper))]
    return markdown(pd.DataFrame(rows)) if rows else "nothing recorded yet\n"


@cache
def _judged(name: str) -> tuple[str, list[Judgement]]:
    """The scale of a figure's rows and a judgement of each claim, made once for all tables that say them."""
    figure = load(name)
    kept = recorded(figure)
    return ("", []) if kept is None else (kept.scale, judge(figure, kept.chosen))


def _claims(name: str, long: bool) -> Iterator[dict[str, str]]:
    scale, judged = _judged(name)
    for each in judged:
        row = {
            "figure": f"`{name.split('/')[1] if long else name}`" + (", quick" if scale == "quick" else ""),
            "claim": each.statement,
            "theirs": each.theirs,
            "variant": each.variant,
            "ours": each.ours,
            "seeds": f"{each.data_seeds} x {each.seeds}",
            "verdict": NO_VERDICT if scale == "quick" else f"{ICONS[each.verdict]} {each.verdict}",
        }
        yield row | ({"why": each.reason} if long else {})


def summaries(name: str) -> str:
    """The summary table of one figure."""
    figure = load(name)
    kept = recorded(figure)
    if kept is None:
        return "not run yet\n"
    scale = "Quick scale: " if kept.scale == "quick" else ""
    done = f"\n{scale}{kept.done} of {kept.total} runs; made by `{kept.command} record=true`\n"
    return markdown(brief(summary(figure, kept.chosen[figure.scored]))) + done


def pair_means(name: str) -> str:
    """MCC between seeds of a figure of pairs, in and out of sample: means over pairs, and their chance floors."""
    kept = recorded(load(name))
    if kept is None:
        return "not run yet\n"
    pairs, cell = kept.chosen["pairs"], ["variant", "label", "data", "model.latent_dim"]
    means = pairs.groupby([*cell, "score"])[["value", "chance"]].mean()
    said = means.apply(lambda row: f"{row['value']:.3f} ({row['chance']:.3f})", axis=1).unstack("score")
    table = pairs[cell].drop_duplicates().merge(said[[*ALIGNED]].reset_index(), on=cell)
    return markdown(table.rename(columns={**ALIGNED, "model.latent_dim": "latent dim"}))


def table(name: str) -> str:
    """The table of a marker."""
    kind, _, rest = name.partition(" ")
    if kind == "verdicts":
        return verdicts(rest or None)
    return {"summary": summaries, "pairs": pair_means}[kind](rest)


def filled(text: str) -> str:
    """A README's text with every table made anew."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{table(found[2])}\n{found[3]}", text)


def main(arguments: list[str]) -> int:
    """Rewrite or check; the exit code."""
    if arguments not in ([], ["--check"]):
        print(f"readme_tables: expected --check or nothing, got {' '.join(arguments)}", file=sys.stderr)
        return 2
    stale = [path for path in FILES if filled(path.read_text(encoding="utf-8")) != path.read_text(encoding="utf-8")]
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'not the committed rows' if arguments else 'written'}")
        if not arguments:
            path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 1 if stale and arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
