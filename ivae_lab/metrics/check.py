"""What is said of one assumption of a paper: does it hold where it was looked at, and what shows it if not."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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
    """

    name: str
    looked_at: str
    passed: bool | None
    witness: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)

    def named(self, name: str) -> Check:
        """The same under another name."""
        return replace(self, name=name)

    def as_row(self) -> dict[str, Any]:
        """Every field by name, ready for JSON."""
        return {
            "name": self.name,
            "looked_at": self.looked_at,
            "passed": self.passed,
            "witness": self.witness,
            "evidence": dict(self.evidence),
        }
