"""Libraries and modules that take a while to import wait for their first use: a command may end without any."""

from __future__ import annotations

import ast
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any


class Later(ModuleType):
    """Stands for a module, and imports it when an attribute is asked for.

    Where a few functions need a library they import it themselves; this is for modules all over which it is used.

    Examples
    --------
    >>> if TYPE_CHECKING:  # doctest: +SKIP
    ...     import pandas as pd
    ... else:
    ...     pd = Later("pandas")
    """

    def __getattr__(self, name: str) -> Any:
        """What the module has under this name."""
        return getattr(import_module(self.__name__), name)


@contextmanager
def leaving(line: str) -> Iterator[None]:
    """While libraries are imported within it, Ctrl-C prints the line and ends the process with exit code 130.

    At once, as an import may swallow the exception that Ctrl-C raises otherwise, and go on.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        print(line, file=sys.stderr, flush=True)
        os._exit(130)

    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def face(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Give a package the public names that its `if TYPE_CHECKING:` block imports, each loaded when it is asked for.

    The block is the one list of these names, for type checkers and for Python alike, and so of what a `_target_` may
    name (`targets`). The package's own `__getattr__` and `__dir__` are what this returns.

    Examples
    --------
    >>> if TYPE_CHECKING:  # doctest: +SKIP
    ...     from ivae_lab.networks.mlp import MLP as MLP
    ... else:
    ...     __getattr__, __dir__ = face(__name__)
    """
    source = Path(str(sys.modules[package].__file__)).read_text(encoding="utf-8")
    blocks = (node.body for node in ast.parse(source).body if isinstance(node, ast.If))
    imports = (each for body in blocks for each in body if isinstance(each, ast.ImportFrom))
    homes = {alias.name: str(each.module) for each in imports for alias in each.names}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return get, lambda: sorted(homes)
