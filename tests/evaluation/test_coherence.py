"""Layers exchanged among networks: whose layer stands where, and what is left of accuracies.

Against networks put together by hand, and sets whose answer is known: equal networks lose nothing.
"""

import itertools

import numpy as np
import pytest
import torch

from dwf.evaluation.config import EvaluateConfig
from dwf.evaluation.measure.coherence import (
    MOST_EXCHANGED,
    exchange_layers,
    layers_of,
    measure_coherence,
)
from dwf.evaluation.stage import evaluate
from dwf.networks.config import CNNConfig
from dwf.networks.functional import build_network, score_networks
from dwf.randomness import numpy_stream
from dwf.zoo.layout import Layout

QUICK = {"noise": (0.03,), "averages": (2,), "count": 6}


def test_a_layer_is_a_weight_and_what_follows_it():
    config = CNNConfig(channels=(3, 4), input=(1, 8, 8), norm="batch", head="average")
    layout = Layout.of(build_network(config))
    spans = layers_of(layout)
    assert spans[0][0] == 0 and spans[-1][1] == layout.size
    assert all(one[1] == other[0] for one, other in itertools.pairwise(spans))
    for start, stop in spans:
        roles = [e.role for e in layout.entries if start <= e.offset and e.stop <= stop]
        assert roles[0] == "weight" and roles.count("weight") == 1


def test_each_layer_comes_whole_from_the_network_that_the_stream_names(zoo, monkeypatch):
    rows = zoo.rows("train", "last")
    monkeypatch.setattr("dwf.evaluation.measure.coherence._BLOCK_BYTES", 4 * zoo.layout.size * 7)
    blocks = [*exchange_layers(zoo, rows, seed=3)]
    assert len(blocks[0]) == 7
    made_SD, own_SD = np.concatenate(blocks), zoo.read(rows)
    givers = []
    for layer, (start, stop) in enumerate(layers_of(zoo.layout)):
        order = numpy_stream(3, "exchanged layers", layer).permutation(len(rows))
        assert np.array_equal(made_SD[:, start:stop], own_SD[order, start:stop])
        givers.append(tuple(order))
    assert len(set(givers)) == len(givers) == 2


def test_what_is_left_is_counted_above_chance(zoo):
    rows = zoo.rows("train", "last")
    given = {"chance": 0.1, "seed": 0}

    def found(accuracy, after):
        return measure_coherence(
            zoo,
            rows,
            accuracy_S=np.array(accuracy),
            score=lambda weights_BD: np.full(len(weights_BD), after),
            **given,
        )

    spread = np.linspace(0.8, 1.0, len(rows))
    assert found(spread, 0.5)["left"] == pytest.approx(0.4 / 0.8)
    assert found(spread, 0.9)["left"] == pytest.approx(1)
    assert found(spread - 0.8, 0.5)["left"] is None  # no better than chance
    assert found(spread, 0.5)["n"] == len(rows) < MOST_EXCHANGED
    assert measure_coherence(zoo, rows[:1], accuracy_S=spread[:1], score=None, **given) == {}


def test_at_most_so_many_are_exchanged(zoo, monkeypatch):
    monkeypatch.setattr("dwf.evaluation.measure.coherence.MOST_EXCHANGED", 5)
    rows, seen = zoo.rows("train", "last"), []

    def score(weights_BD):
        seen.append(len(weights_BD))
        return np.full(len(weights_BD), 0.5)

    accuracy_S = np.linspace(0.5, 0.9, len(rows))
    told = measure_coherence(zoo, rows, accuracy_S=accuracy_S, chance=0.1, seed=0, score=score)
    chosen = np.sort(numpy_stream(0, "exchanged networks").permutation(len(rows))[:5])
    assert sum(seen) == told["n"] == 5
    assert told["before"] == pytest.approx(accuracy_S[chosen].mean())


def test_a_report_tells_of_samples_beside_the_originals(zoo, write_samples, no_figures):
    """Equal networks lose nothing; the originals' figure is scored by hand."""
    rows = zoo.rows("train", "last")
    equal = write_samples("equal", zoo.read(rows[:1]).repeat(6, 0))
    config = EvaluateConfig(zoo.name, (equal.name,), **QUICK)
    report = evaluate(config, zoo.path.parent.parent, name="r")
    (samples,), (originals,) = report.of("samples"), report.of("originals")
    assert samples.summary["exchanged"]["left"] == pytest.approx(1)
    told = originals.summary["exchanged"]
    weights_SD = np.concatenate([*exchange_layers(zoo, rows, seed=config.seed)])
    data = zoo.load_data()
    state = zoo.layout.unflatten(torch.from_numpy(weights_SD))
    scores = score_networks(zoo.build_network(), state, data=data, part=data.test)
    assert told["after"] == pytest.approx(scores.accuracy_N.mean(), abs=1e-12)
    assert told["before"] == pytest.approx(originals.accuracy["mean"])
    assert told["left"] < 0.9, "trained in no common frame, layers do not fit each other"
    place = report.columns.index("exchanged")
    cells = {one.title: row[place] for one, row in zip(report.sets, report.table, strict=True)}
    assert cells[samples.title] == "100.0 % of 6"
    assert cells[originals.title] == f"{100 * told['left']:.1f} % of 30"
    assert {cells[one.title] for one in report.sets if one.is_baseline} == {""}
