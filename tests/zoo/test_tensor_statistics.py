"""Statistics of tensors, block by block, against numpy's of all rows at once."""

import functools

import numpy as np
from pytest import approx, raises

from dwf.errors import CorruptShard, TooFewNetworks
from dwf.zoo import tensor_statistics
from dwf.zoo.tensor_statistics import TensorStatistics, measure_tensors


def test_statistics_are_those_of_all_rows_at_once(make_sharded, monkeypatch):
    zoo = make_sharded("zoo")
    monkeypatch.setattr(tensor_statistics, "_BLOCK_BYTES", 3 * 4 * zoo.layout.size)
    monkeypatch.setattr(tensor_statistics, "_PART_BYTES", 2 * 4 * zoo.layout.size)
    for rows in (zoo.rows("train", "last"), zoo.rows(), zoo.rows(epoch=1)[:1]):
        done = []
        told = measure_tensors(zoo, rows, report=done.append)
        assert done[-1] == len(rows) and max(np.diff([0, *done])) <= 3
        tensors = zoo.layout.unflatten(zoo.read(rows).astype(np.float64))
        assert list(told) == list(tensors)
        for name, values in tensors.items():
            one, flat = told[name], values.reshape(len(rows), -1)
            assert one.mean == approx(values.mean(), rel=1e-13)
            assert one.std == approx(values.std(), rel=1e-13)
            assert (one.low, one.high) == (values.min(), values.max())
            assert one.mean_norm == approx(np.linalg.norm(flat, axis=1).mean(), rel=1e-13)


def test_a_spread_far_smaller_than_the_mean_survives_merging():
    values_BS = 1e8 + np.random.default_rng(0).standard_normal((60, 7))
    parts = [TensorStatistics.of(part) for part in np.split(values_BS, [1, 20, 21])]
    whole = functools.reduce(TensorStatistics.merge, parts)
    assert whole.std == approx((values_BS - 1e8).std(), rel=1e-7)
    assert whole.count == 420 and whole.networks == 60


def test_bad_input(make_sharded):
    zoo = make_sharded("zoo")
    with raises(TooFewNetworks, match="0 rows to measure"):
        measure_tensors(zoo, zoo.rows(epoch=9))
    file, offset = zoo.shards[2].path, zoo.shards[2].offset
    data = bytearray(file.read_bytes())
    data[offset] ^= 1
    file.write_bytes(data)
    with raises(CorruptShard, match="row 0 does not match"):
        measure_tensors(zoo, zoo.rows())
