"""Many networks at once against each one alone: logits, gradients, running statistics, scores."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from dwf.datasets.dataset import Dataset, Part
from dwf.errors import ConfigError, ShapeMismatch
from dwf.networks import functional
from dwf.networks.config import CNNConfig, DenseNetConfig, MLPConfig, ResNetConfig
from dwf.networks.functional import (
    activation_bytes,
    batchnorm_buffers,
    build_network,
    evaluating,
    has_batchnorm,
    portion,
    run_networks,
    run_one_by_one,
    run_under_vmap,
    score_networks,
)
from dwf.networks.initialisation import initialise
from dwf.randomness import seeded
from tests.networks.published import NARROW, shape_of

RANDOM = ("cnn_dropout", "vit_dropout")


def state_of(network: torch.nn.Module, num: int) -> dict[str, torch.Tensor]:
    """States of networks that differ everywhere, running statistics and zero heads too."""
    rng = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(num, *tensor.shape, generator=rng)
            state[name] = tensor + (noise if name.endswith("running_var") else 0.1 * noise)
    return state


def logits_alone(network, state, inputs, own) -> torch.Tensor:
    """Each network by itself, its state loaded, as plain PyTorch would."""
    logits = []
    for i in range(len(next(iter(state.values())))):
        network.load_state_dict({n: t[i] for n, t in state.items()}, strict=False)
        logits.append(network(inputs[i] if own else inputs))
    return torch.stack(logits).detach()


@pytest.mark.parametrize("run", [run_one_by_one, run_under_vmap, run_networks])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", NARROW)
def test_networks_compute_what_each_computes_alone(name, own, run):
    network = build_network(NARROW[name])
    state = state_of(network, 3)
    inputs = torch.randn(3, 2, *shape_of(name)) if own else torch.randn(2, *shape_of(name))
    with torch.no_grad():
        found = run(network, state, inputs=inputs, own_inputs=own)
        torch.testing.assert_close(
            found, logits_alone(network, state, inputs=inputs, own=own), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("name", sorted(set(NARROW) - set(RANDOM)))
def test_training_gives_the_same_gradients_and_running_statistics_both_ways(name):
    network = build_network(NARROW[name]).double().train()
    base = {n: t.double() for n, t in state_of(network, 3).items()}
    # One batch of inputs for each; enough images that no map of one pixel is degenerate.
    inputs = torch.randn(3, 6, *shape_of(name), dtype=torch.float64)
    buffers, found = batchnorm_buffers(network), []
    for run in (run_one_by_one, run_under_vmap):
        state = {n: t.clone().requires_grad_(n not in buffers) for n, t in base.items()}
        loss = run(network, state, inputs=inputs, own_inputs=True).square().mean((1, 2)).sum()
        loss.backward()
        found.append(({n: t.grad for n, t in state.items() if n not in buffers}, state))
    for n, gradient in found[0][0].items():
        torch.testing.assert_close(found[1][0][n], gradient, msg=lambda m, n=n: f"{n}: {m}")
    for n in buffers:
        assert not torch.equal(found[0][1][n], base[n]), f"{n} was not updated"
        torch.testing.assert_close(found[1][1][n], found[0][1][n].detach())


@pytest.mark.parametrize("run", [run_one_by_one, run_under_vmap])
@pytest.mark.parametrize("name", RANDOM)
def test_dropout_follows_the_seed_and_the_training_flag(name, run):
    network = build_network(NARROW[name])
    one = state_of(network, 1)
    state = {n: t.expand(4, *t.shape[1:]) for n, t in one.items()}
    inputs = torch.randn(2, *shape_of(name))

    def logits(seed: int) -> torch.Tensor:
        with seeded(seed, "dropout"), torch.no_grad():
            return run(network, state, inputs=inputs)

    torch.testing.assert_close(logits(0)[0], logits(1)[1])  # no dropout in evaluation mode
    network.train()
    first = logits(0)
    assert torch.equal(first, logits(0)) and not torch.equal(first, logits(1))
    assert not torch.equal(first[0], first[1]), "two networks dropped the same"


def test_dropout_of_the_recipe_is_refused_where_the_architecture_has_its_own():
    network = build_network(NARROW["cnn"])
    with pytest.raises(ConfigError, match=r"set recipe\.dropout to 0, and network\.dropout"):
        run_networks(
            network,
            state_of(network, 1),
            inputs=torch.randn(2, 3, 16, 16),
            own_inputs=False,
            drop=torch.relu,
        )


def test_the_fused_attention_is_as_before_after_a_batched_run():
    network = build_network(NARROW["vit"])
    assert torch.backends.mha.get_fastpath_enabled()
    run_under_vmap(network, state_of(network, 2), inputs=torch.randn(2, 3, 16, 16))
    assert torch.backends.mha.get_fastpath_enabled()


def test_batchnorm_is_found_by_its_running_statistics():
    assert not has_batchnorm(build_network(NARROW["vit"]))
    assert not has_batchnorm(build_network(MLPConfig((4, 3))))
    network = build_network(NARROW["cnn_batchnorm"])
    assert has_batchnorm(network)
    assert set(batchnorm_buffers(network)) == {
        f"norms.{i}.running_{leaf}" for i in (0, 1) for leaf in ("mean", "var")
    }
    assert not has_batchnorm(torch.nn.BatchNorm2d(3, track_running_stats=False))


def image_data(size: int, num: int = 90) -> Dataset:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num, 3, size, size), dtype=torch.uint8, generator=rng)
    labels = torch.randint(0, 10, (num,), generator=rng)
    parts = [Part(images, labels, index=torch.arange(i, num, 3)) for i in range(3)]
    return Dataset(*parts, num_classes=10, scale=torch.tensor(1 / 255), shift=None)


@pytest.mark.parametrize("name", ["cnn", "resnet_cifar", "vit_dropout"])
def test_scores_equal_a_loop_over_networks(name):
    network, data = build_network(NARROW[name]).train(), image_data(16)
    state = state_of(network, 3)
    before = {n: t.clone() for n, t in state.items()}
    scores = score_networks(network, state, data=data, part=data.test, keep_wrong=True)
    assert network.training, "the network's mode was changed"
    assert all(torch.equal(state[n], t) for n, t in before.items()), "scoring changed the state"
    images = data.test.images[data.test.index].float() / 255
    labels = data.test.labels[data.test.index]
    with evaluating(network):
        logits = logits_alone(network, state, inputs=images, own=False)
    wrong = logits.argmax(2) != labels
    assert np.array_equal(scores.wrong_NM, wrong.numpy())
    np.testing.assert_allclose(scores.accuracy_N, 1 - wrong.double().mean(1))
    losses = [cross_entropy(one.double(), labels).item() for one in logits]
    np.testing.assert_allclose(scores.loss_N, losses, rtol=1e-5)


def test_scores_do_not_depend_on_the_portion(monkeypatch):
    network, data = build_network(NARROW["resnet_cifar"]), image_data(16)
    state = state_of(network, 5)
    whole = score_networks(network, state, data=data, part=data.test, keep_wrong=True)
    monkeypatch.setattr(functional, "portion", lambda *_, **__: functional.Portion(2, 7))
    parts = score_networks(network, state, data=data, part=data.test, keep_wrong=True)
    assert np.array_equal(parts.wrong_NM, whole.wrong_NM)
    np.testing.assert_allclose(parts.loss_N, whole.loss_N, rtol=1e-5)


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_answers_and_votes_are_those_of_each_network_alone(monkeypatch, at_once):
    network, data = build_network(NARROW["cnn"]), image_data(16)
    state = state_of(network, 5)
    state["convs.0.weight"][4] = torch.inf
    monkeypatch.setattr(functional, "portion", lambda *_, **__: functional.Portion(at_once, 7))
    voting = np.array([True, False, False, True, False])
    scores = score_networks(
        network,
        state,
        data=data,
        part=data.test,
        keep_answers=True,
        voting_N=voting,
        keep_wrong=True,
    )
    images = data.test.images[data.test.index].float() / 255
    logits = logits_alone(network, state, inputs=images, own=False)
    assert scores.answers_NM.dtype == np.int16 and (scores.answers_NM[4] == -1).all()
    np.testing.assert_array_equal(scores.answers_NM[:4], logits[:4].argmax(2))
    np.testing.assert_allclose(scores.votes_MK, logits[[0, 3]].double().sum(0), rtol=1e-5)
    bare = score_networks(network, state, data=data, part=data.test, voting_N=np.zeros(5, bool))
    assert bare.answers_NM is None and bare.votes_MK is None
    np.testing.assert_array_equal(bare.accuracy_N, scores.accuracy_N)


def test_a_convolutional_network_without_finite_logits_is_wrong_everywhere():
    network, data = build_network(NARROW["cnn"]), image_data(16)
    state = state_of(network, 2)
    state["convs.0.weight"][1] = torch.inf
    assert score_networks(network, state, data=data, part=data.test).accuracy_N[1] == 0


def test_a_state_without_running_statistics_is_not_scored():
    network, data = build_network(NARROW["cnn_batchnorm"]), image_data(16)
    state = state_of(network, 2)
    del state["norms.1.running_var"]
    with pytest.raises(ShapeMismatch, match=r"lacks norms\.1\.running_var"):
        score_networks(network, state, data=data, part=data.test)


@pytest.mark.parametrize(
    ("config", "shape", "largest"),
    [
        (CNNConfig((16, 8)), (1, 28, 28), 16 * 26 * 26),
        (ResNetConfig(width=8), (3, 32, 32), 8 * 32 * 32),
        (DenseNetConfig((3,), growth=4), (3, 8, 8), (8 + 3 * 4) * 8 * 8),
    ],
)
def test_activations_are_measured_on_the_network_itself(config, shape, largest):
    network = build_network(config)
    before = {n: t.clone() for n, t in network.state_dict().items()}
    assert activation_bytes(network.train(), shape) == 4 * largest
    assert all(torch.equal(network.state_dict()[n], t) for n, t in before.items())


def test_portions_stay_within_the_memory_they_are_given():
    network = build_network(ResNetConfig(width=32))
    state = {n: t.expand(1000, *t.shape) for n, t in network.state_dict().items() if t.dim()}
    here = portion(network, state, shape=(3, 32, 32))
    assert here.networks == 1000 and here.images * 4 * 32 * 32 * 32 <= 8 * 2**20
    mlp = build_network(MLPConfig((12, 50, 3)))
    stacked = {n: t.expand(100, *t.shape) for n, t in mlp.state_dict().items()}
    assert portion(mlp, stacked, shape=(12,)).images == 8 * 2**20 // (4 * (12 + 100 * 50))


def test_portions_on_a_gpu_stay_within_its_memory(monkeypatch):
    network = build_network(ResNetConfig(width=32))
    state = {n: t.expand(1000, *t.shape) for n, t in network.state_dict().items() if t.dim()}
    for largest in (2**10, 2**17, 2**22, 2**28):
        monkeypatch.setattr(functional, "activation_bytes", lambda *_, size=largest, **__: size)
        there = portion(network, state, shape=(3, 32, 32), device="cuda:0")
        assert 1 <= there.networks <= 1000 and there.images >= 16
        assert there.networks == 1 or there.networks * there.images * 3 * largest <= 2 * 2**30


@pytest.mark.parametrize("name", NARROW)
def test_initial_weights_are_those_of_a_network_built_under_the_seed(name):
    network = build_network(NARROW[name])
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.fill_(7)
    before = torch.get_rng_state()
    initialise(network, NARROW[name], kind="default", seed=5)
    assert torch.equal(torch.get_rng_state(), before), "the process's random state was touched"
    torch.manual_seed(5)
    expected = build_network(NARROW[name]).state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in network.state_dict().items())


def test_an_mlp_begins_as_its_layers_reset_in_turn():
    config = MLPConfig((6, 5, 4, 3))
    network = build_network(config)
    initialise(network, config, kind="default", seed=9)
    torch.manual_seed(9)
    for layer in network.layers:
        drawn = torch.nn.Linear(layer.in_features, layer.out_features)
        assert torch.equal(layer.weight, drawn.weight) and torch.equal(layer.bias, drawn.bias)


@pytest.mark.parametrize("kind", ["he", "xavier", "uniform", "normal"])
def test_other_initialisations_set_layers_alone(kind):
    network = build_network(NARROW["vit"])
    initialise(network, NARROW["vit"], kind="default", seed=1)
    default = {n: t.clone() for n, t in network.state_dict().items()}
    initialise(network, NARROW["vit"], kind=kind, seed=1)
    for name, tensor in network.state_dict().items():
        kept = "ln" in name or "token" in name or "pos_embedding" in name
        if kept:
            assert torch.equal(tensor, default[name]), name
        elif name.endswith("bias"):
            assert (tensor == 0).all(), name
        else:
            assert not torch.equal(tensor, default[name]) and tensor.std() > 0, name
    resnet = build_network(NARROW["resnet_cifar"])
    resnet.bn1.weight.data.fill_(3)
    resnet.bn1.running_var.fill_(3)
    initialise(resnet, NARROW["resnet_cifar"], kind=kind, seed=1)
    assert (resnet.bn1.weight == 1).all() and (resnet.bn1.running_var == 1).all()
    initialise(resnet, NARROW["resnet_cifar"], kind="uniform", seed=1)
    assert resnet.conv1.weight.abs().max() <= 0.1
