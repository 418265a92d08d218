"""A user's own file from the command line to latents of new rows, draws, and errors of one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ivae_lab import encode, sample
from ivae_lab.config.build import ConfigError
from ivae_lab.inference.encoding import encoded
from ivae_lab.runs.arrays import read_latents
from tests.own import own_file
from tests.running import here, make_run, run_folder

pytestmark = pytest.mark.slow

TINY = ("trainer.steps=20", "trainer.batch_size=16", "model.latent_dim=2", "compute.threads=1", "show=false", "seed=0")
ROWS = 200


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """(*overrides) to the folder of a run of the real command."""
    monkeypatch.chdir(tmp_path)

    def train(*overrides: str) -> Path:
        done = here((*TINY, *overrides), capsys, monkeypatch)
        assert done.code == 0, done.err
        return run_folder(tmp_path / "outputs")

    return train


def table(folder: Path) -> Path:
    """Counts of three neurons and codes of two, with a position and a condition, in time."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.poisson(3, (ROWS, 3)), columns=["a", "b", "c"])
    frame = frame.assign(place=rng.normal(size=ROWS), cond=np.array(["day", "night"])[np.arange(ROWS) // 20 % 2])
    frame = frame.assign(base=np.array(list("ACGT"))[rng.integers(4, size=ROWS)], index=np.arange(ROWS)[::-1])
    frame.to_parquet(folder / "own.parquet")
    return folder / "own.parquet"


def same_latents(folder: Path, path: Path, left_out: int = 0) -> None:
    """Encoding the rows of the run again gives its latents, whatever the blocks."""
    assert encode.main([f"run={folder}", f"data.path={path}", "out=latents.npz"]) == 0
    known = read_latents(folder / "latents.npz")
    with np.load("latents.npz") as found:
        assert len(found["index"]) == ROWS - left_out
        order = pd.Index(found["index"]).get_indexer(known["index"])
        assert (order >= 0).all()
        np.testing.assert_allclose(found["mean"][order], known["mean"][0], atol=1e-5)


COUNTS = ("data=file", "data.path=own.parquet", "data.x=[a,b,c]", "data.index=index", "data.observation=counts")


def test_counts_with_u_of_several_columns_and_windows(run: Any, tmp_path: Path) -> None:
    path = table(tmp_path)
    own = ("data.u=[place,cond]", "data.window=1", "data.gap=2", "data.block_rows=20", "model.encoder.sees_u=true")
    folder = run("model=ivae_counts", *COUNTS, *own)
    same_latents(folder, path, left_out=2)
    assert sample.main([f"run={folder}", "rows=50", "u=0.3,night", "out=new.npz"]) == 0
    with np.load("new.npz") as drawn:
        assert drawn["x"].shape == (50, 9)
        assert (drawn["x"] == np.round(drawn["x"])).all()
        assert set(drawn["cond"].tolist()) == {"night"}


def test_windows_do_not_depend_on_the_blocks(run: Any, tmp_path: Path) -> None:
    from ivae_lab.inference.trained_model import load
    from ivae_lab.tabular.reading import open_table

    path = table(tmp_path)
    folder = run("model=ivae_counts", *COUNTS, "data.u=place", "data.window=2", "data.gap=4", "data.block_rows=20")
    trained = load(folder)
    whole, cut = (
        [
            np.concatenate([block[name] for block in encoded(trained, open_table(path), rows)])
            for name in ("index", "mean")
        ]
        for rows in (1000, 7)
    )
    np.testing.assert_array_equal(whole[0], cut[0])
    np.testing.assert_allclose(whole[1], cut[1], atol=1e-6)


def test_codes_and_labels(run: Any, tmp_path: Path) -> None:
    path = table(tmp_path)
    own = ("data=file", "data.path=own.parquet", "data.x=[base,cond]", "data.u=cond", "data.index=index")
    folder = run("model=ivae", *own, "data.observation=codes", "data.preprocess=none", "model/likelihood=categorical")
    same_latents(folder, path)


def test_a_model_that_is_fitted_and_has_no_parameters(run: Any, tmp_path: Path) -> None:
    path = table(tmp_path)
    folder = run("model=pca", "data=file", "data.path=own.parquet", "data.x=[a,b,c]", "data.index=index")
    same_latents(folder, path)


def test_missing_values_are_filled_as_in_training(run: Any, tmp_path: Path) -> None:
    frame = pd.read_parquet(table(tmp_path))[["place", "a", "cond", "index"]].astype({"a": float})
    frame.loc[[3, 77], "place"] = np.nan
    frame.to_parquet("own.parquet")
    folder = run(
        "model=vae", "data=file", "data.path=own.parquet", "data.x=[place,a]", "data.index=index", "data.missing=mean"
    )
    same_latents(folder, Path("own.parquet"))


def test_what_is_wrong_is_said_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = here((*TINY, "model=ivae", "data=file", "data.path=none.npz"), capsys, monkeypatch)
    assert (done.code, done.err) == (2, "ivae_lab.train: data: expected a file none.npz, got none\n")
    assert not Path("outputs").exists() or not any(Path("outputs").glob("file-*"))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), "data: expected data.path=FILE"),
        (("data.path=own.npz", "data.x=y"), "data: expected data.x among the columns of own.npz"),
        (("data.path=own.npz", "data.window=-1"), "data.window: expected"),
        (("data.path=own.npz", "+data.colour=red"), "data.colour: expected one of"),
        (("data.path=own.npz", "data.observation=counts", "data.preprocess=none"), "data: expected counts"),
        (("data.path=own.npz", "trainer.batch_size=500"), "trainer: expected a batch_size of at most"),
        (("data.path=own.npz", "model/likelihood=poisson"), "expected counts as observations"),
    ],
)
def test_what_is_wrong_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.npz").write_bytes(own_file().read_bytes())
    with pytest.raises(ConfigError) as error:
        make_run(*TINY, "model=ivae", "data=file", *overrides)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_the_run_knows_its_data_by_content(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = own_file().read_bytes()
    (tmp_path / "one.npz").write_bytes(content)
    run("model=vae", "data=file", "data.path=one.npz")
    (tmp_path / "moved.npz").write_bytes(content)
    run("model=vae", "data=file", "data.path=moved.npz")
    assert len([*Path("outputs").glob("file-*")]) == 1
