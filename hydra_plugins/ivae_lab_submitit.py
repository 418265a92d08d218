"""Launchers that give each run of a sweep a process of its own: on a Slurm cluster, or on this machine.

Both are Hydra's submitit launcher (hydra-submitit-launcher; submitit does the requeueing), with what a laboratory needs
around it: wrong, finished and already queued runs are not submitted, what was submitted is recorded
(`ivae_lab/launch/slurm_queue.py`), the wait can be left and taken up again, and one run that fails does not hide the
others.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher

if TYPE_CHECKING:
    import submitit

    from ivae_lab.training.run import Settings

_POLL_SECONDS = 0.5


class _QueueLauncher(BaseSubmititLauncher):  # type: ignore[misc]
    """What the two have in common."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit the jobs, and wait for them if `wait` is set."""
        self._check_keys()
        wanted = list(self._wanted(job_overrides))
        if wanted:
            self._do(wanted, initial_job_idx)
        return []

    def _do(self, wanted: list[tuple[list[str], Settings]], first: int) -> None:
        raise NotImplementedError

    def _kinds(self) -> dict[str, Any]:
        """Types of keys of `hydra.launcher`."""
        raise NotImplementedError

    def _check_keys(self) -> None:
        from ivae_lab.config.build import ConfigError, check_value

        given = self.config.hydra.launcher
        try:
            for key, kind in self._kinds().items():
                check_value(given[key], kind, f"hydra.launcher.{key}")
        except ConfigError as error:
            _leave(error)

    def _wanted(self, job_overrides: Sequence[Sequence[str]]) -> Iterator[tuple[list[str], Settings]]:
        """Jobs with a valid configuration that are not finished; print a line with the reason for each other one."""
        from ivae_lab.config.build import ConfigError
        from ivae_lab.launch import sweep
        from ivae_lab.runs.folder import is_finished
        from ivae_lab.training.job import read_settings

        for overrides in job_overrides:
            config, choices = sweep.composed(self, overrides)
            try:
                settings = read_settings(config, choices)
            except ConfigError as error:
                sweep.refuse(error)
                continue
            if is_finished(settings.folder) and not config.force:
                print(f"already finished: {settings.folder} (force=true trains again)")
                sweep.exit_codes.append(1 if _failure(settings.folder) else 0)
                continue
            yield list(overrides), settings

    def _executor(self, **more: Any) -> submitit.AutoExecutor:
        """Submitit's executor with the keys of the configuration; `more` stand for those that are null."""
        import submitit

        general = ("timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node", "name", "stderr_to_stdout")
        given = more | {name: value for name, value in self.params.items() if value is not None}
        parameters = {name if name in general else f"{self._EXECUTOR}_{name}": value for name, value in given.items()}
        folder, timeouts = (f"{self._EXECUTOR}_{name}" for name in ("submitit_folder", "max_num_timeout"))
        first = {timeouts: parameters.pop(timeouts)} if timeouts in parameters else {}  # for submitit's constructor
        executor = submitit.AutoExecutor(parameters.pop(folder), cluster=self._EXECUTOR, **first)
        executor.update_parameters(**parameters)
        return executor

    def _arguments(self, overrides: list[str], number: int) -> tuple[Any, ...]:
        """What submitit hands back to `__call__` in the job."""
        return overrides, "hydra.sweep.dir", number, f"job_id_for_{number}", Singleton.get_state()

    def _conclude(self, logs: Mapping[Path, str]) -> None:
        """Name what did not come out, from what the runs wrote, and its log."""
        from ivae_lab.launch import sweep

        for folder, log in logs.items():
            reason = _failure(folder)
            sweep.exit_codes.append(1 if reason else 0)
            if reason:
                sweep.say(f"{folder.name}: {reason}; log: {log}", 1)


class SlurmLauncher(_QueueLauncher):
    """One array job on a Slurm cluster, each task one run with its seeds.

    `conf/hydra/launcher/slurm.yaml`; the parameters are submitit's.

    Parameters
    ----------
    wait
        Stay until all is done; otherwise leave right after the submission.
    """

    _EXECUTOR = "slurm"

    def __init__(self, wait: bool, **params: Any) -> None:
        super().__init__(**params)
        self.wait = wait

    def _kinds(self) -> dict[str, Any]:
        from ivae_lab.config.numbers import Count, PositiveFloat, PositiveInt

        counts = dict.fromkeys(("timeout_min", "array_parallelism"), PositiveInt)
        some = {"cpus_per_task": PositiveInt | None, "gpus_per_node": Count | None, "mem_gb": PositiveFloat | None}
        names = dict.fromkeys(("partition", "account", "qos", "constraint"), str | None)
        return {"wait": bool, **counts, **some, **names, "signal_delay_s": Count, "max_num_timeout": Count}

    def _do(self, wanted: list[tuple[list[str], Settings]], first: int) -> None:
        from ivae_lab.launch import slurm_queue as queue

        outputs = wanted[0][1].folder.parent
        try:
            queued = queue.live(outputs)
            mine = [settings.folder.name for _, settings in wanted]
            fresh = [each for each in wanted if each[1].folder.name not in queued]
            for name in (name for name in mine if name in queued):
                print(f"already in the queue: {outputs / name} (job {queued[name].task.job})")
            if fresh:
                tasks = self._submit(fresh, outputs, first)
                time.sleep(1)  # Slurm says at once what it will never start
                queued = queue.live(outputs)
                queue.refuse_impossible(queued[task.folder] for task in tasks if task.folder in queued)
                job, logs = tasks[0].job.partition("_")[0], _logs(tasks)
                print(f"submitted {len(tasks)} runs as job {job}; logs in {logs}", flush=True)
            if self.wait:
                queue.watch(outputs, mine, lambda line: print(line, flush=True))
                last = queue.last(outputs)
                self._conclude({outputs / name: last[name].log for name in mine})
        except queue.QueueError as error:
            _leave(error)

    def _submit(self, wanted: list[tuple[list[str], Settings]], outputs: Path, first: int) -> list[Any]:
        """Give the runs to Slurm, and keep a record."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        from ivae_lab.config.digests import cell_digest
        from ivae_lab.launch import slurm_queue as queue

        outputs.mkdir(parents=True, exist_ok=True)
        # As many threads wherever it runs: other numbers of them round otherwise. Overrides of the user come later.
        threads = [f"compute.threads={self.params['cpus_per_task']}"] if self.params["cpus_per_task"] else []
        arguments = [
            self._arguments([*threads, *overrides], number) for number, (overrides, _) in enumerate(wanted, first)
        ]
        try:
            jobs = self._executor().map_array(self, *zip(*arguments, strict=True))
        except (FailedJobError, FailedSubmissionError, RuntimeError) as error:
            raise queue.QueueError(f"expected Slurm to take the jobs, got: {_reason(error)}") from None
        tasks = [
            queue.SubmittedTask(
                job=job.job_id,
                folder=settings.folder.name,
                cell=cell_digest(settings.plain()),
                seeds=settings.seeds,
                log=str(job.paths.stderr),
            )
            for job, (_, settings) in zip(jobs, wanted, strict=True)
        ]
        queue.record(outputs, tasks)
        return tasks


class LocalLauncher(_QueueLauncher):
    """Processes on this machine, a bounded number at a time: what the cluster would do, without one.

    `conf/hydra/launcher/local.yaml`. Submitit's local executor rather than joblib's launcher: a process that is killed
    takes no other with it (joblib's pool breaks), and each has a log of its own; but it has no bound, so that is ours.

    Parameters
    ----------
    processes
        How many runs at a time.
    """

    _EXECUTOR = "local"

    def __init__(self, processes: int, **params: Any) -> None:
        super().__init__(**params)
        self.processes = processes

    def _kinds(self) -> dict[str, Any]:
        from ivae_lab.config.numbers import Count, PositiveInt

        return {"processes": PositiveInt, "timeout_min": PositiveInt, "gpus_per_node": Count | None}

    def _do(self, wanted: list[tuple[list[str], Settings]], first: int) -> None:
        gpus = _visible_gpus()
        executor = self._executor(**({"gpus_per_node": len(gpus), "visible_gpus": gpus} if gpus else {}))
        waiting = list(enumerate(wanted, first))
        running: list[Any] = []  # submitit's LocalJob
        logs: dict[Path, str] = {}
        ended = 0
        before = signal.signal(signal.SIGTERM, _terminate)
        try:
            while waiting or running:
                while waiting and len(running) < self.processes:
                    number, (overrides, settings) = waiting.pop(0)
                    running.append(executor.submit(self, *self._arguments(overrides, number)))
                    logs[settings.folder] = str(running[-1].paths.stdout)
                    print(f"run folder: {settings.folder}; log: {logs[settings.folder]}", flush=True)
                time.sleep(_POLL_SECONDS)
                running = [job for job in running if not job.done()]
                if ended != (ended := len(logs) - len(running)):
                    print(f"{ended} of {len(wanted)} runs ended, {len(running)} running", flush=True)
        except BaseException:
            for job in running:
                job._process.terminate()  # its controller passes it on: each run writes its checkpoint
            for job in running:
                job._process.wait()
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
        self._conclude(logs)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _visible_gpus() -> list[int]:
    """GPUs that this process sees; by default submitit hides them from its local jobs."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return list(range(torch.cuda.device_count())) if named is None else [int(gpu) for gpu in named.split(",") if gpu]


def _failure(folder: Path) -> str | None:
    """What a run that did not come out says itself, or that it died without a word."""
    from ivae_lab.launch import slurm_queue as queue
    from ivae_lab.runs.folder import read_status

    try:
        status = read_status(folder)
    except (OSError, ValueError) as error:
        return f"expected a run folder, got: {error}"
    if status["state"] == "running":
        return queue.DIED
    return None if status["state"] == "done" else f"{status['state']}: {status['error']}"


def _logs(tasks: Sequence[Any]) -> str:
    return os.path.commonpath([Path(task.log).parent.parent for task in tasks])


def _reason(error: BaseException) -> str:
    """Extract the message of sbatch from the error that submitit raises."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "sbatch: error" in line), lines[-1] if lines else type(error).__name__)


def _leave(error: object) -> NoReturn:
    from ivae_lab.launch import sweep

    sys.exit(sweep.refuse(error))
