"""Which images other people's networks were trained on: a file of indices, kept by its digest.

Shape suffixes: M images of a part.
"""

import dataclasses
import hashlib
import itertools
import re
from pathlib import Path

import numpy as np
import torch

from dwf.datasets.cache import data_folder
from dwf.datasets.dataset import Dataset, Part
from dwf.errors import ConfigError, CorruptCheckpoint, DataUnavailable
from dwf.files import read_json, reading_arrays
from dwf.run_folder import replacing_alone

_PARTS = ("train", "val", "test")


def keep_split(file: Path) -> str:
    """Read a file of indices, keep it beside the datasets, and return its digest.

    Args:
        file: JSON or npz, with `train`, and where there are some `val` and `test`: indices of the
            published training images; of test images, where these are published apart. Or the
            digest of one that is kept here.

    Raises:
        ConfigError: there is no such file, or it has no such indices.
    """
    if re.fullmatch("[0-9a-f]{16}", str(file)) and _kept(str(file)).exists():
        return str(file)
    indices = _read(file)
    digest = hashlib.sha256()
    for name, values_M in indices.items():
        digest.update(name.encode() + values_M.tobytes())
    name = digest.hexdigest()[:16]
    with replacing_alone(_kept(name)) as partial, open(partial, "wb") as opened:
        np.savez(opened, **indices)
    return name


def take_split(data: Dataset, digest: str) -> Dataset:
    """Return a dataset whose parts are those of a split that was kept.

    Without `val` in it, validation images are the training images that are not in `train`.

    Raises:
        DataUnavailable: the split is not on this machine.
        ConfigError: it has indices that the dataset has not, or parts overlap.
    """
    file = _kept(digest)
    if not file.exists():
        raise DataUnavailable(
            f"{file} is missing: it says which images the networks were trained on; import the "
            "networks here, or copy it from where they were imported"
        )
    with reading_arrays(file), np.load(file, allow_pickle=False) as held:
        indices = {name: torch.from_numpy(held[name]) for name in held.files}
    parts = {"train": data.train, "val": data.train, "test": data.test}
    is_published = data.test.images is not data.train.images
    if "test" not in indices and not is_published:
        raise ConfigError(
            "data.split has no `test`, and the dataset has no published test images: add them"
        )
    for name, index_M in indices.items():
        _refuse_no_index(name, index_M, parts[name].labels)
    of_train = ("train", "val") if is_published else ("train", "val", "test")
    if "val" not in indices:
        is_left_A = data.train.labels >= 0  # those of classes that the settings leave out are not
        for name in set(of_train) & set(indices):
            is_left_A[indices[name]] = False
        indices["val"] = is_left_A.nonzero().flatten()
    for one, other in itertools.combinations(of_train, 2):
        if set(indices[one].tolist()) & set(indices[other].tolist()):
            raise ConfigError(f"data.split: {one} and {other} have images in common")
    return dataclasses.replace(
        data, **{name: _part(parts[name], index_M) for name, index_M in indices.items()}
    )


def _part(part: Part, index_M: torch.Tensor) -> Part:
    return Part(part.images, part.labels, index=index_M)


def _refuse_no_index(name: str, index_M: torch.Tensor, labels_A: torch.Tensor) -> None:
    if not len(index_M):
        return
    if not 0 <= int(index_M.min()) <= int(index_M.max()) < len(labels_A):
        raise ConfigError(
            f"data.split: {name} goes from {int(index_M.min())} to {int(index_M.max())}, the "
            f"dataset has images 0 to {len(labels_A) - 1}: give the indices of this dataset"
        )
    if name != "train" and len(index_M.unique()) < len(index_M):  # bagging trains on some twice
        raise ConfigError(f"data.split: {name} has an image twice: give each once")
    others = int((labels_A[index_M] < 0).sum())
    if others:
        raise ConfigError(
            f"data.split: {others} images of {name} are of classes that data.classes leaves out: "
            "give the indices of the others"
        )


def _read(file: Path) -> dict[str, np.ndarray]:
    if not file.is_file():
        raise ConfigError(
            f"data.split = {str(file)!r}: no such file; give one with the indices `train`, or "
            "`unknown`"
        )
    try:
        if file.suffix == ".npz":
            with reading_arrays(file), np.load(file, allow_pickle=False) as held:
                told = {name: held[name] for name in held.files}
        else:
            told = read_json(file)
        found = {name: np.asarray(told[name]) for name in _PARTS if name in told}
        if "train" in found and all(v.ndim == 1 and v.dtype.kind in "iu" for v in found.values()):
            return {name: values.astype("<i8") for name, values in found.items()}
    except (ValueError, TypeError, OverflowError, CorruptCheckpoint):
        pass
    raise ConfigError(f"{file}: expected lists of indices called train, val and test")


def _kept(digest: str) -> Path:
    return data_folder() / "splits" / f"{digest}.npz"
