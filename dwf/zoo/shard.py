"""One shard: an HDF5 file of networks' weights and one column per fact about them.

`weights` is contiguous and uncompressed, so that rows are read by memory map at page-cache speed.
Every row has a CRC-32 in the column `checksum`; the columns have one in the file's attributes.

Shape suffixes: N networks of a shard, B networks of a block, D numbers of one network.
"""

import contextlib
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from dwf.errors import CorruptShard, NotAZoo, ShapeMismatch
from dwf.run_folder import replacing

FORMAT, VERSION = "dwf-shard", 1
Columns = dict[str, np.ndarray]
Block = tuple[Columns, np.ndarray]


def shard_name(index: int, num_shards: int) -> str:
    """The file's name: `shard-00003-of-00064.h5`."""
    return f"shard-{index:05d}-of-{num_shards:05d}.h5"


def row_checksums(weights_ND: np.ndarray) -> np.ndarray:
    """CRC-32 of each row's bytes, uint32, shape [N]."""
    rows = np.ascontiguousarray(weights_ND, dtype="<f4")
    return np.fromiter((zlib.crc32(row) for row in rows), np.uint32, len(rows))


def write_shard(
    path: Path,
    digest: str,
    num_weights: int,
    num_rows: int,
    blocks: Iterable[Block],
    diverged: list[tuple[int, int, str]] | None = None,
) -> None:
    """Stream blocks of rows into a shard; the file appears under its name when it is whole.

    Args:
        path: the shard's final name.
        digest: digest of the zoo's layout.
        num_weights: D.
        num_rows: N, all blocks together; 0 is legal.
        blocks: (columns, weights_BD) pairs; every block has the same columns, each of shape [B].
        diverged: (network, step, reason) of networks that are kept out.

    Raises:
        ShapeMismatch: the blocks do not add up to N rows of D numbers.
        CorruptShard: a weight is not finite: such a row never enters a zoo.
    """
    with replacing(path) as partial, _plain_errors(path), h5py.File(partial, "w") as file:
        file.attrs.update(format=FORMAT, version=VERSION, layout=digest)
        # Space is set aside early and never filled: each row is written exactly once.
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_layout(h5py.h5d.CONTIGUOUS)
        creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        creation.set_obj_track_times(False)  # equal shards are equal files
        space = h5py.h5s.create_simple((num_rows, num_weights))
        h5py.h5d.create(file.id, b"weights", h5py.h5t.IEEE_F32LE, space, creation)
        columns = _write_rows(file["weights"], blocks, path)
        for name, values in columns.items():
            file.create_dataset(name, data=values)
        file.attrs["columns"] = list(columns)
        file.attrs["columns_checksum"] = _columns_checksum(columns)
        _write_diverged(file, diverged or [])


@contextlib.contextmanager
def _plain_errors(path: Path) -> Iterator[None]:
    """HDF5 tells of a full disk in the text of its errors; raise the `OSError` it was."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        found = re.search(r"errno = (\d+)", f"{error} {error.__context__}")
        if not found:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from None


def _write_rows(weights: h5py.Dataset, blocks: Iterable[Block], path: Path) -> Columns:
    parts: list[Columns] = []
    row = 0
    for columns, block_BD in blocks:
        end = row + len(block_BD)
        if block_BD.shape[1:] != weights.shape[1:] or end > len(weights):
            raise ShapeMismatch(
                f"{path}: a block of shape {list(block_BD.shape)} at row {row} does not fit "
                f"{list(weights.shape)}"
            )
        if not np.isfinite(block_BD).all():
            bad = row + int(np.flatnonzero(~np.isfinite(block_BD).all(1))[0])
            raise CorruptShard(f"{path}: row {bad} holds weights that are not finite; not written")
        weights[row:end] = block_BD
        parts.append(columns | {"checksum": row_checksums(block_BD)})
        row = end
    if row != len(weights):
        raise ShapeMismatch(f"{path}: {row} rows were given, {len(weights)} were announced")
    if not parts:
        return {}
    return {name: _storable(np.concatenate([p[name] for p in parts])) for name in parts[0]}


def _storable(values: np.ndarray) -> np.ndarray:
    return np.char.encode(values, "utf-8") if values.dtype.kind == "U" else values


def _columns_checksum(columns: Columns) -> int:
    checksum = 0
    for values in columns.values():
        checksum = zlib.crc32(np.ascontiguousarray(values), checksum)
    return checksum


def _write_diverged(file: h5py.File, diverged: list[tuple[int, int, str]]) -> None:
    kind = [("network", "<i8"), ("step", "<i8"), ("reason", "S64")]
    rows = [(network, step, reason.encode()) for network, step, reason in diverged]
    file.create_dataset("diverged", data=np.array(rows, dtype=kind))


class Shard:
    """A whole shard, open for reading; weights are mapped, never loaded.

    Args:
        path: the file.
        digest: digest of the layout it must have.

    Raises:
        CorruptShard: truncated or altered.
        NotAZoo: another format or version.
        ShapeMismatch: another layout.
    """

    def __init__(self, path: Path, digest: str):
        self.path = path
        try:
            with h5py.File(path, "r", locking=False) as file:
                self._read_header(file, digest)
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise _corrupt(path, str(error)) from None
        if path.stat().st_size < self._offset + 4 * self.num_rows * self.num_weights:
            raise _corrupt(path, f"truncated at {path.stat().st_size} bytes")

    def _read_header(self, file: h5py.File, digest: str) -> None:
        found = (file.attrs["format"], int(file.attrs["version"]))
        if found != (FORMAT, VERSION):
            raise NotAZoo(
                f"{self.path}: format {found[0]} {found[1]}, this dwf reads {FORMAT} {VERSION}"
            )
        if file.attrs["layout"] != digest:
            raise ShapeMismatch(
                f"{self.path} has layout {file.attrs['layout']}, its zoo {digest}: "
                "the file is of another zoo"
            )
        stored = {name: file[name][()] for name in file.attrs["columns"]}
        if _columns_checksum(stored) != int(file.attrs["columns_checksum"]):
            raise ValueError("its columns do not match their checksum")
        self.columns = {name: _readable(values) for name, values in stored.items()}
        self.num_rows, self.num_weights = file["weights"].shape
        self._offset = file["weights"].id.get_offset() or 0
        self.diverged = [(int(n), int(s), r.decode()) for n, s, r in file["diverged"][()].tolist()]

    @cached_property
    def weights(self) -> np.ndarray:
        """weights_ND, float32, mapped from the file, read-only."""
        if self.num_rows == 0:  # an empty file region cannot be mapped
            return np.empty((0, self.num_weights), np.float32)
        shape = (self.num_rows, self.num_weights)
        return np.memmap(self.path, "<f4", mode="r", offset=self._offset, shape=shape)

    def check(self, rows: np.ndarray, weights_BD: np.ndarray) -> None:
        """Raise `CorruptShard` unless rows that were read have their recorded checksums."""
        wrong = np.flatnonzero(row_checksums(weights_BD) != self.columns["checksum"][rows])
        if len(wrong):
            raise _corrupt(self.path, f"row {rows[wrong[0]]} does not match its checksum")


def _readable(values: np.ndarray) -> np.ndarray:
    return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values


def _corrupt(path: Path, reason: str) -> CorruptShard:
    return CorruptShard(
        f"{path} is damaged ({reason}): remove this file and give the command that made its zoo "
        "again; only this shard is made anew"
    )
