"""README and documentation say what the committed results say, and name files, commands and choices that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from ivae_lab.config.paths import CONFIG
from ivae_lab.reproduction.definition import load, names
from ivae_lab.reproduction.records import recorded
from scripts import readme_tables

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
VERDICTS = (ROOT / "experiments" / "README.md").read_text()
PAGES = [
    path
    for pattern in ("*.md", "docs/*.md", "tests/*.md", "experiments/**/*.md")
    for path in sorted(ROOT.glob(pattern))
]


@pytest.mark.parametrize("path", readme_tables.FILES, ids=lambda path: path.parent.name)
@pytest.mark.slow
def test_tables_are_those_of_the_committed_rows(path: Path) -> None:
    text = path.read_text()
    assert "<!-- table: " in text
    assert readme_tables.filled(text) == text, "run scripts/readme_tables.py"


def test_a_changed_row_makes_a_table_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(name for name in names() if recorded(load(name)) is not None)
    before = readme_tables.table(f"summary {name}")

    def changed(figure: object) -> object:
        kept = recorded(load(name))
        assert kept is not None
        kept.tables["rows"] = kept.tables["rows"].assign(mcc_mean=0.123, mcc_sample=0.123)
        return kept

    monkeypatch.setattr(readme_tables, "recorded", changed)
    assert readme_tables.table(f"summary {name}") != before


def test_committed_rows_say_where_they_come_from() -> None:
    kept = [found for name in names() if (found := recorded(load(name))) is not None]
    assert kept
    for evidence in kept:
        rows = evidence.tables["rows"]
        assert evidence.scale == "paper" or f"`{evidence.figure.full_name}`, quick" in VERDICTS
        assert not evidence.changed
        assert set(rows["run"]) == set(evidence.runs)
        assert not rows[["commit", "written"]].isna().any(axis=None)
        assert pd.to_datetime(rows["written"]).notna().all()
        assert all(run["versions"]["torch"] for run in evidence.runs.values())


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_it_links_to_is_there(page: Path) -> None:
    linked = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    missing = [link for link in linked if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_every_module_that_the_architecture_names_is_there() -> None:
    named = re.findall(r"`([a-z_0-9/]+\.py)`", (ROOT / "docs" / "architecture.md").read_text())
    assert len(named) > 20
    missing = {name for name in named if not ((ROOT / name).is_file() or (ROOT / "ivae_lab" / name).is_file())}
    files_to_come = {"mine.py", "test_mine.py", "figures.py"}
    assert {name for name in missing if Path(name).name not in files_to_come} == set()


def test_the_readme_is_short_and_shows_a_picture() -> None:
    assert len(README.encode()) <= 20_000
    assert re.search(r"!\[[^]]+\]\(", README)


def test_the_choices_it_lists_are_those_of_the_configuration() -> None:
    for group in ("data", "prior", "trainer", "metric"):
        line = next(line for line in README.splitlines() if line.startswith(f"| `{group}="))
        for choice in (CONFIG / group).glob("*.yaml"):
            assert f"`{choice.stem}`" in line, f"{group}={choice.stem}"
    line = next(line for line in README.splitlines() if line.startswith("| `model="))
    for choice in (CONFIG / "model").glob("*.yaml"):
        assert f"`{choice.stem}`" in line or choice.stem.endswith("_released"), f"model={choice.stem}"
