"""Merged zoos against the rows of their parts; what differed between these is told."""

import numpy as np
from pytest import fixture, raises

from dwf.datasets.config import DataConfig
from dwf.errors import ConfigError, CorruptShard, RunConflict, ShapeMismatch
from dwf.settings import to_dict
from dwf.zoo import merge
from dwf.zoo.config import RecipeConfig
from dwf.zoo.merge import merge_zoos
from dwf.zoo.store import Zoo
from dwf.zoo.verify import find_damage


@fixture
def two(make_sharded):
    """Two zoos of different recipes and seeds."""
    recipe = RecipeConfig(epochs=2, batch_size=8)
    return make_sharded("one"), make_sharded("other", (3, 6), seed=1, recipe=recipe)


def folder_of(zoo: Zoo, name: str = "both"):
    return zoo.path.parent / name


def bytes_of(path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}


def test_merged_rows_are_those_of_the_zoos(two, monkeypatch):
    one, other = two
    monkeypatch.setattr(merge, "STREAM_BYTES", 3 * 4 * one.layout.size)
    merged = merge_zoos(folder_of(one), [one.path, other.path])
    assert np.array_equal(merged.read(), np.concatenate([one.read(), other.read()]))
    assert len(merged.shards) == 6 and not find_damage(merged.path)
    for name in set(one.columns) - {"network"}:
        both = np.concatenate([one.columns[name], other.columns[name]])
        assert np.array_equal(merged.columns[name], both), name
    table = merged.columns
    of_one = table["source"] == "one"
    assert of_one.tolist() == [True] * 24 + [False] * 18
    both = np.concatenate([one.columns["network"], other.columns["network"]])
    assert np.array_equal(table["source_network"], both)
    assert np.array_equal(table["network"], both + 13 * ~of_one), "12 networks and one diverged"
    lost = [(12, 7, "loss not finite"), (13 + 9, 7, "loss not finite")]
    assert merged.diverged == lost
    for split in ("train", "val", "test"):
        rows = [zoo.rows(split) for zoo in two]
        assert merged.rows(split).tolist() == [*rows[0], *(rows[1] + 24)]


def test_what_differed_is_told(two):
    one, other = two
    facts = merge_zoos(folder_of(one), [one.path, other.path]).facts
    assert facts.network == one.facts.network and facts.data == one.facts.data
    assert facts.count == 13 + 10 and "recipe" not in facts.to_json()
    first, second = facts.provenance.zoos
    assert (first["name"], second["name"]) == ("one", "other")
    assert [told["fingerprint"] for told in (first, second)] == [z.fingerprint for z in two]
    assert second["differs"]["recipe"] == to_dict(other.facts.recipe)
    assert (first["seed"], second["seed"], second["networks_from"]) == (0, 1, 13)
    assert first["provenance"] == {"trained_by": "dwf 0"}


def test_a_merge_that_was_stopped_goes_on_and_a_whole_one_stays(two, monkeypatch):
    one, other = two
    expected = bytes_of(merge_zoos(folder_of(one, "expected"), [one.path, other.path]).path)
    out, write = folder_of(one), merge.write_shard
    asked = []

    def stop_at_third(path, *args, **named):
        asked.append(path.name)
        if len(asked) == 3:
            (path.parent / f"{path.name}.partial-0123456789ab").touch()
            raise KeyboardInterrupt
        write(path, *args, **named)

    monkeypatch.setattr(merge, "write_shard", stop_at_third)
    with raises(KeyboardInterrupt):
        merge_zoos(out, [one.path, other.path])
    merge_zoos(out, [one.path, other.path])
    assert asked[3:] == asked[2:3] + [f"shard-{i:05d}-of-00006.h5" for i in (3, 4, 5)]
    assert bytes_of(out) == expected
    merge_zoos(out, [one.path, other.path])
    assert len(asked) == 7 and bytes_of(out) == expected


def test_a_merged_zoo_is_merged_again(two, make_sharded):
    one, other = two
    both = merge_zoos(folder_of(one), [one.path, other.path])
    third = make_sharded("third", (2,), seed=2)
    merged = merge_zoos(folder_of(one, "all"), [both.path, third.path])
    counts = dict(zip(*np.unique(merged.columns["source"], return_counts=True), strict=True))
    assert counts == {"both/one": 24, "both/other": 18, "third": 4}
    assert merged.columns["source_network"][24] == 0
    assert len(np.unique(merged.columns["network"])) == 12 + 9 + 2


def test_zoos_of_one_name_are_told_apart(make_sharded):
    one = make_sharded("same")
    one.path.rename(one.path.parent / "elsewhere")
    other = make_sharded("same", seed=1)
    place = one.path.parents[1] / "other root" / "zoos" / "same"
    place.parent.mkdir(parents=True)
    (one.path.parent / "elsewhere").rename(place)
    merged = merge_zoos(folder_of(other), [place, other.path])
    assert sorted(set(merged.columns["source"])) == sorted(
        f"same-{zoo.fingerprint[:8]}" for zoo in (Zoo.open(place), other)
    )
    deeper = other.path.parent / "deeper" / "same"
    deeper.parent.mkdir()
    place.rename(deeper)
    merged = merge_zoos(other.path.with_name("by whole names"), [deeper, other.path])
    assert sorted(set(merged.columns["source"])) == ["deeper/same", "same"]


# --- what cannot be merged -----------------------------------------------------------------------


def test_zoos_that_do_not_fit(make_sharded, make_zoo):
    one, wider = make_sharded("one"), make_sharded("wider", widths=(6, 7, 3), seed=1)
    out = folder_of(one)
    told = rf"layout {wider.layout.digest}, .* {one.layout.digest}: first layers.0.weight \[7, 6\]"
    with raises(ShapeMismatch, match=told + r" \(weight\) against layers.0.weight \[5, 6\]"):
        merge_zoos(out, [one.path, wider.path])
    iris = make_sharded("iris", seed=1, data=DataConfig("iris"))
    with raises(ConfigError, match=r"iris has data.kind = 'iris', .*one 'digits'"):
        merge_zoos(out, [one.path, iris.path])
    fewer = make_zoo(4, widths=(6, 5, 3), name="fewer", seed=1)
    with raises(ShapeMismatch, match="columns test_accuracy, train_accuracy, val_accuracy"):
        merge_zoos(out, [one.path, fewer.path])
    assert not out.exists()


def test_a_network_in_two_zoos_is_refused(make_sharded):
    one, longer = make_sharded("one"), make_sharded("longer", (5, 2, 2), seed=0)
    with raises(ConfigError, match=r"network (\d) of .*longer equals network \1 of .*one.*--seed"):
        merge_zoos(folder_of(one), [one.path, longer.path])


def test_other_folders_are_left_alone(two, make_sharded, tmp_path):
    one, other = two
    third = make_sharded("third", (2,), seed=2)
    merge_zoos(folder_of(one), [one.path, other.path])
    before = bytes_of(folder_of(one))
    with raises(RunConflict, match="is another zoo already"):
        merge_zoos(folder_of(one), [one.path, third.path])
    with raises(RunConflict, match="is one of the zoos to merge"):
        merge_zoos(one.path, [one.path, other.path])
    with raises(RunConflict, match="is another zoo already"):
        merge_zoos(third.path, [one.path, other.path])
    assert bytes_of(folder_of(one)) == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").touch()
    with raises(RunConflict, match=r"holds thesis.txt, and is no zoo"):
        merge_zoos(tmp_path / "notes", [one.path, other.path])
    for few in ([], [one.path], [one.path, one.path]):
        with raises(ConfigError, match="expected two or more"):
            merge_zoos(folder_of(one, "few"), few)


def test_damage_is_not_carried_over(two):
    one, other = two
    shard = other.shards[1]
    data = bytearray(shard.path.read_bytes())
    data[shard.offset + 4] ^= 1
    shard.path.write_bytes(data)
    with raises(CorruptShard, match=r"other/shard-00001.*row 0 does not match"):
        merge_zoos(folder_of(one), [one.path, other.path])
    assert not (folder_of(one) / "zoo.h5").exists()
