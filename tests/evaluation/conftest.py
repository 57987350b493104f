"""Two small zoos on the digits: trained networks, and samples made from them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from dwf.datasets.config import DataConfig
from dwf.datasets.load import load_dataset
from dwf.evaluation.report.figures import STYLE
from dwf.generators.learning import origin_facts
from dwf.networks.config import CNNConfig, MLPConfig
from dwf.networks.functional import build_network, score_networks
from dwf.randomness import seeded
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo, write_zoo
from tests.zoos import bare_facts, facts_of, sampled

CONFIG, DATA = MLPConfig((64, 8, 10)), DataConfig(kind="digits")
NUM = 60
SPLIT = np.array(["train"] * 30 + ["val"] * 5 + ["test"] * 25)
BATCHNORM = CNNConfig(
    channels=(4, 6), input=(1, 8, 8), norm="batch", pools=2, paddings=1, head="average", bias=False
)
BATCHNORM_SPLIT = np.array(["train"] * 8 + ["val"] + ["test"] * 3)


def train(epochs=12, num=NUM, *, seed=0):
    """Weights after the first and the last epoch, all networks at once: [2, N, D]."""
    data = load_dataset(DATA)
    with seeded(seed, "evaluation tests"):
        networks = [build_network(CONFIG) for _ in range(num)]
        layout = Layout.of(networks[0])
        weights_ND = torch.stack([layout.flatten(one.state_dict()) for one in networks])
        weights_ND.requires_grad_()
        optimizer, kept = torch.optim.Adam([weights_ND], lr=0.01), []
        for _ in range(epochs):
            for positions in torch.randperm(len(data.train)).split(64):
                images, labels = data.train.batch(positions)
                state = layout.unflatten(weights_ND)
                logits_NBK = networks[0].run_stacked(state, data.prepare(images))
                labels_NB = labels.expand(num, -1)
                loss = cross_entropy(logits_NBK.transpose(1, 2), labels_NB) * num
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            kept.append(weights_ND.detach().numpy().copy())
    return layout, np.stack([kept[0], kept[-1]])


@pytest.fixture(autouse=True)
def coarse_figures(monkeypatch):
    """Figures of few pixels: drawn and written like all others, in less time."""
    monkeypatch.setitem(STYLE, "savefig.dpi", 20)


@pytest.fixture
def no_figures(monkeypatch):
    """Reports without figures, two thirds of their time; `test_stage.py` has them drawn."""
    monkeypatch.setattr("dwf.evaluation.stage.draw_figures", lambda *_, **__: {})


@pytest.fixture(scope="session")
def trained():
    """(layout, weights [2, N, D], accuracies on val and test [2, N])."""
    layout, weights_END = train()
    data, network = load_dataset(DATA), build_network(CONFIG)
    states = [layout.unflatten(torch.from_numpy(weights_ND)) for weights_ND in weights_END]
    accuracies = {
        f"{name}_accuracy": np.stack(
            [score_networks(network, state, data=data, part=part).accuracy_N for state in states]
        )
        for name, part in (("val", data.val), ("test", data.test))
    }
    return layout, weights_END, accuracies


@pytest.fixture(scope="session")
def fresh_rows() -> np.ndarray:
    """Sixty networks trained as those of the zoo, from another seed."""
    return train(seed=1)[1][1]


@pytest.fixture
def zoo(trained, tmp_path) -> Zoo:
    """A zoo of 30 training, 5 validation and 25 test networks at two epochs."""
    layout, weights_END, accuracies = trained
    columns = {
        "network": np.repeat(np.arange(NUM) + 100, 2),
        "epoch": np.tile([1, 12], NUM),
        "split": np.repeat(SPLIT, 2),
    }
    columns |= {name: values_EN.T.reshape(-1) for name, values_EN in accuracies.items()}
    rows_ND = weights_END.transpose(1, 0, 2).reshape(2 * NUM, -1)
    facts = facts_of(layout, CONFIG, data=DATA)
    return write_zoo(tmp_path / "zoos" / "z", facts, num_rows=2 * NUM, blocks=[(columns, rows_ND)])


@pytest.fixture
def write_samples(zoo):
    """Write a zoo of generated networks: `write_samples(name, weights_SD) -> Zoo`."""

    def write(name: str, weights_SD: np.ndarray, asked=None, **told) -> Zoo:
        num = len(weights_SD)
        columns = {
            "network": np.arange(num),
            "seed": np.arange(num),
            "epoch": np.zeros(num, np.int64),
            "split": np.full(num, "sample"),
        }
        asked = asked or told.get("condition") or {}
        columns |= {f"asked_{key}": np.resize(value, num) for key, value in asked.items()}
        origin = {"zoo": zoo.name, "zoo_fingerprint": origin_facts(zoo, 0)["fingerprint"]}
        facts = replace(bare_facts(zoo), provenance=sampled(**origin | told))
        block = (columns, weights_SD.astype(np.float32))
        return write_zoo(zoo.path.parent / name, facts, num_rows=num, blocks=[block])

    return write


@pytest.fixture(scope="session")
def batchnorm_networks() -> tuple[Layout, np.ndarray]:
    """Layout and weights of twelve networks that know the digits a little."""
    data, rows = load_dataset(DATA), []
    for number in range(len(BATCHNORM_SPLIT)):
        with seeded(number, "batchnorm tests"):
            network = build_network(BATCHNORM).train()
            optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
            for _ in range(4):
                for positions in torch.randperm(len(data.train)).split(100):
                    images, labels = data.train.batch(positions)
                    loss = cross_entropy(network(data.prepare(images)), labels)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
        rows.append(Layout.of(network).flatten(network.state_dict()))
    return Layout.of(network), torch.stack(rows).numpy()


@pytest.fixture
def write_batchnorm(batchnorm_networks, tmp_path):
    """Write a zoo of such networks: `write(name, weights_ND, batchnorm, split) -> Zoo`."""
    layout, _ = batchnorm_networks

    def write(name, weights_ND, batchnorm="trained", split=None, **more) -> Zoo:
        num = len(weights_ND)
        columns = {
            "network": np.arange(num),
            "epoch": np.full(num, 4),
            "split": np.full(num, "sample") if split is None else split,
        }
        columns |= {} if batchnorm is None else {"batchnorm": np.full(num, batchnorm)}
        blocks = [(columns | more, weights_ND.astype(np.float32))]
        facts = facts_of(layout, BATCHNORM, data=DATA)
        return write_zoo(tmp_path / "zoos" / name, facts, num_rows=num, blocks=blocks)

    return write


@pytest.fixture
def batchnorm_zoo(batchnorm_networks, write_batchnorm) -> Zoo:
    """A zoo of these twelve: 8 training networks, 1 for validation, 3 test networks."""
    layout, weights_ND = batchnorm_networks
    data, state = load_dataset(DATA), layout.unflatten(torch.from_numpy(weights_ND))
    network = build_network(BATCHNORM)
    accuracies = {
        f"{name}_accuracy": score_networks(network, state, data=data, part=part).accuracy_N
        for name, part in (("val", data.val), ("test", data.test))
    }
    return write_batchnorm("z", weights_ND, split=BATCHNORM_SPLIT, **accuracies)
