"""Decoded arrays on disk: made once, held to their checksums at each load, memory-mapped.

    $DWF_DATA/mnist/raw/                    official files that you put there, if you did
    $DWF_DATA/mnist/x_train.npy  ...        decoded
    $DWF_DATA/mnist/checksums.json          written last: with it the dataset is whole
    $DWF_DATA/mnist-14/                     the same with images of 14 x 14, made from it
    $DWF_DATA/own/0a1b...-5e6f.../          data of the user's own, see own.py

`$DWF_DATA` is by default `dwf` in the user's cache folder. Size and CRC-32 of every file are
checked at each load (22 ms for MNIST, 50 ms for CIFAR-10 on one core): less than what one pass
of training reads.
"""

import contextlib
import fcntl
import logging
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from dwf.datasets.formats import Arrays
from dwf.datasets.resize import resize
from dwf.datasets.sources import read_published
from dwf.errors import ConfigError, DataUnavailable
from dwf.files import read_array, read_json, refuse_irregular
from dwf.names import expanded
from dwf.run_folder import LEFTOVERS, replacing, sweep, write_json
from dwf.system_errors import sentence_of

logger = logging.getLogger("dwf")


def data_folder() -> Path:
    """`$DWF_DATA`, or `dwf` in the user's cache folder."""
    if os.environ.get("DWF_DATA"):
        return expanded(os.environ["DWF_DATA"])
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "dwf"


def is_cached(kind: str, side: int | None = None) -> bool:
    """Whether a published dataset is on this machine, in this size: nothing need be made."""
    return is_whole(_folder(kind, side))


def _folder(kind: str, side: int | None = None) -> Path:
    return data_folder() / (f"{kind}-{side}" if side else kind)


def open_arrays(kind: str) -> Arrays:
    """Return a dataset's arrays, memory-mapped; fetch and decode them first where they are missing.

    The maps are private: writing into one changes neither the file nor another process.

    Raises:
        DataUnavailable: no source has it, or a cached file is not what was written.
    """
    folder = _folder(kind)
    return open_or_make(folder, lambda: read_published(kind, folder / "raw"))


def open_resized(kind: str, side: int) -> Arrays:
    """Return a dataset's arrays with smaller images (see resize.py), made once, memory-mapped.

    Args:
        kind: the dataset.
        side: height and width of the images, in pixels.

    Raises:
        DataUnavailable: as `open_arrays` does.
        ConfigError: the dataset has no images, or smaller ones.
    """
    folder = _folder(kind, side)
    if not is_whole(folder):
        _refuse_side(kind, side, shape=open_arrays(kind)["x_train"].shape[1:])
    return open_or_make(folder, lambda: resized(open_arrays(kind), side, what=kind))


def _refuse_side(kind: str, side: int, *, shape: Sequence[int]) -> None:
    if len(shape) != 3:
        raise ConfigError(
            f"data.size = {side}: {kind} is a table of {shape[0]} features, without images to "
            "resize: leave size out"
        )
    if side > min(shape[1:]):
        raise ConfigError(
            f"data.size = {side}: the images of {kind} have {shape[1]} x {shape[2]} pixels and "
            f"become only smaller: give at most {min(shape[1:])}, or leave size out"
        )


def resized(arrays: Arrays, side: int, *, what: str) -> Arrays:
    """Return arrays whose images have another size, see `open_resized`; `what` is their name."""
    _refuse_side(what, side, shape=arrays["x_train"].shape[1:])
    return {
        name: resize(array, side) if name.startswith("x_") else array
        for name, array in arrays.items()
    }


def open_or_make(folder: Path, make: Callable[[], Arrays]) -> Arrays:
    """Return the arrays of a folder, memory-mapped; make and write them first if it lacks them."""
    if not is_whole(folder):
        with _one_at_a_time(folder) as is_alone:
            if is_alone:
                sweep(folder.glob(LEFTOVERS))
            if not is_whole(folder):  # another process may have made it while this one waited
                _write(folder, make())
    return {Path(name).stem: _open(folder / name, sum_) for name, sum_ in _sums(folder).items()}


def is_whole(folder: Path) -> bool:
    """Whether a folder holds all its arrays."""
    return (folder / "checksums.json").exists() and all(
        (folder / name).exists() for name in _sums(folder)
    )


def _sums(folder: Path) -> dict[str, list[int]]:
    """File name -> [bytes, CRC-32]."""
    return read_json(folder / "checksums.json", error=DataUnavailable)


def _write(folder: Path, arrays: Arrays) -> None:
    for name, array in arrays.items():
        with replacing(folder / f"{name}.npy") as partial, open(partial, "wb") as file:
            np.save(file, array)
    write_json(folder / "checksums.json", {f"{n}.npy": _sum(folder / f"{n}.npy") for n in arrays})


def _sum(path: Path) -> list[int]:
    refuse_irregular(path)
    size = path.stat().st_size
    return [size, zlib.crc32(np.memmap(path, np.uint8, "r")) if size else 0]


def _open(path: Path, expected: list[int]) -> np.ndarray:
    found = _sum(path)
    if found != expected:
        raise DataUnavailable(
            f"{path} has {found[0]} bytes and CRC-32 {found[1]:08x}, expected {expected[0]} bytes "
            f"and {expected[1]:08x}: remove it and give the command again"
        )
    return read_array(path, "c")


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[bool]:
    """Hold the dataset's lock, so that several processes do not fetch the same files.

    Nothing breaks on file systems without locks: all files are renamed into place, and every
    process writes the same bytes.

    Yields:
        Whether no other process writes there, as far as locks can tell.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / "lock", "w", encoding="utf-8")  # noqa: SIM115  closed by the block below
    except OSError as error:
        raise DataUnavailable(
            f"$DWF_DATA, where data are kept, cannot be written: {sentence_of(error)} Or set "
            "DWF_DATA to a folder of your own."
        ) from None
    with file:
        is_alone = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("%s: another process makes it; waiting", folder.name)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            logger.info("%s: no lock on this file system (%s)", folder.name, error)
            is_alone = False
        yield is_alone
