"""The verdict on one assumption of a paper: whether it holds where it was checked, and what breaks it if not."""

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
        One sentence: what was checked, with counts. The verdict is about nothing else.
    passed
        None where it could not be decided.
    witness
        One sentence: what breaks the assumption, or why it is undecided; empty if passed.
    evidence
        Numbers behind the verdict by name: plain floats, integers and lists of them.
    numbers
        Evidence that also becomes rows of results.csv, by the name of the row.
    meaning
        One sentence: what the verdict means for users of the model.
    limit
        One sentence: what the checked rows cannot tell.
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
        """Mark the check as one of the true generator: names get the prefix `true_`."""
        numbers = {f"true_{name}": value for name, value in self.numbers.items()}
        return replace(self, name=f"true_{self.name}", numbers=numbers)

    def values(self) -> dict[str, float]:
        """Return rows of results.csv by name: the verdict, 1 holds, 0 does not, NaN undecided, and the numbers."""
        verdict = float("nan") if self.passed is None else float(self.passed)
        return {self.name: verdict, **self.numbers}

    def as_row(self) -> dict[str, Any]:
        """Return every field by name, ready for JSON, with None for numbers that are not finite."""
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
