"""The main command: `python -m ivae_lab.train model=vade data=tcl`.

Exit codes: 0 done (or found finished), 1 a run that failed or in which a seed diverged, 2 bad input,
130 and 143 stopped by Ctrl-C or SIGTERM and ready to be continued.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from string import Template

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from ivae_lab import sweep
from ivae_lab.later import leaving
from ivae_lab.places import CONFIG

_INTERRUPTED = "ivae_lab.train: interrupted before the run began"


@hydra.main(version_base="1.3", config_path=str(CONFIG), config_name="config")
def main(config: DictConfig) -> float | None:
    """Do one run of the composed configuration; its held-out ELBO, for a sweeper that searches for the best."""
    with leaving(_INTERRUPTED), _lasting():
        from ivae_lab.engine.job import do, objective
    code = do(config)
    sweep.exit_codes.append(code)
    if code > 128:  # told to stop: a sweep does not go on either
        sys.exit(code)
    return objective(config)


@contextmanager
def _lasting() -> Iterator[None]:
    """Keep the garbage collector from what the first import brings: it is there to the end.

    Looking through PyTorch's hundred thousand objects again and again takes a tenth of its import, and of its end.
    """
    first = "torch" not in sys.modules
    if first:
        gc.disable()
    yield
    if first:
        gc.freeze()
        gc.enable()


def manual(arguments: Sequence[str]) -> str | None:
    """What `--help` prints: Hydra's own, which copies all that it knows for each group, takes three times as long.

    None where no help is asked for, or Hydra must answer: what has flags or keys of its own, or is wrong.
    """
    overrides = [each for each in arguments if each not in ("-h", "--help")]
    asked = len(overrides) < len(arguments)
    if not asked or any(each.startswith("-") or "=" not in each or "hydra" in each for each in overrides):
        return None
    with suppress(HydraException), hydra.initialize_config_dir(config_dir=str(CONFIG), version_base="1.3"):
        config = hydra.compose("config", overrides, return_hydra_config=True)
        own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        return Template(config.hydra.help.template).substitute(
            APP_CONFIG_GROUPS=_groups(), CONFIG=OmegaConf.to_yaml(own)
        )
    return None


def _groups() -> str:
    """A line for each group of the configuration: its choices."""
    groups: dict[str, list[str]] = {}
    for path in sorted(CONFIG.glob("*/**/*.yaml")):
        groups.setdefault(path.parent.relative_to(CONFIG).as_posix(), []).append(path.stem)
    own = (name for name in sorted(groups) if name.partition("/")[0] != "hydra")
    return "".join(f"{name}: {', '.join(sorted(groups[name]))}\n" for name in own)


if __name__ == "__main__":
    try:
        if said := manual(sys.argv[1:]):
            print(said)
        else:
            main()
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
        sys.exit(130)
    sys.exit(max(sweep.exit_codes))
