"""Arrays of a fitted density that lie beside its file: mapped, not held, and held to a checksum."""

from collections.abc import Iterable
from pathlib import Path

import torch

from dwf.codecs.codes import write_array
from dwf.errors import CorruptCheckpoint
from dwf.files import read_array
from dwf.zoo.checksums import file_checksum


def save_array(
    file: Path, shape: tuple[int, ...], *, parts: Iterable[torch.Tensor], dtype: str
) -> int:
    """Write an array part by part; return its checksum, for `open_array`.

    Args:
        file: an `.npy`; its folder is made if it is missing.
        shape: of the array.
        parts: blocks of its rows, in order.
        dtype: of its numbers, as NumPy writes it.
    """
    write_array(file, shape, parts=parts, dtype=dtype)
    return file_checksum(file)


def open_array(file: Path, checksum: int, *, has_rows: bool = True) -> torch.Tensor:
    """Return the array of a file that matches its checksum; see `map_array`.

    Args:
        file: an `.npy`.
        checksum: what `save_array` returned.
        has_rows: whether there are any.

    Raises:
        CorruptCheckpoint: the file is damaged.
    """
    if file_checksum(file) != checksum:
        raise CorruptCheckpoint(
            f"{file} is damaged (it does not match its checksum): remove it and give the "
            "command again"
        )
    return map_array(file, has_rows=has_rows)


def map_array(file: Path, *, has_rows: bool = True) -> torch.Tensor:
    """Return the array of a file, mapped; without rows there is nothing to map."""
    # Copy on write, since torch takes no read-only array; nothing is written.
    return torch.from_numpy(read_array(file, "c" if has_rows else None))
