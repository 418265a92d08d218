"""Tests mirror the source: a module has a test file of its name, or tests/elsewhere.yaml says where it is tested."""

from __future__ import annotations

from pathlib import Path

import yaml

TESTS = Path(__file__).resolve().parents[1]
PACKAGE = TESTS.parent / "ivae_lab"
MODULES = {
    path.relative_to(PACKAGE).with_suffix("").as_posix()
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py" and path.parent != PACKAGE
}
DOORS = {path.stem for path in PACKAGE.glob("*.py")}
ELSEWHERE: dict[str, str] = yaml.safe_load((TESTS / "elsewhere.yaml").read_text())


def own_file(module: str) -> Path:
    folder, _, name = module.rpartition("/")
    return TESTS / folder / f"test_{name}.py"


def test_every_module_has_tests_of_its_name_or_says_where_they_are() -> None:
    assert {module for module in MODULES if not own_file(module).is_file()} == {*ELSEWHERE}


def test_where_they_are_they_are() -> None:
    assert {place for place in ELSEWHERE.values() if not (TESTS / f"{place}.py").is_file()} == set()


def test_the_root_of_the_package_holds_doors_only() -> None:
    assert len(DOORS) <= 14
    lines = {path.name: path.read_text().count("\n") for path in PACKAGE.glob("*.py")}
    assert {name: count for name, count in lines.items() if count > 150} == {}
