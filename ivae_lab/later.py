"""Libraries that take a while to import: they wait for their first use, as a command may end without any."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
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
