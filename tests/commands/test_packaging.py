"""What a user installs or cites: the wheel, the pins, the Makefile, the citation, the size of the clone."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from ivae_lab import __version__

ROOT = Path(__file__).resolve().parents[2]
MAX_BYTES = 1_000_000


def _run(*command: str | Path, cwd: Path, **env: str) -> str:
    """Run a command away from make's and pytest's own environment; its output is shown when it fails."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "PYTHONPATH"))}
    done = subprocess.run(command, cwd=cwd, env=ours | env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} gave {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, from a fresh process and without network."""
    out = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=ROOT)
    (path,) = out.glob("ivae_lab-*.whl")
    return path


@pytest.mark.slow
def test_wheel_holds_what_the_clone_holds_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name: archive.read(name) for name in archive.namelist()}
    tops = {name.partition("/")[0] for name in packed}
    assert tops == {"ivae_lab", "hydra_plugins", next(top for top in tops if top.endswith(".dist-info"))}
    inside = {"conf": "ivae_lab/conf", "experiments": "ivae_lab/experiments"}  # elsewhere than in the clone
    held = {
        f"{inside.get(top, top)}/{path.relative_to(ROOT / top).as_posix()}": path.read_bytes()
        for top in ("ivae_lab", "hydra_plugins", *inside)
        for path in (ROOT / top).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"ivae_lab/conf/config.yaml", "ivae_lab/experiments/willetts2021/reported.csv"} <= held.keys()
    assert {
        "ivae_lab/reproduction/site_pages/style.css",
        "ivae_lab/reproduction/site_pages/index.html.j2",
    } <= held.keys()
    assert {name: content for name, content in packed.items() if ".dist-info/" not in name} == held
    assert any(name.endswith("licenses/LICENSE") for name in packed)


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Path:
    """Install the wheel into an environment with nothing else but what it depends on; the folder of its commands."""
    commands = tmp_path / "environment" / "bin"
    venv.create(commands.parent)
    python = commands / "python"
    quiet = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-index")
    _run(sys.executable, "-m", "pip", "--python", python, "install", *quiet, wheel, cwd=tmp_path)
    (site,) = (commands.parent / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # of which .pth files are not read
    return commands


@pytest.mark.slow
def test_installed_wheel_starts_everything_away_from_the_clone(installed: Path, tmp_path: Path) -> None:
    elsewhere, lab, python = tmp_path / "elsewhere", installed / "ivae-lab", installed / "python"
    elsewhere.mkdir()
    where = _run(python, "-c", "import ivae_lab; print(ivae_lab.__file__)", cwd=elsewhere)
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert _run(lab, "--version", cwd=elsewhere) == f"ivae_lab {__version__}\n"
    assert _run(lab, cwd=elsewhere) == _run(python, "-m", "ivae_lab", cwd=elsewhere)
    assert "data: cifar10, " in _run(lab, "train", "--help", cwd=elsewhere)
    assert "willetts2021/fig2" in _run(lab, "reproduce", "--list", cwd=elsewhere)
    typed = "ivae-lab train model=vade_p"
    assert _run(lab, "completion", "answer", typed, cwd=elsewhere) == "model=vade_pretrained \n"
    assert list(elsewhere.iterdir()) == []


def test_metadata_name_the_command_and_the_papers(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        texts = {Path(name).name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    assert "[console_scripts]\nivae-lab = ivae_lab.__main__:main\n" in texts["entry_points.txt"]
    metadata = message_from_string(texts["METADATA"])
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    papers = {
        each["identifiers"][0]["value"].replace("arXiv:", "https://arxiv.org/abs/") for each in citation["references"]
    }
    assert {url.split(", ")[1] for url in metadata.get_all("Project-URL", [])} == papers
    assert metadata["Keywords"]
    assert f"Programming Language :: Python :: {metadata['Requires-Python'].removeprefix('>=')}" in metadata.get_all(
        "Classifier", []
    )


def _pins() -> dict[str, Version]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    exact = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!]+)")  # no local suffix, no path, no address
    found = {line: exact.fullmatch(line) for line in lines if line}
    assert [line for line, match in found.items() if match is None] == []
    return {canonicalize_name(match[1]): Version(match[2]) for match in found.values() if match}


def test_constraints_pin_every_direct_dependency() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        pyproject = tomllib.load(file)
    project, pins = pyproject["project"], _pins()
    named = [*pyproject["build-system"]["requires"], *project["dependencies"], *project["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, named):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"constraints.txt does not pin {name}"
        assert pins[name] in requirement.specifier, f"constraints.txt has {name} {pins[name]}, expected {requirement}"


def test_make_help_lists_every_target() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    phony = {name for line in re.findall(r"^\.PHONY:(.*)$", text, re.MULTILINE) for name in line.split()}
    shown = _run("make", "help", cwd=ROOT)
    assert shown == _run("make", cwd=ROOT)
    listed = dict(line.split(maxsplit=1) for line in shown.splitlines() if line.startswith("  "))
    assert listed.keys() == phony
    assert phony >= {"help", "install", "run", "test", "test-fast", "lint", "format", "benchmark", "wheel", "clean"}


def test_citation_names_the_four_papers() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["authors"] == [{"name": "ivae_lab developers"}]
    papers = {reference["identifiers"][0]["value"]: reference for reference in citation["references"]}
    assert papers.keys() == {"arXiv:1907.04809", "arXiv:2106.05238", "arXiv:2206.10044", "arXiv:2001.04872"}
    assert all({"type", "title", "authors", "year"} <= reference.keys() for reference in papers.values())


def test_citation_and_package_agree_on_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    source = (ROOT / "ivae_lab" / "__init__.py").read_text(encoding="utf-8")
    assert f'__version__ = "{citation["version"]}"' in source


def test_clone_stays_small() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git clone")
    listed = _run("git", "-c", "safe.directory=*", "ls-files", "-z", cwd=ROOT).split("\0")
    files = [ROOT / name for name in listed if name]
    large = {str(f.relative_to(ROOT)): f.stat().st_size for f in files if f.is_file() and f.stat().st_size > MAX_BYTES}
    assert large == {}
