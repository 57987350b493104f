"""Each format, written in its published layout, against the tensors that were written."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from dwf.datasets.config import DataConfig
from dwf.datasets.load import load_dataset
from dwf.errors import ConfigError
from dwf.importers.config import IMPORTERS, ImportConfig, ImportedData
from dwf.importers.stage import import_zoo, zoos_of
from dwf.networks.config import MLPConfig
from dwf.trust import trust_pickle
from tests.importers import written

MLP = MLPConfig((64, 16, 10))
DIGITS = DataConfig("digits")
OF_MLPS = ("state_dict", "deepweightflow", "pdiff", "pdiff_data", "modelzoos", "huggingface")
WRITERS = {
    "state_dict": written.state_dicts,
    **{name: vars(written)[name] for name in IMPORTERS if name != "state_dict"},
}


def settings(folder, kind, data=DIGITS, **more) -> ImportConfig:
    usual = {"network": MLP, "data": ImportedData(data, split="unknown")} | more
    return ImportConfig(str(folder), format=kind, **usual)


def row_of(state: dict[str, torch.Tensor]) -> np.ndarray:
    """A row by hand: weight, then bias of each layer, as dwf's MLP and CNN have them."""
    owners = dict.fromkeys(name.replace("/", ".").rpartition(".")[0] for name in state)
    parts = []
    for owner in owners:
        mine = {n.replace("/", "."): t for n, t in state.items()}
        mine = {n.rpartition(".")[2]: t for n, t in mine.items() if n.rpartition(".")[0] == owner}
        weight = mine.get("weight", mine.get("kernel:0"))
        bias = mine.get("bias", mine.get("bias:0"))
        parts += [weight.flatten(), bias.flatten()]
    return torch.cat(parts).numpy()


def hold_rows(zoo, expected) -> None:
    rows_ND, members = zoo.read(), zoo.columns["member"].tolist()
    assert sorted(members) == sorted(expected)
    for row_D, name in zip(rows_ND, members, strict=True):
        assert np.array_equal(row_D, row_of(expected[name])), name


@pytest.mark.parametrize("kind", OF_MLPS)
def test_rows_are_the_tensors_that_were_written(kind, tmp_path):
    expected = WRITERS[kind](tmp_path / "source")
    if kind == "pdiff_data":
        trust_pickle(tmp_path / "source")
    zoo = import_zoo(settings(tmp_path / "source", kind), tmp_path, name="zoo")
    hold_rows(zoo, expected)
    assert zoo.facts.image_split == "unknown"


def test_accuracies_are_measured_again_and_held_to_those_that_are_told(tmp_path):
    """Against torch's own modules, image by image."""
    expected = written.modelzoos(tmp_path / "source")
    zoo = import_zoo(settings(tmp_path / "source", "modelzoos"), tmp_path, name="zoo")
    data = load_dataset(DIGITS)
    images, labels = data.test.batch(torch.arange(len(data.test)))
    for row, name in enumerate(zoo.columns["member"].tolist()):
        state = expected[name]
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
        network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
        with torch.no_grad():
            logits = network(data.prepare(images))
        accuracy = (logits.argmax(1) == labels).double().mean().item()
        assert zoo.columns["test_accuracy"][row] == pytest.approx(accuracy, abs=1e-12)
        loss = cross_entropy(logits, labels).item()
        assert zoo.columns["test_loss"][row] == pytest.approx(loss, rel=1e-5)


def test_trials_have_their_settings_and_the_last_line_of_an_epoch(tmp_path):
    written.modelzoos(tmp_path / "source")
    zoo = import_zoo(settings(tmp_path / "source", "modelzoos"), tmp_path, name="zoo")
    columns = zoo.columns
    assert set(columns["epoch"].tolist()) == {0, 1} and len(np.unique(columns["network"])) == 6
    assert np.allclose(columns["learning_rate"], 3e-4) and set(columns["optimizer"]) == {"adam"}
    told = 0.1 * columns["epoch"] + 0.01 * columns["seed"]
    assert np.allclose(columns["given_test_accuracy"], told)
    assert np.allclose(columns["train_accuracy"], 0.5)  # which is not measured
    assert "dataset_dump" not in columns and "grid" not in columns
    for network in range(6):
        assert len(set(columns["split"][columns["network"] == network])) == 1


def test_steps_of_one_run_are_split_into_blocks(tmp_path):
    written.pdiff(tmp_path / "source")
    zoo = import_zoo(settings(tmp_path / "source", "pdiff"), tmp_path, name="zoo")
    assert zoo.is_one_network and zoo.columns["step"].tolist() == list(range(written.NUM))
    assert zoo.columns["split"].tolist() == ["train"] * 10 + ["val"] + ["test"]
    assert np.allclose(zoo.columns["given_test_accuracy"], 0.1 + np.arange(written.NUM) / 100)


def test_initialisations_and_seeds_are_read_from_names(tmp_path):
    written.deepweightflow(tmp_path / "source")
    columns = import_zoo(
        settings(tmp_path / "source", "deepweightflow"), tmp_path, name="z"
    ).columns
    assert sorted(set(columns["initialisation"].tolist())) == ["he", "xavier"]
    assert sorted(columns["seed"].tolist()) == sorted([*range(6), *range(6)])


def test_keras_order_and_axes_become_pytorchs(tmp_path):
    """Against a reordering number by number; of networks with tanh too, which are left out."""
    expected = written.unterthiner(tmp_path / "source")
    data = DataConfig("digits", scaling="symmetric")
    own = settings(tmp_path / "source", "unterthiner", network=None, data=data)
    data = DataConfig("mnist", scaling="symmetric", test_images=200, train_images=10)
    with pytest.raises(ConfigError, match=r"relu \(18\), tanh \(2\).*--where activation=relu"):
        import_zoo(own, tmp_path, name="zoo")
    more = {"network": None, "data": data, "where": ("activation=relu",), "score": ("test",)}
    zoo = import_zoo(settings(tmp_path / "source", "unterthiner", **more), tmp_path, name="zoo")
    kept = {n: t for n, t in expected.items() if n not in ("weights.npy#18", "weights.npy#19")}
    hold_rows(zoo, {n: _by_layer(t) for n, t in kept.items()})
    assert zoo.layout.size == 4970 and zoo.facts.network.head == "average"
    assert set(zoo.columns["epoch"].tolist()) == {0, 86}
    assert np.allclose(zoo.columns["weight_decay"], 1e-4)


def _by_layer(state):
    return {name.removeprefix("sequential/"): tensor for name, tensor in state.items()}


def test_each_architecture_of_the_wild_park_becomes_a_zoo(tmp_path):
    expected = written.wild_park(tmp_path / "source")
    own = settings(tmp_path / "source", "wild_park", network=None, score=("test",))
    zoos = zoos_of(own, "park")
    assert list(zoos) == ["park-1-4-4-4_k3-3-3_relu-tanh-relu_rxx0", "park-1-4-8_k3-5_gelu"]
    made = [import_zoo(each, tmp_path, name=name) for name, each in zoos.items()]
    assert [zoo.facts.network.kind for zoo in made] == ["none", "cnn"]
    for zoo, odd in zip(made, (1, 0), strict=True):
        hold_rows(zoo, {n: t for i, (n, t) in enumerate(expected.items()) if i % 2 == odd})
    told = made[1].columns["given_test_accuracy"]
    assert np.allclose(np.sort(told), 0.2 + np.arange(0, 12, 2) / 100)
    with pytest.raises(ConfigError, match="2 architectures, and a zoo has one"):
        import_zoo(own, tmp_path, name="mixed")


@pytest.mark.parametrize("kind", [kind for kind in IMPORTERS if kind != "pdiff_data"])
def test_a_folder_without_networks_is_refused(kind, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"0 networks|lacks weights.npy"):
        import_zoo(settings(tmp_path / "empty", kind), tmp_path, name="zoo")
    assert not (tmp_path / "zoos").exists()


def test_a_pickled_module_is_read_only_where_it_is_trusted(tmp_path):
    written.pdiff_data(tmp_path / "source")
    with pytest.raises(ConfigError, match=r"--trust-pickle .*data\.pt"):
        import_zoo(settings(tmp_path / "source", "pdiff_data"), tmp_path, name="zoo")
