"""Cohorts of networks with convolutions: alone, batched, interrupted, clipped, smoothed, pruned."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from dwf.networks.config import ViTConfig
from dwf.networks.functional import build_network, score_networks
from dwf.networks.initialisation import initialise
from dwf.randomness import torch_stream
from dwf.zoo import roster
from dwf.zoo.cohorts.augment import augmented_batch, draw
from dwf.zoo.cohorts.cohort import Cohort
from dwf.zoo.cohorts.program import Method, Program
from dwf.zoo.config import (
    AugmentConfig,
    KeepAbove,
    KeepBest,
    KeepSteps,
    PruneConfig,
    RangeConfig,
    RecipeConfig,
    VaryConfig,
)
from dwf.zoo.layout import Layout
from tests.zoo.convolutional import DROPPED, NORMED, PLAIN, config, images, trained, weights_of

AUGMENT = AugmentConfig(flip=0.5, pad=2, jitter=0.2, jitter_probability=0.5)


class Stopped(Exception):
    """Stands for the signal."""


def textbook(zoo, network: int) -> torch.Tensor:
    """Train one network alone, as a tutorial would: autograd, torch's clipping, plain SGD."""
    recipe, module, data = zoo.recipe, build_network(zoo.network), images()
    hyper = {name: v[0].item() for name, v in roster.hyper_parameters(zoo, [network]).items()}
    initialise(module, zoo.network, kind="default", seed=roster.network_seed(zoo, network))
    optimizer = torch.optim.SGD(
        module.parameters(),
        recipe.learning_rate,
        recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
        fused=False,
    )
    module.train()
    for epoch in range(recipe.epochs):
        order = torch.randperm(60, generator=torch_stream(zoo.seed, "shuffle", network, epoch))
        for step, rows in enumerate(order.split(recipe.batch_size)):
            stored, labels = data.train.batch(rows)
            if recipe.augment:
                stream = torch_stream(zoo.seed, "augment", network, epoch, step)
                draws = draw(
                    stream,
                    len(rows),
                    flip=hyper["flip"],
                    pad=hyper["pad"],
                    jitter=hyper["jitter"],
                    jitter_probability=recipe.augment.jitter_probability,
                )
                stored, labels = augmented_batch(data.train, rows, draws=draws)
            optimizer.zero_grad()
            logits = module(stored / 255 - 0.5)
            cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing).backward()
            if recipe.clip_norm:
                torch.nn.utils.clip_grad_norm_(module.parameters(), recipe.clip_norm)
            optimizer.step()
    return Layout.of(module).flatten(module.state_dict())


RECIPE = RecipeConfig(
    epochs=2,
    batch_size=16,
    learning_rate=0.05,
    optimizer="sgd",
    momentum=0.9,
    nesterov=True,
    weight_decay=1e-3,
    label_smoothing=0.1,
    clip_norm=0.5,
    augment=AUGMENT,
)


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_network_alone_is_trained_as_a_textbook_trains_it(tmp_path, channels_last):
    vary = VaryConfig(flip=RangeConfig(0.0, 0.4), pad=(1, 2), jitter=(0.1, 0.3))
    zoo = config(recipe=RECIPE, vary=vary)
    for network in (0, 3):
        found = trained(
            zoo, range(network, network + 1), folder=tmp_path, channels_last=channels_last
        )
        expected = textbook(zoo, network)[None].numpy()
        np.testing.assert_allclose(weights_of(found, 2), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", [PLAIN, NORMED], ids=["plain", "BatchNorm"])
@pytest.mark.parametrize("data_order", ["own", "shared"])
def test_batched_networks_are_those_trained_one_by_one(tmp_path, network, data_order):
    zoo = config(network, recipe=dataclasses.replace(RECIPE, data_order=data_order))
    together = weights_of(trained(zoo, range(3), folder=tmp_path / "together"), 2)
    alone = [trained(zoo, range(n, n + 1), folder=tmp_path / "alone") for n in range(3)]
    if data_order == "shared":  # the first network's order and changes: alone each has its own
        alone = alone[:1]
    for found, one in zip(together, alone, strict=False):
        np.testing.assert_allclose(found, weights_of(one, 2)[0], rtol=1e-3, atol=1e-5)


def test_the_training_loss_of_an_epoch_of_one_step_is_that_of_the_initial_weights(tmp_path):
    zoo = config(PLAIN, recipe=RecipeConfig(epochs=1, batch_size=60, optimizer="sgd"))
    cohort = trained(zoo, range(2), folder=tmp_path)
    losses = []
    for network in range(2):
        module = build_network(zoo.network)
        seed = roster.network_seed(zoo, network)
        initialise(module, zoo.network, kind="default", seed=seed)
        stored, labels = images().train.batch(torch.arange(60))
        with torch.no_grad():
            losses.append(cross_entropy(module(stored / 255 - 0.5), labels).item())
    before, after = json.loads(cohort.done_path.read_text())["curve"]
    assert "train_loss" not in before, "nothing was trained yet"
    assert after["train_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_running_statistics_are_rows_and_are_scored_with(tmp_path):
    cohort = trained(config(), range(1), folder=tmp_path)
    layout, row = cohort.layout, weights_of(cohort, 2)
    means = [e for e in layout.entries if e.name.endswith("running_mean")]
    assert means and all(e.role == "buffer" for e in means)
    assert all(np.abs(row[0, e.offset : e.stop]).min() > 0 for e in means)
    module, data = build_network(NORMED), images()
    module.load_state_dict(layout.unflatten(torch.from_numpy(row[0])), strict=False)
    stored, labels = data.test.batch(torch.arange(20))
    right = module(data.prepare(stored)).argmax(1) == labels
    saved = np.load(cohort.snapshot_path(2))
    assert saved["test_accuracy"][0] == pytest.approx(right.double().mean().item())


def stop_a_training(zoo, size, stop_after, folder, monkeypatch) -> None:
    """Train a cohort up to a signal after so many steps."""
    steps, original = 0, Cohort._step

    def counted(self, positions):
        nonlocal steps
        original(self, positions)
        steps += 1

    def stop():
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Cohort, "_step", counted)
        patch.setattr("dwf.preemption.is_asked", lambda: steps == stop_after)
        patch.setattr("dwf.preemption.stop", stop)
        with pytest.raises(Stopped):
            trained(zoo, range(size), folder=folder)


@pytest.mark.parametrize("stop_after", [1, 4, 6, 11])
@pytest.mark.parametrize("size", [1, 2])
def test_an_interrupted_cohort_ends_bitwise_equal(tmp_path, monkeypatch, stop_after, size):
    """With BatchNorm, dropout, augmentation, pruning, and rows by step behind the last epoch."""
    recipe = RecipeConfig(
        epochs=2,
        batch_size=16,
        optimizer="adamw",
        schedule="one_cycle",
        augment=AUGMENT,
        prune=PruneConfig(0.5, from_epoch=1, rounds=2),
    )
    keep = KeepSteps(rows=3, every=2, layers="linear|fc|hidden|head", optimizer="sgd")
    names = dict(build_network(DROPPED).named_parameters())
    keep = dataclasses.replace(keep, layers=next(n for n in reversed(names)).split(".")[0])
    zoo = config(DROPPED, recipe=recipe, keep=keep)
    whole = trained(zoo, range(size), folder=tmp_path / "whole")
    stop_a_training(
        zoo, size, stop_after=stop_after, folder=tmp_path / "stopped", monkeypatch=monkeypatch
    )
    again = trained(zoo, range(size), folder=tmp_path / "stopped")
    assert len(whole.keeper.snapshots) == 3
    for name in whole.keeper.snapshots:
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert again.done_path.read_bytes() == whole.done_path.read_bytes()


@pytest.mark.parametrize("keep", [None, KeepAbove(0.0), KeepBest(), KeepSteps(rows=2)])
def test_a_save_after_the_last_step_does_not_lose_the_last_epoch(tmp_path, monkeypatch, keep):
    zoo = config(PLAIN, keep=keep)
    whole = trained(zoo, range(1), folder=tmp_path / "whole")
    stop_a_training(
        zoo, 1, stop_after=whole.num_steps, folder=tmp_path / "stopped", monkeypatch=monkeypatch
    )
    again = trained(zoo, range(1), folder=tmp_path / "stopped")
    assert whole.keeper.snapshots
    for name in whole.keeper.snapshots:
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert again.done_path.read_bytes() == whole.done_path.read_bytes()


def test_dropout_draws_from_streams_of_the_network(tmp_path):
    """Other random numbers drawn before change nothing; without dropout others are learnt."""
    zoo = config(DROPPED)
    torch.manual_seed(1)
    first = weights_of(trained(zoo, range(1), folder=tmp_path / "a"), 2)
    torch.manual_seed(2)
    again = weights_of(trained(zoo, range(1), folder=tmp_path / "b"), 2)
    np.testing.assert_array_equal(first, again)
    still = config(dataclasses.replace(DROPPED, dropout=0.0))
    assert (
        np.abs(weights_of(trained(still, range(1), folder=tmp_path / "c"), 2) - first).max() > 1e-4
    )


def test_the_recipes_dropout_sets_the_layers_rate(tmp_path):
    vary = VaryConfig(dropout=(0.1, 0.6))
    zoo = config(DROPPED, vary=vary)
    table = roster.hyper_parameters(zoo, [1])
    program = Program(zoo, Method(1), table=table)
    rates = [m.p for m in program.network.modules() if isinstance(m, torch.nn.Dropout)]
    assert rates == [0.6]


def test_each_networks_gradient_is_clipped_by_its_own_norm(tmp_path):
    """One of two batched networks has a steep loss; the other's step is the one it takes alone."""
    vary = VaryConfig(initialisation=("default", "uniform"))
    sharp = dataclasses.replace(RECIPE, clip_norm=0.05, augment=None)
    zoo = config(PLAIN, recipe=sharp, vary=vary)
    together = weights_of(trained(zoo, range(2), folder=tmp_path / "together"), 2)
    for n in range(2):
        alone = weights_of(trained(zoo, range(n, n + 1), folder=tmp_path / "alone"), 2)[0]
        np.testing.assert_allclose(together[n], alone, rtol=1e-3, atol=1e-6)
    free = dataclasses.replace(zoo, recipe=dataclasses.replace(sharp, clip_norm=None))
    assert (
        np.abs(weights_of(trained(free, range(2), folder=tmp_path / "free"), 2) - together).max()
        > 1e-2
    )


@pytest.mark.parametrize(
    "network", [NORMED, ViTConfig(8, 4, width=12, depth=1, heads=2, classes=3)]
)
def test_bf16_and_channels_last_learn_the_same_roughly(tmp_path, network):
    exact = weights_of(trained(config(network), range(1), folder=tmp_path / "exact"), 2)
    way = {"precision": "bf16", "channels_last": True}
    rough = weights_of(trained(config(network), range(1), folder=tmp_path / "rough", **way), 2)
    assert rough.dtype == np.float32 and not np.array_equal(rough, exact)
    start = Layout.of(build_network(network)).size
    assert np.linalg.norm(rough - exact) < 0.05 * np.linalg.norm(exact) and exact.shape[1] == start


@pytest.mark.slow  # a compiler runs for half a minute
def test_a_compiled_program_learns_the_same(tmp_path):
    plain = weights_of(trained(config(PLAIN), range(1), folder=tmp_path / "plain"), 2)
    compiled = trained(config(PLAIN), range(1), folder=tmp_path / "compiled", compile=True)
    np.testing.assert_allclose(weights_of(compiled, 2), plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [1, 2])
def test_pruned_weights_stay_zero_although_momentum_pulls(tmp_path, size):
    prune = PruneConfig(from_epoch=2, rounds=2)
    vary = VaryConfig(prune_share=(0.3, 0.7))
    recipe = dataclasses.replace(RECIPE, epochs=4, prune=prune)
    cohort = trained(
        config(recipe=recipe, vary=vary, keep_epochs=(1, 2, 3, 4)), range(size), folder=tmp_path
    )
    layout = cohort.layout
    tensors = [e for e in layout.entries if e.role == "weight" and len(e.shape) > 1]
    for epoch, done in ((1, 0.0), (2, 0.5), (3, 1.0), (4, 1.0)):
        saved = np.load(cohort.snapshot_path(epoch))
        for row, share, told in zip(saved["weights"], (0.3, 0.7), saved["pruned"], strict=False):
            zeros = [int((row[e.offset : e.stop] == 0).sum()) for e in tensors]
            assert zeros == [int(done * share * e.size) for e in tensors]
            assert sum(zeros) == told
    earlier, later = (np.load(cohort.snapshot_path(e))["weights"] for e in (2, 3))
    assert (later[earlier == 0] == 0).all(), "what was pruned stays so"


def test_pruning_takes_the_smallest_weights(tmp_path):
    recipe = RecipeConfig(epochs=1, batch_size=16, prune=PruneConfig(0.4))
    zoo = config(PLAIN, recipe=recipe)
    cohort = Cohort(zoo, range(1), data=images(), folder=tmp_path)
    cohort._begin()
    before = {n: t.detach().clone() for n, t in cohort.state.items()}
    cohort._begin_epoch()
    for name, tensor in cohort.state.items():
        if tensor.dim() <= 2:
            assert torch.equal(tensor, before[name])
            continue
        magnitudes = before[name].abs().flatten().sort().values
        bound = magnitudes[int(0.4 * len(magnitudes))]
        assert torch.equal(tensor.detach(), before[name] * (before[name].abs() >= bound))


def test_scores_of_rows_on_part_of_the_training_images(tmp_path):
    cohort = trained(config(train_scores=10), range(1), folder=tmp_path)
    data = images()
    some = dataclasses.replace(data.train, index=data.train.index[:10])
    state = {n: t.detach() for n, t in cohort.state.items()}
    expected = score_networks(cohort.program.network, state, data=data, part=some).accuracy_N
    np.testing.assert_array_equal(np.load(cohort.snapshot_path(2))["train_accuracy"], expected)


def test_a_network_alone_that_diverges_stops(tmp_path):
    far_off = {"learning_rate": 1000, "weight_decay": 1e9}  # each step multiplies by -1e12
    recipe = RecipeConfig(epochs=50, batch_size=16, optimizer="sgd", **far_off)
    cohort = trained(config(PLAIN, recipe=recipe), range(1), folder=tmp_path)
    assert cohort.diverged_N.item() >= 0 and cohort.epoch < 3
