"""Readers of image files: round trips, damage of every kind, and the real files where they are."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from scipy.io import savemat

from ivae_lab.data.images.formats import read_cifar10, read_dsprites, read_idx, read_idx_pair, read_svhn, upright
from tests.images import idx, refused, refuses, shared, written
from tests.profiles import examples

FILES = settings(max_examples=examples(40))
ANY_BYTES = arrays(np.uint8, array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=6))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For all examples of hypothesis, which calls a test many times with one tmp_path."""
    return tmp_path_factory.mktemp("examples")


# IDX


@FILES
@given(array=ANY_BYTES, suffix=st.sampled_from(["", ".gz"]))
def test_idx_round_trip(folder: Path, array: NDArray[np.uint8], suffix: str) -> None:
    found = read_idx(written(folder / f"file{suffix}", idx(array)))
    assert found.dtype == np.uint8
    assert found.flags.writeable
    np.testing.assert_array_equal(found, array, strict=True)


@FILES
@given(array=ANY_BYTES, data=st.data())
def test_idx_of_another_length_is_refused(folder: Path, array: NDArray[np.uint8], data: st.DataObject) -> None:
    content = idx(array)
    keep = data.draw(st.integers(0, len(content) - 1))
    refuses(read_idx, written(folder / "file", content[:keep]))
    refuses(read_idx, written(folder / "file", content + b"\0"), f"got {array.size + 1}")


@FILES
@given(array=ANY_BYTES, data=st.data())
def test_truncated_gzip_is_refused(folder: Path, array: NDArray[np.uint8], data: st.DataObject) -> None:
    content = gzip.compress(idx(array), mtime=0)
    path = folder / "file.idx"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    refuses(read_idx, path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "got nothing"),
        (b"\0\0\x08", "got 00 00 08"),
        (b"<htm", "got 3c 68 74 6d"),
        (b"\0\0\x0d\x01\0\0\0\0", "got 00 00 0d 01"),  # floats
        (b"\0\0\x08\x03\0\0\0\x01", "expected a header of 16 bytes for 3 dimensions, got 8 bytes"),
        (b"\0\0\x08\x41" + bytes(4 * 65), "expected at most 64 dimensions, got 65"),
        (b"\0\0\x08\x02" + b"\xff" * 8, "expected 18446744065119617025 bytes"),
    ],
)
def test_not_idx(tmp_path: Path, content: bytes, told: str) -> None:
    refuses(read_idx, written(tmp_path / "file", content), told)


def test_not_gzip(tmp_path: Path) -> None:
    path = tmp_path / "labels.gz"
    path.write_bytes(idx(np.zeros(3, np.uint8)))
    refuses(read_idx, path, "expected gzip, got a file that starts with 00 00")
    path.write_bytes(gzip.compress(b"\0" * 100)[:-8] + b"x" * 8)
    refuses(read_idx, path, "expected a whole gzip file")


def test_missing_file_is_missing(tmp_path: Path) -> None:
    for read in (read_idx, read_cifar10, read_svhn, read_dsprites):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "absent")


def test_pairs(tmp_path: Path) -> None:
    x = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    images = written(tmp_path / "x.gz", idx(x))
    labels = written(tmp_path / "y", idx(np.array([1, 26], np.uint8)))
    found, y = read_idx_pair(images, labels, range(1, 27))
    np.testing.assert_array_equal(found, x)
    assert y.tolist() == [1, 26]
    assert y.dtype == np.int64
    with refused(str(labels), "expected labels from 0 to 9, got 26"):
        read_idx_pair(images, labels, range(10))
    with refused(str(labels), "three dimensions"):
        read_idx_pair(labels, labels, range(27))
    with refused(str(labels), "expected 2 labels, one for each image, got the shape (3,)"):
        read_idx_pair(images, written(labels, idx(np.zeros(3, np.uint8))), range(10))


def test_upright_is_its_own_inverse() -> None:
    x = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert upright(x)[1, 3, 2] == x[1, 2, 3]
    assert upright(x).flags.c_contiguous
    np.testing.assert_array_equal(upright(upright(x)), x)


# CIFAR-10


def batch(rows: int = 3, **changes: Any) -> dict[Any, Any]:
    data = np.random.default_rng(0).integers(0, 256, (rows, 3072), np.uint8)
    return {"data": data, "labels": [n % 10 for n in range(rows)], **changes}


def pixels(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixel by pixel, as the publisher's page describes a row: red, green, blue planes, each by rows."""
    found = np.empty((len(data), 32, 32, 3), np.uint8)
    for row, column, channel in itertools.product(range(32), range(32), range(3)):
        found[:, row, column, channel] = data[:, 1024 * channel + 32 * row + column]
    return found


def old_names(content: bytes) -> bytes:
    """As NumPy 1 wrote it."""
    return content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


@pytest.mark.parametrize("order", ["C", "F"])
def test_pickled_batch(tmp_path: Path, order: Any) -> None:
    made = batch()
    content = pickle.dumps({**made, "data": np.asarray(made["data"], order=order)}, protocol=4)
    images, labels = read_cifar10(written(tmp_path / "data_batch_1", content))
    np.testing.assert_array_equal(images, pixels(made["data"]))
    assert images.flags.c_contiguous
    assert labels.tolist() == [0, 1, 2]
    assert labels.dtype == np.int64


def python2(rows: int) -> bytes:
    """A batch as Python 2 and NumPy 1 wrote it: protocol 2, byte strings."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little")

    content = bytes(range(256)) * (12 * rows)
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + text(b"b") + b"\x87R"
    dtype = (
        b"cnumpy\ndtype\n"
        + text(b"u1")
        + b"K\0K\1\x87R(K\3"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    )
    state = b"(K\1" + number(rows) + number(3072) + b"\x86" + dtype + b"\x89T" + len(content).to_bytes(4, "little")
    labels = b"](" + b"".join(b"K" + bytes([n % 10]) for n in range(rows)) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + state + content + b"tb" + text(b"labels") + labels + b"u."


def test_pickle_of_python_2(tmp_path: Path) -> None:
    images, labels = read_cifar10(written(tmp_path / "data_batch_1", python2(3)))
    np.testing.assert_array_equal(images, pixels(np.tile(np.arange(256, dtype=np.uint8), 36).reshape(3, 3072)))
    assert labels.tolist() == [0, 1, 2]


def test_binary_batch_is_the_pickled_one(tmp_path: Path) -> None:
    made = batch(5)
    rows = np.c_[np.array(made["labels"], np.uint8), made["data"]].tobytes()
    binary = read_cifar10(written(tmp_path / "data_batch_1.bin", rows))
    pickled = read_cifar10(written(tmp_path / "data_batch_1", pickle.dumps(made, protocol=4)))
    for one, other in zip(binary, pickled, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("content", [b"", bytes(3072), bytes(3074)])
def test_binary_of_another_length_is_refused(tmp_path: Path, content: bytes) -> None:
    refuses(read_cifar10, written(tmp_path / "a.bin", content), f"rows of 3073 bytes, got {len(content)} bytes")


def test_binary_labels_are_checked(tmp_path: Path) -> None:
    refuses(read_cifar10, written(tmp_path / "a.bin", b"\x0a" + bytes(3072)), "expected labels from 0 to 9, got 10")


class Malicious:
    """Writes a file when it is unpickled by Python's own unpickler."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.target, "executed")


@pytest.mark.parametrize("where", ["data", "labels", "more"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_malicious_pickle_is_refused_and_not_executed(tmp_path: Path, where: str, protocol: int) -> None:
    target = tmp_path / "executed"
    made = {"data": [], "labels": [], where: Malicious(target)}
    path = written(tmp_path / "data_batch_1", pickle.dumps(made, protocol=protocol))
    refuses(read_cifar10, path, "expected a pickle of arrays and plain containers, got: ", "which is not executed")
    assert not target.exists()


@pytest.mark.parametrize(
    "named",
    ["os\nsystem", "builtins\neval", "builtins\ngetattr", "numpy\nload", "numpy.testing._private.utils\nrunstring"],
)
def test_functions_are_refused(tmp_path: Path, named: str) -> None:
    path = written(tmp_path / "data_batch_1", f"c{named}\n(S'0'\ntR.".encode())
    refuses(read_cifar10, path, named.replace("\n", "."))


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    content = pickle.dumps(batch(data=np.array([None])), protocol=4)
    refuses(read_cifar10, written(tmp_path / "data_batch_1", content), "an array of the type 'O8'")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": np.zeros((3, 3073), np.uint8)}, "expected data of the shape (N, 3072), got the shape (3, 3073)"),
        ({"data": b"x"}, "expected data of the shape (N, 3072), got bytes"),
        ({"labels": [1, 2]}, "expected 3 labels, one for each image, got 2"),
        ({"labels": (1, 2, 3)}, "expected labels to be a list of integers, got tuple"),
        ({"labels": [1, "2", 3]}, "expected labels to be a list of integers, got list"),
        ({"labels": [1, 2, -1]}, "expected labels from 0 to 9, got -1"),
        ({"labels": [1, 2, 10**30]}, f"expected labels from 0 to 9, got {10**30}"),
    ],
)
def test_batches_without_what_is_needed(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    refuses(read_cifar10, written(tmp_path / "data_batch_1", pickle.dumps(batch(**changes), protocol=4)), told)


def test_pickle_of_something_else(tmp_path: Path) -> None:
    refuses(read_cifar10, written(tmp_path / "file", pickle.dumps([1])), "expected a dictionary", "got list")
    refuses(read_cifar10, written(tmp_path / "file", python2(1) + b"xy"), "nothing after the pickle, got 2 bytes")


@FILES
@given(data=st.data())
def test_truncated_pickle_is_refused(folder: Path, data: st.DataObject) -> None:
    content = python2(1)
    refuses(read_cifar10, written(folder / "file", content[: data.draw(st.integers(0, len(content) - 1))]))


@FILES
@given(where=st.integers(0, 200), value=st.integers(0, 255))
def test_damaged_pickle_reads_or_is_refused(folder: Path, where: int, value: int) -> None:
    content = bytearray(python2(1))
    content[where] = value
    with contextlib.suppress(ValueError):  # and nothing else is raised
        assert read_cifar10(written(folder / "file", bytes(content)))[0].shape[1:] == (32, 32, 3)


# SVHN


def test_svhn(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), np.uint8)
    path = tmp_path / "test_32x32.mat"
    savemat(path, {"X": x, "y": np.array([[10], [1], [9], [5]], np.uint8)}, do_compression=True)
    path = written(tmp_path / "test_32x32.mat.gz", path.read_bytes())
    images, labels = read_svhn(path)
    assert images.shape == (4, 32, 32, 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[2], x[..., 2])
    assert images.flags.c_contiguous
    assert labels.tolist() == [0, 1, 9, 5]
    assert labels.dtype == np.int64


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"y": [[1]]}, "expected X of uint8 and the shape (32, 32, 3, N), got none"),
        ({"X": np.zeros((32, 32, 3, 2))}, "got float64 of the shape (32, 32, 3, 2)"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8)}, "expected y of the shape (2, 1), got none"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[1, 2]]}, "expected y of the shape (2, 1), got int64"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[0], [2]]}, "expected labels from 1 to 10, got 0"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[1.5], [2]]}, "expected labels from 1 to 10, got 1.5"),
    ],
)
def test_other_matlab_files(tmp_path: Path, content: dict[str, Any], told: str) -> None:
    path = tmp_path / "train_32x32.mat"
    savemat(path, content)
    refuses(read_svhn, path, told)


@FILES
@given(data=st.data())
def test_truncated_matlab_file_is_refused(folder: Path, data: st.DataObject) -> None:
    path = folder / "a.mat"
    savemat(path, {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[1], [2]]}, do_compression=True)
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy's, about damage; the refusal is what counts
        refuses(read_svhn, path)


# dSprites


def sprites(**changes: Any) -> dict[str, Any]:
    grid = np.indices((3, 2)).reshape(2, -1).T
    return {
        "imgs": np.ones((6, 64, 64), np.uint8),
        "latents_classes": grid,
        "latents_values": grid / 2,
        "metadata": np.array({"a": 1}, object),
        **changes,
    }


def test_dsprites(tmp_path: Path) -> None:
    made = sprites()
    np.savez_compressed(tmp_path / "a.npz", **made)
    found = read_dsprites(tmp_path / "a.npz")
    for array, name in zip(found, ("imgs", "latents_classes", "latents_values"), strict=True):
        np.testing.assert_array_equal(array, made[name], strict=True)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"imgs": np.ones((6, 64, 63), np.uint8)}, "got uint8 of the shape (6, 64, 63)"),
        ({"imgs": np.full((6, 64, 64), 255, np.uint8)}, "(6, 64, 64) up to 255"),
        ({"imgs": np.array([None])}, "expected a .npz with imgs"),
        ({"latents_classes": np.zeros((5, 2), int)}, "expected latents_classes of integers, (6, factors)"),
        ({"latents_values": np.zeros((6, 3))}, "expected latents_values of numbers, (6, 2)"),
        ({"latents_values": np.full((6, 2), np.nan)}, "expected latents_values of numbers"),
    ],
)
def test_other_archives(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    np.savez(tmp_path / "a.npz", **sprites(**changes))
    refuses(read_dsprites, tmp_path / "a.npz", told)


def test_archives_without_an_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", imgs=np.ones((6, 64, 64), np.uint8))
    refuses(read_dsprites, tmp_path / "a.npz", "latents_classes is not a file in the archive")
    np.save(tmp_path / "a.npy", np.ones(3))
    refuses(read_dsprites, tmp_path / "a.npy")


@FILES
@given(data=st.data())
def test_truncated_archive_is_refused(folder: Path, data: st.DataObject) -> None:
    path = folder / "a.npz"
    np.savez_compressed(path, **sprites())
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    refuses(read_dsprites, path)


# The real files


@pytest.mark.parametrize(
    ("part", "rows", "first"), [("train", 60_000, [5, 0, 4, 1, 9]), ("t10k", 10_000, [7, 2, 1, 0, 4])]
)
def test_real_mnist(part: str, rows: int, first: list[int]) -> None:
    x, y = (shared(f"mnist/{part}-{name}-ubyte.gz") for name in ("images-idx3", "labels-idx1"))
    images, labels = read_idx_pair(x, y, range(10))
    assert images.shape == (rows, 28, 28)
    assert labels[:5].tolist() == first
    assert set(labels.tolist()) == set(range(10))


def test_real_emnist_letters() -> None:
    x, y = (shared(f"emnist/emnist-letters-test-{name}-ubyte.gz") for name in ("images-idx3", "labels-idx1"))
    images, labels = read_idx_pair(x, y, range(1, 27))
    assert images.shape == (20_800, 28, 28)
    assert np.bincount(labels).tolist() == [0, *[800] * 26]
    letter = upright(images)[labels == 22].mean(0)  # the mean V is as wide to the left as to the right, not below
    across, along = (np.corrcoef(letter.ravel(), np.flip(letter, axis).ravel())[0, 1] for axis in (1, 0))
    assert across > along + 0.1


@pytest.mark.parametrize(("name", "first"), [("data_batch_1", [6, 9, 9, 4, 1]), ("test_batch", [3, 8, 8, 0, 6])])
def test_real_cifar10(name: str, first: list[int]) -> None:
    images, labels = read_cifar10(shared(f"cifar-10-batches-py/{name}"))
    assert images.shape == (10_000, 32, 32, 3)
    assert labels[:5].tolist() == first
    steps = [np.abs(np.diff(images[:500].astype(int), axis=axis)).mean() for axis in (1, 2)]
    assert max(steps) < 20  # neighbouring pixels are alike along rows and columns


@pytest.mark.slow
def test_real_dsprites_are_full_factorial() -> None:
    images, classes, values = read_dsprites(shared("dsprites/dsprites_downsampled.npz"))
    assert images.shape == (46_080, 64, 64)
    sizes = classes.max(0) + 1
    assert sizes.tolist() == [3, 6, 10, 16, 16]
    assert sorted(map(tuple, classes.tolist())) == list(itertools.product(*map(range, sizes)))
    assert len(np.unique(values, axis=0)) == len(values)
