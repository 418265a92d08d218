"""What a run folder is good for afterwards: new rows encoded, x drawn, models exported, by the commands themselves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from rich.console import Console

from ivae_lab import encode, export, sample, score
from ivae_lab.config.digests import run_digest, run_digest_by_paths
from ivae_lab.engine.building import draw_data
from ivae_lab.engine.spec_json import from_plain, to_plain
from ivae_lab.inference.encoding import encoded
from ivae_lab.inference.sampling import sampled
from ivae_lab.inference.trained_model import Trained, load
from ivae_lab.runs.arrays import read_latents
from ivae_lab.runs.folder import read_status, write_status
from ivae_lab.tabular.reading import open_table
from ivae_lab.tabular.writing import block_rows, stream
from ivae_lab.training.group import execute
from ivae_lab.training.run import TrainingRun, prepare
from tests.running import SMALL, command, settings

pytestmark = pytest.mark.slow

STEPS = ("trainer.steps=20", "metric=[elbo]", "model.encoder.hidden=8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished runs of models whose encoder sees u, whose prior is a mixture, and one of statistics; and raw rows."""
    folder = tmp_path_factory.mktemp("runs")
    runs = {
        "ivae": ("model=ivae", "model.encoder.sees_u=true", "seed=[0,3]", *STEPS),
        "vade": ("model=vade", "prior.components=3", "seed=1", *STEPS),
        "gin": ("model=gin", "seed=1", "trainer.steps=20", "trainer.epochs=null", "metric=[elbo]"),
    }
    found = {}
    for name, overrides in runs.items():
        run = TrainingRun(settings(*SMALL, f"outputs={folder}", *overrides), Console(quiet=True))
        prepare(run.settings.compute)
        execute([run], Console(quiet=True))
        found[name] = run.settings.folder
    rows = draw_data(settings(*SMALL, "model=ivae", "data.preprocess=none").config).train
    assert rows.u is not None
    np.savez(folder / "raw.npz", x=rows.x.numpy(), u=rows.u.numpy(), index=rows.index.numpy())
    for name in ("x", "u", "index"):
        np.save(folder / f"{name}.npy", getattr(rows, name).numpy())
    columns = pd.DataFrame(rows.x.numpy(), columns=list("abcde")).assign(u=rows.u.numpy(), index=rows.index.numpy())
    columns.to_csv(folder / "raw.csv", index=False)
    columns.to_parquet(folder / "raw.parquet", index=False, row_group_size=70)
    return found | {"folder": folder}


def arguments(made: dict[str, Path], name: str, data: str, out: Path, *more: str) -> list[str]:
    return [f"run={made[name]}", f"data.path={made['folder'] / data}", f"out={out}", *more]


class TestEncode:
    @pytest.mark.parametrize(("name", "seed"), [("ivae", 3), ("vade", 1), ("gin", 1)])
    def test_training_rows_have_the_latents_of_the_run(
        self, made: dict[str, Path], name: str, seed: int, tmp_path: Path
    ) -> None:
        assert encode.main(arguments(made, name, "raw.npz", tmp_path / "new.npz", f"seed={seed}")) == 0
        new, latents = read_latents(tmp_path / "new.npz"), read_latents(made[name])
        assert np.array_equal(new["index"], latents["index"])
        np.testing.assert_allclose(new["mean"], latents["mean"][latents["seed"].tolist().index(seed)], atol=1e-6)
        assert (new["sd"] > 0).all() == (name != "gin")
        if name == "vade":
            assert np.array_equal(new["p"].argmax(1), latents["cluster"][0])
            np.testing.assert_allclose(new["p"].sum(1), 1, atol=1e-5)

    def test_samples_are_of_the_posterior(self, made: dict[str, Path], tmp_path: Path) -> None:
        assert encode.main(arguments(made, "vade", "raw.npz", tmp_path / "new.npz")) == 0
        new = read_latents(tmp_path / "new.npz")
        noise = (new["sample"] - new["mean"]) / new["sd"]
        assert noise.mean() == pytest.approx(0, abs=0.06)
        assert noise.std() == pytest.approx(1, abs=0.06)

    @pytest.mark.parametrize("data", ["x.npy", "raw.csv", "raw.parquet"])
    def test_streams_give_what_the_whole_gives(self, made: dict[str, Path], data: str, tmp_path: Path) -> None:
        assert encode.main(arguments(made, "ivae", "raw.npz", tmp_path / "whole.npz", "seed=0")) == 0
        assert encode.main(arguments(made, "ivae", data, tmp_path / "new.parquet", "seed=0")) == 0
        whole, table = read_latents(tmp_path / "whole.npz"), pd.read_parquet(tmp_path / "new.parquet")
        for name in ("mean", "sd", "sample"):
            columns = [f"{name}_{i}" for i in range(5)]
            np.testing.assert_allclose(table[columns].to_numpy(), whole[name], atol=1e-5)
        assert table["index"].tolist() == whole["index"].tolist()

    def test_blocks_are_bounded_whatever_the_rows(self, made: dict[str, Path]) -> None:
        blocks = list(encoded(load(made["vade"]), open_table(made["folder"] / "x.npy"), 100))
        assert [len(block["mean"]) for block in blocks] == [100] * 8

    def test_numbers_of_a_row_have_a_column_each_named_by_their_places(self, tmp_path: Path) -> None:
        of_facets = np.arange(24.0).reshape(4, 2, 3)
        stream(tmp_path / "new.parquet", [{"p": of_facets[:2]}, {"p": of_facets[2:]}], 4, Console(quiet=True))
        table = pd.read_parquet(tmp_path / "new.parquet")
        assert table.shape == (4, 6)
        for facet, component in np.ndindex(2, 3):
            assert table[f"p_{facet}_{component}"].tolist() == of_facets[:, facet, component].tolist()

    def test_score_reads_it(self, made: dict[str, Path], tmp_path: Path) -> None:
        new = tmp_path / "new.npz"
        assert encode.main(arguments(made, "vade", "raw.npz", new)) == 0
        assert score.main([str(new), str(made["vade"]), "split=train", "draws=2", f"csv={tmp_path / 'mcc.csv'}"]) == 0
        assert pd.read_csv(tmp_path / "mcc.csv")["value"].tolist() == pytest.approx([1] * 6)

    def test_the_command(self, made: dict[str, Path], tmp_path: Path) -> None:
        said = command(
            f"run={made['vade']}", f"data.path={made['folder'] / 'raw.csv'}", cwd=tmp_path, module="ivae_lab.encode"
        )
        assert (said.code, said.out) == (0, "")
        assert "800 rows" in said.err
        assert [path.name for path in tmp_path.iterdir()] == ["raw-latents.parquet"]


def test_a_run_folder_may_be_named_by_the_beginning_of_its_name(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By every command that takes one; which it is, is said."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").symlink_to(made["folder"])
    given, own = "run=tcl-vade", f"outputs/{made['vade'].name}"
    assert encode.main([given, f"data.path={made['folder'] / 'raw.npz'}", "out=new.npz"]) == 0
    assert sample.main([given, "rows=3"]) == 0
    assert export.main([given]) == 0
    assert capsys.readouterr().err.count(f"run folder: {own}\n") == 3
    assert (tmp_path / f"{made['vade'].name}-seed1.encoder.pt").is_file()
    os.utime(made["vade"] / "status.json")
    assert score.main(["latest", "tcl-vade", "draws=2"]) == 0
    assert f"A: {own}" in capsys.readouterr().out
    assert sample.main(["run=tcl-", "rows=3"]) == 2
    assert capsys.readouterr().err.startswith(
        "ivae_lab.sample: expected the name of one run folder below outputs, got "
    )


class TestWrongInput:
    """One line, exit code 2, nothing written."""

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ("run=nowhere", "expected a run folder, latest, or how a name below outputs begins, got nowhere"),
            ("run=.", "expected a run folder, with a status.json, got ."),
            ("seed=2", "expected seed= one of 0, 3 for "),
            ("sede=2", "did you mean seed?"),
            ("out=nowhere/new.npz", "expected to write out=nowhere/new.npz, got: No such file or directory"),
            ("out=new.txt", "expected out= a file .parquet or .npz, got new.txt"),
            ("data.path=nowhere.npz", "expected a file nowhere.npz, got none"),
            (
                "data.path=narrow.npz",
                "expected 5 columns of x in narrow.npz, as in training, got 4: x_0, x_1, x_2, x_3",
            ),
            ("data.path=nan.npz", "expected finite numbers, got nan in row 17, column x_2"),
            ("data.path=label.npz", "expected u one of 0, 1, 2, 3, 4, 5, 6, 7, got 8"),
            ("data.path=without.npz", "expected u in without.npz, which this model's encoder sees"),
        ],
    )
    def test_of_encode(
        self,
        made: dict[str, Path],
        changed: str,
        said: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        x, u = np.zeros((30, 5)), np.arange(30) % 8
        np.savez("narrow.npz", x=x[:, :4], u=u)
        np.savez("nan.npz", x=np.where((np.arange(30) == 17)[:, None] & (np.arange(5) == 2), np.nan, x), u=u)
        np.savez("label.npz", x=x, u=u + 1)
        np.savez("without.npz", x=x)
        there = {*tmp_path.iterdir()}
        given = dict(each.split("=", 1) for each in arguments(made, "ivae", "raw.npz", Path("new.npz"), "seed=0"))
        given |= dict([changed.split("=", 1)])
        assert encode.main([f"{key}={value}" for key, value in given.items()]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
        assert {*tmp_path.iterdir()} == there

    @pytest.mark.parametrize(
        "name", ["checkpoints/last.ckpt", "spec.json", "recipe.json", "config.yaml", "status.json"]
    )
    def test_damaged_runs(self, made: dict[str, Path], name: str) -> None:
        path = made["vade"] / name
        content = path.read_bytes()
        try:
            path.write_bytes(content.replace(b"e", b"E"))
            with pytest.raises(ValueError, match=r"^expected [^\n]*$"):
                load(made["vade"])
            path.unlink()
            with pytest.raises(ValueError, match=r"^expected [^\n]*$"):
                load(made["vade"])
        finally:
            path.write_bytes(content)
        assert load(made["vade"]).seed == 1


class TestOfBefore:
    """Run folders whose configuration says where classes were once, which is not where they are."""

    WAS: ClassVar = {
        "ivae_lab.networks.GaussianEncoder": "ivae_lab.nets.GaussianEncoder",
        "ivae_lab.networks.MLPDecoder": "ivae_lab.nets.MLPDecoder",
        "ivae_lab.models.VAE": "ivae_lab.models.vae.VAE",
        "ivae_lab.data.SegmentedSources": "ivae_lab.data.tcl.TCL",
    }

    @pytest.fixture
    def folder(self, made: dict[str, Path], tmp_path: Path) -> Path:
        folder = Path(shutil.copytree(made["ivae"], tmp_path / "run"))
        text = (folder / "config.yaml").read_text()
        for now, before in self.WAS.items():
            assert f"_target_: {now}\n" in text
            text = text.replace(f"_target_: {now}\n", f"_target_: {before}\n")
        (folder / "config.yaml").write_text(text)
        return folder

    @pytest.mark.parametrize("by_paths", [False, True], ids=["known by names", "known by paths"])
    def test_they_load(self, made: dict[str, Path], folder: Path, by_paths: bool) -> None:
        if by_paths:
            config: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"), resolve=True)
            digest = run_digest_by_paths(config, [0, 3])
            write_status(folder, read_status(folder) | {"run": digest})
            path = folder / "checkpoints" / "last.ckpt"
            torch.save(torch.load(path, weights_only=True) | {"fingerprint": digest}, path)
        z = np.zeros((2, 5))
        np.testing.assert_array_equal(load(folder, 3).decode(z), load(made["ivae"], 3).decode(z))

    def test_another_configuration_is_refused(self, folder: Path) -> None:
        path = folder / "config.yaml"
        path.write_text(path.read_text().replace("beta: 1.0", "beta: 2.0"))
        with pytest.raises(ValueError, match="expected a checkpoint of configuration"):
            load(folder, 3)

    def test_a_class_that_there_is_not_any_more_is_named(self, folder: Path) -> None:
        path = folder / "config.yaml"
        path.write_text(path.read_text().replace("nets.MLPDecoder", "nets.Decoding"))
        config: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
        checkpoint = folder / "checkpoints" / "last.ckpt"
        digest = {"fingerprint": run_digest(config, [0, 3])}
        torch.save(torch.load(checkpoint, weights_only=True) | digest, checkpoint)
        with pytest.raises(ValueError, match=r"got: model\.decoder\._target_: expected a class or function, got "):
            load(folder, 3)


class TestSample:
    def test_moments_at_u_are_those_of_prior_and_linear_decoder(self, made: dict[str, Path]) -> None:
        """X = A z + b + e with z of N(m(u), diag s(u)^2): with the decoder made linear."""
        trained = load(made["ivae"], 0)
        matrix = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
        trained.model.decoder = linear = torch.nn.Linear(5, 5).requires_grad_(False)
        linear.weight.copy_(matrix)
        trained = replace(trained, recipe=replace(trained.recipe, shift=[1.0] * 5, scale=(2 * np.eye(5)).tolist()))
        x = np.concatenate([block["x"] for block in sampled(trained, 40_000, u="3")])
        prior = trained.model.prior(torch.tensor([3]))
        noise = torch.exp(dict(trained.model.named_parameters())["likelihood.log_variance"])
        covariance = (matrix * prior.std[0] ** 2) @ matrix.T + noise * torch.eye(5)
        mean = (matrix @ (prior.mean + 0 * prior.std)[0] + linear.bias) / 2 + 1
        spread = np.sqrt(np.diag(covariance.numpy())) / 2
        np.testing.assert_allclose(x.mean(0), mean.numpy(), atol=5 * spread.max() / 200)
        np.testing.assert_allclose(np.cov(x.T), covariance.numpy() / 4, atol=0.05 * spread.max() ** 2)

    def test_all_labels_in_turn_and_other_draws(self, made: dict[str, Path], tmp_path: Path) -> None:
        run = [f"run={made['gin']}", "rows=20"]
        for name, more in {"one": [], "same": [], "other": ["draw=1"]}.items():
            assert sample.main([*run, *more, f"out={tmp_path / name}.npz"]) == 0
        one, same, other = (read_latents(tmp_path / f"{name}.npz") for name in ("one", "same", "other"))
        assert one["u"].tolist() == [i % 8 for i in range(20)]
        assert np.array_equal(one["x"], same["x"])
        assert not np.isclose(one["x"], other["x"]).any()

    def test_rows_are_drawn_at_the_labels_that_stand_beside_them(self, made: dict[str, Path]) -> None:
        trained = load(made["gin"])
        (block,) = sampled(trained, 20)
        assert np.array_equal(block["x"], trained.sample(20, trained.codes(block["u"]).numpy()))
        assert not np.isclose(block["x"], trained.sample(20, np.zeros(20, np.int64)))[block["u"] > 0].all(1).any()

    def test_every_block_has_draws_of_its_own(self, made: dict[str, Path]) -> None:
        trained, wide = load(made["vade"]), 2**20  # of so many columns a block has few rows
        trained = replace(trained, spec=replace(trained.spec, x_dim=wide))
        one, other = sampled(trained, 2 * block_rows(wide))
        assert not np.isclose(one["x"], other["x"]).all(1).any()

    def test_traversals_move_one_latent(self, made: dict[str, Path], tmp_path: Path) -> None:
        assert sample.main([f"run={made['vade']}", "traversals=true", f"out={tmp_path / 't.npz'}"]) == 0
        found = read_latents(tmp_path / "t.npz")
        assert found["x"].shape == found["z"].shape == (45, 5)
        for latent in range(5):
            moved = found["z"][found["latent"] == latent]
            assert np.flatnonzero(np.ptp(moved, axis=0)).tolist() == [latent]

    @pytest.mark.parametrize(
        ("name", "given", "said"),
        [
            ("gin", ["u=9"], "expected u one of 0, 1, 2, 3, 4, 5, 6, 7, got 9"),
            ("vade", ["u=1"], "expected no u=, as this model's prior is told none, got 1"),
            ("gin", ["traversals=true"], "expected u= for traversals, one of 0, 1, 2"),
            ("gin", ["rows=3", "rows=5"], "expected rows= once and with a value, got "),
            ("gin", ["rows=0"], "expected rows= a whole number of at least 1, got 0"),
            ("gin", ["traversals=yes"], "expected traversals= one of true, false, got yes"),
            ("gin", ["traversals=true", "rows=3"], "expected no rows= with traversals=true, got 3"),
        ],
    )
    def test_wrong_input(
        self, made: dict[str, Path], name: str, given: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert sample.main([f"run={made[name]}", *given]) == 2
        assert said in capsys.readouterr().err


class TestExport:
    @pytest.mark.parametrize("name", ["ivae", "gin"])
    def test_files_agree_with_the_model_where_there_is_no_ivae_lab(
        self, made: dict[str, Path], name: str, tmp_path: Path
    ) -> None:
        seed = 3 if name == "ivae" else 1
        assert export.main([f"run={made[name]}", f"seed={seed}", f"out={tmp_path / 'm'}"]) == 0
        trained = load(made[name], seed)
        rows = np.load(made["folder"] / "raw.npz")
        given = {"x": torch.tensor(rows["x"]), "u": torch.tensor(rows["u"])}
        given = given if trained.model.encoder_sees_u else {"x": given["x"]}
        torch.save(list(given.values()), tmp_path / "given.pt")
        code = (
            "import sys, torch, warnings; warnings.simplefilter('ignore')\n"
            "encoder, decoder = (torch.jit.load(f'm.{part}.pt') for part in ('encoder', 'decoder'))\n"
            "mean, sd = encoder(*torch.load('given.pt'))\n"
            "torch.save([mean, sd, decoder(mean)[0]], 'found.pt')\n"
            "assert 'ivae_lab' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
        mean, sd, x = torch.load(tmp_path / "found.pt")
        said = trained.encode(trained.batch(rows["x"], rows["u"] if len(given) == 2 else None))
        np.testing.assert_allclose(mean, said["mean"], atol=1e-5)
        np.testing.assert_allclose(sd, said["sd"], atol=1e-5)
        np.testing.assert_allclose(x, trained.decode(said["mean"]), atol=1e-4)

    def test_pt2_takes_any_number_of_rows(self, made: dict[str, Path], tmp_path: Path) -> None:
        assert export.main([f"run={made['ivae']}", "seed=3", "format=pt2", f"out={tmp_path / 'm'}"]) == 0
        decoder, z = torch.export.load(tmp_path / "m.decoder.pt2").module(), np.ones((2, 5), np.float32)
        for rows in (1, 2):
            found = decoder(torch.from_numpy(z[:rows]))[0]
            np.testing.assert_allclose(found, load(made["ivae"], 3).decode(z[:rows]), atol=1e-4)

    def test_what_differs_gets_no_name(
        self, made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        honest = Trained.encode
        monkeypatch.setattr(
            Trained, "encode", lambda *given: {name: value + 1e-3 for name, value in honest(*given).items()}
        )
        assert export.main([f"run={made['vade']}", f"out={tmp_path / 'm'}"]) == 2
        assert "expected the exported encoder to agree with the model" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []

    def test_onnx_says_what_it_would_take(self, made: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
        assert export.main([f"run={made['vade']}", "format=onnx"]) == 2
        assert "expected format= torchscript or pt2, got onnx, which takes the packages" in capsys.readouterr().err


@pytest.mark.parametrize("data", ["tcl", "gmm_relu", "digits"])
def test_what_a_model_was_told_of_its_data_comes_back(data: str) -> None:
    spec = draw_data(settings(f"data={data}", "model=vae").config).spec
    plain = json.loads(json.dumps(to_plain(spec)))
    back = from_plain(plain)
    assert back == spec
    assert to_plain(back) == plain
