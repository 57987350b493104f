"""Settings of an evaluation."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from dwf.checked import Checked
from dwf.settings import Bounds, Count, Fraction, Name, NameOrPath, Positive, Whole

Strategy = Literal["none", "reference", "recalibrated"]
AnalysisName = Literal[
    "reverse", "wrong_answers", "classes", "checkpoints", "logits", "methods", "all"
]
"""Analyses that a report may have beside its tables; `all`: every one."""


@dataclass(frozen=True)
class BatchNormConfig(Checked):
    """With which running statistics BatchNorm works in networks that nobody trained.

    Originals and held-out networks keep their own. Networks without BatchNorm are not concerned.
    """

    images: Annotated[int, Bounds(2)] = 2000
    """Training images on which statistics are re-estimated; all, where there are fewer."""
    score: Literal["reference", "recalibrated"] = "recalibrated"
    """Statistics that samples and baselines are judged with: `reference`, the mean of the training
    networks'; `recalibrated`, their own on training images."""
    compare: tuple[Strategy, ...] = ("none", "reference", "recalibrated")
    """Statistics that samples, held-out networks and averages are also scored with, for comparison;
    `none` is mean 0 and variance 1."""


@dataclass(frozen=True)
class EvaluateConfig(Checked):
    """Sample zoos held against the zoo that their generators learnt from."""

    zoo: Name
    """Zoo that the generators learnt from, in their frame (the aligned one)."""
    samples: tuple[NameOrPath, ...] = ()
    """Zoos of generated networks, or files of networks (`.safetensors .pt .npz`) and folders of
    such; they are put into the zoo's frame."""
    label: tuple[str, ...] = ()
    """Short titles of the samples in tables and figures, in their order; default: in words what
    drew them (`flow over neuron tokens`)."""
    split: Literal["test", "val"] = "test"
    """Held-out networks and images that are scored: `test` for reports; `val` for choices between
    settings, which then see nothing of the test networks and test images."""
    noise: tuple[Positive, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    """Baselines: noise around a training network, in standard deviations of each weight."""
    averages: tuple[Count | Literal["all"], ...] = (2, 4, 16, "all")
    """Baselines: averages of k random training networks; `all` is one network."""
    plain_averages: bool = False
    """Make the same averages of the networks as they were trained, too; of an aligned zoo, beside
    which that zoo lies."""
    bar: Fraction = 0.9
    """Accuracy of the fixed bar in the profile, beside those that the originals set."""
    count: Annotated[int, Bounds(2)] = 100
    """Networks drawn for each baseline."""
    seed: Whole = 0
    """Seed of the baselines."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; `auto` takes a GPU if there is one."""
    batchnorm: BatchNormConfig = field(default_factory=BatchNormConfig)
    """Statistics of networks with BatchNorm."""
    by: str | None = None
    """Column of the zoo (`initialisation`) by whose values a table splits every set. Samples count
    as what they were asked for, else, as baselines, as the training network nearest to them."""
    analyses: tuple[AnalysisName, ...] = ()
    """Sections that the report has besides, with figures: accuracy on the way from noise
    (`reverse`), similarity of `wrong_answers`, `classes` that are answered, similarity against the
    number of `checkpoints` learnt from, distances of `logits`, all `methods` by all measures; or
    `all`."""
    workers: Count | None = None
    """Networks that are scored at a time, where they are not computed together (on a CPU all but
    MLPs); default: one for each thread that torch may use."""


@dataclass(frozen=True)
class ReconstructionConfig(Checked):
    """Networks of a generator's zoo, held against what its codec makes of them."""

    zoo: Name | None = None
    """Another zoo that the codec learnt from (one of `codec_zoos`); default: the generator's."""
    split: Literal["test", "val"] = "test"
    """Held-out networks and images that are scored: `test` for reports; `val` for choices."""
    networks: Count = 50
    """Held-out networks at most, drawn where there are more; of the training networks as many."""
    images: Annotated[int, Bounds(2)] = 2000
    """Training images on which BatchNorm's running statistics are re-estimated."""
    seed: Whole = 0
    """Seed of the draw."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks are scored; `auto` takes a GPU if there is one."""
    workers: Count | None = None
    """Networks that are scored at a time; see `EvaluateConfig.workers`."""
