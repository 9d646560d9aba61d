"""Finding and downloading published files, against a server on this machine."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dvaepp.data import download
from dvaepp.data.download import PublishedFile, obtain
from dvaepp.errors import DataError

CONTENT = b"0 1 1 0\n" * 500
PACKED = gzip.compress(CONTENT, mtime=0)


def checksum(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path == "/hang":
            self.server.released.wait(20)
            return
        body = {"/good.gz": PACKED, "/other.gz": gzip.compress(b"other"), "/cut.gz": PACKED[:-9]}.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(PACKED) if self.path == "/cut.gz" else len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Keep the test's output quiet."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.released = threading.Event()
        self.site = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own, and no proxy between the test and its server."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("DVAEPP_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


def published(*urls: str) -> PublishedFile:
    return PublishedFile("toy.amat.gz", "toys", checksum(CONTENT), checksum(PACKED), urls)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*")) if folder.exists() else []


def test_downloads_once(server: Server, cache: Path) -> None:
    file = published(f"{server.site}/good.gz")
    assert obtain(file, None) == CONTENT
    assert files_in(cache) == ["toy.amat.gz"]
    assert obtain(file, None) == CONTENT
    assert server.asked == ["/good.gz"]


def test_second_site(server: Server, cache: Path) -> None:
    assert obtain(published(f"{server.site}/nowhere.gz", f"{server.site}/good.gz"), None) == CONTENT
    assert server.asked == ["/nowhere.gz", "/good.gz"]
    assert files_in(cache) == ["toy.amat.gz"]


def refused(file: PublishedFile, data_dir: Path | None = None) -> str:
    with pytest.raises(DataError) as caught:
        obtain(file, data_dir)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_wrong_checksum(server: Server, cache: Path) -> None:
    url = f"{server.site}/other.gz"
    found, expected = checksum(gzip.compress(b"other"))[7:], checksum(PACKED)[7:]
    message = refused(published(url))
    assert message.startswith(f"toy.amat.gz: cannot be downloaded into {cache}: {url}: sha256 is ")
    assert f"expected {expected}; the file is damaged or another version" in message
    assert found != expected
    assert message.endswith("; put the file in a folder and pass --data-dir")
    assert files_in(cache) == []


def test_not_found(server: Server, cache: Path) -> None:
    message = refused(published(f"{server.site}/a.gz", f"{server.site}/b.gz"))
    assert f"{server.site}/a.gz: 404 Client Error" in message
    assert f"{server.site}/b.gz: 404 Client Error" in message
    assert message.endswith("; put the file in a folder and pass --data-dir")
    assert files_in(cache) == []


def test_broken_connection(server: Server, cache: Path) -> None:
    """The server promises more bytes than it sends."""
    message = refused(published(f"{server.site}/cut.gz"))
    assert f"toy.amat.gz: cannot be downloaded into {cache}: {server.site}/cut.gz: " in message
    assert files_in(cache) == []


def test_silent_server(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_TIMEOUT", 0.3)
    assert "timed out" in refused(published(f"{server.site}/hang"))
    assert files_in(cache) == []


def test_connection_refused(cache: Path) -> None:
    with socket.socket() as taken:  # bound but not listening: nobody answers, and nobody else can take the port
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/good.gz"
        message = refused(published(url))
    assert f"cannot be downloaded into {cache}: {url}: " in message
    assert "Connection refused" in message
    assert files_in(cache) == []


@pytest.mark.parametrize("url", ["http://[", "nonsense", "gopher://x/y"])
def test_bad_url(url: str) -> None:
    assert refused(published(url)).startswith("toy.amat.gz: cannot be downloaded into ")


def test_cache_that_cannot_be_made(server: Server, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    assert refused(published(f"{server.site}/good.gz")).startswith("toy.amat.gz: cannot be downloaded into ")


def test_damaged_cache(server: Server, cache: Path) -> None:
    cache.mkdir()
    (cache / "toy.amat").write_bytes(CONTENT[:-1])
    message = refused(published(f"{server.site}/good.gz"))
    assert message.startswith(f"{cache / 'toy.amat'}: sha256 is ")
    assert server.asked == []


@pytest.mark.parametrize("subfolder", ["", "toys"])
@pytest.mark.parametrize("packed", [False, True])
def test_data_dir(tmp_path: Path, subfolder: str, packed: bool) -> None:
    """Packed or not, and packed by another program, the content decides."""
    folder = tmp_path / "mine" / subfolder
    folder.mkdir(parents=True)
    path = folder / ("toy.amat.gz" if packed else "toy.amat")
    path.write_bytes(gzip.compress(CONTENT, compresslevel=1, mtime=7) if packed else CONTENT)
    assert obtain(published(), tmp_path / "mine") == CONTENT


def test_only_the_packed_file_has_a_checksum(tmp_path: Path, server: Server, cache: Path) -> None:
    """Then the content packed by another program, or unpacked, cannot be told from another file."""
    file = replace(published(f"{server.site}/good.gz"), checksum=None)
    (tmp_path / "toy.amat").write_bytes(CONTENT)
    assert refused(file, tmp_path).startswith(f"toy.amat.gz not found in {tmp_path} nor in {tmp_path / 'toys'}; put it")
    path = tmp_path / "toy.amat.gz"
    for other in (CONTENT, gzip.compress(CONTENT, mtime=7)):
        path.write_bytes(other)
        assert refused(file, tmp_path).startswith(f"{path}: sha256 is {checksum(other)[7:]}, expected ")
    path.write_bytes(PACKED)
    assert obtain(file, tmp_path) == CONTENT
    assert obtain(file, None) == CONTENT
    assert files_in(cache) == ["toy.amat.gz"]


def test_data_dir_without_the_file(tmp_path: Path) -> None:
    assert refused(published("http://x"), tmp_path) == (
        f"toy.amat or toy.amat.gz not found in {tmp_path} nor in {tmp_path / 'toys'}; "
        "put it there, or leave out --data-dir to download it"
    )
    missing = tmp_path / "missing"
    assert refused(published(), missing) == f"{missing}: the data folder must exist; it is not there or not a folder"
    (tmp_path / "file").touch()
    assert "not a folder" in refused(published(), tmp_path / "file")


def test_data_dir_with_another_file(tmp_path: Path) -> None:
    path = tmp_path / "toy.amat"
    path.write_bytes(b"0 1\n")
    assert refused(published(), tmp_path) == (
        f"{path}: sha256 is {checksum(b'0 1' + bytes([10]))[7:]}, expected {checksum(CONTENT)[7:]}; "
        "the file is damaged or another version"
    )
    path.unlink()
    path.mkdir()
    assert refused(published(), tmp_path) == f"{path}: is a folder; a file was expected"


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.amat").write_bytes(CONTENT)

    def forbidden(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    assert refused(published(), tmp_path) == f"{tmp_path / 'toy.amat'}: cannot be read: Permission denied"


@pytest.mark.parametrize(("algorithm", "length"), [("md5", 32), ("sha1", 40)])
def test_older_algorithms(tmp_path: Path, algorithm: str, length: int) -> None:
    (tmp_path / "toy.amat").write_bytes(CONTENT)
    file = replace(published(), checksum=f"{algorithm}:" + hashlib.new(algorithm, CONTENT).hexdigest())
    assert obtain(file, tmp_path) == CONTENT
    assert f"{algorithm} is" in refused(replace(file, checksum=f"{algorithm}:" + "0" * length), tmp_path)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
        (b"test content\n", "d670460b4b4aece5915caf5c68d12f560a9fe3e4"),
    ],
)
def test_git_blob(tmp_path: Path, content: bytes, name: str) -> None:
    """Names that the book on git gives for these contents."""
    (tmp_path / "toy.amat").write_bytes(content)
    file = replace(published(), checksum=f"git-blob:{name}")
    assert obtain(file, tmp_path) == content
    (tmp_path / "toy.amat").write_bytes(content + b"x")
    assert f"expected {name}" in refused(file, tmp_path)


def test_git_blob_is_downloaded(server: Server, cache: Path) -> None:
    blob = "git-blob:" + hashlib.sha1(b"blob %d\0" % len(PACKED) + PACKED).hexdigest()
    file = replace(published(f"{server.site}/other.gz", f"{server.site}/good.gz"), served_checksum=blob)
    assert obtain(file, None) == CONTENT
    assert files_in(cache) == ["toy.amat.gz"]


def test_published_nowhere(cache: Path, tmp_path: Path) -> None:
    """Without an address it must be brought along, and nobody is told to have it downloaded."""
    assert refused(published()).endswith("it is published nowhere; put the file in a folder and pass --data-dir")
    assert files_in(cache) == []
    assert refused(published(), tmp_path).endswith("; put it there")


def test_cache_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVAEPP_DATA")
    assert download.cache().name == "dvaepp"
