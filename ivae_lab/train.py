"""The main command: `python -m ivae_lab.train model=vade data=tcl`.

Exit codes: 0 done (or found finished), 1 a run that failed or in which a seed diverged, 2 bad input,
130 and 143 stopped by Ctrl-C or SIGTERM and ready to be continued.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

import hydra
from omegaconf import DictConfig

from ivae_lab import sweep
from ivae_lab.places import CONFIG

_INTERRUPTED = "ivae_lab.train: interrupted before the run began"


@hydra.main(version_base="1.3", config_path=str(CONFIG), config_name="config")
def main(config: DictConfig) -> float | None:
    """Do one run of the composed configuration; its held-out ELBO, for a sweeper that searches for the best."""
    before = signal.signal(signal.SIGINT, _leave)
    from ivae_lab.engine.job import do, objective

    signal.signal(signal.SIGINT, before)
    code = do(config)
    sweep.exit_codes.append(code)
    if code > 128:  # told to stop: a sweep does not go on either
        sys.exit(code)
    return objective(config)


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once: an exception in the midst of a library's import may be swallowed there, and the run go on."""
    print(_INTERRUPTED, file=sys.stderr, flush=True)
    os._exit(130)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
        sys.exit(130)
    sys.exit(max(sweep.exit_codes))
