"""Readers of the files that image data sets are published in: they return arrays, or raise an error of one line.

Files come from the internet, so no code in them is executed: pickles pass through an unpickler that knows uint8 arrays
and plain containers only, and `.npz` members that are pickled objects are not opened.
"""

from __future__ import annotations

import gzip
import io
import math
import pickle
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ivae_lab.terminal.messages import one_line

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

_GZIP = b"\x1f\x8b"
_UINT8 = 0x08  # IDX's code of unsigned bytes, the only type that image data sets use
_MOST_DIMENSIONS = 64  # NumPy's limit
_PIXELS = 3 * 32 * 32  # of a CIFAR-10 image: three planes
_ROW = 1 + _PIXELS  # of CIFAR-10's binary version: the label first


class Sprites(NamedTuple):
    """Images of a `.npz` of dSprites, and the factors that they were drawn from."""

    images: Images  # 0 or 1, (N, 64, 64)
    classes: Labels  # of each factor, counted from 0, (N, factors)
    values: NDArray[np.float64]  # the same as scales, radians, places, (N, factors)


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """Open a file for reading, through gzip where it is gzip.

    Raises
    ------
    ValueError
        If it is named `.gz` and is not gzip, or its gzip stream is found damaged or cut off while it is read.
    """
    with path.open("rb") as handle:
        start = handle.read(2)
        handle.seek(0)
        if start != _GZIP:
            if path.suffix == ".gz":
                raise ValueError(f"{path}: expected gzip, got a file that starts with {start.hex(' ') or 'nothing'}")
            yield handle
            return
        try:
            with gzip.open(handle) as unpacked:
                yield unpacked
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: expected a whole gzip file, got: {error}") from None


def _content(path: Path) -> bytes:
    with opened(path) as handle:
        return handle.read()


def read_idx(path: Path) -> Images:
    """Array of an IDX file of unsigned bytes (MNIST, EMNIST), plain or gzip, with any number of dimensions.

    Raises
    ------
    ValueError
        If it is no such file, or is longer or shorter than its header states.
    """
    content = _content(path)
    shape, start = _idx_header(path, content)
    expected, got = math.prod(shape), len(content) - start
    if got != expected:
        raise ValueError(f"{path}: expected {expected} bytes of data for the shape {shape}, got {got}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()  # writable, as torch wants it


def _idx_header(path: Path, content: bytes) -> tuple[tuple[int, ...], int]:
    """The shape, and where the data start."""
    if len(content) < 4 or content[:3] != bytes([0, 0, _UINT8]):
        raise ValueError(
            f"{path}: expected an IDX file of bytes (00 00 08 ..), got {content[:4].hex(' ') or 'nothing'}"
        )
    count = content[3]
    start = 4 + 4 * count
    if len(content) < start:
        raise ValueError(f"{path}: expected a header of {start} bytes for {count} dimensions, got {len(content)} bytes")
    if count > _MOST_DIMENSIONS:
        raise ValueError(f"{path}: expected at most {_MOST_DIMENSIONS} dimensions, got {count}")
    return struct.unpack(f">{count}I", content[4:start]), start


def read_idx_pair(images: Path, labels: Path, expected: range) -> tuple[Images, Labels]:
    """Images (N, H, W) and their labels (N,) of two IDX files; `expected` are the labels that there may be."""
    x, y = read_idx(images), read_idx(labels)
    if x.ndim != 3:
        raise ValueError(f"{images}: expected images of three dimensions (N, H, W), got the shape {x.shape}")
    if y.shape != x.shape[:1]:
        raise ValueError(f"{labels}: expected {len(x)} labels, one for each image, got the shape {y.shape}")
    return x, _checked(labels, y, expected)


def upright(images: Images) -> Images:
    """EMNIST's images as one reads them: its files hold every image transposed, (N, H, W) to (N, W, H)."""
    return np.ascontiguousarray(images.swapaxes(1, 2))


def read_cifar10(path: Path) -> tuple[Images, Labels]:
    """Images (N, 32, 32, 3) and labels (N,) of one batch of CIFAR-10: its binary version if named `.bin`, or a pickle.

    Raises
    ------
    ValueError
        If it is not such a batch, or is a pickle that asks for anything but uint8 arrays and plain containers.
    """
    content = _content(path)
    read = _binary_batch if path.name.removesuffix(".gz").endswith(".bin") else _pickled_batch
    planes, labels = read(path, content)
    images = planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # (N, 32, 32, 3)
    return np.ascontiguousarray(images), _checked(path, labels, range(10))


def _binary_batch(path: Path, content: bytes) -> tuple[Images, NDArray[Any]]:
    if not content or len(content) % _ROW:
        raise ValueError(f"{path}: expected rows of {_ROW} bytes, got {len(content)} bytes")
    rows = np.frombuffer(content, np.uint8).reshape(-1, _ROW)
    return rows[:, 1:], rows[:, 0]


def _pickled_batch(path: Path, content: bytes) -> tuple[Images, NDArray[Any]]:
    batch = _unpickle(path, content)
    if not isinstance(batch, dict):
        raise ValueError(f"{path}: expected a dictionary with data and labels, got {type(batch).__name__}")
    entries = {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
    data, labels = entries.get("data"), entries.get("labels")
    images = data.value if isinstance(data, _Array) else None
    if images is None or images.ndim != 2 or images.shape[1] != _PIXELS:
        got = type(data).__name__ if images is None else f"the shape {images.shape}"
        raise ValueError(f"{path}: expected data of the shape (N, {_PIXELS}), got {got}")
    if not isinstance(labels, list) or any(type(label) is not int for label in labels):
        raise ValueError(f"{path}: expected labels to be a list of integers, got {type(labels).__name__}")
    if len(labels) != len(images):
        raise ValueError(f"{path}: expected {len(images)} labels, one for each image, got {len(labels)}")
    return images, np.array(labels, object)  # as objects: an integer of any size is compared, none overflows


class _Dtype:
    """Takes the place of `numpy.dtype` in a pickle."""

    def __init__(self, code: object, *_: object) -> None:
        if code not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"an array of the type {code!r}")

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and flags, which single bytes do not need."""


class _Array:
    """Takes the place of `numpy.ndarray`: NumPy's own would trust the sizes and flags that a pickle gives it."""

    value: Images | None = None

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, bytes]) -> None:
        """Restore the state that `ndarray.__reduce__` wrote."""
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array without bytes")
        self.value = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Unpickler(pickle.Unpickler):
    """Admits arrays of bytes, containers, text and numbers; anything else that a pickle names is refused."""

    _KNOWN = {  # noqa: RUF012 (never changed)
        ("numpy", "dtype"): _Dtype,
        ("numpy", "ndarray"): _Array,
        ("numpy.core.multiarray", "_reconstruct"): _Array,  # NumPy before 2
        ("numpy._core.multiarray", "_reconstruct"): _Array,
    }

    def find_class(self, module: str, name: str) -> type:
        """Look up a class that a pickle names."""
        try:
            return self._KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name}, which is not executed") from None


def _unpickle(path: Path, content: bytes) -> object:
    stream = io.BytesIO(content)
    try:
        loaded: object = _Unpickler(stream, encoding="bytes").load()  # Python 2 wrote the originals
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(f"{path}: expected a pickle of arrays and plain containers, got: {one_line(error)}") from None
    if stream.read(1):
        raise ValueError(f"{path}: expected nothing after the pickle, got {len(content) - stream.tell() + 1} bytes")
    return loaded


def read_svhn(path: Path) -> tuple[Images, Labels]:
    """Images (N, 32, 32, 3) and labels (N,) of a `.mat` of SVHN's cropped digits; its label 10 is the digit 0.

    Raises
    ------
    ValueError
        If it is not a MATLAB v5 file with X (32, 32, 3, N) and y (N, 1).
    """
    from scipy.io import loadmat

    stream: Any = io.BytesIO(_content(path))  # SciPy's types know paths only
    try:
        content = loadmat(stream, variable_names=("X", "y"))
    except Exception as error:  # a damaged file may raise anything
        raise ValueError(f"{path}: expected a MATLAB v5 file, got: {one_line(error)}") from None
    x, y = content.get("X"), content.get("y")
    if x is None or x.dtype != np.uint8 or x.ndim != 4 or x.shape[:3] != (32, 32, 3):
        raise ValueError(f"{path}: expected X of uint8 and the shape (32, 32, 3, N), got {_told(x)}")
    if y is None or y.dtype.kind not in "uif" or y.shape != (x.shape[3], 1):
        raise ValueError(f"{path}: expected y of the shape ({x.shape[3]}, 1), got {_told(y)}")
    return np.ascontiguousarray(x.transpose(3, 0, 1, 2)), _checked(path, y[:, 0], range(1, 11)) % 10


def read_dsprites(path: Path) -> Sprites:
    """Images and factors of a `.npz` of dSprites; the full one takes 3 GB of memory.

    Raises
    ------
    ValueError
        If it is not one. Its pickled member, `metadata`, is not opened.
    """
    names = ("imgs", "latents_classes", "latents_values")
    stream = io.BytesIO(_content(path))  # not by name: NumPy leaves a damaged file open
    try:
        with np.load(stream, allow_pickle=False) as archive:
            images, classes, values = (archive[name] for name in names)
    except Exception as error:  # a damaged archive may raise anything
        raise ValueError(f"{path}: expected a .npz with {', '.join(names)}, got: {one_line(error)}") from None
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (64, 64) or images.max(initial=0) > 1:
        raise ValueError(f"{path}: expected imgs of 0 and 1, uint8, (N, 64, 64), got {_told(images)}")
    if classes.dtype.kind not in "iu" or classes.ndim != 2 or len(classes) != len(images):
        raise ValueError(
            f"{path}: expected latents_classes of integers, ({len(images)}, factors), got {_told(classes)}"
        )
    if values.dtype.kind != "f" or values.shape != classes.shape or not np.isfinite(values).all():
        raise ValueError(f"{path}: expected latents_values of numbers, {classes.shape}, got {_told(values)}")
    return Sprites(images, classes.astype(np.int64), values.astype(np.float64))


def _told(array: NDArray[Any] | None) -> str:
    if array is None:
        return "none"
    largest = f" up to {array.max()}" if array.size and array.dtype.kind in "uif" else ""
    return f"{array.dtype} of the shape {array.shape}{largest}"


def _checked(path: Path, labels: NDArray[Any], expected: range) -> Labels:
    wrong = [label for label in np.unique(labels).tolist() if label not in expected]
    if wrong:
        raise ValueError(f"{path}: expected labels from {expected[0]} to {expected[-1]}, got {wrong[0]}")
    return labels.astype(np.int64)
