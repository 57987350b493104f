"""CRC-32 of rows, and of many rows at once from the checksums of each.

One call for many rows keeps threads out of each other's way, and short rows cost no call each.
"""

from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from dwf.files import refuse_irregular

try:
    from isal.isal_zlib import crc32  # zlib's values, five times as fast
except ImportError:
    from zlib import crc32

_POLYNOMIAL = 0xEDB88320
_BLOCK_BYTES = 32 * 2**20
_FEW = 128  # one by one takes no longer than NumPy's calls for as many


def row_checksums(weights_ND: np.ndarray) -> np.ndarray:
    """CRC-32 of each row's bytes, uint32, shape [N]."""
    data, size = _bytes_of(weights_ND), 4 * weights_ND.shape[1]
    starts = range(0, len(data), size) if size else [0] * len(weights_ND)
    return np.fromiter((crc32(data[i : i + size]) for i in starts), np.uint32, len(weights_ND))


def are_right(weights_ND: np.ndarray, checksums_N: np.ndarray) -> bool:
    """Whether rows have the checksums they should have, by one checksum of all of them.

    As sure as the checksums themselves: any altered run of up to 32 bits is found, anything else
    is overlooked once in 2**32 times.
    """
    if not len(weights_ND):
        return True
    joined = join_checksums(checksums_N, 4 * weights_ND.shape[1])
    return crc32(_bytes_of(weights_ND)) == joined


def join_checksums(checksums_N: np.ndarray, num_bytes: int) -> int:
    """CRC-32 of rows one after the other, from the CRC-32 of each.

    Appending bytes to a row moves its checksum by a linear map over bits, the same for all rows:
    crc(ab) = map(crc(a)) xor crc(b), as in zlib's `crc32_combine`. Neighbours are joined pairwise.

    Args:
        checksums_N: of the rows, uint32; at least one.
        num_bytes: of each row.
    """
    joined = checksums_N
    while len(joined) > _FEW:
        # A zero in front adds nothing: the map takes 0 to 0.
        joined = np.concatenate([np.zeros(len(joined) % 2, np.uint32), joined])
        joined = _apply(_tables(num_bytes), joined[0::2]) ^ joined[1::2]
        num_bytes *= 2
    t0, t1, t2, t3 = _lists(num_bytes)
    checksum = 0
    for own in joined.tolist():
        moved = t0[checksum & 255] ^ t1[checksum >> 8 & 255]
        checksum = moved ^ t2[checksum >> 16 & 255] ^ t3[checksum >> 24] ^ own
    return checksum


def file_checksum(path: Path) -> int:
    """CRC-32 of a file, a block at a time: mapped all at once it would fill the memory."""
    checksum = 0
    refuse_irregular(path)
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            checksum = crc32(block, checksum)
    return checksum


def _bytes_of(weights_ND: np.ndarray) -> memoryview:
    rows = np.ascontiguousarray(weights_ND, dtype="<f4")
    return memoryview(rows.reshape(-1).view(np.uint8))


def _apply(tables: np.ndarray, values: np.ndarray) -> np.ndarray:
    moved = tables[0][values & 255]
    for byte in (1, 2, 3):
        moved ^= tables[byte][(values >> np.uint32(8 * byte)) & 255]
    return moved


@lru_cache(maxsize=256)
def _tables(num_bytes: int) -> np.ndarray:
    """The map of appending bytes, of each value of each byte of a checksum: uint32 [4, 256]."""
    columns = tuple(1 << bit for bit in range(32))
    for power in range(num_bytes.bit_length()):
        if num_bytes >> power & 1:
            columns = _compose(_columns(power), columns)
    tables = np.zeros((4, 256), np.uint32)
    values = np.arange(256)
    for bit, column in enumerate(columns):
        tables[bit // 8][values >> bit % 8 & 1 == 1] ^= np.uint32(column)
    return tables


@lru_cache(maxsize=256)
def _lists(num_bytes: int) -> list[list[int]]:
    return _tables(num_bytes).tolist()


@cache
def _columns(power: int) -> tuple[int, ...]:
    """The map of appending 2**power zero bytes: where it takes each bit."""
    if power == 0:
        columns = (_POLYNOMIAL, *(1 << bit for bit in range(31)))  # one zero bit
        for _ in range(3):
            columns = _compose(columns, columns)
        return columns
    return _compose(_columns(power - 1), _columns(power - 1))


def _compose(after: tuple[int, ...], before: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(_move(after, column) for column in before)


def _move(columns: tuple[int, ...], value: int) -> int:
    moved = 0
    for column in columns:
        moved ^= column * (value & 1)
        value >>= 1
    return moved
