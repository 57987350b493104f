"""Checksums of rows against zlib's; every flipped bit and swapped row is found."""

import zlib

import numpy as np
from pytest import mark

from dwf.zoo.checksums import are_right, join_checksums, row_checksums

SIZES = ((3, 1), (5, 7), (4, 4096), (2, 26506), (1, 300_001), (1000, 3), (129, 2), (3, 0), (0, 5))


@mark.parametrize(("count", "size"), SIZES)
def test_checksums_are_those_of_zlib(count, size):
    rows = np.random.default_rng(0).standard_normal((count, size)).astype(np.float32)
    expected = [zlib.crc32(row.tobytes()) for row in rows]
    assert row_checksums(rows).tolist() == expected
    assert row_checksums(np.asfortranarray(rows)).tolist() == expected
    assert row_checksums(rows).dtype == np.uint32
    if count:
        assert join_checksums(np.array(expected, np.uint32), 4 * size) == zlib.crc32(rows.tobytes())


def test_any_flipped_bit_and_any_swapped_rows_are_found():
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((37, 11)).astype(np.float32)
    checksums = row_checksums(rows)
    assert are_right(rows, checksums) and are_right(rows[::-1], checksums[::-1])
    for _ in range(200):
        damaged = rows.copy()
        damaged.view(np.uint32)[rng.integers(37), rng.integers(11)] ^= 1 << int(rng.integers(32))
        assert not are_right(damaged, checksums)
    assert not are_right(rows[::-1], checksums)
