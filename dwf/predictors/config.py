"""Settings of the predictors, and the table of them."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from dwf.settings import Count, Fraction
from dwf.training.config import LoopConfig

PREDICTORS = {
    "combined": "dwf.predictors.combined:Combined",
    "constant": "dwf.predictors.constant:Constant",
    "graph": "dwf.predictors.graph:Graph",
    "probes": "dwf.predictors.probes:Probes",
}
READERS = {
    "graph": "dwf.predictors.graph:GraphReader",
    "probes": "dwf.predictors.probes:ProbesReader",
}
"""What reads a vector off a network, for the predictors that join such vectors in one head."""

Access = Literal["columns", "weights", "networks"]
"""How much of a network a predictor is shown: facts of its table, its weights, or the network
itself, which it may run on inputs of its own (function access)."""
Symmetry = Literal["permutations", "scales", "signs"]
"""Changes of the weights that leave the function a network computes as it is."""


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
class ProbingConfig:
    """Learnt inputs on which every network is run."""

    count: Count = 128
    """Probes."""
    latent: Count = 32
    """Numbers of the latent code that a probe is made of."""
    depth: Count = 3
    """Linear maps, one after the other, of the generator that makes probes of codes."""
    width: Count = 128
    """Numbers between two maps of the generator."""
    responses: Literal["logits", "probabilities", "both"] = "both"
    """Responses that the head is given of each network on each probe; logits x as
    x / (1 + |x| / 8)."""


@dataclass(frozen=True)
class MessagesConfig:
    """Messages between the units of a network along its weights."""

    width: Count = 64
    """Numbers that describe a unit, and a weight or a filter's kernel."""
    rounds: Count = 3
    """Rounds of messages."""
    vector: Count = 128
    """Numbers that the head is given of a network."""
    gauge: Literal["fixed", "kept"] = "fixed"
    """Scales and signs of units: `fixed`, units of ReLU balanced and those of tanh turned so that
    what makes them sums to no less than 0; `kept`, as they are."""

    @property
    def invariances(self) -> frozenset[Symmetry]:
        """Symmetries under which a network's vector stays."""
        if self.gauge == "kept":
            return frozenset(("permutations",))
        return frozenset(("permutations", "scales", "signs"))


def _peers_training() -> LoopConfig:
    return LoopConfig(
        steps=2000, batch_size=64, weight_decay=0.01, clip_norm=1.0, validate_every=100, keep="best"
    )


class JoinedSettings(LearntPredictorSettings):
    """Base of the settings of predictors that join vectors read off a network in one head."""

    hidden: tuple[Count, ...]
    """Units of the head's hidden layers."""
    dropout: Fraction
    """Share of the head's hidden activations dropped in training."""

    @property
    def readers(self) -> dict[str, object]:
        """What reads the vectors: kind of `READERS` -> its settings."""
        raise NotImplementedError


@dataclass(frozen=True)
class ProbesConfig(JoinedSettings):
    """Probes: networks are run on learnt inputs, a perceptron judges their responses."""

    access: ClassVar[Access] = "networks"

    probing: ProbingConfig = field(default_factory=ProbingConfig)
    """Probes, and what is looked at of the responses."""
    hidden: tuple[Count, ...] = (256, 128)
    """Units of the perceptron's hidden layers."""
    dropout: Fraction = 0.1
    """Share of the perceptron's hidden activations dropped in training."""
    training: LoopConfig = field(default_factory=_peers_training)
    """How probes and perceptron learn."""
    loss: Literal["mse", "mae", "huber", "bce"] = "mse"
    """Loss in units of each property's standard deviation; `bce`: of values from 0 to 1, as they
    are."""
    kind: Literal["probes"] = "probes"

    @property
    def invariances(self) -> frozenset[Symmetry]:
        """All: it sees nothing but the function."""
        return frozenset(("permutations", "scales", "signs"))

    @property
    def readers(self) -> dict[str, object]:
        """Probes alone."""
        return {"probes": self.probing}


@dataclass(frozen=True)
class GraphConfig(JoinedSettings):
    """Graph: messages between the units of a network along its weights, pooled by layer."""

    messages: MessagesConfig = field(default_factory=MessagesConfig)
    """Messages between units."""
    hidden: tuple[Count, ...] = (128,)
    """Units of the head's hidden layers."""
    dropout: Fraction = 0.1
    """Share of the head's hidden activations dropped in training."""
    training: LoopConfig = field(default_factory=_peers_training)
    """How it learns."""
    loss: Literal["mse", "mae", "huber", "bce"] = "mse"
    """Loss in units of each property's standard deviation; `bce`: of values from 0 to 1, as they
    are."""
    kind: Literal["graph"] = "graph"

    @property
    def invariances(self) -> frozenset[Symmetry]:
        """Permutations; scales and signs where the gauge is fixed."""
        return self.messages.invariances

    @property
    def readers(self) -> dict[str, object]:
        """Messages alone."""
        return {"graph": self.messages}


@dataclass(frozen=True)
class CombinedConfig(JoinedSettings):
    """Combined: several readings of a network side by side in one head."""

    parts: tuple[Literal["graph", "probes"], ...] = ("graph", "probes")
    """Readings of a network: units and weights by messages, or responses to learnt probes."""
    messages: MessagesConfig = field(default_factory=MessagesConfig)
    """Messages between units, for the part `graph`."""
    probing: ProbingConfig = field(default_factory=ProbingConfig)
    """Probes, for the part `probes`."""
    hidden: tuple[Count, ...] = (256, 128)
    """Units of the head's hidden layers."""
    dropout: Fraction = 0.1
    """Share of the head's hidden activations dropped in training."""
    training: LoopConfig = field(default_factory=_peers_training)
    """How all of it learns."""
    loss: Literal["mse", "mae", "huber", "bce"] = "mse"
    """Loss in units of each property's standard deviation; `bce`: of values from 0 to 1, as they
    are."""
    kind: Literal["combined"] = "combined"

    def __post_init__(self):
        if not self.parts or len(set(self.parts)) < len(self.parts):
            raise ValueError(f"parts = {list(self.parts)}: name at least one, and each once")

    @property
    def access(self) -> Access:
        """Networks where they are run on probes, else their weights."""
        return "networks" if "probes" in self.parts else "weights"

    @property
    def invariances(self) -> frozenset[Symmetry]:
        """Those of all its parts."""
        if "graph" in self.parts:
            return self.messages.invariances
        return frozenset(("permutations", "scales", "signs"))

    @property
    def readers(self) -> dict[str, object]:
        """Its parts."""
        known = {"graph": self.messages, "probes": self.probing}
        return {part: known[part] for part in self.parts}


PredictorConfig = CombinedConfig | ConstantConfig | GraphConfig | ProbesConfig
