"""Imports go downwards only: held by reading the import statements, without executing any."""

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "ivae_lab"


@dataclass(frozen=True)
class Layer:
    """Units (files or folders of the package) on one level; they see the levels below, and each other if `siblings`."""

    level: int
    units: frozenset[str]
    siblings: bool = True
    third_party: frozenset[str] | None = None  # at import time; None: anything
    light: bool = False  # must load neither torch nor lightning, directly or through others


def _layer(
    level: int, units: str, *, third_party: str | None = None, siblings: bool = True, light: bool = False
) -> Layer:
    allowed = None if third_party is None else frozenset(third_party.split())
    return Layer(level, frozenset(units.split()), siblings, allowed, light)


# Each file or folder directly under ivae_lab/ has its place here. `__init__` runs before all others.
LAYERS = (
    _layer(-1, "__init__", third_party="", light=True),
    _layer(
        0,
        "types networks distributions families natural piecewise",
        third_party="torch numpy scipy annotated_types pydantic",
    ),
    _layer(0, "build"),
    _layer(0, "identity targets wording later", third_party="", light=True),
    _layer(0, "places", third_party="omegaconf", light=True),
    _layer(0, "arrays blocks columns exponential generator recipe", third_party="numpy pandas", light=True),
    _layer(1, "data priors models", siblings=False),
    _layer(1, "metrics", light=True),
    _layer(
        2,
        "arguments results pairs scores score tables experiment records cells claims present joined plots gallery "
        "latent_plots display queue aggregate about choose report streamed overrides sweep __main__",
        light=True,
    ),
    _layer(3, "engine"),
    _layer(3, "fetch", third_party="rich"),
    _layer(4, "train reproduce encode sample export completion estimator"),
)
HEAVY = {"torch", "lightning", "pytorch_lightning"}


@dataclass(frozen=True)
class Import:
    """One import as written in `module`, resolved to an absolute dotted `target`."""

    module: str
    line: int
    target: str
    deferred: bool  # in a function or under TYPE_CHECKING: not run when the module is imported

    def __str__(self) -> str:
        """Say where it stands."""
        return f"{self.module}, line {self.line}, imports {self.target}"


def layer_of(unit: str) -> Layer:
    """Look the unit up in the table; an unknown one is an error that says what to do."""
    for layer in LAYERS:
        if unit in layer.units:
            return layer
    raise LookupError(f"{PACKAGE}.{unit} has no layer: place it in LAYERS in tests/test_layers.py")


def unit_of(module: str) -> str:
    """`ivae_lab.data.tcl` belongs to the unit `data`; `ivae_lab` itself is `__init__`."""
    return [*module.split("."), "__init__"][1]


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _statements(node: ast.AST, deferred: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, deferred
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _statements(child, deferred or function or _is_type_checking(child))


def _targets(statement: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    base = statement.module or ""
    if statement.level:
        parents = package.split(".")[: len(package.split(".")) - statement.level + 1]
        base = ".".join([*parents, base]).rstrip(".")
    known = {unit for layer in LAYERS for unit in layer.units}
    if base == PACKAGE:  # `from ivae_lab import plots` names a module, `from ivae_lab import __version__` does not
        return [f"{base}.{alias.name}" if alias.name in known else base for alias in statement.names]
    return [base]


def imports_of(module: str, source: str, is_package: bool = False) -> list[Import]:
    """List the imports in one module's source, those inside functions too."""
    package = module if is_package else module.rpartition(".")[0]
    return [
        Import(module, statement.lineno, target, deferred)
        for statement, deferred in _statements(ast.parse(source))
        for target in _targets(statement, package)
    ]


def _is_internal(found: Import) -> bool:
    return found.target.partition(".")[0] == PACKAGE


def _upward(found: Import) -> str | None:
    source, target = unit_of(found.module), unit_of(found.target)
    above, below = layer_of(source), layer_of(target)
    if source == target or below.level < above.level or (above is below and above.siblings):
        return None
    if below.level == above.level == 0:  # the torch-only files and the checking of configurations
        return None
    return f"{found}: {target} is not below {source}"


def _third_party(found: Import) -> str | None:
    allowed = layer_of(unit_of(found.module)).third_party
    name = found.target.partition(".")[0]
    if allowed is None or found.deferred or name in allowed | sys.stdlib_module_names:
        return None
    return f"{found}: this file may load only {sorted(allowed)} and the standard library"


def _heavy(imports: list[Import]) -> Iterator[str]:
    """Light units name torch and lightning nowhere, and reach no unit that loads them when imported."""
    for unit in sorted(unit for layer in LAYERS if layer.light for unit in layer.units):
        reached, todo = {unit, "__init__"}, [unit]
        while todo:
            here = todo.pop()
            seen = {unit_of(i.target) for i in imports if _is_internal(i) and unit_of(i.module) == here}
            todo += seen - reached
            reached |= seen
        for found in imports:
            source = unit_of(found.module)
            if found.target.partition(".")[0] in HEAVY and source in reached and (source == unit or not found.deferred):
                yield f"{found}: {unit} must not load it, directly or through others"


def _cycles(imports: list[Import]) -> Iterator[str]:
    graph: dict[str, set[str]] = {}
    for found in filter(_is_internal, imports):
        if unit_of(found.module) != unit_of(found.target):
            graph.setdefault(unit_of(found.module), set()).add(unit_of(found.target))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield f"cycle: {' -> '.join(reversed(error.args[1]))}"


def violations(sources: Mapping[str, str]) -> list[str]:
    """Check a package given as {file relative to the package: source}."""
    imports: list[Import] = []
    for file, source in sources.items():
        parts = [PACKAGE, *Path(file).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        layer_of(unit_of(module))
        imports += imports_of(module, source, is_package)
    internal = [i for i in imports if _is_internal(i)]
    external = [i for i in imports if not _is_internal(i)]
    found = [*map(_upward, internal), *map(_third_party, external), *_heavy(imports), *_cycles(imports)]
    return [line for line in found if line]


@pytest.mark.slow
def test_package_respects_its_layers() -> None:
    folder = ROOT / PACKAGE
    sources = {str(p.relative_to(folder)): p.read_text(encoding="utf-8") for p in sorted(folder.rglob("*.py"))}
    assert "__init__.py" in sources
    assert violations(sources) == []


def test_figures_of_experiments_read_rows_only() -> None:
    light = {unit for layer in LAYERS if layer.light for unit in layer.units}
    for path in sorted((ROOT / "experiments").rglob("figures.py")):
        for found in imports_of(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")):
            assert found.target.partition(".")[0] not in HEAVY, str(found)
            assert not _is_internal(found) or unit_of(found.target) in light, str(found)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"networks/mlp.py": "import ivae_lab.models.vae"}, "models is not below networks"),
        ({"types.py": "from ivae_lab import engine"}, "engine is not below types"),
        ({"types.py": "def f():\n    from . import engine"}, "line 2, imports ivae_lab.engine"),
        ({"priors/gmm.py": "from ivae_lab.data import tcl"}, "data is not below priors"),
        ({"priors/gmm.py": "from ..models.vae import VAE"}, "models is not below priors"),
        ({"metrics/__init__.py": "from ..results import Row"}, "results is not below metrics"),
        ({"models/vae.py": "from ivae_lab.config.build import check\nfrom ivae_lab.train import main"}, "line 2"),
        ({"networks/invertible.py": "import lightning"}, "may load only"),
        ({"__init__.py": "import torch"}, "may load only"),
        ({"plots.py": "def f():\n    import torch.nn"}, "plots must not load it"),
        ({"report.py": "from .plots import draw", "plots.py": "import lightning as L"}, "report must not load it"),
        ({"report.py": "from .build import draw", "build.py": "import torch"}, "report must not load it"),
        ({"train.py": "from .reproduce import a", "reproduce.py": "from .train import b"}, "cycle: "),
    ],
)
def test_checker_catches(sources: dict[str, str], message: str) -> None:
    assert any(message in line for line in violations(sources)), violations(sources)


@pytest.mark.parametrize(
    "sources",
    [
        {"distributions.py": "import math\nimport torch\nfrom .types import Batch\ndef f():\n    import scipy"},
        {"models/vae.py": "from .base import Model\nfrom ivae_lab import __version__, networks\nimport lightning"},
        {"report.py": "from ivae_lab import plots, results, build", "build.py": "def f():\n    import torch"},
        {"engine/module.py": "from ivae_lab.models.vae import VAE\nfrom ..results import Row"},
        {"reproduce.py": "from ivae_lab.train import train\nfrom ivae_lab.engine.stack import Stack"},
        {"types.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import scipy"},
    ],
)
def test_checker_lets_pass(sources: dict[str, str]) -> None:
    assert violations(sources) == []


def test_checker_asks_where_a_new_module_belongs() -> None:
    with pytest.raises(LookupError, match=r"ivae_lab\.shiny has no layer: place it in LAYERS"):
        violations({"shiny.py": ""})
    with pytest.raises(LookupError, match="place it in LAYERS"):
        violations({"train.py": "import ivae_lab.shiny.part"})
