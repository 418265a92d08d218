"""ivae_lab: the lab where researchers in identifiable representation learning check a paper's claim."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_OF_ESTIMATOR = ("IVAE", "fit")


def __getattr__(name: str) -> Any:
    """`fit` and `IVAE` are loaded when they are asked for: PyTorch takes seconds."""
    if name in _OF_ESTIMATOR:
        return getattr(import_module("ivae_lab.estimator"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """What is there, and what is loaded when it is asked for."""
    return sorted({*globals(), *_OF_ESTIMATOR})
