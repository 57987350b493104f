"""A zoo that grows, against one that is trained with all networks at once."""

from dataclasses import replace

import numpy as np
import pytest

from dwf.align.config import AlignConfig
from dwf.align.stage import align_zoo
from dwf.commands import COMMANDS
from dwf.datasets.config import DataConfig
from dwf.errors import ConfigError, NotAZoo, RunConflict
from dwf.networks.config import CNNConfig, MLPConfig
from dwf.settings import build
from dwf.stages import run_here
from dwf.zoo.config import RangeConfig, RecipeConfig, SplitConfig, VaryConfig, ZooConfig
from dwf.zoo.facts import Method
from dwf.zoo.grow import target_of
from dwf.zoo.manifest import GROWN
from dwf.zoo.roster import cohorts_of_shard, networks_of_shard
from dwf.zoo.stage import train_zoo
from dwf.zoo.store import Zoo

MLP = ZooConfig(
    MLPConfig((4, 3, 3)),
    DataConfig("iris"),
    count=13,
    recipe=RecipeConfig(epochs=2, batch_size=16),
    vary=VaryConfig(
        learning_rate=RangeConfig(1e-3, 1e-2), dropout=(0.0, 0.2), optimizer=("adam", "sgd")
    ),
    split=SplitConfig(val=0.2, test=0.2),
    keep_epochs=(1, 2),
    cohort=4,
    shard=8,
)
CNN = replace(
    MLP,
    network=CNNConfig(channels=(2,), input=(1, 8, 8), pools=1, head="average"),
    data=DataConfig("digits"),
    recipe=RecipeConfig(epochs=1, batch_size=256),
    vary=VaryConfig(),
    keep_epochs=(),
    count=3,
    cohort=2,
    shard=2,
)


def held(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def assert_same(one: Zoo, other: Zoo, numbers):
    """Rows of some networks are equal to the last bit, and so is all that is told of them."""
    rows = [np.flatnonzero(np.isin(zoo.columns["network"], numbers)) for zoo in (one, other)]
    np.testing.assert_array_equal(one.read(rows[0]), other.read(rows[1]))
    assert one.columns.keys() == other.columns.keys()
    for name in one.columns.keys() - {"split"}:
        values = [zoo.columns[name][each] for zoo, each in zip((one, other), rows, strict=True)]
        np.testing.assert_array_equal(*values, err_msg=name)


@pytest.mark.parametrize("config, steps", [(MLP, (13, 22)), (CNN, (3, 5, 6))], ids=["mlp", "cnn"])
def test_a_network_is_that_of_a_zoo_trained_at_once(config, steps, tmp_path):
    had = 0
    for count in steps:  # the first is in the middle of a cohort and of a shard
        grown = train_zoo(replace(config, count=count), tmp_path, name="grown")
        whole = train_zoo(replace(config, count=count), tmp_path, name=f"whole-of-{count}")
        assert len(grown) == len(whole) and grown.facts.count == count
        np.testing.assert_array_equal(grown.columns["network"], whole.columns["network"])
        assert_same(grown, whole, range(had, count))
        had = count


def test_what_was_there_stays_as_it_was(tmp_path):
    before = train_zoo(MLP, tmp_path, name="z")
    files, splits = held(before.path), before.columns["split"]
    both = train_zoo(replace(MLP, count=20), tmp_path, name="z")
    now = held(before.path)
    assert now.pop(GROWN) and now == files
    np.testing.assert_array_equal(both.columns["split"][: len(before)], splits)
    new = Zoo.open(tmp_path / "zoos" / "z-13")
    last = new.rows(epoch="last")
    assert new.columns["network"][last].tolist() == list(range(13, 20))
    assert sorted(new.columns["split"][last].tolist()).count("val") == round(0.2 * 7)
    np.testing.assert_array_equal(both.columns["split"][len(before) :], new.columns["split"])
    # Given again, with either count, nothing is trained; both stay one zoo.
    assert len(train_zoo(replace(MLP, count=20), tmp_path, name="z")) == len(both)
    assert len(train_zoo(MLP, tmp_path, name="z")) == len(both)
    assert both.fingerprint == Zoo.open(both.path).fingerprint != before.fingerprint


def test_stages_take_both_as_one(tmp_path, capsys):
    for count in (13, 20):
        train_zoo(replace(MLP, count=count), tmp_path, name="z")
    aligned = align_zoo(AlignConfig("z", num_pairs=2), tmp_path, name="z-aligned")
    zoo = Zoo.open(tmp_path / "zoos" / "z")
    np.testing.assert_array_equal(aligned.columns["network"], zoo.columns["network"])
    assert aligned.facts.aligned.fingerprint == zoo.fingerprint
    assert aligned.facts.num_shards == len(zoo.shards) == 2 + 2
    COMMANDS["verify"].run([str(zoo.path)])
    said = capsys.readouterr().out
    assert "zoos/z: 2 shards are whole" in said and "zoos/z-13: 2 shards are whole" in said
    COMMANDS["status"].run(["--root", str(tmp_path)])
    assert "opens as one with z-13" in capsys.readouterr().out


def test_the_command_tells_what_grows_and_resumes_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("dwf.cluster.backend.runner", lambda *_: run_here)  # no other process
    file = tmp_path / "tiny.yaml"
    file.write_text(
        "network: {kind: mlp, widths: [4, 3, 3]}\ndata: {kind: iris}\ncount: 3\n"
        "recipe: {epochs: 1}\ncohort: 2\n"
    )
    words = ["--config", str(file), "--root", str(tmp_path)]
    COMMANDS["zoo"].run(words)
    COMMANDS["zoo"].run([*words, "--count", "5", "--dry-run"])
    said = capsys.readouterr().out
    assert "zoo tiny grows: tiny-3 is trained" in said
    assert "2 networks (numbers 3 to 4)" in said
    assert not (tmp_path / "zoos" / "tiny-3").exists()
    COMMANDS["zoo"].run([*words, "--count", "5"])
    (tmp_path / "zoos" / "tiny" / GROWN).unlink()  # as where it was stopped just before
    COMMANDS["zoo"].run(["--resume", "--name", "tiny-3", "--root", str(tmp_path)])
    assert len(Zoo.open(tmp_path / "zoos" / "tiny")) == 5


def test_what_cannot_grow_is_refused(tmp_path):
    train_zoo(replace(MLP, count=1), tmp_path, name="one")
    with pytest.raises(RunConflict, match="split by steps"):
        train_zoo(replace(MLP, count=5), tmp_path, name="one")
    train_zoo(MLP, tmp_path, name="z")
    (tmp_path / "zoos" / "z" / "run" / "done.json").rename(tmp_path / "done.json")
    with pytest.raises(RunConflict, match="not finished"):
        train_zoo(replace(MLP, count=20), tmp_path, name="z")
    (tmp_path / "done.json").rename(tmp_path / "zoos" / "z" / "run" / "done.json")
    with pytest.raises(RunConflict, match="seed = 0, this one has 1"):
        train_zoo(replace(MLP, count=20, seed=1), tmp_path, name="z")
    train_zoo(replace(MLP, count=20), tmp_path, name="z")
    with pytest.raises(RunConflict, match="networks 13 to 19 already: give --count 20"):
        train_zoo(replace(MLP, count=15), tmp_path, name="z")
    (tmp_path / "zoos" / "z" / GROWN).write_text("{}")
    with pytest.raises(NotAZoo, match=r"grown\.json lacks format: remove it"):
        Zoo.open(tmp_path / "zoos" / "z")
    with pytest.raises(ConfigError, match="first = 5, count = 5"):
        told = {"network": {"kind": "mlp", "widths": [4, 3]}, "data": {"kind": "iris"}}
        build(ZooConfig, told | {"count": 5, "first": 5}, source="test")


def test_shards_cover_each_network_once_whatever_the_sizes():
    for first in range(1, 12):
        config = replace(MLP, count=12, shard=4, first=first)
        found = [n for i in range(config.num_shards) for n in networks_of_shard(config, i)]
        assert found == list(range(first, 12))
        cohorts = [c for i in range(config.num_shards) for c in cohorts_of_shard(config, i, size=3)]
        whole = replace(MLP, count=12, shard=4)
        every = [c for i in range(whole.num_shards) for c in cohorts_of_shard(whole, i, size=3)]
        assert cohorts == [cohort for cohort in every if cohort.stop > first]


def test_a_timing_is_not_repeated(tmp_path):
    zoo = train_zoo(replace(CNN, count=2, cohort=None, shard=2), tmp_path, name="z")
    assert isinstance(zoo.facts.method, Method)
    grown = replace(CNN, count=4, cohort=None, shard=2)
    assert target_of(grown, tmp_path, name="z")[1] == "z-2"
    train_zoo(grown, tmp_path, name="z")
    assert Zoo.open(tmp_path / "zoos" / "z-2").facts.method == zoo.facts.method
