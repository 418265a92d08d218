"""Time the aggregator on many run folders: `python scripts/many_runs.py [--runs 10000] [--seeds 2] [--distinct]`.

Makes finished run folders in a temporary folder, each with the configuration of a sweep's run (100 keys), its status
and 10 rows per seed. Then runs the command twice, cold (nothing kept from before) and warm (no folder has changed),
and prints the seconds on the clock, those of the processor, and the peak memory of its process. `--distinct` makes the
worst case for the parser of the configurations: no two runs share any part of them.

The files have just been written, so they are read from memory. Cores are chosen from outside: `taskset -c 0,1 ...`.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from omegaconf import OmegaConf

from ivae_lab.config.digests import NUMBERS, cell_digest, run_digest
from ivae_lab.config.overrides import run_config
from ivae_lab.runs.results_csv import COLUMNS

SCORED = [
    *product(("mcc",), ("mean", "sample"), ("pearson", "spearman"), ("strong",), ("",), ("all",)),
    *product(("mcc",), ("mean", "sample"), ("pearson",), ("weak",), (5,), ("out",)),
    *product(("linear_r2",), ("mean", "sample"), ("",), ("",), ("",), ("out",)),
    *product(("elbo", "kl"), ("",), ("",), ("",), ("",), ("all",)),
]  # metric, latents, coefficient, alignment, rank, scored
BETAS, RATES, DATA_SEEDS = 10, 10, 10  # of the sweep; latent dimensions make up the rest


@dataclass(frozen=True)
class Timing:
    """What one call of the command took."""

    seconds: float
    processor: float
    mebibytes: float  # resident memory at its highest

    @classmethod
    def of(cls, *arguments: str) -> Timing:
        """Run `python -m ivae_lab.aggregate` and wait for its end."""
        begun = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "ivae_lab.aggregate", *arguments])
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"expected the command to succeed, got exit code {process.returncode}")
        return cls(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**10)

    def __str__(self) -> str:
        """One line."""
        return f"{self.seconds:6.1f} s, {self.processor:6.1f} s of processor, {self.mebibytes:5.0f} MiB at most"


def template() -> dict[str, Any]:
    """The main configuration, as plain values."""
    config = run_config()
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def configuration(base: dict[str, Any], number: int, seeds: int, distinct: bool) -> dict[str, Any]:
    """Run `number` of a sweep; no two have the same cell."""
    config = copy.deepcopy(base)
    rest, config["data"]["seed"] = divmod(number, DATA_SEEDS)
    rest, beta = divmod(rest, BETAS)
    rest, rate = divmod(rest, RATES)
    config["model"] |= {"beta": 1.0 + beta, "latent_dim": 1 + rest}
    config["trainer"]["lr"] = 0.001 * (1 + rate)
    config["seed"] = list(range(seeds))
    for part in (*NUMBERS, "compute") if distinct else ():
        config[part]["number"] = number
    return config


def write_run(outputs: Path, config: dict[str, Any], seeds: int, rng: np.random.Generator) -> None:
    """Write the files that the aggregator reads."""
    run = run_digest(config, config["seed"])
    folder = outputs / f"tcl-vade-{run}"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.dump(config, Dumper=yaml.CSafeDumper, sort_keys=False))
    status = {
        "state": "done",
        "error": None,
        "seeds": config["seed"],
        "data_seed": config["data"]["seed"],
        "run": run,
        "cell": cell_digest(config),
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": "0123456789ab",
        "seconds": round(rng.uniform(10, 1000), 2),
    }
    (folder / "status.json").write_text(json.dumps(status, indent=2))
    lines = [",".join(COLUMNS)]
    for seed, scored in product(range(seeds), SCORED):
        metric, latents, coefficient, alignment, rank, rows = scored
        value, chance = rng.uniform(size=2).tolist()
        fixed = (seed, config["data"]["seed"], "train", metric, latents, coefficient, alignment, rank, rows)
        lines.append(",".join(map(str, (*fixed, 2000, 5, 5, value, chance, "done"))))
    (folder / "results.csv").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Make the folders, run the command twice, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--distinct", action="store_true", help="configurations that share no part")
    given = parser.parse_args()
    base, rng = template(), np.random.default_rng(0)
    with TemporaryDirectory() as outputs:
        for number in range(given.runs):
            config = configuration(base, number, given.seeds, given.distinct)
            write_run(Path(outputs), config, given.seeds, rng)
        cold, warm = (Timing.of(f"outputs={outputs}") for _ in range(2))
        sizes = {path.name: path.stat().st_size / 2**20 for path in Path(outputs).iterdir() if path.is_file()}
    print(f"cold {cold}\nwarm {warm}")
    print(", ".join(f"{name} {size:.1f} MiB" for name, size in sorted(sizes.items())))


if __name__ == "__main__":
    main()
