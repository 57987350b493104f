"""Units by what they compute: against functions on images by hand, blind to order and scale."""

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d

from dwf.align.activation import training_images
from dwf.align.groups import Group, Member
from dwf.align.symmetry import symmetry_of
from dwf.datasets.config import DataConfig
from dwf.datasets.load import load_dataset
from dwf.evaluation.measure import units as module
from dwf.evaluation.measure.units import UnitDistance, UnitReader, layers_of
from dwf.networks.config import CNNConfig, MLPConfig, ViTConfig
from dwf.networks.functional import build_network
from dwf.randomness import seeded
from dwf.zoo.layout import Layout

SHAPE = (1, 8, 8)
MLP = MLPConfig((64, 6, 5, 10))
CNN = CNNConfig(channels=(4, 6), input=SHAPE, pools=2, paddings=1, head="average")
BATCHNORM = CNNConfig(
    channels=(4, 6), input=SHAPE, norm="batch", pools=2, paddings=1, head="average", bias=False
)


@pytest.fixture(scope="module")
def images_MX():  # noqa: N802  a shape, not a word
    return training_images(load_dataset(DataConfig(kind="digits")), 300, seed=0)


def networks(config, num, seed=0):
    with seeded(seed, "units"):
        made = [build_network(config) for _ in range(num)]
    layout = Layout.of(made[0])
    return layout, torch.stack([layout.flatten(one.state_dict()) for one in made]).numpy()


def reader_of(config, images_MX, layout, weights_ND) -> UnitReader:
    network = build_network(config)
    layers, _ = layers_of(
        network, symmetry_of(network, layout, input_shape=SHAPE), images_MX=images_MX
    )
    return UnitReader(network, layout, layers=layers, images_MX=images_MX, some_BD=weights_ND)


@pytest.fixture
def whole_energy(monkeypatch):
    """All directions count, so that codes are what units compute, no less."""
    monkeypatch.setattr(module, "ENERGY", 1 - 1e-9)
    monkeypatch.setattr(module, "MOST_NUMBERS", 10**6)


def by_hand(functions_NUP, *, with_mean):
    """Return codes whose distances are those of centred functions of deviation (or norm) 1."""
    mean = functions_NUP.mean(2, keepdims=True)
    centred = functions_NUP - mean
    if not with_mean:
        return centred / np.linalg.norm(centred, axis=2, keepdims=True)
    deviation = np.sqrt((centred**2).mean(2, keepdims=True))
    codes = centred / deviation / np.sqrt(centred.shape[2])
    return np.concatenate([codes, np.clip(mean / deviation, -10, 10)], 2)


def medians(mine_NUP, theirs_NUP, own=True):
    """Return the median over units of the distance to the nearest unit of another network."""
    found = []
    for n, mine_UP in enumerate(mine_NUP):
        others = [one for t, one in enumerate(theirs_NUP) if not (own and t == n)]
        apart = np.linalg.norm(mine_UP[:, None] - np.concatenate(others)[None], axis=2)
        found.append(np.median(apart.min(1)))
    return np.array(found)


def test_units_of_an_mlp_equal_what_they_compute(images_MX, whole_energy):
    layout, weights_ND = networks(MLP, 7)
    found_NL = UnitDistance(
        reader_of(MLP, images_MX, layout, weights_ND), [weights_ND], own_T=np.arange(7)
    )(weights_ND, np.arange(7))
    state = layout.unflatten(torch.from_numpy(weights_ND).double())
    inputs_PI = images_MX.flatten(1).double()
    first = inputs_PI @ state["layers.0.weight"].mT + state["layers.0.bias"][:, None]
    second = first.relu() @ state["layers.1.weight"].mT + state["layers.1.bias"][:, None]
    codes = [by_hand(first.mT.numpy(), with_mean=True), by_hand(second.mT.numpy(), with_mean=False)]
    for layer, code in enumerate(codes):
        np.testing.assert_allclose(found_NL[:, layer], medians(code, code), rtol=1e-4)


def test_filters_equal_what_they_compute_on_patches(images_MX, whole_energy):
    layout, weights_ND = networks(CNN, 5)
    reader = reader_of(CNN, images_MX, layout, weights_ND)
    assert reader.read_inputs == ("convs.0",)
    found_NL = UnitDistance(reader, [weights_ND], own_T=np.arange(5))(weights_ND, np.arange(5))
    state = layout.unflatten(torch.from_numpy(weights_ND).double())
    first = [
        conv2d(images_MX.double(), w, b, padding=1).movedim(1, 0).flatten(1).numpy()
        for w, b in zip(state["convs.0.weight"], state["convs.0.bias"], strict=True)
    ]
    code = by_hand(np.stack(first), with_mean=True)
    np.testing.assert_allclose(found_NL[:, 0], medians(code, code), rtol=1e-4)


@pytest.mark.parametrize("config", [MLP, CNN, BATCHNORM])
def test_a_copy_has_units_at_zero_whatever_their_order_and_scale(images_MX, config):
    layout, weights_ND = networks(config, 6)
    held = UnitDistance(
        reader_of(config, images_MX, layout, weights_ND), [weights_ND], own_T=np.arange(6)
    )
    moved_ND = torch.from_numpy(weights_ND.copy())
    state, prefix = layout.unflatten(moved_ND), "layers" if config is MLP else "convs"
    order = torch.tensor([2, 0, 3, 1])
    if config is MLP:
        order = torch.tensor([2, 0, 3, 1, 5, 4])
    for name, tensor in state.items():
        if name.startswith((f"{prefix}.0.", "norms.0.")):
            tensor.copy_(tensor[:, order])
        if name == f"{prefix}.1.weight":
            tensor.copy_(tensor[:, :, order] / 3)
    if config is not BATCHNORM:
        for leaf in ("weight", "bias"):
            state[f"{prefix}.0.{leaf}"].mul_(3)
    found_NL = held(moved_ND.numpy())
    # float32 activations of the layers before
    np.testing.assert_allclose(found_NL, 0, atol=1e-5)
    assert (held(networks(config, 6, seed=1)[1]) > 1e-3).all()


def test_dead_inputs_count_nothing_and_constant_units_are_no_trouble(images_MX):
    layout, weights_ND = networks(MLP, 6)
    held = UnitDistance(
        reader_of(MLP, images_MX, layout, weights_ND), [weights_ND], own_T=np.arange(6)
    )
    dead_I = images_MX.flatten(1).std(0) == 0
    assert dead_I.any()
    changed_ND = torch.from_numpy(weights_ND.copy())
    state = layout.unflatten(changed_ND)
    noise = torch.randn(6, 6, int(dead_I.sum()), generator=torch.Generator().manual_seed(0))
    state["layers.0.weight"][:, :, dead_I] += noise
    state["layers.0.bias"] -= noise @ images_MX.flatten(1)[0, dead_I]
    np.testing.assert_allclose(held(changed_ND.numpy()), 0, atol=1e-4)
    state["layers.0.weight"][0] = 0
    assert np.isfinite(held(changed_ND.numpy())).all()
    state["layers.0.weight"][1, 0, 9] = torch.inf
    assert not np.isfinite(held(changed_ND.numpy())[1]).any()


def test_units_that_cannot_be_seen_are_named():
    config = ViTConfig(image=8, patch=4, width=8, depth=1, heads=2, mlp_ratio=1.5, channels=1)
    network = build_network(config)
    groups = symmetry_of(network, Layout.of(network), input_shape=SHAPE)
    layers, others = layers_of(network, groups, images_MX=torch.zeros(2, *SHAPE))
    assert [layer.size for layer in layers] == [12]
    assert {group.kind for group in others} >= {"stream", "heads"}


def test_units_of_modules_that_never_run_are_not_seen():
    network = build_network(MLP)
    network.spare = torch.nn.Linear(64, 4)
    spare = Group(4, (Member("spare.weight", 0), Member("spare.bias", 0)))
    first = Group(6, (Member("layers.0.weight", 0), Member("layers.1.weight", 1)))
    layers, others = layers_of(network, (spare, first), images_MX=torch.zeros(2, *SHAPE))
    assert [layer.name for layer in layers] == ["layers.0"] and others == (spare,)
