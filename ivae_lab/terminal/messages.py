"""Parts of messages: the first of many names, an error on one line, and suggestions for a misspelt name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def listed(names: Sequence[object], most: int = 8) -> str:
    """Join the first `most` names, followed by the number of all names if there are more."""
    shown = ", ".join(map(str, names[:most])) or "none"
    return shown if len(names) <= most else f"{shown}, ... ({len(names)})"


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line, or the name of its class if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Suggest the known names most similar to `name`, in brackets after a space; empty if none is similar."""
    near = difflib.get_close_matches(name, known, n=3)
    return f" (did you mean {', '.join(near)}?)" if near else ""


def unknown_key(key: str, known: list[str]) -> str:
    """Say that a key is unknown: the expected keys, and the known ones most similar to it."""
    expected = f"one of {', '.join(sorted(known))}" if known else "no keys"
    return f"expected {expected}; got an unknown key{did_you_mean(key, known)}"
