"""Zoos on disk: rows against the arrays written; each cut and flipped bit is refused."""

import json
import shutil
import time
from pathlib import Path

import h5py
import numpy as np
from pytest import fixture, raises

from dwf.errors import CorruptShard, IncompleteZoo, NotAZoo, ShapeMismatch
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.zoo.facts import BLOCKS_OF_STEPS
from dwf.zoo.layout import Layout
from dwf.zoo.shard import shard_name, write_shard
from dwf.zoo.store import Zoo, create_zoo, finish_zoo, split_networks, write_zoo
from tests.zoos import facts_of

LAYOUT = Layout.of(build_network(MLPConfig((6, 5, 3))))
FACTS = facts_of(LAYOUT, num_shards=3)


def rows_of(networks: range, epochs=(1, 2)) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(networks.start)
    weights = rng.standard_normal((len(networks) * len(epochs), LAYOUT.size)).astype(np.float32)
    columns = {
        "network": np.repeat(np.array(networks), len(epochs)),
        "epoch": np.tile(np.array(epochs, np.int32), len(networks)),
        "split": np.repeat(split_networks(12, 0.25, test=0.25, seed=0)[networks], len(epochs)),
    }
    return columns, weights


@fixture
def three_shards(tmp_path) -> tuple[Path, np.ndarray]:
    """Twelve networks, two epochs each; the middle shard is empty."""
    path = tmp_path / "zoo"
    create_zoo(path, FACTS)
    blocks = {0: rows_of(range(0, 7)), 2: rows_of(range(7, 12))}
    for index in range(3):
        given = [blocks[index]] if index in blocks else []
        num = sum(len(weights) for _, weights in given)
        write_shard(
            path / shard_name(index, 3),
            FACTS,
            index=index,
            num_rows=num,
            blocks=given,
        )
    finish_zoo(path)
    return path, np.concatenate([blocks[0][1], blocks[2][1]])


def test_rows_and_windows_come_back_over_shards(three_shards):
    path, weights = three_shards
    zoo = Zoo.open(path)
    assert len(zoo) == 24 and np.array_equal(zoo.read(), weights)
    rows = np.array([23, 0, 13, 14, 5, 5])
    assert np.array_equal(zoo.read(rows, 3, stop=11), weights[rows, 3:11])
    assert np.array_equal(zoo.read(slice(4, 20)), weights[4:20])
    out = np.empty((2, LAYOUT.size), np.float32)
    assert zoo.read(np.array([1, 20]), out=out) is out
    assert np.array_equal(out, weights[[1, 20]])
    with raises(ShapeMismatch, match=r"out has shape \(2, 38\)|out has shape \(2, 53\)"):
        zoo.read(np.array([1]), out=out)


def test_a_row_is_found_in_its_shard_and_mapped(three_shards):
    path, weights = three_shards
    zoo, first = Zoo.open(path), 0
    for index, shard in enumerate(zoo.shards):
        for local in range(shard.num_rows):
            row = first + local
            assert zoo.locate(row) == (index, local)
            mapped = zoo.map_row(row)
            assert not mapped.flags.writeable and np.shares_memory(mapped, shard.weights)
            assert np.array_equal(mapped, weights[row])
        first += shard.num_rows


def test_rows_are_chosen_by_split_and_epoch(three_shards):
    zoo = Zoo.open(three_shards[0])
    table = zoo.columns
    assert list(zoo.rows(epoch=1)) == [i for i in range(24) if table["epoch"][i] == 1]
    assert list(zoo.rows(epoch="last")) == list(range(1, 24, 2))
    parts = [set(table["network"][zoo.rows(split=s)]) for s in ("train", "val", "test")]
    assert [len(part) for part in parts] == [6, 3, 3]
    assert set.union(*parts) == set(range(12)), "a network is in two splits, or in none"


def test_streams_in_order_within_the_bytes_allowed(three_shards):
    path, weights = three_shards
    chunks = list(Zoo.open(path).stream(max_bytes=5 * 4 * LAYOUT.size))
    assert max(len(chunk) for _, chunk in chunks) == 5
    assert np.array_equal(np.concatenate([chunk for _, chunk in chunks]), weights)


def test_any_hdf5_tool_sees_one_matrix(three_shards):
    path, weights = three_shards
    with h5py.File(path / "zoo.h5") as file:
        assert np.array_equal(file["weights"][()], weights)
        assert file["network"].shape == (24,)


def test_equal_zoos_are_equal_files(tmp_path):
    for name in "ab":
        columns, weights = rows_of(range(0, 4))
        write_zoo(tmp_path / name, facts_of(LAYOUT), num_rows=8, blocks=[(columns, weights)])
        time.sleep(1.1)  # HDF5 would stamp files by the second
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_splits_are_seeded_and_whole():
    first = split_networks(100, 0.1, test=0.2, seed=3)
    assert (first == split_networks(100, 0.1, test=0.2, seed=3)).all()
    assert (first != split_networks(100, 0.1, test=0.2, seed=4)).any()
    assert [(first == s).sum() for s in ("train", "val", "test")] == [70, 10, 20]


def test_a_zoo_of_no_networks_is_legal(tmp_path):
    zoo = write_zoo(tmp_path / "empty", facts_of(LAYOUT), num_rows=0, blocks=[])
    assert len(zoo) == 0 and zoo.read().shape == (0, LAYOUT.size)
    assert len(zoo.rows(split="train", epoch="last")) == 0


# --- bad input -----------------------------------------------------------------------------------


def test_a_folder_that_is_no_zoo(tmp_path):
    with raises(NotAZoo, match=r"has no zoo.json; make one with dwf zoo"):
        Zoo.open(tmp_path)
    (tmp_path / "zoo.json").write_text("{")
    with raises(NotAZoo, match=r"zoo.json is damaged"):
        Zoo.open(tmp_path)


def test_another_format_version(three_shards):
    path, _ = three_shards
    facts = json.loads((path / "zoo.json").read_text())
    (path / "zoo.json").write_text(json.dumps(facts | {"version": 9}))
    with raises(NotAZoo, match="format dwf-zoo 9, this dwf reads dwf-zoo 2"):
        Zoo.open(path)


def test_a_missing_shard_is_named_with_the_command_that_makes_it(three_shards):
    path, weights = three_shards
    (path / shard_name(0, 3)).unlink()
    with raises(IncompleteZoo, match=r"lacks 1 of 3 shards, first shard-00000.*--resume --name"):
        Zoo.open(path)
    assert np.array_equal(Zoo.open(path, incomplete=True).read(), weights[14:])


def test_a_truncated_shard_is_refused_wherever_it_is_cut(three_shards):
    path, _ = three_shards
    file = path / shard_name(0, 3)
    whole = file.read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 8):
        file.write_bytes(whole[:size])
        with raises(CorruptShard, match=r"shard-00000-of-00003.h5 is damaged .* remove this file"):
            Zoo.open(path)


def test_every_flipped_bit_in_weights_or_columns_is_found(three_shards):
    path, weights = three_shards
    file = path / shard_name(2, 3)
    whole = file.read_bytes()
    places = {"weights": whole.find(weights[17].tobytes()) + 5}
    places["columns"] = whole.find(np.repeat(np.arange(7, 12), 2).tobytes()) + 8
    for what, place in places.items():
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        file.write_bytes(damaged)
        with raises(CorruptShard, match=r"row 3 does not match its checksum|columns do not match"):
            Zoo.open(path).verify()
        assert place > 8, what


def test_a_shard_of_another_zoo(three_shards):
    path, _ = three_shards
    other = Layout.of(build_network(MLPConfig((6, 4, 3))))
    facts = facts_of(other, num_shards=3)
    write_shard(path / shard_name(1, 3), facts, index=1, num_rows=0, blocks=[])
    with raises(ShapeMismatch, match=rf"has layout {other.digest}, its zoo {LAYOUT.digest}"):
        Zoo.open(path)


def test_weights_that_are_not_finite_never_enter(tmp_path):
    columns, weights = rows_of(range(0, 4))
    weights[3, 2] = np.nan
    with raises(CorruptShard, match="row 3 holds weights that are not finite"):
        write_zoo(tmp_path / "zoo", facts_of(LAYOUT), num_rows=8, blocks=[(columns, weights)])
    assert [file.name for file in (tmp_path / "zoo").iterdir()] == ["zoo.json"]


def test_too_few_or_too_many_rows_are_refused(tmp_path):
    columns, weights = rows_of(range(0, 4))
    for num in (7, 9):
        with raises(ShapeMismatch):
            write_shard(
                tmp_path / "s.h5",
                FACTS,
                index=0,
                num_rows=num,
                blocks=[(columns, weights)],
            )
    assert not list(tmp_path.iterdir()), "a half-written file was left"


def test_a_failed_write_leaves_the_old_file(three_shards):
    path, _ = three_shards
    shutil.copytree(path, path.parent / "before")

    def broken():
        yield rows_of(range(0, 3))
        raise OSError(28, "No space left on device")

    with raises(OSError, match="No space left"):
        write_shard(
            path / shard_name(0, 3),
            FACTS,
            index=0,
            num_rows=14,
            blocks=broken(),
        )
    for file in path.iterdir():
        assert file.read_bytes() == (path.parent / "before" / file.name).read_bytes()


def test_each_row_of_a_single_network_in_blocks_of_steps_counts(tmp_path):
    layout = Layout.of(build_network(MLPConfig((4, 3, 2))))
    weights_ND = np.random.default_rng(0).standard_normal((6, layout.size)).astype(np.float32)
    columns = {
        "network": np.zeros(6, np.int64),
        "epoch": np.full(6, 2, np.int32),
        "step": np.arange(10, 16),
        "split": np.array(["train"] * 4 + ["val", "test"]),
    }
    steps = facts_of(layout, split_by=BLOCKS_OF_STEPS)
    one = write_zoo(tmp_path / "one", steps, num_rows=6, blocks=[(columns, weights_ND)])
    assert one.rows("train", "last").tolist() == [0, 1, 2, 3]
    assert one.rows("val", "last").tolist() == [4]
    other = write_zoo(
        tmp_path / "other", facts_of(layout), num_rows=6, blocks=[(columns, weights_ND)]
    )
    assert other.rows(epoch="last").tolist() == [5]
