"""A density of one's own: what `LearntDensity` gives to one that has a task and a sampler.

It predicts codes from codes in noise. A network that says nothing predicts the mean, which is then
all that can be drawn: known without training.
"""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from torch.nn.functional import mse_loss

from dwf.backbones.config import BackboneConfig, ResidualMLPConfig, TransformerConfig
from dwf.codecs.codes import CodeShape
from dwf.codecs.config import FlatConfig, NeuronsConfig
from dwf.densities.config import (
    DENSITIES,
    DiffusionConfig,
    FlowConfig,
    GaussianConfig,
    KdeConfig,
    LearntSettings,
    SolverConfig,
)
from dwf.densities.learnt import LearntDensity
from dwf.densities.scaling import Scaling
from dwf.densities.solver import draw_noise
from dwf.errors import ConfigError
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.generators.generator import Generator
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator, plan
from dwf.randomness import torch_stream
from dwf.run_folder import RunFolder
from dwf.settings import find
from dwf.training.config import LoopComputeConfig, LoopConfig
from dwf.training.task import Task
from tests.densities.coded import vector_codes

TRAINING = LoopConfig(
    steps=6, batch_size=4, validate_every=3, compute=LoopComputeConfig(threads=1, device="cpu")
)


@dataclass(frozen=True)
class OwnConfig(LearntSettings):
    """Settings of a density that dwf does not know."""

    mixes: ClassVar[bool] = True
    methods: ClassVar[tuple[str, ...]] = ("euler",)

    backbone: BackboneConfig = field(
        default_factory=lambda: ResidualMLPConfig(width=8, depth=1, time_features=8)
    )
    training: LoopConfig = TRAINING
    solver: SolverConfig = SolverConfig("euler", steps=3)
    standardise: Literal["per_dimension", "global", "none"] = "per_dimension"
    condition: Literal["none", "val_accuracy"] = "none"
    drop_condition: float = 0.1
    behaviour: float = 0.0
    kind: Literal["own"] = "own"

    def __post_init__(self):
        self.check_condition()
        self.check_behaviour()


class OwnTask(Task):
    """Predict a code from itself in noise."""

    def __init__(self, module, train, val, seed):
        self.module, self.train, self.val, self.seed = module, train, val, seed

    def loss(self, module, batch_size, generator):
        rows_B = torch.randint(len(self.train), (batch_size,), generator=generator)
        return self._error(module, self.train.take(rows_B), generator)

    def validate(self, module):
        if not len(self.val):
            return None
        generator = torch_stream(self.seed, "validation")
        return self._error(module, self.val, generator).item()

    def _error(self, module, batch, generator):
        x_BK, t_B = batch.codes_NK, torch.rand(len(batch), generator=generator)
        noise_BK = torch.randn(x_BK.shape, generator=generator)
        told = {"condition_BP": batch.condition_NP, "present_BK": batch.present_NK}
        told = {name: value for name, value in told.items() if value is not None}
        return mse_loss(module(torch.lerp(noise_BK, x_BK, t_B[:, None]), t_B, **told), x_BK)


class Own(LearntDensity):
    """Noise, predicted again and again."""

    files = ("own.pt",)
    settings = OwnConfig

    def task(self, train, val, seed, metric):
        return OwnTask(self.module, train, val=val, seed=seed)

    def draw(
        self,
        noise_BK,
        solver,
        seed,
        first,
        condition_BP=None,
        guidance=1.0,
        autoguidance=1.0,
        present_BK=None,
        watch=None,
    ):
        told = {"condition_BP": condition_BP, "present_BK": present_BK}
        x_BK = noise_BK
        for step in range(1, solver.steps + 1):
            if watch is not None:
                watch((step - 1) / solver.steps, x_BK)
            t = torch.tensor([step / solver.steps])
            said_BK = self.answer(x_BK, t, autoguidance=autoguidance, **told)
            x_BK = torch.lerp(noise_BK, said_BK, t)
        return x_BK


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(DENSITIES, "own", "tests.densities.test_learnt:Own")


def codes(count, size=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return vector_codes(torch.randn(count, size, generator=generator) * 2 + 3)


def fit(path, config=None, **known):
    config = config or OwnConfig()
    density = Own(config)
    outcome = density.fit(codes(20), codes(6, seed=1), run=RunFolder(path, config), seed=3, **known)
    return density, outcome


def test_it_is_trained_saved_and_loaded(tmp_path):
    density, outcome = fit(tmp_path / "run")
    assert outcome.steps == 6 and math.isfinite(outcome.val_loss)
    density.save(tmp_path / "saved")
    assert [file.name for file in (tmp_path / "saved").iterdir()] == list(Own.files)
    loaded = Own.load(tmp_path / "saved")
    assert loaded.config == density.config and loaded.shape == density.shape
    drawn = density.sample(7, seed=2)
    assert torch.equal(loaded.sample(7, seed=2).values, drawn.values)
    assert loaded.loss(codes(6), 1) == density.loss(codes(6), 1)


def test_points_on_the_way_are_shown_chunk_by_chunk_in_the_units_of_codes(tmp_path):
    density, _ = fit(tmp_path)
    shown = []
    drawn = density.sample(5, seed=2, chunk=3, watch=lambda done, x_BK: shown.append((done, x_BK)))
    assert torch.equal(drawn.values, density.sample(5, seed=2, chunk=3).values)
    steps = density.config.solver.steps
    assert [done for done, _ in shown] == [i / steps for i in range(steps)] * 2
    first = torch.cat([x_BK for done, x_BK in shown if done == 0])
    torch.testing.assert_close(first, density.scaling.undo(draw_noise(5, 5, seed=2)))


def test_training_goes_on_where_it_stopped_to_the_same_bits(tmp_path, monkeypatch):
    whole, outcome = fit(tmp_path / "whole")
    calls = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return mse_loss(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("tests.densities.test_learnt.mse_loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "cut")
    again, found = fit(tmp_path / "cut")
    assert found == outcome
    assert torch.equal(again.sample(4, seed=0).values, whole.sample(4, seed=0).values)


def test_what_says_nothing_draws_the_mean():
    density, many = Own(OwnConfig()), codes(50)
    scaling = Scaling.fit(many, "per_dimension")
    density.prepare(many.shape, scaling, seed=0)
    assert all(not parameter.any() for parameter in density.module.leave.parameters())
    drawn = density.sample(6, seed=0)
    torch.testing.assert_close(drawn.values, many.values.mean(0).expand(6, 5))
    # Standardised codes have mean 0 and variance 1, which is the loss of predicting 0.
    assert density.loss(many, 1) == pytest.approx(1, rel=1e-4)
    assert torch.equal(density.sample(2, seed=0, first=4, chunk=1).values, drawn.values[4:])


def test_conditions_are_learnt_and_what_was_not_is_refused(tmp_path):
    told = {"val_accuracy": np.linspace(0.5, 0.9, 20)}
    config = OwnConfig(condition="val_accuracy")
    density, _ = fit(tmp_path / "told", config, train_conditions=told)
    assert density.sample(3, seed=0, condition=0.7).values.isfinite().all()
    with pytest.raises(ConfigError, match=r"lies in \[0.5, 0.9\]"):
        density.sample(3, seed=0, condition=0.99)
    density, _ = fit(tmp_path / "untold")
    with pytest.raises(ConfigError, match=r"this own was fitted with density.condition = none"):
        density.sample(3, seed=0, condition=0.7)
    with pytest.raises(ValueError, match=r"drop_condition = 0.5: no effect"):
        OwnConfig(drop_condition=0.5)
    with pytest.raises(ValueError, match=r"behaviour = 0.5 measures tokens"):
        OwnConfig(behaviour=0.5)


def test_several_architectures_have_their_own_numbers():
    mask = torch.tensor([[[1, 1, 1], [1, 1, 1], [1, 0, 0]], [[1, 1, 0], [0, 0, 0], [1, 0, 0]]]) > 0
    positions = torch.tensor([(0, 0, 0), (1, 0, 1), (2, 1, 0)])
    shape = CodeShape.sequences("ab", positions, mask=mask)
    density = Own(OwnConfig(TransformerConfig(width=8, heads=2, depth=1)))
    density.prepare(shape, Scaling(torch.full((7,), 2.0), torch.ones(7)), seed=0)
    for kind in range(2):
        drawn = density.sample(4, seed=1, kind=kind)
        assert torch.equal(drawn.values, 2.0 * mask[kind].expand(4, 3, 3))
        assert drawn.kind_N.tolist() == 4 * [kind]
    with pytest.raises(ConfigError, match="architecture number 2: this own has learnt 2"):
        density.sample(1, seed=0, kind=2)


@dataclass(frozen=True)
class Unmasked(TransformerConfig):
    """A transformer that says it takes no masks."""

    takes_masks: ClassVar[bool] = False


def test_a_backbone_without_masks_is_refused_several_architectures():
    mask = torch.ones(2, 2, 3, dtype=torch.bool)
    shape = CodeShape.sequences("ab", torch.tensor([(0, 0, 0), (1, 0, 1)]), mask=mask)
    density = Own(OwnConfig(Unmasked(width=8, heads=2)))
    with pytest.raises(ConfigError, match="'transformer' takes no masks, and the codes are of 2"):
        density.prepare(shape, Scaling(torch.zeros(()), torch.ones(())), seed=0)


@pytest.mark.parametrize("codec", [FlatConfig(), NeuronsConfig()])
def test_a_generator_of_it_is_planned_fitted_and_drawn_from(make_zoo, tmp_path, codec):
    zoo = make_zoo(20)
    density = OwnConfig()
    if codec.makes_tokens:
        density = replace(density, backbone=TransformerConfig(width=8, heads=2, depth=1))
    config = GeneratorConfig("small", codec=codec, density=density)
    said = plan(config, tmp_path, name="g")
    assert f"density own with a backbone {density.backbone.kind} of" in said
    generator = fit_generator(config, tmp_path, name="fitted")
    assert Generator.is_whole(tmp_path / "runs" / "fitted")
    samples = sample_networks(SampleConfig("fitted", count=5, steps=2), tmp_path, name="drawn")
    told = samples.facts.sampled
    assert (told.solver, told.steps, told.evaluations_per_sample) == ("euler", 2, 2)
    wanted = generator.sample(5, 0, steps=2)
    np.testing.assert_array_equal(samples.read(), wanted.numpy())
    assert samples.layout.digest == zoo.layout.digest
    with pytest.raises(ConfigError, match=r"solver = 'rk4': .* is own, which has euler: choose"):
        sample_networks(SampleConfig("fitted", count=5, solver="rk4"), tmp_path, name="other")


# --- what densities declare ------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        FlowConfig(),
        DiffusionConfig(),
        GaussianConfig(),
        KdeConfig(mode="joint"),
        KdeConfig(mode="gaussian"),
    ],
    ids=lambda config: config.words,
)
def test_densities_do_what_their_settings_say(tmp_path, config):
    if config.training is not None:
        config = replace(config, training=TRAINING)
    density = find(DENSITIES, config.kind)(config)
    density.fit(codes(20), codes(6, seed=1), run=RunFolder(tmp_path / "run", config), seed=0)
    assert density.shape == codes(1).shape
    assert bool(density.networks) == (config.backbone is not None)
    assert bool(config.methods) == (config.solver is not None)
    for method in config.methods:
        assert density.sample(2, seed=0, method=method, steps=2).values.isfinite().all()
    if config.has_likelihood:
        likelihood_N = density.log_prob(codes(3), seed=1, probes=2)
        assert likelihood_N.shape == (3,) and likelihood_N.isfinite().all()
    else:
        with pytest.raises(ConfigError, match="likelihood"):
            density.log_prob(codes(3), seed=1, probes=2)
    assert all(isinstance(value, float | str) for value in density.facts.values())
    if config.has_anchors:
        around = density.with_anchors(vector_codes(torch.full((1, 5), 1e6)))
        assert (around.sample(2, seed=0).values > 1e5).all()
    else:
        with pytest.raises(ConfigError, match="anchors"):
            density.with_anchors(codes(1))
    assert density.ask(None) is None
    with pytest.raises(ConfigError, match=f"this {config.kind} was fitted with"):
        density.ask(0.5)
    density.save(tmp_path / "saved")
    assert {file.name for file in (tmp_path / "saved").iterdir()} == set(density.files)
    loaded = type(density).load(tmp_path / "saved")
    assert loaded.shape == density.shape and loaded.config == config
    assert torch.equal(loaded.sample(3, seed=5).values, density.sample(3, seed=5).values)
