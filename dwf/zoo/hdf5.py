"""HDF5 files that are made in memory: HDF5 itself may end the process where a disk is full."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py


@contextmanager
def made_in_memory(path: Path, userblock_size: int = 0) -> Iterator[h5py.File]:
    """Yield an HDF5 file in memory, which is written when the block ends without an error.

    For files much smaller than the memory. The bytes are those of a file written directly.

    Args:
        path: where it is written.
        userblock_size: bytes that HDF5 leaves free in front.

    Raises:
        OSError: the file cannot be written, as where the disk is full.
    """
    how = {"driver": "core", "backing_store": False, "userblock_size": userblock_size}
    with h5py.File(path, "w", **how) as file:
        yield file
        file.flush()
        image = file.id.get_file_image()  # begins behind the block in front
    with open(path, "wb") as out:
        out.write(bytes(userblock_size))
        out.write(image)
