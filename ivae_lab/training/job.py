"""Do one run: check the composed configuration, find finished work, train, print the results, return an exit code."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Len
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from ivae_lab.config.build import ConfigError, build, check_value
from ivae_lab.config.digests import NUMBERS, run_digest
from ivae_lab.engine.prior_rank import shortfall
from ivae_lab.launch.sweep import NAME, say
from ivae_lab.runs.folder import is_finished, read_status
from ivae_lab.storage.locks import BusyError
from ivae_lab.terminal.command_line import BAD_INPUT, FAILED, INTERRUPTED, OK
from ivae_lab.terminal.lazy import leaving
from ivae_lab.terminal.messages import one_line, unknown_key
from ivae_lab.training.planner import together
from ivae_lab.training.provenance import SCHEDULER, StoppedError
from ivae_lab.training.run import Settings, TrainingRun, prepare

_INTERRUPTED = "interrupted; the same command begins again, or continues from its last checkpoint"
_SETTINGS = ("seed", "outputs", "force", "logger", "show", "compute")
_Seed = Annotated[int, Ge(0), Le(2**32 - 1)]
_sweep: list[Settings] = []  # the runs of a sweep that have not been trained by this process
_trained: set[Path] = set()  # folders of runs that were trained together with another, before their turn


def do(config: DictConfig) -> int:
    """Do one run and return its exit code; errors that a user can correct are one line on stderr."""
    console = Console(markup=False, emoji=False)  # names of folders may have [words] and :words: in them
    try:
        return _do(config, console)
    except (ConfigError, BusyError, OmegaConfBaseException) as error:
        return say(one_line(error), BAD_INPUT)
    except OSError as error:
        return say(f"expected to read and write the run's files, got: {error}", BAD_INPUT)
    except StoppedError as stopped:
        code = say(stopped, 128 + stopped.signal)
        if stopped.signal == SCHEDULER:
            signal.raise_signal(SCHEDULER)  # the scheduler's handler requeues the job and ends the process
        return code
    except KeyboardInterrupt:
        return say(_INTERRUPTED, INTERRUPTED)
    except Exception:
        # An unexpected error: the traceback helps; the run folder's status.json says `failed`.
        traceback.print_exc()
        return FAILED


def objective(config: DictConfig) -> float | None:
    """Return the value that Optuna's sweeper optimises: the ELBO of validation (or test) rows, mean over seeds.

    It is in nats per row of the data before preprocessing, so that runs with different preprocessing compare. None for
    other sweepers; NaN, which Optuna counts as a failed trial, if the run has no such ELBO.
    """
    if "optuna" not in HydraConfig.get().sweeper.get("_target_", ""):
        return None
    from ivae_lab.runs.headlines import held_out_elbo

    try:
        folder = read_settings(config, dict(HydraConfig.get().runtime.choices)).folder
        return held_out_elbo(folder) if is_finished(folder) else float("nan")
    except (ConfigError, OmegaConfBaseException):  # printed already
        return float("nan")


def _do(config: DictConfig, console: Console) -> int:
    settings = read_settings(config, dict(HydraConfig.get().runtime.choices))
    if settings.folder in _trained:
        _trained.discard(settings.folder)
        console.print(f"trained together with another run: {settings.folder}", soft_wrap=True)
    elif is_finished(settings.folder) and not config.force:
        console.print(f"already finished: {settings.folder} (force=true trains again)", soft_wrap=True)
    else:
        prepare(settings.compute)
        runs = together(settings, _sweep, console)
        _announce(runs, console)
        _sweep[:] = [other for other in _sweep if other.folder not in {run.settings.folder for run in runs}]
        _execute(runs, console)
    if config.show:
        from ivae_lab.runs.show import show  # pandas, which a run that is refused does not need

        show(settings.folder, console)
    return OK if read_status(settings.folder)["state"] == "done" else FAILED


def _execute(runs: list[TrainingRun], console: Console) -> None:
    """Train the runs together; if that fails, train the first alone, and leave the others to their turn."""
    with leaving(f"{NAME}: {_INTERRUPTED}"):
        from ivae_lab.training.group import execute  # Lightning takes seconds: only what trains waits for it

    try:
        execute(runs, console)
    except StoppedError:
        raise
    except Exception as error:
        if len(runs) == 1:
            raise
        console.print(f"not trained together ({error}), but each by itself", soft_wrap=True)
        execute([TrainingRun(runs[0].settings, console)], console)
    else:
        _trained.update(run.settings.folder for run in runs[1:])


def expect(configs: list[tuple[DictConfig, Mapping[str, Any]]]) -> None:
    """Register the runs of a sweep, as (configuration, choices), so that those of one shape are trained together.

    A run with an invalid configuration is left out here: its turn prints the error.
    """
    _trained.clear()
    _sweep.clear()
    for config, choices in configs:
        with suppress(ConfigError, OmegaConfBaseException):
            _sweep.append(read_settings(config, choices))


def read_settings(config: DictConfig, choices: Mapping[str, Any]) -> Settings:
    """Check the configuration and build the parts that do not depend on the data.

    Raises
    ------
    ConfigError
        One line: the key, what was expected there, what came.
    """
    unknown = sorted(set(config) - {*NUMBERS, *_SETTINGS})
    if unknown:
        raise ConfigError(f"{unknown[0]}: {unknown_key(unknown[0], [*NUMBERS, *_SETTINGS])}")
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    for name, annotation in (("outputs", str), ("force", bool), ("show", bool), ("logger", Literal["csv", "wandb"])):
        check_value(plain[name], annotation, name)
    seeds = _seeds(plain["seed"])
    check_value(plain["data"].get("seed"), _Seed, "data.seed")
    name = f"{choices['data']}-{choices['model']}"
    return Settings(
        config=config,
        seeds=seeds,
        data_seed=plain["data"]["seed"],
        folder=Path(plain["outputs"]) / f"{name}-{run_digest(plain, seeds)}",
        title=f"{choices['model']} on {choices['data']}",
        logger=plain["logger"],
        compute=build(config.compute, "compute"),
        training=build(config.trainer, "trainer"),
        metrics={key: build(metric, f"metric.{key}") for key, metric in config.metric.items()},
    )


def _seeds(value: Any) -> list[int]:
    """Read `seed` as a list; an integer is a list of one: `seed=0` and `seed=[0]` are the same run."""
    seeds = value if isinstance(value, list) else [value]
    check_value(seeds, Annotated[list[_Seed], Len(1)], "seed")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"seed: expected different seeds, got {seeds}")
    return seeds


def _announce(runs: list[TrainingRun], console: Console) -> None:
    first, settings = runs[0], runs[0].settings
    seeds = settings.seeds
    named = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds ({', '.join(map(str, seeds))})"
    weights = sum(run.stack.weights for run in runs)
    compiles = settings.compute.compiles(first.plan.total, weights)
    compiled = ", compiled (the first step may take a minute)" if compiles else ""
    console.print(
        f"{settings.title}: {named} at once, data seed {settings.data_seed}, {first.plan.total} steps, "
        f"{first.stack.weights // len(seeds)} parameters each, on {settings.compute.torch_device()}{compiled}\n"
        f"run folder: {settings.folder}",
        soft_wrap=True,
        highlight=False,
    )
    for line in first.splits.summary:
        console.print(line, soft_wrap=True, highlight=False)
    if short := shortfall(first.stack.template):
        console.print(short, soft_wrap=True, highlight=False)
    if len(runs) > 1:
        models = sum(len(run.settings.seeds) for run in runs)
        console.print(f"trained together with {len(runs) - 1} more runs of this sweep: {models} models", soft_wrap=True)
