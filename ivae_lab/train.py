"""The main command: `python -m ivae_lab.train model=vade data=tcl`.

Exit codes: 0 done (or found finished), 1 a run that failed or in which a seed diverged, 2 bad input,
130 and 143 stopped by Ctrl-C or SIGTERM and ready to be continued.
"""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

_PACKAGE = Path(__file__).resolve().parent
# In an installed wheel the configuration lies in the package, in a clone beside it.
CONFIG = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"

_exit_codes = [0]  # of the runs of this process: a sweep goes on after a run that fails, and says so at its end


@hydra.main(version_base="1.3", config_path=str(CONFIG), config_name="config")
def main(config: DictConfig) -> None:
    """Do one run of the composed configuration."""
    from ivae_lab.engine.job import do

    code = do(config)
    _exit_codes.append(code)
    if code > 128:  # told to stop: a sweep does not go on either
        sys.exit(code)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("ivae_lab.train: interrupted before the run began", file=sys.stderr)
        sys.exit(130)
    sys.exit(max(_exit_codes))
