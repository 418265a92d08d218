"""Convert a `DataSpec` to plain values and back, so that a trained model can be built without its data."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import torch

from ivae_lab.core.data import DataSpec, Image
from ivae_lab.distributions.densities import NormalMixture
from ivae_lab.distributions.piecewise_mixture import PiecewiseMixture

_KINDS = {kind.__name__: kind for kind in (DataSpec, Image, PiecewiseMixture, NormalMixture)}


def to_plain(value: Any) -> Any:
    """Convert a `DataSpec`, or a part of one, to numbers, text, lists and mappings, for JSON.

    Raises
    ------
    TypeError
        For a part of another kind.
    """
    if is_dataclass(value):
        kind = type(value).__name__
        if _KINDS.get(kind) is not type(value):
            raise TypeError(f"expected one of {', '.join(_KINDS)}, got {kind}")
        return {"kind": kind} | {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, torch.Tensor):
        return {"kind": "Tensor", "dtype": str(value.dtype).removeprefix("torch."), "values": value.tolist()}
    return [*value] if isinstance(value, tuple) else value


def from_plain(plain: Any) -> Any:
    """Invert `to_plain`.

    Raises
    ------
    KeyError, TypeError
        For anything else.
    """
    if not isinstance(plain, dict):
        return tuple(plain) if isinstance(plain, list) else plain
    parts = {name: from_plain(value) for name, value in plain.items() if name != "kind"}
    if plain["kind"] == "Tensor":
        return torch.tensor(parts["values"], dtype=getattr(torch, parts["dtype"]))
    return _KINDS[plain["kind"]](**parts)
