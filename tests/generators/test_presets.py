"""Every generator that is shipped is fitted and draws, a small one in its place."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from dwf.backbones.config import build_backbone
from dwf.backbones.shape import Shape
from dwf.backbones.vector_autoencoder import build_autoencoder
from dwf.codecs.config import SaneConfig
from dwf.datasets.config import DataConfig
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator
from dwf.networks.config import CNNConfig
from dwf.settings import parse

ROOT = Path(__file__).parents[2]
PRESETS = sorted((ROOT / "configs" / "generator").glob("*.yaml"))
SHIPPED = {path: parse(GeneratorConfig, str(path), argv=[]).config for path in PRESETS}
SANE = [path for path, config in SHIPPED.items() if config.codec.kind == "sane"]
VECTORS = [
    path for path, config in SHIPPED.items() if config.codec.kind in ("conv_autoencoder", "vae")
]
AT_ONCE = [
    path
    for path, config in SHIPPED.items()
    if path not in (*SANE, *VECTORS) and config.density.training is None
]
FLOWS = [path for path in PRESETS if path not in (*SANE, *VECTORS, *AT_ONCE)]
WIDTHS = {"mnist14_functions": (64, 16, 10)}  # units are read on the images that there are here
WIDTHS |= {"mnist14": (196, 16, 10), "fashion_mnist_neurons": (784, 32, 32, 10)}
WIDTHS |= {"mnist_and_fashion_mnist": (784, 32, 32, 10)}
WIDTHS |= {"digits_two_layers": (64, 16, 16, 10), "digits_widths": (64, 16, 16, 10)}
WIDTHS |= {"fashion_mnist": (784, 128, 128, 10), "mnist": (784, 32, 32, 10), "iris": (4, 16, 3)}
CNN_OF_DIGITS = CNNConfig((8, 16), (1, 8, 8), kernels=(3, 2), pools=(2, 0))
FEW_STEPS = ("training.steps", "6"), ("training.batch-size", "8"), ("training.warm-up", "0")


NARROW_LONG = [
    word
    for name, value in {
        "backbone.width": "16",
        "backbone.heads": "2",
        "backbone.depth": "2",
        "backbone.window": "8",
        "training.engine": "plain",
        "training.accumulate": "1",
        "training.compute.precision": "float32",
        "solver.steps": "4",
    }.items()
    for word in (f"--density.{name}", value)
]


def check_header(preset: Path) -> None:
    lines = preset.read_text().splitlines()
    command = next(line for line in lines if "launch/generator.py" in line)
    assert f"configs/generator/{preset.name}" in command.split()
    assert "# Measured: " in preset.read_text() or "# Not measured." in lines


def few_steps(part: str) -> list[str]:
    return [word for name, value in FEW_STEPS for word in (f"--{part}.{name}", value)]


@pytest.mark.parametrize("preset", FLOWS, ids=lambda path: path.stem)
def test_every_flow_trains_and_draws(preset, make_zoo, tmp_path):
    check_header(preset)
    shipped = SHIPPED[preset]
    codec, density = shipped.codec, shipped.density
    argv = [*few_steps("density"), "--density.training.compute.threads", "1"]
    argv += ["--codec.components", "5"] if codec.kind == "pca" else []
    argv += ["--density.backbone.hidden", "16"] if density.backbone.kind == "mlp" else []
    if density.backbone.kind == "transformer":  # at full width Muon alone takes 20 s a step
        small = {"width": "32", "heads": "2", "depth": "2"}
        argv += [word for name, v in small.items() for word in (f"--density.backbone.{name}", v)]
        argv += ["--density.solver.steps", "4"]
    if density.backbone.kind == "long_transformer":
        argv += NARROW_LONG
        argv += ["--codec.size", "25"]
    if density.backbone.kind == "recurrent":
        argv += ["--density.backbone.width", "16", "--density.backbone.channels", "4"]
        argv += ["--density.solver.steps", "4", "--codec.size", "25"]
        argv += ["--density.training.compute.precision", "float32"]
    if density.backbone.kind == "neural_graph":
        argv += ["--density.backbone.width", "16", "--density.backbone.depth", "2"]
        argv += ["--density.solver.steps", "4"]
    widths = next((w for key, w in WIDTHS.items() if key in preset.stem), (64, 16, 10))
    unlike = density.takes_metric and widths[0] != 64  # the images here are digits
    argv += ["--density.behaviour", "0"] if unlike else []
    config = parse(GeneratorConfig, str(preset), argv=argv).config
    assert config.density.training.steps == 6
    config = dataclasses.replace(config, networks=config.networks and 8)  # of the few here
    network = CNN_OF_DIGITS if "cnn_digits" in preset.stem else None
    told = {"val_accuracy": np.linspace(0.9, 0.99, 12), "initialisation": ["he", "normal"] * 6}
    told["train_loss"] = np.linspace(0.02, 0.1, 12)
    told = {name: np.array(told[name]) for name in config.density.conditions if name in told}
    make_zoo(count=12, widths=widths, name=config.zoo, network=network, **told)
    for name, kind in zip(config.more_zoos, ("fashion_mnist",), strict=False):
        make_zoo(count=12, widths=widths, name=name, seed=1, data=DataConfig(kind), **told)
    fit_generator(config, tmp_path, name=preset.stem)
    asked = {"val_accuracy": 0.95, "train_loss": 0.04, "initialisation": "each", "data": "digits"}
    asked["checkpoint"] = "each"
    asked = tuple(f"{name}={asked[name]}" for name in config.density.conditions)
    whole = SampleConfig(preset.stem, count=2, condition=asked or None)
    drawn = sample_networks(whole, tmp_path, name="drawn")
    assert drawn.read().shape == (2, drawn.layout.size)
    if asked and config.density.drop_condition:
        any_ = sample_networks(SampleConfig(preset.stem, count=2), tmp_path, name="any")
        assert any_.read().shape == drawn.read().shape
    steps = density.training.steps
    is_whole = "deepweightflow" in preset.stem and not config.networks  # the demo is short
    is_long = is_whole or preset.stem == "mnist14_neurons"
    published = {"rpg_resnet18_cifar10": 80_000} | dict.fromkeys([preset.stem] * is_long, 30_000)
    assert steps == published[preset.stem] if preset.stem in published else steps <= 12_000


@pytest.mark.parametrize("preset", AT_ONCE, ids=lambda path: path.stem)
def test_every_density_that_trains_nothing_draws(preset, make_zoo, tmp_path):
    check_header(preset)
    make_zoo(count=12, name=SHIPPED[preset].zoo)
    fit_generator(SHIPPED[preset], tmp_path, name=preset.stem)
    drawn = sample_networks(SampleConfig(preset.stem, count=2), tmp_path, name="drawn")
    assert drawn.read().shape == (2, drawn.layout.size)


@pytest.mark.parametrize("preset", VECTORS, ids=lambda path: path.stem)
def test_every_autoencoder_of_vectors_trains_and_draws(preset, make_zoo, tmp_path):
    """On MLPs, of which the first layer stands in for the tensors that a preset chooses."""
    check_header(preset)
    learns = "kind: kde" not in preset.read_text()
    argv = few_steps("codec") + (few_steps("density") if learns else [])
    config = parse(GeneratorConfig, str(preset), argv=argv).config
    codec, narrow = config.codec, {"strided": {"channels": (4, 4), "latent": 8}}
    narrow |= {
        "folded": {"encoder": (4, 4), "decoder": (4, 8)},
        "perceptron": {"hidden": 8, "latent": 4},
    }
    backbone = dataclasses.replace(codec.backbone, **narrow[codec.backbone.kind])
    tensors = codec.tensors and r"layers\.0\."
    density = config.density
    if learns:
        thin = {
            "conv1d": {"channels": (4, 8)},
            "transformer": {"width": 16, "heads": 2, "depth": 1},
        }
        narrowed = dataclasses.replace(density.backbone, **thin.get(density.backbone.kind, {}))
        solver = dataclasses.replace(density.solver, steps=4)
        density = dataclasses.replace(density, backbone=narrowed, solver=solver)
    config = dataclasses.replace(
        config,
        codec=dataclasses.replace(codec, backbone=backbone, tensors=tensors),
        density=density,
        epochs="last",
        gate=None,
    )
    make_zoo(count=20, name=config.zoo)
    fit_generator(config, tmp_path, name=preset.stem)
    drawn = sample_networks(SampleConfig(preset.stem, count=2), tmp_path, name="drawn")
    assert drawn.read().shape == (2, drawn.layout.size)


def shipped(name: str) -> GeneratorConfig:
    return SHIPPED[ROOT / "configs" / "generator" / f"{name}.yaml"]


@pytest.mark.parametrize(
    ("name", "autoencoder", "latents"),
    [
        ("pdiff_resnet18_cifar10", 2_199_201, 128),
        ("pdiff_v1_resnet18_cifar10", 1_000_497, 12),
        ("pdiff_v1_small_resnet18_cifar10", 39_393, 52),
    ],
)
def test_p_diff_is_shipped_in_its_published_size(name, autoencoder, latents):
    """Of 2,048 weights; counted with the linear map of a spread, which the second never uses."""
    config = shipped(name)
    backbone, is_second = config.codec.backbone, "v1" not in name
    with torch.device("meta"):
        first = build_autoencoder(backbone, 2048, variational=is_second)
        denoiser = build_backbone(config.density.backbone, Shape(latents))
    assert sum(p.numel() for p in first.parameters()) == autoencoder
    assert first.num_latents == latents
    if is_second:
        assert sum(p.numel() for p in denoiser.parameters()) == 2_462_977
    density = config.density
    assert (density.diffusion_steps, density.schedule, density.prediction) == (
        1000,
        "linear",
        "noise",
    )
    assert (density.beta_start, density.beta_end) == (1e-4, 0.02)
    assert (density.solver.method, density.solver.steps) == ("ddpm", 1000)
    assert (density.clip, density.training.ema) == ((None, None) if is_second else (1.0, 0.9999))
    assert config.gate is None and density.standardise == "none"


def small(codec: SaneConfig) -> SaneConfig:
    """The same method on tokens of 25 numbers, on one process."""
    width = {"width": 16, "heads": 2, "depth": 1, "latent": 6}
    backbone = dataclasses.replace(codec.backbone, **width)
    behaviour = dataclasses.replace(codec.behaviour, images=8, networks=2)
    compute = dataclasses.replace(codec.training.compute, device="cpu", precision="float32")
    training = dataclasses.replace(codec.training, engine="plain", compute=compute)
    tokens = dataclasses.replace(codec.tokens, size=25)
    parts = {"backbone": backbone, "training": training, "behaviour": behaviour}
    return dataclasses.replace(codec, tokens=tokens, window=20, halo=4, val_windows=4, **parts)


@pytest.mark.parametrize("preset", SANE, ids=lambda path: path.stem)
def test_every_sane_trains_and_draws(preset, make_zoo, tmp_path):
    check_header(preset)
    text = preset.read_text()
    argv = few_steps("codec") + (few_steps("density") if "kind: flow" in text else [])
    argv += NARROW_LONG if "kind: long_transformer" in text else []
    config = parse(GeneratorConfig, str(preset), argv=argv).config
    assert config.codec.training.steps == 6
    for name in (config.zoo, *config.codec_zoos):
        make_zoo(count=20, name=name)
    # The small zoos have one epoch, and no accuracies.
    config = dataclasses.replace(config, codec=small(config.codec), epochs="last", best=1.0)
    config = dataclasses.replace(config, gate=None)
    fit_generator(config, tmp_path, name=preset.stem)
    drawn = sample_networks(SampleConfig(preset.stem, count=2), tmp_path, name="drawn")
    assert drawn.read().shape == (2, drawn.layout.size)
