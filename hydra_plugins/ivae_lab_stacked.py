"""The launcher of our sweeps. Hydra takes launchers from the package `hydra_plugins` only, hence this place."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn


class StackedLauncher(BasicLauncher):
    """Hydra's own launcher, one job after another in this process; but the first run of a shape takes the others along.

    `conf/hydra/launcher/stacked.yaml`; `hydra/launcher=basic` trains every run by itself.
    """

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Say which runs are to come, then do the jobs."""
        from ivae_lab.launch.sweep import composed
        from ivae_lab.training.job import expect

        expect([composed(self, overrides) for overrides in job_overrides])
        try:
            return super().launch(job_overrides, initial_job_idx)
        finally:
            expect([])
