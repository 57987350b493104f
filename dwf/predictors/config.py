"""Settings of the predictors, and the table of them."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, TypeVar, get_args

from dwf.checked import Checked, refuse_idle
from dwf.predictors.head_config import (
    BoostingConfig,
    HeadConfig,
    PerceptronConfig,
    RidgeConfig,
    TargetKind,
)
from dwf.predictors.reading_config import MessagesConfig, ProbingConfig
from dwf.settings import Count, Fraction, RunName
from dwf.training.config import LoopConfig

PREDICTORS = {
    "architecture": "dwf.predictors.columns:Architecture",
    "codes": "dwf.predictors.codes:Codes",
    "combined": "dwf.predictors.combined:Combined",
    "constant": "dwf.predictors.constant:Constant",
    "flat": "dwf.predictors.flat:Flat",
    "graph": "dwf.predictors.graph:Graph",
    "hyper_parameters": "dwf.predictors.columns:HyperParameters",
    "norms": "dwf.predictors.statistics:Norms",
    "probes": "dwf.predictors.probes:Probes",
    "spectra": "dwf.predictors.spectral:Spectral",
    "statistics": "dwf.predictors.statistics:Statistics",
    "weightnet": "dwf.predictors.weightnet:WeightNet",
}
READERS = {
    "graph": "dwf.predictors.graph:GraphReader",
    "probes": "dwf.predictors.probes:ProbesReader",
    "statistics": "dwf.predictors.combined:StatisticsReader",
}
"""Readers by kind: each takes a vector off a network, and one head joins the vectors."""

Access = Literal["columns", "weights", "networks"]
"""How much of a network a predictor is shown: facts of its table, its weights, or the network
itself, which it may run on inputs of its own (function access)."""
Symmetry = Literal["permutations", "scales", "signs"]
"""Changes of the weights that leave the function a network computes as it is."""
_EVERY: frozenset[Symmetry] = frozenset(get_args(Symmetry))
Tokenisation = Literal["neuron", "global", "layer"]
"""Pieces of a network that are a token each: its units, chunks of its weights, its tensors."""
Columns = Literal["ordered", "sorted"]
"""How the incoming weights of a unit lie in its token."""
Canonical = Literal["none", "norm_sort", "activation_sort", "optimal_transport"]
"""Order of units that networks are brought into before they are looked at."""

Group = Literal["zoo", "architecture"]
"""Parts that test networks are looked at in."""
Settings = TypeVar("Settings", bound="PredictorSettings")


class PredictorSettings(Checked):
    """Base of a predictor's settings: what it can do, and settings that not all have."""

    kind: ClassVar[str]
    access: ClassVar[Access] = "weights"
    """How much of a network it is shown."""
    training: ClassVar[LoopConfig | None] = None
    """How its module learns, where it has one."""
    is_baseline: ClassVar[bool] = False
    """Whether reports mark it as one to beat."""

    @property
    def invariances(self) -> frozenset[Symmetry]:
        """Symmetries under which no prediction changes, by more than 1e-5 of the unit.

        Without a look at the weights none does; a kind that looks says which.
        """
        return frozenset() if self.access == "weights" else _EVERY

    def with_training(self: Settings, training: LoopConfig) -> Settings:
        """Return those of a predictor whose module learns so, where it has one."""
        return replace(self, training=training)


class LearntPredictorSettings(PredictorSettings):
    """Base of the settings of a `LearntPredictor`, which have these as fields."""

    training: LoopConfig
    loss: Literal["mse", "mae", "huber", "bce"]
    """Loss, of `targets`; `bce`: of values from 0 to 1, as they are."""
    targets: TargetKind
    """Targets that it learns; those of `bce` are shares."""

    def __post_init__(self):
        if self.loss == "bce":
            because = "loss = bce is of shares as they are: set mse, mae or huber for ranks"
            refuse_idle(self, "targets", by=("loss",), because=because)


class HeadedSettings(PredictorSettings):
    """Base of the settings of a predictor that gives features to a `head`, which is a field."""

    head: HeadConfig

    @property
    def training(self) -> LoopConfig | None:
        """How the head's module learns, where it has one."""
        return self.head.training

    def with_training(self: Settings, training: LoopConfig) -> Settings:
        """Return those of a predictor whose head learns so; see the base."""
        return replace(self, head=replace(self.head, training=training))


@dataclass(frozen=True)
class ArchitectureConfig(HeadedSettings):
    """The architecture alone: which of those that were learnt, parameters and depth."""

    access: ClassVar[Access] = "columns"
    is_baseline: ClassVar[bool] = True

    data: bool = True
    """Whether it is also told which data a network is for."""
    head: HeadConfig = field(default_factory=RidgeConfig)
    """Function from features to properties."""
    kind: Literal["architecture"] = "architecture"
    """The predictor."""


@dataclass(frozen=True)
class CodesConfig(HeadedSettings):
    """Codes of a generator that was fitted before: embeddings of SANE, scores on components."""

    generator: RunName
    """Run of the generator whose codec is used: its name, or its folder."""
    pool: Literal["mean", "layers", "none"] = "mean"
    """Embedding made of a sequence: the mean over its tokens, over those of each layer, or all its
    numbers; codes that are vectors are taken as they are."""
    head: HeadConfig = field(default_factory=RidgeConfig)
    """Function from embeddings to properties."""
    kind: Literal["codes"] = "codes"
    """The predictor."""


@dataclass(frozen=True)
class ConstantConfig(PredictorSettings):
    """The mean of the training networks: what predicts without looking."""

    access: ClassVar[Access] = "columns"
    is_baseline: ClassVar[bool] = True

    kind: Literal["constant"] = "constant"
    """The predictor."""


@dataclass(frozen=True)
class FlatConfig(HeadedSettings):
    """The weights themselves, as they lie in a row, each in units of its standard deviation."""

    is_baseline: ClassVar[bool] = True

    head: PerceptronConfig | RidgeConfig = field(default_factory=RidgeConfig)
    """Function from weights to properties."""
    kind: Literal["flat"] = "flat"
    """The predictor."""


@dataclass(frozen=True)
class HyperParametersConfig(HeadedSettings):
    """How networks were trained, and nothing else: columns of the zoo, settings of several zoos."""

    access: ClassVar[Access] = "columns"
    is_baseline: ClassVar[bool] = True

    columns: tuple[str, ...] = ()
    """Columns of the zoo that it is told; default: the epoch and what the zoo's `vary` lists. No
    score is allowed."""
    head: HeadConfig = field(default_factory=BoostingConfig)
    """Function from columns to properties."""
    kind: Literal["hyper_parameters"] = "hyper_parameters"
    """The predictor."""

    def __post_init__(self):
        for name in self.columns:
            if is_measured(name):
                raise ValueError(
                    f"columns has {name!r}, which is measured on networks or names them: "
                    "hyper_parameters is told only how they were trained"
                )


@dataclass(frozen=True)
class NormsConfig(HeadedSettings):
    """Norms of the weights: of the whole network, and of each layer."""

    is_baseline: ClassVar[bool] = True

    layers: bool = True
    """Whether it is also shown the norm of each layer."""
    head: HeadConfig = field(default_factory=RidgeConfig)
    """Function from norms to properties."""
    kind: Literal["norms"] = "norms"
    """The predictor."""

    @property
    def invariances(self) -> frozenset[Symmetry]:
        """Orders and signs of units change no norm; their scales do."""
        return frozenset(("permutations", "signs"))


@dataclass(frozen=True)
class SpectraConfig(HeadedSettings):
    """Spectra of the weight matrices: tail exponent, norms, stable rank and entropy of each."""

    head: HeadConfig = field(default_factory=BoostingConfig)
    """Function from spectral features to properties."""
    kind: Literal["spectra"] = "spectra"
    """The predictor."""

    @property
    def invariances(self) -> frozenset[Symmetry]:
        """Orders and signs of units turn a matrix, which leaves its singular values."""
        return frozenset(("permutations", "signs"))


@dataclass(frozen=True)
class StatisticsConfig(HeadedSettings):
    """Statistics of each tensor, so of weights and biases apart: StatNN (arXiv 2002.11448)."""

    is_baseline: ClassVar[bool] = True

    head: HeadConfig = field(default_factory=BoostingConfig)
    """Function from statistics to properties."""
    kind: Literal["statistics"] = "statistics"
    """The predictor."""

    @property
    def invariances(self) -> frozenset[Symmetry]:
        """Orders of units alone: scales and signs change moments and quantiles."""
        return frozenset(("permutations",))


def _of_messages(messages: MessagesConfig) -> frozenset[Symmetry]:
    if messages.gauge == "kept":
        return frozenset(("permutations",))
    return _EVERY


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
        """Settings of each reader of the network, by its kind in `READERS`."""
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
    """Loss, of `targets`; `bce`: of values from 0 to 1, as they are."""
    targets: TargetKind = "deviations"
    """Targets that it learns: `deviations` of properties from their means, or `ranks` among the
    training networks, as normal scores."""
    kind: Literal["probes"] = "probes"
    """The predictor."""

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
    """Loss, of `targets`; `bce`: of values from 0 to 1, as they are."""
    targets: TargetKind = "deviations"
    """Targets that it learns: `deviations` of properties from their means, or `ranks` among the
    training networks, as normal scores."""
    kind: Literal["graph"] = "graph"
    """The predictor."""

    @property
    def invariances(self) -> frozenset[Symmetry]:
        """Permutations; scales and signs where the gauge is fixed."""
        return _of_messages(self.messages)

    @property
    def readers(self) -> dict[str, object]:
        """Messages alone."""
        return {"graph": self.messages}


@dataclass(frozen=True)
class CombinedConfig(JoinedSettings):
    """Combined: several readings of a network side by side in one head."""

    parts: tuple[Literal["graph", "probes", "statistics"], ...] = ("graph", "probes", "statistics")
    """Readings of a network: its units and weights by messages, its responses to learnt probes, and
    the statistics of its tensors."""
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
    """Loss, of `targets`; `bce`: of values from 0 to 1, as they are."""
    targets: TargetKind = "deviations"
    """Targets that it learns: `deviations` of properties from their means, or `ranks` among the
    training networks, as normal scores."""
    kind: Literal["combined"] = "combined"
    """The predictor."""

    def __post_init__(self):
        super().__post_init__()
        if not self.parts or len(set(self.parts)) < len(self.parts):
            raise ValueError(f"parts = {list(self.parts)}: name at least one, and each once")

    @property
    def access(self) -> Access:
        """Networks where they are run on probes, else their weights."""
        return "networks" if "probes" in self.parts else "weights"

    @property
    def invariances(self) -> frozenset[Symmetry]:
        """Those of all its parts; statistics change with scales and signs."""
        if "statistics" in self.parts:
            return frozenset(("permutations",))
        return _of_messages(self.messages) if "graph" in self.parts else super().invariances

    @property
    def readers(self) -> dict[str, object]:
        """Its parts."""
        known = {"graph": self.messages, "probes": self.probing, "statistics": None}
        return {part: known[part] for part in self.parts}


_MEASURED = frozenset(
    ["accuracy", "loss", "error", "gap", "calibration", "robustness", "test", "diverged"]
)
_OF_THE_ROW = frozenset(("network", "seed", "split", "checksum"))


def is_measured(column: str) -> bool:
    """Whether a column is measured on networks or names them: nothing of how they were trained."""
    return column in _OF_THE_ROW or not _MEASURED.isdisjoint(column.replace(".", "_").split("_"))


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
    """Loss, of `targets`; `bce`: of values from 0 to 1, as they are."""
    targets: TargetKind = "deviations"
    """Targets that it learns: `deviations` of properties from their means, or `ranks` among the
    training networks, as normal scores."""
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
    """The predictor."""

    def __post_init__(self):
        super().__post_init__()
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


PredictorConfig = (
    ArchitectureConfig
    | CodesConfig
    | CombinedConfig
    | ConstantConfig
    | FlatConfig
    | GraphConfig
    | HyperParametersConfig
    | NormsConfig
    | ProbesConfig
    | SpectraConfig
    | StatisticsConfig
    | WeightNetConfig
)
