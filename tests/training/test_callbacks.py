"""Callbacks of a training: what a signal does to it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from ivae_lab.training.callbacks import Checkpoints, StopOnSignal
from ivae_lab.training.provenance import SCHEDULER


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Signals are handled as before when a test is over."""
    numbers = (signal.SIGINT, signal.SIGTERM, SCHEDULER)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("job", [True, False])
@pytest.mark.parametrize("scheduler_listens", [True, False])
def test_sigterm_stops_a_training_but_not_a_job_that_is_to_be_requeued(
    job: bool, scheduler_listens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that ended by itself would not be requeued after a preemption."""
    monkeypatch.setenv("SLURM_JOB_ID", "7") if job else monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    signal.signal(SCHEDULER, (lambda number, frame: None) if scheduler_listens else signal.SIG_DFL)
    checkpoints = Checkpoints([], 1000.0)
    with StopOnSignal(checkpoints) as stop:
        signal.raise_signal(signal.SIGTERM)
        requeued = job and scheduler_listens
        assert (stop.received, checkpoints.wanted) == ((None, True) if requeued else (signal.SIGTERM, False))


def test_the_schedulers_signal_stops_where_it_listens_and_is_its_own_again_then() -> None:
    heard: list[int] = []
    signal.signal(SCHEDULER, lambda number, frame: heard.append(number))
    with StopOnSignal(Checkpoints([], 1000.0)) as stop:
        signal.raise_signal(SCHEDULER)
        assert (stop.received, heard) == (SCHEDULER, [])
    signal.raise_signal(SCHEDULER)
    assert heard == [SCHEDULER]
