"""Settings of a generator, and of drawing networks from one."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from dwf.codecs.config import CodecConfig, PcaConfig
from dwf.densities.config import DensityConfig, FlowConfig
from dwf.settings import Bounds, Count, Whole


@dataclass(frozen=True)
class GeneratorConfig:
    """Learn the distribution of a zoo's training networks, at their last epoch."""

    zoo: str
    """Name of the zoo to learn from; it lies in zoos/ under the root."""
    codec: CodecConfig = field(default_factory=PcaConfig)
    """How weights become codes."""
    density: DensityConfig = field(default_factory=FlowConfig)
    """What learns the distribution of the codes."""
    seed: Whole = 0
    """Seed of initialisation, batches and noise."""


@dataclass(frozen=True)
class SampleConfig:
    """Draw networks from a generator."""

    generator: str
    """Name of the generator; it lies in runs/ under the root."""
    count: Count = 100
    """How many networks."""
    seed: Whole = 0
    """Seed of the noise; a sample depends on the seed and its number alone."""
    solver: Literal["euler", "midpoint", "heun2", "rk4", "dopri5"] | None = None
    """Solver of a flow's differential equation; default: the generator's own."""
    steps: Count | None = None
    """Its number of steps (not of `dopri5`, which chooses them); default: the generator's own."""
    batchnorm: Literal["template", "recalibrated"] = "template"
    """Running statistics written with networks that have BatchNorm: as decoded, which is the mean
    over the training networks unless the codec covers `buffers`; or each network's own, re-
    estimated on training images. An evaluation re-estimates them in any case."""
    batchnorm_images: Annotated[int, Bounds(2)] = 2000
    """Training images on which they are re-estimated; all, where there are fewer."""
