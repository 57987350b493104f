"""Damage of every kind is found and named, down to each byte of a shard."""

import shutil

import numpy as np
from pytest import raises

from dwf.errors import NotAZoo
from dwf.zoo.store import finish_zoo
from dwf.zoo.verify import find_damage

_PADDING = (20, 512)


def flip(file, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 4
    file.write_bytes(data)


def found(path, threads: int = 2) -> dict[str, str]:
    return {damage.file.name: damage.reason for damage in find_damage(path, threads)}


def test_every_damaged_shard_and_row_is_named(make_sharded):
    zoo = make_sharded("zoo")
    first, empty, third, last = zoo.shards
    assert found(zoo.path) == found(zoo.path, 1) == {}
    row = 4 * zoo.layout.size
    flip(first.path, first.offset + 3 * row + 5)
    flip(first.path, first.offset + 9 * row + row - 1)
    flip(third.path, third.path.read_bytes().find(third.columns["val_accuracy"].tobytes()) + 2)
    last.path.write_bytes(last.path.read_bytes()[:-100])
    empty.path.unlink()
    damages = found(zoo.path)
    assert damages == found(zoo.path, 1)
    assert list(damages) == [shard.path.name for shard in zoo.shards]
    assert damages[first.path.name] == "rows 3, 9 do not match their checksums"
    assert damages[empty.path.name] == "missing"
    assert damages[third.path.name] == "its columns do not match their checksum"
    assert "truncated" in damages[last.path.name]


def test_many_wrong_rows_are_told_in_short(make_sharded):
    zoo = make_sharded("zoo", sizes=(20,))
    file, shard = zoo.shards[0].path, zoo.shards[0]
    for row in range(12, 40):
        flip(file, shard.offset + 4 * zoo.layout.size * row)
    told = "rows 12, 13, 14, 15, 16, 17, 18, 19, 20, 21 and 18 more do not match their checksums"
    assert found(zoo.path) == {file.name: told}


def test_every_byte_of_a_shard_is_held_to_something(make_sharded):
    """Also HDF5's own: a flipped bit that it reads without complaint."""
    zoo = make_sharded("zoo", sizes=(2, 2))
    for file in (zoo.shards[1].path, zoo.path / "zoo.h5"):
        whole = file.read_bytes()
        for place in np.random.default_rng(0).integers(0, len(whole), 100):
            if file.name == "zoo.h5" and _PADDING[0] <= place < _PADDING[1]:
                continue  # between its checksum and its contents
            flip(file, int(place))
            assert found(zoo.path), f"byte {place} of {file.name}"
            file.write_bytes(whole)
    assert not found(zoo.path)


def test_a_view_of_other_shards_is_damage(make_sharded):
    zoo, other = make_sharded("zoo"), make_sharded("other", seed=1)
    view = zoo.path / "zoo.h5"
    whole = view.read_bytes()
    view.unlink()
    assert found(zoo.path) == {"zoo.h5": "missing"}
    shutil.copy(other.path / "zoo.h5", view)
    assert found(zoo.path) == {"zoo.h5": "it is of another zoo"}
    flip(view, whole.find(zoo.columns["val_accuracy"].tobytes()) + 1)
    assert found(zoo.path) == {"zoo.h5": "its bytes do not match their checksum"}
    finish_zoo(zoo.path)
    assert view.read_bytes() == whole and not found(zoo.path)


def test_progress_counts_all_shards(make_sharded, monkeypatch):
    zoo, told = make_sharded("zoo"), []
    monkeypatch.setattr("dwf.zoo.verify._BATCH_SHARDS", 3)
    find_damage(zoo.path, 2, report=told.append)
    assert told == [3, 4]


def test_no_zoo(tmp_path):
    with raises(NotAZoo):
        find_damage(tmp_path)
