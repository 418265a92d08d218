"""`python -m ivae_lab.score`: known transforms, intervals, rows matched by ids, every bad input by the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from ivae_lab.core.arrays import Floats, Integers
from ivae_lab.metrics.agreement import Agreement
from ivae_lab.runs.compare import LatentTable, matched, read, score
from ivae_lab.score import main
from ivae_lab.terminal.command_line import BadInputError
from tests.running import Outcome, command

Array = NDArray[np.float64]
ROWS = 2000
Z = np.random.default_rng(0).laplace(size=(ROWS, 3))  # not normal, so that ranks tell
SHEAR = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 2.0]])
IDS = np.arange(ROWS)


def scored(a: Array, b: Array, draws: int = 20) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["coefficient"], row["scored"]): row for row in score(a, b, draws)}


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def run(*arguments: object, cwd: Path) -> Outcome:
    return command(*map(str, arguments), cwd=cwd, module="ivae_lab.score")


class TestKnownTransforms:
    def test_permutation_sign_and_scale_are_one(self) -> None:
        for row in score(Z, Z[:, [2, 0, 1]] * [-3, 0.1, 50] + 7, draws=20):
            if row["coefficient"] == "pearson" or row["alignment"] == "strong":
                assert (row["value"], row["low"], row["high"]) == pytest.approx((1, 1, 1))

    def test_an_affine_map_is_weak_one_and_strong_less(self) -> None:
        found = scored(Z, Z @ SHEAR + 1)
        assert found["pearson", "in"]["value"] == pytest.approx(1)
        assert found["pearson", "out"]["value"] == pytest.approx(1)
        assert found["pearson", "all"]["value"] < 0.95

    def test_a_monotone_map_is_one_in_ranks_only(self) -> None:
        found = scored(Z, np.exp(Z))
        assert found["spearman", "all"]["value"] == pytest.approx(1)
        assert found["pearson", "all"]["value"] < 0.9

    def test_independent_tables_are_at_the_floor(self) -> None:
        for row in score(Z, np.random.default_rng(1).normal(size=Z.shape), draws=2):
            assert row["value"] == pytest.approx(row["chance"], abs=0.04)

    def test_of_more_than_twenty_columns_rank_20_is_scored_too(self) -> None:
        wide = np.random.default_rng(2).normal(size=(300, 25))
        rows = score(wide, wide, draws=2)
        assert [row["rank"] for row in rows] == [None, 20, 20, 25, 25] * 2
        assert [row["points"] for row in rows] == [300, 150, 150, 150, 150] * 2


class TestIntervals:
    @pytest.mark.slow
    def test_they_cover_a_known_correlation(self) -> None:
        covered = 0
        for seed in range(20):
            rng = np.random.default_rng(seed)
            a = rng.normal(size=(200, 1))
            row = scored(a, 0.6 * a + 0.8 * rng.normal(size=a.shape), draws=50)["pearson", "all"]
            covered += row["low"] <= 0.6 <= row["high"]
        assert covered >= 16

    @pytest.mark.slow
    def test_their_width_is_that_of_fishers_interval(self) -> None:
        rng = np.random.default_rng(0)
        a = rng.normal(size=(1000, 1))
        row = scored(a, 0.6 * a + 0.8 * rng.normal(size=a.shape), draws=300)["pearson", "all"]
        expected = np.tanh(np.arctanh(row["value"]) + np.array([-1.96, 1.96]) / np.sqrt(997))
        assert (row["low"], row["high"]) == pytest.approx(tuple(expected), abs=0.01)

    def test_no_row_is_fitted_and_held_out_at_once(self) -> None:
        seen = []

        class Watched(Agreement):
            def _resampled(self, a: Floats, b: Floats, fitted: Integers, held_out: Integers) -> Any:
                seen.append((set(fitted.tolist()), set(held_out.tolist()), len(fitted), len(held_out)))
                return super()._resampled(a, b, fitted, held_out)

        Watched(["mean"], ["pearson"], [None], 1, half_seed=0, chance_seed=0).intervals_over_rows(Z, Z, draws=3)
        assert len(seen) >= 3
        for fitted, held_out, *sizes in seen:
            assert fitted.isdisjoint(held_out)
            assert sizes == [ROWS // 2, ROWS // 2]
            assert len(fitted) < ROWS // 2  # drawn with replacement

    def test_repeated_draws_are_the_same(self) -> None:
        assert score(Z, Z @ SHEAR, draws=5) == score(Z, Z @ SHEAR, draws=5)

    def test_they_have_what_the_rows_of_pairs_have(self) -> None:
        metric = Agreement(["mean"], ["spearman", "pearson"], [2, None], 1, half_seed=0, chance_seed=0)
        variants = [("strong", None, "all"), *(("weak", rank, part) for rank in (2, 3) for part in ("in", "out"))]
        intervals = metric.intervals_over_rows(Z, Z @ SHEAR, draws=2)
        assert [*intervals] == [(name, variant) for name in ("spearman", "pearson") for variant in variants]


class TestRows:
    def test_they_are_matched_by_their_ids(self, tmp_path: Path) -> None:
        order = np.random.default_rng(2).permutation(ROWS)
        a = save(tmp_path / "a.npz", mean=Z, index=IDS)
        b = save(tmp_path / "b.npz", mean=Z[order][:-100], index=order[:-100])
        x, y, how = matched(read(a), read(b))
        assert np.array_equal(x, y)
        assert how == "matched by id: 1900, of 2000 in A and 1900 in B"

    def test_without_ids_by_their_order(self) -> None:
        x, y, how = matched(LatentTable(Path("a"), Z), LatentTable(Path("b"), -Z))
        assert np.array_equal(x, -y)
        assert how == "matched by order, as there are no ids: 2000"

    def test_ids_may_be_words(self, tmp_path: Path) -> None:
        words = np.char.add("row ", IDS.astype(str))
        pd.DataFrame(Z).assign(index=words).iloc[::-1].to_csv(tmp_path / "b.csv", index=False)
        x, y, _ = matched(read(save(tmp_path / "a.npz", mean=Z, index=words)), read(tmp_path / "b.csv"))
        assert np.allclose(x, y)


class TestFiles:
    def test_a_run_gives_its_test_rows_of_the_named_seed(self, tmp_path: Path) -> None:
        split = np.where(IDS < 500, "train", "test")  # as a run writes them
        save(tmp_path / "latents.npz", mean=np.stack([Z, -Z]), seed=[4, 7], index=IDS, split=split)
        found = read(tmp_path, 7)
        assert np.array_equal(found.values, -Z[500:])
        assert found.ids is not None
        assert np.array_equal(found.ids, IDS[500:])
        assert found.name == f"{tmp_path}, seed 7, test rows"
        assert np.array_equal(read(tmp_path / "latents.npz", 4, "train").values, Z[:500])

    def test_one_seed_need_not_be_named_nor_test_rows_be_there(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.npz", mean=Z[None], seed=[4], split=np.full(ROWS, "train"))
        assert np.array_equal(read(path).values, Z)

    @pytest.mark.parametrize(
        ("columns", "options", "has_ids"),
        [
            (["a", "b", "c"], {"index": False}, False),
            (["a", "b", "c"], {}, True),
            ([0, 1, 2], {}, True),
            ([0, 1, 2], {"index": False}, False),
            ([0, 1, 2], {"index": False, "header": False}, False),
            (["a", "index", "c"], {"index": False}, True),
        ],
    )
    def test_a_csv_as_pandas_writes_it(
        self, tmp_path: Path, columns: list[Any], options: dict[str, Any], has_ids: bool
    ) -> None:
        table = pd.DataFrame(Z, columns=columns)
        table.to_csv(tmp_path / "z.csv", **options)
        found = read(tmp_path / "z.csv")
        assert np.allclose(found.values, Z[:, [0, 2]] if "index" in columns else Z)
        assert (found.ids is not None) == has_ids
        assert len(found.values) == ROWS

    def test_a_first_row_with_a_gap_is_no_header(self, tmp_path: Path) -> None:
        (tmp_path / "z.csv").write_text("nan,1.5\n2.5,3.5\n,4.5\n5.5,6.5\n")
        assert read(tmp_path / "z.csv").values.shape == (4, 2)


class TestCommand:
    def test_says_all_that_a_number_needs_and_writes_it(self, tmp_path: Path) -> None:
        split = np.where(IDS < 500, "test", "train")
        save(tmp_path / "a.npz", mean=np.stack([Z, Z @ SHEAR]), seed=[0, 1], index=IDS, split=split)
        done = run("a.npz", "a.npz", "seed=0,1", "draws=5", "csv=o.csv", cwd=tmp_path)
        assert done.code == 0, done.err
        for said in ("A: a.npz, seed 0, test rows", "B: a.npz, seed 1, test rows", "matched by id: 500, of 500 in A"):
            assert said in done.out
        for said in ("spearman", "strong", "weak, rank 3", "250 fitted", "250 others", "over rows", "chance"):
            assert said in done.out
        table = pd.read_csv(tmp_path / "o.csv")
        assert [*table["scored"]] == ["all", "in", "out"] * 2
        assert [*table["points"]] == [500, 250, 250] * 2
        assert table.loc[table["scored"] == "out", "value"].iloc[0] == pytest.approx(1)
        assert (table["low"] <= table["high"]).all()

    def test_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--help"]) == 0
        assert "ivae-lab score A B" in capsys.readouterr().out

    @pytest.mark.parametrize("arguments", [["good.npz", "nan.npz"], ["good.npz", "absent.npz"], []])
    @pytest.mark.slow
    def test_bad_input_is_one_line_and_exit_code_2(self, files: Path, arguments: list[str]) -> None:
        done = run(*arguments, cwd=files)
        assert done.code == 2
        assert len(done.err.splitlines()) == 1
        assert done.err.startswith("ivae_lab.score: expected ")
        assert done.out == ""

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            ("good.npz", "expected two files"),
            ("good.npz good.npz sed=1", "expected two files"),
            ("good.npz good.npz draws=1 draws=2", "expected two files"),
            ("good.npz good.npz csv=", "expected two files"),
            ("good.npz absent.npz", "expected latents in absent.npz, got: "),
            ("good.npz .", "expected latents in ., got: "),
            ("good.npz text.npz", "expected latents in text.npz, got: "),
            ("good.npz torn.npz", "expected latents in torn.npz, got: "),
            ("good.npz pickled.npz", "expected latents in pickled.npz, got: Object arrays cannot be loaded"),
            ("good.npz array.npz", "expected latents in array.npz, got: "),
            ("good.npz good.npy", "expected a run folder, an .npz or a .csv, got good.npy"),
            ("good.npz other.npz", "expected an array `mean` in other.npz, got z"),
            ("good.npz flat.npz", "expected numbers (N, n) or (S, N, n) in flat.npz, got float64 (2000,)"),
            ("good.npz words.npz", "expected numbers (N, n) or (S, N, n) in words.npz, got <U1"),
            ("good.npz words.csv", "expected numbers in words.csv, got text in column b"),
            ("good.npz empty.csv", "expected latents in empty.csv, got: "),
            ("good.npz bare.npz", "expected at least one column in bare.npz, got none"),
            ("good.npz short.npz", "expected as many rows, or row ids (`index`), got 2000 and 50 rows"),
            ("good.npz ids.npz", "expected row ids (`index`) in both files or none, got some in ids.npz only"),
            ("ids.npz twice.npz", "expected each row id once in twice.npz"),
            ("ids.npz fewer.npz", "expected an id for each of 2000 rows in fewer.npz, got shape (3,)"),
            ("ids.npz apart.npz", "expected at least 4 rows that both files have, got 0"),
            ("good.npz nan.npz", "expected finite numbers in nan.npz, got NaN or infinity in 1 of 2000 rows"),
            ("constant.npz good.npz", "expected columns that vary in constant.npz, got constant 1"),
            ("good.npz narrow.npz", "expected as many columns, got 3 and 2"),
            ("run.npz run.npz", "expected seed= one of 0, 1 for run.npz, got none"),
            ("run.npz good.npz seed=3", "expected seed= one of 0, 1 for run.npz, got 3"),
            ("run.npz run.npz seed=0,1,0", "expected seed=S or seed=S,T, got seed=0,1,0"),
            ("good.npz good.npz seed=0", "expected no seed=, as neither file has one, got 0"),
            ("good.npz good.npz split=test", "expected no split=, as neither file has one, got test"),
            ("run.npz run.npz seed=0 split=tset", "expected split= one of train for run.npz, got tset"),
            ("unsplit.npz good.npz", "expected a split for each of 2000 rows in unsplit.npz, got (1,)"),
            ("unseeded.npz good.npz", "expected a seed for each of 2 models in unseeded.npz, got 1"),
            ("good.npz good.npz draws=x", "expected draws= a whole number of at least 2, got x"),
            ("good.npz good.npz draws=2 csv=no/such/folder.csv", "expected to write csv=no/such/folder.csv, got: "),
        ],
    )
    def test_what_it_says(
        self,
        files: Path,
        arguments: str,
        told: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(files)
        assert main(arguments.split()) == 2
        assert told in capsys.readouterr().err

    def test_too_few_rows_are_an_error_of_the_function(self) -> None:
        with pytest.raises(ValueError, match="expected at least 4 rows, got 3"):
            score(Z[:3], Z[:3])
        with pytest.raises(BadInputError, match="expected at least 4 rows that both files have, got 3"):
            matched(LatentTable(Path("a"), Z[:3]), LatentTable(Path("b"), Z[:3]))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of all kinds, most of them bad."""
    folder = tmp_path_factory.mktemp("files")
    broken, constant = Z.copy(), Z.copy()
    broken[3, 0], constant[:, 1] = np.nan, 7
    both = np.stack([Z, Z])
    arrays: dict[str, dict[str, Any]] = {
        "good": {"mean": Z},
        "pickled": {"mean": np.array([{}, []], dtype=object)},
        "other": {"z": Z},
        "flat": {"mean": Z[:, 0]},
        "words": {"mean": np.full((4, 3), "x")},
        "bare": {"mean": Z[:, :0]},
        "short": {"mean": Z[:50]},
        "nan": {"mean": broken},
        "constant": {"mean": constant},
        "narrow": {"mean": Z[:, :2]},
        "ids": {"mean": Z, "index": IDS},
        "twice": {"mean": Z, "index": IDS // 2},
        "fewer": {"mean": Z, "index": IDS[:3]},
        "apart": {"mean": Z, "index": IDS + ROWS},
        "run": {"mean": both, "seed": [0, 1], "split": np.full(ROWS, "train")},
        "unsplit": {"mean": Z, "split": ["train"]},
        "unseeded": {"mean": both, "seed": [0]},
    }
    for name, content in arrays.items():
        save(folder / f"{name}.npz", **content)
    (folder / "torn.npz").write_bytes((folder / "good.npz").read_bytes()[:-200])
    (folder / "text.npz").write_text("no archive")
    np.save(folder / "good.npy", Z)
    (folder / "array.npz").write_bytes((folder / "good.npy").read_bytes())
    (folder / "words.csv").write_text("a,b\n1,x\n2,y\n")
    (folder / "empty.csv").write_text("")
    return folder
