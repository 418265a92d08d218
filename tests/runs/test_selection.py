"""The choice by held-out ELBO: the rule on made-up numbers, and the command on runs made by hand."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from ivae_lab.choose import main
from ivae_lab.runs.agreement_csv import COLUMNS as PAIR_COLUMNS
from ivae_lab.runs.agreement_csv import write_pairs
from ivae_lab.runs.results_csv import COLUMNS, write_results
from ivae_lab.runs.selection import choose
from ivae_lab.tabular.preprocessing import Preprocessing
from ivae_lab.terminal.command_line import BadInputError

KEY = "model.latent_dim"
# ELBO of data seeds 1 and 2 at each number of latents: standard errors are half their difference.
ELBOS = {1: (-9.0, -8.0), 2: (-6.2, -5.4), 3: (-6.0, -5.0), 4: (-7.0, -5.5)}


def results(elbos: Mapping[int, tuple[float, ...]] = ELBOS, split: str = "valid", volume: float = 0.0) -> pd.DataFrame:
    rows = [
        {"folder": f"run-{n}-{data}", "seed": seed, "data_seed": data, KEY: str(n), "metric": "elbo", "split": split}
        | {"value": value + 0.1 * seed, "volume": volume}
        for n, values in elbos.items()
        for data, value in enumerate(values, 1)
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows)


def pairs(split: str = "valid") -> pd.DataFrame:
    strong = {"latents": "mean", "coefficient": "pearson", "alignment": "strong", "split": split}
    return pd.DataFrame([{**strong, KEY: str(n), "value": 1 / n} for n in ELBOS])


class TestRule:
    def test_the_smallest_within_a_standard_error_of_the_best_is_chosen(self) -> None:
        choice = choose(results(), pairs(), KEY)
        assert (choice.best, choice.value, choice.split) == (3, 2, "valid")
        row = choice.summary.set_index(KEY).loc[3]
        assert row["elbo"] == pytest.approx(-5.4)  # of seed 1 of both
        assert row["restarts"] == pytest.approx(-5.45)
        assert row["se"] == pytest.approx(0.5)  # of -5.9 and -4.9
        assert row["over"] == "2 data seeds"
        assert row["agreement"] == pytest.approx(1 / 3)
        assert choice.restart == ("run-2-2", 1)

    def test_a_smaller_error_chooses_the_best_itself(self) -> None:
        narrow = {1: (-9.0, -9.0), 2: (-6.0, -6.0), 3: (-5.5, -5.4)}
        assert choose(results(narrow), pairs(), KEY).value == 3

    def test_with_one_data_seed_the_error_is_over_model_seeds(self) -> None:
        summary = choose(results({1: (-9.0,), 2: (-6.0,)}), pairs(), KEY).summary
        assert summary["over"].tolist() == ["2 model seeds"] * 2
        np.testing.assert_allclose(summary["se"], 0.05)

    def test_a_restart_in_a_poor_optimum_does_not_count_against_its_value(self) -> None:
        rows = results({1: (-9.0, -8.0), 2: (-6.0, -5.9)})
        rows.loc[(rows[KEY] == "2") & (rows["seed"] == 0), "value"] = -50.0
        choice = choose(rows, pairs(), KEY)
        assert choice.value == 2
        assert choice.summary["restarts"].iloc[-1] < -25

    def test_what_preprocessing_did_to_densities_is_undone(self) -> None:
        rows = results()
        rows.loc[rows[KEY] == "1", "volume"] = 5.0
        assert choose(rows, pairs(), KEY).best == 1

    def test_test_rows_stand_in_where_there_are_no_validation_rows(self) -> None:
        assert choose(results(split="test"), pairs("test"), KEY).split == "test"

    def test_a_seed_that_diverged_is_counted_and_left_out(self) -> None:
        rows = results()
        rows.loc[(rows["folder"] == "run-3-2") & (rows["seed"] == 1), "value"] = np.nan
        row = choose(rows, pairs(), KEY).summary.set_index(KEY).loc[3]
        assert (row["seeds"], row["diverged"]) == (4, 1)
        assert row["elbo"] == pytest.approx((-5.9 - 5.0) / 2)

    @pytest.mark.parametrize(
        ("rows", "expected"),
        [
            (results(split="train"), "expected ELBOs of validation or test rows"),
            (results({1: (-9.0,)}), "expected at least two values of model.latent_dim with a finite ELBO, got 1"),
            (results().assign(**{KEY: "auto"}), "expected numbers as model.latent_dim, got auto"),
        ],
    )
    def test_what_is_no_choice_is_refused(self, rows: pd.DataFrame, expected: str) -> None:
        with pytest.raises(BadInputError, match=expected):
            choose(rows, pairs(), KEY)


def make_run(outputs: Path, latents: int, data_seed: int = 1, scale: float = 1.0, **more: Any) -> None:
    """A run folder of two seeds whose whitened x are `scale` times as large."""
    folder = outputs / f"own-{latents}-{data_seed}-{'-'.join(map(str, more.values()))}"
    folder.mkdir(parents=True)
    config = {
        "seed": [0, 1],
        "data": {"seed": data_seed},
        "model": {"latent_dim": latents},
        "trainer": {"lr": 0.1, **more},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "status.json").write_text(
        json.dumps({"state": "done", "error": None, "seeds": [0, 1], "cell": folder.name})
    )
    (folder / "recipe.json").write_text(Preprocessing(shift=[0.0], scale=[[scale]]).to_json())
    fixed = {"data_seed": data_seed, "split": "valid", "state": "done"}
    elbo = -10 / latents - np.log(scale) + 0.01 * data_seed
    rows = [dict.fromkeys(COLUMNS) | {**fixed, "seed": seed, "metric": "elbo", "value": elbo} for seed in (0, 1)]
    write_results(folder / "results.csv", rows)
    strong = {"seed_a": 0, "seed_b": 1, "latents": "mean", "coefficient": "pearson", "alignment": "strong"}
    row = dict.fromkeys(PAIR_COLUMNS) | fixed | strong | {"value": 0.9, "scored": "all", "points": 10}
    write_pairs(folder / "agreement.csv", [{name: row[name] for name in PAIR_COLUMNS}])


class TestCommand:
    def test_it_says_and_draws_the_choice(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for latents in (1, 2, 3):
            for data_seed in (1, 2):
                make_run(tmp_path, latents, data_seed, scale=float(latents))
        assert main([f"outputs={tmp_path}"]) == 0
        said = capsys.readouterr().out
        assert "chosen: model.latent_dim=3" in said
        table = pd.read_csv(io.StringIO((tmp_path / "choice.csv").read_text()))
        np.testing.assert_allclose(table["elbo"], [-9.985, -4.985, -3.31833333])
        np.testing.assert_allclose(table["agreement"], 0.9)
        assert {"choice.png", "choice.pdf"} <= {path.name for path in tmp_path.iterdir()}

    def test_other_differences_are_to_be_settled(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for latents in (1, 2):
            for steps in (10, 20):
                make_run(tmp_path, latents, steps=steps)
        assert main([f"outputs={tmp_path}"]) == 2
        assert "differ in model.latent_dim and seeds only, got trainer.steps too" in capsys.readouterr().err
        assert main([f"outputs={tmp_path}", "trainer.steps=20", f"out={tmp_path}/own"]) == 0
        assert (tmp_path / "own.csv").exists()

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["trainer.step=1"], "trainer.step: expected key="),
            (["key=model.latent"], "did you mean model.latent_dim"),
            (["trainer.lr=7"], "expected finished runs with trainer.lr=7, got none"),
            (["key"], "expected KEY=VALUE, got key"),
            (["key=a", "key=b"], "expected each key once"),
        ],
    )
    def test_what_is_wrong_is_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
    ) -> None:
        make_run(tmp_path, 1)
        assert main([f"outputs={tmp_path}", *arguments]) == 2
        said = capsys.readouterr().err
        assert expected in said
        assert said.count("\n") == 1

    def test_no_runs(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([f"outputs={tmp_path}/none"]) == 2
        assert "expected runs under" in capsys.readouterr().err
