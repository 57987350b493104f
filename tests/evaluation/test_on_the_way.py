"""Networks on the way from noise: looks at a flow and a diffusion, against both ends of the way.

At the beginning lies decoded noise, and at the end the networks that are drawn without looks.
"""

import numpy as np
import pytest
import torch

from dwf.backbones.config import ResidualMLPConfig
from dwf.codecs.config import PcaConfig
from dwf.densities.config import (
    DiffusionConfig,
    DiffusionSolverConfig,
    FlowConfig,
    KdeConfig,
    SolverConfig,
)
from dwf.densities.solver import draw_noise
from dwf.evaluation.analyses.reverse import LOOKS, on_the_way
from dwf.evaluation.config import EvaluateConfig
from dwf.evaluation.stage import evaluate
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.generators.generator import Generator
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator
from dwf.training.config import LoopComputeConfig, LoopConfig

TRAINING = LoopConfig(
    steps=10, batch_size=8, validate_every=10, compute=LoopComputeConfig(device="cpu")
)
BACKBONE = ResidualMLPConfig(width=8, depth=1, time_features=8)
DENSITIES = {
    "flow": FlowConfig(BACKBONE, TRAINING, SolverConfig("euler", steps=20)),
    "diffusion": DiffusionConfig(BACKBONE, TRAINING, DiffusionSolverConfig("ddim", steps=20)),
    "kde": KdeConfig(mode="gaussian"),
}


def test_looks_show_the_last_state_at_or_before_their_place():
    """Two chunks of networks, whose states say where they stand."""

    def draw(watch):
        for chunk in (0, 100):
            for done in (0.0, 0.25, 0.5, 0.75):
                watch(done, torch.tensor([[chunk + done]]))
        return torch.tensor([[1.0], [101.0]])

    found = on_the_way(draw, lambda numbers: numbers)
    assert len(found) == len(LOOKS)
    for place, weights in zip(LOOKS, found, strict=True):
        wanted = float(place if place == 1 else np.floor(place / 0.25) * 0.25)
        torch.testing.assert_close(weights, torch.tensor([[wanted], [100 + wanted]]))


@pytest.fixture
def fitted(zoo):
    """Generators, and the samples that they drew."""
    root = zoo.path.parent.parent
    for name, density in DENSITIES.items():
        config = GeneratorConfig(zoo.name, PcaConfig(components=5), density=density)
        fit_generator(config, root, name=name)
        sample_networks(SampleConfig(name, count=6), root, name=f"{name}-samples")
    return root


def test_a_report_follows_flow_and_diffusion_from_noise_to_their_samples(fitted, zoo, no_figures):
    names = tuple(f"{name}-samples" for name in DENSITIES)
    config = EvaluateConfig(
        zoo.name, names, analyses=("reverse",), noise=(0.03,), averages=(2,), count=6
    )
    report = evaluate(config, fitted, name="r")
    titles = {one.source: one.title for one in report.of("samples")}
    found = report.analyses["reverse"]
    assert list(found.numbers) == [titles["flow-samples"], titles["diffusion-samples"]]
    assert len({*titles.values()}) == 3 and not {*titles} & {*titles.values()}
    assert f"{titles['kde-samples']}: the density kde" in " ".join(found.words)
    for name in ("flow", "diffusion"):
        (samples,) = [one for one in report.sets if one.source == f"{name}-samples"]
        accuracies = found.numbers[samples.title]["networks"]
        assert accuracies[-1] == pytest.approx(samples.networks["test_accuracy"], abs=1e-12)


@pytest.mark.parametrize("name", ["flow", "diffusion"])
def test_codes_that_are_shown_begin_as_noise_and_change_nothing(fitted, name):
    generator, shown = Generator.load(fitted / "runs" / name), []
    density = generator.density
    drawn = generator.sample(6, 0, watch=lambda done, numbers: shown.append((done, numbers)))
    assert torch.equal(drawn, generator.sample(6, 0))
    noise = density.scaling.undo(draw_noise(6, density.shape.size, seed=0))
    torch.testing.assert_close(shown[0][1], noise)
    assert [done for done, _ in shown] == pytest.approx(np.arange(20) / 20, abs=2e-3)
    decoded = generator.decode(shown[0][1])
    assert decoded.shape == drawn.shape and not torch.equal(decoded, drawn)
