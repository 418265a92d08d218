"""Run folders: whole files or none, the row schema, intervals over seeds, and the figure drawn from the latents."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivae_lab.plots.methods import PALETTE
from ivae_lab.plots.recovered import recovered
from ivae_lab.runs.arrays import read_latents
from ivae_lab.runs.folder import found_run, is_finished, read_status, write_status
from ivae_lab.runs.headlines import per_seed
from ivae_lab.runs.results_csv import COLUMNS, VARIANT, Row, read_results, read_table, write_results
from ivae_lab.runs.summaries import interval, summarise
from ivae_lab.storage.atomic import atomic
from ivae_lab.training.run import _write_arrays


def row(**changes: Any) -> Row:
    given = {"seed": 0, "data_seed": 1, "split": "train", "metric": "mcc", "latents": "mean", "coefficient": "pearson"}
    given |= {"alignment": "strong", "rank": None, "scored": "all", "points": 100, "latent_dim": 5, "source_dim": 5}
    return given | {"value": 0.1 + 0.2, "chance": 0.04, "state": "done"} | changes


def table(values: list[float], **changes: Any) -> pd.DataFrame:
    return pd.DataFrame([row(seed=seed, value=value, **changes) for seed, value in enumerate(values)])


class TestAtomic:
    def test_replaces_the_file_at_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_text("old")
        with atomic(path) as temporary:
            temporary.write_text("new")
            assert path.read_text() == "old"
            assert (temporary.parent, temporary.suffix) == (tmp_path, ".txt")
        assert path.read_text() == "new"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_failure_leaves_the_old_file_and_nothing_else(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_text("old")
        with pytest.raises(UnicodeEncodeError), atomic(path) as temporary:
            temporary.write_text("half \udcff", encoding="utf-8")
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_writing_nothing_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError), atomic(tmp_path / "a.txt"):
            pass


class TestFilesOfARun:
    """That are written in the end, whatever stops the writing: the old file stays."""

    def test_a_status_is_whole_or_the_old_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def killed(path: Path, text: str, *rest: Any, **more: Any) -> int:
            path.write_bytes(text[:9].encode())
            raise KeyboardInterrupt

        write_status(tmp_path, {"state": "running"})
        monkeypatch.setattr(Path, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            write_status(tmp_path, {"state": "done"})
        assert read_status(tmp_path) == {"state": "running"}
        assert [path.name for path in tmp_path.iterdir()] == ["status.json"]

    def test_latents_are_whole_or_the_old_ones(self, tmp_path: Path) -> None:
        class Unreadable:
            def __array__(self, *rest: Any, **more: Any) -> np.ndarray[Any, Any]:
                raise KeyboardInterrupt

        _write_arrays(tmp_path / "latents.npz", {"mean": np.arange(3)})
        with pytest.raises(KeyboardInterrupt):
            _write_arrays(tmp_path / "latents.npz", {"mean": np.zeros(3), "sample": Unreadable()})  # type: ignore[dict-item]
        assert read_latents(tmp_path)["mean"].tolist() == [0, 1, 2]
        assert [path.name for path in tmp_path.iterdir()] == ["latents.npz"]


class TestRows:
    def test_come_back_as_they_were_written(self, tmp_path: Path) -> None:
        write_results(tmp_path / "results.csv", [row(), row(metric="elbo", latents=None, source_dim=None, chance=None)])
        frame = read_results(tmp_path)
        assert tuple(frame.columns) == COLUMNS
        assert frame["value"].tolist() == [0.1 + 0.2] * 2
        assert frame["latents"].tolist() == ["mean", ""]
        assert frame["seed"].tolist() == [0, 0]
        assert frame["source_dim"].tolist() == [5, pd.NA]
        assert frame["rank"].isna().all()
        assert frame["chance"].isna().tolist() == [False, True]

    def test_a_weak_mcc_is_that_of_the_rows_that_it_was_not_fitted_on(self, tmp_path: Path) -> None:
        weak = [
            row(alignment="weak", rank=5, scored=scored, value=value) for scored, value in (("in", 0.9), ("out", 0.6))
        ]
        write_results(tmp_path / "results.csv", [row(value=0.5), *weak])
        found = per_seed(tmp_path).loc[0]
        assert (found["mcc_mean"], found["mcc_weak"]) == (0.5, 0.6)

    def test_a_diverged_seed_stays(self, tmp_path: Path) -> None:
        write_results(tmp_path / "results.csv", [row(value=float("nan"), chance=float("nan"), state="diverged")])
        frame = read_results(tmp_path)
        assert frame["value"].isna().all()
        assert frame["state"].tolist() == ["diverged"]

    def test_none_at_all_is_a_table(self, tmp_path: Path) -> None:
        write_results(tmp_path / "results.csv", [])
        assert len(read_results(tmp_path)) == 0

    def test_other_columns_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"expected the columns seed, .* got .*, colour"):
            write_results(tmp_path / "results.csv", [row(colour="red")])
        assert list(tmp_path.iterdir()) == []
        (tmp_path / "results.csv").write_text("seed,value\n0,.5\n")
        with pytest.raises(ValueError, match=r"expected the columns seed, .* got seed, value"):
            read_results(tmp_path)

    def test_a_number_that_is_none_is_refused(self, tmp_path: Path) -> None:
        write_results(tmp_path / "results.csv", [row(value="high")])
        with pytest.raises(ValueError, match="high"):
            read_results(tmp_path)

    def test_further_columns_are_read_too(self, tmp_path: Path) -> None:
        table([0.5, 0.6]).assign(beta=[1, 4]).to_csv(tmp_path / "all.csv", index=False)
        assert read_table(tmp_path / "all.csv")["beta"].tolist() == [1, 4]


class TestFolder:
    def test_status(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            read_status(tmp_path)
        for text in ("[]", "{}", "{"):
            (tmp_path / "status.json").write_text(text)
            with pytest.raises(ValueError, match=r"expected status.json|Expecting"):
                read_status(tmp_path)
            assert not is_finished(tmp_path)
        (tmp_path / "status.json").write_text('{"state": "failed", "error": "x"}')
        assert read_status(tmp_path)["error"] == "x"

    @pytest.mark.parametrize(
        ("state", "finished"), [("done", True), ("diverged", True), ("running", False), ("failed", False)]
    )
    def test_finished_means_nothing_left_to_do(self, tmp_path: Path, state: str, finished: bool) -> None:
        assert not is_finished(tmp_path)
        (tmp_path / "status.json").write_text(json.dumps({"state": state}))
        assert not is_finished(tmp_path)
        write_results(tmp_path / "results.csv", [row()])
        assert not is_finished(tmp_path)
        np.savez(tmp_path / "latents.npz", seed=np.arange(2))
        assert is_finished(tmp_path) == finished
        assert read_latents(tmp_path)["seed"].tolist() == [0, 1]


class TestFoundRun:
    @pytest.fixture(autouse=True)
    def runs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Run folders that were written one after another."""
        monkeypatch.chdir(tmp_path)
        for when, name in enumerate(
            ("tcl-ivae-1a", "tcl-ivae-2a", "sweep/tcl-vade-3a", "tcl-ivae-1", "sweep/tcl-pca-4a")
        ):
            (folder := tmp_path / "outputs" / name).mkdir(parents=True)
            for mark in ("config.yaml", "status.json"):
                (folder / mark).touch()
                os.utime(folder / mark, (0, 100 - when if mark == "config.yaml" else 200 - when))
        os.utime(tmp_path / "outputs" / "tcl-ivae-2a" / "status.json", (0, 300))

    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("latest", "tcl-ivae-2a"),
            ("tcl-v", "sweep/tcl-vade-3a"),
            ("tcl-ivae-1a", "tcl-ivae-1a"),
            ("tcl-ivae-1", "tcl-ivae-1"),  # whole, though another begins so
            ("outputs/tcl-ivae-2", "tcl-ivae-2a"),
            ("outputs/sweep/latest", "sweep/tcl-vade-3a"),
            ("outputs/sweep/tcl-p", "sweep/tcl-pca-4a"),
            ("outputs/sweep", "sweep"),  # what is there is what is meant, though it is no run folder
        ],
    )
    def test_it_is_named_by_its_path_or_the_beginning_of_its_name_or_is_the_latest(self, text: str, name: str) -> None:
        assert found_run(text) == Path("outputs") / name

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (
                "tcl-i",
                "expected the name of one run folder below outputs, got tcl-i: outputs/tcl-ivae-1, outputs/tcl-ivae-1a",
            ),
            ("tcl-ivea-2a", r"below outputs begins, got tcl-ivea-2a \(did you mean tcl-ivae-2a, "),
            ("mnist", "below outputs begins, got mnist; there are: tcl-pca-4a, tcl-vade-3a, tcl-ivae-1, "),
            ("elsewhere/latest", "below elsewhere begins, got elsewhere/latest; there are: none$"),
        ],
    )
    def test_what_is_none_or_several_is_said_with_those_that_may_be_meant(self, text: str, said: str) -> None:
        with pytest.raises(ValueError, match=said) as error:
            found_run(text)
        assert "\n" not in str(error.value)


class TestInterval:
    def test_one_value_has_none(self) -> None:
        assert np.isnan(interval([0.5])).all()
        assert np.isnan(interval([])).all()
        assert np.isnan(interval([0.5, float("nan")])).all()

    def test_equal_values_have_no_width(self) -> None:
        assert interval([0.1] * 3) == (0.1, 0.1)

    def test_is_the_percentiles_of_resampled_means(self) -> None:
        values = np.random.default_rng(0).normal(size=12)
        means = np.random.default_rng(1).choice(values, (50_000, 12)).mean(1)
        assert interval(values) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.03)
        assert interval(values, seed=1) != interval(values)
        narrow = interval(values, confidence=0.5)
        assert narrow == pytest.approx(np.percentile(means, [25, 75]), abs=0.03)

    def test_is_the_same_each_time_and_leaves_diverged_seeds_out(self) -> None:
        values = [0.1, 0.4, 0.8]
        assert interval(values) == interval(values) == interval([*values, float("nan"), float("inf")])

    @given(st.lists(st.floats(-100, 100), min_size=2, max_size=8))
    def test_holds_the_mean(self, values: list[float]) -> None:
        low, high = interval(values, draws=999)
        assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


class TestSummarise:
    def test_one_row_per_variant(self) -> None:
        rows = pd.concat([table([0.5, 0.7]), table([0.2, 0.4, 0.6], latents="sample"), table([-3.0], split="test")])
        summary = summarise(rows)
        assert summary["mean"].tolist() == pytest.approx([0.6, 0.4, -3])
        assert summary["seeds"].tolist() == [2, 3, 1]
        assert summary["diverged"].tolist() == [0, 0, 0]
        assert summary["chance"].tolist() == pytest.approx([0.04] * 3)
        assert (summary["low"][1], summary["high"][1]) == interval([0.2, 0.4, 0.6])
        assert np.isnan(summary["low"][2])
        assert tuple(summary.columns[: len(VARIANT)]) == VARIANT

    def test_diverged_seeds_are_counted_and_not_averaged(self) -> None:
        (record,) = summarise(table([0.5, float("nan"), 0.7])).to_dict("records")
        assert (record["mean"], record["seeds"], record["diverged"]) == (pytest.approx(0.6), 3, 1)
        (record,) = summarise(table([float("nan")], chance=None)).to_dict("records")
        assert (np.isnan(record["mean"]), record["seeds"], record["diverged"]) == (True, 1, 1)
        assert np.isnan(record["chance"])

    def test_works_on_what_was_read(self, tmp_path: Path) -> None:
        write_results(tmp_path / "results.csv", [row(seed=s, value=s / 2, rank=r) for s in (0, 1) for r in (None, 3)])
        summary = summarise(read_results(tmp_path))
        assert summary["mean"].tolist() == [0.25, 0.25]
        assert summary["rank"].tolist() == [pd.NA, 3]

    def test_no_rows_have_no_summary(self) -> None:
        assert len(summarise(table([]).reindex(columns=COLUMNS))) == 0

    def test_configurations_are_not_mixed_up(self) -> None:
        rows = pd.concat([table([0.5, 0.7]).assign(beta=1), table([0.2, 0.4]).assign(beta=4)])
        with pytest.raises(ValueError, match=r"expected one row per seed and metric variant, got 2 more: .* `by`"):
            summarise(rows)
        assert summarise(rows, by=["beta"])[["beta", "mean"]].to_numpy() == pytest.approx(
            np.array([[1, 0.6], [4, 0.3]])
        )


class TestRecovered:
    def arrays(self, seeds: int = 3, rows: int = 50, n: int = 2, k: int = 2) -> dict[str, Any]:
        rng = np.random.default_rng(0)
        sources, latents = rng.normal(size=(rows, k)), rng.normal(size=(seeds, rows, n)).astype(np.float32)
        latents[1:2] = np.nan
        split = np.where(np.arange(rows) % 2, "train", "test")
        known = {"sources": sources, "u": np.arange(rows) % 4, "index": np.arange(rows), "split": split}
        return {"mean": latents, "sample": latents, "seed": np.arange(seeds)} | known

    def drawn(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **options: Any) -> tuple[list[str], str]:
        """Words of the panels and the heading of the figure that is saved."""
        from matplotlib.figure import Figure

        figures: list[Figure] = []
        monkeypatch.setattr("ivae_lab.plots.recovered.save", lambda figure, path: figures.append(figure))
        recovered(path=tmp_path / "f", title="tcl, ivae", **options)
        panels = figures[0].axes
        words = [text.get_text() for axes in panels for text in (*axes.texts, axes.title, axes.yaxis.label)]
        return [word for word in words if word], figures[0].get_suptitle()

    @pytest.mark.slow
    def test_saves_both_formats_from_the_run_folder(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "latents.npz", **self.arrays(seeds=2))
        for source in (tmp_path, tmp_path / "latents.npz"):
            recovered(source, tmp_path / "beta=.5", "tcl, ivae", split="test")
            assert (tmp_path / "beta=.5.png").read_bytes().startswith(b"\x89PNG")
            assert (tmp_path / "beta=.5.pdf").read_bytes().startswith(b"%PDF")

    @pytest.mark.slow
    def test_says_what_was_left_out(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        words, heading = self.drawn(monkeypatch, tmp_path, latents=self.arrays(seeds=6, rows=1500, n=7, k=7))
        assert "first 5 of 6 seeds, first 6 of 7 sources" in heading.replace("\n", " ")
        assert "1000 of 1500 points drawn" in heading.replace("\n", " ")
        assert heading.startswith("tcl, ivae")
        assert [word.split("\n")[0] for word in words if word.startswith("seed")] == [f"seed {s}" for s in range(5)]

    def test_diverged_and_unmatched_panels_say_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        arrays = self.arrays(seeds=2, n=1)
        words, _ = self.drawn(monkeypatch, tmp_path, latents=arrays)
        assert (words.count("diverged"), words.count("no latent left"), words.count("seed 1\ndiverged")) == (2, 1, 1)
        del arrays["u"]
        assert sum("|r|" in word for word in self.drawn(monkeypatch, tmp_path, latents=arrays)[0]) == 1

    def test_all_diverged_or_collapsed_can_be_drawn(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        arrays = self.arrays(seeds=1)
        arrays["mean"] = np.full_like(arrays["mean"], 0.1)
        words, _ = self.drawn(monkeypatch, tmp_path, latents=arrays)
        assert words.count("|r| = 0.00") == 2
        arrays["mean"][:] = np.nan
        assert self.drawn(monkeypatch, tmp_path, latents=arrays)[0].count("diverged") == 2

    def test_refuses_unknown_sources_and_splits(self, tmp_path: Path) -> None:
        arrays = self.arrays()
        with pytest.raises(ValueError, match="expected a split among test, train, got valid"):
            recovered(arrays, tmp_path / "f", "t", split="valid")
        del arrays["sources"]
        with pytest.raises(ValueError, match="expected latents with true sources, got mean, "):
            recovered(arrays, tmp_path / "f", "t")

    @pytest.mark.parametrize("sign", [1, -1])
    def test_latents_are_drawn_with_the_sign_that_they_share_with_their_source(
        self, sign: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from matplotlib.figure import Figure

        figures: list[Figure] = []
        monkeypatch.setattr("ivae_lab.plots.recovered.save", lambda figure, path: figures.append(figure))
        arrays = self.arrays(seeds=1)
        arrays["mean"] = sign * arrays["sources"][None, :, ::-1].astype(np.float32)
        recovered(arrays, tmp_path / "f", "t")
        for panel in figures[0].axes[:2]:
            x, y = np.asarray(panel.collections[0].get_offsets()).T
            assert np.corrcoef(x, y)[0, 1] > 0.999

    def test_colours_are_fixed_and_told_apart(self) -> None:
        compared = [PALETTE[name] for name in ("ivae", "vae", "beta_vae", "beta_tcvae", "vade", "gmm_flow")]
        assert len(set(compared)) == len(compared)
