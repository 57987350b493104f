"""Zoos opened by their view against the same opened shard by shard."""

import h5py
import numpy as np
import pytest
from pytest import raises

from dwf.errors import CorruptShard, NotAZoo, ShapeMismatch
from dwf.zoo import store
from dwf.zoo.shard import write_shard
from dwf.zoo.store import Zoo, finish_zoo


def same(one: Zoo, other: Zoo) -> bool:
    tables = (one.columns, other.columns)
    equal = all(np.array_equal(tables[0][name], tables[1][name]) for name in tables[0] | tables[1])
    shards = [[(s.num_rows, s.offset, s.diverged) for s in zoo.shards] for zoo in (one, other)]
    return equal and shards[0] == shards[1] and np.array_equal(one.read(), other.read())


def test_a_whole_zoo_is_opened_without_opening_its_shards(make_sharded, monkeypatch):
    path = make_sharded("zoo").path
    whole = (path / "zoo.h5").read_bytes()
    (path / "zoo.h5").unlink()
    slowly = Zoo.open(path)  # by the shards themselves
    (path / "zoo.h5").write_bytes(whole)
    monkeypatch.setattr(store, "Shard", None)
    fast = Zoo.open(path)
    assert same(fast, slowly) and fast.fingerprint == slowly.fingerprint
    assert fast.diverged == [(12, 7, "loss not finite")]
    for one, other in zip(fast.shards, slowly.shards, strict=True):
        assert {n: v.tolist() for n, v in one.columns.items() if one.num_rows} == {
            n: v.tolist() for n, v in other.columns.items()
        }


def test_the_view_is_the_same_file_whether_or_not_there_was_one(make_sharded):
    path = make_sharded("zoo").path
    first = (path / "zoo.h5").read_bytes()
    finish_zoo(path)
    assert (path / "zoo.h5").read_bytes() == first
    (path / "zoo.h5").unlink()
    finish_zoo(path)
    assert (path / "zoo.h5").read_bytes() == first


@pytest.mark.slow
def test_any_byte_of_a_shard_or_of_the_view_that_changed_is_noticed(make_sharded):
    path = make_sharded("zoo").path
    honest = Zoo.open(path)
    rng = np.random.default_rng(0)
    for name in ("shard-00002-of-00004.h5", "zoo.h5"):
        file, whole = path / name, (path / name).read_bytes()
        shard = honest.shards[2]
        for place in rng.integers(0, len(whole), 300):
            weights = range(shard.offset, shard.offset + shard.num_bytes)
            if name != "zoo.h5" and place in weights:
                continue  # held to the rows' own checksums
            damaged = bytearray(whole)
            damaged[place] ^= 1 << int(rng.integers(8))
            file.write_bytes(damaged)
            try:
                opened = Zoo.open(path)
            except (CorruptShard, NotAZoo, ShapeMismatch):
                continue
            assert same(opened, honest), f"byte {place} of {name}"
        file.write_bytes(whole)
    assert same(Zoo.open(path), honest)


def test_a_replaced_shard_is_read_itself(make_sharded):
    zoo, other = make_sharded("zoo"), make_sharded("other", seed=1)
    block = ({n: v for n, v in other.shards[2].columns.items() if n != "checksum"},)
    block += (other.shards[2].weights,)
    write_shard(zoo.shards[2].path, zoo.facts, index=2, num_rows=8, blocks=[block])
    opened = Zoo.open(zoo.path)
    assert np.array_equal(
        opened.columns["val_accuracy"][10:18], other.columns["val_accuracy"][10:18]
    )
    assert np.array_equal(opened.columns["val_accuracy"][:10], zoo.columns["val_accuracy"][:10])
    opened.verify()


def test_a_damaged_shard_is_named_though_the_view_is_whole(make_sharded):
    zoo = make_sharded("zoo")
    file = zoo.shards[0].path
    file.write_bytes(file.read_bytes()[:-8])
    with raises(CorruptShard, match=r"shard-00000.* is damaged .*dwf verify"):
        Zoo.open(zoo.path)


def test_a_view_without_index_is_passed_over(make_sharded):
    zoo = make_sharded("zoo")
    with h5py.File(zoo.path / "zoo.h5", "r+") as file:
        del file["index"]
    assert same(Zoo.open(zoo.path), zoo)


def test_few_shards_are_open_at_a_time(make_sharded, monkeypatch):
    zoo = make_sharded("zoo", (2, 1, 0, 3, 1, 2))
    monkeypatch.setattr(store, "_MOST_MAPPED", 2)
    whole = zoo.read()
    for rows in (np.arange(18), np.array([17, 0, 9]), np.array([3])):
        assert np.array_equal(zoo.read(rows), whole[rows])
        assert sum("weights" in vars(shard) for shard in zoo.shards) <= 2
    held = zoo.shards[0].weights
    zoo.shards[0].unmap()
    assert np.array_equal(held, whole[:4]) and not held.flags.writeable
