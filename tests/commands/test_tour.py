"""Every command of the tour, in its order, with fewer steps; its words as a shell makes them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from ivae_lab.config.paths import EXPERIMENTS
from tests.running import command, environment

COMMAND = re.compile(r"^    (python .*)$", re.MULTILINE)


def shell(line: str, cwd: Path) -> str:
    """What a shell says to a line."""
    env = environment(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}", PYTHONPATH=str(EXPERIMENTS.parent))
    done = subprocess.run(line, shell=True, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.slow
def test_every_command_does_what_it_says(tmp_path: Path) -> None:
    lines = COMMAND.findall((EXPERIMENTS / "tour" / "README.md").read_text())
    assert len(lines) >= 9
    (tmp_path / "experiments").symlink_to(EXPERIMENTS)
    for line in lines:
        shorter = re.sub(r"trainer\.steps=\d+", "trainer.steps=20", line)
        assert shorter != line or "trainer.steps" not in line
        if called := re.match(r"python -m ([\w.]+) (.*)", shorter):
            words = shell(rf"printf '%s\0' {called[2]}", tmp_path).split("\0")[:-1]
            done = command(*words, module=called[1], cwd=tmp_path)
            assert done.code == 0, f"{shorter}\n{done.out[-2000:]}\n{done.err[-2000:]}"
        else:
            shell(shorter, tmp_path)
    tour = tmp_path / "outputs" / "tour"
    latents = pd.read_parquet(tour / "latents.parquet")
    assert len(latents) == 6000
    assert {"index", "mean_0", "sd_0", "sample_0"} <= {*latents}
    assert len(pd.read_parquet(tour / "at_a_quarter.parquet")) == 500
    assert (tour / "dims" / "choice.png").exists()
    (digits,) = (tour / "digits").glob("file-*")
    assert (digits / "latents.png").exists()
    assert (digits / "checks.json").exists()
