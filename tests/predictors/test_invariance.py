"""What changes with the order, scale and sign of units, and what does not."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from dwf.align.symmetry import zoo_symmetry
from dwf.networks.config import CNNConfig, MLPConfig
from dwf.predictors.config import PredictorSettings
from dwf.predictors.invariance import TOLERANCE, changed_networks, largest_changes
from dwf.predictors.predictor import Predictor

UNIT = np.array([2.0])


@dataclass(frozen=True)
class TestConfig(PredictorSettings):
    __test__ = False
    claims: ClassVar[frozenset] = frozenset()

    @property
    def invariances(self):
        return self.claims


@dataclass(frozen=True)
class ClaimsAll(TestConfig):
    claims = frozenset(("permutations", "scales", "signs"))


class Told(Predictor):
    """Says of each network what a function of its weights, or of its logits, is."""

    def __init__(self, say, config=None):
        super().__init__(config or TestConfig())
        self.say = say

    def predict(self, sources):
        return np.concatenate([self.say(zoo, rows) for zoo, rows in sources])[:, None]


def first_weight(zoo, rows):
    return zoo.read(rows)[:, 0].astype(float)


def sum_of_squares(zoo, rows):
    return np.square(zoo.read(rows).astype(float)).sum(1)


def logit(zoo, rows):
    state = zoo.layout.unflatten(torch.from_numpy(zoo.read(rows)).double())
    images = torch.randn(1, *zoo.input_shape, generator=torch.Generator().manual_seed(0)).double()
    network = zoo.build_network().double()
    call = torch.func.functional_call
    logits = torch.func.vmap(lambda each: call(network, each, images))(state)
    return logits[:, 0, 0].detach().numpy()


def column(zoo, rows):
    return zoo.columns["network"][rows].astype(float)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("convolves", [False, True])
def test_changed_networks_compute_what_they_computed(make_zoo, activation, convolves):
    network = MLPConfig((64, 7, 5, 10), activation=activation)
    if convolves:
        network = CNNConfig(channels=(1, 3, 4), activation=activation)
    zoo = make_zoo(count=6, network=network)
    rows, groups = np.arange(6), zoo_symmetry(zoo)
    found = largest_changes(Told(logit), (zoo, rows), unit_P=UNIT)
    assert set(found) == {"permutations", "scales" if activation == "relu" else "signs"}
    assert all(each["largest"] < 1e-9 for each in found.values())
    weights = torch.from_numpy(zoo.read(rows))
    before = weights.clone()
    for _, changed in changed_networks(weights, zoo.layout, groups=groups, seed=0):
        assert (changed != before).any(1).all()  # of every network some numbers moved
    assert torch.equal(weights, before)


def test_each_symmetry_is_found_failing_or_holding(make_zoo):
    zoo = make_zoo(count=9, network=MLPConfig((64, 7, 10)))
    source = (zoo, np.array([8, 1, 3]))
    flat = largest_changes(Told(first_weight), source, unit_P=UNIT)
    assert all(each["largest"] > 0.01 and not each["claimed"] for each in flat.values())
    norms = largest_changes(Told(sum_of_squares, ClaimsAll()), source, unit_P=UNIT)
    assert norms["permutations"]["largest"] < TOLERANCE < norms["scales"]["largest"]
    assert norms["scales"]["claimed"]
    assert all(
        each["largest"] == 0 for each in largest_changes(Told(column), source, unit_P=UNIT).values()
    )


def test_the_change_is_in_the_unit_of_the_property(make_zoo):
    zoo = make_zoo(count=4, network=MLPConfig((64, 7, 10)))
    one, two = (
        largest_changes(Told(first_weight), (zoo, np.arange(4)), unit_P=np.array([unit]))
        for unit in (1.0, 10.0)
    )
    assert one["scales"]["largest"] == pytest.approx(10 * two["scales"]["largest"], rel=0.1)
    assert one == largest_changes(Told(first_weight), (zoo, np.arange(4)), unit_P=np.array([0.0]))
