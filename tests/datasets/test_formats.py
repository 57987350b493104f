"""Official formats: files written here come back, bytes other than the published are refused."""

import hashlib
import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from dwf.datasets import formats
from dwf.datasets.formats import NotPublished, NotThere


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_comes_back_as_written(tmp_path, write_idx, ending):
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 4), np.uint8)
    (tmp_path / "deep").mkdir()
    md5 = write_idx(tmp_path / "deep" / f"some-idx3-ubyte{ending}", images)
    np.testing.assert_array_equal(formats.read_idx(tmp_path, "some-idx3-ubyte", md5=md5), images)


def test_mnist_has_channels_and_int64_labels(tmp_path, write_idx, arrays):
    digests = {name: write_idx(tmp_path / name, array) for name, array in arrays.items()}
    found = formats.read_mnist(tmp_path, digests)
    assert found["x_train"].shape == (30, 1, 5, 4)
    assert found["x_train"].dtype == np.uint8
    assert found["y_test"].dtype == np.int64
    np.testing.assert_array_equal(found["y_test"], arrays["t10k-labels-idx1-ubyte"])


def test_a_wrong_checksum_is_named_with_the_file(tmp_path, write_idx):
    found = write_idx(tmp_path / "some-idx1-ubyte", np.zeros(3, np.uint8))
    with pytest.raises(NotPublished, match=f"some-idx1-ubyte has md5 {found}, expected {'a' * 32}"):
        formats.read_idx(tmp_path, "some-idx1-ubyte", md5="a" * 32)


def test_a_gzip_cut_short_is_not_read(tmp_path, write_idx):
    path = tmp_path / "some-idx1-ubyte.gz"
    md5 = write_idx(path, np.arange(200, dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(NotPublished, match=r"some-idx1-ubyte\.gz is damaged or cut short"):
        formats.read_idx(tmp_path, "some-idx1-ubyte", md5=md5)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(NotThere, match=r"has no cifar-10-python\.tar\.gz"):
        formats.read_cifar10(tmp_path, {})


@pytest.fixture
def cifar10():
    """Images [A, H, W, C] and labels; 2 images a training batch, 2 for the test."""
    stream = np.random.default_rng(0)
    return {
        "x_train": stream.integers(0, 256, (10, 32, 32, 3), np.uint8),
        "y_train": stream.integers(0, 10, 10, np.uint8),
        "x_test": stream.integers(0, 256, (2, 32, 32, 3), np.uint8),
        "y_test": stream.integers(0, 10, 2, np.uint8),
    }


def write_pngs(folder, cifar10):
    names = [f"data_batch_{i}.png" for i in range(1, 6)] + ["test_batch.png"]
    batches = [*np.split(cifar10["x_train"], 5), cifar10["x_test"]]
    for name, batch in zip(names, batches, strict=True):
        Image.fromarray(batch.reshape(len(batch), 1024, 3)).save(folder / name)
    for part in ("train", "test"):
        labels = json.dumps(cifar10[f"y_{part}"].tolist())
        (folder / f"{part}_lables.json").write_text(labels)


def write_archive(path, cifar10):
    """The official form: rows of 1,024 red, then green, then blue bytes."""
    with tarfile.open(path, "w:gz") as archive:
        for i in range(6):
            part = "train" if i < 5 else "test"
            here = slice(2 * i, 2 * i + 2) if i < 5 else slice(None)
            images = cifar10[f"x_{part}"][here]
            rows = np.stack([[image[..., c].ravel() for c in range(3)] for image in images])
            labels = cifar10[f"y_{part}"][here].tolist()
            content = pickle.dumps({"data": rows.reshape(2, 3072), "labels": labels})
            name = f"data_batch_{i + 1}" if i < 5 else "test_batch"
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


def digests_of(cifar10):
    return {name: hashlib.sha256(array).hexdigest() for name, array in cifar10.items()}


def check_cifar10(found, cifar10):
    assert found["x_train"].shape == (10, 3, 32, 32)
    assert found["x_train"].flags.c_contiguous
    for image, channel, row, column in ((0, 0, 0, 1), (3, 2, 31, 0), (9, 1, 7, 30)):
        expected = cifar10["x_train"][image, row, column, channel]
        assert found["x_train"][image, channel, row, column] == expected
    np.testing.assert_array_equal(found["x_test"].transpose(0, 2, 3, 1), cifar10["x_test"])
    np.testing.assert_array_equal(found["y_train"], cifar10["y_train"])
    assert found["y_test"].dtype == np.int64


def test_cifar10_from_pngs(tmp_path, cifar10):
    write_pngs(tmp_path, cifar10)
    check_cifar10(formats.read_cifar10(tmp_path, digests_of(cifar10)), cifar10)


def test_cifar10_from_the_official_archive(tmp_path, cifar10, monkeypatch):
    md5 = write_archive(tmp_path / "cifar-10-python.tar.gz", cifar10)
    monkeypatch.setattr("torchvision.datasets.CIFAR10.tgz_md5", md5)
    check_cifar10(formats.read_cifar10(tmp_path, digests_of(cifar10)), cifar10)


def test_an_archive_of_other_bytes_is_never_unpickled(tmp_path, cifar10, monkeypatch):
    write_archive(tmp_path / "cifar-10-python.tar.gz", cifar10)
    monkeypatch.setattr(formats.pickle, "load", lambda *_, **__: pytest.fail("unpickled"))
    with pytest.raises(NotPublished, match=r"cifar-10-python\.tar\.gz has md5"):
        formats.read_cifar10(tmp_path, digests_of(cifar10))


def test_cifar10_with_one_other_pixel_is_refused(tmp_path, cifar10):
    digests = digests_of(cifar10)
    cifar10["x_test"][1, 2, 3, 0] ^= 1
    write_pngs(tmp_path, cifar10)
    with pytest.raises(NotPublished, match=rf"x_test .* expected {digests['x_test']}"):
        formats.read_cifar10(tmp_path, digests)


def test_a_png_cut_short_is_refused(tmp_path, cifar10):
    write_pngs(tmp_path, cifar10)
    path = tmp_path / "data_batch_2.png"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(NotPublished, match=r"CIFAR-10 files in .* are damaged"):
        formats.read_cifar10(tmp_path, digests_of(cifar10))
