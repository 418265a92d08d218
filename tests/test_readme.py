"""README says what the committed results say, and names commands and choices that exist."""

from __future__ import annotations

import re
from pathlib import Path

from ivae_lab.places import CONFIG
from scripts.released_table import table

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_is_that_of_the_committed_rows() -> None:
    assert table() in README
    assert table() in (ROOT / "experiments/khemakhem2020/README.md").read_text()


def test_every_file_it_shows_is_there() -> None:
    shown = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)
    assert shown
    for path in shown:
        assert (ROOT / path).is_file(), path


def test_the_choices_it_lists_are_those_of_the_configuration() -> None:
    for group in ("data", "prior", "trainer", "metric"):
        line = next(line for line in README.splitlines() if line.startswith(f"| `{group}="))
        for choice in (CONFIG / group).glob("*.yaml"):
            assert f"`{choice.stem}`" in line, f"{group}={choice.stem}"
    line = next(line for line in README.splitlines() if line.startswith("| `model="))
    for choice in (CONFIG / "model").glob("*.yaml"):
        assert f"`{choice.stem}`" in line or choice.stem.endswith("_released"), f"model={choice.stem}"
