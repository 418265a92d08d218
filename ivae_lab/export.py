"""Writes a trained model's encoder and decoder to files that need no ivae_lab.

    ivae-lab export run=FOLDER [format=torchscript] [seed=S] [out=NAME]

run     a run folder, finished; or `latest`, or how its name below outputs/ and no other begins
format  torchscript: NAME.encoder.pt and NAME.decoder.pt, for torch.jit.load and for C++
        pt2: NAME.encoder.pt2 and NAME.decoder.pt2, for torch.export.load(...).module()
seed    which model of a run with several
out     NAME (default: <run folder>-seed<S> here)

The encoder takes x (B, d) as the run's data were before whitening (of data=file: after windows were made, codes were
one-hot), float32, and where it sees u the places of the labels, int64 (B,), or the standardised columns, float32
(B, k); it gives the posterior's mean and standard deviation, (B, n) each. The decoder takes z (B, n), and gives the x
that is expected there, likewise before preprocessing; of images in [0, 1]. B may be any number.
Both are held against the model on random rows, to 1e-5 of the numbers' size, before the files get their names.

Exit codes: 0 exported, 2 bad input, or what was exported differs from the model, 130 and 143 stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ivae_lab.runs.folder import run_folder
from ivae_lab.terminal.command_line import BadInputError, done, one_of, pairs, whole, written, wrong_input

SUFFIXES = {"torchscript": ".pt", "pt2": ".pt2"}
KEYS = {"run": (), "format": (*SUFFIXES,), "seed": (), "out": ()}
_ONNX = "the packages onnx and onnxscript, which are none of this project's: torch.onnx.export takes a loaded pt2"


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return done("ivae_lab.export", __doc__, arguments, _run)


def _run(arguments: Sequence[str]) -> None:
    given = pairs(arguments, KEYS, needed=("run",))
    if given.get("format") == "onnx":
        raise BadInputError(f"expected format= torchscript or pt2, got onnx, which takes {_ONNX}")
    kind = one_of("format", given.get("format", "torchscript"), SUFFIXES)
    seed = whole("seed", given["seed"], 0) if "seed" in given else None
    folder = run_folder(given["run"])
    from ivae_lab.inference.export_formats import WRITERS, portable
    from ivae_lab.inference.trained_model import load

    with wrong_input():
        trained = load(folder, seed)
    name = given.get("out", f"{folder.resolve().name}-seed{trained.seed}")
    with ExitStack() as files, wrong_input():
        for part in portable(trained):
            path = Path(f"{name}.{part.name}{SUFFIXES[kind]}")
            temporary = files.enter_context(written(path))
            part.check(WRITERS[kind](part, temporary))
            print(f"{path}: agrees with the model")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
