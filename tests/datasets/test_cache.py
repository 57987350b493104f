"""The cache of datasets: decoded once by any number of processes; damage is named."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest

from dwf.datasets import cache, sources
from dwf.datasets.cache import open_arrays
from dwf.datasets.sources import Source
from dwf.errors import DataUnavailable


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache/mnist"


def fetches(tmp_path):
    return (tmp_path / "fetches").read_text().count("fetched")


def check(found, arrays):
    np.testing.assert_array_equal(found["x_train"][:, 0], arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(found["y_train"], arrays["train-labels-idx1-ubyte"])
    np.testing.assert_array_equal(found["x_test"][:, 0], arrays["t10k-images-idx3-ubyte"])
    np.testing.assert_array_equal(found["y_test"], arrays["t10k-labels-idx1-ubyte"])


def test_decoded_once_and_mapped_after_that(tiny, tmp_path, arrays):
    check(open_arrays("mnist"), arrays)
    again = open_arrays("mnist")
    check(again, arrays)
    assert fetches(tmp_path) == 1
    assert all(isinstance(array, np.memmap) for array in again.values())


def test_writing_into_a_map_changes_no_file(tiny, arrays):
    open_arrays("mnist")["x_train"][:] = 0
    check(open_arrays("mnist"), arrays)


def alter(path):
    content = bytearray(path.read_bytes())
    content[-7] ^= 4
    path.write_bytes(content)


def cut(path):
    os.truncate(path, path.stat().st_size - 5)


def empty(path):
    os.truncate(path, 0)


@pytest.mark.parametrize("damage", [alter, cut, empty])
def test_an_altered_file_is_named_and_removing_it_mends(tiny, folder, arrays, damage):
    open_arrays("mnist")
    path = folder / "x_test.npy"
    size = path.stat().st_size
    damage(path)
    with pytest.raises(DataUnavailable) as caught:
        open_arrays("mnist")
    assert str(caught.value).startswith(f"{path} has {path.stat().st_size} bytes and CRC-32 ")
    assert f"expected {size} bytes" in str(caught.value)
    assert "remove it" in str(caught.value)
    path.unlink()
    check(open_arrays("mnist"), arrays)


def test_damaged_checksums_are_named_and_removing_them_mends(tiny, folder, arrays):
    open_arrays("mnist")
    (folder / "checksums.json").write_text('{"x_train.npy": [1')
    with pytest.raises(DataUnavailable, match=r"checksums\.json is damaged .*: remove it"):
        open_arrays("mnist")
    (folder / "checksums.json").unlink()
    check(open_arrays("mnist"), arrays)


def test_files_without_checksums_are_made_again(tiny, folder, arrays):
    folder.mkdir(parents=True)
    (folder / "x_train.npy").write_bytes(b"half a file of a killed process")
    (folder / "y_train.npy.partial-1").write_bytes(b"half")
    check(open_arrays("mnist"), arrays)


def in_processes(count, body):
    context = multiprocessing.get_context("fork")  # children keep the stand-in dataset
    processes = [context.Process(target=body) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    return [process.exitcode for process in processes]


def put_origin(tiny, monkeypatch, wait):
    """Let every fetch call `wait` first."""

    def fetch(folder):
        wait()
        tiny.sources[0].fetch(folder)

    changed = replace(tiny, sources=(Source("the origin", fetch),))
    monkeypatch.setitem(sources.PUBLISHED, "mnist", changed)


def test_processes_at_once_fetch_once(tiny, tmp_path, arrays, monkeypatch):
    put_origin(tiny, monkeypatch, wait=lambda: time.sleep(0.3))
    assert in_processes(4, lambda: check(open_arrays("mnist"), arrays)) == [0] * 4
    assert fetches(tmp_path) == 1


def test_processes_at_once_without_locks_do_no_harm(tiny, folder, tmp_path, arrays, monkeypatch):
    def no_locks(*_):
        raise OSError("no locks available")

    together = multiprocessing.get_context("fork").Barrier(4)
    put_origin(tiny, monkeypatch, wait=lambda: together.wait(20))
    monkeypatch.setattr(cache.fcntl, "flock", no_locks)
    assert in_processes(4, lambda: check(open_arrays("mnist"), arrays)) == [0] * 4
    assert fetches(tmp_path) == 4
    check(open_arrays("mnist"), arrays)
    assert not list(folder.glob("*.partial-*"))


@pytest.mark.parametrize("saved", range(4))
def test_killed_while_writing_loses_nothing_but_time(tiny, tmp_path, arrays, saved):
    def die_at_one():
        save, count = np.save, iter(range(4))

        def save_half(file, array):
            if next(count) == saved:
                file.write(b"half")
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            save(file, array)

        np.save = save_half
        open_arrays("mnist")

    assert in_processes(1, die_at_one) == [-signal.SIGKILL]
    check(open_arrays("mnist"), arrays)
    assert fetches(tmp_path) == 2


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("DWF_DATA", str(tmp_path / "data"))
    assert cache.data_folder() == tmp_path / "data"
    monkeypatch.delenv("DWF_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.data_folder() == tmp_path / "dwf"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.data_folder() == tmp_path / ".cache/dwf"
