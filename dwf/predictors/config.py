"""Settings of the predictors, and the table of them."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from dwf.settings import Count, Fraction
from dwf.training.config import LoopConfig

PREDICTORS = {
    "constant": "dwf.predictors.constant:Constant",
    "weightnet": "dwf.predictors.weightnet:WeightNet",
}

Access = Literal["columns", "weights", "networks"]
"""How much of a network a predictor is shown: facts of its table, its weights, or the network
itself, which it may run on inputs of its own (function access)."""
Symmetry = Literal["permutations", "scales", "signs"]
"""Changes of the weights that leave the function a network computes as it is."""
Tokenisation = Literal["neuron", "global", "layer"]
"""Pieces of a network that are a token each: its units, chunks of its weights, its tensors."""
Columns = Literal["ordered", "sorted"]
"""How the incoming weights of a unit lie in its token."""
Canonical = Literal["none", "norm_sort", "activation_sort", "optimal_transport"]
"""Order of units that networks are brought into before they are looked at."""


class PredictorSettings:
    """Base of a predictor's settings: what it can do, and settings that not all have."""

    kind: ClassVar[str]
    access: ClassVar[Access] = "weights"
    """How much of a network it is shown."""
    training: ClassVar[LoopConfig | None] = None
    """How its module learns, where it has one."""

    @property
    def invariances(self) -> frozenset[Symmetry]:
        """Symmetries under which no prediction changes, by more than 1e-5 of the unit."""
        return frozenset()


class LearntPredictorSettings(PredictorSettings):
    """Base of the settings of a `LearntPredictor`, which have these as fields."""

    training: LoopConfig
    loss: Literal["mse", "mae", "huber", "bce"]
    """Loss in units of each property's standard deviation; `bce`: of values from 0 to 1, as they
    are."""


@dataclass(frozen=True)
class ConstantConfig(PredictorSettings):
    """The mean of the training networks: what predicts without looking."""

    access: ClassVar[Access] = "columns"

    kind: Literal["constant"] = "constant"

    @property
    def invariances(self) -> frozenset[Symmetry]:
        """All: it does not look."""
        return frozenset(("permutations", "scales", "signs"))


@dataclass(frozen=True)
class WeightNetConfig(LearntPredictorSettings):
    """WeightNet: attention within layers, then across them, over one token for each unit."""

    training: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=3000, learning_rate=1e-3, weight_decay=1e-4, clip_norm=1.0, keep="best"
        )
    )
    """Optimisation of the module."""
    loss: Literal["mse", "mae", "huber", "bce"] = "mse"
    """Loss in units of each property's standard deviation; `bce`: of values from 0 to 1, as they
    are."""
    tokens: Tokenisation = "neuron"
    """Pieces that are a token each: `neuron`, units and filters; `global`, chunks of 64 numbers of
    the flattened network; `layer`, tensors (statistics and 60 values of each)."""
    columns: Columns = "ordered"
    """Incoming weights of a unit's token, or values of a tensor's: `ordered`, as they lie;
    `sorted`, quantiles of those that another order of units may exchange, so that it changes
    nothing."""
    quantiles: Count = 16
    """Quantiles of each set of incoming weights that `columns` sorted takes."""
    canonical: Canonical = "norm_sort"
    """Order of units that networks are brought into first, their function kept: by the norm of what
    touches a unit, by how much it varies on training images, or by the assignment of each layer's
    units to those of one training network."""
    scale: Literal["none", "balanced"] = "none"
    """Scale of units that networks are brought to first: `balanced` rescales those of ReLU and the
    like until incoming and outgoing norms are equal."""
    signs: bool = False
    """Whether units that may change sign, as those of tanh, are first given a positive bias."""
    positions: bool = False
    """Whether the place of each token in the sequence is added to it (sine and cosine)."""
    width: Count = 64
    """Features of a token."""
    heads: Count = 4
    """Heads of attention within a layer."""
    cross_heads: Count = 8
    """Heads of attention across layers, and of the pooling."""
    depth: Count = 2
    """Blocks of attention within a layer."""
    cross_depth: Count = 2
    """Blocks of attention across layers."""
    hidden: Count = 256
    """Width of the perceptron in each block."""
    dropout: Fraction = 0.1
    """Share of features left out in training, of what each half of a block adds."""
    max_tokens: Count = 8192
    """Longest sequence; a network of more tokens is refused."""
    activation_images: Count = 512
    """Training images that `canonical` activation_sort looks at."""

    kind: Literal["weightnet"] = "weightnet"

    def __post_init__(self):
        for name, num in (("heads", self.heads), ("cross_heads", self.cross_heads)):
            if self.width % num:
                raise ValueError(
                    f"width = {self.width} is not a multiple of {name} = {num}: set another"
                )

    @property
    def invariances(self) -> frozenset[Symmetry]:
        """Permutations by a canonical order or by sets of sets; scales and signs by a frame."""
        sets = self.columns == "sorted" and self.tokens != "global" and not self.positions
        found: set[Symmetry] = set()
        if sets or self.canonical != "none":
            found.add("permutations")
        if self.scale == "balanced":
            found.add("scales")
        if self.signs:
            found.add("signs")
        return frozenset(found)


PredictorConfig = ConstantConfig | WeightNetConfig
