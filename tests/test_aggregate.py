"""The aggregator as a command, on run folders made by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from ivae_lab.aggregate import flatten, main
from ivae_lab.results import COLUMNS, read_table, write_results

ROOT = Path(__file__).parents[1]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    command = [sys.executable, "-m", "ivae_lab.aggregate", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False)


def make_run(folder: Path, state: str = "done", values: tuple[float, ...] = (0.5, 0.25), **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed": [0, 1], "data": {"_target_": "TCL"}} | config))
    (folder / "status.json").write_text(json.dumps({"state": state, "error": "ValueError: [x] too big"}))
    rows = [dict.fromkeys(COLUMNS) | {"seed": s, "value": v, "metric": "mcc"} for s, v in enumerate(values)]
    write_results(folder / "results.csv", rows)
    return folder


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Two finished runs, and one of each kind that gives no rows."""
    outputs = tmp_path / "outputs"
    make_run(outputs / "tcl-ivae-1", model={"beta": 4, "sizes": [50, 50], "last": None})
    make_run(outputs / "tcl-vae-2", "diverged", (float("nan"), 0.1 + 0.2), model={"name": "vae, plain"})
    make_run(outputs / "tcl-vade-3", "running")
    make_run(outputs / "tcl-vade-4", "failed")
    (make_run(outputs / "broken-a") / "results.csv").unlink()
    (make_run(outputs / "broken-b") / "results.csv").write_text("seed,value\n0,1\n")
    (make_run(outputs / "broken-c") / "config.yaml").write_text("a: [")
    (make_run(outputs / "broken-d") / "config.yaml").write_text("- 1")
    (make_run(outputs / "broken-e") / "status.json").write_text('{"sta')
    make_run(outputs / "broken-f", "asleep")
    (make_run(outputs / "broken-g") / "status.json").unlink()
    (outputs / "figures").mkdir()
    return outputs


def test_joins_the_runs_and_names_the_others(outputs: Path) -> None:
    done = run(cwd=outputs.parent)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"{Path('outputs/results.csv')}: 4 rows of 2 run folders"
    assert "in progress: tcl-vade-3" in lines
    assert "failed: tcl-vade-4: ValueError: [x] too big" in lines
    reasons = {line.split(": ")[1]: line for line in lines if line.startswith("unreadable")}
    expected = {
        "broken-a": "results.csv",
        "broken-b": "expected the columns",
        "broken-c": "ParserError",
        "broken-d": "expected config.yaml to hold keys, got list",
        "broken-e": "JSONDecodeError",
        "broken-f": "expected state running, done, failed or diverged, got 'asleep'",
        "broken-g": "status.json",
    }
    assert set(reasons) == set(expected)
    assert all(words in reasons[name] for name, words in expected.items())


def test_table_is_tidy(outputs: Path) -> None:
    assert main([f"outputs={outputs}"]) == 0
    table = read_table(outputs / "results.csv")
    configured = ["data._target_", "model.beta", "model.last", "model.name", "model.sizes"]
    assert list(table.columns) == ["folder", "run_state", *COLUMNS, *configured]
    assert table["folder"].tolist() == ["tcl-ivae-1"] * 2 + ["tcl-vae-2"] * 2
    assert table["run_state"].tolist() == ["done"] * 2 + ["diverged"] * 2
    assert table["seed"].tolist() == [0, 1, 0, 1]  # the row's own, not the list of the configuration
    assert table["value"].tolist()[:2] + table["value"].tolist()[3:] == [0.5, 0.25, 0.1 + 0.2]
    assert table["model.beta"].tolist()[:2] == [4, 4]
    assert pd.isna(table["model.beta"][2])
    assert table["model.name"][2] == "vae, plain"
    assert json.loads(table["model.sizes"][0]) == [50, 50]


def test_again_gives_the_same_table(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for _ in range(2):
        assert main([f"outputs={outputs}"]) == 0
        said.append((capsys.readouterr().out, (outputs / "results.csv").read_bytes()))
    assert said[0] == said[1]
    assert not list(outputs.glob(".*"))


def test_only_unfinished_runs_make_an_empty_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "a", "running")
    assert main([f"outputs={tmp_path}"]) == 0
    assert "0 rows of 0 run folders\nin progress: a\n" in capsys.readouterr().out
    assert len(read_table(tmp_path / "results.csv")) == 0


@pytest.mark.parametrize("arguments", [["out=x"], ["outputs"], ["outputs="], ["outputs=a", "outputs=b"], ["--help"]])
def test_wrong_arguments_are_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error == f"expected at most one argument, outputs=FOLDER, got {' '.join(arguments)}\n"


def test_no_runs_say_how_to_make_one(tmp_path: Path) -> None:
    done = run(f"outputs={tmp_path / 'none'}", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "`python -m ivae_lab.train model=ivae data=tcl` makes one" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_flatten() -> None:
    nested = {"a": {"b": {"c": 1e-5}, "d": True, "e": [1, "x"]}, "f": None, "g": "text", "h": {}}
    expected = {"a.b.c": "1e-05", "a.d": "true", "a.e": '[1, "x"]', "f": None, "g": "text"}
    assert flatten(nested) == expected


def test_import_is_light() -> None:
    code = "import sys, ivae_lab.aggregate; print([m for m in sys.modules if m in sys.argv[1:]])"
    heavy = ("torch", "lightning", "sklearn", "seaborn", "matplotlib", "scipy.stats", "hydra")
    done = subprocess.run([sys.executable, "-c", code, *heavy], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_metrics_results_and_plots_do_not_import_torch() -> None:
    modules = (
        "ivae_lab.metrics.mcc, ivae_lab.metrics.elbo, ivae_lab.metrics.linear_r2, ivae_lab.results, ivae_lab.plots"
    )
    code = f"import sys, {modules}; print('torch' in sys.modules, 'lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
