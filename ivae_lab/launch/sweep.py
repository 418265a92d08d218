"""Functions that launchers share for a sweep (`python -m ivae_lab.train -m ...`): composing, checks, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from ivae_lab.config.overrides import without_hydra
from ivae_lab.terminal import command_line as arguments
from ivae_lab.terminal.command_line import BAD_INPUT

NAME = "ivae_lab.train"
say = partial(arguments.say, NAME)  # (message, exit code)
exit_codes = [0]  # of the runs that this process did or submitted: a sweep goes on after a run that fails


def composed(launcher: Launcher, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
    """Compose the configuration of a job without Hydra's part; return it with the choice of each group."""
    loader = launcher.hydra_context.config_loader  # type: ignore[attr-defined]
    config = loader.load_sweep_config(launcher.config, list(overrides))  # type: ignore[attr-defined]
    return without_hydra(config), dict(config.hydra.runtime.choices)


def refuse(reason: object) -> int:
    """Print why a run is not started, record its exit code and return it."""
    exit_codes.append(BAD_INPUT)
    return say(reason, BAD_INPUT)


class WritableOutputs(Callback):
    """Checks before Hydra does that the outputs can be written, and prints one line instead of a traceback."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Make the folder, and exit with code 2 if that fails."""
        try:
            folder = Path(config.outputs)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "multirun.yaml").touch()
        except OSError as error:
            sys.exit(refuse(f"outputs: expected a folder that can be written, got: {error}"))
