"""Small files in the official formats: what is read is what torchvision's own classes read."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import typing
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dwf.datasets import known, load, official, sources
from dwf.datasets.config import TorchvisionConfig
from dwf.datasets.load import load_dataset
from dwf.datasets.sources import TORCHVISION
from dwf.errors import ConfigError, DataUnavailable
from dwf.settings import build

COUNTS = {"train": 12, "test": 6}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DWF_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


def bytes_of(stream, *shape):
    return stream.integers(0, 256, shape, np.uint8)


def md5_of(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def put(cache, monkeypatch):
    """Let written files be the published ones; returns the folder for them, and then how to."""

    def begin(key):
        raw = cache / key / "raw"
        raw.mkdir(parents=True)

        def publish():
            digests = {file.name: md5_of(file) for file in raw.rglob("*") if file.is_file()}
            monkeypatch.setitem(TORCHVISION, key, replace(TORCHVISION[key], digests=digests))

        return raw, publish

    return begin


def check(config, part, images_ACHW, labels):
    """A part holds the images of torchvision, [A, C, H, W], and its labels, in their order."""
    found = load_dataset(config).part(part)
    images, classes = found.batch(torch.arange(len(found)))
    np.testing.assert_array_equal(images, images_ACHW)
    np.testing.assert_array_equal(classes, labels)


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def test_cifar100_is_torchvisions(put, tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR100

    raw, publish = put("cifar100")
    stream = np.random.default_rng(0)
    with tarfile.open(raw / "cifar-100-python.tar.gz", "w:gz") as archive:
        for part, count in COUNTS.items():
            labels = stream.integers(0, 100, count).tolist()
            batch = {"data": bytes_of(stream, count, 3072), "fine_labels": labels}
            add(archive, f"cifar-100-python/{part}", pickle.dumps(batch))
        meta = pickle.dumps({"fine_label_names": [str(i) for i in range(100)]})
        add(archive, "cifar-100-python/meta", meta)
    publish()
    with tarfile.open(raw / "cifar-100-python.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.setattr(CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    config = TorchvisionConfig(name="cifar100", validation=0.0)
    for part in COUNTS:
        theirs = CIFAR100(tmp_path, train=part == "train")
        check(config, part, theirs.data.transpose(0, 3, 1, 2), theirs.targets)


def test_svhn_is_torchvisions(put, monkeypatch):
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    raw, publish = put("svhn")
    stream = np.random.default_rng(0)
    for part, count in COUNTS.items():
        labels = np.r_[10, stream.integers(1, 11, count - 1)][:, None].astype(np.uint8)
        savemat(raw / f"{part}_32x32.mat", {"X": bytes_of(stream, 32, 32, 3, count), "y": labels})
    publish()
    monkeypatch.setattr(SVHN, "_check_integrity", lambda self: True)
    for part in COUNTS:
        theirs = SVHN(raw, split=part)
        check(TorchvisionConfig(name="svhn", validation=0.0), part, theirs.data, theirs.labels)


@pytest.mark.parametrize("form", ["archive", "files"])
def test_stl10_is_torchvisions(put, tmp_path, monkeypatch, form):
    from torchvision.datasets import STL10

    raw, publish = put("stl10")
    folder = (raw if form == "files" else tmp_path) / "stl10_binary"
    folder.mkdir()
    stream = np.random.default_rng(0)
    for part, count in COUNTS.items():
        (folder / f"{part}_X.bin").write_bytes(bytes_of(stream, count, 3, 96, 96).tobytes())
        labels = stream.integers(1, 11, count).astype(np.uint8)
        (folder / f"{part}_y.bin").write_bytes(labels.tobytes())
    if form == "archive":
        with tarfile.open(raw / "stl10_binary.tar.gz", "w:gz") as archive:
            archive.add(folder, "stl10_binary")
    publish()
    monkeypatch.setattr(STL10, "_check_integrity", lambda self: True)
    for part in COUNTS:
        theirs = STL10(folder.parent, split=part)
        check(TorchvisionConfig(name="stl10", validation=0.0), part, theirs.data, theirs.labels)


@pytest.mark.parametrize("split", ["letters", "balanced"])
def test_emnist_is_torchvisions(put, tmp_path, split):
    from torchvision.datasets import EMNIST

    raw, publish = put(f"emnist_{split}")
    theirs_raw = tmp_path / "EMNIST/raw"
    theirs_raw.mkdir(parents=True)
    stream, least = np.random.default_rng(0), int(split == "letters")
    with zipfile.ZipFile(raw / "gzip.zip", "w") as archive:
        for part, count in COUNTS.items():
            labels = stream.integers(least, 20, count).astype(np.uint8)
            for what, array in (
                ("images-idx3", bytes_of(stream, count, 28, 28)),
                ("labels-idx1", labels),
            ):
                name = f"emnist-{split}-{part}-{what}-ubyte"
                archive.writestr(f"gzip/{name}.gz", gzip.compress(idx(array)))
                (theirs_raw / name).write_bytes(idx(array))
    publish()
    config = TorchvisionConfig(name="emnist", split=split, validation=0.0)
    for part in COUNTS:
        theirs = EMNIST(tmp_path, split=split, train=part == "train")
        check(config, part, theirs.data[:, None], theirs.targets - least)


def test_kmnist_is_torchvisions(put, tmp_path):
    from torchvision.datasets import KMNIST

    raw, publish = put("kmnist")
    theirs_raw = tmp_path / "KMNIST/raw"
    theirs_raw.mkdir(parents=True)
    stream = np.random.default_rng(0)
    for prefix, count in (("train", 12), ("t10k", 6)):
        images, labels = bytes_of(stream, count, 28, 28), stream.integers(0, 10, count, np.uint8)
        for what, array in (("images-idx3", images), ("labels-idx1", labels)):
            name = f"{prefix}-{what}-ubyte"
            (raw / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
            (theirs_raw / name).write_bytes(idx(array))
    publish()
    for part in COUNTS:
        theirs = KMNIST(tmp_path, train=part == "train")
        config = TorchvisionConfig(name="kmnist", validation=0.0)
        check(config, part, theirs.data[:, None], theirs.targets)


def write_tiny_imagenet(folder):
    """Two classes of three training images and two published validation images each."""
    stream, lines = np.random.default_rng(0), []
    for word in ("n02", "n01"):  # not in the alphabet's order
        images = folder / f"train/{word}/images"
        images.mkdir(parents=True)
        for i in range(3):
            Image.fromarray(bytes_of(stream, 64, 64, 3)).save(images / f"{word}_{i}.JPEG")
    (folder / "val/images").mkdir(parents=True)
    for i, word in enumerate(("n02", "n01", "n01", "n02")):
        mode = bytes_of(stream, 64, 64) if i == 1 else bytes_of(stream, 64, 64, 3)  # one is grey
        Image.fromarray(mode).save(folder / f"val/images/val_{i}.JPEG")
        lines.append(f"val_{i}.JPEG\t{word}\t0\t0\t9\t9\n")
    (folder / "val/val_annotations.txt").write_text("".join(lines))


@pytest.mark.parametrize("form", ["zip", "folder"])
def test_tiny_imagenet_is_image_folders(put, tmp_path, monkeypatch, form):
    from torchvision.datasets import ImageFolder

    raw, publish = put("tiny_imagenet")
    folder = (raw if form == "folder" else tmp_path) / "tiny-imagenet-200"
    write_tiny_imagenet(folder)
    if form == "zip":
        with zipfile.ZipFile(raw / "tiny-imagenet-200.zip", "w") as archive:
            for file in folder.rglob("*"):
                archive.write(file, file.relative_to(tmp_path))
    publish()
    config = TorchvisionConfig(name="tiny_imagenet", validation=0.0)
    with pytest.raises(DataUnavailable, match="has 6 train images, expected 100000"):
        load_dataset(config)
    monkeypatch.setattr(official, "_TINY_COUNTS", {"train": 6, "test": 4})
    theirs = ImageFolder(folder / "train")
    images = np.stack([np.asarray(image).transpose(2, 0, 1) for image, _ in theirs])
    check(config, "train", images, theirs.targets)
    val = [Image.open(folder / f"val/images/val_{i}.JPEG").convert("RGB") for i in range(4)]
    check(config, "test", [np.asarray(i).transpose(2, 0, 1) for i in val], [1, 0, 0, 1])


def test_another_file_is_refused_before_it_is_read(put, monkeypatch):
    raw, _ = put("cifar100")
    (raw / "cifar-100-python.tar.gz").write_bytes(b"another file")
    monkeypatch.setattr(official.pickle, "load", lambda *_, **__: pytest.fail("unpickled"))
    with pytest.raises(DataUnavailable, match=r"md5 .*, expected eb9058c3a382ffc7106e4002c42a8d85"):
        load_dataset(TorchvisionConfig(name="cifar100"))


def test_checksums_and_addresses_are_torchvisions(monkeypatch):
    from torchvision import datasets

    digests = {key: facts.digests for key, facts in TORCHVISION.items()}
    assert digests["cifar100"] == {datasets.CIFAR100.filename: datasets.CIFAR100.tgz_md5}
    assert digests["svhn"] == {
        name: md5 for _, name, md5 in map(datasets.SVHN.split_list.get, ("train", "test"))
    }
    stl10 = dict([*datasets.STL10.train_list, *datasets.STL10.test_list])
    stl10 |= {datasets.STL10.filename: datasets.STL10.tgz_md5}
    assert digests["stl10"].items() <= stl10.items()
    assert digests["kmnist"] == dict(datasets.KMNIST.resources)
    for split in datasets.EMNIST.splits:
        assert digests[f"emnist_{split}"] == {"gzip.zip": datasets.EMNIST.md5}
        classes = [c for c in datasets.EMNIST.classes_split_dict[split] if c != "N/A"]
        assert TORCHVISION[f"emnist_{split}"].num_classes == len(classes)
    fetched = []
    monkeypatch.setattr(sources, "download", lambda url, path, *, md5: fetched.append((url, md5)))
    for key, of in (("cifar100", "CIFAR100"), ("stl10", "STL10"), ("emnist_mnist", "EMNIST")):
        TORCHVISION[key].sources[0].fetch(official.Path())
        theirs = getattr(datasets, of)
        md5 = theirs.md5 if of == "EMNIST" else theirs.tgz_md5
        assert fetched.pop() == (theirs.url, md5)


def test_every_dataset_that_can_be_named_has_facts_and_sources():
    names = typing.get_args(typing.get_type_hints(TorchvisionConfig)["name"])
    by_key = load.by_name()
    assert by_key.keys() == sources.PUBLISHED.keys() | TORCHVISION.keys()
    assert {c.name for c in by_key.values() if isinstance(c, TorchvisionConfig)} == set(names)
    assert all(sources.published(key).sources for key in by_key)
    grey = TorchvisionConfig(name="stl10", grey=True, size=32)
    assert known.input_shape(grey) == (1, 32, 32) and not known.is_here(grey)


def test_a_split_is_emnists_alone():
    for told in ({"name": "emnist"}, {"name": "svhn", "split": "letters"}):
        with pytest.raises(ConfigError, match=r"data: split = .*: emnist has the splits balanced"):
            build(TorchvisionConfig, {"kind": "torchvision"} | told, source="f", key="data")
