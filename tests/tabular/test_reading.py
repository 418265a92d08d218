"""Tables in files: each kind gives the same rows, in blocks of the size asked for, and says what is wrong with it."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ivae_lab.tabular.columns import LabelColumn
from ivae_lab.tabular.preprocessing import Preprocessing
from ivae_lab.tabular.reading import SUFFIXES, _exactly, numbers, open_table
from tests.profiles import examples

ROWS = 107
X = np.random.default_rng(0).normal(size=(ROWS, 3))
U = np.array(["cold", "warm"])[np.arange(ROWS) % 2]
FRAME = pd.DataFrame(X, columns=["x_0", "x_1", "x_2"]).assign(u=U)


def written(folder: Path, suffix: str) -> Path:
    path = folder / f"x{suffix}"
    if suffix == ".npz":
        np.savez(path, x=X, u=U)
    elif suffix == ".npy":
        np.save(path, X)
        np.save(folder / "u.npy", U)
    elif suffix == ".csv":
        FRAME.to_csv(path, index=False)
    else:
        pq.write_table(pa.Table.from_pandas(FRAME, preserve_index=False), path, row_group_size=13)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("size", [10, 26, 1000])
def test_every_kind_of_file_gives_the_same_rows_in_blocks(tmp_path: Path, suffix: str, size: int) -> None:
    table = open_table(written(tmp_path, suffix))
    assert table.names == [*FRAME]
    assert table.rows == ROWS
    blocks = list(table.blocks(["x_2", "x_0", "u"], size))
    assert {len(block) for block in blocks[:-1]} <= {size}
    whole = pd.concat(blocks)
    assert [*whole.index] == [*range(ROWS)]
    np.testing.assert_allclose(numbers(whole[["x_2", "x_0"]]), X[:, [2, 0]], rtol=1e-14)
    assert whole["u"].tolist() == U.tolist()


@given(st.lists(st.integers(0, 30), max_size=6), st.integers(1, 12))
@hypothesis_settings(max_examples=examples(30))
def test_frames_of_any_length_become_blocks_of_one(lengths: list[int], size: int) -> None:
    ends = np.cumsum([0, *lengths])
    blocks = list(_exactly((pd.DataFrame({"row": range(*pair)}) for pair in pairwise(ends)), size))
    assert {len(block) for block in blocks[:-1]} <= {size}
    assert [row for block in blocks for row in block["row"]] == [*range(ends[-1])]


def test_a_memory_mapped_block_reads_no_more_than_itself(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, X)
    with path.open("r+b") as file:  # what lies behind the first block is not there any more
        file.truncate(128 + 20 * 3 * 8)
    with pytest.raises(ValueError, match=r"expected a table in .*rows\.npy, got: "):
        open_table(path)


def test_a_csv_without_a_header_is_all_numbers(tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    pd.DataFrame(X).to_csv(path, index=False, header=False)
    table = open_table(path)
    assert (table.names, table.rows) == (["x_0", "x_1", "x_2"], ROWS)
    np.testing.assert_allclose(numbers(next(table.blocks(table.names, ROWS))), X)


def test_images_are_rows_of_their_pixels(tmp_path: Path) -> None:
    path = tmp_path / "new.npz"
    images = np.arange(24, dtype=np.uint8).reshape(2, 1, 3, 4)
    np.savez(path, x=images)
    table = open_table(path)
    assert len(table.names) == 12
    assert np.array_equal(numbers(next(table.blocks(table.names, 5))), images.reshape(2, 12))


class TestWrongTables:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_no_file(self, tmp_path: Path, suffix: str) -> None:
        with pytest.raises(ValueError, match=r"expected a file .*none" + re.escape(suffix) + ", got none"):
            open_table(tmp_path / f"none{suffix}")

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_no_table(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"x{suffix}"
        path.write_bytes(b"" if suffix == ".csv" else b"PK\x03\x04 nothing")
        with pytest.raises(ValueError, match=r"^expected a table in .*, got: [^\n]+$"):
            open_table(path)

    def test_pickles_are_never_loaded(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object))
        with pytest.raises(ValueError, match="expected a table"):
            open_table(tmp_path / "x.npy")
        np.savez(tmp_path / "x.npz", x=np.array([[None]], dtype=object))
        with pytest.raises(ValueError, match="expected a table"):
            open_table(tmp_path / "x.npz")

    def test_a_column_that_is_not_there(self, tmp_path: Path) -> None:
        table = open_table(written(tmp_path, ".csv"))
        with pytest.raises(ValueError, match=r"expected a column y in .*, got x_0, x_1, x_2, u"):
            next(table.blocks(["y"], 5))

    def test_a_row_that_is_no_number_is_named(self, tmp_path: Path) -> None:
        FRAME.assign(x_1=np.where(np.arange(ROWS) == 57, np.nan, X[:, 1])).to_csv(tmp_path / "x.csv", index=False)
        first, second, *_ = open_table(tmp_path / "x.csv").blocks(["x_0", "x_1"], 50)
        assert numbers(first).shape == (50, 2)
        with pytest.raises(ValueError, match="expected finite numbers, got nan in row 57, column x_1"):
            numbers(second)

    def test_text_is_no_number(self) -> None:
        with pytest.raises(ValueError, match="expected numbers in column u, got text"):
            numbers(FRAME)

    def test_a_damaged_parquet_says_so_when_it_is_read(self, tmp_path: Path) -> None:
        path = written(tmp_path, ".parquet")
        content = bytearray(path.read_bytes())
        content[100:200] = bytes(100)
        path.write_bytes(content)
        table = open_table(path)
        with pytest.raises(ValueError, match="expected a readable table in"):
            list(table.blocks(["x_0", "x_1"], 50))


class TestRecipe:
    def test_invert_undoes_apply_and_json_keeps_every_bit(self) -> None:
        recipe = Preprocessing(["b", "a"], [1.0, 1 / 3], [[2.0, 0.1], [0.3, 1.0]], u=LabelColumn(["cold", "warm"]))
        assert Preprocessing.from_json(recipe.to_json()) == recipe
        x = X[:, :2]
        np.testing.assert_allclose(recipe.invert(recipe.apply(x)), x, atol=1e-6)
        assert recipe.log_volume == pytest.approx(np.log(2 - 0.03))

    def test_columns_of_x(self) -> None:
        assert Preprocessing().columns(["x_10", "u", "x_2", "other"]) == ["x_2", "x_10"]
        assert Preprocessing().columns(["u", "height", "index", "width"]) == ["height", "width"]
        assert Preprocessing(["width"]).columns(["height", "width"]) == ["width"]
