"""The varied zoos and families that are shipped have the networks and sizes of their headers."""

from pathlib import Path

import pytest
import torch

from dwf.networks.functional import build_network
from dwf.settings import parse
from dwf.zoo.config import RangeConfig, ZooConfig
from dwf.zoo.family_config import FamilyConfig
from dwf.zoo.layout import Layout
from dwf.zoo.roster import hyper_parameter_names, hyper_parameters

CONFIGS = Path(__file__).parents[2] / "configs" / "zoo"
VARIED = {
    "varied_digits": (512, 1_210),
    "varied_mlp_mnist14": (4_096, 3_322),
    "varied_cnn_mnist14": (4_096, 4_970),
    "varied_cnn_fashion_mnist14": (4_096, 4_970),
    "varied_cnn_cifar10_grey": (4_096, 4_970),
    "varied_mlp_mnist14_cluster": (30_000, 3_322),
    "varied_cnn_mnist14_cluster": (30_000, 4_970),
    "varied_cnn_fashion_mnist14_cluster": (30_000, 4_970),
    "varied_cnn_cifar10_grey_cluster": (30_000, 4_970),
}
"""Networks of all activations together, and parameters of each."""
FULL = (11_173_962, 21_282_122, 23_520_842, 9_231_114, 14_728_266, 2_236_682, 6_956_426)
"""Learnt parameters of WeightNet's architectures, in its order; published for 10 classes."""


def members(name: str) -> dict[str, ZooConfig]:
    return parse(FamilyConfig, str(CONFIGS / f"{name}.yaml"), argv=[]).config.members


def parameters(config: ZooConfig) -> int:
    with torch.device("meta"):
        layout = Layout.of(build_network(config.network))
    return sum(entry.size for entry in layout.entries if entry.is_learnt)


@pytest.mark.parametrize("name", VARIED)
def test_a_varied_zoo_is_one_of_each_activation(name):
    found, (count, size) = members(name), VARIED[name]
    assert [each.network.activation for each in found.values()] == ["relu", "tanh"]
    assert sum(each.count for each in found.values()) == count
    assert f"{count:,}" in (CONFIGS / f"{name}.yaml").read_text()
    assert len({each.seed for each in found.values()}) == 2
    for each in found.values():
        assert parameters(each) == size
        assert {"data_share", "initialisation_scale"} < set(hyper_parameter_names(each))
        assert isinstance(each.vary.dropout, RangeConfig) and len(each.epochs_kept) > 1


def test_every_network_of_a_varied_zoo_has_a_recipe_of_its_own():
    config = members("varied_mlp_mnist14")["relu"]
    table = hyper_parameters(config, range(200))
    rows = list(zip(*(values.tolist() for values in table.values()), strict=True))
    assert len(set(rows)) == 200
    assert set(table["data_share"]) == {0.1, 0.25, 0.5, 1.0} and len(set(table["optimizer"])) == 2


def test_the_hard_case_varies_by_seed_alone():
    config = parse(ZooConfig, str(CONFIGS / "seed_only_mnist14.yaml"), argv=[]).config
    assert config.count == 4_096
    table = hyper_parameters(config, range(64))
    assert all(len(set(values.tolist())) == 1 for values in table.values())


def test_families_are_weightnets_architectures():
    full, narrow = members("families/weightnet"), members("families/weightnet_narrow")
    assert tuple(map(parameters, full.values())) == FULL and list(full) == list(narrow)
    for label, each in narrow.items():
        assert each.network.kind == full[label].network.kind
        assert parameters(each) < 100_000
