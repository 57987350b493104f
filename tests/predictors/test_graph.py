"""Messages along weights: invariance under traced groups, widths and layouts side by side.

Rounds are held to sums over single units and weights, the gauge to networks whose units were
scaled and turned by known factors.
"""

import numpy as np
import pytest
import torch
from torch.nn.functional import layer_norm, silu

from dwf.align.symmetry import zoo_symmetry
from dwf.errors import ConfigError, ShapeMismatch
from dwf.networks.config import CifarResNetConfig, CNNConfig, MLPConfig
from dwf.predictors.config import GraphConfig
from dwf.predictors.gauge import Gauge
from dwf.predictors.graph import Graph, _Round
from dwf.predictors.predictor import Predictor
from dwf.predictors.reading_config import MessagesConfig
from dwf.run_folder import RunPart
from dwf.training.config import LoopConfig
from tests.predictors.networks import examples_of, moved, random_zoo, spread

IMAGE = (1, 6, 6)
NETWORKS = {
    "narrow": MLPConfig((36, 8, 6, 4)),
    "wide": MLPConfig((36, 24, 16, 4)),
    "tanh": MLPConfig((36, 10, 9, 4), activation="tanh"),
    "cnn": CNNConfig(channels=(4, 6), input=IMAGE, classes=4),
    "norm": CNNConfig(channels=(4, 6), input=IMAGE, norm="batch", hidden=(5,), classes=4),
}


def settings(steps=150, gauge="fixed") -> GraphConfig:
    training = LoopConfig(steps=steps, batch_size=16, learning_rate=3e-3, validate_every=50)
    messages = MessagesConfig(width=24, rounds=2, vector=32, gauge=gauge)
    return GraphConfig(messages=messages, training=training)


def zoo_like(folder, name, *, count, seed=0):
    return random_zoo(folder, NETWORKS[name], count=count, seed=seed, shape=IMAGE)


@pytest.fixture(scope="module")
def zoos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoos")
    return {
        name: zoo_like(folder / name, name, count=96, seed=i) for i, name in enumerate(NETWORKS)
    }


def fitted(zoos, folder, **told) -> Graph:
    graph = Graph(settings(**told))
    train = examples_of(*zoos)
    graph.fit(train, train, run=RunPart(folder / "run"), seed=0)
    return graph


@pytest.fixture(scope="module")
def all_of_them(zoos, tmp_path_factory):
    return fitted(zoos.values(), tmp_path_factory.mktemp("all"), steps=20)


def test_a_round_is_what_loops_over_units_and_weights_give():
    torch.manual_seed(0)
    one, width = _Round(6), 6
    nodes = [torch.randn(2, size, width) for size in (4, 3)]
    edges = [torch.randn(2, 3, 4, width)]
    moved_nodes, moved_edges = one(nodes, edges)
    units = [layer_norm(x, (width,), one.norm.weight, one.norm.bias) for x in nodes]
    from_source, from_target = one.of_ends.weight.chunk(2)
    source_bias, target_bias = one.of_ends.bias.chunk(2)
    for b in range(2):
        said = torch.zeros(3, 4, width)
        for u in range(3):
            for s in range(4):
                said[u, s] = silu(
                    one.of_edge(edges[0][b, u, s])
                    + (from_source @ units[0][b, s] + source_bias)
                    + (from_target @ units[1][b, u] + target_bias)
                )
                expected = edges[0][b, u, s] + one.update(said[u, s])
                torch.testing.assert_close(moved_edges[0][b, u, s], expected)
        for s in range(4):
            heard = torch.cat([units[0][b, s], torch.zeros(width), said[:, s].mean(0)])
            torch.testing.assert_close(moved_nodes[0][b, s], nodes[0][b, s] + one.perceptron(heard))
        for u in range(3):
            heard = torch.cat([units[1][b, u], said[u].mean(0), torch.zeros(width)])
            torch.testing.assert_close(moved_nodes[1][b, u], nodes[1][b, u] + one.perceptron(heard))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gauge_is_one_for_all_scales_and_signs(zoos, name, tmp_path):
    zoo, rows = zoos[name], np.arange(20)
    other = moved(zoo, tmp_path, how=("scales", "signs"))
    gauges = [Gauge(each, zoo_symmetry(each)) for each in (zoo, other)]
    one, two = (gauge.fixed(rows) for gauge in gauges)
    assert (torch.from_numpy(other.read(rows)) - torch.from_numpy(zoo.read(rows))).abs().max() > 0.1
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gauges[0].fixed(rows[5:9]), one[5:9], rtol=0, atol=0)


def test_a_planted_property_is_learnt_far_better_than_by_the_constant(zoos, tmp_path):
    graph = fitted([zoos["narrow"], zoos["tanh"]], tmp_path, steps=150)
    for i, name in enumerate(("narrow", "tanh", "wide")):  # whose width it never saw
        fresh = zoo_like(tmp_path / name, name, count=60, seed=10 + i)
        test = examples_of(fresh)
        error = np.sqrt(np.square(graph.predict(test.sources) - test.values_NP).mean())
        assert error < (0.7 if name == "wide" else 0.5) * spread(test.values_NP[:, 0]), name


def test_no_symmetry_moves_a_prediction(zoos, all_of_them, tmp_path):
    assert all_of_them.config.invariances == {"permutations", "scales", "signs"}
    for name, zoo in zoos.items():
        said = all_of_them.predict([(zoo, np.arange(len(zoo)))])
        again = all_of_them.predict([(moved(zoo, tmp_path / name), np.arange(len(zoo)))])
        assert np.abs(again - said).max() / all_of_them.targets.std_P.min() < 1e-5, name


def test_kept_scales_move_it_and_orders_do_not(zoos, tmp_path):
    zoo = zoos["narrow"]
    graph = fitted([zoo], tmp_path, steps=20, gauge="kept")
    assert graph.config.invariances == {"permutations"}
    rows = np.arange(40)
    said = graph.predict([(zoo, rows)])
    for how, most in (("permutations", 1e-5), ("scales", np.inf)):
        other = moved(zoo, tmp_path / how, how=(how,))
        apart = np.abs(graph.predict([(other, rows)]) - said).max() / graph.targets.std_P.min()
        assert apart < most
    assert apart > 1e-2


def test_one_batch_of_several_layouts_comes_back_in_order(zoos, all_of_them, tmp_path):
    sources = [(zoo, np.arange(5)) for zoo in zoos.values()]
    together = all_of_them.module(all_of_them.inputs(sources))
    alone = [all_of_them.module(all_of_them.inputs([source])) for source in sources]
    torch.testing.assert_close(together, torch.cat(alone))
    all_of_them.save(tmp_path)
    again = Predictor.load(tmp_path)
    np.testing.assert_array_equal(again.predict(sources), all_of_them.predict(sources))


def test_widths_share_their_maps(zoos, tmp_path):
    one = fitted([zoos["narrow"]], tmp_path / "one", steps=1)
    both = fitted([zoos["narrow"], zoos["wide"]], tmp_path / "both", steps=1)
    count = [sum(p.numel() for p in each.module.parameters()) for each in (one, both)]
    assert count[0] == count[1]


def test_layouts_that_it_does_not_know_are_refused(zoos, tmp_path):
    graph = fitted([zoos["narrow"]], tmp_path, steps=2)
    with pytest.raises(ShapeMismatch, match=r"convs.0.weight is a layer 1 of 3 .* learnt of layer"):
        graph.predict([(zoos["cnn"], np.arange(2))])
    residual = random_zoo(
        tmp_path / "residual", CifarResNetConfig(depth=8, width=2, channels=1), count=16
    )
    with pytest.raises(ConfigError, match=r"no chain of linear layers .* choose probes"):
        graph.predict([(residual, np.arange(2))])
