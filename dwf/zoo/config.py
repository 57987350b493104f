"""Settings of a zoo: which networks, how each is trained, which rows are kept."""

import typing
from dataclasses import dataclass, field
from typing import Literal

from dwf.datasets.config import DataConfig
from dwf.networks.config import NetworkConfig
from dwf.settings import Count, Fraction, NonNegative, Positive, Whole

Optimizer = Literal["sgd", "adam", "adamw"]
Initialisation = Literal["default", "he", "xavier", "uniform", "normal"]


@dataclass(frozen=True)
class RecipeConfig:
    """How one network is trained. What `vary` lists differs from network to network."""

    epochs: Count = 5
    """Passes over the training images."""
    batch_size: Count = 64
    """Images of a step; the last batch of an epoch holds what is left."""
    optimizer: Optimizer = "adam"
    """`adam` adds weight decay to the gradient, `adamw` takes it off the weights."""
    learning_rate: Positive = 1e-3
    """At the start of the schedule."""
    weight_decay: NonNegative = 0.0
    """Strength of the pull to zero."""
    momentum: Fraction = 0.0
    """Of `sgd`; the others take no notice of it."""
    dropout: Fraction = 0.0
    """Share of hidden activations dropped while training."""
    initialisation: Initialisation = "default"
    """`default` is PyTorch's; the others set biases to 0 (see initialisation.py)."""
    schedule: Literal["constant", "cosine", "step"] = "constant"
    """Learning rate over the epochs: `cosine` falls to 0, `step` by `step_factor`."""
    step_epochs: Count = 10
    """Of `step`: epochs between two falls."""
    step_factor: Fraction = 0.1
    """Of `step`: what is left of the learning rate after a fall."""
    data_order: Literal["own", "shared"] = "own"
    """Whether each network has a shuffle of its own, or a cohort shares one (faster)."""


@dataclass(frozen=True)
class RangeConfig:
    """Values drawn for each network from a range, from a stream of its own."""

    low: float
    """Smallest value."""
    high: float
    """Largest value."""
    scale: Literal["linear", "log"] = "linear"
    """Whether values or their logarithms are uniform."""

    def __post_init__(self):
        if not self.low < self.high or (self.scale == "log" and self.low <= 0):
            raise ValueError(f"low = {self.low}, high = {self.high}: low < high, above 0 for log")


@dataclass(frozen=True)
class VaryConfig:
    """Hyper-parameters that differ between networks: a list (a grid, in turn) or a range."""

    learning_rate: tuple[Positive, ...] | RangeConfig | None = None
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

    def __post_init__(self):
        allowed = typing.get_type_hints(RecipeConfig, include_extras=True)
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
class SplitConfig:
    """Shares of the networks that generators never learn from."""

    val: Fraction = 0.1
    """For choices."""
    test: Fraction = 0.1
    """For reports."""

    def __post_init__(self):
        if self.val + self.test >= 1:
            raise ValueError(f"val + test = {self.val + self.test:g}: no network is left to learn")


@dataclass(frozen=True)
class ZooConfig:
    """A zoo."""

    network: NetworkConfig
    """The architecture."""
    data: DataConfig
    """What the networks are trained on."""
    count: Count
    """Number of networks."""
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    """How each is trained."""
    vary: VaryConfig = field(default_factory=VaryConfig)
    """What differs between them."""
    split: SplitConfig = field(default_factory=SplitConfig)
    """Which networks are held out."""
    seed: Whole = 0
    """Seed of every random stream of the zoo."""
    keep_epochs: tuple[Whole, ...] = ()
    """Epochs that become rows, 0 being the initialisation; default: the last."""
    cohort: Count | None = None
    """Networks trained together in one batched program; default: as many as fit a core's cache."""
    shard: Count = 64
    """Networks of a shard, the unit of work: one or more cohorts, one after the other."""
    save_seconds: Positive = 120.0
    """Seconds between two saves of a cohort in work."""

    def __post_init__(self):
        late = [epoch for epoch in self.keep_epochs if epoch > self.recipe.epochs]
        if late:
            raise ValueError(f"keep_epochs = {late}: the recipe ends at {self.recipe.epochs}")

    @property
    def num_shards(self) -> int:
        """How many shards the zoo has; follows from the settings, never from the machine."""
        return -(-self.count // self.shard)

    @property
    def epochs_kept(self) -> tuple[int, ...]:
        """The epochs that become rows, in order."""
        return tuple(sorted(set(self.keep_epochs))) or (self.recipe.epochs,)
