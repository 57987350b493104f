"""How much closer networks came, against sums done by hand."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from dwf.align.report import _draw_pairs, compare_pairs, print_report
from dwf.datasets.config import DataConfig
from dwf.datasets.dataset import Dataset, Part
from dwf.datasets.load import load_dataset
from dwf.networks.batchnorm import recalibrate
from dwf.networks.config import CNNConfig
from dwf.networks.functional import build_network, score_networks
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo, write_zoo
from tests.zoos import facts_of


@pytest.fixture
def validation(monkeypatch):
    """A tiny dataset in place of the zoos' own."""
    generator = torch.Generator().manual_seed(0)
    part = Part(
        torch.rand(50, 64, generator=generator),
        torch.randint(10, (50,), generator=generator),
        index=torch.arange(50),
    )
    nothing = Part(part.images, part.labels, index=torch.arange(0))
    data = Dataset(nothing, part, test=nothing, num_classes=10, scale=torch.tensor(1.0), shift=None)
    monkeypatch.setattr(Zoo, "load_data", lambda self: data)
    return part


def loss(zoo, weights_D, part):
    state = zoo.layout.unflatten(torch.from_numpy(weights_D))
    logits = torch.func.functional_call(zoo.build_network(), state, (part.images,))
    return torch.nn.functional.cross_entropy(logits, part.labels).item()


def test_all_pairs_of_a_small_zoo(make_zoo, validation, capsys):
    zoo = make_zoo(count=4)
    other = make_zoo(count=4, name="other", seed=1)
    report = compare_pairs(zoo, other, num_pairs=10, seed=0)
    assert report["pairs"] == 6
    pairs = [(i, j) for i in range(4) for j in range(i)]
    for when, of in (("before", zoo), ("after", other)):
        w = of.read()
        distance = np.mean([np.linalg.norm(w[i] - w[j]) for i, j in pairs])
        assert report["pairwise_l2"][when] == pytest.approx(distance, rel=1e-5)
    w, ends = zoo.read(), [loss(zoo, row, part=validation) for row in zoo.read()]
    barrier = np.mean(
        [loss(zoo, (w[i] + w[j]) / 2, part=validation) - (ends[i] + ends[j]) / 2 for i, j in pairs]
    )
    assert report["loss_barrier"]["before"] == pytest.approx(barrier, rel=1e-4)
    print_report(report | {"networks": 4})
    assert "loss barrier" in capsys.readouterr().out


def test_identical_networks_have_no_barrier(make_zoo, validation):
    zoo = make_zoo(count=3)
    zoo.read = lambda rows, **_: np.repeat(np.float32([[0.1]]), len(rows), 0).repeat(1210, 1)
    report = compare_pairs(zoo, zoo, num_pairs=3, seed=0)
    assert report["loss_barrier"]["after"] == pytest.approx(0, abs=1e-6)
    assert report["pairwise_l2"]["after"] == 0


def test_pairs_are_drawn_of_two_different_networks_the_same_every_time():
    pairs_P2 = _draw_pairs(1000, 200, seed=0)
    assert pairs_P2.shape == (200, 2)
    assert (pairs_P2[:, 0] != pairs_P2[:, 1]).all()
    assert pairs_P2.min() >= 0 and pairs_P2.max() < 1000
    assert np.array_equal(pairs_P2, _draw_pairs(1000, 200, seed=0))
    assert not np.array_equal(pairs_P2, _draw_pairs(1000, 200, seed=1))


def test_no_pairs(make_zoo):
    assert compare_pairs(make_zoo(count=1), make_zoo(count=1, name="b"), num_pairs=8, seed=0) == {
        "pairs": 0
    }
    assert compare_pairs(make_zoo(count=9), make_zoo(count=9, name="b"), num_pairs=0, seed=0) == {
        "pairs": 0
    }


@pytest.mark.parametrize("statistics", ["trained", "template"])
def test_midpoints_and_drawn_networks_have_statistics_of_their_own(
    make_zoo, monkeypatch, statistics
):
    """Against a loop over pairs that measures them on the same images in training mode."""
    config = CNNConfig(input=(1, 8, 8), channels=(4,), norm="batch", head="average")
    network = build_network(config)
    layout = Layout.of(network)
    rng = np.random.default_rng(0)
    weights_ND = rng.standard_normal((3, layout.size)).astype(np.float32)
    for name, view in layout.unflatten(weights_ND).items():
        if name.endswith("running_var"):
            view[...] = rng.uniform(0.5, 2, view.shape)
    columns = {"network": np.arange(3), "epoch": np.ones(3, np.int32)}
    columns["batchnorm"] = np.full(3, statistics)
    path = make_zoo(count=1).path.parent / "conv"
    zoo = write_zoo(path, facts_of(layout, config), num_rows=3, blocks=[(columns, weights_ND)])
    data = load_dataset(DataConfig("digits"))
    data = replace(data, train=some(data.train, 100), val=some(data.val, 50))
    monkeypatch.setattr(Zoo, "load_data", lambda self: data)

    def loss_of(weights_D, anew):
        state = layout.unflatten(torch.from_numpy(weights_D)[None])
        state = recalibrate(network, state, data=data, num_images=100) if anew else state
        return score_networks(network, state, data=data, part=data.val).loss_N[0]

    pairs, drawn = list(itertools.combinations(weights_ND, 2)), statistics == "template"
    barrier = np.mean(
        [loss_of((a + b) / 2, True) - (loss_of(a, drawn) + loss_of(b, drawn)) / 2 for a, b in pairs]
    )
    distance = np.mean([np.linalg.norm(layout.learnt(a - b)) for a, b in pairs])
    report = compare_pairs(zoo, zoo, num_pairs=3, seed=0)
    assert report["loss_barrier"]["after"] == pytest.approx(barrier, rel=1e-5)
    assert report["pairwise_l2"]["after"] == pytest.approx(distance, rel=1e-5)


def some(part, count):
    return Part(part.images, part.labels, index=part.index[:count])
