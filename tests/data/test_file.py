"""A user's own rows: what is made of them, what is left out and said, and what is refused in one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ivae_lab.config.paths import content
from ivae_lab.core.data import Splits
from ivae_lab.data.file import File
from ivae_lab.data.splitting import middles, parts_of

ROWS = 400
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 3)) @ RNG.normal(size=(3, 3)) + 2
U = np.array(["day", "dusk", "night"])[RNG.integers(3, size=ROWS)]
DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(("x", "u", "sources", "group", "index", "segments", "block_rows", "leading", "content")),
    **{"u_kind": "auto", "observation": "real", "window": 0, "missing": "refuse", "least_per_u": 2, "rare": "refuse"},
    **{"split": [0.8, 0.1, 0.1], "split_by": "blocks", "gap": 0, "preprocess": "none"},
}


def read(path: Path, seed: int = 1, **keys: Any) -> Splits:
    return File(**{**DEFAULTS, "path": str(path), **keys})(seed)


def arrays(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "own.npz", **{"x": X, **arrays})
    return folder / "own.npz"


def table(folder: Path, **columns: Any) -> Path:
    frame = pd.DataFrame(X, columns=["a", "b", "c"]).assign(cond=U, **columns)
    frame.to_csv(folder / "own.csv", index=False)
    return folder / "own.csv"


def everything(splits: Splits) -> Any:
    """All parts as one, by row id."""
    parts = [part for _, part in splits.items()]
    order = torch.argsort(torch.cat([part.index for part in parts]))
    return {
        name: torch.cat([getattr(part, name) for part in parts])[order]
        for name in ("x", "u", "z", "index")
        if getattr(parts[0], name) is not None
    }


class TestWhatIsRead:
    def test_arrays_and_named_columns_are_the_same(self, tmp_path: Path) -> None:
        of_arrays = read(arrays(tmp_path, u=U))
        of_columns = read(table(tmp_path), u="cond")
        for name, value in everything(of_arrays).items():
            torch.testing.assert_close(everything(of_columns)[name], value)
        assert of_arrays.spec == of_columns.spec
        assert everything(of_arrays)["u"].tolist() == [["day", "dusk", "night"].index(each) for each in U]

    def test_columns_are_chosen_by_name(self, tmp_path: Path) -> None:
        splits = read(table(tmp_path, row=np.arange(ROWS)[::-1]), x=["c", "a"], u="cond", index="row", sources="b")
        found = everything(splits)
        torch.testing.assert_close(found["x"], torch.from_numpy(X[::-1, [2, 0]].astype(np.float32).copy()))
        torch.testing.assert_close(found["z"], torch.from_numpy(X[::-1, [1]].astype(np.float32).copy()))
        assert splits.recipe.x_columns == ["c", "a"]

    def test_numbers_as_u_are_columns_standardised_on_the_training_part(self, tmp_path: Path) -> None:
        u = np.column_stack([X[:, 0] * 5 + 1, RNG.normal(size=ROWS)])
        splits = read(arrays(tmp_path, u=u))
        assert (splits.spec.u_kind, splits.spec.u_dim) == ("columns", 2)
        assert splits.train.u is not None
        torch.testing.assert_close(splits.train.u.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
        torch.testing.assert_close(splits.train.u.std(0, correction=0), torch.ones(2))

    def test_several_columns_of_u_go_together(self, tmp_path: Path) -> None:
        splits = read(table(tmp_path, speed=RNG.normal(size=ROWS)), x=["a", "b"], u=["speed", "cond"])
        assert (splits.spec.u_kind, splits.spec.u_dim) == ("columns", 4)
        found = everything(splits)["u"]
        assert found[:, 1:].sum(1).eq(1).all()
        assert found[:, 1:].argmax(1).tolist() == [["day", "dusk", "night"].index(each) for each in U]

    def test_segments_are_made_from_the_order_of_rows(self, tmp_path: Path) -> None:
        splits = read(arrays(tmp_path), segments=5, block_rows=8)
        assert everything(splits)["u"].tolist() == np.repeat(np.arange(5), ROWS // 5).tolist()

    def test_codes_become_one_hot_columns(self, tmp_path: Path) -> None:
        codes = pd.DataFrame({"base": list("ACGT") * 100, "level": [1, 2] * 200})
        codes.to_csv(tmp_path / "codes.csv", index=False)
        splits = read(tmp_path / "codes.csv", observation="codes")
        assert splits.spec.codes == (4, 2)
        assert (
            everything(splits)["x"].tolist()
            == np.tile(
                [[1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 1], [0, 0, 1, 0, 1, 0], [0, 0, 0, 1, 0, 1]], (100, 1)
            ).tolist()
        )

    def test_whitening_is_fitted_on_the_training_part_and_kept(self, tmp_path: Path) -> None:
        splits = read(arrays(tmp_path), preprocess="whiten")
        torch.testing.assert_close(torch.cov(splits.train.x.T, correction=0), torch.eye(3), atol=1e-4, rtol=0)
        again = splits.recipe.apply(X[splits.test.index])
        np.testing.assert_allclose(again, splits.test.x)

    def test_the_content_is_what_names_the_data(self, tmp_path: Path) -> None:
        first = content(str(arrays(tmp_path)))
        assert first == content(str(arrays(tmp_path)))
        assert first != content(str(arrays(tmp_path, x=X + 1)))
        assert content(str(tmp_path / "none.npz")) is None


class TestWindows:
    def test_a_row_has_its_neighbours_of_the_same_group(self, tmp_path: Path) -> None:
        group = np.repeat([0, 1, 2, 3], ROWS // 4)
        found = everything(read(arrays(tmp_path, group=group), window=1, split_by="groups", split=[0.5, 0.25, 0.25]))
        inner = np.flatnonzero((np.arange(ROWS) % 100 != 0) & (np.arange(ROWS) % 100 != 99))
        assert found["index"].tolist() == inner.tolist()
        expected = np.concatenate([X[inner - 1], X[inner], X[inner + 1]], 1)
        np.testing.assert_allclose(found["x"], expected, rtol=1e-6)

    def test_none_goes_over_a_row_that_is_left_out(self, tmp_path: Path) -> None:
        x = X.copy()
        x[50, 1] = np.nan
        found = everything(read(arrays(tmp_path, x=x), window=1, gap=2, block_rows=40, missing="drop"))
        assert not set(range(49, 52)) & set(found["index"].tolist())

    @given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 4))
    def test_middles_have_all_their_neighbours(self, lengths: list[int], window: int) -> None:
        runs = np.repeat(np.arange(len(lengths)), lengths)
        found = middles(runs, window)
        whole = [t for t in range(len(runs)) if t - window >= 0 and t + window < len(runs)]
        assert found.tolist() == [t for t in whole if runs[t - window] == runs[t + window]]


class TestParts:
    @given(
        st.lists(st.integers(20, 60), min_size=3, max_size=6), st.integers(1, 9), st.integers(0, 3), st.integers(0, 99)
    )
    def test_no_row_of_another_part_is_nearer_than_the_gap(
        self, lengths: list[int], block: int, gap: int, seed: int
    ) -> None:
        groups = np.repeat(np.arange(len(lengths)), lengths)
        train, valid, test = parts_of(groups, [0.6, 0.2, 0.2], "blocks", block, gap, seed)
        rows = np.concatenate([train, valid, test])
        assert len(set(rows)) == len(rows)
        for row in train:
            near = [other for part in (valid, test) for other in part if abs(other - row) <= gap]
            assert not [other for other in near if groups[other] == groups[row]]

    @given(st.lists(st.integers(20, 60), min_size=3, max_size=6), st.integers(1, 9), st.integers(0, 99))
    def test_blocks_stay_together(self, lengths: list[int], block: int, seed: int) -> None:
        groups = np.repeat(np.arange(len(lengths)), lengths)
        part = np.full(len(groups), -1)
        for number, rows in enumerate(parts_of(groups, [0.6, 0.2, 0.2], "blocks", block, 0, seed)):
            part[rows] = number
        assert (part >= 0).all()
        for group in range(len(lengths)):
            own = part[groups == group]
            assert all(len(set(own[start : start + block])) == 1 for start in range(0, len(own), block))

    def test_groups_stay_together(self) -> None:
        groups = np.array(list("abcdefghij") * 7)
        parts = parts_of(groups, [0.6, 0.2, 0.2], "groups", None, 0, 3)
        assert [len(set(groups[part])) for part in parts] == [6, 2, 2]
        assert sum(map(len, parts)) == len(groups)


class TestWhatIsSaid:
    def test_all_that_was_done(self, tmp_path: Path) -> None:
        x = np.column_stack([X, np.ones(ROWS)])
        x[7, 0], x[9] = np.nan, x[8]
        splits = read(arrays(tmp_path, x=x, u=U), missing="drop")
        said = "\n".join(splits.summary)
        for expected in (
            "own.npz: 400 rows", "1 rows with missing values left out", "1 constant columns left out: x_3",
            "x: 3 real numbers", "u: 3 labels of", "true sources: unknown", "rows by blocks: ",
            "1 rows have the x of an earlier row",
        ):  # fmt: skip
            assert expected in said
        assert splits.spec.x_dim == 3

    def test_means_stand_for_missing_values(self, tmp_path: Path) -> None:
        x = X.copy()
        x[[3, 200], 1] = np.nan
        splits = read(arrays(tmp_path, x=x), missing="mean")
        assert splits.recipe.fill is not None
        np.testing.assert_allclose(everything(splits)["x"][[3, 200], 1], splits.recipe.fill[1], rtol=1e-6)
        assert splits.recipe.fill[1] == pytest.approx(np.nanmean(x[splits.train.index, 1]))

    @pytest.mark.parametrize(("rare", "labels", "rows"), [("drop", 3, ROWS - 1), ("merge", 4, ROWS)])
    def test_rare_labels(self, tmp_path: Path, rare: str, labels: int, rows: int) -> None:
        u = U.copy()
        u[0] = "noon"
        splits = read(arrays(tmp_path, u=u), rare=rare)
        assert splits.spec.u_dim == labels
        assert sum(len(part) for _, part in splits.items()) == rows


def spoilt(**at: Any) -> np.ndarray:
    x = X.copy()
    for where, value in at.items():
        row, column = map(int, where[1:].split("_"))
        x[row, column] = value
    return x


@pytest.mark.parametrize(
    ("own", "keys", "expected"),
    [
        ({"x": spoilt(_17_1=np.nan)}, {}, "no missing or infinite values, .* 1 of 400 rows, .* in row 17, column x_1"),
        ({"x": spoilt(_17_1=np.inf)}, {}, "no missing or infinite values"),
        ({"u": U[:-1]}, {}, "400 rows, but 399 of u"),
        ({"x": X[:, 0]}, {}, r"an x of float64 \(400,\); \(N, d\) is expected"),
        ({"x": np.ones((ROWS, 2))}, {}, "columns of x that vary, got 2 constant ones"),
        ({"x": X.astype(str)}, {}, "expected numbers in column x_0, got '"),
        ({"u": np.where(np.arange(ROWS) == 5, "noon", U)}, {}, "at least 2 rows of each value of u, .* such as noon"),
        ({}, {"observation": "counts"}, "expected counts 0, 1, 2, ... in column x_0, got"),
        ({}, {"observation": "binary"}, "expected 0 and 1 in column x_0, got"),
        ({}, {"observation": "codes"}, "expected words or whole numbers as codes, got float64 in column x_0"),
        ({}, {"x": "spikes"}, "expected data.x among the columns of .*; got spikes"),
        ({}, {"u": "X_1"}, r"got X_1 \(did you mean x_1"),
        ({"u": X[:, 0]}, {"u_kind": "labels"}, "one column of whole numbers or words for u_kind=labels, got float64"),
        ({}, {"segments": 4, "u": "x_1"}, "expected u or segments"),
        ({}, {"window": 1}, "gap of at least 2 with window=1, got 0"),
        ({}, {"window": 2, "gap": 3}, "gap of at least 4 with window=2, got 3"),
        ({}, {"window": 1, "split_by": "rows"}, "split_by=blocks or groups with window=1"),
        ({}, {"split_by": "groups"}, "at least as many groups as parts, got 1"),
        ({"index": np.zeros(ROWS, int)}, {}, "each id of index once"),
        ({"index": U}, {}, "whole numbers as index, got '"),
        ({"sources": U}, {}, "numbers as sources, got '"),
        ({}, {"segments": 40, "split": [0.3, 0.3, 0.4]}, "the training part has no other"),
        ({}, {"preprocess": "whiten", "observation": "counts"}, "preprocess=none with observation=counts"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, own: dict[str, Any], keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as raised:
        read(arrays(tmp_path, **own), **keys)
    assert "\n" not in str(raised.value)


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", x=np.array([[1, None]], dtype=object))
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    (tmp_path / "own.xlsx").write_bytes(b"")
    for name, expected in (
        ("objects.npz", "Object arrays cannot be loaded"),
        ("torn.parquet", "expected a table in"),
        ("own.xlsx", "expected a file .npz"),
        ("none.csv", "expected a file .*none.csv, got none"),
    ):
        with pytest.raises(ValueError, match=expected) as raised:
            read(tmp_path / name)
        assert not re.search("\n", str(raised.value))
    with pytest.raises(ValueError, match=r"expected data\.path=FILE"):
        File(**{**DEFAULTS, "path": None})
