"""Run folders: where they are, their status, and whether they are finished and undamaged."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from ivae_lab.config.digests import digest
from ivae_lab.storage.atomic import atomic
from ivae_lab.terminal.command_line import wrong_input
from ivae_lab.terminal.messages import did_you_mean, listed

FINISHED = ("done", "diverged")
MARKS = ("config.yaml", "status.json", "results.csv")  # a folder that has one of these is a run folder,
JOINED = "results.parquet"  # unless it has this file, which the aggregator writes beside its own results.csv
CHECKS = "checks.json"
OUTPUTS = Path("outputs")  # the default folder of run folders
LATEST = "latest"
# Files whose sizes and checksums `status.json` of a finished run holds.
SEALED = (
    *("results.csv", "history.csv", "latents.npz", "examples.npz", "agreement.csv", CHECKS),
    *("spec.json", "recipe.json"),
)


def run_folders(outputs: Path) -> list[Path]:
    """List the run folders at any depth under `outputs`, sorted by path.

    Folders inside a run folder and hidden folders are skipped. A folder that cannot be opened is listed too: reading it
    raises the error that says why.
    """
    folders: list[Path] = []
    seen: set[str] = set()

    def cannot(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):  # these: the folder does not exist any more
            folders.append(Path(error.filename))

    for folder, inside, files in os.walk(outputs, onerror=cannot, followlinks=True):
        if folder != os.fspath(outputs) and JOINED not in files and not {*MARKS}.isdisjoint(files):
            folders.append(Path(folder))
            inside.clear()
            continue
        real = os.path.realpath(folder)  # links may form a circle
        inside[:] = [] if real in seen else [name for name in inside if not name.startswith(".")]
        seen.add(real)
    return sorted(folders)


def found_run(text: str, outputs: Path = OUTPUTS) -> Path:
    """Find the run folder that a text names by its path, as `latest`, or by the beginning of its name.

    `latest` is the run folder below the outputs that was written last. FOLDER/latest and FOLDER/BEGINNING search below
    another folder.

    Raises
    ------
    ValueError
        If no run folder fits, or several do.
    """
    path = Path(text)
    if path.exists():
        return path
    root, name = (path.parent, path.name) if len(path.parts) > 1 else (outputs, text)
    folders = run_folders(root)
    if name == LATEST and folders:
        return max(folders, key=lambda folder: (_written(folder), folder))
    names = [folder.name for folder in folders]
    meant = [folder for folder in folders if folder.name == name] or [
        folder for folder in folders if folder.name.startswith(name)
    ]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise ValueError(f"expected the name of one run folder below {root}, got {text}: {listed(meant)}")
    near = did_you_mean(name, names) or f"; there are: {listed(names)}"
    raise ValueError(f"expected a run folder, {LATEST}, or how a name below {root} begins, got {text}{near}")


def run_folder(text: str) -> Path:
    """Find the run folder that an argument names, see `found_run`; print it to stderr if the argument is no path.

    Raises
    ------
    BadInputError
        If no run folder fits, or several do.
    """
    with wrong_input():
        folder = found_run(text)
    if folder != Path(text):
        print(f"run folder: {folder}", file=sys.stderr)
    return folder


def _written(folder: Path) -> int:
    """Return the time when a run folder was written last, in nanoseconds."""
    return max(((folder / mark).stat().st_mtime_ns for mark in MARKS if (folder / mark).exists()), default=0)


def read_status(folder: Path) -> dict[str, Any]:
    """Read `status.json` of a run folder and check its checksum.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is not a JSON object with a state, or its checksum differs.
    """
    status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    if not isinstance(status, dict) or "state" not in status:
        raise ValueError("expected status.json to hold an object with a state, got none")
    checksum = status.pop("checksum", None)
    if checksum is not None and checksum != digest(status):
        raise ValueError("expected status.json as the run wrote it, got another checksum: damaged, or edited by hand")
    return status


def write_status(folder: Path, status: dict[str, Any]) -> None:
    """Write `status.json` with its checksum."""
    with atomic(folder / "status.json") as temporary:
        temporary.write_text(json.dumps({**status, "checksum": digest(status)}, indent=2) + "\n")


def seal(folder: Path) -> dict[str, list[Any]]:
    """Return size and checksum of each file of `SEALED` that exists, by name, as `status.json` stores them."""
    return {name: _seal(folder / name) for name in SEALED if (folder / name).exists()}


def check_seal(folder: Path, name: str, status: dict[str, Any]) -> None:
    """Compare a file with its size and checksum in `status.json`; a file that has none there passes.

    Raises
    ------
    ValueError
        If they differ.
    """
    sealed = (status.get("files") or {}).get(name)
    if sealed is not None and sealed != _seal(folder / name):
        raise ValueError(f"expected {name} as the run wrote it, got another checksum: damaged, or edited by hand")


def _seal(path: Path) -> list[Any]:
    """Return size in bytes and SHA-256, or only the size of an .npz: it is large, and reading a zip detects damage."""
    if path.suffix == ".npz":
        return [path.stat().st_size]
    content = path.read_bytes()
    return [len(content), hashlib.sha256(content).hexdigest()]


def is_finished(folder: Path) -> bool:
    """Return True if the run is done or diverged, and its results and latents exist and are undamaged."""
    return unfinished_reason(folder) is None


def unfinished_reason(folder: Path) -> str | None:
    """Return the reason why the run in `folder` is not finished or is damaged; None if it is finished."""
    try:
        status = read_status(folder)
        if status["state"] not in FINISHED:
            return f"expected state done or diverged, got {status['state']}"
        for name in SEALED:
            check_seal(folder, name, status)
    except FileNotFoundError as error:
        return f"expected {Path(error.filename).name}, got none"
    except ValueError as error:
        return str(error)
    absent = [name for name in ("results.csv", "latents.npz") if not (folder / name).is_file()]
    return f"expected {absent[0]}, got none" if absent else None
