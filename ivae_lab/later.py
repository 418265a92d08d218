"""Libraries that take a while to import: they wait for their first use, as a command may end without any."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
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
