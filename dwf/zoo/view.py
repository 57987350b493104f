"""The virtual view `zoo.h5`: all shards as one matrix for any HDF5 tool, and one table of facts.

It also says where in each shard the weights lie, and the CRC-32 of every other byte of the file,
and begins with the CRC-32 of its own bytes. A whole zoo is opened from it alone: reading a thousand
shards' tables by HDF5 takes a second, comparing their bytes a twentieth of that, and finds a shard
that was cut, altered or replaced.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from dwf.errors import CorruptShard
from dwf.files import read_dataset
from dwf.run_folder import replacing
from dwf.system_errors import of_system
from dwf.zoo.checksums import crc32
from dwf.zoo.facts import Facts
from dwf.zoo.hdf5 import made_in_memory
from dwf.zoo.shard import (
    Columns,
    Shard,
    readable,
    refuse_odd,
    rest_checksum,
    storable,
)

NAME = "zoo.h5"
_DAMAGED = (OSError, KeyError, RuntimeError, ValueError)  # what HDF5 raises for altered bytes
_FORMAT, _HEAD_BYTES = b"dwf-view 2", 512  # HDF5 looks for itself at byte 0, 512, 1024 ...
_BUFFER_BYTES = 2**20
_INDEX = [("rows", "<i8"), ("offset", "<i8"), ("size", "<i8"), ("checksum", "<u4")]
_DIVERGED = [("shard", "<i8"), ("network", "<i8"), ("step", "<i8"), ("reason", "S64")]


def write_view(folder: Path, facts: Facts, *, shards: Sequence[Shard], columns: Columns) -> None:
    """Write `zoo.h5` of a zoo whose shards are all there.

    Args:
        folder: the zoo's folder.
        facts: what it says of itself.
        shards: its shards, in order.
        columns: the table of all rows.
    """
    stored = {name: storable(values) for name, values in columns.items()}
    index = {"index/shards": _index(shards), "index/diverged": _diverged(shards)}
    with replacing(folder / NAME) as partial:
        with made_in_memory(partial, _HEAD_BYTES) as file:
            _create_matrix(file, facts.layout.size, shards)
            for name, values in (stored | index).items():
                file.create_dataset(name, data=values)
            names = {"layout": facts.layout.digest, "zoo": facts.identity}
            file["index"].attrs.update(names, columns=list(stored))
        with open(partial, "r+b") as opened:
            head = _head(opened)
            opened.seek(0)
            opened.write(head)


def _head(file: BinaryIO) -> bytes:
    """Return a view's first bytes, which HDF5 skips: the CRC-32 of all bytes behind them."""
    file.seek(_HEAD_BYTES)
    buffer, checksum = memoryview(bytearray(_BUFFER_BYTES)), 0
    while size := file.readinto(buffer):
        checksum = crc32(buffer[:size], checksum)
    return b"%s %08x\n" % (_FORMAT, checksum)


def _index(shards: Sequence[Shard]) -> np.ndarray:
    rows = [
        (
            shard.num_rows,
            shard.offset,
            *rest_checksum(shard.path, shard.offset, num_bytes=shard.num_bytes),
        )
        for shard in shards
    ]
    return np.array(rows, dtype=_INDEX)


def _diverged(shards: Sequence[Shard]) -> np.ndarray:
    rows = [
        (index, network, step, reason.encode())
        for index, shard in enumerate(shards)
        for network, step, reason in shard.diverged
    ]
    return np.array(rows, dtype=_DIVERGED)


def _create_matrix(file: h5py.File, num_weights: int, shards: Sequence[Shard]) -> None:
    """One virtual dataset over the shards; a row whose shard is missing reads as NaN."""
    shape = (sum(shard.num_rows for shard in shards), num_weights)
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_fill_value(np.array([np.nan], "<f4"))
    creation.set_obj_track_times(False)
    start = 0
    for shard in shards:
        if shard.num_rows:
            size = (shard.num_rows, num_weights)
            here = h5py.h5s.create_simple(shape)
            here.select_hyperslab((start, 0), size)
            there = h5py.h5s.create_simple(size)
            creation.set_virtual(here, shard.path.name.encode(), b"weights", there)
            start += shard.num_rows
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, b"weights", h5py.h5t.IEEE_F32LE, space, creation)


class View:
    """A zoo as its `zoo.h5` describes it.

    Args:
        folder: the zoo's folder.
        facts: what it says of itself.

    Raises:
        CorruptShard: there is no such file, it is damaged or of another zoo.
        OSError: it cannot be opened or read; it may be sound.
    """

    def __init__(self, folder: Path, facts: Facts):
        self.path, self._num_weights = folder / NAME, facts.layout.size
        try:
            if not self.path.is_file():
                raise ValueError("it is not there, or no file")
            with open(self.path, "rb") as opened:
                head = _head(opened)
                opened.seek(0)
                if opened.read(len(head)) != head:
                    raise ValueError("its bytes do not match their checksum")
            with h5py.File(self.path, "r", locking=False) as file:
                told = file["index"].attrs
                if (told["layout"], told["zoo"]) != (facts.layout.digest, facts.identity):
                    raise ValueError("it is of another zoo")
                names = told["columns"]
                stored = {name: read_dataset(file, name) for name in names}
                index = {
                    name: read_dataset(file, f"index/{name}") for name in ("shards", "diverged")
                }
            _refuse_odd(stored, index["shards"], self._num_weights)
        except FileNotFoundError as error:
            raise CorruptShard(f"{self.path} is damaged ({error})") from None
        except _DAMAGED as error:
            damaged = CorruptShard(f"{self.path} is damaged ({error})")
            raise of_system(error, self.path) or damaged from None
        self._stored = stored
        self.shards: list[tuple[int, int, int, int]] = index["shards"].tolist()
        """For each shard: rows, offset of the weights, bytes, checksum of all but the weights."""
        self.starts = np.cumsum([0, *index["shards"]["rows"]]).tolist()
        self._diverged: dict[int, list[tuple[int, int, str]]] = {}
        for shard, network, step, reason in index["diverged"].tolist():
            self._diverged.setdefault(shard, []).append((network, step, reason.decode()))

    def fits(self, number: int, file: Path) -> bool:
        """Whether a shard's file has the bytes that it had when the view was written.

        All bytes are compared but the weights, which have checksums of their own.
        """
        if number >= len(self.shards) or not file.is_file():
            return False
        rows, offset, *expected = self.shards[number]
        try:
            return rest_checksum(file, offset, num_bytes=4 * rows * self._num_weights) == tuple(
                expected
            )
        except OSError:
            return False

    @cached_property
    def columns(self) -> Columns:
        """The table of all rows."""
        try:
            return {name: readable(values) for name, values in self._stored.items()}
        except UnicodeDecodeError as error:
            raise CorruptShard(f"{self.path} is damaged ({error}): remove it") from None

    def shard(self, number: int, file: Path, *, only: str | None = None) -> Shard:
        """Return a shard whose file fits, without reading it.

        Args:
            number: its place among the shards.
            file: its path.
            only: the one column that it is to have, where the others are not needed.
        """
        rows, offset, _, _ = self.shards[number]
        mine = slice(self.starts[number], self.starts[number] + rows)
        table = self.columns if only is None else {only: self._stored.get(only, np.zeros(0))}
        columns = {name: values[mine] for name, values in table.items()}
        shape, diverged = (rows, self._num_weights), self._diverged.get(number, [])
        return Shard.described(file, shape, offset=offset, columns=columns, diverged=diverged)


def _refuse_odd(stored: Columns, shards: np.ndarray, width: int) -> None:
    """Raise ValueError where places of shards are none, or the table is of other rows."""
    if shards.dtype != np.dtype(_INDEX):
        raise ValueError(f"places of shards are {shards.dtype}")
    sides = [shards[name].tolist() for name in ("rows", "offset", "size")]
    for rows, offset, size in zip(*sides, strict=True):
        if rows < 0 or offset < 0 or offset + 4 * rows * width > size:
            raise ValueError(f"{rows} rows at {offset} of a shard of {size} bytes")
    refuse_odd(stored, sum(sides[0]))


def read_view(
    folder: Path, facts: Facts, *, files: Sequence[Path]
) -> tuple[list[Shard], Columns] | None:
    """Return the shards and the table of a zoo as `zoo.h5` tells them.

    Args:
        folder: the zoo's folder.
        facts: what it says of itself.
        files: its shards' files, in order.

    Returns:
        None where `zoo.h5` is missing, damaged, cannot be read, or does not fit every file: the
        shards themselves then say what is wrong.
    """
    try:
        view = View(folder, facts)
    except (CorruptShard, OSError):
        return None
    if len(view.shards) != len(files) or not all(view.fits(*each) for each in enumerate(files)):
        return None
    return [view.shard(number, file) for number, file in enumerate(files)], view.columns
