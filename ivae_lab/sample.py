"""Draws new x from a trained model, or moves one latent after another.

    ivae-lab sample run=FOLDER [rows=1000] [u=LABEL] [draw=0] [traversals=true] [seed=S] [out=FILE]

run         a run folder, finished; or `latest`, or how its name below outputs/ and no other begins
rows        how many: z from the prior, then x from p(x given z)
u           the label of all rows, for a model whose prior is one given u; without it all labels in turn. Where u is
            columns of numbers a value for each, such as u=0.3 or u=0.3,day. A prior that is told no u, such as a
            mixture, is drawn from as it is
draw        another number draws other rows
traversals  in place of draws: each latent moves by up to 2.5 standard deviations of the prior to either side of its
            mean while the others stay at theirs, and x is what is expected there. At the label u=, of a mixture at its
            heaviest component
seed        which model of a run with several
out         a .parquet (default: samples.parquet or traversals.parquet here), written block by block; or an .npz

Columns: u where the prior is told it; x_0, x_1, ... as the run's data were before any preprocessing, of images in
[0, 1]. Of traversals: latent, which moves; z_0, z_1, ...; x_0, .... In an .npz z and x are arrays (N, n) and (N, d).

Exit codes: 0 drawn, 2 bad input, 130 and 143 stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ivae_lab.runs.folder import run_folder
from ivae_lab.tabular.columns import Number, OneHot
from ivae_lab.tabular.writing import Block, block_rows, out_path, stream
from ivae_lab.terminal.command_line import TRUTH, BadInputError, done, one_of, pairs, whole, wrong_input
from ivae_lab.terminal.messages import listed

if TYPE_CHECKING:
    from ivae_lab.inference.trained_model import Trained

Array = np.ndarray[Any, Any]
KEYS = {"run": (), "rows": (), "u": (), "draw": (), "traversals": TRUTH, "seed": (), "out": ()}
REACH = 2.5  # standard deviations that a traversal reaches to either side


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return done("ivae_lab.sample", __doc__, arguments, _run)


def sampled(trained: Trained, rows: int, u: Any = None, draw: int = 0) -> Iterator[Block]:
    """New rows in blocks; what is drawn depends on the model's seed and `draw`.

    Raises
    ------
    ValueError
        If u is none of the training's labels, or the prior is told no u.
    """
    codes, named = _codes(trained, u)
    size = block_rows(trained.spec.x_dim)
    for number, start in enumerate(range(0, rows, size)):
        places = np.arange(start, min(start + size, rows))
        of_rows = None if codes is None else codes[places % len(codes)]
        block = {name: values[places % len(values)] for name, values in named.items()}
        yield block | {"x": trained.sample(len(places), of_rows, (draw, number))}


def traversed(trained: Trained, u: Any = None) -> Block:
    """One latent moved, the others kept: n times `TRAVERSAL_STEPS` rows.

    Raises
    ------
    ValueError
        As of `sampled`, and if there is no u and the prior needs it.
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
    """The u that rows take in turn, as the model takes it and as it is called; None where the prior is told none."""
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
    """The value of each column of u, as they are written on a command line, with a comma between."""
    recipe = trained.recipe
    names = recipe.u_columns or [f"u_{i}" for i in range(trained.spec.u_dim)]
    given = [] if u is None else str(u).split(",")
    if len(given) != len(names):
        raise ValueError(f"expected u= with a value for each of {listed(names)}, got {u or 'none'}")
    kinds = recipe.u if isinstance(recipe.u, list) else [None] * len(names)
    return {name: _value(kind, text) for name, kind, text in zip(names, kinds, given, strict=True)}


def _value(kind: Number | OneHot | None, text: str) -> Any:
    if isinstance(kind, OneHot):
        return _label(kind.labels.values, text)
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"expected a number in u=, got {text}") from None


def _label(labels: list[Any], u: Any) -> Any:
    """The label that is written so on a command line."""
    return next((label for label in labels if str(label) == str(u)), u)


def _run(arguments: Sequence[str]) -> None:
    given = pairs(arguments, KEYS, needed=("run",))
    traversals = one_of("traversals", given.get("traversals", "false"), TRUTH) == "true"
    if traversals and (unread := [key for key in ("rows", "draw") if key in given]):
        raise BadInputError(f"expected no {unread[0]}= with traversals=true, got {given[unread[0]]}")
    rows, draw = whole("rows", given.get("rows", "1000"), 1), whole("draw", given.get("draw", "0"), 0)
    out = out_path(given.get("out", "traversals.parquet" if traversals else "samples.parquet"))
    seed, u = whole("seed", given["seed"], 0) if "seed" in given else None, given.get("u")
    folder = run_folder(given["run"])
    from rich.console import Console

    from ivae_lab.inference.trained_model import load

    with wrong_input():
        trained = load(folder, seed)
        blocks = [traversed(trained, u)] if traversals else sampled(trained, rows, u, draw)
        stream(out, blocks, len(blocks[0]["x"]) if isinstance(blocks, list) else rows, Console(stderr=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
