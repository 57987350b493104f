"""Settings of autoencoders of vectors; the table of them is in `config.py`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from dwf.checked import Checked, need_odd
from dwf.settings import Bounds, Count


class VectorAutoencoderSettings(Checked):
    """Base of the settings of autoencoders of vectors."""

    kind: ClassVar[str]

    def latents(self, numbers: int) -> int:
        """Return how many latents stand for a vector of so many numbers."""
        raise NotImplementedError

    def widest(self, numbers: int) -> int:
        """Return how many numbers the largest layer has for one vector."""
        raise NotImplementedError


@dataclass(frozen=True)
class StridedAutoencoderConfig(VectorAutoencoderSettings):
    """Convolutions of stride 2 and a linear map (p-diff's second version, arXiv 2402.13144)."""

    channels: tuple[Count, ...] = (64, 128, 256, 256, 32)
    """Channels of the encoder's layers, each of which halves the length; the decoder's in reverse.
    Published for whole networks: five layers as well."""
    kernel: Count = 7
    """Numbers that one number of a layer sees; odd."""
    latent: Count = 128
    """Latents of a network; published: 128 for 2,048 weights, 768 for whole networks."""
    kind: Literal["strided"] = "strided"
    """The architecture."""

    def __post_init__(self):
        if not self.channels:
            raise ValueError("channels = []: one layer or more is needed")
        need_odd(self, "kernel")

    def length(self, numbers: int) -> int:
        """Return how long the encoder's last layer is for vectors of so many numbers."""
        return -(-numbers // 2 ** len(self.channels))

    def latents(self, numbers: int) -> int:
        """Return how many latents stand for a vector: as many as are set."""
        return self.latent

    def widest(self, numbers: int) -> int:
        """Return how many numbers the decoder's last hidden layer has for one vector."""
        return self.length(numbers) * 2 ** len(self.channels) * max(self.channels)


@dataclass(frozen=True)
class FoldedAutoencoderConfig(VectorAutoencoderSettings):
    """Pairs of convolutions, one of which folds (p-diff's first version, arXiv 2402.13144).

    Published as `medium`; `small` is fold 3, encoder [2, 2, 2, 2], decoder [2, 64, 64, 8].
    """

    fold: Annotated[int, Bounds(3)] = 5
    """Kernel of every convolution, and how many times shorter each stage makes a vector; odd."""
    encoder: tuple[Count, ...] = (4, 4, 4, 4)
    """Channels that leave the encoder's stages."""
    decoder: tuple[Count, ...] = (4, 256, 256, 8)
    """Channels that enter the decoder's stages, of which there are as many."""
    kind: Literal["folded"] = "folded"
    """The architecture."""

    def __post_init__(self):
        need_odd(self, "fold")
        if len(self.encoder) != len(self.decoder) or self.encoder[-1:] != self.decoder[:1]:
            raise ValueError(
                f"encoder = {list(self.encoder)}, decoder = {list(self.decoder)}: as many stages "
                "are needed in both, and the decoder's first takes the encoder's last channels"
            )

    def padded(self, numbers: int) -> int:
        """Return the length that a vector is filled up to with zeros: more than its own."""
        unit = self.fold ** len(self.encoder)
        return (numbers // unit + 1) * unit

    def length(self, numbers: int) -> int:
        """Return how many latents a channel has."""
        length = self.padded(numbers)
        for _ in self.encoder:
            length = (length + 3 - self.fold) // self.fold
        return length

    def latents(self, numbers: int) -> int:
        """Return how many latents stand for a vector of so many numbers."""
        return self.encoder[-1] * self.length(numbers)

    def widest(self, numbers: int) -> int:
        """Return how many numbers the largest layer has for one vector, at most."""
        return self.padded(numbers) * max(self.encoder + self.decoder)


@dataclass(frozen=True)
class PerceptronAutoencoderConfig(VectorAutoencoderSettings):
    """Two hidden layers each way (VAE-Diffusion of CIFAR-10 TinyCNN)."""

    hidden: Count = 128
    """Width of the hidden layers."""
    latent: Count = 32
    """Latents of a network."""
    kind: Literal["perceptron"] = "perceptron"
    """The architecture."""

    def latents(self, numbers: int) -> int:
        """Return how many latents stand for a vector: as many as are set."""
        return self.latent

    def widest(self, numbers: int) -> int:
        """Return how many numbers the largest layer has for one vector."""
        return max(numbers, self.hidden)
