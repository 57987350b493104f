"""Settings of a zoo: which networks, how each is trained, which rows are kept."""

import math
import re
import typing
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

from dwf.checked import Checked, refuse_idle
from dwf.compute import ComputeConfig
from dwf.datasets.config import AnyDataConfig
from dwf.networks.config import NetworkConfig
from dwf.settings import (
    Count,
    Expert,
    Fraction,
    NonNegative,
    Positive,
    PositiveFraction,
    Rate,
    Whole,
)

Optimizer = Literal["sgd", "adam", "adamw"]
Initialisation = Literal[
    "default",
    "he",
    "he_normal",
    "xavier",
    "xavier_normal",
    "orthogonal",
    "uniform",
    "normal",
    "truncated_normal",
]

_MLPS_OF_SHARD, _OTHERS_OF_SHARD, _LEAST_SHARDS = 64, 8, 16
_FEWEST_SCORED = 100  # training images of its own that a network's accuracy is measured on


@dataclass(frozen=True)
class AugmentConfig(Checked):
    """How training images are changed at random, each time they are seen; pixels as stored.

    Crop, flip, then (with `jitter_probability`) brightness, contrast and saturation.
    """

    flip: Fraction = 0.0
    """Probability that an image is mirrored left to right."""
    pad: Whole = 0
    """Black pixels put around an image before a part of its own size is cut out at random."""
    jitter: Fraction = 0.0
    """Brightness, contrast and saturation are multiplied with factors of 1 - this to 1 + this."""
    jitter_probability: Fraction = 1.0
    """Probability that an image's colours are changed."""


@dataclass(frozen=True)
class PruneConfig(Checked):
    """Weights of least magnitude are set to 0 and held there; biases and norms are left alone."""

    share: Fraction = 0.5
    """Share of each weight tensor that is 0 in the end."""
    from_epoch: Count = 1
    """The first pruning is at the start of this epoch, the first being 1."""
    rounds: Count = 1
    """Prunings, each of which takes an equal part of the share."""
    every: Count = 1
    """Epochs between two prunings."""

    def __post_init__(self):
        if self.rounds == 1:
            because = "rounds = 1 prunes once: set more"
            refuse_idle(self, "every", by=("rounds",), because=because)

    @property
    def last_epoch(self) -> int:
        """The epoch at whose start the share is reached, the first being 1."""
        return self.from_epoch + (self.rounds - 1) * self.every


@dataclass(frozen=True)
class RecipeConfig(Checked):
    """How one network is trained. What `vary` lists differs from network to network."""

    epochs: Count = 5
    """Passes over the training images."""
    batch_size: Count = 64
    """Images of a step; the last batch of an epoch holds what is left."""
    optimizer: Optimizer = "adam"
    """`adam` adds weight decay to the gradient, `adamw` takes it off the weights."""
    learning_rate: Rate = 1e-3
    """Learning rate at the start of the schedule; the largest of `one_cycle`."""
    weight_decay: NonNegative = 0.0
    """Strength of the pull to zero."""
    momentum: Fraction = 0.0
    """Momentum of `sgd`; the other optimisers ignore it."""
    nesterov: bool = False
    """Whether `sgd` looks ahead by its momentum."""
    dropout: Fraction = 0.0
    """Share of hidden activations dropped while training; where a network has dropout layers of
    its own, 0 leaves them as they are."""
    initialisation: Initialisation = "default"
    """`default` is PyTorch's; the others set biases to 0 (see initialisation.py)."""
    initialisation_scale: Positive | None = None
    """Factor of the initial weights of linear, convolution and attention layers, biases left alone:
    `normal` has a deviation of 0.02 times this; default: 1."""
    data_share: PositiveFraction | None = None
    """Share of the training images that a network sees, its own, drawn by its seed; an epoch keeps
    the steps of the whole part, so that fewer images are seen more often; default: all."""
    label_smoothing: Fraction = 0.0
    """Share of a label's probability that is spread over all classes."""
    clip_norm: Positive | None = None
    """Largest norm of a network's gradient; a larger one is scaled down."""
    schedule: Literal["constant", "cosine", "step", "multistep", "one_cycle"] = "constant"
    """Learning rate over the epochs: `cosine` falls to 0; `step` is multiplied by `gamma` every
    `step_size`, `multistep` at `milestones`; `one_cycle` rises and falls step by step, as torch's
    OneCycleLR."""
    schedule_by: Literal["epoch", "step"] = "epoch"
    """Whether the learning rate changes between epochs or between steps."""
    schedule_length: Count | None = None
    """Epochs (or steps, as `schedule_by` says) until `cosine` is at its lowest rate, from where it
    rises again; default: all."""
    warm_up: Whole = 0
    """Epochs (or steps) at the start in which the learning rate rises evenly."""
    step_size: Count = 10
    """Epochs (or steps) between two falls of `step`."""
    gamma: Fraction = 0.1
    """Factor of the learning rate at each fall of `step` or `multistep`."""
    milestones: tuple[Count, ...] = ()
    """Epochs (or steps) after which `multistep` lowers the learning rate."""
    augment: AugmentConfig | None = None
    """How training images are changed at random; default: not at all."""
    prune: PruneConfig | None = None
    """Which weights are 0; default: those that training makes so."""
    data_order: Literal["own", "shared"] = "own"
    """Whether each network has a shuffle of its own, or a cohort shares one (faster)."""

    def __post_init__(self):
        if self.schedule == "multistep" and not self.milestones:
            raise ValueError("schedule = multistep needs milestones: set them, or another schedule")
        self._refuse_idle_schedule()
        if self.prune and self.prune.last_epoch > self.epochs:
            raise ValueError(
                f"prune ends at epoch {self.prune.last_epoch}, the recipe at {self.epochs}"
            )

    def _refuse_idle_schedule(self) -> None:
        """Raise for settings of another schedule than this one."""
        idle = partial(refuse_idle, self, by=("schedule",))
        if self.schedule != "multistep":
            idle("milestones", because="they are of schedule = multistep: set that")
        if self.schedule not in ("step", "multistep"):
            idle("gamma", because=f"schedule = {self.schedule} has no falls")
        if self.schedule != "step":
            idle("step_size", because="it is of schedule = step: set that")
        if self.schedule != "cosine":
            idle("schedule_length", because="it is of schedule = cosine: set that")
        if self.schedule == "one_cycle":
            idle("warm_up", "schedule_by", because="one_cycle rises and falls step by step")


@dataclass(frozen=True)
class KeepAbove(Checked):
    """Rows are the epochs at whose end a network is good on validation images."""

    accuracy: Fraction
    """Least accuracy on validation images."""
    rows: Count = 250
    """Most rows of a network; it is trained no further."""
    kind: Literal["above"] = "above"
    """Which rows are kept."""

    def most_rows(self, epochs: int) -> int:
        """Return the most rows of a network trained for some epochs."""
        return min(self.rows, epochs)


@dataclass(frozen=True)
class KeepBest(Checked):
    """A network's row is its epoch of best accuracy on validation images."""

    patience: Count | None = None
    """Epochs without a better one after which a network is trained no further."""
    kind: Literal["best"] = "best"
    """Which rows are kept."""

    def most_rows(self, epochs: int) -> int:
        """Return the most rows of a network."""
        return 1


@dataclass(frozen=True)
class KeepSteps(Checked):
    """Rows follow each other by few steps, after the recipe's epochs, in which few layers learn.

    Source: p-diff (arXiv 2402.13144), section 2: k checkpoints of chosen layers from one run.
    """

    rows: Count = 200
    """Rows of a network."""
    layers: str = ".*"
    """The parameters that go on learning: a regular expression found in their names."""
    every: Count = 1
    """Steps between two rows."""
    optimizer: Optimizer = "adamw"
    """Optimiser of the steps between rows."""
    learning_rate: Rate = 1e-3
    """Learning rate of the steps between rows, constant."""
    weight_decay: NonNegative = 0.0
    """Weight decay of the steps between rows."""
    kind: Literal["steps"] = "steps"
    """Which rows are kept."""

    def most_rows(self, epochs: int) -> int:
        """Return the most rows of a network."""
        return self.rows

    def __post_init__(self):
        try:
            re.compile(self.layers)
        except re.error as error:
            raise ValueError(f"layers = {self.layers!r}: no regular expression: {error}") from None


@dataclass(frozen=True)
class RangeConfig(Checked):
    """Values drawn for each network from a range, from a stream of its own."""

    low: NonNegative
    """Smallest value."""
    high: Positive
    """Largest value."""
    scale: Literal["linear", "log"] = "linear"
    """Whether values or their logarithms are uniform."""

    def __post_init__(self):
        if not self.low < self.high or (self.scale == "log" and self.low <= 0):
            raise ValueError(f"low = {self.low}, high = {self.high}: low < high, above 0 for log")


@dataclass(frozen=True)
class VaryConfig(Checked):
    """Hyper-parameters that differ between networks: a list (a grid, in turn) or a range."""

    learning_rate: tuple[Rate, ...] | RangeConfig | None = None
    """Learning rates."""
    weight_decay: tuple[NonNegative, ...] | RangeConfig | None = None
    """Weight decays."""
    momentum: tuple[Fraction, ...] | RangeConfig | None = None
    """Momenta."""
    dropout: tuple[Fraction, ...] | RangeConfig | None = None
    """Dropout rates."""
    optimizer: tuple[Optimizer, ...] | None = None
    """Optimisers."""
    initialisation: tuple[Initialisation, ...] | None = None
    """Initialisations."""
    initialisation_scale: tuple[Positive, ...] | RangeConfig | None = None
    """Factors of the initial weights, see `recipe.initialisation_scale`."""
    data_share: tuple[PositiveFraction, ...] | RangeConfig | None = None
    """Shares of the training images, see `recipe.data_share`."""
    flip: tuple[Fraction, ...] | RangeConfig | None = None
    """Probabilities of `recipe.augment.flip`."""
    pad: tuple[Whole, ...] | None = None
    """Black pixels of `recipe.augment.pad`."""
    jitter: tuple[Fraction, ...] | RangeConfig | None = None
    """Strengths of `recipe.augment.jitter`."""
    prune_share: tuple[Fraction, ...] | RangeConfig | None = None
    """Shares of `recipe.prune.share`."""

    def __post_init__(self):
        allowed = typing.get_type_hints(RecipeConfig, include_extras=True)
        allowed |= typing.get_type_hints(AugmentConfig, include_extras=True)
        allowed |= {
            "prune_share": Fraction,
            "initialisation_scale": Positive,
            "data_share": PositiveFraction,
        }
        for name, values in vars(self).items():
            if values == ():
                raise ValueError(f"{name} = []: a list of at least one value, or a range")
            if isinstance(values, RangeConfig):
                (bounds,) = typing.get_args(allowed[name])[1:]
                if values.low not in bounds or values.high not in bounds:
                    raise ValueError(
                        f"{name} from {values.low:g} to {values.high:g}: allowed is {bounds}"
                    )


@dataclass(frozen=True)
class SplitConfig(Checked):
    """Shares of the networks that generators never learn from."""

    val: Fraction = 0.1
    """Share of the networks held out for choices."""
    test: Fraction = 0.1
    """Share of the networks held out for reports."""

    def __post_init__(self):
        if self.val + self.test >= 1:
            raise ValueError(f"val + test = {self.val + self.test:g}: no network is left to learn")


def split_sizes(count: int, val: float, *, test: float) -> tuple[int, int, int]:
    """Return how many of `count` networks are for training, for choices and for reports."""
    num_val, num_test = round(val * count), round(test * count)
    return count - num_val - num_test, num_val, num_test


@dataclass(frozen=True)
class ZooComputeConfig(ComputeConfig):
    """Where and how networks are trained; planning looks for a GPU, and saves are a cohort's."""

    channels_last: bool | None = None
    """Whether images and filters lie in memory with channels last; default: as a short timing finds
    fastest."""
    save_seconds: Positive = 120.0
    """Seconds between two saves of a cohort in work."""


@dataclass(frozen=True)
class ZooConfig(Checked):
    """A zoo."""

    network: NetworkConfig
    """The architecture."""
    data: AnyDataConfig
    """Dataset that the networks are trained on."""
    count: Count
    """Number of networks; with `first`, those before it count."""
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    """How each is trained."""
    vary: VaryConfig = field(default_factory=VaryConfig)
    """Hyper-parameters that differ between networks."""
    split: SplitConfig = field(default_factory=SplitConfig)
    """Which networks are held out."""
    seed: Whole = 0
    """Seed of every random stream of the zoo."""
    keep_epochs: tuple[Whole, ...] = ()
    """Epochs that become rows, 0 being the initialisation; default: the last."""
    keep: KeepAbove | KeepBest | KeepSteps | None = None
    """Rows that are chosen otherwise: `above` an accuracy, the `best` epoch, or `steps` after the
    last epoch."""
    train_scores: Annotated[Count | None, Expert()] = None
    """Training images that a row's `train_accuracy` is measured on, the first of the part; default:
    all."""
    cohort: Annotated[Count | None, Expert()] = None
    """Networks trained together in one batched program; default: of MLPs as many as fit a core's
    cache, of others what a short timing finds fastest."""
    shard: Annotated[Count | None, Expert()] = None
    """Networks of a shard, the unit of work: one or more cohorts, one after the other; default: 64
    MLPs, of others so few that sixteen workers have some."""
    compute: ZooComputeConfig = field(default_factory=ZooComputeConfig)
    """Device, arithmetic and saving."""
    first: Count | None = None
    """Number of the first network, where those before it are another zoo's, which this one widens;
    a larger `count` of a finished zoo sets it."""

    def __post_init__(self):
        if self.first is not None and self.first >= self.count:
            raise ValueError(f"first = {self.first}, count = {self.count}: count must be larger")
        late = [epoch for epoch in self.keep_epochs if epoch > self.recipe.epochs]
        if late:
            raise ValueError(f"keep_epochs = {late}: the recipe ends at {self.recipe.epochs}")
        if self.keep and self.keep_epochs:
            raise ValueError(
                f"keep_epochs = {list(self.keep_epochs)} and keep.kind = {self.keep.kind!r}: give "
                "one of them"
            )
        if isinstance(self.keep, KeepAbove | KeepBest) and not self.data.validation:
            raise ValueError(
                f"keep.kind = {self.keep.kind!r}, data.validation = 0: it needs some, as 0.1"
            )
        self._refuse_vary_without_base()
        refuse_idle_recipe(self, self.vary)

    def _refuse_vary_without_base(self) -> None:
        """Raise if `vary` is about a part of the recipe that is not there."""
        parts = {"flip": "augment", "pad": "augment", "jitter": "augment", "prune_share": "prune"}
        for name, part in parts.items():
            if getattr(self.vary, name) is not None and getattr(self.recipe, part) is None:
                raise ValueError(f"vary.{name} without recipe.{part}: give `{part}: {{}}` there")
        varied = [n for n in ("flip", "pad", "jitter") if getattr(self.vary, n) is not None]
        if varied and self.recipe.data_order == "shared":
            raise ValueError(
                f"vary.{varied[0]} with recipe.data_order = 'shared': a cohort then sees the same "
                "changed images; give data_order: own"
            )
        self._refuse_shares()

    def _refuse_shares(self) -> None:
        """Raise if networks cannot have training images of their own, or too few are scored."""
        least = self.least_share
        if least is None:
            return
        if self.recipe.data_order == "shared":
            raise ValueError(
                "data_share with recipe.data_order = 'shared': a cohort then sees the same images; "
                "give data_order: own"
            )
        if self.train_scores is not None and least * self.train_scores < _FEWEST_SCORED:
            enough = math.ceil(_FEWEST_SCORED / least)
            raise ValueError(
                f"train_scores = {self.train_scores} with a data_share of {least:g}: a network is "
                f"scored on those of them that are its own, about {least * self.train_scores:.0f}; "
                f"give train_scores of at least {enough}, or leave it out"
            )

    @property
    def least_share(self) -> float | None:
        """The smallest share of the training images that a network may have; None: all see all."""
        varied = self.vary.data_share
        if varied is None:
            return self.recipe.data_share
        return varied.low if isinstance(varied, RangeConfig) else min(varied)

    @property
    def shard_size(self) -> int:
        """Networks of a shard; follows from the settings, never from the machine."""
        if self.shard is not None:
            return self.shard
        if self.network.is_stacked:
            return _MLPS_OF_SHARD
        return max(1, min(self.count // _LEAST_SHARDS, _OTHERS_OF_SHARD))

    @property
    def num_shards(self) -> int:
        """How many shards the zoo has; follows from the settings, never from the machine."""
        return -(-self.count // self.shard_size) - (self.first or 0) // self.shard_size

    @property
    def num_networks(self) -> int:
        """How many networks are trained here."""
        return self.count - (self.first or 0)

    @property
    def epochs_kept(self) -> tuple[int, ...]:
        """The epochs that become rows whatever comes of them, in order."""
        if self.keep:
            return ()
        return tuple(sorted(set(self.keep_epochs))) or (self.recipe.epochs,)

    @property
    def most_rows(self) -> int:
        """Most rows of a network."""
        return self.keep.most_rows(self.recipe.epochs) if self.keep else len(self.epochs_kept)


def refuse_idle_recipe(config: Checked, vary: VaryConfig) -> None:
    """Raise for settings of a recipe that none of the networks trained by it would follow.

    Args:
        config: settings that have the recipe, and maybe `vary`.
        vary: what differs between networks.

    Raises:
        Idle: there are such settings.
    """
    recipe: RecipeConfig = vars(config)["recipe"]
    kinds = vary.optimizer or (recipe.optimizer,)
    if "sgd" not in kinds:
        idle = ["recipe.momentum", "recipe.nesterov", *(["vary.momentum"] if vary.momentum else ())]
        by = ("recipe.optimizer", "vary.optimizer")
        because = f"optimizer = {', '.join(kinds)} has none of it: set sgd"
        refuse_idle(config, *idle, by=by, because=because)
    if not (recipe.momentum or vary.momentum):
        by = ("recipe.momentum", "vary.momentum")
        refuse_idle(config, "recipe.nesterov", by=by, because="momentum = 0: set that above 0")
    if recipe.augment and not (recipe.augment.jitter or vary.jitter):
        refuse_idle(
            config,
            "recipe.augment.jitter_probability",
            by=("recipe.augment.jitter", "vary.jitter"),
            because="jitter = 0 changes no colour: set that",
        )


def is_test_score(column: str) -> bool:
    """Whether a column was measured on test images, which reports alone may read."""
    return "test" in column.split("_")
