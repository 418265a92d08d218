"""Where image data lie: roots, files plain and packed, checksums, and what is said when they are not there."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ivae_lab.data.images import catalogue
from ivae_lab.data.images.catalogue import (
    CATALOGUE,
    CatalogueFile,
    Download,
    Entry,
    MissingDataError,
    data_root,
    locate,
)
from tests.images import SHARED, idx, refused, shared, written

CONTENT = idx(np.arange(10, dtype=np.uint8))
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
TOY = Entry(
    "toy",
    {"all": (CatalogueFile("toy/a", MD5), CatalogueFile("toy/b"))},
    (Download("toy/a.gz", (), MD5), Download("toy/b", (), None)),
)


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOGUE, "toy", TOY)


def test_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IVAE_LAB_DATA", "~/there")
    assert data_root("here") == Path("here")
    assert data_root() == Path.home() / "there"
    monkeypatch.setenv("IVAE_LAB_DATA", "")
    assert data_root(None) == Path("data")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_files_are_found_plain_or_packed(tmp_path: Path, suffix: str) -> None:
    paths = (written(tmp_path / f"toy/a{suffix}", CONTENT), written(tmp_path / f"toy/b{suffix}", b"anything"))
    assert locate("toy", "all", tmp_path) == paths


def test_the_valid_copy_is_taken(tmp_path: Path) -> None:
    written(tmp_path / "toy/a", b"damaged")
    written(tmp_path / "toy/b", b"")
    good = written(tmp_path / "toy/a.gz", CONTENT)
    assert locate("toy", "all", tmp_path)[0] == good


def test_missing_files(tmp_path: Path) -> None:
    written(tmp_path / "toy/b", b"")
    command = f"python -m ivae_lab.fetch toy root={tmp_path}"
    with refused(str(tmp_path), f"toy/a ({MD5})", command) as caught:
        locate("toy", "all", tmp_path)
    assert isinstance(caught.value, MissingDataError)
    assert "toy/b" not in str(caught.value)


def test_another_format_is_found_where_the_file_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = replace(TOY, parts={"all": (CatalogueFile("toy/a", MD5, CatalogueFile("toy/a.bin")),)})
    monkeypatch.setitem(CATALOGUE, "toy", two)
    with refused(f"toy/a ({MD5}) or toy/a.bin (checksum unknown)"):
        locate("toy", "all", tmp_path)
    other = written(tmp_path / "toy/a.bin.gz", b"anything")
    assert locate("toy", "all", tmp_path) == (other,)
    first = written(tmp_path / "toy/a", CONTENT)
    assert locate("toy", "all", tmp_path) == (first,)


def test_wrong_content(tmp_path: Path) -> None:
    wrong = written(tmp_path / "toy/a.gz", b"wrong")
    written(tmp_path / "toy/b", b"")
    with refused(str(wrong), f"expected content with {MD5}", hashlib.md5(b"wrong").hexdigest(), "ivae_lab.fetch toy"):
        locate("toy", "all", tmp_path)
    wrong.write_bytes(b"not gzip")
    with refused(str(wrong), "expected gzip"):
        locate("toy", "all", tmp_path)


def test_content_is_read_once_until_it_changes(tmp_path: Path) -> None:
    path = written(tmp_path / "a", CONTENT)
    before = catalogue._digest.cache_info().misses
    assert catalogue.digest(path, "md5") == catalogue.digest(path, "md5") == MD5
    assert catalogue._digest.cache_info().misses == before + 1
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(1, 1))
    assert catalogue.digest(path, "md5") != MD5


def test_unknown_names(tmp_path: Path) -> None:
    with refused("data set out of mnist", "got mnits"):
        locate("mnits", "train", tmp_path)
    with refused("part of mnist out of train, test, got valid"):
        locate("mnist", "valid", tmp_path)


def test_entries_are_complete() -> None:
    for name, entry in CATALOGUE.items():
        given = [path for download in entry.downloads for path in download.gives]
        assert len(set(given)) == len(given), name
        assert set(entry.files) - set(given) <= {"dsprites/dsprites_downsampled.npz"}, name
        for checksum in [d.checksum for d in entry.downloads] + [f.checksum for f in entry.files.values()]:
            if checksum is not None:
                assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", checksum), name
        assert all(re.match("https?://", url) for download in entry.downloads for url in download.urls)


def test_what_nobody_publishes_is_said(tmp_path: Path) -> None:
    with refused("dsprites_downsampled.npz", "it is not published"):
        locate("dsprites", "subset", tmp_path)


@pytest.mark.parametrize(
    ("name", "part", "count"),
    [
        ("mnist", "train", 2),
        ("mnist", "test", 2),
        ("emnist", "letters_test", 2),
        ("cifar10", "train_1", 1),
        ("cifar10", "train_2", 1),
        ("cifar10", "test", 1),
        ("dsprites", "subset", 1),
    ],
)
def test_real_files_have_their_checksums(name: str, part: str, count: int) -> None:
    for file in CATALOGUE[name].parts[part]:
        if not catalogue.candidates(file, SHARED):
            shared(file.path)
    assert len(locate(name, part, SHARED)) == count
