"""Several conditions at once: numbers, categories, sets of classes, mixtures, guidance of each.

Held against closed forms: codes whose mean the conditions determine (slope 1), and velocities and
vectors written by hand.
"""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.stats import linregress
from torch import nn

from dwf.backbones.config import PublishedMLPConfig, ResidualMLPConfig
from dwf.densities.asked import Asked, again
from dwf.densities.conditions import Conditions
from dwf.densities.config import DiffusionConfig, FlowConfig, SolverConfig
from dwf.densities.flow import Flow
from dwf.densities.guidance import guided
from dwf.densities.paths import forget
from dwf.errors import ConfigError
from dwf.run_folder import RunFolder
from dwf.settings import build, to_dict
from dwf.training.config import LoopComputeConfig, LoopConfig
from tests.densities.coded import vector_codes

PLACES = {"he": -1.0, "normal": 1.0, "xavier": 0.0}
TOLD = {
    "epoch": np.array([1.0, 5.0, 9.0, 5.0]),
    "initialisation": np.array(["he", "xavier", "he", ""]),
    "classes": np.array(["0+1", "2+3", "0+1", "1+2"]),
}
CONDITIONS = Conditions.fit(tuple(TOLD), TOLD)


def plant(count, seed):
    """Conditions of networks, and codes N((place of the initialisation, epoch / 10), 0.1^2)."""
    rng = np.random.default_rng(seed)
    words, epochs = rng.choice(list(PLACES), count), rng.uniform(0, 10, count)
    means = np.stack([[PLACES[word] for word in words], epochs / 10], 1)
    codes = vector_codes(torch.from_numpy(means + 0.1 * rng.standard_normal((count, 2))).float())
    return {"initialisation": words, "epoch": epochs}, codes


def test_what_determines_the_code_is_drawn_as_it_is_asked_for(tmp_path):
    config = FlowConfig(
        backbone=ResidualMLPConfig(width=32, depth=1, time_features=16),
        training=LoopConfig(
            steps=200,
            batch_size=64,
            learning_rate=1e-2,
            ema=0.95,
            compute=LoopComputeConfig(threads=1, device="cpu"),
        ),
        solver=SolverConfig(method="midpoint", steps=6),
        condition=("initialisation", "epoch"),
    )
    flow, (told, codes), (val_told, val) = Flow(config), plant(2000, 0), plant(50, 1)
    run = RunFolder(tmp_path, config)
    flow.fit(codes, val, run=run, seed=0, train_conditions=told, val_conditions=val_told)
    flow.save(tmp_path / "saved")
    flow, wanted = Flow.load(tmp_path / "saved"), ("initialisation=each", "epoch=1..9")
    asked, drawn = (
        flow.ask(wanted).values(0, 300),
        flow.sample(300, seed=1, condition=wanted).values,
    )
    places = np.array([PLACES[word] for word in asked["initialisation"]])
    assert np.abs(drawn[:, 0].numpy() - places).mean() < 0.2
    fit = linregress(asked["epoch"], 10 * drawn[:, 1])
    assert fit.slope == pytest.approx(1, abs=0.15)
    # One of the two alone leaves the other as it was learnt.
    drawn = flow.sample(300, seed=1, condition=("initialisation=normal",)).values
    assert drawn[:, 0].mean() == pytest.approx(1, abs=0.15)
    assert drawn[:, 1].std() == pytest.approx((10**2 / 12 / 100 + 0.01) ** 0.5, abs=0.08)


def test_networks_are_told_numbers_shares_and_classes():
    assert CONDITIONS.sizes == (1, 2, 4)
    found = CONDITIONS.encode(TOLD, 4)
    deviation = float(np.std([1, 5, 9, 5]))
    wanted = [[-4 / deviation, 1, 0, 1, 1, 0, 0], [0, 0, 1, 0, 0, 1, 1]]
    torch.testing.assert_close(found[:2], torch.tensor(wanted), rtol=1e-5, atol=1e-6)
    assert found[3, 1:3].isnan().all() and found[3, 3:].tolist() == [0, 1, 1, 0]
    assert CONDITIONS.encode(None, 2).isnan().all()
    # A held-out network of a category that no training network has is told nothing of it.
    assert CONDITIONS.each[1].encode(np.array(["normal"])).isnan().all()
    assert Conditions.from_json(CONDITIONS.to_json()) == CONDITIONS


def test_a_sample_is_asked_for_the_same_however_many_are_drawn():
    wanted = "epoch=2..8", "initialisation=each", "classes=each"
    asked = Asked.of(CONDITIONS, wanted)
    whole = asked.values(0, 60)
    assert {name: v[20:25].tolist() for name, v in whole.items()} == {
        name: v.tolist() for name, v in asked.values(20, 5).items()
    }
    pairs = list(zip(whole["initialisation"], whole["classes"], strict=True))
    assert all(pairs.count(pair) == 10 for pair in set(pairs)) and len(set(pairs)) == 6
    # Spread evenly: each tenth of the range has its share of 60, up to one.
    counts, _ = np.histogram(whole["epoch"], bins=10, range=(2, 8))
    assert set(counts.tolist()) <= {5, 6, 7}
    torch.testing.assert_close(asked.rows(0, 60), CONDITIONS.encode(whole, 60))
    assert Asked.of(CONDITIONS, 5.0).rows(7, 50).shape == (1, 7)


@pytest.mark.parametrize(
    ("wanted", "guidance"),
    [
        (("epoch=2.1..7.7", "initialisation=each"), ("initialisation=2.5",)),
        (("initialisation=he:0.25,xavier:0.75", "classes=0+1:0.5,3:0.5"), 1.5),
        (("epoch=1.1",), 1.0),
    ],
)
def test_what_was_asked_for_can_be_asked_again_from_its_facts(wanted, guidance):
    asked = Asked.of(CONDITIONS, wanted, guidance=guidance)
    words, strength = again(**asked.facts)
    twin = Asked.of(CONDITIONS, words, guidance=strength)
    assert twin.guidance == asked.guidance
    torch.testing.assert_close(twin.rows(3, 9), asked.rows(3, 9), rtol=0, atol=0, equal_nan=True)


def test_mixtures_are_shares():
    words = "initialisation=he:0.25,xavier:0.75", "classes=0+1:0.5,3:0.5"
    asked = Asked.of(CONDITIONS, words, guidance=("classes=2",))
    row = asked.rows(0, 5)[0]
    assert row[0].isnan() and row[1:].tolist() == [0.25, 0.75, 0.5, 0.5, 0, 0.5]
    assert asked.facts == {
        "condition": {name: word for name, _, word in (each.partition("=") for each in words)},
        "guidance": {"epoch": 1.0, "initialisation": 1.0, "classes": 2.0},
    }


@pytest.mark.parametrize(
    ("wanted", "guidance", "said"),
    [
        (("depth=3",), 1.0, "this density was told no depth: ask for epoch in .1, 9.; init"),
        (("initialisation=normal",), 1.0, "has 'normal': ask for initialisation one of he, xavier"),
        (("classes=0+7",), 1.0, r"has '0\+7': ask for classes of 0, 1, 2, 3"),
        (("initialisation=he:0.5,xavier:0.6",), 1.0, "expected shares that sum to 1"),
        (("initialisation=he:0.5,normal:0.5",), 1.0, "no network learnt from has 'normal'"),
        (("epoch=many",), 1.0, "expected a number, or two with .. between them"),
        (("epoch=0..5",), 1.0, r"condition = 0: the epoch of .* lies in \[1, 9\]"),
        (("epoch=2", "epoch=3"), 1.0, "ask for each condition once"),
        (("epoch=2",), ("classes=2",), "that is not asked for: give condition classes="),
        (("epoch=2",), ("epoch=0",), "expected a number above 0, at most 1e\\+09"),
    ],
)
def test_what_was_not_learnt_is_refused(wanted, guidance, said):
    with pytest.raises(ConfigError, match=said):
        Asked.of(CONDITIONS, wanted, guidance=guidance)


def test_a_number_alone_needs_one_number_among_the_conditions():
    assert Asked.of(CONDITIONS, 5.0).values(0, 1)["epoch"].tolist() == [5]
    both = Conditions.fit(("a", "b"), {name: np.arange(3.0) for name in "ab"})
    with pytest.raises(ConfigError, match=r"give name=value, of a in \[0, 2\]; b in"):
        Asked.of(both, 1.0)


class Sum(nn.Module):
    """The velocity: what each known condition says, 10 for the first, 100 for the second."""

    def forward(self, x_BK, t_B, condition_BP=None):
        if condition_BP is None:
            return torch.zeros_like(x_BK)
        known = (~condition_BP[:, [0, 1]].isnan()).float()
        return torch.zeros_like(x_BK) + (known * torch.tensor([10.0, 100.0])).sum(1, keepdim=True)


def test_each_condition_is_exaggerated_given_the_others():
    x, t, told = torch.zeros(3, 2), torch.zeros(3), torch.tensor([[0.5, 1, 0]])

    def answer(condition_BP):
        return Sum()(x, t, condition_BP)

    def found(guidance):
        return guided(answer, told, guidance=guidance, sizes=(1, 2))[0, 0].item()

    assert found((1.0, 1.0)) == found(1.0) == 110
    assert found(3.0) == 330
    assert found((3.0, 1.0)) == 130 and found((1.0, 0.5)) == 60 and found((3.0, 2.0)) == 230
    assert not told.isnan().any()


def test_conditions_are_left_out_together_and_one_by_one():
    generator = torch.Generator().manual_seed(0)
    told = forget(torch.zeros(40_000, 6), 0.2, generator=generator, sizes=(1, 3, 2)).isnan()
    for part in (told[:, 1:4], told[:, 4:]):
        assert (part.all(1) == part.any(1)).all()
    lost = told[:, [0, 1, 4]].float()
    error = 4 * (0.25 / 40_000) ** 0.5
    assert lost.mean(0).tolist() == pytest.approx([0.2 + 0.8 * 0.2] * 3, abs=error)
    assert lost.all(1).float().mean().item() == pytest.approx(0.2 + 0.8 * 0.2**3, abs=error)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"condition": "test_accuracy"}, "condition = 'test_accuracy': scores on test images are"),
        ({"condition": ["epoch", "test_loss"]}, "condition = 'test_loss': scores on test images"),
        ({"condition": ["epoch", "epoch"]}, "name each condition once"),
        ({"condition": ["epoch", "none"]}, "name each condition once"),
    ],
)
@pytest.mark.parametrize("kind", [FlowConfig, DiffusionConfig])
def test_settings_of_conditions_are_held_to_what_may_be(kind, settings, said):
    with pytest.raises(ConfigError, match=said):
        build(kind, to_dict(kind()) | settings, source="test")
    assert build(kind, to_dict(kind()) | {"condition": "none"}, source="t").conditions == ()


def test_a_network_to_which_a_category_is_a_number_takes_no_sets():
    published = FlowConfig(backbone=PublishedMLPConfig())
    with pytest.raises(ValueError, match=r"condition = 'classes' with backbone.kind = 'mlp'"):
        dataclasses.replace(published, condition=("classes",))
    assert math.isfinite(dataclasses.replace(published, condition="data").drop_condition)
