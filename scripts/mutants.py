"""Ask the tests whether they notice one-line faults: `python scripts/mutants.py` (an hour of one core).

Each fault of tests/mutants.yaml is put into a copy of the project, and the tests that it names are run there: a fault
is caught if one of them fails, which passes without the fault. Ends with exit code 1 if a fault was not caught.

    --only TEXT     faults whose file, tests or words hold this text
    --tree FOLDER   another checkout of the project, whose tests are asked
    --csv FILE      keeps the answers: file, fault, caught, by which test, seconds
    --copies N      faults tried at a time (1)
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

import yaml
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
FAULTS = ROOT / "tests" / "mutants.yaml"
_PATIENCE = 900.0  # seconds for the tests of one fault


@dataclass(frozen=True)
class Mutant:
    """A fault: a text of a file and what stands in its place, the tests that should notice, and what is wrong then."""

    file: str
    find: str
    put: str
    tests: str
    fault: str
    note: str = ""

    def applied(self, text: str) -> str:
        """The file's text with the fault in it.

        Raises
        ------
        ValueError
            If the text to replace is not there exactly once.
        """
        if (count := text.count(self.find)) != 1:
            raise ValueError(f"expected once in {self.file}: {self.find!r}, got it {count} times")
        return text.replace(self.find, self.put)


@dataclass(frozen=True)
class Answer:
    """What the tests said: `caught`, `not caught`, or what hindered; the test that failed; the seconds it took."""

    word: str
    by: str
    seconds: float


def read() -> list[Mutant]:
    """All faults."""
    return [Mutant(**each) for each in yaml.safe_load(FAULTS.read_text())]


def copied(tree: Path, folder: Path) -> Path:
    """The files of a checkout, those that git does not know yet too, in a folder of their own."""
    command = ["git", "-C", str(tree), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (tree / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / name, folder / name)
    return folder


def ask(tests: list[str], tree: Path) -> tuple[int, str]:
    """Run tests in a copy of the project until one fails: pytest's exit code, and which failed."""
    data = os.environ.get("IVAE_LAB_DATA", str(ROOT.parent / "shared" / "data"))
    env = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "IVAE_LAB_DATA": data}
    command = [sys.executable, "-m", "pytest", "-xq", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=tree, env=env, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, ""
    failed = re.findall(r"^(?:FAILED|ERROR) (tests/.*?)(?: - .*)?$", done.stdout, re.MULTILINE)
    return done.returncode, failed[0] if failed else ""


def tried(mutant: Mutant, tree: Path) -> Answer:
    """Put a fault into the copy, ask, and mend it; a test that fails without the fault too has caught nothing."""
    began, path = time.monotonic(), tree / mutant.file
    whole = path.read_text()
    path.write_text(mutant.applied(whole))
    os.utime(path, ns=(time.time_ns(), time.time_ns() + 10**10))  # Python compares seconds: read it anew
    try:
        code, failed = ask(shlex.split(mutant.tests), tree)
    finally:
        path.write_text(whole)
    word = {0: "NOT CAUGHT", 1: "caught"}.get(code, f"pytest ended with {code}")
    if failed and ask([failed], tree)[0]:
        word = "fails without the fault too"
    return Answer(word, failed, time.monotonic() - began)


def main() -> int:
    """Try all faults that were asked for, and say which were not caught."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--tree", type=Path, default=ROOT)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--copies", type=int, default=1)
    asked = parser.parse_args()
    console = Console(soft_wrap=True, highlight=False, markup=False)
    mutants = [each for each in read() if asked.only in f"{each.file} {each.tests} {each.fault}"]
    answers: dict[Mutant, Answer] = {}
    with tempfile.TemporaryDirectory() as folder:
        trees: Queue[Path] = Queue()
        for number in range(asked.copies):
            trees.put(copied(asked.tree, Path(folder) / str(number)))

        def one(mutant: Mutant) -> None:
            tree = trees.get()
            answers[mutant] = answer = tried(mutant, tree)
            trees.put(tree)
            told = f"{answer.word} ({answer.seconds:.0f} s): {mutant.file}: {mutant.fault}"
            console.print(f"{len(answers)} of {len(mutants)}: {told}")
            if asked.csv:
                write(asked.csv, answers)

        with ThreadPoolExecutor(asked.copies) as pool:
            list(pool.map(one, mutants))
    caught = sum(answer.word == "caught" for answer in answers.values())
    console.print(f"{caught} of {len(mutants)} faults caught")
    return int(caught < len(mutants))


def write(path: Path, answers: dict[Mutant, Answer]) -> None:
    """Keep the answers so far."""
    with path.open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["file", "fault", "answer", "by", "seconds"])
        table.writerows([m.file, m.fault, a.word, a.by, round(a.seconds, 1)] for m, a in answers.items())


if __name__ == "__main__":
    sys.exit(main())
