"""One shard: an HDF5 file of networks' weights and one column per fact about them.

`weights` is contiguous and uncompressed, so that rows are read by memory map at page-cache speed.
Every row has a CRC-32 in the column `checksum`; the columns have one in the file's attributes,
which also say which shard of which zoo the file is.

Shape suffixes: N networks of a shard, B networks of a block, D numbers of one network.
"""

import contextlib
import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from dwf.errors import CorruptShard, DwfError, NotAZoo, ShapeMismatch
from dwf.files import read_dataset, refuse_irregular
from dwf.plain import is_visible, visible
from dwf.run_folder import replacing
from dwf.system_errors import of_system
from dwf.zoo.checksums import are_right, crc32, row_checksums
from dwf.zoo.facts import Facts

FORMAT, VERSION = "dwf-shard", 2
_KINDS = {"checksum": "u", "network": "iu", "epoch": "iu", "split": "S"}
_NEEDED = ("checksum", "network")
_CHECK_BYTES = 16 * 2**20
Columns = dict[str, np.ndarray]
Block = tuple[Columns, np.ndarray]


def shard_name(index: int, num_shards: int) -> str:
    """The file's name: `shard-00003-of-00064.h5`."""
    return f"shard-{index:05d}-of-{num_shards:05d}.h5"


def rest_checksum(path: Path, offset: int, *, num_bytes: int) -> tuple[int, int]:
    """Return a file's size and the CRC-32 of all its bytes but those of the weights.

    Args:
        path: the shard.
        offset: where its weights begin.
        num_bytes: how many bytes they take.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        size, stop = os.fstat(file).st_size, offset + num_bytes
        head = os.pread(file, offset, 0)
        tail = os.pread(file, max(size - stop, 0), stop)
        return size, crc32(tail, crc32(head))
    finally:
        os.close(file)


def write_shard(
    path: Path,
    facts: Facts,
    *,
    index: int,
    num_rows: int,
    blocks: Iterable[Block],
    diverged: list[tuple[int, int, str]] | None = None,
    told: Callable[[], Facts] | None = None,
) -> None:
    """Stream blocks of rows into a shard; the file appears under its name when it is whole.

    Args:
        path: the shard's final name.
        facts: what the zoo says of itself.
        index: which of its shards this is.
        num_rows: N, all blocks together; 0 is legal.
        blocks: (columns, weights_BD) pairs; every block has the same columns, each of shape [B].
        diverged: (network, step, reason) of networks that are kept out.
        told: gives what the zoo says of itself once the rows are there, where that is more.

    Raises:
        ShapeMismatch: the blocks do not add up to N rows of D numbers.
        CorruptShard: a weight is not finite: such a row never enters a zoo.
    """
    with (
        replacing(path) as partial,
        _plain_errors(path),
        h5py.File(partial, "w", locking=False) as file,
    ):
        file.attrs.update(format=FORMAT, version=VERSION, layout=facts.layout.digest)
        # Space is set aside early and never filled: each row is written exactly once.
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_layout(h5py.h5d.CONTIGUOUS)
        creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        creation.set_obj_track_times(False)  # equal shards are equal files
        space = h5py.h5s.create_simple((num_rows, facts.layout.size))
        h5py.h5d.create(file.id, b"weights", h5py.h5t.IEEE_F32LE, space, creation)
        columns = _write_rows(file["weights"], blocks, path)
        for name, values in columns.items():
            file.create_dataset(name, data=values)
        file.attrs["columns"] = list(columns)
        file.attrs["columns_checksum"] = columns_checksum(columns)
        file.attrs.update(zoo=(told() if told else facts).identity, index=index)
        _write_diverged(file, diverged or [])


@contextlib.contextmanager
def _plain_errors(path: Path) -> Iterator[None]:
    """HDF5 tells of a full disk in the text of its errors; raise the `OSError` it was."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        told = of_system(error, path)
        if not told:
            raise
        raise told from None


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
    return {name: storable(np.concatenate([p[name] for p in parts])) for name in parts[0]}


def storable(values: np.ndarray) -> np.ndarray:
    """Return a column as HDF5 keeps it: words as UTF-8 bytes."""
    return np.char.encode(values, "utf-8") if values.dtype.kind == "U" else values


def readable(values: np.ndarray) -> np.ndarray:
    """Return a column as it was before `storable`."""
    return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values


def columns_checksum(columns: Columns) -> int:
    """CRC-32 of the bytes of storable columns, in their order."""
    checksum = 0
    for values in columns.values():
        checksum = crc32(np.ascontiguousarray(values).view(np.uint8), checksum)
    return checksum


def _write_diverged(file: h5py.File, diverged: list[tuple[int, int, str]]) -> None:
    kind = [("network", "<i8"), ("step", "<i8"), ("reason", "S64")]
    rows = [(network, step, reason.encode()) for network, step, reason in diverged]
    file.create_dataset("diverged", data=np.array(rows, dtype=kind))


class Shard:
    """A whole shard, open for reading; weights are mapped, never loaded.

    Args:
        path: the file.
        facts: what its zoo says of itself.
        index: which of the zoo's shards it must be.

    Raises:
        CorruptShard: truncated, altered, or another shard, of this zoo or of another.
        NotAZoo: another format or version.
        ShapeMismatch: another layout.
        OSError: it cannot be opened or read; it may be sound.
    """

    def __init__(self, path: Path, facts: Facts, *, index: int):
        self.path = path
        refuse_irregular(path)
        try:
            with h5py.File(path, "r", locking=False) as file:
                self._read_header(file, facts, index)
        except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
            raise of_system(error, path) or _corrupt(path, str(error)) from None
        if path.stat().st_size < self.offset + self.num_bytes:
            raise _corrupt(path, f"truncated at {path.stat().st_size} bytes")

    def _read_header(self, file: h5py.File, facts: Facts, index: int) -> None:
        found = (file.attrs["format"], int(file.attrs["version"]))
        if found != (FORMAT, VERSION):
            raise NotAZoo(
                f"{self.path}: format {found[0]} {found[1]}, this dwf reads {FORMAT} {VERSION}: "
                "remove the zoo's folder and give the command that makes it again"
            )
        if file.attrs["layout"] != facts.layout.digest:
            raise ShapeMismatch(
                f"{self.path} has layout {file.attrs['layout']}, its zoo {facts.layout.digest}: "
                "the file is of another zoo"
            )
        _refuse_other_place(str(file.attrs["zoo"]), int(file.attrs["index"]), facts, index)
        weights = h5py.h5d.open(file.id, b"weights")
        self.num_rows, self.num_weights = weights.shape
        self.offset = _offset_of(weights, facts.layout.size)
        names, rows = list(file.attrs["columns"]), self.num_rows
        stored = {name: read_dataset(file, name, rows=rows) for name in names}
        refuse_odd(stored, rows)
        if columns_checksum(stored) != int(file.attrs["columns_checksum"]):
            raise ValueError("its columns do not match their checksum")
        self.columns = {name: readable(values) for name, values in stored.items()}
        lost = read_dataset(file, "diverged").tolist()
        self.diverged = [(int(n), int(s), r.decode()) for n, s, r in lost]

    @classmethod
    def described(
        cls,
        path: Path,
        shape: tuple[int, int],
        *,
        offset: int,
        columns: Columns,
        diverged: list[tuple[int, int, str]],
    ) -> "Shard":
        """Return a shard of which all is known but its weights; see `view.read_view`.

        Args:
            path: the file.
            shape: N and D.
            offset: where its weights begin.
            columns: its table.
            diverged: (network, step, reason) of networks that were kept out.
        """
        shard = cls.__new__(cls)
        shard.path, shard.offset, shard.columns, shard.diverged = path, offset, columns, diverged
        shard.num_rows, shard.num_weights = shape
        return shard

    @property
    def num_bytes(self) -> int:
        """How many bytes the weights take."""
        return 4 * self.num_rows * self.num_weights

    @cached_property
    def _is_checked(self) -> np.ndarray:
        """Which rows were held to their checksums, bool, shape [N]."""
        return np.zeros(self.num_rows, bool)

    @cached_property
    def weights(self) -> np.ndarray:
        """weights_ND, float32, mapped from the file, read-only."""
        if self.num_rows == 0:  # an empty file region cannot be mapped
            return np.empty((0, self.num_weights), np.float32)
        with open(self.path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        count = self.num_rows * self.num_weights
        # As np.memmap does, but a slice of that takes nine times as long.
        row = np.frombuffer(mapped, "<f4", count, self.offset)
        return row.reshape(self.num_rows, self.num_weights)

    def unmap(self) -> None:
        """Give the file back; `weights` maps it again. Arrays that are held stay valid."""
        self.__dict__.pop("weights", None)

    def wrong_rows(self, rows: np.ndarray, weights_BD: np.ndarray) -> np.ndarray:
        """Return which of the rows that were read differ from their recorded checksums."""
        expected_B = self.columns["checksum"][rows]
        if are_right(weights_BD, expected_B):
            return rows[:0]
        return rows[row_checksums(weights_BD) != expected_B]

    def check(self, rows: np.ndarray, weights_BD: np.ndarray | None = None) -> None:
        """Raise `CorruptShard` unless rows have their recorded checksums; each is held to it once.

        Args:
            rows: their numbers in this shard.
            weights_BD: what was read of them; None: they are read here.
        """
        new = rows[~self._is_checked[rows]]
        if weights_BD is not None and len(new) == len(rows):
            self._refuse_wrong(new, weights_BD)
        else:
            step = max(1, _CHECK_BYTES // max(4 * self.num_weights, 1))
            for start in range(0, len(new), step):
                some = new[start : start + step]
                self._refuse_wrong(some, self.weights[some])
        self.note_checked(new)

    def note_checked(self, rows: np.ndarray) -> None:
        """Take it that rows have their checksums, as where another rank has held them to these."""
        self._is_checked[rows] = True

    def _refuse_wrong(self, rows: np.ndarray, weights_BD: np.ndarray) -> None:
        wrong = self.wrong_rows(rows, weights_BD)
        if len(wrong):
            raise _corrupt(self.path, f"row {wrong[0]} does not match its checksum")


def refuse_odd(stored: Columns, rows: int) -> None:
    """Raise ValueError where a table lacks what each zoo has, or has it as another type.

    Args:
        stored: columns as HDF5 keeps them.
        rows: how many rows the table is of; one of none may lack all.
    """
    for name, kinds in _KINDS.items():
        if name not in stored:
            if name in _NEEDED and rows:
                raise ValueError(f"it has no column {name}")
        elif stored[name].dtype.kind not in kinds and rows:
            raise ValueError(f"column {name} is of {stored[name].dtype}")
    for name, values in stored.items():
        if values.shape != (rows,):
            raise ValueError(f"column {name} has shape {list(values.shape)}, not of {rows} rows")
        if not name or not is_visible(name):
            raise ValueError(f"a column is called {visible(name)!r}")


def _offset_of(weights: h5py.h5d.DatasetID, width: int) -> int:
    """Return where the weights begin, which lie in one piece.

    Raises:
        ValueError: they are of another width or type, or lie otherwise.
    """
    if weights.shape[1] != width or weights.dtype != np.dtype("<f4"):
        raise ValueError(f"weights are rows of {weights.shape[1]} {weights.dtype}, not {width} <f4")
    offset = weights.get_offset()
    if offset is None and weights.shape[0] * width:
        raise ValueError("its weights do not lie in one piece")
    return offset or 0


def _refuse_other_place(zoo: str, index: int, facts: Facts, expected: int) -> None:
    if zoo != facts.identity:
        raise ValueError(
            f"it is shard {index} of another zoo, {zoo}, perhaps of this one in another frame; "
            f"this zoo is {facts.identity}"
        )
    if index != expected:
        raise ValueError(f"it is shard {index} of its zoo and lies in the place of {expected}")


def _corrupt(path: Path, reason: str) -> CorruptShard:
    return CorruptShard(
        f"{path} is damaged ({reason}): remove this file and give the command that made its zoo "
        "again; only this shard is made anew. All that is damaged: dwf verify "
        f"{path.parent}"
    )


def reason_of(error: DwfError) -> str:
    """Return what is wrong with a damaged file, without its name and the cure."""
    _, _, told = str(error).partition(" is damaged (")
    return told.partition("): remove this file")[0].removesuffix(")") or str(error)
