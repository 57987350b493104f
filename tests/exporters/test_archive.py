"""A zoo as one file to publish: read by its own reader where there is no dwf, bytes flipped."""

import hashlib
import subprocess
import sys

import h5py
import numpy as np
import pytest

from dwf.errors import ConfigError
from dwf.exporters import read_archive


@pytest.fixture
def folder(zoo, export):
    return export(zoo, "archive", licence="CC-BY-4.0")


def test_the_reader_needs_h5py_alone(zoo, folder, tmp_path):
    """Started by itself, beside the file, where neither dwf nor torch can be imported."""
    program = (
        "import sys\nsys.modules |= {'dwf': None, 'torch': None, 'isal': None}\n"
        "from read_archive import read\nimport numpy as np\n"
        "state, columns = read('small.h5', 'val')\n"
        f"np.savez({str(tmp_path / 'read.npz')!r}, **state, **columns)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=folder)
    found = np.load(tmp_path / "read.npz")
    rows = zoo.rows(split="val")
    for name, expected in zoo.layout.unflatten(zoo.read(rows)).items():
        assert np.array_equal(found[name], expected), name
    assert np.array_equal(found["network"], zoo.columns["network"][rows])
    assert np.array_equal(found["val_accuracy"], zoo.columns["val_accuracy"][rows])
    assert len((folder / "read_archive.py").read_text().splitlines()) <= 30


def test_all_of_a_zoo_is_in_it(zoo, folder):
    state, columns = read_archive.read(str(folder / "small.h5"))
    flat = np.concatenate([tensor.reshape(12, -1) for tensor in state.values()], axis=1)
    assert np.array_equal(flat, zoo.read())
    assert set(columns) == {"row", *zoo.columns}
    assert columns["split"].tolist() == zoo.columns["split"].tolist()
    with h5py.File(folder / "small.h5") as file:
        about = {name: text[()].decode() for name, text in file["about"].items()}
    assert about["licence"] == "CC-BY-4.0" and about["reader"].startswith('"""Read networks')
    assert f"{len(zoo.rows(split='test'))} test" in about["readme"]
    assert "`layers.0.weight` [16, 64], weight" in about["readme"]


def test_its_checksums_are_those_of_sha256sum(folder):
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_every_flipped_byte_of_weights_and_columns_is_found(zoo, folder):
    file = folder / "small.h5"
    whole = file.read_bytes()
    places = {
        "row 3 is damaged": whole.find(zoo.read(np.array([3])).tobytes()) + 5,
        "column val_accuracy is": whole.find(zoo.columns["val_accuracy"].tobytes()) + 8,
    }
    for told, place in places.items():
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=told):
            read_archive.read(str(file))


def test_some_rows_and_equal_bytes(zoo, folder, export):
    again = export(zoo, "archive", "again", licence="CC-BY-4.0")
    assert (again / "small.h5").read_bytes() == (folder / "small.h5").read_bytes()
    some = export(zoo, "archive", "some", licence="CC0-1.0", best=3)
    state, columns = read_archive.read(str(some / "small.h5"))
    best = np.argsort(-zoo.columns["val_accuracy"])[:3]
    assert columns["row"].tolist() == best.tolist()
    assert np.array_equal(
        state["layers.0.bias"], zoo.layout.unflatten(zoo.read(best))["layers.0.bias"]
    )


def test_an_archive_goes_on_with_the_file_that_is_missing(zoo, folder, export):
    (folder / "SHA256SUMS").unlink()
    before = (folder / "small.h5").stat().st_ino
    export(zoo, "archive", licence="CC-BY-4.0")
    assert (folder / "SHA256SUMS").exists() and (folder / "small.h5").stat().st_ino == before


def test_without_a_licence_nothing_is_published(zoo, export, tmp_path):
    with pytest.raises(ConfigError, match="--licence CC-BY"):
        export(zoo, "archive")
    assert not (tmp_path / "out").exists()
