"""Subsampling and bootstrapping of drawn networks, against brute force."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from dwf import preemption
from dwf.codecs import codes as codes_module
from dwf.codecs.config import FlatConfig
from dwf.datasets import load as loading
from dwf.datasets.config import DataConfig
from dwf.densities.config import KdeConfig
from dwf.densities.kde import Kde
from dwf.errors import ConfigError, Preempted, WorkFailed
from dwf.generators import generator as module
from dwf.generators import selection
from dwf.generators.config import BootstrapConfig, SampleConfig, SubsampleConfig
from dwf.generators.generator import Generator
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator
from dwf.networks.batchnorm import recalibrate
from dwf.networks.functional import build_network
from dwf.settings import build, parse
from dwf.zoo.store import Zoo
from tests.generators.conftest import CONVOLUTIONAL


def rank(zoo: Zoo, weights_ND: torch.Tensor) -> tuple[list[int], np.ndarray]:
    """Return (numbers of networks, the best first; their accuracies), one network at a time."""
    data, network = zoo.load_data(), zoo.build_network()
    images, labels = data.val.batch(torch.arange(len(data.val)))
    scores = []
    for number, weights_D in enumerate(weights_ND):
        network.load_state_dict(zoo.layout.unflatten(weights_D), strict=False)
        with torch.no_grad():
            logits = network(data.prepare(images))
        accuracy = (logits.argmax(1) == labels).double().mean().item()
        loss = torch.nn.functional.cross_entropy(logits.double(), labels).item()
        scores.append((-accuracy, loss, number))
    scores.sort()
    return [number for _, _, number in scores], -np.array(scores)[:, 0]


SUBSAMPLE = SampleConfig("fitted", count=4, seed=2, selection=SubsampleConfig(draws=5))


def test_the_best_are_kept(make_zoo, tmp_path, gaussian_on_weights):
    zoo = make_zoo()
    generator = fit_generator(gaussian_on_weights, tmp_path, name="fitted")
    drawn_ND = generator.sample(20, seed=2)
    order, accuracy = rank(zoo, drawn_ND)
    kept = sample_networks(SUBSAMPLE, tmp_path, name="kept")
    assert kept.columns["drawn"].tolist() == order[:4]
    np.testing.assert_array_equal(kept.read(), drawn_ND[order[:4]].numpy())
    assert kept.columns["network"].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(kept.columns["selection_accuracy"], accuracy[:4])
    told = kept.facts.sampled.selection
    assert told["val_accuracy_drawn"] == pytest.approx([accuracy.mean()])
    assert told["val_accuracy_kept"] == pytest.approx(accuracy[:4].mean())
    assert told["val_accuracy_kept"] > told["val_accuracy_drawn"][0] + 0.02
    del told["val_accuracy_drawn"], told["val_accuracy_kept"]
    counts = {"drawn": 20, "kept": 4, "drawn_per_kept": 5, "rounds": 1, "unusable": 0}
    assert told == {"kind": "subsample"} | counts


def test_blocks_change_nothing(make_zoo, tmp_path, gaussian_on_weights, monkeypatch):
    zoo = make_zoo()
    fit_generator(gaussian_on_weights, tmp_path, name="fitted")
    whole = sample_networks(SUBSAMPLE, tmp_path, name="whole")
    monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * zoo.layout.size * 3)
    parts = sample_networks(SUBSAMPLE, tmp_path, name="parts")
    for name in ("zoo.json", "shard-00000-of-00001.h5"):
        assert (whole.path / name).read_bytes() == (parts.path / name).read_bytes()


def test_test_images_are_never_looked_at(make_zoo, tmp_path, kde_on_neurons, monkeypatch):
    class Forbidden:
        def __getattr__(self, name):
            raise AssertionError(f"test images were asked for their {name}")

        __len__ = None

    load = loading.load_dataset
    forbid = lambda config: dataclasses.replace(load(config), test=Forbidden())  # noqa: E731
    monkeypatch.setattr(loading, "load_dataset", forbid)
    make_zoo()
    fit_generator(kde_on_neurons, tmp_path, name="fitted")
    with pytest.raises(AssertionError, match="asked for their index"):
        forbid(build(DataConfig, {"kind": "digits"}, source="data")).test.index  # noqa: B018
    sample_networks(SUBSAMPLE, tmp_path, name="kept")


def test_bootstrap_draws_around_the_best(make_zoo, tmp_path, kde_on_neurons):
    zoo = make_zoo(count=20)
    generator = fit_generator(kde_on_neurons, tmp_path, name="fitted")
    chosen = BootstrapConfig(draws=5, rounds=3, anchors=3)
    kept = sample_networks(
        SampleConfig("fitted", count=4, seed=2, selection=chosen), tmp_path, name="kept"
    )
    means = []
    for number in range(3):
        drawn_ND = generator.sample(20, seed=2, first=20 * number)
        order, accuracy = rank(zoo, drawn_ND)
        means.append(accuracy.mean())
        codes = generator.codec.encode(drawn_ND[order[:3]], zoo.layout)
        density = generator.density.with_anchors(codes)
        generator = Generator(generator.codec, density, origin=generator.origin)
    assert kept.columns["drawn"].tolist() == [40 + number for number in order[:4]]
    np.testing.assert_array_equal(kept.read(), drawn_ND[order[:4]].numpy())
    told = kept.facts.sampled.selection
    assert told["val_accuracy_drawn"] == pytest.approx(means)
    assert (told["drawn"], told["kept"], told["drawn_per_kept"], told["rounds"]) == (60, 4, 15, 3)


def test_anchors_on_a_disk_draw_what_those_in_memory_draw(
    make_zoo, tmp_path, kde_on_neurons, monkeypatch
):
    make_zoo()
    fit_generator(kde_on_neurons, tmp_path, name="fitted")
    chosen = BootstrapConfig(draws=3, rounds=2, anchors=3)
    config = SampleConfig("fitted", count=2, seed=2, selection=chosen)
    held = sample_networks(config, tmp_path, name="held")
    monkeypatch.setattr(codes_module, "MOST_HELD", 0)
    asked, around = [], Kde.with_anchors

    def noted(self, codes):
        asked.append(codes.is_mapped)
        return around(self, codes)

    monkeypatch.setattr(Kde, "with_anchors", noted)
    stored = sample_networks(config, tmp_path, name="stored")
    np.testing.assert_array_equal(stored.read(), held.read())
    assert asked == [True] and not list(stored.path.rglob("anchors.npy"))


def test_what_cannot_be_used_is_not_kept(make_zoo, tmp_path, gaussian_on_weights, monkeypatch):
    zoo = make_zoo()
    fit_generator(gaussian_on_weights, tmp_path, name="fitted")
    whole = sample_networks(SUBSAMPLE, tmp_path, name="whole").columns["drawn"].tolist()
    draw, broken = Generator.sample, set(whole[:2])

    def break_some(self, count, seed, *, first=0, **solver):
        weights_ND = draw(self, count, seed, first=first, **solver)
        for number in broken:
            weights_ND[number - first, 5] = float("nan")
        return weights_ND

    monkeypatch.setattr(Generator, "sample", break_some)
    kept = sample_networks(SUBSAMPLE, tmp_path, name="kept")
    assert kept.columns["drawn"].tolist()[:2] == whole[2:]
    assert kept.facts.sampled.selection["unusable"] == 2
    assert np.isfinite(kept.read()).all() and kept.layout == zoo.layout
    broken |= set(range(3, 20))
    with pytest.raises(WorkFailed, match=r"of 20 networks .* and 4 are to be kept \(not finite: 1"):
        sample_networks(SUBSAMPLE, tmp_path, name="few")
    assert not list((tmp_path / "zoos" / "few").glob("*.h5*"))


def test_of_networks_of_one_accuracy_those_of_no_loss_come_last(
    make_zoo, tmp_path, gaussian_on_weights, monkeypatch
):
    """Weights that are finite may give logits that are not."""
    make_zoo()
    fit_generator(gaussian_on_weights, tmp_path, name="fitted")
    loss_N = np.array([np.nan, 3, np.inf, 1, np.nan, 2, 9, np.nan, 4, 8])
    monkeypatch.setattr(selection.Examiner, "score", lambda *_, **__: (np.full(10, 0.5), loss_N))
    config = dataclasses.replace(SUBSAMPLE, count=5, selection=SubsampleConfig(draws=2))
    kept = sample_networks(config, tmp_path, name="kept")
    assert kept.columns["drawn"].tolist() == [3, 5, 1, 8, 9]


@pytest.mark.parametrize("batchnorm", ["template", "recalibrated"])
def test_networks_with_batchnorm_are_scored_with_statistics_of_their_own(
    convolutional, tmp_path, gaussian_on_weights, batchnorm
):
    generator = fit_generator(gaussian_on_weights, tmp_path, name="fitted")
    config = dataclasses.replace(
        SUBSAMPLE, count=2, batchnorm=batchnorm, batchnorm_images=100, selection=SubsampleConfig(3)
    )
    kept = sample_networks(config, tmp_path, name="kept")
    drawn_ND, layout = generator.sample(6, seed=2), convolutional.layout
    data = convolutional.load_data()
    state = recalibrate(
        build_network(CONVOLUTIONAL), layout.unflatten(drawn_ND), data=data, num_images=100
    )
    own_ND = layout.flatten(state)
    order, accuracy = rank(convolutional, own_ND)
    assert kept.columns["drawn"].tolist() == order[:2]
    np.testing.assert_allclose(kept.columns["selection_accuracy"], accuracy[:2])
    written_ND = own_ND if batchnorm == "recalibrated" else drawn_ND
    np.testing.assert_array_equal(kept.read(), written_ND[order[:2]].numpy())
    assert set(kept.columns["batchnorm"]) == {batchnorm}


def test_selection_stops_when_a_signal_asks(make_zoo, tmp_path, gaussian_on_weights, monkeypatch):
    make_zoo()
    fit_generator(gaussian_on_weights, tmp_path, name="fitted")
    with monkeypatch.context() as asked, pytest.raises(Preempted):
        asked.setattr(preemption, "_asked", [15])
        sample_networks(SUBSAMPLE, tmp_path, name="kept")
    assert not list((tmp_path / "zoos" / "kept").glob("*.h5*"))
    assert len(sample_networks(SUBSAMPLE, tmp_path, name="kept")) == 4


def test_what_cannot_be_selected_is_refused(make_zoo, tmp_path, gaussian_on_weights, monkeypatch):
    make_zoo()
    fit_generator(gaussian_on_weights, tmp_path, name="fitted")
    config = dataclasses.replace(SUBSAMPLE, selection=BootstrapConfig())
    with pytest.raises(ConfigError, match="density of fitted is gaussian, which has no anchors"):
        sample_networks(config, tmp_path, name="kept")
    gaussian = dataclasses.replace(gaussian_on_weights, density=KdeConfig(mode="gaussian"))
    fit_generator(gaussian, tmp_path, name="noise")
    with monkeypatch.context() as patched:
        patched.setattr(Generator, "stream", None)  # nothing is drawn before it is refused
        with pytest.raises(ConfigError, match="kde of mode gaussian, which has no anchors"):
            sample_networks(dataclasses.replace(config, generator="noise"), tmp_path, name="kept")
    with pytest.raises(ConfigError, match=r"anchors = 9: a round draws 8 networks \(draws x count"):
        data = {"kind": "bootstrap", "draws": 2, "anchors": 9}
        build(SampleConfig, {"generator": "fitted", "count": 4, "selection": data}, source="file")
    load = loading.load_dataset
    bare = lambda config: load(dataclasses.replace(config, validation=0.0))  # noqa: E731
    with monkeypatch.context() as patched:
        patched.setattr(loading, "load_dataset", bare)
        with pytest.raises(ConfigError, match="subsample' chooses by validation images"):
            sample_networks(SUBSAMPLE, tmp_path, name="kept")
    sample_networks(dataclasses.replace(SUBSAMPLE, count=2), tmp_path, name="kept")


def test_without_selection_the_zoo_says_nothing_of_it(make_zoo, tmp_path, gaussian_on_weights):
    make_zoo()
    fit_generator(gaussian_on_weights, tmp_path, name="fitted")
    drawn = sample_networks(SampleConfig("fitted", count=2), tmp_path, name="drawn")
    assert not {"drawn", "selection_accuracy"} & set(drawn.columns)
    assert not {"selection", "head"} & set(drawn.facts.to_json()["provenance"])


def test_vectors_are_bootstrapped_too(make_zoo, tmp_path, kde_on_neurons):
    make_zoo()
    density = dataclasses.replace(kde_on_neurons.density, mode="joint", relative=True)
    config = dataclasses.replace(kde_on_neurons, codec=FlatConfig(), density=density)
    fit_generator(config, tmp_path, name="fitted")
    settings = SampleConfig("fitted", count=3, selection=BootstrapConfig(draws=2, anchors=2))
    kept = sample_networks(settings, tmp_path, name="kept")
    assert len(kept) == 3 and kept.columns["drawn"].min() >= 6


PRESETS = sorted((Path(__file__).parents[2] / "configs" / "sample").glob("*.yaml"))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_every_preset_draws(preset, make_zoo, tmp_path, kde_on_neurons):
    command = next(line for line in preset.read_text().splitlines() if "launch/sample.py" in line)
    assert f"--config configs/sample/{preset.name} " in command or preset.stem == "default"
    argv = [*command.split("launch/sample.py")[1].split(), "--count", "5", "--root", str(tmp_path)]
    argv = [str(preset) if word.startswith("configs/") else word for word in argv]
    config = parse(SampleConfig, str(preset), argv=argv).config
    # A kernel density is told nothing; test_presets asks the generator that is told the dataset.
    config = dataclasses.replace(config, condition=None)
    make_zoo()
    fit_generator(kde_on_neurons, tmp_path, name=config.generator)
    drawn = sample_networks(config, tmp_path, name="drawn")
    assert len(drawn) == 5
    told = drawn.facts.sampled.selection or {"kind": "none"}
    assert told["kind"] == (preset.stem if preset.stem in ("subsample", "bootstrap") else "none")
