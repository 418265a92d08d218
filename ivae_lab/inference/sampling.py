"""New rows of x from a trained model: from its prior, at a value of u or in a component, or along a latent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ivae_lab.tabular.columns import NumberColumn, OneHotColumn
from ivae_lab.tabular.writing import Block, block_rows
from ivae_lab.terminal.messages import listed

if TYPE_CHECKING:
    from ivae_lab.inference.trained_model import Trained

Array = np.ndarray[Any, Any]
REACH = 2.5  # standard deviations that a traversal reaches to either side


def sampled(trained: Trained, rows: int, u: Any = None, draw: int = 0) -> Iterator[Block]:
    """Draw new rows in blocks; the draw depends on the model's seed and `draw`.

    Raises
    ------
    ValueError
        If u is none of the training's labels, or the prior takes no u.
    """
    codes, named = _codes(trained, u)
    size = block_rows(trained.spec.x_dim)
    for number, start in enumerate(range(0, rows, size)):
        places = np.arange(start, min(start + size, rows))
        of_rows = None if codes is None else codes[places % len(codes)]
        block = {name: values[places % len(values)] for name, values in named.items()}
        yield block | {"x": trained.sample(len(places), of_rows, (draw, number))}


def traversed(trained: Trained, u: Any = None) -> Block:
    """Move one latent after another, while the others stay: n times `TRAVERSAL_STEPS` rows.

    Raises
    ------
    ValueError
        As in `sampled`, and if there is no u but the prior needs it.
    """
    from ivae_lab.models.base import TRAVERSAL_STEPS

    codes, _ = _codes(trained, u)
    if codes is not None and len(codes) > 1:
        raise ValueError(f"expected u= for traversals, one of {listed(trained.labels)}, got none")
    mean, std = trained.prior_at(codes)  # (n,)
    moved = np.tile(mean, (len(mean), TRAVERSAL_STEPS, 1))  # (n, steps, n)
    steps = np.linspace(-REACH, REACH, TRAVERSAL_STEPS, dtype=mean.dtype)
    for i in range(len(mean)):
        moved[i, :, i] += steps * std[i]
    z = moved.reshape(-1, len(mean))
    return {"latent": np.repeat(np.arange(len(mean)), TRAVERSAL_STEPS), "z": z, "x": trained.decode(z)}


def _codes(trained: Trained, u: Any) -> tuple[Array | None, Block]:
    """The values of u that rows take in turn, as model input and by name; None if the prior takes no u."""
    if not trained.prior_needs_u:
        if u is not None:
            raise ValueError(f"expected no u=, as this model's prior is told none, got {u}")
        return None, {}
    if trained.spec.u_kind == "columns":
        values = _values(trained, u)
        return trained.u([[*values.values()]]).numpy(), {name: np.array([value]) for name, value in values.items()}
    codes = np.arange(trained.u_dim) if u is None else trained.codes([_label(trained.labels, u)]).numpy()
    return codes, {"u": np.array(trained.labels)[codes]}


def _values(trained: Trained, u: Any) -> dict[str, Any]:
    """Parse the value of each column of u from a command line, where commas separate them."""
    recipe = trained.recipe
    names = recipe.u_columns or [f"u_{i}" for i in range(trained.spec.u_dim)]
    given = [] if u is None else str(u).split(",")
    if len(given) != len(names):
        raise ValueError(f"expected u= with a value for each of {listed(names)}, got {u or 'none'}")
    kinds = recipe.u if isinstance(recipe.u, list) else [None] * len(names)
    return {name: _value(kind, text) for name, kind, text in zip(names, kinds, given, strict=True)}


def _value(kind: NumberColumn | OneHotColumn | None, text: str) -> Any:
    if isinstance(kind, OneHotColumn):
        return _label(kind.labels.values, text)
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"expected a number in u=, got {text}") from None


def _label(labels: list[Any], u: Any) -> Any:
    """Find the label by its text on a command line."""
    return next((label for label in labels if str(label) == str(u)), u)
