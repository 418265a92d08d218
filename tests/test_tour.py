"""Every command of the tour, in its order, by a shell, with fewer steps."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from ivae_lab.places import EXPERIMENTS
from tests.commands import environment

COMMAND = re.compile(r"^    (python .*)$", re.MULTILINE)


@pytest.mark.slow
def test_every_command_does_what_it_says(tmp_path: Path) -> None:
    commands = COMMAND.findall((EXPERIMENTS / "tour" / "README.md").read_text())
    assert len(commands) >= 9
    (tmp_path / "experiments").symlink_to(EXPERIMENTS)
    env = environment(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}", PYTHONPATH=str(EXPERIMENTS.parent))
    for command in commands:
        shorter = re.sub(r"trainer\.steps=\d+", "trainer.steps=20", command)
        assert shorter != command or "trainer.steps" not in command
        done = subprocess.run(shorter, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{shorter}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    tour = tmp_path / "outputs" / "tour"
    latents = pd.read_parquet(tour / "latents.parquet")
    assert len(latents) == 6000
    assert {"index", "mean_0", "sd_0", "sample_0"} <= {*latents}
    assert len(pd.read_parquet(tour / "at_a_quarter.parquet")) == 500
    assert (tour / "dims" / "choice.png").exists()
    (digits,) = (tour / "digits").glob("file-*")
    assert (digits / "latents.png").exists()
    assert (digits / "checks.json").exists()
