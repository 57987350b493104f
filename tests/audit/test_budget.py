"""Minutes become steps by arithmetic done by hand; steps that are given are not timed."""

from dataclasses import replace

import pytest

from dwf.audit.budget import decide, seconds_of_steps, steps_within, with_steps
from dwf.audit.config import StepsConfig
from dwf.codecs.config import VaeConfig
from dwf.errors import ConfigError
from dwf.generators.config import GeneratorConfig
from dwf.settings import build, load
from dwf.training.config import LoopConfig
from tests.sweeps.conftest import STAGES


def test_parts_share_a_budget_in_the_proportion_of_their_own_steps():
    """100 steps of 2 s and 400 of 0.5 s are 400 s; 100 s are a quarter of each."""
    asked, seconds = {"codec": 100, "density": 400}, {"codec": 2.0, "density": 0.5}
    assert steps_within(asked, seconds, minutes=100 / 60) == {"codec": 25, "density": 100}
    assert steps_within(asked, seconds, minutes=1000) == asked, "never more than the file says"
    assert steps_within(asked, seconds, minutes=1e-9) == {"codec": 1, "density": 1}
    assert steps_within({}, {}, minutes=1) == {}


def test_the_divergence_of_a_vae_rises_over_the_same_share():
    codec = VaeConfig(training=LoopConfig(steps=1000), kl_steps=400)
    config = with_steps(GeneratorConfig("z", codec=codec), {"codec": 100, "density": 50})
    assert config.codec.kl_steps == 40 and config.codec.training.steps == 100
    assert config.density.training.steps == 50


def test_steps_that_are_given_are_taken_as_they_are(tmp_path):
    config = load(GeneratorConfig, "configs/generator/vae_digits.yaml")
    given = StepsConfig(codec=3, density=4)
    decided = decide(config, tmp_path, minutes=1, given=given)
    assert decided.steps == {"codec": 3, "density": 4} and decided.seconds == {}
    with pytest.raises(ConfigError, match="what trains of this generator is codec, density"):
        decide(config, tmp_path, minutes=1, given=StepsConfig(codec=3))


def test_a_step_is_timed_without_a_trace_and_takes_time(make_zoo, tmp_path):
    """Its length is not tested, only that there is one of each part that trains."""
    make_zoo(16, (64, 8, 10), name="z")
    config = build(GeneratorConfig, STAGES["generator"] | {"zoo": "z"}, source="test")
    training = replace(config.density.training, steps=24)
    config = replace(config, density=replace(config.density, training=training))
    (seconds,) = seconds_of_steps(config, tmp_path).items()
    assert seconds[0] == "density" and 0 < seconds[1] < 10
    assert not (tmp_path / "runs").exists()


def test_a_timing_asks_no_gate(make_zoo, tmp_path):
    """After a few steps no codec would pass one."""
    make_zoo(16, (64, 8, 10), name="z")
    loop = {"steps": 24, "batch_size": 4, "validate_every": 12}
    codec = {"kind": "vae", "backbone": {"kind": "perceptron", "hidden": 4, "latent": 2}}
    told = {"zoo": "z", "codec": codec | {"training": loop}, "density": {"kind": "gaussian"}}
    config = build(GeneratorConfig, told, source="test")
    assert config.gate is not None and not config.gate.anyway
    assert list(seconds_of_steps(config, tmp_path)) == ["codec"]
