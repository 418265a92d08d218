"""How long commands take to start, in pairs with the imports that nothing can do without: medians, and ratios.

    python scripts/startup.py [ROUNDS]

Every round (5 by default) runs each command once, one after the other, so that a machine that is slow for a while is
so for all. A ratio is of the same round; in brackets its least and largest. CPU seconds stand beside, as they hardly
depend on what else the machine does. Nothing is trained to its end: the training is stopped after its first line.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ivae_lab.terminal.command_line import COMMANDS

TORCH, LIGHTNING = "import torch", "import torch, lightning"


@dataclass(frozen=True)
class Command:
    """What is timed: Python's arguments, and at most how many seconds, or times another, it may take."""

    name: str
    arguments: tuple[str, ...]
    most: float | None = None
    times: str | None = None  # the other's name
    first_line: bool = False


def _commands() -> list[Command]:
    train = ("-m", "ivae_lab.train")
    answer, typed = (
        ("-m", "ivae_lab", "completion", "answer"),
        ("tr", "train model=iv", "train trainer.", "reproduce kh"),
    )
    wrong = {
        "a wrong value": "trainer.steps=ten",
        "an unknown key": "trainer.stepz=10",
        "an impossible combination": "trainer.batch_size=100000000",
    }
    return [
        *(Command(name, ("-c", name)) for name in (TORCH, LIGHTNING)),
        *(Command(name, (*train, override), 1.3, TORCH) for name, override in wrong.items()),
        Command("first line of a training", train, 1.5, LIGHTNING, first_line=True),
        Command("reproduce --list", ("-m", "ivae_lab.reproduce", "--list"), 0.5),
        *(Command(f"{name} --help", ("-m", "ivae_lab", name, "--help"), 0.5) for name in COMMANDS),
        Command("ivae-lab", ("-m", "ivae_lab"), 0.5),
        Command("--version", ("-m", "ivae_lab", "--version"), 0.5),
        *(Command(f"TAB: {line}", (*answer, f"ivae-lab {line}"), 0.5) for line in typed),
    ]


def _timed(command: Command, folder: Path) -> tuple[float, float]:
    """Seconds, and those of the processor."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *command.arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        if command.first_line:
            process.stdout.readline()
            process.kill()
        else:
            process.stdout.read()
        process.wait()
        seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _line(command: Command, measured: dict[str, list[tuple[float, float]]]) -> str:
    wall, cpu = (median(each) for each in zip(*measured[command.name], strict=True))
    line = f"{command.name:26} {wall:5.2f} s  (CPU {cpu:4.2f} s)"
    if command.times is None:
        return line + (f"  at most {command.most} s" if command.most else "")
    pairs = [*zip(measured[command.name], measured[command.times], strict=True)]
    of_wall, of_cpu = ([own[kind] / other[kind] for own, other in pairs] for kind in (0, 1))
    said = " (CPU ".join(f"{median(each):.2f} [{min(each):.2f}, {max(each):.2f}]" for each in (of_wall, of_cpu))
    return f"{line}  {said}) times {command.times}, at most {command.most}"


def main(rounds: int) -> None:
    """Measure, and print a line for each command."""
    commands = _commands()
    measured: dict[str, list[tuple[float, float]]] = {command.name: [] for command in commands}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):
            for command in commands:
                took = _timed(command, Path(folder))
                if number:  # the first round fills the machine's cache of files
                    measured[command.name].append(took)
    print(f"{rounds} rounds, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for command in commands:
        print(_line(command, measured))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
