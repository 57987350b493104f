"""Tiny datasets in the official formats, in place of the published ones."""

import gzip
import hashlib
import shutil
import struct

import numpy as np
import pytest

from dwf.datasets import sources
from dwf.datasets.formats import read_mnist
from dwf.datasets.sources import Published, Source


@pytest.fixture
def write_idx():
    def write(path, array):
        header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        content = header + array.tobytes()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        return hashlib.md5(content).hexdigest()

    return write


@pytest.fixture
def arrays():
    """30 training and 10 test images of 5 x 4 bytes."""
    stream = np.random.default_rng(0)
    return {
        "train-images-idx3-ubyte": stream.integers(0, 256, (30, 5, 4), np.uint8),
        "train-labels-idx1-ubyte": stream.integers(0, 10, 30, np.uint8),
        "t10k-images-idx3-ubyte": stream.integers(0, 256, (10, 5, 4), np.uint8),
        "t10k-labels-idx1-ubyte": stream.integers(0, 10, 10, np.uint8),
    }


@pytest.fixture
def tiny(tmp_path, monkeypatch, write_idx, arrays):
    """Stand in for MNIST: official files in `origin`, an empty cache, fetches noted in `log`."""
    origin, log = tmp_path / "origin", tmp_path / "fetches"
    origin.mkdir()
    digests = {name: write_idx(origin / name, array) for name, array in arrays.items()}

    def fetch(folder):
        with open(log, "a") as file:
            file.write("fetched\n")
        shutil.copytree(origin, folder / "data")

    tiny = Published(
        (1, 5, 4),
        30,
        num_classes=10,
        largest=255,
        read=read_mnist,
        digests=digests,
        sources=(Source("the origin", fetch),),
    )
    monkeypatch.setitem(sources.PUBLISHED, "mnist", tiny)
    monkeypatch.setenv("DWF_DATA", str(tmp_path / "cache"))
    return tiny
