"""How messages put things: a few of many names, what an error says, and the names that may have been meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def listed(names: Sequence[object], most: int = 8) -> str:
    """The first names, and how many there are where these are not all."""
    shown = ", ".join(map(str, names[:most])) or "none"
    return shown if len(names) <= most else f"{shown}, ... ({len(names)})"


def one_line(error: BaseException) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The nearest known names, in brackets and with a space before; empty where none is near."""
    near = difflib.get_close_matches(name, known, n=3)
    return f" (did you mean {', '.join(near)}?)" if near else ""


def unknown_key(key: str, known: list[str]) -> str:
    """What was expected in place of a key that nothing reads, with the nearest known ones."""
    expected = f"one of {', '.join(sorted(known))}" if known else "no keys"
    return f"expected {expected}; got an unknown key{did_you_mean(key, known)}"
