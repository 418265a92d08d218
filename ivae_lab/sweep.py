"""What is checked before a sweep begins (`python -m ivae_lab.train -m ...`), and what its runs came to."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

exit_codes = [0]  # of the runs of this process, or that it submitted: a sweep goes on after one that fails


class WritableOutputs(Callback):
    """Finds a folder for the outputs that cannot be written before Hydra does, with one line instead of a traceback."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Make the folder, and leave with exit code 2 where that fails."""
        try:
            folder = Path(config.outputs)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "multirun.yaml").touch()
        except OSError as error:
            print(f"ivae_lab.train: outputs: expected a folder that can be written, got: {error}", file=sys.stderr)
            sys.exit(2)
