"""A new head for another task: everything else stays, to the last bit."""

import dataclasses

import numpy as np
import pytest
import torch

from dwf.codecs.config import FlatConfig
from dwf.datasets.config import DataConfig
from dwf.densities.config import GaussianConfig
from dwf.errors import ConfigError, ShapeMismatch
from dwf.generators.config import GeneratorConfig, SampleConfig, SubsampleConfig
from dwf.generators.head import NewHead, new_head
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator
from dwf.networks.config import (
    CifarResNetConfig,
    CNNConfig,
    ConvNeXtConfig,
    DenseNetConfig,
    MLPConfig,
    MobileNetV2Config,
    PythonConfig,
    ResNetConfig,
    VGGConfig,
    ViTConfig,
)
from dwf.networks.functional import build_network
from dwf.trust import trust_code
from dwf.zoo.layout import Layout

HEADS = {
    MLPConfig((64, 16, 10)): {"layers.1.weight", "layers.1.bias"},
    CNNConfig((3, 4), input=(1, 8, 8), norm="batch"): {"linears.0.weight", "linears.0.bias"},
    CNNConfig((3,), input=(1, 8, 8), hidden=(5,)): {"linears.1.weight", "linears.1.bias"},
    ResNetConfig(width=4): {"fc.weight", "fc.bias"},
    CifarResNetConfig(depth=8, width=4): {"linear.weight", "linear.bias"},
    ViTConfig(image=8, patch=4, width=6, depth=1, heads=2): {
        "heads.head.weight",
        "heads.head.bias",
    },
    VGGConfig(width=2): {"classifier.0.weight", "classifier.0.bias"},
    MobileNetV2Config(width=0.1): {"classifier.1.weight", "classifier.1.bias"},
    DenseNetConfig(blocks=(1, 1), growth=4): {"classifier.weight", "classifier.bias"},
    ConvNeXtConfig(widths=(4, 6), depths=(1, 1)): {"classifier.2.weight", "classifier.2.bias"},
}


@pytest.mark.parametrize("classes", [3, 10])
@pytest.mark.parametrize("config", HEADS, ids=lambda config: config.kind)
def test_all_but_the_head_stays_as_it_was(config, classes):
    layout = Layout.of(build_network(config))
    weights_BD = torch.randn(2, layout.size, generator=torch.Generator().manual_seed(0))
    head = NewHead(layout, config, classes=classes, seed=1)
    assert set(head.names) == HEADS[config]
    assert head.layout == Layout.of(build_network(head.network))
    before = layout.unflatten(weights_BD)
    after = head.layout.unflatten(head.reset(weights_BD, np.array([4, 9])))
    for name, tensor in after.items():
        if name in head.names:
            assert tensor.shape[1] == classes
            if name.endswith("weight") and config.kind != "vit":  # a ViT's begins with zeros
                assert not torch.equal(tensor[0], tensor[1])
            if classes == 10:
                assert not torch.isclose(tensor, before[name]).any()
        else:
            assert torch.equal(tensor, before[name])
    other = head.layout.unflatten(head.reset(weights_BD[1:], np.array([9])))
    assert all(torch.equal(other[name][0], after[name][1]) for name in after)


def test_a_fresh_head_is_torchs(make_zoo):
    config = MLPConfig((64, 400, 10))
    layout = Layout.of(build_network(config))
    head = NewHead(layout, config, classes=50, seed=0)
    weight = head.layout.unflatten(head.reset(torch.zeros(1, layout.size), np.array([0])))
    numbers = weight["layers.1.weight"].flatten()
    bound = 400**-0.5  # of a uniform distribution
    assert numbers.abs().max() <= bound
    assert numbers.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)


def factory(**arguments):
    return torch.nn.Linear(8, arguments.get("num_classes", 10))


def test_a_network_of_the_users_own_says_its_number_of_classes():
    config = PythonConfig("tests.generators.test_head:factory", {"num_classes": 10})
    trust_code(config.target)
    head = NewHead(Layout.of(build_network(config)), config, classes=4, seed=0)
    assert head.network.arguments == {"num_classes": 4}
    assert head.layout.unflatten(torch.zeros(1, head.layout.size))["weight"].shape == (1, 4, 8)
    with pytest.raises(ConfigError, match="has neither classes nor num_classes"):
        dataclasses.replace(config, arguments={}).with_classes(4)


def ignorant(classes):
    return torch.nn.Linear(8, 10)


def renamed(classes):
    return torch.nn.Sequential(
        *[torch.nn.Linear(4, 4)] * (classes - 9), torch.nn.Linear(4, classes)
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [("ignorant", "no tensor of shape"), ("renamed", r"of shape and in .* of name")],
)
def test_a_head_that_is_not_some_tensors_is_refused(name, said):
    config = PythonConfig(f"tests.generators.test_head:{name}", {"classes": 10})
    trust_code(config.target)
    with pytest.raises(ConfigError, match=said):
        NewHead(Layout.of(build_network(config)), config, classes=12, seed=0)


@pytest.fixture
def fitted(make_zoo, tmp_path, gaussian_on_weights):
    make_zoo()
    return fit_generator(gaussian_on_weights, tmp_path, name="fitted")


def test_samples_with_a_new_head_are_a_zoo_of_the_new_architecture(fitted, tmp_path):
    drawn = sample_networks(SampleConfig("fitted", count=5, classes=3), tmp_path, name="drawn")
    assert drawn.facts.network.widths == (64, 16, 3)
    assert drawn.layout == Layout.of(drawn.build_network())
    body = slice(0, 64 * 16 + 16)
    np.testing.assert_array_equal(drawn.read()[:, body], fitted.sample(5, seed=0)[:, body])
    told = drawn.facts.sampled.head
    assert told == {"classes": 3, "tensors": ["layers.1.weight", "layers.1.bias"]}
    few = sample_networks(SampleConfig("fitted", count=2, classes=3), tmp_path, name="few")
    np.testing.assert_array_equal(few.read(), drawn.read()[:2])


def test_selection_is_by_the_old_head(fitted, tmp_path):
    selection = SubsampleConfig(draws=4)
    old = SampleConfig("fitted", count=3, selection=selection)
    kept = sample_networks(old, tmp_path, name="old")
    new = sample_networks(dataclasses.replace(old, classes=10), tmp_path, name="new")
    assert new.columns["drawn"].tolist() == kept.columns["drawn"].tolist()
    head = slice(64 * 16 + 16, None)
    assert new.layout == kept.layout
    np.testing.assert_array_equal(new.read()[:, : head.start], kept.read()[:, : head.start])
    assert not np.equal(new.read()[:, head], kept.read()[:, head]).any()


def test_batchnorm_is_that_of_the_new_task(convolutional, tmp_path):
    generator = GeneratorConfig(zoo="small", codec=FlatConfig(), density=GaussianConfig())
    fit_generator(generator, tmp_path, name="fitted")
    settings = {"count": 2, "batchnorm": "recalibrated", "batchnorm_images": 100}
    own = sample_networks(SampleConfig("fitted", **settings), tmp_path, name="own")
    data = DataConfig("digits", scaling="symmetric")
    new = sample_networks(SampleConfig("fitted", data=data, **settings), tmp_path, name="new")
    assert new.facts.data == data and new.facts.network.classes == 10
    assert new.facts.input_shape == (1, 8, 8)
    before, after = (zoo.layout.unflatten(zoo.read()) for zoo in (own, new))
    assert np.array_equal(before["convs.1.weight"], after["convs.1.weight"])
    mean = "norms.0.running_mean"
    assert not np.isclose(before[mean], after[mean], rtol=1e-3).any()


def test_a_task_that_does_not_fit_is_refused(fitted, tmp_path):
    layout, facts = fitted.codec.layout, fitted.subject
    with pytest.raises(ConfigError, match="classes = 3: digits has 10 classes"):
        new_head(
            SampleConfig("fitted", classes=3, data=DataConfig("digits")), layout, subject=facts
        )
    with pytest.raises(ShapeMismatch, match=r"'iris': its inputs have shape \[4\], .* \[1, 8, 8\]"):
        new_head(SampleConfig("fitted", data=DataConfig("iris")), layout, subject=facts)
    head, same = new_head(SampleConfig("fitted"), layout, subject=facts)
    assert head is None and same == facts
