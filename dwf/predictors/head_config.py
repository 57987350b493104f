"""Settings of the heads of predictors, functions from features to properties, and their table."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from dwf.checked import Checked
from dwf.settings import Count, Fraction, NonNegative, Positive, Rate
from dwf.training.config import LoopConfig

TargetKind = Literal["deviations", "ranks"]
"""Targets made of the values of properties."""
HEADS = {
    "boosting": "dwf.predictors.boosting:Boosting",
    "perceptron": "dwf.predictors.perceptron:Perceptron",
    "ridge": "dwf.predictors.ridge:Ridge",
}


class HeadSettings(Checked):
    """Base of the settings of a head: the function from features to properties."""

    kind: ClassVar[str]
    targets: TargetKind
    """Targets that it learns."""
    training: ClassVar[LoopConfig | None] = None
    """How its module learns, where it has one."""


@dataclass(frozen=True)
class BoostingConfig(HeadSettings):
    """Gradient-boosted trees, an ensemble for each property; how many, validation networks say."""

    trees: Count = 2000
    """Most trees of a property."""
    patience: Count = 50
    """Trees without a lower error on validation networks after which no more are grown."""
    learning_rate: Rate = 0.05
    """Share of its own answer that each tree adds."""
    leaves: Count = 31
    """Most leaves of a tree."""
    least_in_leaf: Count = 20
    """Fewest training networks in a leaf."""
    features: Fraction = 0.5
    """Share of the features, drawn anew, among which each tree may choose."""
    networks: Fraction = 0.8
    """Share of the training networks, drawn anew, that each tree is grown from."""
    penalty: NonNegative = 1.0
    """Penalty on the squares of the leaves' answers."""
    targets: TargetKind = "deviations"
    """Targets that it learns: `deviations` of properties from their means, or `ranks` among the
    training networks, as normal scores."""
    kind: Literal["boosting"] = "boosting"
    """The head."""


@dataclass(frozen=True)
class PerceptronConfig(HeadSettings):
    """A perceptron with hidden layers, one for all properties."""

    width: Count = 256
    """Units of a hidden layer."""
    depth: Count = 2
    """Hidden layers."""
    dropout: Fraction = 0.1
    """Share of hidden activations dropped while training."""
    loss: Literal["mse", "mae", "huber"] = "mse"
    """Loss, of `targets`."""
    targets: TargetKind = "deviations"
    """Targets that it learns: `deviations` of properties from their means, or `ranks` among the
    training networks, as normal scores."""
    training: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=4000, weight_decay=0.01, validate_every=200, keep="best"
        )
    )
    """How it learns; validation networks choose the step, unless `keep` is `last`."""
    kind: Literal["perceptron"] = "perceptron"
    """The head."""


@dataclass(frozen=True)
class RidgeConfig(HeadSettings):
    """A linear map with a penalty on its squares, of each property that of the validation networks.

    Penalties count as scikit-learn's `alpha`: beside the sum of squared errors, of features and
    values as `targets` has them.
    """

    smallest: Positive = 1e-4
    """Smallest penalty."""
    largest: Positive = 1e6
    """Largest penalty."""
    penalties: Count = 41
    """Number of penalties, evenly spaced by their logarithms."""
    targets: TargetKind = "deviations"
    """Targets that it learns: `deviations` of properties from their means, or `ranks` among the
    training networks, as normal scores."""
    kind: Literal["ridge"] = "ridge"
    """The head."""

    def __post_init__(self):
        if self.smallest > self.largest:
            raise ValueError(f"smallest = {self.smallest:g} is above largest = {self.largest:g}")


HeadConfig = BoostingConfig | PerceptronConfig | RidgeConfig
