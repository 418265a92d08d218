"""`python -m ivae_lab.score`: known transforms, rows matched by ids, and every bad input by the real command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from ivae_lab.score import joined, main, matching, read, score

Array = NDArray[np.float64]
Z = np.random.default_rng(0).laplace(size=(2000, 3))  # not normal, so that ranks tell
SHEAR = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 2.0]])


def numbers(a: Array, b: Array, draws: int = 20, **choices: Any) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["coefficient"], row["scored"]): row for row in score(a, b, draws=draws, **choices)}


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "ivae_lab.score", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


class TestKnownTransforms:
    def test_permutation_sign_and_scale_are_one(self) -> None:
        other = Z[:, [2, 0, 1]] * [-3, 0.1, 50] + 7
        for row in score(Z, other, draws=20):
            if row["coefficient"] == "pearson" or row["alignment"] == "strong":
                assert row["value"] == pytest.approx(1)
                assert row["low"] == pytest.approx(1)
        pairs = [row for row in matching(other, Z) if row["coefficient"] == "pearson"]
        assert [row["column_a"] for row in pairs] == [1, 2, 0]
        assert np.allclose([row["correlation"] for row in pairs], [1, 1, -1])

    def test_an_affine_map_is_weak_one_and_strong_less(self) -> None:
        found = numbers(Z, Z @ SHEAR + 1)
        assert found["pearson", "in"]["value"] == pytest.approx(1)
        assert found["pearson", "out"]["value"] == pytest.approx(1)
        assert found["pearson", "all"]["value"] < 0.95

    def test_a_monotone_map_is_one_in_ranks_only(self) -> None:
        found = numbers(Z, np.exp(Z))
        assert found["spearman", "all"]["value"] == pytest.approx(1)
        assert found["pearson", "all"]["value"] < 0.9

    def test_independent_tables_are_at_the_floor(self) -> None:
        for row in score(Z, np.random.default_rng(1).normal(size=Z.shape), draws=0):
            assert row["value"] == pytest.approx(row["chance"], abs=0.04)
            assert np.isnan(row["low"])

    def test_the_interval_covers_a_known_correlation(self) -> None:
        covered = 0
        for seed in range(20):
            rng = np.random.default_rng(seed)
            a = rng.normal(size=(400, 1))
            row = numbers(a, 0.6 * a + 0.8 * rng.normal(size=a.shape), draws=100)["pearson", "all"]
            covered += row["low"] <= 0.6 <= row["high"]
        assert covered >= 16


class TestRows:
    def test_shuffled_rows_are_matched_by_their_ids(self, tmp_path: Path) -> None:
        order = np.random.default_rng(2).permutation(len(Z))
        paths = (
            save(tmp_path / "a.npz", mean=Z, index=np.arange(len(Z))),
            save(tmp_path / "b.npz", mean=Z[order][:-100], index=order[:-100]),
        )
        x, y, notes = joined(read(paths[0], None, None), read(paths[1], None, None), paths)
        assert np.array_equal(x, y)
        assert notes == ["1900 rows have ids in both; left out are 100 of A and 0 of B"]

    def test_a_run_gives_the_seed_and_split_that_are_asked_for(self, tmp_path: Path) -> None:
        split = np.where(np.arange(len(Z)) < 500, "test", "train")
        run = save(tmp_path / "latents.npz", mean=np.stack([Z, -Z]), seed=[4, 7], index=np.arange(len(Z)), split=split)
        assert np.array_equal(read(run, None, None).values, Z)
        assert np.array_equal(read(tmp_path, 7, "test").values, -Z[:500])

    @pytest.mark.parametrize("header", [True, False])
    def test_a_csv_may_have_a_header(self, tmp_path: Path, header: bool) -> None:
        pd.DataFrame(Z, columns=list("abc")).to_csv(tmp_path / "z.csv", index=False, header=header)
        assert np.allclose(read(tmp_path / "z.csv", None, None).values, Z)

    def test_what_cannot_be_used_is_said(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        broken = np.c_[Z, np.ones(len(Z))]
        broken[3, 0] = np.nan
        paths = save(tmp_path / "a.npz", mean=Z), save(tmp_path / "b.npz", mean=broken)
        assert main([*map(str, paths), "draws=5"]) == 0
        told = capsys.readouterr().out
        assert "note: left out 1 of 2000 rows" in told
        assert "note: constant in B: column 3" in told
        assert "note: 3 columns in A, 4 in B" in told


class TestCommand:
    def test_writes_what_it_shows(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.npz", mean=Z)
        done = command(path, path, "draws=5", f"csv={tmp_path / 'o.csv'}", f"matching={tmp_path / 'm.csv'}")
        assert done.returncode == 0, done.stderr
        table = pd.read_csv(tmp_path / "o.csv")
        assert list(table["scored"]) == ["all", "in", "out"] * 2
        assert np.allclose(table["value"], 1, atol=0.05)
        assert list(pd.read_csv(tmp_path / "m.csv")["column_a"]) == [0, 1, 2] * 2
        assert sorted(each.name for each in tmp_path.iterdir()) == ["a.npz", "m.csv", "o.csv"]

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["good.npz"], "expected two files"),
            (["good.npz", "good.npz", "sed=1"], "expected two files"),
            (["good.npz", "good.npz", "rank=1", "rank=2"], "expected two files"),
            (["good.npz", "absent.npz"], "expected latents in absent.npz"),
            (["good.npz", "text.npz"], "expected latents in text.npz"),
            (["good.npz", "pickled.npz"], "expected latents in pickled.npz"),
            (["good.npz", "other.npz"], "expected an array `mean` in other.npz, got z"),
            (["good.npz", "flat.npz"], "expected numbers (N, n) or (S, N, n)"),
            (["good.npz", "short.npz"], "expected as many rows, or ids in both, got 2000 and 50"),
            (["good.npz", "nan.npz"], "expected at least 4 rows to compare, got 0"),
            (["good.npz", "constant.npz"], "expected a column that varies"),
            (["ids.npz", "twice.npz"], "expected each row id once in twice.npz"),
            (["ids.npz", "apart.npz"], "expected at least 4 rows to compare, got 0"),
            (["run.npz", "good.npz", "seed=3"], "expected a seed of run.npz, one of [0, 1], got 3"),
            (["run.npz", "good.npz", "split=tset"], "expected a split of run.npz, one of ['train'], got tset"),
            (["good.npz", "good.npz", "rank=9"], "expected rank=1 to rank=3, got rank=9"),
            (["good.npz", "good.npz", "draws=x"], "expected draws= a whole number"),
            (["good.npz", "words.csv"], "expected numbers in words.csv"),
            (["good.npz", "good.npz", "draws=0", "csv=no/such/folder.csv"], "expected to write the results"),
        ],
    )
    def test_bad_input_is_one_line(
        self, tmp_path: Path, arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        ids = np.arange(len(Z))
        save(Path("good.npz"), mean=Z)
        save(Path("pickled.npz"), mean=np.array([{}, []], dtype=object))
        save(Path("other.npz"), z=Z)
        save(Path("flat.npz"), mean=Z[:, 0])
        save(Path("short.npz"), mean=Z[:50])
        save(Path("nan.npz"), mean=np.full_like(Z, np.nan))
        save(Path("constant.npz"), mean=np.ones_like(Z))
        save(Path("ids.npz"), mean=Z, index=ids)
        save(Path("twice.npz"), mean=Z, index=ids // 2)
        save(Path("apart.npz"), mean=Z, index=ids + len(Z))
        save(Path("run.npz"), mean=np.stack([Z, Z]), seed=[0, 1], split=np.full(len(Z), "train"))
        Path("text.npz").write_text("no archive")
        Path("words.csv").write_text("a,b\n1,x\n2,y\n")
        done = command(*arguments)
        assert done.returncode == 2
        assert told in done.stderr
        assert len(done.stderr.splitlines()) == 1
