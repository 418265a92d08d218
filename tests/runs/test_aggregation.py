"""The aggregator as a command, on run folders made by hand."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from ivae_lab import aggregate
from ivae_lab.aggregate import RULE, main
from ivae_lab.runs import aggregation
from ivae_lab.runs.aggregation import ABOUT, AGREEMENT, CACHE, TableKind, collect, table
from ivae_lab.runs.agreement_csv import COLUMNS as PAIR_COLUMNS
from ivae_lab.runs.agreement_csv import DTYPES as PAIR_DTYPES
from ivae_lab.runs.agreement_csv import read_pairs, summarise_pairs, write_pairs
from ivae_lab.runs.flat_config import flatten, read_config
from ivae_lab.runs.folder import read_status, run_folders, seal, write_status
from ivae_lab.runs.results_csv import COLUMNS, DTYPES, read_results, read_table, write_results
from ivae_lab.runs.summaries import summarise
from tests.running import Outcome, command

ROOT = Path(__file__).parents[2]
NAN = float("nan")


def run(*arguments: str, cwd: Path) -> Outcome:
    return command(*arguments, cwd=cwd, module="ivae_lab.aggregate", PYTHONWARNINGS="error")


def make_run(folder: Path, state: str = "done", values: tuple[float, ...] = (0.5, 0.25), **more: Any) -> Path:
    """A folder with one MCC and one ELBO per seed."""
    folder.mkdir(parents=True)
    config = {"seed": list(range(len(values))), "data": {"_target_": "TCL"}, **more.pop("config", {})}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    status = {"error": None, "seeds": config["seed"], "cell": f"of {folder.name}", **more}
    (folder / "status.json").write_text(json.dumps({"state": state, **status}))
    rows = [
        dict.fromkeys(COLUMNS)
        | {"seed": seed, "value": value * scale, "metric": metric, "rank": rank}
        | {"state": "done" if np.isfinite(value) else "diverged"}
        for seed, value in enumerate(values)
        for metric, rank, scale in (("mcc", 5, 1), ("elbo", None, -10))
    ]
    write_results(folder / "results.csv", rows)
    return folder


def make_pairs(folder: Path, seeds: int = 3, shift: float = 0.0, **more: Any) -> Path:
    """A folder that has been compared between seeds too: at two places of a grid, of rank 20 and 50."""
    make_run(folder, values=(0.5,) * seeds, **more)
    rows = [
        {**dict.fromkeys(PAIR_COLUMNS), "seed_a": a, "seed_b": b, "position": place, "rank": rank, "state": "done"}
        | {"latents": "mean", "scored": "out", "value": (a + b + place) / 10 + shift, "chance": rank / 100}
        for a, b in combinations(range(seeds), 2)
        for place in (0, 1)
        for rank in (20, 50)
    ]
    write_pairs(folder / "agreement.csv", rows)
    return folder


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def said(capsys: pytest.CaptureFixture[str], *roots: Path) -> list[str]:
    """What the command says, in this process."""
    assert main([f"outputs={','.join(map(str, roots))}"]) == 0
    return capsys.readouterr().out.splitlines()


def written(outputs: Path) -> dict[str, bytes]:
    return {name: (outputs / name).read_bytes() for name in ("results.parquet", "results.csv")}


def unreadable(outputs: Path) -> dict[str, str]:
    return collect(run_folders(outputs)).unreadable


def places_to_end(whole: bytes) -> list[int]:
    """Where to cut a file: anywhere in its last line but before the line feed, elsewhere at some bytes."""
    last = whole.rindex(b"\n", 0, -1)
    return [*range(0, last, 53), *range(last, len(whole) - 1)]


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Two finished runs, and one of each kind that gives no rows."""
    outputs = tmp_path / "outputs"
    about: dict[str, Any] = {"commit": "0123456789ab", "written": "2026-01-02T03:04:05Z", "seconds": 12.5}
    make_run(outputs / "tcl-ivae-1", **about, config={"model": {"beta": 4, "sizes": [50, 50], "last": None}})
    make_run(outputs / "tcl-vae-2", "diverged", (NAN, 0.1 + 0.2), config={"model": {"name": 'vae, "plain"'}})
    make_run(outputs / "tcl-vade-3", "running")
    make_run(outputs / "tcl-vade-4", "failed", error="ValueError: [x]\ntoo big")
    (outputs / "figures").mkdir()
    return outputs


class TestTable:
    def test_columns(self, outputs: Path) -> None:
        assert main([f"outputs={outputs}"]) == 0
        configured = ["data._target_", "model.beta", "model.last", "model.name", "model.sizes"]
        expected = ["folder", "run_state", *COLUMNS, "cell", "commit", "written", "seconds", *configured]
        assert list(read_table(outputs / "results.csv")) == expected
        assert list(pd.read_parquet(outputs / "results.parquet")) == expected

    @pytest.mark.parametrize("name", ["results.parquet", "results.csv"])
    def test_values(self, outputs: Path, name: str) -> None:
        assert main([f"outputs={outputs}"]) == 0
        rows = (read_table if name.endswith("csv") else pd.read_parquet)(outputs / name)
        assert rows["folder"].tolist() == ["tcl-ivae-1"] * 4 + ["tcl-vae-2"] * 4
        assert rows["run_state"].tolist() == ["done"] * 4 + ["diverged"] * 4
        assert rows["seed"].tolist() == [0, 0, 1, 1] * 2  # the row's own, not the list of the configuration
        assert rows["metric"].tolist() == ["mcc", "elbo"] * 4
        assert rows["value"].tolist()[:4] + rows["value"].tolist()[6:] == [
            0.5,
            -5,
            0.25,
            -2.5,
            0.1 + 0.2,
            -10 * (0.1 + 0.2),
        ]
        assert rows["value"].isna().tolist() == [False] * 4 + [True] * 2 + [False] * 2
        assert rows["state"].tolist() == ["done"] * 4 + ["diverged"] * 2 + ["done"] * 2
        assert rows["rank"].isna().tolist() == [False, True] * 4
        assert rows["latents"].tolist() == [""] * 8
        assert rows["cell"].tolist() == ["of tcl-ivae-1"] * 4 + ["of tcl-vae-2"] * 4
        assert rows["commit"].tolist()[:4] == ["0123456789ab"] * 4
        assert rows["written"].tolist()[:4] == ["2026-01-02T03:04:05Z"] * 4
        assert rows["seconds"].tolist()[:4] == [12.5] * 4
        assert rows[["commit", "written", "seconds"]][4:].isna().all(axis=None)
        assert [float(beta) for beta in rows["model.beta"][:4]] == [4] * 4
        assert rows["model.beta"][4:].isna().all()
        assert rows["model.last"].isna().all()
        assert rows["model.name"].tolist()[4:] == ['vae, "plain"'] * 4
        assert json.loads(rows["model.sizes"][0]) == [50, 50]

    def test_types(self, outputs: Path) -> None:
        assert main([f"outputs={outputs}"]) == 0
        for rows in (pd.read_parquet(outputs / "results.parquet"), table(collect(run_folders(outputs)))):
            types = {name: str(dtype) for name, dtype in rows.dtypes.items()}
            assert types["seconds"] == "float64"
            assert {name: types[name] for name in COLUMNS} == {
                name: "category" if dtype == "str" else dtype for name, dtype in DTYPES.items()
            }
            assert {types[name] for name in rows if name not in (*COLUMNS, "seconds")} == {"category"}

    def test_is_what_the_summary_over_seeds_takes(self, outputs: Path) -> None:
        rows = table(collect(run_folders(outputs)))
        over = summarise(rows, by=["folder"])
        assert over["mean"].tolist() == pytest.approx([0.375, -3.75, 0.3, -3.0])
        assert over["diverged"].tolist() == [0, 0, 1, 1]

    def test_only_unfinished_runs_make_an_empty_one(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        make_run(tmp_path / "a", "running")
        assert said(capsys, tmp_path)[0].endswith("0 rows of 0 run folders")
        assert len(read_table(tmp_path / "results.csv")) == 0
        assert list(pd.read_parquet(tmp_path / "results.parquet")) == ["folder", "run_state", *COLUMNS, *ABOUT]

    def test_rows_are_those_of_the_run(self, outputs: Path) -> None:
        rows = table(collect(run_folders(outputs)))
        own = rows.loc[rows["folder"] == "tcl-vae-2", list(COLUMNS)].reset_index(drop=True)
        pd.testing.assert_frame_equal(own.astype(DTYPES), read_results(outputs / "tcl-vae-2"))


class TestSummary:
    @pytest.mark.slow
    def test_names_what_has_no_rows(self, outputs: Path) -> None:
        done = run(cwd=outputs.parent)
        assert (done.code, done.err) == (0, "")
        assert done.out.splitlines() == [
            f"{Path('outputs/results.parquet')}, results.csv: 8 rows of 2 run folders",
            "in progress: tcl-vade-3",
            "failed: tcl-vade-4: ValueError: [x] too big",
        ]

    def test_findings(self, outputs: Path) -> None:
        (outputs / "broken").mkdir()
        (outputs / "broken" / "config.yaml").touch()
        found = collect(run_folders(outputs))
        assert list(found.runs) == ["tcl-ivae-1", "tcl-vae-2"]
        assert found.in_progress == ["tcl-vade-3"]
        assert found.failed == {"tcl-vade-4": "ValueError: [x] too big"}
        assert list(found.unreadable) == ["broken"]
        assert set(map(len, found.duplicates.values())) == {0}


class TestUnreadable:
    """A folder that is not right is named with the reason; the others give their rows."""

    @pytest.mark.parametrize(
        ("name", "old", "new", "reason"),
        [
            (
                "results.csv",
                "0.25",
                "high",
                "numbers in column value of results.csv, got: Failed to parse string",
            ),
            ("results.csv", "\n1,", "\none,", "expected numbers in column seed of results.csv, got"),
            ("results.csv", "\n1,", "\n1.5,", "expected numbers in column seed of results.csv, got"),
            ("results.csv", "\n1,", "\n99999999999999999999,", "expected numbers in column seed of results.csv, got"),
            ("results.csv", "\n1,", "\n,", "expected rows of the seeds 0, 1 in results.csv, got 0, None, 1"),
            ("results.csv", ",done", ",fine", "expected state done or diverged in results.csv, got 'fine'"),
            ("results.csv", ",done", ",", "expected state done or diverged in results.csv, got ''"),
            (
                "results.csv",
                "elbo,,,,,",
                "mcc,,,,5,",
                "one row per seed and metric variant in results.csv, got 1 more",
            ),
            ("results.csv", "chance,", "", "got no chance"),
            ("results.csv", "chance", "luck", "got no chance, also luck"),
            ("results.csv", "chance", "value", "got no chance, also value"),
            ("results.csv", "mcc", "mcc,mcc", "expected 15 values in line 2 of results.csv, got 16"),
            ("results.csv", "mcc", '"mcc', "Error: "),
            ("config.yaml", "data:", "data: [", "ParserError"),
            ("status.json", '"done"', '"asleep"', "expected state running, done, failed or diverged, got 'asleep'"),
            ("status.json", '"done"', '["done"]', "expected state running, done, failed or diverged, got ['done']"),
            ("status.json", '{"state": "done",', "{", "expected status.json to hold an object with a state"),
            ("status.json", '"of b"', "7", "expected cell in status.json to be str, got 7"),
            (
                "status.json",
                "null",
                'null, "seconds": "long"',
                "seconds in status.json to be float, got 'long'",
            ),
            ("status.json", "[0, 1]", "[0, 1, 2]", "expected rows of the seeds 0, 1, 2 in results.csv, got 0, 1"),
            ("status.json", "[0, 1]", "2", "TypeError"),
        ],
    )
    @pytest.mark.slow
    def test_edited(self, tmp_path: Path, name: str, old: str, new: str, reason: str) -> None:
        make_run(tmp_path / "a")
        edit(make_run(tmp_path / "b") / name, old, new)
        found = collect(run_folders(tmp_path))
        assert list(found.unreadable) == ["b"]
        assert reason in found.unreadable["b"]
        assert "\n" not in found.unreadable["b"]
        assert set(table(found)["folder"]) == {"a"}

    def test_a_changed_digit(self, tmp_path: Path) -> None:
        folder = make_run(tmp_path / "a")
        (folder / "history.csv").write_text("step\n")
        for name in ("latents.npz", "examples.npz"):
            (folder / name).write_bytes(b"")
        write_status(folder, read_status(folder) | {"files": seal(folder)})
        assert unreadable(tmp_path) == {}
        edit(folder / "results.csv", "0.5", "0.6")
        assert "expected results.csv as the run wrote it, got another checksum" in unreadable(tmp_path)["a"]

    @pytest.mark.parametrize("name", ["config.yaml", "status.json", "results.csv"])
    def test_missing_file(self, tmp_path: Path, name: str) -> None:
        (make_run(tmp_path / "a") / name).unlink()
        assert name in unreadable(tmp_path)["a"]

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("- 1", "expected config.yaml to hold keys, got list"),
            ("", "expected config.yaml to hold keys, got NoneType"),
            ("a: &a {b: *a}", "RecursionError"),
            ("a: [{2020-01-01: b}]", "TypeError"),
        ],
    )
    def test_configuration(self, tmp_path: Path, content: str, reason: str) -> None:
        (make_run(tmp_path / "a") / "config.yaml").write_text(content)
        assert reason in unreadable(tmp_path)["a"]

    @pytest.mark.parametrize("name", ["config.yaml", "status.json", "results.csv"])
    def test_not_even_text(self, tmp_path: Path, name: str) -> None:
        (make_run(tmp_path / "a") / name).write_bytes(b"\xff\xfe\x00")
        assert list(unreadable(tmp_path)) == ["a"]

    @pytest.mark.slow
    def test_truncated_results_are_noticed_wherever_they_end(self, tmp_path: Path) -> None:
        path = make_run(tmp_path / "a", values=(0.5, 0.25, 0.75)) / "results.csv"
        whole = path.read_bytes()
        assert unreadable(tmp_path) == {}
        for end in places_to_end(whole):  # without the last line feed nothing is lost
            path.write_bytes(whole[:end])
            assert list(unreadable(tmp_path)) == ["a"], whole[:end]

    @pytest.mark.slow
    def test_the_command_goes_on(self, outputs: Path) -> None:
        edit(make_run(outputs / "older") / "results.csv", "chance", "luck")
        done = run(cwd=outputs.parent)
        assert (done.code, done.err) == (0, "")
        assert "8 rows of 2 run folders" in done.out
        assert "unreadable: older: ValueError: expected the columns of this version in results.csv, got no" in done.out


class TestCache:
    def test_again_gives_the_same(self, outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
        first = said(capsys, outputs), written(outputs)
        assert (said(capsys, outputs), written(outputs)) == first
        (outputs / CACHE).unlink()
        assert (said(capsys, outputs), written(outputs)) == first
        assert {path.name for path in outputs.glob(".*")} == {CACHE}  # nothing temporary is left

    def test_unchanged_folders_are_not_read_again(self, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        read: list[str] = []
        original = aggregation._read_rows

        def spied(text: str, kind: TableKind) -> Any:
            read.append(text)
            return original(text, kind)

        monkeypatch.setattr(aggregation, "_read_rows", spied)
        for expected in (2, 2, 3):
            if expected == 3:
                make_run(outputs / "further")
            assert main([f"outputs={outputs}"]) == 0
            assert len(read) == expected

    @pytest.mark.parametrize(
        "change",
        [
            lambda outputs: make_run(outputs / "further", values=(0.125,), config={"model": {"gamma": 1}}),
            lambda outputs: shutil.rmtree(outputs / "tcl-ivae-1"),
            lambda outputs: list(map(shutil.rmtree, (outputs / "tcl-ivae-1", outputs / "tcl-vae-2"))),
            lambda outputs: edit(outputs / "tcl-ivae-1" / "results.csv", "0.25", "0.75"),
            lambda outputs: edit(outputs / "tcl-ivae-1" / "results.csv", "0.25", "high"),
            lambda outputs: edit(outputs / "tcl-ivae-1" / "config.yaml", "beta: 4", "beta: 5"),
            lambda outputs: edit(outputs / "tcl-ivae-1" / "status.json", "12.5", "13.5"),
            lambda outputs: edit(outputs / "tcl-ivae-1" / "status.json", '"done"', '"running"'),
            lambda outputs: edit(outputs / "tcl-vade-3" / "status.json", '"running"', '"done"'),
        ],
    )
    @pytest.mark.slow
    def test_a_change_gives_what_a_fresh_start_gives(
        self, outputs: Path, change: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = said(capsys, outputs), written(outputs)
        change(outputs)
        incremental = said(capsys, outputs), written(outputs)
        assert incremental != before
        (outputs / CACHE).unlink()
        assert (said(capsys, outputs), written(outputs)) == incremental

    def test_damage_is_mended(self, outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
        first = said(capsys, outputs), written(outputs)
        whole = (outputs / CACHE).read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 4] ^= 0xFF
        for damaged in (b"", b"PAR1", whole[:-20], whole[len(whole) // 2 :], bytes(flipped)):
            (outputs / CACHE).write_bytes(damaged)
            assert aggregation._load(outputs / CACHE) == {}
            assert (said(capsys, outputs), written(outputs)) == first
            assert len(aggregation._load(outputs / CACHE)) == 2
        shutil.copy(outputs / "results.parquet", outputs / CACHE)  # sound, but another table
        assert aggregation._load(outputs / CACHE) == {}

    def test_no_flipped_byte_passes_for_a_number(self, outputs: Path) -> None:
        collect(run_folders(outputs), outputs / CACHE)
        whole = (outputs / CACHE).read_bytes()
        for place in range(0, len(whole), 31):
            damaged = bytearray(whole)
            damaged[place] ^= 0x10
            (outputs / CACHE).write_bytes(damaged)
            assert aggregation._load(outputs / CACHE) == {}, place

    def test_another_version_reads_again(self, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        collect(run_folders(outputs), outputs / CACHE)
        assert len(aggregation._load(outputs / CACHE)) == 2
        monkeypatch.setattr(
            aggregation, "KINDS", tuple(replace(kind, unit_name="others") for kind in aggregation.KINDS)
        )
        assert aggregation._load(outputs / CACHE) == {}


class TestDuplicates:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"written": "2026-01-02T00:00:00Z"}, {"written": "2026-01-01T00:00:00Z"}),
            ({"written": "2026-01-01T00:00:00Z"}, {}),
            ({}, {}),  # the first by name
        ],
    )
    def test_the_later_is_kept(self, tmp_path: Path, one: dict[str, Any], other: dict[str, Any]) -> None:
        make_run(tmp_path / "a", cell="c", **one)
        make_run(tmp_path / "b", cell="c", **other)
        found = collect(run_folders(tmp_path))
        assert table(found)["folder"].tolist() == ["a"] * 4
        own = found.duplicates["results"]
        assert [tuple(each) for each in own] == [
            ("c", (0,), "a", "b", 0.0),
            ("c", (1,), "a", "b", 0.0),
        ]

    def test_done_comes_before_diverged(self, tmp_path: Path) -> None:
        make_run(tmp_path / "a", "diverged", (0.5, NAN), cell="c", written="2026-01-02T00:00:00Z")
        make_run(tmp_path / "b", "done", (0.5, 0.25), cell="c", written="2026-01-01T00:00:00Z")
        found = collect(run_folders(tmp_path))
        assert table(found)[["folder", "seed"]].values.tolist() == [["a", 0], ["a", 0], ["b", 1], ["b", 1]]
        own = found.duplicates["results"]
        assert [(each.seeds, each.kept, each.difference) for each in own] == [
            ((1,), "b", np.inf),
            ((0,), "a", 0),
        ]

    def test_seeds_and_cells_of_their_own_are_none(self, tmp_path: Path) -> None:
        make_run(tmp_path / "a", cell="c", values=(0.5,))
        make_run(tmp_path / "b", cell="c", values=(0.5, 0.25))
        make_run(tmp_path / "c", cell="d")
        found = collect(run_folders(tmp_path))
        assert [each.seeds for each in found.duplicates["results"]] == [(0,)]
        assert table(found)["folder"].tolist() == ["a"] * 2 + ["b"] * 2 + ["c"] * 4

    def test_three_of_a_kind(self, tmp_path: Path) -> None:
        for number, value in enumerate((0.5, 0.25, 0.125)):
            make_run(tmp_path / f"{number}", cell="c", values=(value,), written=f"2026-01-0{number + 1}")
        found = collect(run_folders(tmp_path))
        assert [each[2:] for each in found.duplicates["results"]] == [("2", "0", 3.75), ("2", "1", 1.25)]
        assert table(found)["folder"].tolist() == ["2", "2"]

    def test_rows_that_one_lacks(self, tmp_path: Path) -> None:
        make_run(tmp_path / "a", cell="c", values=(0.5,))
        edit(make_run(tmp_path / "b", cell="c", values=(0.5,)) / "results.csv", "elbo", "kl")
        assert "one has numbers that the other lacks" in str(collect(run_folders(tmp_path)).duplicates["results"][0])

    def test_without_a_cell_nothing_is_left_out(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name in ("a", "b"):
            make_run(tmp_path / name, cell=None)
        lines = said(capsys, tmp_path)
        assert lines[0].endswith("8 rows of 2 run folders")
        assert lines[1:] == ["not compared, because status.json has no cell: 2 run folders, such as a"]

    def test_are_named(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        make_run(tmp_path / "a", cell="c", values=(0.5,) * 30)
        make_run(tmp_path / "b", cell="c", values=(*(0.5,) * 29, 0.25))
        lines = said(capsys, tmp_path)
        assert lines[1] == f"30 seeds are in several folders; {RULE}"
        assert lines[2] == "duplicate: cell c seed 29: kept a, not b; their numbers differ by at most 2.5"
        assert lines[3] == "duplicate: cell c seed 0: kept a, not b; their numbers are equal"
        assert lines[22:] == ["and 10 more duplicates, with no larger difference"]


class TestAgreement:
    """Pairs of seeds have a table of their own, with the same rules."""

    def test_is_a_table_beside(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        make_pairs(tmp_path / "a", config={"model": {"beta": 4}})
        make_run(tmp_path / "b")
        assert said(capsys, tmp_path) == [
            f"{tmp_path / 'results.parquet'}, results.csv: 10 rows of 2 run folders",
            f"{tmp_path / 'agreement.parquet'}, agreement.csv: 12 rows of 1 run folders",
        ]
        expected = ["folder", "run_state", *PAIR_COLUMNS, *ABOUT, "data._target_", "model.beta"]
        for rows in (pd.read_parquet(tmp_path / "agreement.parquet"), read_table(tmp_path / "agreement.csv")):
            assert list(rows) == expected
            assert rows["folder"].tolist() == ["a"] * 12
            assert [float(beta) for beta in rows["model.beta"]] == [4] * 12
            own = rows[[*PAIR_COLUMNS]].astype(PAIR_DTYPES)
            pd.testing.assert_frame_equal(own, read_pairs(tmp_path / "a"))

    def test_is_what_the_summary_over_pairs_takes(self, tmp_path: Path) -> None:
        make_pairs(tmp_path / "a")
        make_pairs(tmp_path / "b", shift=0.5)
        over = summarise_pairs(table(collect(run_folders(tmp_path)), AGREEMENT), by=["folder"])
        assert over["mean"].tolist() == pytest.approx([0.25, 0.25, 0.75, 0.75])
        assert over["pairs"].tolist() == [3] * 4

    def test_no_pairs_no_files(self, tmp_path: Path) -> None:
        make_run(tmp_path / "runs" / "a")
        make_pairs(tmp_path / "runs" / "b")
        beside = [tmp_path / "runs" / name for name in ("agreement.parquet", "agreement.csv")]
        for there in (True, False):
            assert main([f"outputs={tmp_path / 'runs'}"]) == 0
            assert [path.exists() for path in beside] == [there] * 2
            shutil.rmtree(tmp_path / "runs" / "b", ignore_errors=True)

    def test_again_and_after_a_change(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        make_pairs(tmp_path / "a")
        make_run(tmp_path / "b")
        first = said(capsys, tmp_path), (tmp_path / "agreement.parquet").read_bytes()
        assert (said(capsys, tmp_path), (tmp_path / "agreement.parquet").read_bytes()) == first
        edit(tmp_path / "a" / "agreement.csv", "0.1,", "0.125,")
        changed = said(capsys, tmp_path), (tmp_path / "agreement.parquet").read_bytes()
        assert changed != first
        (tmp_path / CACHE).unlink()
        assert (said(capsys, tmp_path), (tmp_path / "agreement.parquet").read_bytes()) == changed

    @pytest.mark.parametrize(
        ("old", "new", "reason"),
        [
            ("seed_a", "seed", "expected the columns of this version in agreement.csv, got no seed_a, also seed"),
            ("\n0,1,", "\n0,x,", "expected numbers in column seed_b of agreement.csv"),
            ("\n0,1,", "\n0,2,", "expected one row per seed and metric variant in agreement.csv, got 1 more"),
            ("\n0,1,", "\n,1,", "expected rows of the pairs of seeds 0 and 1, 0 and 2, 1 and 2 in agreement.csv, got"),
        ],
    )
    def test_a_damaged_one_makes_the_folder_unreadable(self, tmp_path: Path, old: str, new: str, reason: str) -> None:
        edit(make_pairs(tmp_path / "a") / "agreement.csv", old, new)
        found = collect(run_folders(tmp_path))
        assert reason in found.unreadable["a"]
        assert len(table(found)) == 0

    @pytest.mark.slow
    def test_truncated_is_noticed_wherever_it_ends(self, tmp_path: Path) -> None:
        path = make_pairs(tmp_path / "a") / "agreement.csv"
        whole = path.read_bytes()
        for end in places_to_end(whole):
            path.write_bytes(whole[:end])
            assert list(unreadable(tmp_path)) == ["a"], whole[:end]

    def test_one_that_is_sealed_and_gone_is_noticed(self, tmp_path: Path) -> None:
        folder = make_pairs(tmp_path / "a")
        write_status(folder, read_status(folder) | {"files": seal(folder)})
        (folder / "agreement.csv").unlink()
        assert "agreement.csv" in unreadable(tmp_path)["a"]

    def test_duplicates_are_those_of_pairs(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        make_pairs(tmp_path / "a", cell="c", written="2026-01-02")
        make_pairs(tmp_path / "b", cell="c", seeds=4, shift=0.25)
        lines = said(capsys, tmp_path)
        assert f"3 pairs of seeds are in several folders; {RULE}" in lines
        assert "duplicate: cell c seed 0 and 1: kept a, not b; their numbers differ by at most 0.25" in lines
        rows = pd.read_parquet(tmp_path / "agreement.parquet")
        pairs = rows[["seed_a", "seed_b", "folder"]].drop_duplicates().values.tolist()
        assert sorted(pairs) == [[a, b, "a" if b < 3 else "b"] for a, b in combinations(range(4), 2)]

    @pytest.mark.parametrize("sealed", [True, False])
    def test_a_run_of_nothing_else_has_no_other_rows(self, tmp_path: Path, sealed: bool) -> None:
        folder = make_pairs(tmp_path / "a")
        write_results(folder / "results.csv", [])
        if sealed:
            write_status(folder, read_status(folder) | {"files": seal(folder)})
        found = collect(run_folders(tmp_path))
        assert (len(table(found)), len(table(found, AGREEMENT))) == (0, 12 if sealed else 0)
        assert list(found.unreadable) == ([] if sealed else ["a"])


class TestWhere:
    def test_several_roots(self, tmp_path: Path) -> None:
        for root in ("here", "there"):
            make_run(tmp_path / root / "same", cell="c", written="2026-01-01" if root == "here" else "2026-01-02")
        make_run(tmp_path / "there" / "own")
        (tmp_path / "empty").mkdir()
        done = run("outputs=here,there,empty,here", cwd=tmp_path)
        assert (done.code, done.err) == (0, "")
        assert done.out.splitlines() == [
            f"{Path('here/results.parquet')}, results.csv: 8 rows of 2 run folders",
            "no runs under empty",
            f"2 seeds are in several folders; {RULE}",
            "duplicate: cell c seed 0: kept there/same, not here/same; their numbers are equal",
            "duplicate: cell c seed 1: kept there/same, not here/same; their numbers are equal",
        ]
        assert set(read_table(tmp_path / "here" / "results.csv")["folder"]) == {"there/own", "there/same"}
        assert not (tmp_path / "there" / "results.csv").exists()

    def test_however_deep_but_not_in_a_run_or_a_hidden_folder(self, tmp_path: Path) -> None:
        make_run(tmp_path / "a")
        make_run(tmp_path / "a" / "checkpoints" / "no run of its own")
        make_run(tmp_path / "sweep" / "b")
        make_run(tmp_path / "sweep" / "more" / "of it" / "c")
        make_run(tmp_path / ".submitit" / "d")
        assert run_folders(tmp_path) == [tmp_path / name for name in ("a", "sweep/b", "sweep/more/of it/c")]
        assert list(collect(run_folders(tmp_path)).runs) == ["a", "sweep/b", "sweep/more/of it/c"]
        assert main([f"outputs={tmp_path / 'sweep'}"]) == 0  # leaves a results.csv there
        assert [path.name for path in run_folders(tmp_path)] == ["a", "b", "c"]

    def test_links_are_followed_and_may_lead_in_a_circle(self, tmp_path: Path) -> None:
        make_run(tmp_path / "elsewhere" / "a")
        (tmp_path / "outputs").mkdir()
        (tmp_path / "outputs" / "disk").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "outputs")
        assert run_folders(tmp_path / "outputs") == [tmp_path / "outputs" / "disk" / "a"]
        assert run_folders(tmp_path / "nowhere") == []

    def test_a_folder_that_cannot_be_looked_into_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_run(tmp_path / "a")
        make_run(tmp_path / "closed" / "b")
        look = os.scandir

        def refuse(path: str) -> Any:  # chmod keeps nothing from root, as whom tests may run
            if str(path).endswith("closed"):
                raise PermissionError(13, "Permission denied", path)
            return look(path)

        monkeypatch.setattr(os, "scandir", refuse)
        found = collect(run_folders(tmp_path))
        assert (list(found.runs), list(found.unreadable)) == (["a"], ["closed"])

    @pytest.mark.parametrize(
        "arguments", [["out=x"], ["outputs"], ["outputs="], ["outputs=a,,b"], ["outputs=a", "outputs=b"], ["--list"]]
    )
    def test_wrong_arguments_are_one_line(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(arguments) == 2
        error = capsys.readouterr().err
        form = "outputs=FOLDER or outputs=A,B,C"
        assert error == f"ivae_lab.aggregate: expected at most one argument, {form}, got {' '.join(arguments)}\n"

    def test_unknown_argument_of_the_command(self, tmp_path: Path) -> None:
        done = run("output=x", cwd=tmp_path)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert done.err.startswith("ivae_lab.aggregate: expected at most one argument, outputs=FOLDER")

    def test_no_runs_say_how_to_make_one(self, tmp_path: Path) -> None:
        done = run("outputs=none", cwd=tmp_path)
        assert (done.code, done.out) == (2, "")
        made_by = "`python -m ivae_lab.train model=ivae data=tcl outputs=none` makes one"
        assert done.err == f"ivae_lab.aggregate: expected runs under none, got none: {made_by}\n"
        assert list(tmp_path.iterdir()) == []

    def test_results_that_cannot_be_written_are_one_line(self, tmp_path: Path) -> None:
        make_run(tmp_path / "runs" / "a")
        done = run("outputs=missing,runs", cwd=tmp_path)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        expected = "ivae_lab.aggregate: expected to read the outputs and to write into the first, got: "
        assert done.err.startswith(expected)
        assert "'missing/" in done.err


class TestConfiguration:
    def test_flatten(self) -> None:
        nested = {"a": {"b": {"c": 1e-5}, "d": True, "e": [1, "x"]}, "f": None, "g": "text", "h": {}}
        expected = {"a.b.c": "1e-05", "a.d": "true", "a.e": '[1, "x"]', "f": None, "g": "text"}
        assert flatten(nested) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "a: 1\nb:\n- 1\n- 2\nc:\n  d: {e: 1.0e-05}\n  f: null\n",
            "# a comment\na: 1\n\n# another\nb: 2\n",
            "---\na: 1\nb: 2\n",
            "a: {b: 1, c: 1}\nd: 1\na: {b: 2}\n",  # the later holds, whole
            "a: &x {b: 1}\nc: *x\nd:\n  <<: *x\n  e: 1\n",
            'a: "one\nb: two"\nc: 1\n',
            "a: {b: 1,\nc: 2}\nd: 1\n",
            "a: |\n  b: 1\n\n  c: 2\nd: 1\n",
            "a: x\n  y\nb: 1\n",
            "? a\n: 1\nb: 2\n",
            "{a: 1, b: {c: 2}}",
            '"a": 1\n1: 2\n"1": 3\n',
        ],
    )
    def test_in_sections_as_as_a_whole(self, text: str) -> None:
        assert read_config(text) == flatten(yaml.safe_load(text))

    @pytest.mark.parametrize("text", ["a: 1\n---\nb: 1\n", "a: [\nb: 1\n", "a: *x\n", "a: 1\nb\n"])
    def test_what_is_wrong_as_a_whole_is_wrong(self, text: str) -> None:
        with pytest.raises(yaml.YAMLError):
            yaml.safe_load(text)
        with pytest.raises(yaml.YAMLError):
            read_config(text)


@pytest.mark.parametrize("terminal", [True, False])
def test_only_a_terminal_sees_progress(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(aggregate, "_PATIENCE", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    assert list(aggregate._tracked([ROOT] * 3)) == [ROOT] * 3
    assert ("reading run folders" in stream.getvalue()) == terminal
    assert terminal or stream.getvalue() == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "further", [(), pytest.param(("--distinct",), marks=pytest.mark.thorough("the benchmark's other configurations"))]
)
def test_the_benchmark_runs(further: tuple[str, ...], tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "scripts" / "many_runs.py"), "--runs", "12", "--seeds", "3", *further]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.rpartition(": ")[2] for line in lines[:2]] == ["360 rows of 12 run folders"] * 2
    assert [line.split()[0] for line in lines[2:]] == ["cold", "warm", CACHE]


def test_import_is_light() -> None:
    code = "import sys, ivae_lab.aggregate; print([m for m in sys.modules if m in sys.argv[1:]])"
    heavy = ("torch", "lightning", "sklearn", "seaborn", "matplotlib", "scipy.stats", "hydra")
    done = subprocess.run([sys.executable, "-c", code, *heavy], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_metrics_results_and_plots_do_not_import_torch() -> None:
    metrics = "ivae_lab.metrics.mcc, ivae_lab.metrics.elbo, ivae_lab.metrics.linear_r2"
    modules = f"{metrics}, ivae_lab.runs.results_csv, ivae_lab.plots.panels"
    code = f"import sys, {modules}; print('torch' in sys.modules, 'lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
