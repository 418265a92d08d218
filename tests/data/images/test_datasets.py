"""Image data sets: which rows are in which part, bytes and their binarisation, labels, factors, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from scipy.io import savemat
from sklearn.datasets import load_digits

from ivae_lab.config.digests import cell_digest, run_digest
from ivae_lab.core.data import Batch, Image, Splits
from ivae_lab.data.images import formats
from ivae_lab.data.images.catalogue import CATALOGUE
from ivae_lab.data.images.datasets import CIFAR10, EMNIST, MNIST, SVHN, Digits, DSprites, binarise
from ivae_lab.engine.building import build_model, draw_data
from tests.images import SHARED, idx, refused, shared, written
from tests.running import Inside, settings

ROWS: dict[str, Any] = {"train_rows": 100, "valid_rows": 20, "test_rows": 30}
GREY: dict[str, Any] = {"u": "class", "binarisation": "none", "test_binarisation": "none"}
ROOT = str(SHARED)


def digits(**changes: Any) -> Digits:
    return Digits(**{**ROWS, **GREY, **changes})


def ids(part: Batch) -> set[int]:
    return set(part.index.tolist())


def levels_of(x: torch.Tensor) -> set[int]:
    return set(x.flatten().tolist())


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.index, other.index) and torch.equal(one.x, other.x)


def unchecked(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Take any content for that of a data set."""
    entry = CATALOGUE[name]
    parts = {part: tuple(replace(file, checksum=None) for file in files) for part, files in entry.parts.items()}
    monkeypatch.setitem(CATALOGUE, name, replace(entry, parts=parts))


def grey(rows: int, height: int, width: int) -> formats.Images:
    return np.random.default_rng(rows).integers(0, 256, (rows, height, width), dtype=np.uint8)


class TestRows:
    @pytest.mark.parametrize("kind", ["none", "fixed", "fresh"])
    def test_deviations_are_of_the_grey_training_rows_however_they_are_binarised(self, kind: str) -> None:
        image = digits(binarisation=kind, test_binarisation="fixed")(0).spec.image
        assert image is not None
        assert image.deviation is not None
        expected = digits()(0).train.x.numpy() / 255
        np.testing.assert_allclose(image.deviation, expected.std(0, ddof=1), atol=1e-6)

    def test_parts_have_their_sizes_and_share_no_row(self) -> None:
        splits = digits()(0)
        assert [(name, len(part)) for name, part in splits.items()] == [("train", 100), ("valid", 20), ("test", 30)]
        assert splits.spec.train_rows == 100
        assert len(ids(splits.train) | ids(splits.valid) | ids(splits.test)) == 150
        assert splits.scored == ("valid", "test")

    def test_null_is_all_that_are_left(self) -> None:
        splits = digits(train_rows=None, valid_rows=0)(0)
        assert [len(part) for _, part in splits.items()] == [1797 - 30, 30]
        assert ids(splits.train) | ids(splits.test) == set(range(1797))

    def test_the_size_of_a_part_leaves_those_before_it_alone(self) -> None:
        few, many = digits()(3), digits(train_rows=None)(3)
        assert same(few.valid, many.valid)
        assert same(few.test, many.test)
        assert ids(few.train) < ids(many.train)
        assert same(digits(valid_rows=0)(3).test, few.test)

    def test_the_data_seed_chooses_the_rows(self) -> None:
        assert same(digits()(1).train, digits()(1).train)
        for name in ("train", "valid", "test"):
            assert ids(getattr(digits()(1), name)) != ids(getattr(digits()(0), name))

    def test_a_row_is_the_published_one_of_its_id(self) -> None:
        found, splits = load_digits(), digits()(0)
        for _, part in splits.items():
            assert part.x.double().div(255 / 16).round().equal(torch.from_numpy(found.data[part.index]))
            assert part.u is not None
            assert part.u.tolist() == found.target[part.index].tolist()

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"test_rows": 1798}, "test_rows of at most 1797, got 1798"),
            ({"valid_rows": 1768}, "valid_rows of at most 1767, got 1768"),
            ({"train_rows": 1748}, "train_rows of at most 1747, got 1748"),
            ({"test_rows": None, "valid_rows": 0, "train_rows": None}, "train_rows of at most 0, got all"),
        ],
    )
    def test_more_rows_than_there_are(self, changes: dict[str, Any], told: str) -> None:
        with refused(told):
            digits(**changes)(0)

    def test_without_u(self) -> None:
        splits = digits(u="none")(0)
        assert splits.spec.u_dim == 0
        assert all(part.u is None for _, part in splits.items())
        assert same(splits.train, digits()(0).train)


class TestBinarisation:
    def test_fixed_draws_have_the_probabilities_of_the_bytes(self) -> None:
        levels = torch.arange(256, dtype=torch.uint8).expand(20_000, 256)
        drawn = binarise(Batch(levels, None, None, torch.arange(20_000)), seed=0).x
        assert drawn.dtype == torch.uint8
        assert levels_of(drawn) == {0, 255}
        frequency, expected = drawn.double().mean(0) / 255, torch.arange(256) / 255
        torch.testing.assert_close(frequency, expected.double(), atol=0.016, rtol=0)  # 4.5 standard errors
        assert (frequency - expected).mean().abs() < 4 * 0.5 / (256 * 20_000) ** 0.5  # no bias by one level
        assert frequency[[0, 255]].tolist() == [0, 1]

    def test_draws_of_pixels_rows_and_seeds_are_independent(self) -> None:
        half = Batch(torch.full((2000, 64), 127, dtype=torch.uint8), None, None, torch.arange(2000))
        first, other = (binarise(half, seed).x.double() / 255 - 0.5 for seed in (0, 1))
        for one, two in ((first, other), (first[:-1], first[1:]), (first[:, :-1], first[:, 1:])):
            assert (one * two).mean().abs() < 4 * 0.25 / one.numel() ** 0.5

    def test_a_rows_draw_is_its_own_whatever_is_drawn_beside_it(self) -> None:
        fixed = {"binarisation": "fixed", "test_binarisation": "fixed"}
        few, all_, grey_ = digits(**fixed)(0), digits(**fixed, train_rows=None)(0), digits(u="none")(0)
        among = torch.isin(all_.train.index, few.train.index)
        assert same(all_.train[among], few.train)
        # A test row is binarised as it would be in another part.
        assert torch.equal(binarise(grey_.test, 0).x, few.test.x)
        as_training = digits(**fixed, train_rows=None, test_rows=1, valid_rows=0)(0).train
        shared_rows = few.test[torch.isin(few.test.index, as_training.index)]
        assert len(shared_rows) >= 29
        assert same(as_training[torch.isin(as_training.index, few.test.index)], shared_rows)

    @pytest.mark.parametrize(
        ("training", "test"), [("none", "none"), ("none", "fixed"), ("fixed", "none"), ("fixed", "fixed")]
    )
    def test_parts_that_are_not_redrawn(self, training: str, test: str) -> None:
        splits = digits(binarisation=training, test_binarisation=test)(0)
        assert splits.spec.image == Image(1, 8, 8, redrawn=False)
        for part, kind in ((splits.train, training), (splits.valid, test), (splits.test, test)):
            assert (levels_of(part.x) == {0, 255}) == (kind == "fixed")

    def test_fresh_training_and_fixed_test(self) -> None:
        splits = digits(binarisation="fresh", test_binarisation="fixed")(0)
        assert splits.spec.image == Image(1, 8, 8, redrawn=True)
        assert same(splits.train, digits()(0).train)
        assert levels_of(splits.test.x) == {0, 255}
        assert same(digits(binarisation="fresh", test_binarisation="fresh")(0).test, digits()(0).test)

    @pytest.mark.parametrize(
        ("training", "test", "expected"),
        [("fresh", "none", "fixed or fresh"), ("fixed", "fresh", "fixed or none"), ("none", "fresh", "fixed or none")],
    )
    def test_what_does_not_go_together(self, training: str, test: str, expected: str) -> None:
        with refused(f"test_binarisation {expected} with binarisation={training}", f"got {test}"):
            digits(binarisation=training, test_binarisation=test)


@cache
def of_sprites(u: Any = "shape") -> Splits:
    return DSprites(**ROWS, u=u, part="subset", root=ROOT)(0)


class TestFiles:
    @pytest.mark.slow
    def test_mnist_rows_are_the_published_ones(self) -> None:
        x, u = formats.read_idx_pair(
            shared("mnist/t10k-images-idx3-ubyte.gz"), shared("mnist/t10k-labels-idx1-ubyte.gz"), range(10)
        )
        splits = MNIST(**ROWS, **GREY, root=ROOT)(0)
        at = splits.test.index - 60_000
        assert torch.equal(splits.test.x, torch.from_numpy(x.reshape(-1, 784))[at])
        assert splits.test.u is not None
        assert splits.test.u.tolist() == u[at].tolist()
        assert max(ids(splits.train) | ids(splits.valid)) < 60_000
        assert (splits.spec.x_dim, splits.spec.u_dim, splits.spec.binary) == (784, 10, True)
        assert splits.spec.source_dim is None

    @pytest.mark.slow
    def test_cifar10_is_channel_by_channel_with_the_ids_of_its_batches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(formats, "read_cifar10", cache(formats.read_cifar10))
        x, u = formats.read_cifar10(shared("cifar-10-batches-py/data_batch_2"))
        rows = {**ROWS, "train_rows": None, "u": "class", "root": ROOT}
        both, second = CIFAR10(**rows, batches=[2, 1])(0), CIFAR10(**rows, batches=[2])(0)
        assert ids(second.train) | ids(second.valid) == set(range(10_000, 20_000))
        assert ids(both.train) | ids(both.valid) == set(range(20_000))
        assert same(both.test, second.test)
        assert min(ids(both.test)) >= 50_000
        for part in (second.train, both.train[both.train.index >= 10_000]):
            expected = torch.from_numpy(x)[part.index - 10_000]  # (N, 32, 32, 3)
            assert torch.equal(part.x.reshape(-1, 3, 32, 32), expected.permute(0, 3, 1, 2))
            assert part.u is not None
            assert part.u.tolist() == u[part.index - 10_000].tolist()
        assert same(CIFAR10(**rows, batches=[1, 2])(0).train, both.train)
        assert (both.spec.image, both.spec.binary) == (Image(3, 32, 32), False)

    def test_cifar10_is_read_from_its_binary_version_where_there_are_no_pickles(self, tmp_path: Path) -> None:
        planes = grey(12, 32 * 32, 3).reshape(12, 3072)
        rows = np.hstack([np.arange(12, dtype=np.uint8)[:, None] % 10, planes])
        binary = tmp_path / "cifar-10-batches-bin"
        written(binary / "data_batch_2.bin", rows[:8].tobytes())
        written(binary / "test_batch.bin", rows[8:].tobytes())
        config = settings("data=cifar10", f"data.root={tmp_path}", "data.batches=[2]").config
        splits = draw_data(config)
        assert splits.train.index.tolist() == list(range(10_000, 10_008))
        assert torch.equal(splits.train.x, torch.from_numpy(planes[:8]))
        assert splits.train.u is not None
        assert splits.train.u.tolist() == list(range(8))
        assert torch.equal(splits.test.x, torch.from_numpy(planes[8:]))
        written(tmp_path / "cifar-10-batches-py/test_batch", b"the pickle comes first, and is none")
        with refused("cifar-10-batches-py/test_batch: expected content with md5:"):
            draw_data(config)

    def test_a_batch_of_cifar10_is_named_once(self) -> None:
        with refused("different batches", "[1, 1]"):
            CIFAR10(**ROWS, u="class", root=None, batches=[1, 1])

    @pytest.mark.parametrize(("part", "first", "classes"), [("letters", 1, 26), ("digits", 0, 10)])
    def test_emnist_is_turned_and_counted_from_0(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: Any, first: int, classes: int
    ) -> None:
        unchecked(monkeypatch, "emnist")
        images = {"train": grey(40, 28, 28), "test": grey(30, 28, 28)}
        for name, x in images.items():
            labels = (np.arange(len(x)) % classes + first).astype(np.uint8)
            written(tmp_path / f"emnist/emnist-{part}-{name}-images-idx3-ubyte.gz", idx(x.swapaxes(1, 2)))
            written(tmp_path / f"emnist/emnist-{part}-{name}-labels-idx1-ubyte", idx(labels))
        rows: dict[str, Any] = {"train_rows": None, "valid_rows": 10, "test_rows": None}
        splits = EMNIST(**rows, **GREY, part=part, root=str(tmp_path))(0)
        published = torch.from_numpy(np.concatenate([*images.values()]))  # as one reads them
        for _, rows_ in splits.items():
            assert torch.equal(rows_.x.reshape(-1, 28, 28), published[rows_.index])
            assert rows_.u is not None
            assert torch.equal(rows_.u, torch.where(rows_.index < 40, rows_.index, rows_.index - 40) % classes)
        assert ids(splits.test) == set(range(40, 70))
        assert splits.spec.u_dim == classes

    def test_svhn(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        unchecked(monkeypatch, "svhn")
        (tmp_path / "svhn").mkdir()
        for name, rows in (("train", 30), ("test", 20)):
            content = {"X": grey(32 * 32 * 3, rows, 1).reshape(32, 32, 3, rows), "y": np.full((rows, 1), 10, np.uint8)}
            savemat(tmp_path / f"svhn/{name}_32x32.mat", content)
        splits = SVHN(train_rows=None, valid_rows=5, test_rows=None, u="class", root=str(tmp_path))(0)
        images, _ = formats.read_svhn(tmp_path / "svhn/test_32x32.mat")
        assert torch.equal(splits.test.x.reshape(-1, 3, 32, 32), torch.from_numpy(images).permute(0, 3, 1, 2))
        assert ids(splits.test) == set(range(30, 50))
        assert ids(splits.train) | ids(splits.valid) == set(range(30))
        assert splits.test.u is not None
        assert not splits.test.u.any()

    @pytest.fixture
    def sprites(self) -> Callable[..., Splits]:
        shared("dsprites/dsprites_downsampled.npz")
        return of_sprites

    @pytest.mark.slow
    def test_dsprites_know_their_factors(self, sprites: Callable[..., Splits]) -> None:
        splits = sprites()
        truth = formats.read_dsprites(shared("dsprites/dsprites_downsampled.npz"))
        for _, part in splits.items():
            assert torch.equal(part.x, torch.from_numpy(truth.images.reshape(-1, 4096))[part.index] * 255)
            assert part.z is not None
            assert part.u is not None
            assert part.z.dtype == torch.float32
            np.testing.assert_allclose(part.z, truth.values[part.index], rtol=1e-6)
            assert torch.equal(part.u, part.z[:, 0].long() - 1)
            assert set(part.u.tolist()) == {0, 1, 2}
        assert (splits.spec.source_dim, splits.spec.u_dim, splits.spec.binary) == (5, 3, True)
        assert splits.spec.image == Image(1, 64, 64)
        assert sprites("none").test.u is None
        assert sprites("none").test.z is not None

    def test_the_colour_of_the_full_dsprites_is_no_source(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unchecked(monkeypatch, "dsprites")
        counted = np.stack(np.meshgrid([0], *[range(3)] * 5, indexing="ij"), -1).reshape(-1, 6)  # (243, 6)
        path = tmp_path / CATALOGUE["dsprites"].parts["full"][0].path
        path.parent.mkdir()
        np.savez(path, imgs=grey(243, 64, 64) // 128, latents_classes=counted, latents_values=counted / 2 + 1)
        part = DSprites(**ROWS, u="shape", part="full", root=str(tmp_path))(0).test
        np.testing.assert_array_equal(part.z, counted[part.index, 1:] / 2 + 1)
        np.testing.assert_array_equal(part.u, counted[part.index, 1])

    def test_dsprites_position_is_where_the_white_pixels_are(self, sprites: Callable[..., Splits]) -> None:
        part = sprites().train
        white = part.x.reshape(-1, 64, 64).double() / 255
        across = (white.sum(1) * torch.arange(64)).sum(1) / white.sum((1, 2))
        assert part.z is not None
        assert np.corrcoef(across, part.z[:, 3])[0, 1] > 0.99

    def test_a_vae_of_sprites_gets_as_many_latents_as_there_are_factors(self, sprites: Callable[..., Splits]) -> None:
        config = settings("data=dsprites", "model=vae", "model/likelihood=images").config
        assert build_model(config, sprites().spec).latent_dim == 5


class TestRoot:
    @pytest.mark.parametrize("name", ["mnist", "cifar10"])
    def test_where_files_lie_is_no_part_of_what_a_run_is(self, name: str) -> None:
        here, there = settings(f"data={name}"), settings(f"data={name}", "data.root=/somewhere/else")
        assert here.folder == there.folder
        assert here.fingerprint == there.fingerprint
        assert cell_digest(here.plain()) == cell_digest(there.plain())
        assert here.fingerprint != settings(f"data={name}", "data.train_rows=7").fingerprint

    def test_runs_of_two_roots_have_one_shape(self) -> None:
        from ivae_lab.training.planner import shape

        assert shape(settings("data=mnist")) == shape(settings("data=mnist", "data.root=x", "data.seed=9"))

    def test_a_configuration_keeps_the_name_that_it_had_before_there_were_images(self) -> None:
        plain: Any = {**{key: {"a": 1} for key in ("model", "prior", "trainer", "metric")}, "data": {"seed": 1}}
        assert (cell_digest(plain), run_digest(plain, [0, 1])) == ("d214496615", "46ca0ec7f4")

    def test_missing_files_are_one_line_and_exit_code_2(
        self, tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("IVAE_LAB_DATA", str(tmp_path / "nothing"))
        arguments = ("data=mnist", "model=vae", "model/likelihood=images", "model.latent_dim=2")
        outcome = inside(*arguments, cwd=tmp_path)
        assert outcome.code == 2
        assert outcome.err.count("\n") == 1
        told = ("ivae_lab.train: data: expected in", "nothing", "train-images-idx3-ubyte", "ivae_lab.fetch mnist root=")
        assert all(part in outcome.err for part in told), outcome.err
        assert not (tmp_path / "outputs").exists()

    @pytest.mark.slow
    def test_digits_run_from_the_command_line(self, tmp_path: Path, inside: Inside) -> None:
        arguments = ("data=digits", "model=vae", "model/likelihood=images", "model.latent_dim=2", "trainer.steps=20")
        outcome = inside(*arguments, "seed=[0,1]", "compute.threads=1", "data.test_rows=50", cwd=tmp_path)
        assert outcome.code == 0, outcome.err
        (folder,) = (tmp_path / "outputs").glob("digits-vae-*")
        with np.load(folder / "latents.npz") as latents:
            assert latents["mean"].shape == (2, 50, 2)
            assert set(latents["split"].tolist()) == {"test"}
            assert len(set(latents["index"].tolist())) == 50
        assert OmegaConf.load(folder / "config.yaml").data.test_rows == 50
