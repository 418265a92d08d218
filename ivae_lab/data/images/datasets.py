"""Published images as data sets: the data seed draws their rows, splits and binarises them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge, Le, Len
from numpy.random import Generator, default_rng
from torch import Tensor

from ivae_lab.config.numbers import Count, PositiveInt
from ivae_lab.core.data import Batch, DataSpec, Image, Splits
from ivae_lab.data.images import formats
from ivae_lab.data.images.catalogue import data_root, locate

Binarisation = Literal["fresh", "fixed", "none"]
_WHITE = 255
_BATCH = 10_000  # rows of a file of CIFAR-10


@dataclass(frozen=True, kw_only=True)
class Images:
    """Rows of published images; the id of a row is its position in the published files, whatever rows are drawn.

    The data seed draws the rows: validation rows are taken out of the published training part, and so are test rows if
    no test part is published. The rows of a part do not depend on the sizes of the parts after it, in the order test,
    validation, training. Only validation and test rows are scored.

    Parameters
    ----------
    train_rows, valid_rows, test_rows
        Number of rows; null: all remaining ones.
    u
        The label of a row, or `none`.
    """

    train_rows: PositiveInt | None
    valid_rows: Count
    test_rows: PositiveInt | None
    u: str

    image: ClassVar[Image]
    binary: ClassVar[bool]

    def published(self) -> tuple[Batch, Batch | None]:
        """All rows of the training part and of the test part, if there is one, with labels as u; x are bytes."""
        raise NotImplementedError

    @property
    def classes(self) -> int:
        """The number of labels."""
        return 10

    def __call__(self, seed: int) -> Splits:
        """Draw the rows of this seed.

        Raises
        ------
        MissingDataError
            If the files are not there.
        ValueError
            If they are not as published, or have fewer rows than requested.
        """
        rng = default_rng([seed, 1])
        whole, published_test = self.published()
        for_test, for_training = {"test": self.test_rows}, {"valid": self.valid_rows, "train": self.train_rows}
        if published_test is None:
            parts = _drawn(whole, for_test | for_training, rng)
        else:
            parts = _drawn(published_test, for_test, rng) | _drawn(whole, for_training, rng)
        if self.u == "none":
            parts = {name: replace(part, u=None) for name, part in parts.items()}
        spec = DataSpec(
            x_dim=whole.x.shape[1],
            u_dim=0 if self.u == "none" else self.classes,
            source_dim=None if whole.z is None else whole.z.shape[1],
            train_rows=len(parts["train"]),
            binary=self.binary,
            image=self.image,
        )
        return Splits(parts["train"], parts["valid"], parts["test"], spec, scored=("valid", "test"))


@dataclass(frozen=True, kw_only=True)
class GreyImages(Images):
    """Grey images, whose bytes b may stand for the probability b / 255 of a 1.

    Parameters
    ----------
    binarisation
        Binarisation of the training part: `fresh`, drawn anew at every step; `fixed`, drawn once with the data seed;
        `none`.
    test_binarisation
        Binarisation of the validation and test parts.
    """

    u: Literal["class", "none"]
    binarisation: Binarisation
    test_binarisation: Binarisation

    binary = True

    def __post_init__(self) -> None:
        fresh = self.binarisation == "fresh"
        if self.test_binarisation == ("none" if fresh else "fresh"):  # `redrawn` applies to all parts at once
            expected = "fixed or fresh" if fresh else "fixed or none"
            raise ValueError(
                f"expected test_binarisation {expected} with binarisation={self.binarisation}, "
                f"got {self.test_binarisation}"
            )

    def __call__(self, seed: int) -> Splits:
        """Draw the rows of this seed, and binarise those that are `fixed`."""
        splits = super().__call__(seed)
        deviation = _deviations(splits.train.x)
        if self.binarisation == "fixed":
            splits = replace(splits, train=binarise(splits.train, seed))
        if self.test_binarisation == "fixed":
            splits = replace(splits, valid=binarise(splits.valid, seed), test=binarise(splits.test, seed))
        image = replace(self.image, redrawn=self.binarisation == "fresh", deviation=deviation)
        return replace(splits, spec=replace(splits.spec, image=image))


@dataclass(frozen=True, kw_only=True)
class Digits(GreyImages):
    """The 1,797 handwritten digits that come with scikit-learn, of 17 grey levels (Alpaydin and Kaynak 1998)."""

    image = Image(1, 8, 8)

    def published(self) -> tuple[Batch, None]:
        """All rows: there is no test part."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        levels = np.rint(digits.images * (_WHITE / 16)).astype(np.uint8)
        return _rows(levels, digits.target.astype(np.int64)), None


@dataclass(frozen=True, kw_only=True)
class MNIST(GreyImages):
    """Handwritten digits (LeCun et al. 1998). `root` is the folder of all data sets, see `catalogue.data_root`."""

    root: str | None

    image = Image(1, 28, 28)

    def published(self) -> tuple[Batch, Batch]:
        """60,000 and 10,000 rows."""
        (x, u), (test_x, test_u) = (_idx("mnist", part, self.root, range(10)) for part in ("train", "test"))
        return _rows(x, u), _rows(test_x, test_u, start=len(x))


@dataclass(frozen=True, kw_only=True)
class EMNIST(GreyImages):
    """Handwritten letters, upper and lower case under one label, or digits (Cohen et al. 2017).

    Parameters
    ----------
    part
        `letters`: 26 classes, of 124,800 and 20,800 rows; `digits`: 240,000 and 40,000 rows.
    root
        As of MNIST.
    """

    part: Literal["letters", "digits"]
    root: str | None

    image = Image(1, 28, 28)

    @property
    def classes(self) -> int:
        """The number of labels."""
        return 26 if self.part == "letters" else 10

    def published(self) -> tuple[Batch, Batch]:
        """The rows of the part, upright, with labels from 0."""
        first = 1 if self.part == "letters" else 0
        expected = range(first, first + self.classes)
        parts = (f"{self.part}_{name}" for name in ("train", "test"))
        (x, u), (test_x, test_u) = (_idx("emnist", part, self.root, expected) for part in parts)
        return _rows(formats.upright(x), u - first), _rows(formats.upright(test_x), test_u - first, start=len(x))


@dataclass(frozen=True, kw_only=True)
class ColourImages(Images):
    """Colour images of 32 x 32. `root` as of MNIST."""

    u: Literal["class", "none"]
    root: str | None

    image = Image(3, 32, 32)
    binary = False


@dataclass(frozen=True, kw_only=True)
class CIFAR10(ColourImages):
    """Photographs of ten kinds of things (Krizhevsky 2009).

    Parameters
    ----------
    batches
        Which of the five files of 10,000 rows each make up the training part.
    """

    batches: Annotated[list[Annotated[int, Ge(1), Le(5)]], Len(1)]

    def __post_init__(self) -> None:
        if len(set(self.batches)) < len(self.batches):
            raise ValueError(f"expected different batches, got {list(self.batches)}")

    def published(self) -> tuple[Batch, Batch]:
        """The chosen batches, whose rows keep their ids among all five, and the 10,000 rows of the test part."""
        batches = [self._file(f"train_{number}", _BATCH * (number - 1)) for number in sorted(self.batches)]
        return _joined(batches), self._file("test", 5 * _BATCH)

    def _file(self, part: str, start: int) -> Batch:
        (path,) = locate("cifar10", part, data_root(self.root))
        return _rows(*formats.read_cifar10(path), start=start)


@dataclass(frozen=True, kw_only=True)
class SVHN(ColourImages):
    """House numbers' digits (Netzer et al. 2011), without its extra part."""

    def published(self) -> tuple[Batch, Batch]:
        """73,257 and 26,032 rows."""
        root = data_root(self.root)
        (train_path,), (test_path,) = (locate("svhn", part, root) for part in ("train", "test"))
        train = _rows(*formats.read_svhn(train_path))
        return train, _rows(*formats.read_svhn(test_path), start=len(train))


@dataclass(frozen=True, kw_only=True)
class DSprites(Images):
    """Binary shapes, drawn from known factors (Matthey et al. 2017): the true sources z.

    z are the factors that vary, as published: shape (1, 2, 3), scale, orientation (radians), position x and y.

    Parameters
    ----------
    part
        `full`, 737,280 rows in 3 GB of memory; `subset`, every second place and fourth orientation.
    root
        As of MNIST.
    """

    u: Literal["shape", "none"]
    part: Literal["full", "subset"]
    root: str | None

    image = Image(1, 64, 64)
    binary = True

    @property
    def classes(self) -> int:
        """The number of shapes."""
        return 3

    def published(self) -> tuple[Batch, None]:
        """All rows: there is no test part."""
        (path,) = locate("dsprites", self.part, data_root(self.root))
        images, classes, values = formats.read_dsprites(path)
        images *= _WHITE
        varying = np.ptp(classes, axis=0) > 0  # not the colour, which is always white; the shape is the first
        z = torch.from_numpy(values[:, varying].astype(np.float32))
        return replace(_rows(images, classes[:, varying][:, 0]), z=z), None


def binarise(rows: Batch, seed: int) -> Batch:
    """Set grey bytes b to 255 with probability b / 255, else 0; the result depends on a row's id and the seed only."""
    shape = int(rows.index.max()) + 1 if len(rows) else 0, rows.x.shape[1]
    drawn = default_rng([seed, 2]).integers(_WHITE, size=shape, dtype=np.uint8)  # of the ids 0, 1, ...
    return replace(rows, x=(torch.from_numpy(drawn)[rows.index] < rows.x).byte() * _WHITE)


def _idx(name: str, part: str, root: str | None, expected: range) -> tuple[formats.Images, formats.Labels]:
    """Read images and labels of one part of a data set in IDX files."""
    images, labels = locate(name, part, data_root(root))
    return formats.read_idx_pair(images, labels, expected)


def _rows(images: formats.Images, labels: formats.Labels, start: int = 0) -> Batch:
    """Rows of bytes of images (N, H, W) or (N, H, W, 3), with ids from `start`."""
    planes = images if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    x = np.ascontiguousarray(planes.reshape(len(images), -1))  # (N, C H W)
    return Batch(torch.from_numpy(x), torch.from_numpy(labels), None, torch.arange(start, start + len(x)))


def _deviations(x: Tensor) -> Tensor:
    """Standard deviation over the rows of each pixel's b / 255: (N, d) bytes to (d,)."""
    total, squares = torch.zeros(2, x.shape[1], dtype=torch.float64)
    for piece in torch.split(x, 256):  # 256 rows have exact sums of squares in float32: 256 x 255^2 < 2^24
        values = piece.float()
        total += values.sum(0)
        squares += values.square().sum(0)
    variance: Tensor = (squares - total**2 / len(x)) / (len(x) - 1)
    return (variance.sqrt() / 255).float()


def _joined(parts: list[Batch]) -> Batch:
    """The labelled rows of several batches, one after the other."""
    x, u, index = (torch.cat([getattr(part, name) for part in parts]) for name in ("x", "u", "index"))
    return Batch(x, u, None, index)


def _drawn(rows: Batch, wanted: dict[str, int | None], rng: Generator) -> dict[str, Batch]:
    """Draw disjoint random parts, each in the order of its ids; None: all remaining rows."""
    order = torch.from_numpy(rng.permutation(len(rows)))
    parts = {}
    for name, count in wanted.items():
        if len(order) < (1 if count is None else count):
            raise ValueError(f"expected {name}_rows of at most {len(order)}, got {'all' if count is None else count}")
        chosen, order = order[:count], order[len(order) if count is None else count :]
        parts[name] = rows[chosen.sort().values]
    return parts
