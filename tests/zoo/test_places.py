"""A shard in a place that is not its own, and a row that was altered, are refused by name."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dwf.align.config import AlignConfig
from dwf.align.stage import align_zoo
from dwf.densities.config import GaussianConfig
from dwf.errors import CorruptShard
from dwf.generators.config import GeneratorConfig
from dwf.generators.stage import fit_generator
from dwf.zoo.facts import Facts
from dwf.zoo.provenance import Trained
from dwf.zoo.shard import write_shard
from dwf.zoo.store import Zoo, create_zoo
from dwf.zoo.verify import find_damage

SIZES = (5, 5, 5)


@pytest.fixture
def zoo(make_sharded) -> Zoo:
    """Three shards of five networks of the digits' shape."""
    return make_sharded("zoo", SIZES, widths=(64, 5, 10))


def swapped(zoo: Zoo, _other: Zoo) -> list[Path]:
    one, other = zoo.shards[0].path, zoo.shards[2].path
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    return [one, other]


def doubled(zoo: Zoo, _other: Zoo) -> list[Path]:
    shutil.copy(zoo.shards[0].path, zoo.shards[1].path)
    return [zoo.shards[1].path]


def foreign(zoo: Zoo, other: Zoo) -> list[Path]:
    shutil.copy(other.shards[1].path, zoo.shards[1].path)
    return [zoo.shards[1].path]


def foreign_with_its_view(zoo: Zoo, other: Zoo) -> list[Path]:
    for file in [*other.path.glob("*.h5")]:
        shutil.copy(file, zoo.path / file.name)
    return [shard.path for shard in zoo.shards] + [zoo.path / "zoo.h5"]


@pytest.mark.parametrize("has_view", [True, False])
@pytest.mark.parametrize("move", [swapped, doubled, foreign, foreign_with_its_view])
def test_shards_in_a_wrong_place_are_named_by_all_that_open_the_zoo(
    zoo, make_sharded, tmp_path, move, has_view
):
    wrong = move(zoo, make_sharded("other", SIZES, seed=1, widths=(64, 5, 10)))
    if not has_view:
        (zoo.path / "zoo.h5").unlink()
    told = f"{wrong[0].name} is damaged .it is shard .*{zoo.path}"
    with pytest.raises(CorruptShard, match=told):
        Zoo.open(zoo.path)
    with pytest.raises(CorruptShard, match=told):
        align_zoo(AlignConfig("zoo"), tmp_path, name="aligned")
    with pytest.raises(CorruptShard, match=told):
        fit_generator(GeneratorConfig("zoo", density=GaussianConfig()), tmp_path, name="made")
    damaged = [damage.file for damage in find_damage(zoo.path)]
    shards = [file for file in wrong if file.name != "zoo.h5"]
    assert [file for file in damaged if file.name != "zoo.h5"] == shards


def test_a_shard_of_the_zoo_before_alignment_is_refused(zoo, tmp_path):
    aligned = align_zoo(AlignConfig("zoo", num_pairs=0), tmp_path, name="aligned")
    shutil.copy(zoo.shards[1].path, aligned.shards[1].path)
    with pytest.raises(CorruptShard, match=r"shard-00001.*it is shard 1 of another zoo"):
        Zoo.open(aligned.path)


def test_a_shard_tells_when_the_zoo_says_otherwise_of_itself(zoo):
    file = zoo.path / "zoo.json"
    told = json.loads(file.read_text())
    told["network"]["activation"] = "tanh"
    file.write_text(json.dumps(told))
    with pytest.raises(CorruptShard, match=r"shard-00000.*it is shard 0 of another zoo"):
        Zoo.open(zoo.path)


def test_identity_follows_from_what_a_zoo_says_and_from_all_of_it(zoo, tmp_path):
    facts = zoo.facts
    as_settings_have_it = dataclasses.replace(facts, said=(), keep_epochs=None)
    assert Facts.read(zoo.path).identity == facts.identity == as_settings_have_it.identity
    others = [
        dataclasses.replace(facts, seed=1),
        dataclasses.replace(facts, num_shards=4),
        dataclasses.replace(facts, provenance=Trained("dwf 1")),
        dataclasses.replace(facts, count=17),
        facts,
    ]
    names = [one.identity for one in others]
    assert len(set(names)) == len(names)
    create_zoo(tmp_path / "again", facts)
    assert Facts.read(tmp_path / "again").identity == facts.identity


def reads(zoo: Zoo, row: int):
    """Every way to read a row."""
    yield lambda: zoo.read(np.array([row]))
    yield lambda: zoo.read(np.array([row, 0, row]))
    yield lambda: zoo.read(slice(row, row + 2))
    yield lambda: zoo.read(np.array([row]), 3, stop=5)
    yield lambda: zoo.map_row(row)
    yield lambda: list(zoo.stream(np.array([row])))
    yield zoo.verify


def test_a_row_is_held_to_its_checksum_however_it_is_read_first(zoo):
    row, shard = 13, zoo.shards[1]
    whole = shard.path.read_bytes()
    damaged = bytearray(whole)
    damaged[shard.offset + 4 * zoo.layout.size * 3 + 6] ^= 0x10
    shard.path.write_bytes(damaged)
    ways = len(list(reads(zoo, row)))
    for number in range(ways):
        read = next(itertools.islice(reads(Zoo.open(zoo.path), row), number, None))
        with pytest.raises(CorruptShard, match=r"shard-00001.*row 3 does not match its checksum"):
            read()
        opened = Zoo.open(zoo.path)
        opened.read(np.delete(np.arange(30), row))  # the others are as they were


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_flipped_bit_of_a_network_ends_a_fit_by_its_name(zoo, tmp_path, split):
    row = int(zoo.rows(split=split)[1])
    index, local = zoo.locate(row)
    shard = zoo.shards[index]
    damaged = bytearray(shard.path.read_bytes())
    damaged[shard.offset + 4 * zoo.layout.size * local + 3] ^= 0x40  # an exponent
    shard.path.write_bytes(damaged)
    told = f"{shard.path.name}.*row {local} does not match its checksum"
    with pytest.raises(CorruptShard, match=told):
        fit_generator(GeneratorConfig("zoo", density=GaussianConfig()), tmp_path, name="made")


def test_rows_that_ranks_checked_together_are_not_read_again(zoo):
    opened = Zoo.open(zoo.path)
    shard = opened.shards[1]
    damaged = bytearray(shard.path.read_bytes())
    damaged[shard.offset + 1] ^= 1
    shard.path.write_bytes(damaged)
    opened.note_checked(np.array([10]))
    opened.read(np.array([10]), 5, stop=6)
    with pytest.raises(CorruptShard):
        Zoo.open(zoo.path).read(np.array([10]), 5, stop=6)


def test_equal_zoos_are_equal_files_though_shards_name_their_zoo(zoo, tmp_path):
    columns = {n: v for n, v in zoo.shards[0].columns.items() if n != "checksum"}
    block = (columns, zoo.shards[0].weights)
    write_shard(tmp_path / "again.h5", zoo.facts, index=0, num_rows=10, blocks=[block])
    assert (tmp_path / "again.h5").read_bytes() == zoo.shards[0].path.read_bytes()
