"""Networks looked at while a density trains, against scores of the fitted density's own samples."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dwf import ranks
from dwf.codecs.codes import Codes
from dwf.datasets.config import DataConfig
from dwf.densities import paths
from dwf.errors import ConfigError
from dwf.evaluation.stage import _curves
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.generators.generator import Generator
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator
from dwf.metrics import read_metrics
from dwf.networks.config import MLPConfig
from dwf.randomness import seed_of, torch_stream
from dwf.settings import build
from dwf.training.config import LoopComputeConfig
from dwf.zoo.config import RecipeConfig, SplitConfig, ZooConfig
from dwf.zoo.stage import train_zoo
from dwf.zoo.store import Zoo

COUNT = 6


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A root with a zoo of small MLPs on digits, some of whose images are held out."""
    root = tmp_path_factory.mktemp("looks")
    config = ZooConfig(
        network=MLPConfig((64, 4, 10)),
        data=DataConfig("digits", validation=0.2),
        count=12,
        recipe=RecipeConfig(epochs=2, batch_size=256, learning_rate=0.01),
        split=SplitConfig(val=0.2, test=0.2),
    )
    train_zoo(config, root, name="small")
    train_zoo(
        dataclasses.replace(config, data=DataConfig("digits", validation=0.0)), root, name="none"
    )
    return root


def looking(flow_on_pca: GeneratorConfig, **training) -> GeneratorConfig:
    settings = {"sample_every": 10} | training
    settings |= {"sample_count": COUNT} if settings["sample_every"] else {}
    density = flow_on_pca.density
    training = dataclasses.replace(density.training, ema=None, **settings)
    return dataclasses.replace(flow_on_pca, density=dataclasses.replace(density, training=training))


def accuracies(generator: Generator) -> np.ndarray:
    """Accuracies of the looked-at networks, by a loop over plain modules."""
    codes = generator.density.sample(COUNT, seed_of(0, "look"))
    return accuracies_of(generator, generator.codec.decode(codes, generator.layout))


def accuracies_of(generator: Generator, weights_ND: torch.Tensor) -> np.ndarray:
    data, network = generator.subject.load_data(), generator.subject.build_network()
    images, labels = data.val.batch(torch.arange(len(data.val)))
    found = []
    for weights_D in weights_ND:
        state = generator.layout.unflatten(weights_D[None])
        network.load_state_dict({name: tensor[0] for name, tensor in state.items()})
        answers = network(data.prepare(images).flatten(1)).argmax(1)
        found.append((answers == labels).float().mean().item())
    return np.array(found)


def curve(run) -> dict[int, float]:
    lines = read_metrics(run / "metrics.jsonl")
    return {line["step"]: line["sample_accuracy"] for line in lines if "sample_accuracy" in line}


def test_the_curve_ends_with_what_the_fitted_density_draws(root, flow_on_pca):
    generator = fit_generator(looking(flow_on_pca), root, name="looked")
    found = curve(root / "runs" / "looked")
    assert list(found) == [10, 20, 30]
    wanted = accuracies(generator)
    assert found[30] == pytest.approx(wanted.mean(), abs=1e-6)
    (last,) = (
        x for x in read_metrics(root / "runs" / "looked" / "metrics.jsonl") if x["step"] == 30
    )
    assert last["sample_accuracy_std"] == pytest.approx(wanted.std(), abs=1e-6)

    plain = fit_generator(looking(flow_on_pca, sample_every=0), root, name="plain")
    assert curve(root / "runs" / "plain") == {}
    for name, tensor in plain.density.module.state_dict().items():
        assert torch.equal(generator.density.module.state_dict()[name], tensor), name

    samples = sample_networks(SampleConfig("looked", count=3), root, name="looked-samples")
    curves = _curves(root, Zoo.open(root / "zoos" / "small"), [samples])
    points = curves["samples in training, generator looked"]["sample_accuracy"]
    assert points.tolist() == [[step, value] for step, value in found.items()]


def test_best_samples_keeps_the_density_that_drew_the_best_also_when_resumed(
    root, flow_on_pca, monkeypatch
):
    config = looking(flow_on_pca, keep="best_samples", validate_every=5, sample_every=5)
    generator = fit_generator(config, root, name="best")
    found = curve(root / "runs" / "best")
    assert accuracies(generator).mean() == pytest.approx(max(found.values()), abs=1e-6)

    calls, error = 0, paths.mse_loss

    def fails(*args, **kwargs):
        nonlocal calls
        calls += torch.is_grad_enabled()
        if calls == 23:
            raise KeyboardInterrupt
        return error(*args, **kwargs)

    compute = LoopComputeConfig(device="cpu", save_seconds=0.0)
    training = dataclasses.replace(config.density.training, compute=compute)
    density = dataclasses.replace(config.density, training=training)
    config = dataclasses.replace(config, density=density)
    with monkeypatch.context() as patch:
        patch.setattr(paths, "mse_loss", fails)
        with pytest.raises(KeyboardInterrupt):
            fit_generator(config, root, name="cut")
    again = fit_generator(config, root, name="cut")
    assert curve(root / "runs" / "cut") == found
    for name, tensor in generator.density.module.state_dict().items():
        assert torch.equal(again.density.module.state_dict()[name], tensor), name


def test_looks_need_validation_images(root, flow_on_pca):
    config = dataclasses.replace(looking(flow_on_pca), zoo="none")
    with pytest.raises(ConfigError, match=r"sample_every = 10 scores samples on validation images"):
        fit_generator(config, root, name="none")


class Second:
    """A communicator of the second of two ranks, whose first gets 0.5."""

    rank, size = 1, 2

    def Ibarrier(self):  # noqa: N802  MPI's name
        return SimpleNamespace(Test=lambda: True)

    def allgather(self, value):
        return [None, value]

    def bcast(self, value):
        return {"sample_accuracy": 0.5}


def test_the_first_rank_alone_builds_what_scores_for_all(root, flow_on_pca, monkeypatch):
    generator = fit_generator(looking(flow_on_pca), root, name="shared")
    monkeypatch.setattr(ranks, "_world", ranks.World(Second()))
    monkeypatch.setattr("dwf.generators.looking.Examiner", None)
    judge = generator._judge()
    assert judge(generator.density.sample(1, 0)) == {"sample_accuracy": 0.5}


def test_a_vae_is_looked_at_by_its_prior(root):
    """The last look of the codec is what a standard normal over its latents decodes to."""
    loop = {"steps": 20, "batch_size": 4, "validate_every": 10}
    loop |= {"compute": {"device": "cpu"}}
    codec = {"kind": "vae", "backbone": {"kind": "perceptron", "hidden": 8, "latent": 3}}
    prior = {"kind": "kde", "mode": "gaussian", "sigma": 1.0}
    found = {}
    for name, every in (("vae", 10), ("vae_plain", 0)):
        training = loop | ({"sample_every": every, "sample_count": COUNT} if every else {})
        data = {"zoo": "small", "codec": codec | {"training": training}, "density": prior}
        data |= {"gate": None}
        generator = fit_generator(build(GeneratorConfig, data, source="t"), root, name=name)
        found[name] = generator.codec, curve(root / "runs" / name / "codec")
    (looked, seen), (plain, none) = found.values()
    drawn_NL = torch.randn((COUNT, 3), generator=torch_stream(0, "look"))
    weights_ND = looked.decode(Codes(drawn_NL, looked.shape), looked.layout)
    assert list(seen) == [10, 20] and none == {}
    assert seen[20] == pytest.approx(accuracies_of(generator, weights_ND).mean(), abs=1e-6)
    for tensor, other in zip(looked.module.parameters(), plain.module.parameters(), strict=True):
        assert torch.equal(tensor, other)  # a look changes nothing


def test_other_codecs_draw_no_networks():
    data = {"zoo": "any", "codec": {"kind": "sane", "training": {"sample_every": 500}}}
    with pytest.raises(ConfigError, match=r"sample_every = 500: a codec sane draws no networks"):
        build(GeneratorConfig, data, source="test")
