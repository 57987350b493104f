"""Batched training against a textbook loop for each network alone; interrupted, bitwise equal."""

import dataclasses
from typing import get_args

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from dwf.datasets.config import DataConfig
from dwf.datasets.dataset import Dataset, Part
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.networks.initialisation import initialise
from dwf.randomness import torch_stream
from dwf.zoo import roster
from dwf.zoo.cohorts.cohort import Cohort
from dwf.zoo.cohorts.program import OPTIMIZERS
from dwf.zoo.cohorts.schedule import learning_rate_factor
from dwf.zoo.config import Optimizer, RecipeConfig, VaryConfig, ZooConfig
from dwf.zoo.layout import Layout


def blobs(num: int = 160) -> Dataset:
    """Three overlapping clouds, as images."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (num,), generator=rng)
    centres = torch.randint(60, 190, (3, 1, 2, 3), generator=rng)
    noise = torch.randint(-50, 50, (num, 1, 2, 3), generator=rng)
    images = (centres[labels] + noise).to(torch.uint8)
    index = torch.arange(num)
    parts = [Part(images, labels, index=index[:100]), Part(images, labels, index=index[100:130])]
    return Dataset(*parts, Part(images, labels, index=index[130:]), 3, torch.tensor(1 / 255), None)


def config(**changes) -> ZooConfig:
    recipe = changes.pop("recipe", RecipeConfig(epochs=3, batch_size=16, learning_rate=0.02))
    given = {"network": MLPConfig((6, 5, 3)), "data": DataConfig("digits"), "count": 8}
    return ZooConfig(**(given | {"recipe": recipe} | changes))


def trained(zoo: ZooConfig, networks: range, folder) -> Cohort:
    cohort = Cohort(zoo, networks, data=blobs(), folder=folder)
    cohort.train()
    return cohort


def weights_of(cohort: Cohort, epoch: int) -> np.ndarray:
    return np.load(cohort.snapshot_path(epoch))["weights"]


def textbook(zoo: ZooConfig, network: int) -> torch.Tensor:
    """Train one network alone, as a PyTorch tutorial would."""
    hyper = {k: v[0].item() for k, v in roster.hyper_parameters(zoo, [network]).items()}
    module = build_network(zoo.network)
    initialise(
        module, zoo.network, kind=hyper["initialisation"], seed=roster.network_seed(zoo, network)
    )
    common = {"lr": hyper["learning_rate"], "weight_decay": hyper["weight_decay"]}
    optimizer = {
        "sgd": lambda p: torch.optim.SGD(p, momentum=hyper["momentum"], **common),
        "adam": lambda p: torch.optim.Adam(p, **common),
        "adamw": lambda p: torch.optim.AdamW(p, **common),
    }[hyper["optimizer"]](module.parameters())
    schedule = {
        "constant": lambda: torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, zoo.recipe.epochs),
        "step": lambda: torch.optim.lr_scheduler.StepLR(
            optimizer, zoo.recipe.step_size, zoo.recipe.gamma
        ),
    }[zoo.recipe.schedule]()
    data = blobs()
    for epoch in range(zoo.recipe.epochs):
        stream = torch_stream(zoo.seed, "shuffle", network, epoch)
        for rows in torch.randperm(100, generator=stream).split(zoo.recipe.batch_size):
            images, labels = data.train.batch(rows)
            optimizer.zero_grad()
            cross_entropy(module(images / 255), labels).backward()
            optimizer.step()
        schedule.step()
    return Layout.of(module).flatten(module.state_dict())


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_every_network_is_trained_as_a_textbook_loop_trains_it_alone(tmp_path, schedule):
    vary = VaryConfig(
        learning_rate=(0.02, 0.005),
        optimizer=("sgd", "adam", "adamw"),
        weight_decay=(0.0, 0.01),
        initialisation=("he", "default"),
    )
    falls = {"step_size": 2, "gamma": 0.5} if schedule == "step" else {}
    recipe = RecipeConfig(epochs=3, batch_size=16, momentum=0.9, schedule=schedule, **falls)
    zoo = config(vary=vary, recipe=recipe, count=24)
    found = weights_of(trained(zoo, range(24), folder=tmp_path), 3)
    for network in range(24):
        expected = textbook(zoo, network)
        torch.testing.assert_close(torch.from_numpy(found[network]), expected, rtol=1e-3, atol=1e-5)


def test_the_settings_name_the_optimizers_of_the_table():
    assert set(get_args(Optimizer)) == set(OPTIMIZERS)


def test_a_network_does_not_depend_on_its_neighbours(tmp_path):
    together = weights_of(trained(config(), range(0, 8), folder=tmp_path / "a"), 3)
    apart = weights_of(trained(config(), range(4, 8), folder=tmp_path / "b"), 3)
    np.testing.assert_allclose(apart, together[4:], rtol=1e-4, atol=1e-6)


def test_a_shared_order_is_one_shuffle_for_all(tmp_path):
    shared = config(recipe=dataclasses.replace(config().recipe, data_order="shared"))
    cohort = Cohort(shared, range(3, 6), data=blobs(), folder=tmp_path)
    assert cohort._shuffle().shape == (1, 100)
    found = weights_of(trained(shared, range(0, 4), folder=tmp_path), 3)
    assert torch.allclose(torch.from_numpy(found[0]), textbook(shared, 0), rtol=1e-3, atol=1e-5)


def test_snapshots_of_chosen_epochs_and_their_scores(tmp_path):
    zoo = config(keep_epochs=(0, 2))
    cohort = trained(zoo, range(0, 4), folder=tmp_path)
    assert not cohort.snapshot_path(3).exists() and not cohort.snapshot_path(1).exists()
    start = build_network(zoo.network)
    initialise(start, zoo.network, kind="default", seed=roster.network_seed(zoo, 2))
    weights = weights_of(cohort, 0)[2]
    np.testing.assert_array_equal(weights, Layout.of(start).flatten(start.state_dict()).numpy())
    images, labels = blobs().test.batch(torch.arange(30))
    accuracy = (start(images / 255).argmax(1) == labels).double().mean().item()
    assert np.load(cohort.snapshot_path(0))["test_accuracy"][2] == pytest.approx(accuracy)


@pytest.mark.parametrize("stop_after", [1, 7, 8, 20])
def test_an_interrupted_cohort_ends_bitwise_equal(tmp_path, monkeypatch, stop_after):
    """Stop at a step inside an epoch, at its last step, and later; go on in a new object."""
    vary = VaryConfig(dropout=(0.0, 0.4), optimizer=("adam", "sgd"), learning_rate=(0.02, 0.01))
    zoo = config(vary=vary, recipe=RecipeConfig(epochs=3, batch_size=16, momentum=0.9))
    whole = trained(zoo, range(8), folder=tmp_path / "whole")

    steps = 0
    original = Cohort._step

    def counted(self, positions):
        nonlocal steps
        original(self, positions)
        steps += 1

    class Stopped(Exception):
        pass

    def stop():
        raise Stopped

    monkeypatch.setattr(Cohort, "_step", counted)
    monkeypatch.setattr("dwf.preemption.is_asked", lambda: steps == stop_after)
    monkeypatch.setattr("dwf.preemption.stop", stop)
    with pytest.raises(Stopped):
        trained(zoo, range(8), folder=tmp_path / "stopped")
    monkeypatch.undo()
    again = trained(zoo, range(8), folder=tmp_path / "stopped")
    assert again.snapshot_path(3).read_bytes() == whole.snapshot_path(3).read_bytes()
    assert again.done_path.read_bytes() == whole.done_path.read_bytes()
    assert not again.save_path.exists()


def test_a_network_that_diverges_is_recorded_and_the_others_go_on(tmp_path):
    recipe = RecipeConfig(epochs=3, batch_size=16, optimizer="sgd")
    wild = config(recipe=recipe, vary=VaryConfig(learning_rate=(0.05,) * 5))
    rates = (0.05, 0.05, 1e30, 0.05, 0.05)  # larger than settings take, so that it is soon over
    object.__setattr__(wild.vary, "learning_rate", rates)
    cohort = trained(wild, range(5), folder=tmp_path / "wild")
    lost = (cohort.diverged_N >= 0).tolist()
    assert [int(n) for n, is_lost in zip(cohort.networks, lost, strict=True) if is_lost] == [2]
    step = cohort.diverged_N[lost.index(True)].item()
    assert 1 <= step <= 3, "the step at which the loss stopped being finite"
    calm = config(recipe=recipe, vary=VaryConfig(learning_rate=(0.05,)))
    others = [0, 1, 3, 4]
    expected = weights_of(trained(calm, range(5), folder=tmp_path / "calm"), 3)[others]
    np.testing.assert_allclose(weights_of(cohort, 3)[others], expected, rtol=1e-4, atol=1e-6)


def test_weights_whose_squares_overflow_have_diverged(tmp_path):
    cohort = trained(config(), range(2), folder=tmp_path)
    with torch.no_grad():
        cohort.state["layers.0.weight"][1] = 1e30
    cohort._end_epoch()
    assert (cohort.diverged_N >= 0).tolist() == [False, True]


def test_dropout_drops_its_share_and_keeps_the_mean(tmp_path):
    zoo = config(vary=VaryConfig(dropout=(0.0, 0.25, 0.8)))
    drop = Cohort(zoo, range(3), data=blobs(), folder=tmp_path)._dropout()
    dropped = drop(torch.ones(3, 400, 100))
    shares = (dropped == 0).float().mean((1, 2))
    torch.testing.assert_close(shares, torch.tensor([0.0, 0.25, 0.8]), atol=0.01, rtol=0)
    torch.testing.assert_close(dropped.mean((1, 2)), torch.ones(3), atol=0.03, rtol=0)


def test_schedules():
    recipe = RecipeConfig(epochs=10, schedule="step", step_size=4, gamma=0.5)
    assert [learning_rate_factor(recipe, e, steps_per_epoch=1) for e in (0, 3, 4, 8)] == [
        1,
        1,
        0.5,
        0.25,
    ]
    cosine = RecipeConfig(epochs=10, schedule="cosine")
    assert learning_rate_factor(cosine, 5, steps_per_epoch=1) == pytest.approx(0.5)
