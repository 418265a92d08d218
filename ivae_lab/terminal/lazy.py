"""Import slow libraries and modules only when they are used: a command may end without any of them."""

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
    """A stand-in for a module that imports it when an attribute is read.

    Use it for a library that a whole module uses; where only a few functions need one, they import it themselves.

    Examples
    --------
    >>> if TYPE_CHECKING:  # doctest: +SKIP
    ...     import pandas as pd
    ... else:
    ...     pd = Later("pandas")
    """

    def __getattr__(self, name: str) -> Any:
        """Import the module and return its attribute."""
        return getattr(import_module(self.__name__), name)


@contextmanager
def leaving(line: str) -> Iterator[None]:
    """Make Ctrl-C print the line and end the process at once with exit code 130, while libraries are imported.

    An import may swallow the exception that Ctrl-C raises otherwise, and go on.
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
    """Return a package's `__getattr__` and `__dir__`, which load the names of its `if TYPE_CHECKING:` block when used.

    The block is the one list of the package's public names, for type checkers and for Python alike, and so of the
    names that a `_target_` may have (`targets`).

    Examples
    --------
    >>> if TYPE_CHECKING:  # doctest: +SKIP
    ...     from ivae_lab.networks.mlp import MLP as MLP
    ... else:
    ...     __getattr__, __dir__ = face(__name__)
    """
    source = Path(str(sys.modules[package].__file__)).read_text(encoding="utf-8")
    blocks = (node.body for node in ast.parse(source).body if isinstance(node, ast.If))
    imports = (node for body in blocks for node in body if isinstance(node, ast.ImportFrom))
    modules = {alias.name: str(node.module) for node in imports for alias in node.names}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    return get, lambda: sorted(modules)
