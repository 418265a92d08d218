"""`python -m ivae_lab.fetch` against a server in a thread: ranges, cuts, dead mirrors, wrong content, archives."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ivae_lab import fetch
from ivae_lab.data.images.catalogue import CATALOGUE, CatalogueFile, Download, Entry, locate
from tests.images import written

CONTENT = np.random.default_rng(0).integers(0, 256, 1_000_000, np.uint8).tobytes()
DEAD = "http://127.0.0.1:9/"  # the discard port: nobody listens


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


class Server(ThreadingHTTPServer):
    """Serves `files`; what happens on the way is set by a test."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []  # path, Range
        self.cuts: list[int] = []  # of the next answers: bytes after which the connection breaks
        self.stall = threading.Event()  # set: a cut holds the connection open instead
        self.ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        content = self.server.files.get(self.path[1:])
        if content is None:
            return self.send_error(404)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
        if start and start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else len(content)
        self.wfile.write(content[start:][:cut])
        while self.server.stall.is_set() and cut < len(content):
            time.sleep(0.02)
        return None

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.stall.clear()
        running.shutdown()
        thread.join()


def plain(monkeypatch: pytest.MonkeyPatch, *urls: str, checksum: str | None = md5(CONTENT)) -> None:
    file = CatalogueFile("toy/a.bin", checksum)
    download = Download(file.path, urls, checksum)
    monkeypatch.setitem(CATALOGUE, "toy", Entry("toy", {"all": (file,)}, (download,)))


def names(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def run(root: Path, code: int = 0) -> None:
    assert fetch.main(["toy", f"root={root}"]) == code


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ivae_lab.fetch: ")]
    assert len(lines) == 1
    return lines[0]


def test_fetched_once(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["a.bin"] = CONTENT
    plain(monkeypatch, server.url + "a.bin")
    run(tmp_path)
    run(tmp_path)
    assert server.asked == [("/a.bin", None)]
    assert names(tmp_path) == {"toy/a.bin"}
    assert locate("toy", "all", tmp_path)[0].read_bytes() == CONTENT


@pytest.mark.parametrize("where", [1, 300_000, len(CONTENT) - 1])
def test_broken_connections_are_resumed(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, where: int
) -> None:
    server.files["a.bin"], server.cuts = CONTENT, [where]
    plain(monkeypatch, server.url + "a.bin")
    run(tmp_path)
    assert server.asked == [("/a.bin", None), ("/a.bin", f"bytes={where}-")]
    assert (tmp_path / "toy/a.bin").read_bytes() == CONTENT


def test_another_mirror_goes_on(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["b/a.bin"] = server.files["a.bin"] = CONTENT
    server.cuts = [1000, 0]
    plain(monkeypatch, DEAD + "a.bin", server.url + "absent", server.url + "a.bin", server.url + "b/a.bin")
    run(tmp_path)
    assert server.asked == [("/absent", None), ("/a.bin", None), ("/a.bin", "bytes=1000-"), ("/b/a.bin", "bytes=1000-")]
    assert names(tmp_path) == {"toy/a.bin"}


@pytest.mark.parametrize("stale", [CONTENT[:5000], b"x" * 5000, b"x" * len(CONTENT), CONTENT, CONTENT + b"x"])
@pytest.mark.parametrize("ranges", [True, False])
def test_what_an_earlier_command_left(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, stale: bytes, ranges: bool
) -> None:
    server.files["a.bin"], server.ranges = CONTENT, ranges
    plain(monkeypatch, server.url + "a.bin")
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/a.bin.part").write_bytes(stale)
    run(tmp_path)
    assert server.asked[0] == ("/a.bin", f"bytes={len(stale)}-")
    assert names(tmp_path) == {"toy/a.bin"}
    assert (tmp_path / "toy/a.bin").read_bytes() == CONTENT


def test_interrupted_and_continued(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["a.bin"], server.cuts = CONTENT, [700_000]
    server.stall.set()
    plain(monkeypatch, server.url + "a.bin")
    script = (
        "import sys; from ivae_lab import fetch; from ivae_lab.data.images.catalogue import *\n"
        f"CATALOGUE['toy'] = {CATALOGUE['toy']!r}\nsys.exit(fetch.main(['toy', 'root={tmp_path}']))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    part = tmp_path / "toy/a.bin.part"
    give_up = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size):
        assert time.monotonic() < give_up
        time.sleep(0.05)
    run(tmp_path, 1)  # a second command leaves the part alone
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "to continue: python -m ivae_lab.fetch toy" in told
    assert names(tmp_path) == {"toy/a.bin.part"}
    got = part.stat().st_size
    assert CONTENT.startswith(part.read_bytes())
    server.stall.clear()
    run(tmp_path)
    assert server.asked[-1] == ("/a.bin", f"bytes={got}-")
    assert (tmp_path / "toy/a.bin").read_bytes() == CONTENT


def test_two_commands_do_not_write_the_same_part(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["a.bin"] = CONTENT
    plain(monkeypatch, server.url + "a.bin")
    (tmp_path / "toy").mkdir()
    part = tmp_path / "toy/a.bin.part"
    with part.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        run(tmp_path, code=1)
        assert part.stat().st_size == 0
    assert f"expected {part} for this command alone, got another one that fetches it" in one_error(capsys)
    run(tmp_path)
    assert (tmp_path / "toy/a.bin").read_bytes() == CONTENT


def test_wrong_content_gets_no_name(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["a.bin"] = b"<html>gone</html>"
    plain(monkeypatch, server.url + "a.bin")
    run(tmp_path, 1)
    assert names(tmp_path) == set()
    told = one_error(capsys)
    assert f"content without the checksum {md5(CONTENT)}" in told
    server.files["b.bin"] = CONTENT
    plain(monkeypatch, server.url + "a.bin", server.url + "b.bin")
    run(tmp_path)
    assert (tmp_path / "toy/a.bin").read_bytes() == CONTENT


def test_damaged_file_is_fetched_again(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["a.bin"] = CONTENT
    plain(monkeypatch, server.url + "a.bin")
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/a.bin").write_bytes(CONTENT[:-1])
    run(tmp_path)
    assert (tmp_path / "toy/a.bin").read_bytes() == CONTENT


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("no_proxy", "*")
    plain(monkeypatch, DEAD + "a.bin", DEAD + "b.bin")
    run(tmp_path, 1)
    told = one_error(capsys)
    assert f"put into {tmp_path} by hand: toy/a.bin ({md5(CONTENT)})" in told
    assert names(tmp_path) == set()


def test_no_network_names_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    files = (CatalogueFile("toy/a", md5(b"a")), CatalogueFile("toy/b", md5(b"b")))
    downloads = tuple(Download(file.path, (DEAD,), file.checksum) for file in files)
    monkeypatch.setitem(CATALOGUE, "toy", Entry("toy", {"all": files}, downloads))
    run(tmp_path, 1)
    assert f"by hand: {files[0]}, {files[1]}" in one_error(capsys)


# Archives


def archive(kind: str, members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as pack:
            for name, content in members.items():
                pack.writestr(name, content)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def packed(monkeypatch: pytest.MonkeyPatch, kind: str, url: str, content: bytes, checksum: str) -> None:
    files = (CatalogueFile("toy/x", checksum), CatalogueFile("toy/y"))
    members = (("in/x.gz", "toy/x.gz"), ("in/y", "toy/y"))
    download = Download(f"toy/pack.{kind}", (url,), md5(content), members)
    monkeypatch.setitem(CATALOGUE, "toy", Entry("toy", {"all": files}, (download,)))


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize("by_hand", [False, True])
def test_archives(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, kind: str, by_hand: bool) -> None:
    content = archive(kind, {"in/x.gz": gzip.compress(b"x" * 99), "in/y": b"why", "../evil": b"!"})
    server.files["pack"] = content
    packed(monkeypatch, kind, (DEAD if by_hand else server.url) + "pack", content, md5(b"x" * 99))
    if by_hand:
        (tmp_path / "toy").mkdir()
        (tmp_path / f"toy/pack.{kind}").write_bytes(content)
    run(tmp_path)
    assert names(tmp_path) == {"toy/x.gz", "toy/y"} | ({f"toy/pack.{kind}"} if by_hand else set())
    assert [path.name for path in locate("toy", "all", tmp_path)] == ["x.gz", "y"]
    run(tmp_path)
    assert len(server.asked) == (not by_hand)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"in/x.gz": gzip.compress(b"z"), "in/y": b""}, "got other content"),
        ({"in/y": b"y"}, "expected in/x.gz in toy/pack"),
    ],
)
def test_archives_with_something_else(
    tmp_path: Path,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    members: dict[str, bytes],
    problem: str,
) -> None:
    content = server.files["pack"] = archive(kind, members)
    packed(monkeypatch, kind, server.url + "pack", content, md5(b"x"))
    run(tmp_path, 1)
    told = one_error(capsys)
    assert problem in told
    assert f"or the archive toy/pack.{kind} ({md5(content)})" in told
    assert names(tmp_path) == {f"toy/pack.{kind}"}


# The command line


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["mnits"], "expected a data set, got mnits; nearest: mnist, emnist"),
        (["imagenet1k?"], "nearest: mnist, emnist, cifar10, svhn, dsprites"),
        (["mnist", "svhn"], "expected one data set and at most one root=FOLDER, got mnist svhn"),
        (["mnist", "root="], "expected one data set and at most one root=FOLDER"),
        (["root=here"], "expected one data set"),
        ([], "expected one data set and at most one root=FOLDER, got nothing"),
    ],
)
def test_bad_input(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch.main(arguments) == 2
    assert told in one_error(capsys)


def test_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path / "cifar-10-batches-bin/test_batch.bin", b"")
    assert fetch.main(["--list", f"root={tmp_path}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(CATALOGUE)
    assert f"0 of 4 files in {tmp_path}" in lines[0]
    assert "1 of 6 files" in lines[2]


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch.main(["--help"]) == 0
    assert "ivae-lab fetch NAME" in capsys.readouterr().out


def test_torch_is_not_loaded() -> None:
    script = "import sys, ivae_lab.fetch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
