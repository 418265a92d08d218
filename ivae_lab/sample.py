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
from collections.abc import Sequence

from ivae_lab.inference.sampling import sampled, traversed
from ivae_lab.runs.folder import run_folder
from ivae_lab.tabular.writing import out_path, stream
from ivae_lab.terminal.command_line import TRUTH, BadInputError, done, one_of, pairs, whole, wrong_input

KEYS = {"run": (), "rows": (), "u": (), "draw": (), "traversals": TRUTH, "seed": (), "out": ()}


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return done("ivae_lab.sample", __doc__, arguments, _run)


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
