"""What is said of one assumption of a paper: does it hold where it was looked at, and what shows it if not."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any


@dataclass(frozen=True)
class Check:
    """The verdict on one assumption.

    Parameters
    ----------
    name
        The paper's name of the assumption, such as `F3`.
    looked_at
        One sentence: what was checked, with counts. The verdict says nothing of anything else.
    passed
        None where it could not be decided.
    witness
        One sentence: what breaks the assumption, or why it is undecided; empty if passed.
    evidence
        Numbers behind the verdict by name: plain floats, integers and lists of them.
    numbers
        Those that are rows of results.csv too, by the name of the row; they are evidence as well.
    meaning
        One sentence: what the verdict means for who uses the model.
    limit
        One sentence: how far the rows that were looked at can tell.
    """

    name: str
    looked_at: str
    passed: bool | None
    witness: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    meaning: str = ""
    limit: str = ""

    def of_truth(self) -> Check:
        """The same, said of what the data are made from: its names begin with `true_`."""
        numbers = {f"true_{name}": value for name, value in self.numbers.items()}
        return replace(self, name=f"true_{self.name}", numbers=numbers)

    def values(self) -> dict[str, float]:
        """What results.csv has of it, by the name of the row: the verdict, 1 holds and 0 does not, and its numbers."""
        verdict = float("nan") if self.passed is None else float(self.passed)
        return {self.name: verdict, **self.numbers}

    def as_row(self) -> dict[str, Any]:
        """Every field by name, ready for JSON, which has no numbers that are not finite."""
        numbers = {name: value if isfinite(value) else None for name, value in self.numbers.items()}
        return {
            "name": self.name,
            "looked_at": self.looked_at,
            "passed": self.passed,
            "witness": self.witness,
            "meaning": self.meaning,
            "limit": self.limit,
            "evidence": {**self.evidence, **numbers},
        }
