"""Autoencoders of vectors: a few latents for all numbers of a network.

Each is two halves, and between them the means of the latents. A variational one also says how far
its latents may spread: these are then drawn in training, and are the means elsewhere.

One of chunks, parts of a longer vector, is told which chunk it sees: sines of the chunk's number
are added to what it sees and to the latents that it decodes. Its size does not depend on how many
chunks there are.

Sources: Wang et al., Neural Network Diffusion (p-diff, arXiv 2402.13144), whose parameter counts
`Strided` and `Folded` have; VAE-Diffusion of CIFAR-10 TinyCNN, whose count `Perceptron` has.

Shape suffixes: B vectors of a batch, K numbers of a vector, L latents, C channels, W length.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from dwf.backbones.autoencoder_config import (
    FoldedAutoencoderConfig,
    PerceptronAutoencoderConfig,
    StridedAutoencoderConfig,
    VectorAutoencoderSettings,
)
from dwf.backbones.config import AUTOENCODERS
from dwf.backbones.embedding import zeroed
from dwf.backbones.positions import SinusoidalPositions
from dwf.errors import ConfigError
from dwf.settings import find

# Larger ones are no spread any more, and their exponential soon is not finite.
_MOST_LOG_VARIANCE = 20.0
_PLACE_WIDTH = 32


class LatentNoise(NamedTuple):
    """Noise on latents in training."""

    drawn_BL: torch.Tensor
    """Standard normal, by which a variational one draws latents."""
    added_BL: torch.Tensor
    """Noise added to latents."""
    kept: torch.Tensor
    """Share of a latent that is left beside it, a scalar."""


class VectorAutoencoder(nn.Module):
    """Base of autoencoders of vectors; a kind gives `_hidden`, `decode` and the linear maps.

    Args:
        config: its settings.
        numbers: K.
        variational: whether it says how far latents may spread.
        chunks: whether vectors are chunks, and it is told which.
    """

    def __init__(
        self,
        config: VectorAutoencoderSettings,
        numbers: int,
        *,
        variational: bool,
        chunks: bool = False,
    ):
        super().__init__()
        self.config, self.numbers, self.variational = config, numbers, variational
        self.num_latents = config.latents(numbers)
        self.place = _Place(numbers, self.num_latents) if chunks else None

    def forward(
        self,
        x_BK: torch.Tensor,
        noise: LatentNoise | None = None,
        chunk_B: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return what is made of vectors [B, K], the latents' means and log variances [B, L].

        Args:
            x_BK: standardised numbers of networks.
            noise: on latents; None: they are their means.
            chunk_B: which chunk each is, int64; of one of chunks alone.
        """
        hidden = self._hidden(self._placed(x_BK, chunk_B))
        mean_BL, log_variance_BL = self._mean(hidden), None
        latent_BL = mean_BL
        if self.variational:
            log_variance_BL = self._log_variance(hidden)
            if noise is not None:
                latent_BL = latent_BL + (0.5 * log_variance_BL).exp() * noise.drawn_BL
        if noise is not None:
            latent_BL = latent_BL * noise.kept + noise.added_BL
        return self.decode(latent_BL, chunk_B), mean_BL, log_variance_BL

    def encode(self, x_BK: torch.Tensor, chunk_B: torch.Tensor | None = None) -> torch.Tensor:
        """Return the means of the latents, [B, L]; arguments as of `forward`."""
        return self._mean(self._hidden(self._placed(x_BK, chunk_B)))

    def decode(self, latent_BL: torch.Tensor, chunk_B: torch.Tensor | None = None) -> torch.Tensor:
        """Return vectors [B, K] of latents; arguments as of `forward`."""
        if self.place is not None:
            latent_BL = latent_BL + self.place.latents(chunk_B)
        return self._decode(latent_BL)

    def _placed(self, x_BK: torch.Tensor, chunk_B: torch.Tensor | None) -> torch.Tensor:
        return x_BK if self.place is None else x_BK + self.place.numbers(chunk_B)

    def _decode(self, latent_BL: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _hidden(self, x_BK: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _mean(self, hidden: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _log_variance(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.log_variance(hidden).clamp(-_MOST_LOG_VARIANCE, _MOST_LOG_VARIANCE)


class _Place(nn.Module):
    """Learned numbers that are added for the place of a chunk; 0 at first."""

    def __init__(self, numbers: int, latents: int):
        super().__init__()
        self.waves = SinusoidalPositions(_PLACE_WIDTH)
        self.to_numbers = zeroed(nn.Linear(_PLACE_WIDTH, numbers))
        self.to_latents = zeroed(nn.Linear(_PLACE_WIDTH, latents))

    def numbers(self, chunk_B: torch.Tensor) -> torch.Tensor:
        """Return what is added to the numbers, [B, K]."""
        return self.to_numbers(self._waves(chunk_B))

    def latents(self, chunk_B: torch.Tensor) -> torch.Tensor:
        """Return what is added to the latents, [B, L]."""
        return self.to_latents(self._waves(chunk_B))

    def _waves(self, chunk_B: torch.Tensor) -> torch.Tensor:
        nowhere_B = torch.zeros_like(chunk_B)
        return self.waves(torch.stack([chunk_B, nowhere_B, nowhere_B], 1))


class Strided(VectorAutoencoder):
    """Convolutions of stride 2 with BatchNorm, and linear maps to the latents and back.

    The linear maps grow with numbers x latents: of long vectors they are nearly all parameters.
    """

    def __init__(
        self,
        config: StridedAutoencoderConfig,
        numbers: int,
        *,
        variational: bool,
        chunks: bool = False,
    ):
        super().__init__(config, numbers, variational=variational, chunks=chunks)
        kernel, latent = config.kernel, config.latent
        options = {"stride": 2, "padding": kernel // 2}
        self.length = config.length(numbers)
        down, enter = [], 1
        for leave in config.channels:
            down += [nn.Conv1d(enter, leave, kernel, **options), nn.BatchNorm1d(leave)]
            down.append(nn.LeakyReLU())
            enter = leave
        self.down = nn.Sequential(*down)
        self.to_latent = nn.Linear(self.length * enter, latent)
        self.mean = nn.Linear(latent, latent)
        if variational:
            self.log_variance = nn.Linear(latent, latent)
        self.from_latent = nn.Linear(latent, self.length * enter)
        up = []
        for leave in (*config.channels[-2::-1], config.channels[0]):
            up.append(nn.ConvTranspose1d(enter, leave, kernel, output_padding=1, **options))
            up += [nn.BatchNorm1d(leave), nn.ELU()]
            enter = leave
        self.up = nn.Sequential(*up, nn.Conv1d(enter, 1, kernel, padding=kernel // 2))

    def _hidden(self, x_BK: torch.Tensor) -> torch.Tensor:
        missing = self.length * 2 ** len(self.config.channels) - self.numbers
        x_BCW = functional.pad(x_BK, (0, missing)).unsqueeze(1)
        return self.to_latent(self.down(x_BCW).flatten(1))

    def _mean(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.mean(hidden)

    def _decode(self, latent_BL: torch.Tensor) -> torch.Tensor:
        x_BCW = self.from_latent(latent_BL).unflatten(1, (-1, self.length))
        return self.up(x_BCW).squeeze(1)[:, : self.numbers]


class Folded(VectorAutoencoder):
    """Stages of two convolutions, one of which folds; latents lie, or are clipped, within -1 and 1.

    Raises:
        ConfigError: a variational one, or vectors so short that one latent is left of them.
    """

    def __init__(
        self,
        config: FoldedAutoencoderConfig,
        numbers: int,
        *,
        variational: bool,
        chunks: bool = False,
    ):
        super().__init__(config, numbers, variational=variational, chunks=chunks)
        length = config.length(numbers)
        if variational:
            raise ConfigError(
                "codec.backbone.kind = 'folded' does not say how far latents may spread, and "
                "codec.kl is above 0: set kl = 0, or the kind strided"
            )
        if length < 2:
            raise ConfigError(
                f"codec.backbone.fold = {config.fold} over {len(config.encoder)} stages leaves "
                f"{length} latents a channel of {numbers} numbers, and 2 are needed: set a smaller "
                "fold or fewer stages, or the kind strided"
            )
        fold, down, up = config.fold, [], []
        entering = (config.encoder[0], *config.encoder[:-1])
        for i, (enter, leave) in enumerate(zip(entering, config.encoder, strict=True)):
            first = 1 if i == 0 else enter
            down += [nn.LeakyReLU()] if i else []
            down += [nn.InstanceNorm1d(first), nn.Conv1d(first, enter, fold, padding=1)]
            down += [nn.LeakyReLU(), nn.InstanceNorm1d(enter)]
            down.append(nn.Conv1d(enter, leave, fold, stride=fold))
        leaving = (*config.decoder[1:], 1)
        for i, (enter, leave) in enumerate(zip(config.decoder, leaving, strict=True)):
            padding = fold if i == len(leaving) - 1 else fold - 1
            up += [nn.LeakyReLU(), nn.InstanceNorm1d(enter)]
            up.append(nn.ConvTranspose1d(enter, enter, fold, stride=fold))
            up += [nn.LeakyReLU(), nn.InstanceNorm1d(enter)]
            up.append(nn.Conv1d(enter, leave, fold, padding=padding))
        self.down, self.up = nn.Sequential(*down, nn.Tanh()), nn.Sequential(*up)
        self.missing = config.padded(numbers) - numbers

    def _hidden(self, x_BK: torch.Tensor) -> torch.Tensor:
        return self.down(functional.pad(x_BK, (0, self.missing)).unsqueeze(1)).flatten(1)

    def _mean(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden

    def _decode(self, latent_BL: torch.Tensor) -> torch.Tensor:
        x_BCW = latent_BL.clamp(-1, 1).unflatten(1, (self.config.encoder[-1], -1))
        return self.up(x_BCW).squeeze(1)[:, : self.numbers]


class Perceptron(VectorAutoencoder):
    """Two hidden layers each way, with ReLU."""

    def __init__(
        self,
        config: PerceptronAutoencoderConfig,
        numbers: int,
        *,
        variational: bool,
        chunks: bool = False,
    ):
        super().__init__(config, numbers, variational=variational, chunks=chunks)
        hidden, latent = config.hidden, config.latent
        self.down = _hidden_layers(numbers, hidden)
        self.mean = nn.Linear(hidden, latent)
        if variational:
            self.log_variance = nn.Linear(hidden, latent)
        self.up = nn.Sequential(_hidden_layers(latent, hidden), nn.Linear(hidden, numbers))

    def _hidden(self, x_BK: torch.Tensor) -> torch.Tensor:
        return self.down(x_BK)

    def _mean(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.mean(hidden)

    def _decode(self, latent_BL: torch.Tensor) -> torch.Tensor:
        return self.up(latent_BL)


def _hidden_layers(enter: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(enter, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())


def build_autoencoder(
    config: VectorAutoencoderSettings, numbers: int, *, variational: bool, chunks: bool = False
) -> VectorAutoencoder:
    """Return an autoencoder of vectors.

    Args:
        config: its settings.
        numbers: of a vector.
        variational: whether it says how far latents may spread.
        chunks: whether vectors are chunks, and it is told which.

    Raises:
        ConfigError: it cannot be variational, or not for so short vectors.
    """
    make = find(AUTOENCODERS, config.kind)
    return make(config, numbers, variational=variational, chunks=chunks)
