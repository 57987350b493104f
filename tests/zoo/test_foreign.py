"""Zoos of networks that a user wrote: what is refused before training, and what is recorded.

The other process of a trial is this one, but in one test; see `tests/networks/test_sound.py`.
"""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from dwf import preemption
from dwf.datasets.config import DataConfig
from dwf.datasets.load import load_dataset
from dwf.errors import ConfigError
from dwf.networks.batching import why_not_batched
from dwf.networks.config import PythonConfig
from dwf.networks.functional import build_network, score_networks
from dwf.networks.sound import elsewhere
from dwf.trust import trust_code
from dwf.zoo import misfit, stage
from dwf.zoo.cohorts import cost
from dwf.zoo.cohorts import method as timing
from dwf.zoo.config import (
    KeepSteps,
    PruneConfig,
    RecipeConfig,
    SplitConfig,
    ZooComputeConfig,
    ZooConfig,
)
from dwf.zoo.facts import Facts
from dwf.zoo.misfit import refuse_misfit
from dwf.zoo.store import Zoo

DATA = DataConfig("digits", train_images=258)
RECIPE = RecipeConfig(epochs=2, batch_size=32, learning_rate=0.01)
PLAIN = ZooComputeConfig("cpu", channels_last=False)
THERE = elsewhere.examine_elsewhere


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setattr(elsewhere, "examine_elsewhere", lambda trial: trial.findings())


def settings(name: str, **more) -> ZooConfig:
    usual = {"count": 4, "shard": 4, "cohort": 1, "recipe": RECIPE, "compute": PLAIN, "data": DATA}
    usual |= {"split": SplitConfig(0.0, 0.25)}
    trust_code(f"tests.networks.cases:{name}")
    return ZooConfig(network=PythonConfig(f"tests.networks.cases:{name}"), **usual | more)


def scores(zoo: Zoo) -> np.ndarray:
    """Test accuracies of a zoo's rows, from its files alone."""
    data = zoo.load_data()
    state = zoo.layout.unflatten(torch.from_numpy(zoo.read()))
    return score_networks(zoo.build_network(), state, data=data, part=data.test).accuracy_N


def test_a_sound_network_is_tried_once_and_that_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(elsewhere, "examine_elsewhere", THERE)
    zoo = stage.train_zoo(settings("Base"), tmp_path, name="zoo")
    assert len(zoo.facts.sound.source) == 16
    assert Facts.read(zoo.path) == zoo.facts
    np.testing.assert_array_equal(scores(zoo), zoo.columns["test_accuracy"])

    def never(*_, **__):
        raise AssertionError("tried again")

    monkeypatch.setattr(misfit, "refuse_unsound", never)
    monkeypatch.setattr(misfit, "source_digest", never)
    assert len(stage.train_zoo(settings("Base"), tmp_path, name="zoo")) == 4


def test_an_unsound_one_leaves_no_folder(tmp_path):
    with pytest.raises(ConfigError, match="perm is in no row"):
        stage.train_zoo(settings("RandomIndex"), tmp_path, name="zoo")
    assert not list(tmp_path.iterdir())


def test_a_network_whose_source_changes_is_tried_again(tmp_path, monkeypatch, caplog):
    config, tried = settings("Base"), []
    zoo = stage.train_zoo(config, tmp_path, name="zoo")
    zoo.shards[0].path.unlink()
    monkeypatch.setattr(misfit, "refuse_unsound", lambda *_, **__: tried.append(1))
    stage.train_zoo(config, tmp_path, name="zoo")
    assert not tried and "source" not in caplog.text
    zoo.shards[0].path.unlink()
    monkeypatch.setattr(misfit, "source_digest", lambda *_: "0" * 16)
    stage.train_zoo(config, tmp_path, name="zoo")
    assert tried == [1] and "tests.networks.cases:Base is another than when" in caplog.text


def test_networks_that_write_into_their_inputs_are_trained_as_their_twins(tmp_path):
    """One by one and batched, with images that all share."""
    shared = dataclasses.replace(RECIPE, data_order="shared")
    for cohort in (1, 4):
        more = {"cohort": cohort, "recipe": shared}
        written, apart = (
            stage.train_zoo(settings(name, **more), tmp_path, name=f"{name}-{cohort}")
            for name in ("InPlace", "ApartFromInPlace")
        )
        assert np.array_equal(written.read(), apart.read())
        assert np.array_equal(written.columns["test_loss"], apart.columns["test_loss"])
        np.testing.assert_array_equal(scores(written), written.columns["test_accuracy"])


# --- what is trained of it -----------------------------------------------------------------------


@pytest.mark.parametrize("cohort", [1, 4])
def test_what_the_network_freezes_never_moves(tmp_path, cohort):
    """To the last step of `keep: steps`, whose pattern finds the frozen layer too."""
    steps = KeepSteps(rows=2, every=2, layers="a|b", learning_rate=0.05)
    for name, more in (("epochs", {"keep_epochs": (0, 2)}), ("steps", {"keep": steps})):
        zoo = stage.train_zoo(settings("Frozen", cohort=cohort, **more), tmp_path, name=name)
        assert len(zoo) == 8
        state = zoo.layout.unflatten(zoo.read())
        for layer, moves in (("a.weight", False), ("a.bias", False), ("b.weight", True)):
            first, last = state[layer][::2], state[layer][1::2]
            assert np.array_equal(first, last) != moves
        np.testing.assert_array_equal(scores(zoo), zoo.columns["test_accuracy"])


def test_a_tensor_of_two_names_is_one_entry_and_learns_for_both(tmp_path):
    """Alone the module itself is trained, its parameter shared; batched, rows hold it once."""
    alone, batched = (
        stage.train_zoo(settings("TiedLayers", cohort=cohort), tmp_path, name=f"zoo{cohort}")
        for cohort in (1, 4)
    )
    assert "h2.weight" not in batched.layout.by_name
    np.testing.assert_allclose(alone.read(), batched.read(), atol=1e-4)
    np.testing.assert_array_equal(scores(batched), batched.columns["test_accuracy"])


@pytest.mark.parametrize("cohort", [1, 4])
def test_counters_are_saved_so_that_a_stop_changes_no_bit(tmp_path, monkeypatch, cohort):
    """BatchNorm averages over all steps so far; stopped every seven steps."""
    config = settings("CumulativeNorm", cohort=cohort, count=cohort, split=SplitConfig(0.0, 0.0))
    whole = stage.train_zoo(config, tmp_path, name="whole")
    asked, stops = itertools.count(1), 0
    monkeypatch.setattr(preemption, "is_asked", lambda: next(asked) % 7 == 0)
    stopped = None
    while stopped is None:
        try:
            stopped = stage.train_zoo(config, tmp_path, name="stopped")
        except preemption.Preempted:
            stops += 1
    assert stops >= 2
    assert stopped.shards[0].path.read_bytes() == whole.shards[0].path.read_bytes()


@pytest.mark.parametrize("cohort", [1, 4])
def test_a_layer_that_takes_no_part_stays_as_it_began(tmp_path, cohort):
    config = settings("Unused", cohort=cohort, keep_epochs=(0, 2))
    state = (zoo := stage.train_zoo(config, tmp_path, name="zoo")).layout.unflatten(zoo.read())
    assert np.array_equal(state["spare.weight"][::2], state["spare.weight"][1::2])
    assert not np.array_equal(state["a.weight"][::2], state["a.weight"][1::2])


@pytest.mark.parametrize(
    ("name", "recipe", "message"),
    [
        ("BareParameters", {"prune": PruneConfig(0.5)}, r"has w1 \[64, 16\], w2 \[16, 10\]; leave"),
        ("BareParameters", {"initialisation": "he"}, r"= he sets .* it has w1 \[64, 16\], w2"),
        ("ChannelDropout", {"dropout": 0.3}, r"nn.Dropout alone, .* has channels \(Dropout2d\)"),
        ("Base", {"dropout": 0.3}, r"recipe.dropout: the network .* has no dropout layers"),
        ("Frozen", {"prune": PruneConfig(0.5)}, r"recipe.prune would change a.weight, which the"),
    ],
)
def test_settings_that_find_nothing_to_act_on_are_refused(tmp_path, name, recipe, message):
    config = settings(name, recipe=dataclasses.replace(RECIPE, **recipe))
    with pytest.raises(ConfigError, match=message):
        stage.train_zoo(config, tmp_path, name="zoo")
    assert not list(tmp_path.iterdir())


def test_a_frozen_layer_alone_is_not_what_later_steps_train(tmp_path):
    with pytest.raises(ConfigError, match=r"keep.layers = .* is found in no .* called b.weight, b"):
        refuse_misfit(settings("Frozen", keep=KeepSteps(layers=r"a\.")))


def test_roles_follow_from_the_type_of_a_module_not_from_its_name(tmp_path):
    """A linear layer called after a norm is pruned, a norm called otherwise is not."""
    recipe = dataclasses.replace(RECIPE, prune=PruneConfig(0.5))
    zoo = stage.train_zoo(settings("OwnNormalised", recipe=recipe), tmp_path, name="zoo")
    roles = {entry.name: entry.role for entry in zoo.layout.entries}
    assert roles == {
        "a.weight": "weight",
        "a.bias": "bias",
        "n.weight": "norm",
        "n.bias": "norm",
        "b.weight": "weight",
        "b.bias": "bias",
    }
    state = zoo.layout.unflatten(zoo.read())
    assert ((state["a.weight"] == 0).sum((1, 2)) == 512).all()
    assert (state["n.weight"] != 0).all()


# --- what cannot be batched ----------------------------------------------------------------------


def test_what_cannot_be_batched_is_taken_one_by_one(tmp_path, caplog):
    caplog.set_level("INFO", "dwf")
    config = settings("DataDependent", count=32, shard=32, cohort=None)
    method = timing.choose_method(config, load_dataset(DATA)).method
    assert (method.cohort, method.chosen) == (1, "rule")
    assert "batched: cannot (RuntimeError: vmap: It looks like" in caplog.text
    zoo = stage.train_zoo(settings("DataDependent", cohort=None), tmp_path, name="zoo")
    np.testing.assert_array_equal(scores(zoo), zoo.columns["test_accuracy"])


def test_asked_for_explicitly_it_is_refused(tmp_path):
    config, message = settings("DataDependent", cohort=4), "cohort = 4: .* cannot be batched .*vmap"
    with pytest.raises(ConfigError, match=message):
        stage.train_zoo(config, tmp_path, name="zoo")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=message):
        cost.describe_cost(config)


@pytest.mark.parametrize("own_inputs", [True, False])
def test_others_can_be_batched(own_inputs):
    data = load_dataset(DATA)
    images = data.prepare(data.train.batch(torch.arange(8))[0])
    for name in ("Base", "Frozen", "CumulativeNorm", "Unused", "InPlace", "Dropout"):
        network = build_network(settings(name).network)
        before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
        assert why_not_batched(network, images, own_inputs=own_inputs) is None
        assert all(torch.equal(before[key], t) for key, t in network.state_dict().items())
        assert not network.training
