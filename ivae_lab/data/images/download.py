"""Download the files of the catalogue to the data root: continue, unpack, and check them against their checksums."""

from __future__ import annotations

import fcntl
import http.client
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

from ivae_lab.data.images.catalogue import (
    CATALOGUE,
    CatalogueFile,
    Download,
    Entry,
    candidates,
    is_valid,
)
from ivae_lab.storage.atomic import atomic
from ivae_lab.terminal.command_line import FailedError
from ivae_lab.terminal.messages import one_line

if TYPE_CHECKING:
    from rich.progress import Progress

_BLOCK = 1 << 18
_PATIENCE = 30.0  # seconds without a byte
_UNREACHABLE = (OSError, http.client.HTTPException)  # URLError and timeouts are OSErrors


class FetchError(FailedError):
    """No mirror gave a file."""


def fetch(name: str, root: Path) -> None:
    """Download all published files of a data set below the root."""
    entry = CATALOGUE[name]
    with _progress() as progress:
        for download in entry.downloads:
            if _missing(entry, download, root):
                _bring(entry, download, root, progress)
    print(f"{name}: {sum(len(download.gives) for download in entry.downloads)} files in {root}, all as published")


def _missing(entry: Entry, download: Download, root: Path) -> list[CatalogueFile]:
    """Files of a download that have no valid copy."""
    files = [entry.files[path] for path in download.gives]
    return [f for f in files if not any(is_valid(path, f.checksum) for path in candidates(f, root))]


def _bring(entry: Entry, download: Download, root: Path, progress: Progress) -> None:
    path = root / download.path
    by_hand = bool(download.members) and path.is_file() and _is_published(download, path)
    try:
        if not by_hand:
            _download(download, path, progress)
        if download.members:
            _unpack(entry, download, root)
    except FetchError as error:
        files = ", ".join(str(file) for source in entry.downloads for file in _missing(entry, source, root))
        archive = f", or the archive {CatalogueFile(download.path, download.checksum)}" if download.members else ""
        raise FetchError(f"{error}; put into {root} by hand: {files}{archive}") from None
    if download.members and not by_hand:
        path.unlink()


def _download(download: Download, path: Path, progress: Progress) -> None:
    """Write `path` from the first mirror that gives the published content; a part of it so far is in `path`.part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    problems = []
    with _alone(part) as handle:
        for url in download.urls:
            try:
                _from_mirror(url, download, part, handle, progress)
            except (FetchError, *_UNREACHABLE) as error:
                problems.append(f"{url}: {one_line(error)}")
            else:
                os.fsync(handle.fileno())
                part.replace(path)
                return
    if not part.stat().st_size:
        part.unlink()
    raise FetchError(f"expected {path.name} from a mirror, got {'; '.join(problems)}")


def _from_mirror(url: str, download: Download, part: Path, handle: BinaryIO, progress: Progress) -> None:
    """Complete the part and check it; resume after a broken connection as long as bytes arrive."""
    while True:
        before = handle.seek(0, 2)
        try:
            resumed = _transfer(url, handle, progress)
        except _UNREACHABLE as error:
            if isinstance(error, urllib.error.HTTPError) or handle.seek(0, 2) <= before:
                raise
            continue
        if _is_published(download, part):
            return
        _empty(handle)
        if not resumed:
            raise FetchError(f"content without the checksum {download.checksum}")


def _transfer(url: str, handle: BinaryIO, progress: Progress) -> bool:
    """Append the missing bytes; return whether the file had bytes before."""
    start = handle.seek(0, 2)
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=_PATIENCE)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return True  # nothing is missing, or the file is another one: the checksum decides
        raise
    with response:
        if start and not _continues(response, start):
            start = _empty(handle)
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        _copy(response, handle, total, progress)
    return start > 0


def _empty(handle: BinaryIO) -> int:
    handle.truncate(0)
    return handle.seek(0)


def _continues(response: http.client.HTTPResponse, start: int) -> bool:
    content_range = response.headers.get("Content-Range", "")
    return response.status == http.HTTPStatus.PARTIAL_CONTENT and content_range.startswith(f"bytes {start}-")


def _copy(response: IO[bytes], handle: BinaryIO, total: int | None, progress: Progress) -> None:
    task = progress.add_task(Path(handle.name).name.removesuffix(".part"), total=total, completed=handle.tell())
    try:
        while block := response.read(_BLOCK):
            handle.write(block)
            progress.advance(task, len(block))
    finally:
        handle.flush()
        progress.remove_task(task)
    if total is not None and handle.tell() < total:
        raise ConnectionError(f"{handle.tell()} of {total} bytes")


def _is_published(download: Download, path: Path) -> bool:
    return is_valid(path, download.checksum, unpack=not download.members)


@contextmanager
def _alone(part: Path) -> Iterator[BinaryIO]:
    """Open a part for appending, and lock it: two commands must not write the same part."""
    with part.open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise FetchError(f"expected {part} for this command alone, got another one that fetches it") from None
        yield handle


def _unpack(entry: Entry, download: Download, root: Path) -> None:
    """Extract the missing members of an archive, and check each before it gets its name."""
    missing = _missing(entry, download, root)
    for member, target in download.members:
        path, file = root / target, entry.files[target.removesuffix(".gz")]
        if file not in missing:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary:
            try:
                with _member(root / download.path, member) as source, temporary.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
            except (KeyError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
                raise FetchError(f"expected {member} in {download.path}, got: {one_line(error)}") from None
            if not is_valid(temporary, file.checksum):
                raise FetchError(f"expected {member} in {download.path} with {file.checksum}, got other content")


@contextmanager
def _member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as pack, pack.open(member) as source:
            yield source
        return
    with tarfile.open(archive) as tape:
        content = tape.extractfile(member)
        if content is None:
            raise KeyError(f"{member} is not a file")
        with content:
            yield content


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
