"""Fetching: archives that stay in their folder, checksums that hold, one sentence without network.

Addresses are files and a server of this machine.
"""

import hashlib
import io
import json
import tarfile
import zipfile

import pytest

from dwf.errors import DataUnavailable
from dwf.importers import fetch as fetching
from dwf.importers.config import IMPORTERS
from dwf.importers.fetch import RECORD, fetch, unpack
from dwf.importers.sources import SOURCES, Source, table


def write_zip(path, names):
    with zipfile.ZipFile(path, "w") as packed:
        for name in names:
            packed.writestr(name, "weights")


def write_tar(path, names, link=None):
    with tarfile.open(path, "w") as packed:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 7
            packed.addfile(info, io.BytesIO(b"weights"))
        if link:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            packed.addfile(info)


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_an_archive_is_unpacked_into_its_folder(tmp_path, write):
    write(tmp_path / "zoo", ["a/b.pt", "c.pt"])
    unpack(tmp_path / "zoo", tmp_path / "out")
    assert (tmp_path / "out" / "a" / "b.pt").read_text() == "weights"


@pytest.mark.parametrize("name", ["../evil.pt", "a/../../evil.pt", "/evil.pt"])
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_an_archive_never_leaves_its_folder(tmp_path, write, name):
    out = tmp_path / "out"
    is_absolute = name.startswith("/")
    write(tmp_path / "zoo", ["fine.pt", f"{tmp_path}{name}" if is_absolute else name])
    if is_absolute and write is write_tar:  # which the filter makes relative
        unpack(tmp_path / "zoo", out)
    else:
        with pytest.raises(DataUnavailable, match="outside of"):
            unpack(tmp_path / "zoo", out)
    assert all(out in found.parents for found in tmp_path.rglob("evil.pt"))


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    write_tar(tmp_path / "zoo.tar", ["fine.pt"], link="../../etc")
    with pytest.raises(DataUnavailable, match="outside of"):
        unpack(tmp_path / "zoo.tar", tmp_path / "out")


def test_a_damaged_archive_is_named(tmp_path):
    (tmp_path / "zoo.tar").write_bytes(b"not an archive")
    with pytest.raises(DataUnavailable, match=r"zoo\.tar is damaged"):
        unpack(tmp_path / "zoo.tar", tmp_path / "out")


def test_archives_that_cannot_be_unpacked_are_named(tmp_path):
    """Cut short between two members, a device, and one that asks for a password."""
    write_tar(tmp_path / "cut.tar", ["a.pt", "b.pt"])
    content = (tmp_path / "cut.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(content[:1024])
    with tarfile.open(tmp_path / "device.tar", "w") as packed:
        info = tarfile.TarInfo("null")
        info.type = tarfile.CHRTYPE
        packed.addfile(info)
    write_zip(tmp_path / "locked.zip", ["a.pt"])
    content = bytearray((tmp_path / "locked.zip").read_bytes())
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + at] |= 1
    (tmp_path / "locked.zip").write_bytes(content)
    for name, said in (
        ("cut.tar", "cut short or altered behind its 1 members"),
        ("device.tar", "would write a device"),
        ("locked.zip", "is encrypted"),
    ):
        with pytest.raises(DataUnavailable, match=said):
            unpack(tmp_path / name, tmp_path / "out")


@pytest.fixture
def published(tmp_path, monkeypatch):
    write_zip(tmp_path / "zoo.zip", ["net.pt"])
    source = Source("state_dict", f"file://{tmp_path / 'zoo.zip'}", size="small", what="a net")
    monkeypatch.setitem(fetching.SOURCES, "own", source)
    return tmp_path / "zoo.zip"


def test_a_checksum_is_recorded_at_the_first_fetch_and_held(tmp_path, published, caplog):
    caplog.set_level("INFO")
    fetch("own", tmp_path / "out")
    assert (tmp_path / "out" / "net.pt").exists()
    told = json.loads((tmp_path / "out" / RECORD).read_text())
    assert told.pop("is_whole") and len(next(iter(told.values()))) == 64
    fetch("own", tmp_path / "out")
    assert "fetched already" in caplog.text
    write_zip(published, ["other.pt"])
    (tmp_path / "out" / RECORD).write_text(json.dumps(told))
    (tmp_path / "out" / "archives" / "zoo.zip").unlink()
    with pytest.raises(DataUnavailable, match="expected"):
        fetch("own", tmp_path / "out")


@pytest.fixture
def record(tmp_path, monkeypatch):
    """A record of Zenodo's with two archives and a file of another kind, answered from disk."""
    files = [tmp_path / name for name in ("large.zip", "small.zip", "all.pt")]
    told = []
    for file in files:
        write_zip(file, [f"{file.stem}/net.pt"])
        sum_ = f"md5:{hashlib.md5(file.read_bytes()).hexdigest()}"
        told.append({"key": file.name, "links": {"self": file.as_uri()}, "checksum": sum_})
    answer, real = json.dumps({"files": told}).encode(), fetching._open
    at = "https://zenodo.org/api/records/123"
    monkeypatch.setattr(
        fetching, "_open", lambda address: io.BytesIO(answer) if address == at else real(address)
    )
    return "https://zenodo.org/records/123"


@pytest.mark.parametrize("files", [(), ("large.zip",)])
def test_of_a_record_the_archives_that_are_named_are_taken(tmp_path, monkeypatch, record, files):
    source = Source("modelzoos", record, size="small", what="nets", files=files)
    monkeypatch.setitem(fetching.SOURCES, "own", source)
    fetch("own", tmp_path / "out")
    found = {file.parent.name for file in (tmp_path / "out").rglob("net.pt")}
    assert found == ({"large"} if files else {"large", "small"})


def test_a_record_that_lacks_an_archive_is_refused(tmp_path, monkeypatch, record):
    source = Source("modelzoos", record, size="small", what="nets", files=("huge.zip",))
    monkeypatch.setitem(fetching.SOURCES, "own", source)
    with pytest.raises(DataUnavailable, match=r"no huge.zip; it holds large.zip, small.zip, all"):
        fetch("own", tmp_path / "out")


def test_without_a_network_one_sentence_says_so(tmp_path, monkeypatch):
    source = Source("state_dict", "http://127.0.0.1:9/zoo.zip", size="small", what="a net")
    monkeypatch.setitem(fetching.SOURCES, "own", source)
    with pytest.raises(DataUnavailable, match="cannot be reached from here") as error:
        fetch("own", tmp_path / "out")
    assert "\n" not in str(error.value)
    with pytest.raises(DataUnavailable, match="no such source"):
        fetch("mnist", tmp_path / "out")


def test_every_source_says_format_size_and_licence():
    for name, source in SOURCES.items():
        assert source.format in IMPORTERS and source.size and source.licence and name in table()
    lines = {line.split()[0]: line for line in table().splitlines()}
    assert "address not looked up again" in lines["modelzoos_eurosat"]
    assert "6620869 cifar_large_seed.zip" in lines["modelzoos_cifar10"]
    assert SOURCES["wild_park"].record == "12797219" and SOURCES["unterthiner_mnist"].record is None
