"""From run folders to rows, summaries, pictures and records, on folders made by hand: nothing is trained here."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from ivae_lab.config.paths import CONFIG
from ivae_lab.plots.methods import PALETTE, method_of, name_of
from ivae_lab.plots.panels import boxes, colours, panels
from ivae_lab.plots.style import STYLE, Picture, save
from ivae_lab.reproduction import definition as experiment
from ivae_lab.reproduction import records, table_files
from ivae_lab.reproduction.cells import Cell, expand
from ivae_lab.reproduction.definition import Figure, Line, Scale, load, reported
from ivae_lab.reproduction.evidence import FigureEvidence, _lines, choose, gather
from ivae_lab.reproduction.found_runs import find
from ivae_lab.reproduction.join_records import join
from ivae_lab.reproduction.present import Presented, heading, present
from ivae_lab.reproduction.records import record, recorded
from ivae_lab.reproduction.summary import spread, summary
from ivae_lab.runs.results_csv import COLUMNS, write_results
from ivae_lab.runs.summaries import interval
from ivae_lab.terminal.text_tables import brief, latex, markdown, show

NAN = float("nan")
NAME = "made2020/fig"
SMALL = ["data.segments=4", "data.samples_per_segment=24"]
DEFINITION: dict[str, Any] = {
    "title": "Scores of a made-up paper, with a title that is long enough to need a second line above any picture",
    "where": "Figure 7",
    "claim": "iVAE is better.",
    "score": "mcc_mean",
    "columns": ["model.beta", "data.mean_range"],
    "seeds": {"quick": 2, "paper": 3},
    "cells": [
        {"variant": "paper", "overrides": ["model=ivae_paper", "data=tcl", *SMALL]},
        {"variant": "paper", "overrides": ["model=vae", "data=tcl", "data.seed=1,2", *SMALL], "label": "VAE | [plain]"},
        {"variant": "7", "overrides": ["model=ivae_paper", "data=tcl", *SMALL]},  # the same cell, in digits
    ],
    "tables": {"means": "means"},
    "draw": ["dots"],
    "claims": [{"claim": "better", "test": "above", "of": {"method": "ivae"}, "than": [{"method": "vae"}]}],
    "deviations": ["Nothing is trained."],
}
REPORTED = "claim,figure,where,statement,value,tolerance\nbetter,fig,Figure 7,iVAE is better,,\n"
FUNCTIONS = """
from matplotlib.figure import Figure

from ivae_lab.plots.style import Picture
from ivae_lab.plots.panels import boxes


def means(rows, paths):
    assert set(rows["run"]) <= set(paths)
    if set(rows["data_seed"]) != {1, 2}:
        raise KeyError("data seed 2")
    return rows.groupby(["variant", "label"], sort=False)[["mcc_mean", "elbo"]].mean().reset_index()


def dots(tables):
    figure = Figure(figsize=(3, 3))
    boxes(figure.subplots(), tables["rows"], "data_seed", "mcc_mean")
    return Picture("dots", figure, f"{len(tables['means'])} means.", "A dot per seed.")
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A made-up paper in an experiment tree of its own."""
    folder = tmp_path_factory.mktemp("experiments")
    (folder / "made2020").mkdir()
    for name, text in (
        ("fig.yaml", yaml.safe_dump(DEFINITION)),
        ("reported.csv", REPORTED),
        ("figures.py", FUNCTIONS),
    ):
        (folder / "made2020" / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "EXPERIMENTS", folder)
        patch.setattr(records, "EXPERIMENTS", folder)
        yield folder
    reported.cache_clear()
    experiment._functions.cache_clear()


@pytest.fixture(scope="module")
def figure(tree: Path) -> Figure:
    return load(NAME)


@pytest.fixture(scope="module")
def cells(figure: Figure) -> list[Cell]:
    return expand(figure, "quick")


def score_of(cell: Cell, seed: int) -> float:
    """A made-up MCC, another for each model, data seed and model seed."""
    level = 0.9 if "ivae_paper" in cell.overrides[0] else 0.3
    return float(level + 0.01 * seed + 0.1 * (cell.config["data"]["seed"] - 1) + 1 / 3e7)


def result(seed: int, data_seed: int, value: float, **more: Any) -> dict[str, Any]:
    state = "done" if np.isfinite(value) else "diverged"
    fixed = {"seed": seed, "data_seed": data_seed, "split": "train", "points": 96, "state": state}
    return dict.fromkeys(COLUMNS) | fixed | {"value": value} | more


def results_of(cell: Cell, seed: int, diverged: bool = False) -> list[dict[str, Any]]:
    data_seed, mcc = cell.config["data"]["seed"], NAN if diverged else score_of(cell, seed)
    strong = {"metric": "mcc", "coefficient": "pearson", "alignment": "strong", "scored": "all"}
    return [
        result(seed, data_seed, mcc, **strong, latents="mean", chance=0.1),
        result(seed, data_seed, mcc - 0.05, **strong, latents="sample", chance=0.1),
        result(seed, data_seed, mcc - 0.2, **strong | {"coefficient": "spearman"}, latents="mean", chance=0.1),
        result(seed, data_seed, -100 - seed if not diverged else NAN, metric="elbo"),
    ]


def make_run(outputs: Path, cell: Cell, seeds: Sequence[int], state: str = "done", **more: Any) -> Path:
    """A run folder that holds the cell, as the training leaves it."""
    folder = outputs / f"{cell.data}-{cell.model}-{cell.digest[:4]}{''.join(map(str, seeds))}{more.pop('suffix', '')}"
    folder.mkdir(parents=True)
    status = {"state": state, "error": None, "seeds": list(seeds), "cell": cell.digest, "seconds": 1.5, **more}
    (folder / "status.json").write_text(json.dumps({"commit": "123456789012", "written": "2026-01-01", **status}))
    if state in ("done", "diverged"):
        lost = seeds[-1:] if state == "diverged" else ()
        write_results(folder / "results.csv", [row for seed in seeds for row in results_of(cell, seed, seed in lost)])
        (folder / "latents.npz").touch()
    return folder


def all_runs(outputs: Path, cells: list[Cell]) -> list[Path]:
    return [make_run(outputs, cell, [0, 1]) for cell in {cell.digest: cell for cell in cells}.values()]


def evidence_of(
    figure: Figure, cells: list[Cell], outputs: Path, scale: Scale = "quick", *changed: str
) -> FigureEvidence:
    return gather(figure, cells, find(outputs), FigureEvidence(figure, scale, [*changed], "the command"))


@pytest.fixture(scope="module")
def whole(tree: Path, figure: Figure, cells: list[Cell], tmp_path_factory: pytest.TempPathFactory) -> FigureEvidence:
    """Evidence in which nothing is missing."""
    outputs = tmp_path_factory.mktemp("outputs")
    all_runs(outputs, cells)
    return evidence_of(figure, cells, outputs)


class TestJoin:
    """Rows that are kept stand in for folders that are gone; what is there anew replaces them."""

    @staticmethod
    def kept(whole: FigureEvidence) -> FigureEvidence:
        """What was recorded before, with other numbers."""
        tables = {
            name: table.assign(mcc_mean=table["mcc_mean"] + 0.05).astype({"mcc_mean": float})
            for name, table in whole.tables.items()
        }
        return replace(whole, tables=tables, runs={**whole.runs, "of another figure": {}})

    def test_new_rows_stand_and_kept_ones_fill_in(
        self, whole: FigureEvidence, figure: Figure, cells: list[Cell], tmp_path: Path
    ) -> None:
        for cell in cells[1:3]:  # the VAE's
            make_run(tmp_path, cell, [0, 1])
        evidence, kept = evidence_of(figure, cells, tmp_path), self.kept(whole)
        assert (evidence.done, len(evidence.tables["rows"])) == (4, 4)
        assert join(evidence, kept, cells) == 4
        assert (evidence.done, evidence.missing) == (8, [])
        rows, before = evidence.tables["rows"], whole.tables["rows"]
        assert rows.drop(columns="mcc_mean").astype(str).equals(before.drop(columns="mcc_mean").astype(str))
        ours = np.where(before["model"] == "vae", 0, 0.05)
        np.testing.assert_allclose(rows["mcc_mean"] - before["mcc_mean"], ours, atol=1e-9)
        assert set(evidence.runs) == set(whole.runs)
        means, theirs = (each.tables["means"].set_index(["variant", "label"])["mcc_mean"] for each in (evidence, whole))
        assert (means - theirs).to_dict() == pytest.approx(
            {("paper", "VAE | [plain]"): 0, ("paper", "iVAE"): 0.05, ("7", "iVAE"): 0.05}
        )

    def test_rows_of_the_same_sweep_in_another_figure_fill_in(
        self, whole: FigureEvidence, figure: Figure, cells: list[Cell], tmp_path: Path
    ) -> None:
        """Without its further columns, and without a table that it makes in another way."""
        for cell in cells[:2]:
            make_run(tmp_path, cell, [0, 1])
        evidence, kept = evidence_of(figure, cells, tmp_path), self.kept(whole)
        columns, made, done = list(evidence.tables["rows"].columns), dict(evidence.tables), evidence.done
        kept.tables["rows"]["trainer.lr"] = 0.1
        kept.figure = figure.model_copy(
            update={"name": "other", "columns": [*figure.columns, "trainer.lr"], "tables": {"means": "another"}}
        )
        assert join(evidence, kept, cells) == 8 - done > 0
        assert evidence.missing == []
        assert list(evidence.tables["rows"].columns) == columns
        assert evidence.tables.get("means") is made.get("means")

    def test_what_neither_has_stays_missing(
        self, whole: FigureEvidence, figure: Figure, cells: list[Cell], tmp_path: Path
    ) -> None:
        make_run(tmp_path, cells[0], [0, 1])
        evidence, kept = evidence_of(figure, cells, tmp_path), self.kept(whole)
        rows = kept.tables["rows"]
        kept.tables["rows"] = rows[(rows["data_seed"] == 1) | (rows["seed"] == 0)]
        assert join(evidence, kept, cells) == 3
        assert [(each["seeds"], each["overrides"][2]) for each in evidence.missing] == [([1], "data.seed=2")]

    @pytest.mark.parametrize(
        ("key", "value", "taken"),
        [
            ("steps", 7, 0),
            ("steps", 10000, 4),
            ("that_there_was_not", 1, 4),
            ("_target_", "ivae_lab.of_before.Training", 4),
            ("_target_", "ivae_lab.engine.Compute", 0),
        ],
    )
    def test_rows_of_another_recipe_are_not_taken(
        self, whole: FigureEvidence, figure: Figure, cells: list[Cell], tmp_path: Path, key: str, value: Any, taken: int
    ) -> None:
        """A key of the configuration that is no column of the figure, such as the number of steps."""
        for cell in cells[1:3]:
            make_run(tmp_path, cell, [0, 1])
        evidence, kept = evidence_of(figure, cells, tmp_path), self.kept(whole)
        kept = replace(kept, lines=json.loads(json.dumps(kept.lines)))
        for line in kept.lines:
            line["config"]["trainer"][key] = value
        assert join(evidence, kept, cells) == taken
        assert evidence.done == 4 + taken

    def test_a_table_of_seeds_is_joined_row_by_row_whatever_its_labels(
        self, whole: FigureEvidence, figure: Figure, cells: list[Cell], tmp_path: Path
    ) -> None:
        """Such as a floor that is no cell: its rows stay with the seeds that they are of."""
        make_run(tmp_path, cells[0], [0])
        make_run(tmp_path, cells[1], [0, 1])
        floor = {"variant": "paper", "label": "floor", "method": "pca"}

        def table(rows: pd.DataFrame) -> pd.DataFrame:
            return pd.concat([rows[["variant", "label", "data_seed", "seed", "mcc_mean"]], rows.assign(**floor)])

        evidence, kept = evidence_of(figure, cells, tmp_path), self.kept(whole)
        evidence.tables["means"] = table(evidence.tables["rows"])
        kept.tables["means"] = table(kept.tables["rows"])
        assert join(evidence, kept, cells) == 4
        joined = evidence.tables["means"]
        assert len(joined[joined["label"] != "floor"]) == 8
        paper = evidence.tables["rows"].query("variant == 'paper'")
        runs = {(each["data_seed"], each["seed"]) for each in paper[["data_seed", "seed"]].to_dict("records")}
        floors = joined[joined["label"] == "floor"]
        assert {(each["data_seed"], each["seed"]) for each in floors[["data_seed", "seed"]].to_dict("records")} == runs

    def test_a_mean_over_kept_and_new_seeds_is_a_problem(
        self, whole: FigureEvidence, figure: Figure, cells: list[Cell], tmp_path: Path
    ) -> None:
        for cell in cells[1:3]:
            make_run(tmp_path, cell, [0])
        evidence = evidence_of(figure, cells, tmp_path)
        assert join(evidence, self.kept(whole), cells) == 6
        assert evidence.problems == ["means.csv: of recorded runs only, without the new ones, for paper, VAE | [plain]"]

    def test_nothing_is_taken_where_all_is_there(self, whole: FigureEvidence, cells: list[Cell]) -> None:
        evidence = replace(whole, tables=dict(whole.tables))
        assert join(evidence, self.kept(whole), cells) == 0
        assert evidence.tables["rows"].equals(whole.tables["rows"])

    def test_rows_of_another_setting_are_not_taken(
        self, whole: FigureEvidence, figure: Figure, cells: list[Cell], tmp_path: Path
    ) -> None:
        make_run(tmp_path, cells[0], [0, 1])
        evidence, kept = evidence_of(figure, cells, tmp_path), self.kept(whole)
        kept.tables["rows"] = kept.tables["rows"].assign(**{"model.beta": 4.0})
        assert join(evidence, kept, cells) == 0
        assert evidence.done == 4

    def test_true_stays_true_beside_a_model_that_has_no_such_key(self, figure: Figure, tmp_path: Path) -> None:
        line = figure.cells[0]
        linear = line.model_copy(update={"overrides": ["model=pca", "data=tcl", *SMALL]})
        key = "model.encoder.sees_u"
        both = figure.model_copy(update={"columns": [key], "cells": [line, linear], "tables": {}})
        for cell, outputs in zip(expand(both, "quick"), (tmp_path / "before", tmp_path / "now"), strict=True):
            make_run(outputs, cell, [0, 1])
        kept, new = (evidence_of(both, expand(both, "quick"), tmp_path / name) for name in ("before", "now"))
        kept.tables["rows"] = table_files.as_kept(kept.tables["rows"])
        assert join(new, kept, expand(both, "quick")) == 2
        assert new.tables["rows"][key][:2].map(str).tolist() == ["True", "True"]
        assert new.tables["rows"][key][2:].isna().all()

    def test_records_without_a_column_are_left_alone(self, whole: FigureEvidence, cells: list[Cell]) -> None:
        kept = self.kept(whole)
        kept.tables["rows"] = kept.tables["rows"].drop(columns="model.beta")
        assert join(whole, kept, cells) == 0


class TestGather:
    def test_a_row_for_each_seed_says_what_it_is_and_where_from(self, whole: FigureEvidence, cells: list[Cell]) -> None:
        rows = whole.tables["rows"]
        assert (whole.total, whole.done, whole.missing, whole.problems) == (8, 8, [], [])
        assert rows["seed"].tolist() == [0, 1] * 4
        assert rows["data_seed"].tolist() == [1] * 4 + [2] * 2 + [1] * 2
        assert rows["variant"].tolist() == ["paper"] * 6 + ["7"] * 2
        assert rows["label"].tolist() == ["iVAE"] * 2 + ["VAE | [plain]"] * 4 + ["iVAE"] * 2
        expected = [score_of(cell, seed) for cell in cells for seed in (0, 1)]
        assert rows["mcc_mean"].tolist() == pytest.approx(expected, abs=1e-6)
        assert rows["mcc_sample"].tolist() == pytest.approx([each - 0.05 for each in expected], abs=1e-6)
        assert rows["elbo"].tolist() == [-100, -101] * 4
        assert rows[["mcc_weak", "linear_r2"]].isna().all(axis=None)
        assert (rows["model.beta"] == 1).all()
        assert rows["data.mean_range"].tolist() == ["[-3, 3]"] * 8
        assert set(rows["commit"]) == {"123456789012"}
        assert set(rows["run"]) == set(whole.runs)
        assert whole.seconds == 4.5

    def test_a_cell_of_two_variants_has_rows_in_both_and_one_run(self, whole: FigureEvidence) -> None:
        runs = whole.tables["rows"].groupby("variant")["run"].unique()
        assert set(runs["7"]) < set(runs["paper"])
        assert len(whole.runs) == 3

    def test_sweeps_are_there_with_their_first_configuration(self, whole: FigureEvidence, cells: list[Cell]) -> None:
        assert [(line["variant"], line["cells"]) for line in whole.lines] == [("paper", 1), ("paper", 2), ("7", 1)]
        assert whole.lines[1]["config"] == cells[1].config
        assert whole.lines[1]["first"] == list(cells[1].overrides)

    def test_each_model_and_data_set_of_a_sweep_has_an_entry_of_its_own(self, figure: Figure) -> None:
        both = Line(variant="paper", overrides=["model=ivae_paper,vae", "data=tcl,tcl_2d", "model.beta=1,2", *SMALL])
        lines = _lines(expand(figure.model_copy(update={"cells": [both]}), "quick"))
        assert [(line["label"], line["model"], line["data"], line["cells"]) for line in lines] == [
            ("iVAE", "ivae_paper", "tcl", 2),
            ("iVAE", "ivae_paper", "tcl_2d", 2),
            ("VAE", "vae", "tcl", 2),
            ("VAE", "vae", "tcl_2d", 2),
        ]
        assert [line["first"][:3] for line in lines] == [
            [f"model={line['model']}", f"data={line['data']}", "model.beta=1"] for line in lines
        ]
        assert lines[0]["config"]["model"] != lines[2]["config"]["model"]

    def test_what_is_missing_is_named_by_its_state_seeds_apart(
        self, figure: Figure, cells: list[Cell], tmp_path: Path
    ) -> None:
        ivae, vae, other, _ = cells
        failed = make_run(tmp_path, ivae, [1], "failed", error="ValueError: too big")
        running = make_run(tmp_path, vae, [0, 1], "running")
        make_run(tmp_path, other, [0])
        evidence = evidence_of(figure, cells, tmp_path)
        found = [(each["seeds"], each["state"], each["error"], each["folder"]) for each in evidence.missing]
        of_ivae = [([0], "not run", None, None), ([1], "failed", "ValueError: too big", failed.name)]
        rest = [([0, 1], "running", None, running.name), ([1], "not run", None, None)]
        assert found == [*of_ivae, *rest, *of_ivae]
        assert evidence.missing[0]["overrides"] == list(ivae.overrides)
        assert (evidence.done, evidence.total) == (1, 8)

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (lambda text: "", "No columns"),
            (lambda text: text[: len(text) // 2], "expected"),
            (lambda text: text[: text.rindex("elbo")], "expected"),
            (lambda text: text.splitlines()[0] + "\n", "expected as many rows for each seed"),
            (lambda text: text.replace("chance", "luck"), "luck"),
            (lambda text: text.replace("0.9", "high"), "could not convert"),
            (lambda text: text.replace("\n1,", "\n5,"), "expected rows of all seeds, got none of 1"),
            (lambda text: text + text.splitlines()[1] + "\n", "expected as many rows for each seed"),
        ],
        ids=["empty", "half", "cut row", "header", "column", "word", "other seed", "row twice"],
    )
    @pytest.mark.slow
    def test_a_damaged_run_is_missing_and_named_and_the_rest_goes_on(
        self, figure: Figure, cells: list[Cell], tmp_path: Path, damage: Callable[[str], str], said: str
    ) -> None:
        damaged, *_ = all_runs(tmp_path, cells)
        path = damaged / "results.csv"
        path.write_text(damage(path.read_text()))
        evidence = evidence_of(figure, cells, tmp_path)
        first, last = evidence.missing  # in two variants
        assert (first["state"], first["folder"], first["seeds"]) == ("unreadable", damaged.name, [0, 1])
        assert said in first["error"]
        assert "\n" not in first["error"]
        assert last["variant"] == "7"
        assert evidence.done == 4
        assert damaged.name not in evidence.runs
        assert set(evidence.tables["rows"]["method"]) == {"vae"}

    def test_a_finished_run_without_its_files_is_not_called_finished(
        self, figure: Figure, cells: list[Cell], tmp_path: Path
    ) -> None:
        damaged, *_ = all_runs(tmp_path, cells)
        (damaged / "latents.npz").unlink()
        first = evidence_of(figure, cells, tmp_path).missing[0]
        assert (first["state"], first["folder"]) == ("unreadable", damaged.name)
        assert "latents.npz" in first["error"]

    def test_cells_are_found_however_deep_under_the_outputs(
        self, figure: Figure, cells: list[Cell], tmp_path: Path
    ) -> None:
        folders = all_runs(tmp_path / "a sweep" / "of mine", cells)
        evidence = evidence_of(figure, cells, tmp_path)
        assert (evidence.done, evidence.missing) == (evidence.total, [])
        assert set(evidence.paths.values()) == set(folders)

    def test_a_folder_without_a_status_that_can_be_read_holds_nothing_and_is_named(
        self, figure: Figure, cells: list[Cell], tmp_path: Path
    ) -> None:
        folders = all_runs(tmp_path, cells)
        for folder, text in zip(folders, ("{", "[]", '{"state": "done"}'), strict=True):
            (folder / "status.json").write_text(text)
        said = find(tmp_path).unreadable
        assert "line 1" in said[folders[0]]
        assert "expected status.json to hold an object" in said[folders[1]]
        assert said[folders[2]] == "expected a cell and its seeds in status.json, got state: an older version's?"
        evidence = evidence_of(figure, cells, tmp_path)
        assert (evidence.done, {each["state"] for each in evidence.missing}) == (0, {"not run"})
        assert evidence.tables["rows"].empty

    def test_seeds_that_diverged_are_counted_as_done_and_named_if_they_are_the_figures(
        self, figure: Figure, cells: list[Cell], tmp_path: Path
    ) -> None:
        ours = make_run(tmp_path, cells[0], [0, 1], "diverged", error="not finite any more: seed 1 by step 9")
        others = make_run(tmp_path, cells[1], [0, 1, 77], "diverged", error="not finite any more: seed 77 by step 9")
        evidence = evidence_of(figure, cells, tmp_path)
        assert {name: run["diverged"] for name, run in evidence.runs.items()} == {ours.name: [1], others.name: []}
        rows = evidence.tables["rows"]
        assert rows[rows["state"] == "diverged"]["seed"].tolist() == [1, 1]
        assert rows.loc[rows["state"] == "diverged", "mcc_mean"].isna().all()

    def test_of_two_runs_of_a_cell_the_finished_and_then_the_newest_stands(
        self, figure: Figure, cells: list[Cell], tmp_path: Path
    ) -> None:
        make_run(tmp_path, cells[0], [0, 1], suffix="a", written="2026-01-03", state="diverged")
        newest = make_run(tmp_path, cells[0], [0, 1], suffix="b", written="2026-01-02")
        make_run(tmp_path, cells[0], [0, 1], suffix="c", written="2026-01-01")
        assert set(evidence_of(figure, cells, tmp_path).tables["rows"]["run"]) == {newest.name}


def settings(scores: dict[tuple[Any, ...], float], over: Sequence[str], by: str = "elbo", **fixed: Any) -> pd.DataFrame:
    """A row per setting: values of the keys `over` and a data seed -> the column `by`."""
    same = {"variant": "v", "label": "l", "model": "m", "seed": 0, "mcc_mean": 0.5, "elbo": 0.0, **fixed}
    rows = [
        same | dict(zip(over, key[:-1], strict=True)) | {"data_seed": key[-1], by: score}
        for key, score in scores.items()
    ]
    return pd.DataFrame(rows)


class TestChoose:
    @pytest.fixture
    def by_lr(self, figure: Figure) -> Figure:
        choice = experiment.SettingChoice(over="trainer.lr", by="elbo")
        return figure.model_copy(update={"choose": [choice], "columns": ["trainer.lr", "n"]})

    def test_the_best_is_kept_in_each_group_by_itself(self, by_lr: Figure) -> None:
        rows = settings({(0.1, 1): -5, (0.01, 1): -3, (0.1, 2): -2, (0.01, 2): -9}, ["trainer.lr"], n=2)
        rows = pd.concat([rows, rows.assign(n=3, elbo=-rows["elbo"]), rows.assign(label="k", elbo=-rows["elbo"])])
        kept = choose(by_lr, rows)[["label", "n", "data_seed", "trainer.lr"]]
        best, other = {1: 0.01, 2: 0.1}, {1: 0.1, 2: 0.01}
        expected = [*(("l", 2, seed, lr) for seed, lr in best.items()), *(("l", 3, s, lr) for s, lr in other.items())]
        expected += [("k", 2, seed, lr) for seed, lr in other.items()]
        assert sorted(kept.itertuples(index=False, name=None)) == sorted(expected)

    def test_it_goes_by_the_mean_over_seeds(self, by_lr: Figure) -> None:
        lucky = pd.concat([settings({(0.1, 1): -1}, ["trainer.lr"]), settings({(0.1, 1): -9}, ["trainer.lr"], seed=1)])
        steady = pd.concat([settings({(0.2, 1): -4}, ["trainer.lr"], seed=seed) for seed in (0, 1)])
        kept = choose(by_lr, pd.concat([lucky, steady]).assign(n=2))
        assert kept["trainer.lr"].tolist() == [0.2, 0.2]

    def test_a_setting_that_always_diverged_is_not_the_best(self, by_lr: Figure) -> None:
        kept = choose(by_lr, settings({(0.1, 1): NAN, (0.2, 1): -50}, ["trainer.lr"], n=2))
        assert kept["trainer.lr"].tolist() == [0.2]

    def test_where_nothing_is_known_one_is_kept(self, by_lr: Figure) -> None:
        rows = settings({(0.1, 1): NAN, (0.2, 1): NAN}, ["trainer.lr"], n=2)
        assert len(choose(by_lr, rows)) == 1
        assert choose(by_lr, pd.DataFrame()).empty

    def test_settings_are_chosen_one_after_the_other(self, figure: Figure) -> None:
        """First the rate by ELBO for each beta, then beta by the MCC of those: never a pair that is best in both."""
        steps = [experiment.SettingChoice(over="lr", by="elbo"), experiment.SettingChoice(over="beta", by="mcc_mean")]
        two = figure.model_copy(update={"choose": steps, "columns": ["lr", "beta"]})
        rows = settings({(0.1, 1, 1): -1, (0.2, 1, 1): -2, (0.1, 4, 1): -8, (0.2, 4, 1): -7}, ["lr", "beta"])
        rows["mcc_mean"] = [0.2, 0.9, 0.8, 0.3]
        assert choose(two, rows)[["lr", "beta"]].to_numpy().tolist() == [[0.2, 4]]


class TestSummary:
    def test_a_line_holds_what_numpy_says(self, figure: Figure) -> None:
        scores = np.array([[0.2, 0.4, 0.9], [0.5, 0.6, NAN]])
        elbo = [[-1.0, -3.0, -2.0], [-5.0, -4.0, NAN]]
        rows = settings({(d, s): scores[d, s] for d in range(2) for s in range(3)}, ["data_seed"], by="mcc_mean")
        rows["seed"], rows["data_seed"] = rows["data_seed"], [0] * 3 + [1] * 3
        rows = rows.assign(elbo=np.ravel(elbo), chance=0.1)
        (line,) = summary(figure, rows).to_dict("records")
        assert line["mean"] == line["median"] == pytest.approx((0.5 + 0.55) / 2)
        assert (line["low"], line["high"]) == interval([0.5, 0.55])
        assert line["by_elbo"] == pytest.approx((0.2 + 0.6) / 2)
        assert line["oracle"] == pytest.approx((0.9 + 0.6) / 2)
        assert (line["seeds"], line["data_seeds"], line["diverged"]) == (3, 2, 1)
        assert line["chance"] == pytest.approx(0.1)

    def test_lines_are_in_the_order_of_the_rows_and_nothing_is_nothing(
        self, figure: Figure, whole: FigureEvidence
    ) -> None:
        table = summary(figure, whole.tables["rows"])
        assert list(zip(table["variant"], table["label"], strict=True)) == [
            ("paper", "iVAE"),
            ("paper", "VAE | [plain]"),
            ("7", "iVAE"),
        ]
        assert summary(figure, pd.DataFrame()).empty

    def test_without_an_elbo_no_seed_is_chosen_by_it(self, figure: Figure) -> None:
        (line,) = summary(figure, settings({(1,): 0.5}, [], by="mcc_mean", elbo=NAN, chance=0.1)).to_dict("records")
        assert np.isnan(line["by_elbo"])
        assert line["oracle"] == 0.5

    def test_where_all_diverged_the_line_is_there_without_numbers(self, figure: Figure) -> None:
        (line,) = summary(figure, settings({(1,): NAN}, [], by="mcc_mean", elbo=NAN, chance=0.1)).to_dict("records")
        assert np.isnan([line["mean"], line["by_elbo"], line["oracle"], line["sd_model"]]).all()
        assert line["diverged"] == 1


def simulated(between: float, within: float, sizes: Sequence[int], seed: int = 0) -> pd.DataFrame:
    """Scores of a one-way random-effects model; `sizes`: model seeds of each data seed."""
    generator = np.random.default_rng(seed)
    parts = [
        pd.DataFrame({"data_seed": d, "score": between * generator.normal() + within * generator.normal(size=size)})
        for d, size in enumerate(sizes)
    ]
    return pd.concat(parts)


class TestSpread:
    @pytest.mark.parametrize("sizes", [[4] * 1000, [2, 3, 10] * 350], ids=["balanced", "unbalanced"])
    @pytest.mark.parametrize(("between", "within"), [(0.3, 0.1), (0.1, 0.3), (0.0, 0.3), (0.3, 0.0)])
    @pytest.mark.slow
    def test_it_finds_the_components_of_a_simulated_model(
        self, between: float, within: float, sizes: list[int]
    ) -> None:
        data, model = spread(simulated(between, within, sizes), "score")
        assert model == pytest.approx(within, rel=0.05)
        assert data**2 == pytest.approx(between**2, abs=0.1 * between**2 + 0.05 * within**2)

    def test_it_is_the_analysis_of_variance_where_groups_are_of_a_size(self) -> None:
        rows = simulated(0.2, 0.3, [5] * 12, seed=4)
        scores = rows["score"].to_numpy().reshape(12, 5)
        mean_square = 5 * scores.mean(1).var(ddof=1)
        data, model = spread(rows, "score")
        assert model**2 == pytest.approx(scores.var(1, ddof=1).mean())
        assert data**2 == pytest.approx(max(mean_square - model**2, 0) / 5)

    def test_one_data_seed_has_no_spread_between_and_diverged_seeds_have_no_part(self) -> None:
        rows = pd.DataFrame({"data_seed": 1, "score": [0.1, 0.3, NAN]})
        data, model = spread(rows, "score")
        assert np.isnan(data)
        assert model == pytest.approx(np.std([0.1, 0.3], ddof=1))

    def test_one_model_seed_each_leaves_all_spread_between(self) -> None:
        data, model = spread(pd.DataFrame({"data_seed": [1, 2, 3], "score": [0.1, 0.2, 0.6]}), "score")
        assert data == pytest.approx(np.std([0.1, 0.2, 0.6], ddof=1))
        assert np.isnan(model)


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".png", ".svg", ".pdf")}


@pytest.fixture(scope="module")
def shown(whole: FigureEvidence, tmp_path_factory: pytest.TempPathFactory) -> Presented:
    """All evidence, presented once."""
    return present(whole, tmp_path_factory.mktemp("figures") / "quick")


class TestPresent:
    @pytest.mark.slow
    def test_writes_every_file_that_it_says_and_no_other(self, shown: Presented) -> None:
        tables = {"rows.csv", "means.csv", "about.json", *(f"dots{kind}" for kind in (".png", ".svg", ".pdf"))}
        written = {f"{stem}{kind}" for stem in ("summary", "verdicts") for kind in (".csv", ".md", ".tex")}
        assert {path.name for path in shown.folder.iterdir()} == tables | written

    def test_about_holds_all_that_is_known(self, shown: Presented, whole: FigureEvidence) -> None:
        about = json.loads((shown.folder / "about.json").read_text())
        assert about == shown.about
        for name in ("title", "where", "claim", "deviations"):
            assert about[name] == DEFINITION[name]
        named = ("paper", "figure", "scale", "changed", "command", "total", "done", "seconds", "missing", "score")
        assert [about[name] for name in named] == [
            "made2020",
            "fig",
            "quick",
            [],
            "the command",
            8,
            8,
            4.5,
            [],
            "mcc_mean",
        ]
        assert about["pictures"] == [{"stem": "dots", "alt": "3 means.", "caption": "A dot per seed."}]
        assert (about["tables"], about["problems"]) == (["rows", "means"], [])
        assert about["runs"] == whole.runs
        assert about["lines"] == whole.lines
        assert [each["verdict"] for each in about["verdicts"]] == ["reproduced", "not run"]

    def test_pictures_are_what_their_names_say_and_vectors_in_pdf(self, shown: Presented) -> None:
        files = pictures(shown.folder)
        assert files["dots.png"].startswith(b"\x89PNG")
        assert files["dots.pdf"].startswith(b"%PDF")
        assert b"/Subtype /Image" not in files["dots.pdf"]
        assert b"<svg" in files["dots.svg"]
        assert PALETTE["ivae"].lower().encode() in files["dots.svg"]

    def test_tables_are_the_same_numbers_in_three_forms(self, shown: Presented) -> None:
        mean = f"{shown.summary['mean'][1]:.3f}"
        assert pd.read_csv(shown.folder / "summary.csv")["mean"].round(3).astype(str)[1] == mean.rstrip("0")
        assert f"| paper | VAE \\| [plain] | {mean} |" in (shown.folder / "summary.md").read_text()
        tex = (shown.folder / "summary.tex").read_text()
        assert all(rule in tex for rule in (r"\toprule", r"\midrule", r"\bottomrule", mean, r"sd\_model"))

    def test_the_same_evidence_gives_the_same_bytes(
        self, whole: FigureEvidence, shown: Presented, tmp_path: Path
    ) -> None:
        again = present(whole, tmp_path)
        files = {path.name: path.read_bytes() for path in again.folder.iterdir()}
        assert files == {path.name: path.read_bytes() for path in shown.folder.iterdir()}

    def test_what_is_recorded_gives_the_same_pictures_tables_and_verdicts(
        self, tree: Path, figure: Figure, whole: FigureEvidence, shown: Presented, tmp_path: Path
    ) -> None:
        assert recorded(figure) is None
        paths = record(whole)
        try:
            assert {str(path.relative_to(tree / "made2020")) for path in paths} == {
                "results/fig.csv",
                "results/fig.means.csv",
                "results/fig.json",
            }
            kept = recorded(figure)
            assert kept is not None
            again = present(kept, tmp_path)
        finally:
            for path in paths:
                path.unlink()
        assert {path.name: path.read_bytes() for path in again.folder.iterdir()} == {
            path.name: path.read_bytes() for path in shown.folder.iterdir()
        }
        assert again.judgements == shown.judgements
        pd.testing.assert_frame_equal(again.summary, shown.summary)
        pd.testing.assert_frame_equal(kept.tables["rows"], whole.tables["rows"])

    def test_recorded_tables_that_were_cut_or_edited_are_refused(
        self, tree: Path, figure: Figure, whole: FigureEvidence
    ) -> None:
        rows, *_, about = paths = record(whole)
        text, kept = rows.read_text(), json.loads(about.read_text())
        count = len(whole.tables["rows"])
        assert kept["files"]["fig.csv"]["rows"] == count
        try:
            rows.write_text("".join(text.splitlines(keepends=True)[:-1]))
            with pytest.raises(ValueError, match=f"fig.csv as it was recorded, with {count} rows, got {count - 1}"):
                recorded(figure)
            rows.write_text(text.replace("0.9", "0.8"))
            with pytest.raises(ValueError, match=f"with {count} rows, got another checksum"):
                recorded(figure)
            rows.unlink()
            with pytest.raises(FileNotFoundError):
                recorded(figure)
            rows.write_text(text)
            about.write_text(json.dumps({key: value for key, value in kept.items() if key != "files"}))
            with pytest.raises(KeyError, match="files"):
                recorded(figure)
        finally:
            for path in paths:
                path.unlink(missing_ok=True)

    def test_with_nothing_finished_the_claims_are_not_run_and_nothing_is_drawn(
        self, figure: Figure, cells: list[Cell], tmp_path: Path
    ) -> None:
        shown = present(evidence_of(figure, cells, tmp_path / "outputs"), tmp_path / "figure")
        assert [each.verdict for each in shown.judgements] == ["not run"]
        assert pictures(shown.folder) == {}
        assert "not run" in (shown.folder / "verdicts.md").read_text()

    def test_a_table_or_picture_that_what_exists_is_too_little_for_is_named(
        self, figure: Figure, cells: list[Cell], tmp_path: Path
    ) -> None:
        make_run(tmp_path, cells[0], [0, 1])
        evidence = evidence_of(figure, cells, tmp_path)
        shown = present(evidence, tmp_path / "figure")
        table, picture = shown.about["problems"]
        assert table == "means.csv: not made of 4 of 8 runs (KeyError: 'data seed 2')"
        assert picture == "picture dots: not made of 4 of 8 runs (KeyError: 'means')"
        assert pictures(shown.folder) == {}
        assert len(shown.summary) == 2

    def test_with_all_runs_there_a_mistake_of_the_function_is_raised(
        self, whole: FigureEvidence, tmp_path: Path
    ) -> None:
        with pytest.raises(KeyError, match="means"):
            present(replace(whole, tables={"rows": whole.tables["rows"]}), tmp_path)


class TestHeading:
    def test_it_says_what_scale_what_was_changed_and_how_many_of_how_many(
        self, figure: Figure, cells: list[Cell], tmp_path: Path
    ) -> None:
        make_run(tmp_path, cells[0], [0])
        named, said = heading(evidence_of(figure, cells, tmp_path, "quick", "trainer.lr=1"))
        assert named == f"{NAME}, Figure 7: {DEFINITION['title']}"
        assert said == "QUICK scale, not the paper's sizes; changed: trainer.lr=1; 2 of 8 runs"
        assert heading(evidence_of(figure, cells, tmp_path, "paper"))[1] == "2 of 8 runs"
        make_run(tmp_path, cells[1], [0, 1], "diverged")
        assert heading(evidence_of(figure, cells, tmp_path, "paper"))[1] == "4 of 8 runs, 1 diverged"

    def test_it_stands_over_the_picture(self, shown: Presented) -> None:
        drawn = pictures(shown.folder)["dots.svg"].decode()
        assert "QUICK scale" in drawn
        assert "8 of 8 runs" in drawn
        assert DEFINITION["title"] not in drawn  # as it is broken into lines

    def test_its_lines_are_no_wider_than_the_picture(
        self, whole: FigureEvidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn: list[Any] = []

        def keep(figure: Any, path: Path, suffixes: Sequence[str]) -> None:
            drawn.append(figure)
            save(figure, path, suffixes)

        monkeypatch.setattr("ivae_lab.reproduction.present.save", keep)
        present(replace(whole, changed=["data.samples_per_segment=100", "model.encoder.hidden=64"]), tmp_path)
        (figure,) = drawn
        extent = figure._suptitle.get_window_extent()
        assert len(figure._suptitle.get_text().splitlines()) > 4
        assert extent.x0 >= 0
        assert extent.x1 <= figure.bbox.width


class TestTables:
    def test_markdown_keeps_cells_on_their_line(self) -> None:
        table = pd.DataFrame({"a|b": ["x|y\nz", None], "n": [0.12345, NAN]})
        assert markdown(table) == "| a\\|b | n |\n| --- | --- |\n| x\\|y z | 0.123 |\n| - | - |\n"

    def test_latex_is_escaped_and_in_letters_that_every_latex_has(self) -> None:
        said = latex(pd.DataFrame({"label_1": ["β-VAE & 5%"], "n": [3]}))
        assert r"$\beta$-VAE \& 5\%" in said
        assert r"label\_1" in said
        assert said.isascii()

    def test_words_in_brackets_are_shown_and_not_taken_for_styles(self) -> None:
        from rich.console import Console

        console = Console(width=100)
        with console.capture() as captured:
            console.print(show(pd.DataFrame({"[red]x": ["VAE [plain]", "[/b]"]}), "of [bold]"))
        assert all(said in captured.get() for said in ("[red]x", "VAE [plain]", "[/b]", "of [bold]"))

    def test_brief_has_intervals_and_data_seeds_only_where_there_are_several(self, whole: FigureEvidence) -> None:
        table = brief(summary(whole.figure, whole.tables["rows"]))
        assert table["seeds"].tolist() == ["1 x 2", "2 x 2", "1 x 2"]
        assert "sd data" in table
        assert table["mean [95%]"][1] == "0.355 [0.305, 0.405]"
        ivae = whole.tables["rows"].query("method == 'ivae'")
        table = brief(summary(whole.figure, ivae))
        assert table["seeds"].tolist() == ["2", "2"]
        assert "sd data" not in table


class TestColours:
    def test_every_model_belongs_to_a_method_with_a_colour(self) -> None:
        models = [path.stem for path in (CONFIG / "model").glob("*.yaml")]
        assert len(models) > 10
        assert {method_of(model) for model in models} <= set(PALETTE)
        assert name_of("beta_tcvae_released") == "β-TC-VAE"

    def test_methods_differ(self) -> None:
        distinct = set(PALETTE) - {"gin"}  # GIN is a flow
        assert len({PALETTE[method] for method in distinct}) == len(distinct)

    def test_a_method_has_its_colour_and_a_second_label_of_it_a_paler_one(self) -> None:
        rows = pd.DataFrame({"label": ["iVAE", "VAE", "iVAE", "iVAE*"], "method": ["ivae", "vae", "ivae", "ivae"]})
        chosen = colours(rows)
        assert {label: chosen[label].upper() for label in ("iVAE", "VAE")} == {
            "iVAE": PALETTE["ivae"].upper(),
            "VAE": PALETTE["vae"].upper(),
        }
        assert len(set(chosen.values())) == 3

    def test_boxes_have_a_point_for_each_seed_and_the_chance_floor(self) -> None:
        _, axes = panels(["one"], 3, 3)
        rows = pd.DataFrame(
            [
                {"label": label, "method": method, "n": n, "mcc_mean": 0.1 * seed, "chance": 0.2}
                for (label, method), n, seed in itertools.product([("iVAE", "ivae"), ("VAE", "vae")], [2, 5], range(4))
            ]
        )
        boxes(axes["one"], rows, "n", "mcc_mean")
        points = sum(np.asarray(each.get_offsets()).shape[0] for each in axes["one"].collections)
        assert points == len(rows)
        floors = [line for line in axes["one"].lines if line.get_linestyle() == ":"]
        assert [list(np.asarray(line.get_ydata())) for line in floors] == [[0.2, 0.2]] * 2
        assert axes["one"].get_ylim() == (0, 1)


@pytest.mark.parametrize("count", [1, 4, 5])
def test_panels_are_as_many_as_names(count: int) -> None:
    figure, axes = panels(map(str, range(count)), 2, 2)
    assert list(axes) == [str(number) for number in range(count)]
    assert len(figure.axes) == count


def test_a_saved_picture_has_no_date(tmp_path: Path) -> None:
    from matplotlib import rc_context

    saved = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        with rc_context(STYLE):
            figure, axes = panels(["one"], 3, 3)
            axes["one"].plot([0, 1], [0, 1])
            picture = Picture("p", figure, "alt", "caption")
            save(picture.figure, folder / picture.stem, (".png", ".svg", ".pdf"))
        saved.append(pictures(folder))
    assert saved[0] == saved[1]
