"""Encodes new rows by a trained model: the posterior's mean, standard deviation and one sample of each.

    ivae-lab encode run=FOLDER data.path=FILE [out=FILE] [seed=S]

run        a run folder, finished; or `latest`, or how its name below outputs/ and no other begins
data.path  rows as the run's data were before any preprocessing, which is done here as it was fitted there: an .npz
           with x (N, d), an x.npy, a .parquet or a .csv with a column for each of the d. Where the encoder sees u, its
           labels are the array u (beside an x.npy: u.npy) or the column u. Row ids are the array or column index, else
           the rows' numbers. All but .npz are read block by block: they may be larger than memory. Of a run of
           data=file columns have the names that they had there; of one with data.window=w, rows are taken as one
           stretch of time, whose first and last w are left out
out        a .parquet (default: <name of the data>-latents.parquet here), written block by block; or an .npz, for what
           fits in memory, which `ivae-lab score` reads too
seed       which model of a run with several

Columns: index; mean_0, mean_1, ...; sd_0, ...; sample_0, ... (from the seed's own stream: the same command draws the
same); and for a prior with components p_0, p_1, ...: p(k given z) at the mean, p_j_k of component k of facet j. In an
.npz these are arrays index (N,), mean, sd, sample (N, n) and p (N, K).

Exit codes: 0 encoded, 2 bad input, 130 and 143 stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ivae_lab.inference.encoding import encoded
from ivae_lab.runs.folder import run_folder
from ivae_lab.tabular.reading import open_table
from ivae_lab.tabular.writing import out_path, stream
from ivae_lab.terminal.command_line import done, pairs, whole, wrong_input

KEYS: dict[str, tuple[str, ...]] = {"run": (), "data.path": (), "out": (), "seed": ()}


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return done("ivae_lab.encode", __doc__, arguments, _run)


def _run(arguments: Sequence[str]) -> None:
    given = pairs(arguments, KEYS, needed=("run", "data.path"))
    path = Path(given["data.path"])
    out = out_path(given.get("out", f"{path.stem}-latents.parquet"))
    seed = whole("seed", given["seed"], 0) if "seed" in given else None
    with wrong_input():
        table = open_table(path)
    folder = run_folder(given["run"])
    from rich.console import Console

    from ivae_lab.inference.trained_model import load

    with wrong_input():
        trained = load(folder, seed)
        stream(out, encoded(trained, table), table.rows, Console(stderr=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
