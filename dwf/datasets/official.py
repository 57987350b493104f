"""Readers of the official files that torchvision knows, and of Tiny-ImageNet's.

They give what torchvision's own classes give: labels 0 to k - 1, images as bytes. As there,
EMNIST's images lie on their side. The contract is that of formats.py.

Shape suffixes: A images, C channels, H height, W width.
"""

import gzip
import hashlib
import io
import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dwf.datasets.formats import Arrays, NotPublished, NotThere, find_file, idx_array
from dwf.datasets.tree import Tree, open_tree
from dwf.errors import ConfigError
from dwf.metrics import Progress

_CHUNK = 2**20
_STL10_SIDE = 96
_TINY, _TINY_SIDE = "tiny-imagenet-200", 64
_TINY_COUNTS = {"train": 100_000, "test": 10_000}


def _find_published(folder: Path, name: str, digests: Mapping[str, str]) -> Path:
    """Return a file that is the published one; it is read piece by piece."""
    path, digest = find_file(folder, name), hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != digests[name]:
        raise NotPublished(f"{path} has md5 {digest.hexdigest()}, expected {digests[name]}")
    return path


def read_cifar100(folder: Path, digests: Mapping[str, str]) -> Arrays:
    """Read CIFAR-100's archive, with its 100 fine labels."""
    path = _find_published(folder, "cifar-100-python.tar.gz", digests)  # before unpickling
    arrays = {}
    with tarfile.open(path) as archive:
        for part in ("train", "test"):
            batch = pickle.load(archive.extractfile(f"cifar-100-python/{part}"), encoding="latin1")
            arrays[f"x_{part}"] = batch["data"].reshape(-1, 3, 32, 32)
            arrays[f"y_{part}"] = np.array(batch["fine_labels"], np.int64)
    return arrays


def read_svhn(folder: Path, digests: Mapping[str, str]) -> Arrays:
    """Read SVHN's cropped digits, without the extra ones; the label 10 is the digit 0."""
    from scipy.io import loadmat

    arrays = {}
    for part in ("train", "test"):
        file = loadmat(_find_published(folder, f"{part}_32x32.mat", digests))
        arrays[f"x_{part}"] = np.ascontiguousarray(file["X"].transpose(3, 2, 0, 1))
        arrays[f"y_{part}"] = file["y"].ravel().astype(np.int64) % 10
    return arrays


def read_stl10(folder: Path, digests: Mapping[str, str]) -> Arrays:
    """Read STL-10's labelled images, from its archive or from the files in it."""
    names = {f"{x.lower()}_{part}": f"{part}_{x}.bin" for x in "Xy" for part in ("train", "test")}
    try:
        paths = {key: _find_published(folder, name, digests) for key, name in names.items()}
        raw = {key: path.read_bytes() for key, path in paths.items()}
    except NotThere:
        path = _find_published(folder, "stl10_binary.tar.gz", digests)
        with tarfile.open(path) as archive:
            raw = {k: archive.extractfile(f"stl10_binary/{n}").read() for k, n in names.items()}
    return {key: _stl10_array(content, key) for key, content in raw.items()}


def _stl10_array(content: bytes, key: str) -> np.ndarray:
    numbers = np.frombuffer(content, np.uint8)
    if key.startswith("y"):
        return numbers.astype(np.int64) - 1
    images_ACWH = numbers.reshape(-1, 3, _STL10_SIDE, _STL10_SIDE)  # columns come first
    return np.ascontiguousarray(images_ACWH.transpose(0, 1, 3, 2))


def read_emnist(folder: Path, digests: Mapping[str, str], *, split: str) -> Arrays:
    """Read one split of EMNIST's archive; labels of `letters` begin at 1 there, at 0 here."""
    path = _find_published(folder, "gzip.zip", digests)
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for part in ("train", "test"):
            start = f"gzip/emnist-{split}-{part}"
            images_AHW = _unzipped(archive, f"{start}-images-idx3-ubyte.gz")
            labels_A = _unzipped(archive, f"{start}-labels-idx1-ubyte.gz").astype(np.int64)
            arrays[f"x_{part}"] = images_AHW[:, None]
            arrays[f"y_{part}"] = labels_A - (split == "letters")
    return arrays


def _unzipped(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    return idx_array(gzip.decompress(archive.read(name)))


def read_kmnist(folder: Path, digests: Mapping[str, str]) -> Arrays:
    """Read KMNIST's four IDX files, compressed as they are published."""
    arrays = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images = _find_published(folder, f"{prefix}-images-idx3-ubyte.gz", digests)
        labels = _find_published(folder, f"{prefix}-labels-idx1-ubyte.gz", digests)
        arrays[f"x_{part}"] = idx_array(gzip.decompress(images.read_bytes()))[:, None]
        arrays[f"y_{part}"] = idx_array(gzip.decompress(labels.read_bytes())).astype(np.int64)
    return arrays


# --- Tiny-ImageNet ---------------------------------------------------------------------------


def read_tiny_imagenet(folder: Path, digests: Mapping[str, str]) -> Arrays:
    """Read Tiny-ImageNet from its archive, or from the folder that it unpacks to.

    The published validation images are the test part, as the test images have no labels. Classes
    are numbered by the alphabet of their WordNet names. A folder is held to its number of images,
    as no checksum of it is published.
    """
    try:
        path = _find_published(folder, f"{_TINY}.zip", digests)
    except NotThere:
        path = _find_folder(folder)
    try:
        with open_tree(path) as tree:
            inner = tree.below(_TINY) if _TINY in tree.folders else tree
            files = _tiny_files(inner)
            for part, found in files.items():
                if len(found) != _TINY_COUNTS[part]:
                    raise NotPublished(
                        f"{path} has {len(found)} {part} images, expected {_TINY_COUNTS[part]}"
                    )
            places = {name: i for i, name in enumerate(sorted(set(files["train"].values())))}
            return {
                f"{x}_{part}": array
                for part, found in files.items()
                for x, array in _tiny_part(inner, found, places=places).items()
            }
    except (ConfigError, KeyError, OSError, ValueError) as error:
        raise NotPublished(f"{path} is not as it was published ({error})") from None


def _find_folder(folder: Path) -> Path:
    for path in sorted(folder.rglob(_TINY)):
        if path.is_dir():
            return path
    raise NotThere(f"{folder} has no {_TINY}.zip and no folder {_TINY}")


def _tiny_files(tree: Tree) -> dict[str, dict[str, str]]:
    """Return file -> WordNet name of the class, of the training and the published val images."""
    train = {n: n.split("/")[1] for n in tree.names if n.startswith("train/") and _is_image(n)}
    lines = tree.read("val/val_annotations.txt").decode().splitlines()
    rows = [line.split("\t") for line in lines if line]
    return {"train": train, "test": {f"val/images/{row[0]}": row[1] for row in rows}}


def _is_image(name: str) -> bool:
    return name.endswith(".JPEG")


def _tiny_part(tree: Tree, files: Mapping[str, str], *, places: Mapping[str, int]) -> Arrays:
    from PIL import Image

    images_ACHW = np.empty((len(files), 3, _TINY_SIDE, _TINY_SIDE), np.uint8)
    with Progress("decode Tiny-ImageNet", len(files), unit="images") as progress:
        for i, name in enumerate(files):
            image = Image.open(io.BytesIO(tree.read(name))).convert("RGB")  # some are grey
            images_ACHW[i] = np.asarray(image).transpose(2, 0, 1)
            progress.update(i + 1)
    return {"x": images_ACHW, "y": np.array([places[word] for word in files.values()], np.int64)}
