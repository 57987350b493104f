"""A generator with a diffusion: planned, fitted, drawn from; what is refused before it is tried."""

import dataclasses
import json

import numpy as np
import pytest

from dwf.backbones.config import TransformerConfig
from dwf.codecs.config import NeuronsConfig
from dwf.densities.config import DiffusionConfig, DiffusionSolverConfig
from dwf.errors import ConfigError
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator, plan
from dwf.settings import build, to_dict
from dwf.training.config import LoopComputeConfig, LoopConfig

DIFFUSION = DiffusionConfig(
    backbone=TransformerConfig(width=8, heads=2, depth=1),
    training=LoopConfig(
        steps=6,
        batch_size=4,
        validate_every=3,
        optimizer="muon",
        compute=LoopComputeConfig(threads=1, device="cpu"),
    ),
    solver=DiffusionSolverConfig("ddpm", steps=5),
    standardise="none",
    diffusion_steps=60,
    most_signal=0.8,
    variance="learnt",
    behaviour=0.5,
    condition="val_accuracy",
)
CONFIG = GeneratorConfig("small", codec=NeuronsConfig(), density=DIFFUSION)


def test_it_is_planned_fitted_and_drawn_from(make_zoo, tmp_path):
    make_zoo(20, val_accuracy=np.linspace(0.8, 0.9, 20))
    said = plan(CONFIG, tmp_path, name="g")
    assert "density diffusion with a backbone transformer of" in said
    assert "diffusion of 60 steps, schedule linear: a part of 0.74 of a code is left at the" in said
    assert "WARNING: networks are drawn from pure noise, and 0.74 of a code is much" in said
    generator = fit_generator(CONFIG, tmp_path, name="fitted")
    counted = sum(parameter.numel() for parameter in generator.density.module.parameters())
    assert f"with a backbone transformer of {counted:,} parameters" in said
    done = json.loads((tmp_path / "runs" / "fitted" / "done.json").read_text())
    assert done["density"]["signal_left"] == pytest.approx(0.74, abs=0.01)
    for name, steps in (("ddpm", 5), ("ddim", 3), ("dpm_solver", 4)):
        asked = SampleConfig("fitted", count=3, solver=name, steps=steps, condition=0.85)
        samples = sample_networks(asked, tmp_path, name=name)
        told = samples.facts.sampled
        assert (told.solver, told.steps, told.evaluations_per_sample) == (name, steps, steps)
        wanted = generator.sample(3, 0, method=name, steps=steps, condition=0.85)
        np.testing.assert_array_equal(samples.read(), wanted.numpy())
    with pytest.raises(ConfigError, match=r"solver.steps = 61: .* diffusion_steps = 60: give at"):
        sample_networks(SampleConfig("fitted", count=3, steps=61), tmp_path, name="more")
    with pytest.raises(ConfigError, match=r"solver = 'rk4': .* has ddpm, ddim, dpm_solver"):
        sample_networks(SampleConfig("fitted", count=3, solver="rk4"), tmp_path, name="more")
    assert not (tmp_path / "zoos" / "more").exists()


def test_its_likelihood_is_refused():
    data = to_dict(dataclasses.replace(CONFIG)) | {"likelihood": 4}
    with pytest.raises(
        ConfigError, match=r"likelihood = 4: no effect, as density.kind = diffusion knows none"
    ):
        build(GeneratorConfig, data, source="test")
