"""Reader of the user's own arrays: `.npz` files of images or tables.

Shape suffixes: A images or rows of an array, C channels, H height, W width, F features.
"""

import zipfile
from pathlib import Path

import numpy as np

from dwf.datasets.config import ArraysConfig
from dwf.datasets.formats import Arrays
from dwf.datasets.labels import relabelled
from dwf.datasets.own import Decoded
from dwf.errors import ConfigError
from dwf.files import DAMAGED, refuse_bomb

_PARTS = ("train", "test")
_CHANNELS = (1, 3)
_EXACT = 1e-3  # of one grey value, by which an image in [0, 1] may miss it: float16 misses it less


def read_arrays(config: ArraysConfig, path: Path) -> Decoded:
    """Read `x_train`, `y_train` and, where they are there, `x_test`, `y_test`.

    Images are `[A, H, W]`, `[A, C, H, W]` or `[A, H, W, C]` of one or three channels, bytes or
    numbers in [0, 1] that are whole parts of 255; tables are numbers `[A, F]`.

    Raises:
        ConfigError: the file is none, an array is missing or of another form, or has values that
            are not finite; or images and labels are of different number.
    """
    found = _load(path)
    arrays = {}
    for part in _PARTS[: 2 if "x_test" in found else 1]:
        x, y = found[f"x_{part}"], found[f"y_{part}"]
        if not x.ndim or not y.ndim:
            raise ConfigError(f"{path}: x_{part} or y_{part} is a single number: give arrays")
        if len(x) != len(y) or not len(x):
            raise ConfigError(
                f"{path}: x_{part} has {len(x)} rows and y_{part} {len(y)} labels: give one label "
                "for each row, and at least one row"
            )
        arrays[f"x_{part}"] = _inputs(x, f"{path}: x_{part}")
    _refuse_other_shape(arrays, path)
    y_train, y_test, labels = relabelled(
        found["y_train"], found.get("y_test"), what=f"{path}: y_train"
    )
    arrays |= {"y_train": y_train} | ({} if y_test is None else {"y_test": y_test})
    _refuse_brighter(arrays, config, path=path)
    return Decoded(arrays, labels)


def _load(path: Path) -> Arrays:
    names = [f"{letter}_{part}" for part in _PARTS for letter in "xy"]
    if not zipfile.is_zipfile(path):
        raise ConfigError(f"{path} is no .npz file, which numpy.savez writes")
    try:
        refuse_bomb(path)
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in names if f"{name}.npy" in file.zip.namelist()}
            others = ", ".join(sorted(file))
    except (*DAMAGED, OSError) as error:
        if "Object arrays" in str(error):
            raise ConfigError(
                f"{path} holds pickled objects, which would run code and are never read: save "
                "arrays of numbers or words (numpy.savez)"
            ) from None
        raise ConfigError(f"{path} is damaged ({error}): get it again") from None
    missing = [name for name in names[:2] if name not in found]
    if ("x_test" in found) != ("y_test" in found):
        missing.append("y_test" if "x_test" in found else "x_test")
    if missing:
        raise ConfigError(
            f"{path} has no {missing[0]}; it has {others or 'nothing'}: give x_train, y_train and, "
            "if you like, x_test, y_test"
        )
    return found


def _inputs(x: np.ndarray, what: str) -> np.ndarray:
    if x.dtype.kind not in "iubf":
        raise ConfigError(f"{what} is of type {x.dtype}: give numbers")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise ConfigError(
            f"{what} has {(~np.isfinite(x)).sum()} values that are not finite: fill them, or leave "
            "their rows out"
        )
    if x.ndim == 2 and x.shape[1]:
        return x.astype(np.float32)
    if x.ndim not in (3, 4) or 0 in x.shape:
        raise ConfigError(
            f"{what} has shape {list(x.shape)}: give images [A, H, W] or [A, C, H, W], or a table "
            "[A, F]"
        )
    return _bytes(_channels_first(x, what), what)


def _channels_first(x: np.ndarray, what: str) -> np.ndarray:
    if x.ndim == 3:
        return x[:, None]
    first, last = x.shape[1] in _CHANNELS, x.shape[3] in _CHANNELS
    if first == last:
        raise ConfigError(
            f"{what} has shape {list(x.shape)}, of which not just one of the second and the last "
            "axis can be channels (1 or 3): give images [A, C, H, W] of larger sides"
        )
    return x if first else np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def _bytes(x: np.ndarray, what: str) -> np.ndarray:
    low, high = x.min(), x.max()
    if x.dtype.kind != "f":
        if low < 0 or high > 255:
            raise ConfigError(f"{what} has values from {low} to {high}: give bytes, 0 to 255")
        return x.astype(np.uint8)
    grey = x.astype(np.float32) * 255
    rounded = np.rint(grey)
    if low < 0 or high > 1 or np.abs(grey - rounded).max() > 255 * _EXACT:
        raise ConfigError(
            f"{what} has values from {low:g} to {high:g} that are no whole parts of 255 in [0, 1]: "
            "give images as bytes (uint8), 0 to 255"
        )
    return rounded.astype(np.uint8)


def _refuse_other_shape(arrays: Arrays, path: Path) -> None:
    shapes = {name: list(x.shape[1:]) for name, x in arrays.items()}
    if len(set(map(tuple, shapes.values()))) > 1:
        raise ConfigError(f"{path}: rows have different shapes: {shapes}: make them alike")


def _refuse_brighter(arrays: Arrays, config: ArraysConfig, *, path: Path) -> None:
    if arrays["x_train"].ndim != 4:
        if config.largest != 255:
            raise ConfigError(f"data.largest = {config.largest}: {path} is a table: leave it out")
        return
    high = max(int(x.max()) for name, x in arrays.items() if name.startswith("x_"))
    if high > config.largest:
        raise ConfigError(f"data.largest = {config.largest}: {path} has pixels of {high}")
