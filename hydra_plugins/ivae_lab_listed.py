"""The sweeper of `python -m ivae_lab.reproduce`: a list of jobs instead of a product of values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class ListedSweeper(Sweeper):
    """Launches the jobs that a file lists, each with its own overrides, such as the missing cells of a figure.

    `hydra/sweeper=listed hydra.sweeper.jobs=FILE`. Overrides on the command line are added to each job's.

    Parameters
    ----------
    jobs
        A JSON file: a list of jobs, each a list of overrides such as "model=ivae".
    """

    def __init__(self, jobs: str) -> None:
        self.jobs = Path(jobs)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take the launcher of the configuration."""
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Launch all jobs at once."""
        jobs = json.loads(self.jobs.read_text())
        assert self.launcher is not None  # `setup` comes first
        return self.launcher.launch([[*job, *arguments] for job in jobs], initial_job_idx=0)
