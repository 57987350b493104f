"""Moments read block by block against numpy's of the whole matrix in float64."""

import numpy as np
import pytest

from dwf.errors import CorruptShard
from dwf.zoo.moments import measure_moments


@pytest.mark.parametrize("max_bytes", [1, 1000, 2**25])
def test_equal_the_whole_matrix_for_any_block_size(plant_zoo, max_bytes):
    zoo = plant_zoo(count=17, num_shards=3)
    moments = measure_moments([(zoo, np.arange(17))], max_bytes)
    whole = zoo.read().astype(np.float64)
    np.testing.assert_allclose(moments.mean_D, whole.mean(0), rtol=1e-13)
    np.testing.assert_allclose(moments.variance_D, whole.var(0), rtol=1e-12)
    assert moments.num_networks == 17


def test_several_zoos_count_as_one(plant_zoo):
    zoo = plant_zoo(count=15)
    parts = [(zoo, np.arange(4)), (zoo, np.arange(4, 15))]
    moments = measure_moments(parts)
    np.testing.assert_allclose(moments.variance_D, zoo.read().astype(np.float64).var(0), rtol=1e-12)


def test_a_flipped_bit_is_found(plant_zoo):
    zoo = plant_zoo()
    data = bytearray(zoo.shards[0].path.read_bytes())
    row = zoo.read([3]).tobytes()
    data[data.index(row)] ^= 1
    zoo.shards[0].path.write_bytes(data)
    with pytest.raises(CorruptShard, match="row 3 does not match its checksum"):
        measure_moments([(type(zoo).open(zoo.path), np.arange(20))])
