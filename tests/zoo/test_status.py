"""What is told of a zoo that is whole, in work or damaged, against what was done to its folder."""

import json

from pytest import raises

from dwf.errors import NotAZoo
from dwf.run_folder import hold
from dwf.zoo.info import zoo_facts
from dwf.zoo.status import read_status


def test_a_whole_zoo(make_sharded):
    told = read_status(make_sharded("zoo").path)
    assert told.is_whole and told.whole == [0, 1, 2, 3] and not told.missing
    assert (told.num_networks, told.num_rows, told.num_diverged) == (12, 24, 1)
    assert told.holder is None and not told.leftovers and not (told.folder / "run").exists()


def test_a_zoo_in_work(make_sharded):
    zoo = make_sharded("zoo")
    work = zoo.path / "run" / "work"
    work.mkdir(parents=True)
    (zoo.path / "run" / "jobs").mkdir()
    submitted = [{"job": "17", "elements": [[0], [2]]}]
    (zoo.path / "run" / "jobs" / "submitted.json").write_text(json.dumps(submitted))
    (zoo.path / "zoo.h5").unlink()
    for index in (0, 2):
        zoo.shards[index].path.unlink()
    whole = zoo.shards[3].path.read_bytes()
    zoo.shards[3].path.write_bytes(whole[: len(whole) // 2])
    for index in (0, 1):  # what a finished shard told before is of no interest
        told = {"share": 0.25, "val_accuracy": None}
        (work / f"progress-{index:05d}.json").write_text(json.dumps(told))
    (zoo.path / "shard-00002-of-00004.h5.partial-0123456789ab").touch()
    with hold(zoo.path / "run"):
        told = read_status(zoo.path)
        assert told.holder.startswith("process ")
    assert not told.is_whole and told.whole == [1] and told.missing == [2]
    assert told.begun == {0: {"share": 0.25, "val_accuracy": None}}
    assert list(told.damaged) == [3] and "truncated" in told.damaged[3]
    assert told.jobs.numbers == {"submitted": ("17",)} and len(told.leftovers) == 1
    assert read_status(zoo.path).holder is None


def test_a_zoo_without_its_view_is_not_whole(make_sharded):
    zoo = make_sharded("zoo")
    (zoo.path / "zoo.h5").unlink()
    told = read_status(zoo.path)
    assert told.whole == [0, 1, 2, 3] and not told.is_whole


def test_no_zoo(tmp_path):
    with raises(NotAZoo):
        read_status(tmp_path)


def test_info_tells_what_a_zoo_is_but_not_test_images(make_sharded):
    zoo = make_sharded("zoo")
    told = json.loads(json.dumps(zoo_facts(zoo.path)))
    assert told["layout"]["weights"] == 53 and told["layout"]["tensors"][0] == {
        "name": "layers.0.weight",
        "shape": [5, 6],
        "role": "weight",
    }
    last = {s: zoo.rows(s, "last") for s in ("train", "val", "test")}
    for split, rows in last.items():
        values = zoo.columns["val_accuracy"][rows]
        expected = {"mean": float(values.mean()), "std": float(values.std())}
        assert told["splits"][split]["val_accuracy"] == expected
        assert told["splits"][split]["networks"] == len(rows)
        assert "test_accuracy" not in told["splits"][split]
    assert (told["networks"], told["rows"], told["diverged"]) == (12, 24, 1)
    assert told["epochs"] == [1, 2] and told["fingerprint"] == zoo.fingerprint
    assert told["bytes"] == sum(shard.path.stat().st_size for shard in zoo.shards)
    zoo.shards[0].path.unlink()
    assert zoo_facts(zoo.path)["shards"] == {"whole": 3, "of": 4}
