"""Stacked MLPs against each one alone, scores against a loop, initialisations as published."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from dwf.datasets.dataset import Dataset, Part
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network, run_networks, score_networks
from dwf.networks.initialisation import initialise
from dwf.zoo.layout import Layout


@pytest.mark.parametrize(
    ("widths", "count"),
    [((784, 32, 32, 10), 26_506), ((784, 128, 128, 10), 118_282), ((4, 16, 3), 131)],
)
def test_published_sizes(widths, count):
    assert Layout.of(build_network(MLPConfig(widths))).size == count


def one_by_one(config: MLPConfig, weights_ND: torch.Tensor, inputs, own: bool) -> torch.Tensor:
    """Each network alone, through `nn.Module.forward`."""
    network = build_network(config)
    layout = Layout.of(network)
    logits = []
    for i, weights_D in enumerate(weights_ND):
        network.load_state_dict(layout.unflatten(weights_D))
        logits.append(network(inputs[i] if own else inputs))
    return torch.stack(logits).detach()


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("widths", [(12, 3), (12, 7, 5, 3)])
def test_stacked_networks_compute_what_each_computes_alone(activation, own, widths):
    config = MLPConfig(widths, activation)
    network = build_network(config)
    weights_ND = torch.randn(6, Layout.of(network).size)
    inputs = torch.randn(6, 9, 3, 4) if own else torch.randn(9, 3, 4)
    state = Layout.of(network).unflatten(weights_ND)
    expected = one_by_one(config, weights_ND, inputs=inputs, own=own)
    torch.testing.assert_close(
        run_networks(network, state, inputs=inputs, own_inputs=own), expected
    )


def test_a_module_without_a_stacked_form_runs_under_vmap():
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 3)
    )
    layout = Layout.of(network)
    weights_ND, inputs = torch.randn(4, layout.size), torch.randn(5, 1, 4, 4)
    found = run_networks(network, layout.unflatten(weights_ND), inputs=inputs)
    for logits, weights_D in zip(found, weights_ND, strict=True):
        network.load_state_dict(layout.unflatten(weights_D))
        torch.testing.assert_close(logits, network(inputs).detach())


def tiny_data(num: int = 300) -> Dataset:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num, 1, 3, 4), dtype=torch.uint8, generator=rng)
    labels = torch.randint(0, 3, (num,), generator=rng)
    parts = [Part(images, labels, index=torch.arange(i, num, 3)) for i in range(3)]
    return Dataset(*parts, num_classes=3, scale=torch.tensor(1 / 255), shift=None)


def test_scores_equal_a_loop_over_networks_and_images():
    config, data = MLPConfig((12, 7, 3)), tiny_data()
    network = build_network(config)
    weights_ND = torch.randn(5, Layout.of(network).size)
    scores = score_networks(
        network, Layout.of(network).unflatten(weights_ND), data=data, part=data.val, keep_wrong=True
    )
    images = data.val.images[data.val.index].float() / 255
    labels = data.val.labels[data.val.index]
    logits = one_by_one(config, weights_ND, inputs=images, own=False)
    wrong = logits.argmax(2) != labels
    assert np.array_equal(scores.wrong_NM, wrong.numpy())
    np.testing.assert_allclose(scores.accuracy_N, 1 - wrong.double().mean(1))
    losses = [cross_entropy(one.double(), labels).item() for one in logits]
    np.testing.assert_allclose(scores.loss_N, losses, rtol=1e-6)


def test_a_network_without_finite_logits_is_wrong_everywhere():
    config, data = MLPConfig((12, 7, 3)), tiny_data()
    network = build_network(config)
    weights_ND = torch.randn(2, Layout.of(network).size)
    weights_ND[1] = torch.nan
    scores = score_networks(
        network, Layout.of(network).unflatten(weights_ND), data=data, part=data.test
    )
    assert scores.accuracy_N[1] == 0 and scores.accuracy_N[0] > 0


@pytest.mark.parametrize(
    ("kind", "spread"),
    [
        ("he", (6 / 400) ** 0.5 / 3**0.5),
        ("xavier", (6 / 700) ** 0.5 / 3**0.5),
        ("uniform", 0.1 / 3**0.5),
        ("normal", 0.02),
        ("default", (1 / 400) ** 0.5 / 3**0.5),
    ],
)
def test_initialisations_have_their_published_spread(kind, spread):
    config = MLPConfig((400, 300, 10))
    network = build_network(config)
    initialise(network, config, kind=kind, seed=3)
    weight, bias = network.layers[0].weight, network.layers[0].bias
    assert weight.std().item() == pytest.approx(spread, rel=0.01)
    assert (bias == 0).all() == (kind != "default")
    again = build_network(config)
    before = torch.get_rng_state()
    initialise(again, config, kind=kind, seed=3)
    assert torch.equal(again.layers[0].weight, weight)
    assert torch.equal(torch.get_rng_state(), before), "the process's random state was touched"
    initialise(again, config, kind=kind, seed=4)
    assert not torch.equal(again.layers[0].weight, weight)
