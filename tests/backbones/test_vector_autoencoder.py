"""Autoencoders of vectors: published counts of parameters, lengths of any kind, independence."""

import pytest
import torch

from dwf.backbones.autoencoder_config import (
    FoldedAutoencoderConfig,
    PerceptronAutoencoderConfig,
    StridedAutoencoderConfig,
)
from dwf.backbones.vector_autoencoder import LatentNoise, build_autoencoder
from dwf.errors import ConfigError
from dwf.settings import build

SMALL = FoldedAutoencoderConfig(3, (2, 2, 2, 2), (2, 64, 64, 8))


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("config", "numbers", "variational", "parameters", "latents"),
    [
        (StridedAutoencoderConfig(), 2048, True, 2_199_201, 128),
        # Published settings leave the linear map of the spread unused.
        (StridedAutoencoderConfig(), 2048, False, 2_199_201 - 128 * 129, 128),
        (FoldedAutoencoderConfig(), 2048, False, 1_000_497, 12),
        (SMALL, 2048, False, 39_393, 52),
        (PerceptronAutoencoderConfig(), 210_998, True, 54_272_118, 32),
    ],
)
def test_published_sizes(config, numbers, variational, parameters, latents):
    with torch.device("meta"):
        module = build_autoencoder(config, numbers, variational=variational)
    assert count(module) == parameters
    assert module.num_latents == config.latents(numbers) == latents


def test_its_linear_maps_are_what_grows():
    with torch.device("meta"):
        module = build_autoencoder(StridedAutoencoderConfig(latent=768), 67_000, variational=True)
    assert count(module) == pytest.approx(105.9e6, rel=0.002)


@pytest.mark.parametrize(
    "config",
    [
        StridedAutoencoderConfig((4, 8, 6), 5, 7),
        FoldedAutoencoderConfig(3, (2, 3), (3, 5)),
        FoldedAutoencoderConfig(5, (2, 2), (2, 4)),
        PerceptronAutoencoderConfig(9, 5),
    ],
)
def test_vectors_of_any_length_come_back_as_long(config):
    for numbers in (50, 64, 77, 301):
        torch.manual_seed(0)
        module = build_autoencoder(config, numbers, variational=False)
        x = torch.randn(4, numbers)
        made, mean, log_variance = module(x)
        assert made.shape == x.shape and log_variance is None
        assert mean.shape == (4, config.latents(numbers))
        assert made.numel() <= 4 * config.widest(numbers)
        made.square().sum().backward()
        assert all(p.grad is not None for p in module.parameters())
        module.eval()
        torch.testing.assert_close(module.encode(x)[2], module.encode(x[2:3])[0])
        torch.testing.assert_close(module.decode(module.encode(x)), module(x)[0])


def test_latents_are_drawn_by_their_spread_and_disturbed():
    torch.manual_seed(0)
    module = build_autoencoder(PerceptronAutoencoderConfig(9, 3), 20, variational=True).eval()
    x, drawn, added = torch.randn(5, 20), torch.randn(5, 3), torch.randn(5, 3)
    made, mean, log_variance = module(x, LatentNoise(drawn, added, torch.tensor(0.75)))
    wanted = module.decode(0.75 * (mean + (log_variance / 2).exp() * drawn) + added)
    torch.testing.assert_close(made, wanted)
    torch.testing.assert_close(module(x)[0], module.decode(module.encode(x)))


def test_folded_latents_lie_within_one_and_are_clipped():
    torch.manual_seed(0)
    module = build_autoencoder(SMALL, 200, variational=False).eval()
    assert module.encode(100 * torch.randn(3, 200)).abs().max() <= 1
    latent = torch.randn(3, module.num_latents) * 3
    torch.testing.assert_close(module.decode(latent), module.decode(latent.clamp(-1, 1)))


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="leaves 1 latents a channel of 700 numbers"):
        build_autoencoder(FoldedAutoencoderConfig(), 700, variational=False)
    with pytest.raises(ConfigError, match=r"'folded' does not say.*set kl = 0"):
        build_autoencoder(SMALL, 2048, variational=True)
    for kind, settings, message in (
        (StridedAutoencoderConfig, {"kernel": 6}, "kernel = 6 must be odd"),
        (StridedAutoencoderConfig, {"channels": []}, "one layer or more"),
        (FoldedAutoencoderConfig, {"fold": 4}, "fold = 4 must be odd"),
        (FoldedAutoencoderConfig, {"encoder": [4, 4]}, "as many stages"),
        (FoldedAutoencoderConfig, {"decoder": [2, 4, 4, 4]}, "as many stages"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(kind, settings, source="codec.yaml")
