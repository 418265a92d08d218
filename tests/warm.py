"""Commands as real processes without the seconds of their imports: one warm parent forks a child for each.

The parent imports the libraries that commands use, and nothing of this project. A child is a process of its own with
its arguments, folder, environment, streams, process group and signals; it runs `python -m <module>` from there, and
ends as Python does. The commands that a child starts itself are forked from the parent too. One parent serves all
workers of a test session: the first that asks starts it, and it ends with the session (tests/conftest.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import IO, Any

HOME = "IVAE_LAB_TESTS_WARM"  # names the folder of the parent's socket
PYTHON = sys.executable
UNDRAWN = ("ivae_lab.train", "submitit.core._submit")  # modules whose pictures, half of a tiny run's time, stay empty
SERVES = ("ivae_lab", "submitit")  # packages whose modules are run as commands
LIBRARIES = (
    *("hydra._internal.hydra", "hydra._internal.utils", "hydra._internal.callbacks", "hydra.core.plugins"),
    *("lightning.pytorch.loggers", "torch.func", "zuko", "pandas", "pyarrow.parquet", "scipy.stats", "scipy.optimize"),
    *("sklearn.decomposition", "sklearn.mixture", "matplotlib.backends.backend_agg", "seaborn", "submitit"),
    *("rich.console", "rich.progress", "rich.table", "yaml", "pydantic", "jinja2"),
)
_STARTS = 120.0  # seconds that the parent may take to start


class Popen(subprocess.Popen[Any]):
    """`subprocess.Popen`, but for `python -m` of what the parent serves: that is forked from it."""

    def __new__(cls, args: Any, *more: Any, **options: Any) -> Any:
        """Start a process, warm where it can be."""
        call = None if isinstance(args, str) else [os.fspath(each) for each in args]
        if call and (command := _command(call)):
            return Process(call, *command, **options)
        return super().__new__(cls)


def _command(call: Sequence[str]) -> tuple[str, list[str]] | None:
    """The module and the arguments of `python [-u] -m module ...`, of those that the parent serves."""
    words = [word for word in call if word != "-u"] if "-u" in call[:2] else [*call]
    if len(words) < 3 or words[0] != PYTHON or words[1] != "-m" or words[2].split(".")[0] not in SERVES:
        return None
    return words[2], words[3:]


class Process:
    """A child of the warm parent, with what is used of `subprocess.Popen` here."""

    def __init__(
        self,
        args: Sequence[str],
        module: str,
        arguments: Sequence[str],
        *,
        cwd: os.PathLike[str] | str | None = None,
        env: dict[str, str] | None = None,
        stdout: Any = None,
        stderr: Any = None,
        text: bool = False,
        encoding: str | None = None,
        process_group: int | None = None,
        shell: bool = False,
    ) -> None:
        assert not shell, "expected a command without a shell"
        self.args = args
        self.returncode: int | None = None
        reading, writing = zip(*(_stream(given, number) for given, number in ((stdout, 1), (stderr, 2))), strict=True)
        request = {
            "module": module,
            "arguments": [*arguments],
            "cwd": str(Path(cwd or ".").absolute()),
            "env": dict(os.environ) if env is None else env,
            "group": os.getpgrp() if process_group is None else process_group,
        }
        self._parent = _connected()
        try:
            self._parent.sendall(f"{len(message := json.dumps(request).encode())}\n".encode())
            socket.send_fds(self._parent, [b"\0"], writing)
            self._parent.sendall(message)
        finally:
            for number, given in zip(writing, (stdout, stderr), strict=True):
                if given == subprocess.PIPE:
                    os.close(number)
        self._answers = self._parent.makefile("r")
        self.pid = int(self._answers.readline())
        mode, how = ("r", encoding or "utf-8") if text or encoding else ("rb", None)
        self.stdout, self.stderr = (
            None if number is None else os.fdopen(number, mode, encoding=how) for number in reading
        )

    def poll(self) -> int | None:
        """The exit code, as soon as the process has ended."""
        if self.returncode is None and select.select([self._parent], [], [], 0)[0]:
            self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; its exit code."""
        if self.returncode is None:
            if not select.select([self._parent], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self._end()
        assert self.returncode is not None
        return self.returncode

    def _end(self) -> None:
        self.returncode = int(self._answers.readline())
        self._answers.close()
        self._parent.close()

    def communicate(self, input: None = None, timeout: float | None = None) -> tuple[Any, Any]:
        """Read both streams to their ends, and wait."""
        read: dict[str, Any] = {"stdout": None, "stderr": None}

        def drain(name: str, stream: IO[Any]) -> None:
            with stream:
                read[name] = stream.read()

        streams = {name: stream for name in read if (stream := getattr(self, name)) is not None}
        threads = [Thread(target=drain, args=own, daemon=True) for own in streams.items()]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + (timeout or 1e6)
        for thread in threads:
            thread.join(deadline - time.monotonic())
            if thread.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(max(0.0, deadline - time.monotonic()))
        return read["stdout"], read["stderr"]

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()


def _stream(given: Any, number: int) -> tuple[int | None, int]:
    """The end that the caller reads, if any, and the one that the child writes to."""
    if given == subprocess.PIPE:
        return os.pipe()
    if given is None:
        return None, number
    return None, given if isinstance(given, int) else given.fileno()


def _connected() -> socket.socket:
    """A connection to the parent, which is started where there is none."""
    home = Path(os.environ[HOME])
    link = socket.socket(socket.AF_UNIX)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        deadline = time.monotonic() + _STARTS
        if not (home / "log").exists():
            with (home / "log").open("w") as log:
                parent = subprocess.Popen(
                    [sys.executable, __file__, str(home)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    process_group=0,  # of this session, whose groups the children join
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                )
                parent.returncode = 0  # nobody waits for it: it outlives whoever asked first
        while time.monotonic() < deadline:
            try:
                link.connect(str(home / "socket"))
                return link
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(0.02)
    raise RuntimeError(f"expected the warm parent to start, got: {(home / 'log').read_text()}")


def serve(home: Path) -> dict[str, Any]:
    """Fork children as they are asked for, until the folder is gone; comes back in every child, with its request."""
    _import_all()
    children: dict[int, socket.socket] = {}
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(home / ".socket"))
    listener.listen(64)
    (home / ".socket").rename(home / "socket")  # whoever finds it can connect
    while _is_wanted(home):
        waiting: list[Any] = [listener, woken]
        ready, _, _ = select.select(waiting, [], [], 2)
        if woken in ready:
            os.read(woken, 4096)
            _reap(children)
        if listener in ready:
            asking, _ = listener.accept()
            request, streams = _received(asking)
            if (pid := os.fork()) == 0:
                for each in (listener, asking, *children.values()):
                    each.close()
                os.close(woken)
                signal.set_wakeup_fd(-1)
                os.close(wake)
                _become(request, streams)
                return request
            with contextlib.suppress(OSError):  # as the child does: whoever is first
                os.setpgid(pid, request["group"])
            for number in streams:
                os.close(number)
            children[pid] = asking
            asking.sendall(f"{pid}\n".encode())
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)


def _is_wanted(home: Path) -> bool:
    """Whether the test session goes on: it removes the folder at its end, or was killed."""
    try:
        os.kill(int((home / "owner").read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def _import_all() -> None:
    import gc
    import importlib

    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that pages stay shared


def _reap(children: dict[int, socket.socket]) -> None:
    """Tell those who asked how their processes ended."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            with children.pop(ended[0]) as asking, contextlib.suppress(OSError):
                asking.sendall(f"{os.waitstatus_to_exitcode(ended[1])}\n".encode())


def _received(asking: socket.socket) -> tuple[dict[str, Any], list[int]]:
    length = b""
    while not length.endswith(b"\n"):
        length += asking.recv(1)
    _, streams, _, _ = socket.recv_fds(asking, 1, 2)
    message = b""
    while len(message) < int(length):
        message += asking.recv(int(length) - len(message))
    request: dict[str, Any] = json.loads(message)
    return request, streams


def _become(request: dict[str, Any], streams: list[int]) -> None:
    """Make of this child the process that was asked for."""
    import random

    import numpy as np

    with contextlib.suppress(OSError):  # the group may be gone, with whoever asked
        os.setpgid(0, request["group"])
    for number, stream in enumerate(streams, 1):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()
    np.random.seed()
    first = [request["cwd"], *filter(None, request["env"].get("PYTHONPATH", "").split(os.pathsep))]
    sys.path[:] = [*first, *(path for path in sys.path[1:] if path not in first)]
    sys.argv = [request["module"], *request["arguments"]]
    subprocess.Popen = Popen  # type: ignore[misc]
    if request["module"] in UNDRAWN:
        leave_pictures_empty()


def leave_pictures_empty(set_attribute: Callable[[Any, str, Any], None] = setattr) -> None:
    """Have matplotlib write empty files."""
    from matplotlib.figure import Figure

    def touch(self: Figure, path: Path, **options: Any) -> None:
        path.touch()

    set_attribute(Figure, "draw_without_rendering", lambda self: None)
    set_attribute(Figure, "savefig", touch)


if __name__ == "__main__":
    import runpy

    asked = serve(Path(sys.argv[1]))
    runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
