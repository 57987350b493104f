"""Learnt probes: gradients against one network under autograd, invariance, a planted property."""

import numpy as np
import pytest
import torch

from dwf.errors import ConfigError, ShapeMismatch
from dwf.networks.config import CNNConfig, MLPConfig, UnknownConfig
from dwf.predictors.config import ProbesConfig
from dwf.predictors.predictor import Predictor
from dwf.predictors.probes import Probes, ProbesReader, Probing
from dwf.predictors.reading_config import ProbingConfig
from dwf.run_folder import RunPart
from dwf.training.config import LoopConfig
from tests.predictors.networks import examples_of, first_class, moved, random_zoo, spread
from tests.zoos import facts_of, write_rows

IMAGE = (1, 6, 6)
MLP, TANH = MLPConfig((36, 12, 4)), MLPConfig((36, 10, 8, 4), activation="tanh")
NORMED = CNNConfig(channels=(4, 6), input=IMAGE, norm="batch", classes=4)


def settings(steps=150, **told) -> ProbesConfig:
    training = LoopConfig(steps=steps, batch_size=16, learning_rate=3e-3, validate_every=50)
    return ProbesConfig(training=training, probing=ProbingConfig(count=16, latent=8), **told)


@pytest.fixture(scope="module")
def zoos(tmp_path_factory):
    """Relu and tanh MLPs of other depth, CNNs with BatchNorm: one input shape, four classes."""
    folder = tmp_path_factory.mktemp("zoos")
    networks = {"relu": MLP, "tanh": TANH, "norm": NORMED}
    return {
        name: random_zoo(folder / name, network, count=96, seed=i, shape=IMAGE)
        for i, (name, network) in enumerate(networks.items())
    }


def fitted(zoos, folder, **told) -> Probes:
    probes = Probes(settings(**told))
    train = examples_of(*zoos, planted=first_class)
    probes.fit(train, train, run=RunPart(folder / "run"), seed=0)
    return probes


@pytest.fixture(scope="module")
def all_of_them(zoos, tmp_path_factory):
    return fitted(zoos.values(), tmp_path_factory.mktemp("all"), steps=20)


@pytest.mark.parametrize("name", ["relu", "tanh", "norm"])
@pytest.mark.parametrize("responses", ["logits", "probabilities", "both"])
def test_gradients_to_the_probes_are_those_of_networks_one_by_one(zoos, name, responses):
    zoo = zoos[name]
    reader = ProbesReader(
        ProbingConfig(count=5, latent=3, responses=responses), torch.device("cpu")
    )
    reader.shape, reader.classes = zoo.input_shape, 4
    probing = reader.new_module()
    vectors = probing(reader.inputs([(zoo, np.arange(7))]))
    assert vectors.shape == (7, probing.size)
    (vectors**2).sum().backward()
    found = {name: p.grad.clone() for name, p in probing.named_parameters()}

    probing.zero_grad()
    each = []
    for row in range(7):
        network = zoo.network(row)
        logits_QK = network(probing.probes())
        parts = []
        if responses != "probabilities":
            parts.append((8 * logits_QK / (8 + abs(logits_QK))).T.flatten())
        if responses != "logits":
            parts.append((logits_QK - logits_QK.logsumexp(1, keepdim=True)).exp().T.flatten())
        each.append(torch.cat(parts))
    torch.testing.assert_close(vectors, torch.stack(each), rtol=1e-4, atol=1e-5)
    (torch.stack(each) ** 2).sum().backward()
    for name, parameter in probing.named_parameters():
        size = parameter.grad.abs().max().item()
        torch.testing.assert_close(found[name], parameter.grad, rtol=0, atol=1e-4 * size)


def test_probes_of_random_codes_are_as_large_as_images():
    probing = Probing(ProbingConfig(count=400, width=256), IMAGE, classes=4)
    assert probing.probes().shape == (400, *IMAGE)
    assert 0.7 < probing.probes().std() < 1.4


def test_a_planted_property_is_learnt_far_better_than_by_the_constant(tmp_path):
    def zoos_of(what, count, seed):
        return [
            random_zoo(tmp_path / f"{what}-{i}", one, count=count, seed=seed + i, shape=IMAGE)
            for i, one in enumerate((MLP, TANH))
        ]

    probes = fitted(zoos_of("train", 400, 0), tmp_path, steps=250)
    for fresh in zoos_of("test", 60, 10):
        test = examples_of(fresh, planted=first_class)
        error = np.sqrt(np.square(probes.predict(test.sources) - test.values_NP).mean())
        assert error < 0.6 * spread(test.values_NP[:, 0])


def test_no_symmetry_moves_a_prediction(zoos, all_of_them, tmp_path):
    assert all_of_them.config.invariances == {"permutations", "scales", "signs"}
    for name, zoo in zoos.items():
        said = all_of_them.predict([(zoo, np.arange(len(zoo)))])
        other = moved(zoo, tmp_path / name)
        assert not np.array_equal(other.read(), zoo.read())
        again = all_of_them.predict([(other, np.arange(len(zoo)))])
        assert np.abs(again - said).max() / all_of_them.targets.std_P.min() < 1e-5


def test_one_batch_of_several_layouts_comes_back_in_order(zoos, all_of_them, tmp_path):
    sources = [(zoo, np.arange(5)) for zoo in zoos.values()]
    together = all_of_them.module(all_of_them.inputs(sources))
    alone = [all_of_them.module(all_of_them.inputs([source])) for source in sources]
    torch.testing.assert_close(together, torch.cat(alone))
    all_of_them.save(tmp_path)
    again = Predictor.load(tmp_path)
    np.testing.assert_array_equal(again.predict(sources), all_of_them.predict(sources))


def test_other_inputs_or_classes_and_unknown_networks_are_refused(zoos, tmp_path):
    probes = fitted([zoos["relu"]], tmp_path, steps=2)
    other = random_zoo(tmp_path / "other", MLPConfig((36, 12, 5)), count=2, shape=IMAGE)
    with pytest.raises(ShapeMismatch, match=r"answer 5 classes, .* \[1, 6, 6\] and 4"):
        probes.predict([(other, np.arange(2))])
    bare = write_rows(tmp_path / "bare", facts_of(other.layout, UnknownConfig()), other.read())
    with pytest.raises(ConfigError, match=r"bare was imported without its network, .* statistics"):
        probes.predict([(bare, np.arange(2))])
