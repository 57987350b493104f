"""A share of the images for each network, and the scale of its start, against loops over one."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from dwf.errors import ConfigError
from dwf.networks.config import CNNConfig, MLPConfig
from dwf.networks.functional import build_network
from dwf.networks.initialisation import initialise, layer_parameters
from dwf.randomness import torch_stream
from dwf.zoo import roster
from dwf.zoo.cohorts.share import own_images, shuffled
from dwf.zoo.config import RangeConfig, RecipeConfig, VaryConfig
from dwf.zoo.layout import Layout
from dwf.zoo.misfit import refuse_misfit
from tests.zoo.test_cohort import blobs, config, trained, weights_of

NETWORK = MLPConfig((6, 5, 3))
VARY = VaryConfig(
    data_share=(0.1, 0.33, 1.0), initialisation_scale=RangeConfig(0.5, 4.0, scale="log")
)


def textbook(zoo, network: int) -> torch.nn.Module:
    """Train one network alone on its own images."""
    hyper = {k: v[0].item() for k, v in roster.hyper_parameters(zoo, [network]).items()}
    module, seed = build_network(zoo.network), roster.network_seed(zoo, network)
    initialise(module, zoo.network, kind="default", seed=seed)
    with torch.no_grad():
        for layer in module.layers:
            layer.weight.mul_(hyper["initialisation_scale"])
    own = own_images(zoo.seed, network, num=100, share=hyper["data_share"])
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for epoch in range(zoo.recipe.epochs):
        stream, seen = torch_stream(zoo.seed, "shuffle", network, epoch), []
        while len(seen) < 100:
            seen += own[torch.randperm(len(own), generator=stream)].tolist()
        for rows in torch.tensor(seen[:100]).split(zoo.recipe.batch_size):
            images, labels = blobs().train.batch(rows)
            optimizer.zero_grad()
            cross_entropy(module(images / 255), labels).backward()
            optimizer.step()
    return module


def test_networks_train_on_their_own_images_from_a_scaled_start(tmp_path):
    zoo = config(vary=VARY)
    found_ND = weights_of(trained(zoo, range(6), folder=tmp_path), 3)
    for network in range(6):
        module = textbook(zoo, network)
        expected_D = Layout.of(module).flatten(module.state_dict())
        torch.testing.assert_close(
            torch.from_numpy(found_ND[network]), expected_D, rtol=1e-3, atol=1e-5
        )


def test_training_scores_are_of_the_images_that_a_network_sees(tmp_path):
    zoo = config(vary=VARY)
    cohort = trained(zoo, range(6), folder=tmp_path)
    told, data = np.load(cohort.snapshot_path(3)), blobs()
    for network, share in enumerate((0.1, 0.33, 1.0) * 2):
        own = own_images(0, network, num=100, share=share)
        assert len(own) == round(100 * share)
        images, labels = data.train.batch(own)
        module = build_network(zoo.network)
        state = Layout.of(module).unflatten(
            torch.from_numpy(told["weights"][network : network + 1])
        )
        module.load_state_dict({name: tensor[0] for name, tensor in state.items()})
        logits = module(images / 255)
        right = (logits.argmax(1) == labels).double().mean().item()
        assert told["train_accuracy"][network] == pytest.approx(right)
        loss = cross_entropy(logits, labels).item()
        assert told["train_loss"][network] == pytest.approx(loss, rel=1e-5)


def test_all_images_are_the_order_of_a_network_without_a_share(tmp_path):
    plain = weights_of(trained(config(), range(4), folder=tmp_path / "plain"), 3)
    recipe = dataclasses.replace(config().recipe, data_share=1.0, initialisation_scale=1.0)
    whole = trained(config(recipe=recipe), range(4), folder=tmp_path / "whole")
    assert weights_of(whole, 3).tobytes() == plain.tobytes()


def test_each_own_image_is_seen_as_often_as_the_others_or_once_more():
    own_S = own_images(7, 3, num=100, share=0.13)
    order_M = shuffled(own_S, 100, generator=torch_stream(7, "shuffle", 3, 0))
    assert set(order_M.tolist()) == set(own_S.tolist()) and len(order_M) == 100
    assert set(torch.bincount(order_M)[own_S].tolist()) == {7, 8}
    assert len(own_images(7, 3, num=100, share=1e-6)) == 1
    assert own_images(7, 4, num=100, share=0.13).tolist() != own_S.tolist()


def test_columns_are_there_where_the_settings_speak_of_them():
    names = ("initialisation_scale", "data_share")
    assert not set(names) & set(roster.hyper_parameter_names(config()))
    table = roster.hyper_parameters(config(vary=VARY), range(3))
    assert table["data_share"].tolist() == [0.1, 0.33, 1.0]
    scales = table["initialisation_scale"]
    assert scales.min() >= 0.5 and scales.max() <= 4
    recipe = RecipeConfig(data_share=0.5)
    assert roster.hyper_parameters(config(recipe=recipe), [1])["data_share"].tolist() == [0.5]


@pytest.mark.parametrize(
    ("kind", "deviation"),
    [
        ("he_normal", (2 / 400) ** 0.5),
        ("xavier_normal", (2 / 700) ** 0.5),
        ("orthogonal", (1 / 400) ** 0.5),
        ("normal", 0.02),
        ("truncated_normal", 0.02 * 0.8796),  # of a normal cut at two deviations
    ],
)
def test_initialisations_have_their_deviations_times_the_scale(kind, deviation):
    network = MLPConfig((400, 300, 10))
    module = build_network(network)
    initialise(module, network, kind=kind, seed=1, scale=3.0)
    weight = module.layers[0].weight
    assert weight.std().item() == pytest.approx(3 * deviation, rel=0.02)
    assert not module.layers[0].bias.any()
    if kind == "orthogonal":
        torch.testing.assert_close(weight @ weight.T, 9 * torch.eye(300), rtol=0, atol=1e-4)
    if kind == "truncated_normal":
        assert weight.abs().max() <= 3 * 0.04 + 1e-6


def test_a_scale_leaves_the_default_biases_alone():
    one, other = build_network(NETWORK), build_network(NETWORK)
    initialise(one, NETWORK, kind="default", seed=1)
    initialise(other, NETWORK, kind="default", seed=1, scale=2.5)
    for name, tensor in layer_parameters(one).items():
        factor = 1.0 if name.endswith("bias") else 2.5
        torch.testing.assert_close(layer_parameters(other)[name], factor * tensor)


def test_maps_are_dropped_behind_convolutions_where_that_is_said():
    network = CNNConfig(channels=(4, 4), input=(1, 8, 8), head="average", dropout=0.5)
    plain, dropping = network, dataclasses.replace(network, dropout_behind="all")
    for one, differs in ((plain, False), (dropping, True)):
        module = build_network(one)
        module.train()
        images = torch.randn(4, 1, 8, 8)
        assert torch.equal(module(images), module(images)) != differs
        module.eval()
        assert torch.equal(module(images), module(images))


def test_settings_that_find_nothing_to_act_on_are_refused():
    with pytest.raises(ValueError, match=r"data_share with recipe\.data_order = 'shared'"):
        config(vary=VARY, recipe=RecipeConfig(data_order="shared"))
    with pytest.raises(ValueError, match=r"train_scores = 200 with .* of 0.1: .* at least 1000"):
        config(vary=VARY, train_scores=200)
    with pytest.raises(ValueError, match=r"data_share from 0 to 1: allowed is above 0, at most 1"):
        VaryConfig(data_share=RangeConfig(0.0, 1.0))
    cnn = CNNConfig(channels=(4,), input=(1, 8, 8), head="average")
    with pytest.raises(ConfigError, match=r"dropout.* has no dropout layers"):
        refuse_misfit(config(network=cnn, vary=VaryConfig(dropout=(0.0, 0.5))))
