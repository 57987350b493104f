"""Several readings in one head: what each part claims, layouts side by side, the file."""

import numpy as np
import pytest
import torch

from dwf.errors import ShapeMismatch
from dwf.networks.config import CNNConfig, MLPConfig
from dwf.predictors.combined import Combined
from dwf.predictors.config import CombinedConfig
from dwf.predictors.features import statistics
from dwf.predictors.predictor import Predictor
from dwf.predictors.reading_config import MessagesConfig, ProbingConfig
from dwf.run_folder import RunPart
from dwf.training.config import LoopConfig
from tests.predictors.networks import examples_of, moved, random_zoo

IMAGE = (1, 6, 6)
MLP, CNN = MLPConfig((36, 8, 4)), CNNConfig(channels=(4, 6), input=IMAGE, classes=4)
PARTS = [("graph", "probes", "statistics"), ("graph", "statistics"), ("graph", "probes")]


@pytest.fixture(scope="module")
def zoos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoos")
    return [
        random_zoo(folder / str(i), network, count=32, seed=i, shape=IMAGE)
        for i, network in enumerate((MLP, CNN))
    ]


def fitted(zoos, folder, parts) -> Combined:
    config = CombinedConfig(
        parts=parts,
        messages=MessagesConfig(width=16, rounds=1, vector=16),
        probing=ProbingConfig(count=8, latent=4, width=16),
        hidden=(32,),
        training=LoopConfig(steps=10, batch_size=16, validate_every=10),
    )
    combined, train = Combined(config), examples_of(*zoos)
    combined.fit(train, train, run=RunPart(folder / "run"), seed=0)
    return combined


@pytest.mark.parametrize("parts", PARTS)
def test_claims_of_all_parts_hold_and_no_more(zoos, tmp_path, parts):
    combined = fitted(zoos, tmp_path, parts)
    assert combined.config.access == ("networks" if "probes" in parts else "weights")
    sources = [(zoo, np.arange(len(zoo))) for zoo in zoos]
    said = combined.predict(sources)
    for how in ("permutations", "scales"):
        others = [
            (moved(zoo, tmp_path / f"{how}-{i}", how=(how,)), np.arange(len(zoo)))
            for i, zoo in enumerate(zoos)
        ]
        apart = np.abs(combined.predict(others) - said).max() / combined.targets.std_P.min()
        assert (apart < 1e-5) == (how in combined.config.invariances)
    combined.save(tmp_path)
    again = Predictor.load(tmp_path)
    np.testing.assert_array_equal(again.predict(sources), said)


def test_statistics_are_in_units_of_the_training_networks(zoos, tmp_path):
    combined = fitted(zoos[:1], tmp_path, ("statistics",))
    given = combined.readers["statistics"].inputs([(zoos[0], np.arange(20))])
    every = statistics(zoos[0].read(), zoos[0].layout)
    expected = np.arcsinh((every[:20] - every.mean(0)) / every.std(0))
    expected = torch.from_numpy(expected).float()  # places come in an order of their own
    torch.testing.assert_close(given.sort(1)[0], expected.sort(1)[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(ShapeMismatch, match="which none had that this predictor learnt from"):
        combined.predict([(zoos[1], np.arange(2))])


def test_parts_are_named_once():
    with pytest.raises(ValueError, match="name at least one, and each once"):
        CombinedConfig(parts=("graph", "graph"))
