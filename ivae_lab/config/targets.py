"""Convert a `_target_` to the name of its class, which identifies a run, and to the path where the class is now.

A class of this project is known by its name alone, and no two have the same name, so its module can be renamed or
moved: it is found in the face of a package (`FACES`), also where an old configuration names its former module. A class
of another package keeps its whole path, as its name may equal another's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

TARGET = "_target_"
OURS = "ivae_lab."
FACES = tuple(f"{OURS}{package}" for package in ("data", "networks", "priors", "models", "metrics", "engine"))
# Classes that had another name in old configurations, which name the paths of modules -> the name now.
RENAMED = {
    "ivae_lab.data.tcl.TCL": "SegmentedSources",
    "ivae_lab.metrics.elbo.ELBO": "ELBOTerms",
    "ivae_lab.models.likelihoods.of_images": "image_likelihood",
}


def name_of(target: str) -> str:
    """Return the bare name of one of our classes or functions; the whole path of any other.

    Examples
    --------
    >>> name_of("ivae_lab.models.vae.VAE"), name_of("ivae_lab.models.VAE"), name_of("mine.VAE")
    ('VAE', 'VAE', 'mine.VAE')
    """
    if not target.startswith(OURS):
        return target
    return RENAMED.get(target, target.rpartition(".")[2])


def place_of(target: str) -> str:
    """Return the path, in a face, of one of our classes or functions, given any path or its name; others unchanged."""
    name = name_of(target)
    return f"{known()[name]}.{name}" if name in known() else target


@cache
def known() -> dict[str, str]:
    """Map every public name of the faces to its face."""
    return {name: face for face in FACES for name in dir(import_module(face))}


def with_names(config: Any) -> Any:
    """Replace all targets of a plain configuration tree by bare names, so that equality ignores where classes lie."""
    return _each_target(config, name_of)


def with_places(config: Any) -> Any:
    """Replace all targets of a plain configuration tree by the paths where their classes are now."""
    return _each_target(config, place_of)


def _each_target(node: Any, change: Callable[[str], str]) -> Any:
    if isinstance(node, list):
        return [_each_target(child, change) for child in node]
    if not isinstance(node, dict):
        return node
    return {
        key: change(child) if key == TARGET and isinstance(child, str) else _each_target(child, change)
        for key, child in node.items()
    }
