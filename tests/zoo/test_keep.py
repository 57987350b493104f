"""Which rows a zoo keeps: by accuracy, the best, by step; and how they are split."""

import dataclasses
import json

import numpy as np
import pytest

from dwf.errors import CorruptShard
from dwf.networks.functional import build_network
from dwf.zoo.cohorts import rows
from dwf.zoo.config import (
    KeepAbove,
    KeepBest,
    KeepSteps,
    PruneConfig,
    RecipeConfig,
    SplitConfig,
    ZooConfig,
)
from dwf.zoo.layout import Layout
from dwf.zoo.roster import split_rule
from dwf.zoo.shard import Shard
from tests.zoo.convolutional import NORMED, PLAIN, config, images, trained
from tests.zoos import facts_of

RECIPE = RecipeConfig(epochs=6, batch_size=16, learning_rate=0.02)


def every_epoch(folder, network=PLAIN, size=3, **changes):
    """The same networks with all epochs kept, against which choices are held."""
    zoo = config(network, recipe=dataclasses.replace(RECIPE, **changes), keep_epochs=range(1, 7))
    cohort = trained(zoo, range(size), folder=folder)
    saved = [np.load(cohort.snapshot_path(epoch)) for epoch in range(1, 7)]
    return (np.stack([one[name] for one in saved]) for name in ("weights", "val_accuracy"))


def shard_of(zoo: ZooConfig, cohorts, folder) -> Shard:
    target = folder / "shard-00000-of-00001.h5"
    facts = facts_of(Layout.of(build_network(zoo.network)), zoo.network)
    rows.assemble(zoo, facts, index=0, target=target, cohorts=cohorts)
    return Shard(target, facts, index=0)


def test_rows_above_an_accuracy_are_those_epochs_and_at_most_so_many(tmp_path):
    weights_END, accuracy_EN = every_epoch(tmp_path / "all")
    bound = float(np.median(accuracy_EN))
    zoo = config(PLAIN, recipe=RECIPE, keep=KeepAbove(bound, rows=2), count=3)
    cohort = trained(zoo, range(3), folder=tmp_path / "above")
    shard = shard_of(zoo, [cohort], folder=tmp_path)
    expected = [
        (n, e + 1) for n in range(3) for e in np.flatnonzero(accuracy_EN[:, n] >= bound)[:2]
    ]
    assert 3 <= len(expected) <= 6
    found = list(zip(shard.columns["network"], shard.columns["epoch"], strict=True))
    assert found == expected
    for row, (n, e) in zip(shard.weights, expected, strict=True):
        np.testing.assert_array_equal(row, weights_END[e - 1, n])
    assert (shard.columns["val_accuracy"] >= bound).all()


def test_no_row_where_no_epoch_is_good_enough(tmp_path):
    zoo = config(PLAIN, recipe=dataclasses.replace(RECIPE, epochs=1), keep=KeepAbove(1.0), count=2)
    shard = shard_of(zoo, [trained(zoo, range(2), folder=tmp_path)], folder=tmp_path)
    assert shard.num_rows == 0


@pytest.mark.parametrize("size", [1, 3])
def test_the_best_epoch_on_validation_images_is_the_row(tmp_path, size):
    weights_END, accuracy_EN = every_epoch(tmp_path / "all", NORMED, size=size)
    zoo = config(NORMED, recipe=RECIPE, keep=KeepBest(), count=size)
    shard = shard_of(zoo, [trained(zoo, range(size), folder=tmp_path / "best")], folder=tmp_path)
    best_N = accuracy_EN.argmax(0)
    np.testing.assert_array_equal(shard.columns["epoch"], best_N + 1)
    np.testing.assert_array_equal(shard.columns["val_accuracy"], accuracy_EN.max(0))
    np.testing.assert_array_equal(shard.weights, weights_END[best_N, np.arange(size)])
    assert (shard.columns["batchnorm"] == "trained").all()


def test_patience_ends_a_network_and_its_choice_does_not_depend_on_others(tmp_path):
    _, accuracy_EN = every_epoch(tmp_path / "all")
    zoo = config(PLAIN, recipe=RECIPE, keep=KeepBest(patience=1), count=3)
    shard = shard_of(zoo, [trained(zoo, range(3), folder=tmp_path / "best")], folder=tmp_path)
    for n in range(3):
        best = 0
        while best + 1 < 6 and accuracy_EN[best + 1, n] > accuracy_EN[best, n]:
            best += 1
        assert shard.columns["epoch"][n] == best + 1


def test_rows_by_step_differ_in_the_layers_that_go_on_learning(tmp_path):
    layout = Layout.of(build_network(PLAIN))
    last = [e.name for e in layout.entries][-2:]
    keep = KeepSteps(rows=10, every=3, layers=last[0].rpartition(".")[0], learning_rate=0.01)
    zoo = config(PLAIN, recipe=dataclasses.replace(RECIPE, epochs=2), keep=keep, count=1)
    cohort = trained(zoo, range(1), folder=tmp_path)
    shard = shard_of(zoo, [cohort], folder=tmp_path)
    assert cohort.steps_per_epoch == 4
    np.testing.assert_array_equal(shard.columns["step"], 8 + 3 * np.arange(1, 11))
    weights = np.array(shard.weights)
    for entry in layout.entries:
        part = weights[:, entry.offset : entry.stop]
        moves = np.abs(np.diff(part, axis=0)).max(1)
        assert (moves > 0).all() if entry.name in last else (moves == 0).all()
    before = np.load(
        trained(
            dataclasses.replace(zoo, keep=None), range(1), folder=tmp_path / "before"
        ).snapshot_path(2)
    )["weights"]
    start = layout.by_name[last[0]].offset
    np.testing.assert_array_equal(weights[0, :start], before[0, :start])


def test_a_single_network_is_split_into_blocks_of_steps(tmp_path):
    keep, split = KeepSteps(rows=10), SplitConfig(val=0.2, test=0.3)
    zoo = config(
        PLAIN, recipe=dataclasses.replace(RECIPE, epochs=1), keep=keep, count=1, split=split
    )
    shard = shard_of(zoo, [trained(zoo, range(1), folder=tmp_path)], folder=tmp_path)
    assert list(shard.columns["split"]) == ["train"] * 5 + ["val"] * 2 + ["test"] * 3
    assert split_rule(zoo) == "blocks of steps"
    several = dataclasses.replace(zoo, count=2)
    shard = shard_of(
        several, [trained(several, range(2), folder=tmp_path / "two")], folder=tmp_path / "two"
    )
    for n in range(2):
        assert len(set(shard.columns["split"][shard.columns["network"] == n])) == 1
    assert split_rule(several) == "networks"


def test_a_pruned_row_whose_zeros_are_gone_enters_no_shard(tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=1, prune=PruneConfig(0.5))
    zoo = config(PLAIN, recipe=recipe, count=1)
    cohort = trained(zoo, range(1), folder=tmp_path)
    shard = shard_of(zoo, [cohort], folder=tmp_path)
    assert shard.columns["pruned"][0] > 0 and shard.columns["prune_share"][0] == 0.5
    held = dict(np.load(cohort.snapshot_path(1)))
    first = np.flatnonzero(held["weights"][0] == 0)[0]
    held["weights"][0, first] = 1e-3
    np.savez(cohort.snapshot_path(1), **held)
    with pytest.raises(CorruptShard, match=r"network 0 at step 4 has fewer zeros than the \d+"):
        shard_of(zoo, [cohort], folder=tmp_path / "again")


def test_what_is_done_names_its_snapshots(tmp_path):
    zoo = config(PLAIN, recipe=dataclasses.replace(RECIPE, epochs=2), keep_epochs=(0, 2))
    cohort = trained(zoo, range(2), folder=tmp_path)
    names = json.loads(cohort.done_path.read_text())["snapshots"]
    assert names == [cohort.snapshot_path(0).name, cohort.snapshot_path(2).name]
    assert len(images().train) == 60
