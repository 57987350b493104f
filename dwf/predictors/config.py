"""Settings of the predictors, and the table of them."""

import re
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal, TypeVar

import tyro

from dwf.settings import Count, Fraction, Whole
from dwf.training.config import LoopConfig

PREDICTORS = {
    "constant": "dwf.predictors.constant:Constant",
}

Access = Literal["columns", "weights", "networks"]
"""How much of a network a predictor is shown: facts of its table, its weights, or the network
itself, which it may run on inputs of its own (function access)."""
Symmetry = Literal["permutations", "scales", "signs"]
"""Changes of the weights that leave the function a network computes as it is."""

Group = Literal["zoo", "architecture"]
"""Parts that test networks are looked at in."""
Settings = TypeVar("Settings", bound="PredictorSettings")


class PredictorSettings:
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
        """Symmetries under which no prediction changes, by more than 1e-5 of the unit."""
        return frozenset()

    def with_training(self: Settings, training: LoopConfig) -> Settings:
        """Return those of a predictor whose module learns so, where it has one."""
        return replace(self, training=training)


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
    is_baseline: ClassVar[bool] = True

    kind: Literal["constant"] = "constant"

    @property
    def invariances(self) -> frozenset[Symmetry]:
        """All: it does not look."""
        return frozenset(("permutations", "scales", "signs"))


PredictorConfig = ConstantConfig


# --- an experiment ------------------------------------------------------------------------------

SplitRule = Literal["own", "network", "draw", "zoo", "architecture", "data"]
_NAME = re.compile(r"[\w.+-]+")


@dataclass(frozen=True)
class PartsConfig:
    """Networks that rows learn from, that choices are made by, and that rows are judged by.

    Rows of one network are never in two of these.
    """

    by: SplitRule = "own"
    """`own`: as each zoo was split when it was made; `network`: drawn anew; `draw`: networks of one
    draw of hyper-parameters stay together, over all zoos; `zoo`, `architecture`, `data`: whole
    groups are held out for the test, and others are split as each zoo was."""
    val: Fraction = 0.1
    """Share of networks, or of draws, held out for choices; of `network` and `draw` alone."""
    test: Fraction = 0.2
    """Share of networks, or of draws, held out for the report; of `network` and `draw` alone."""
    held_out: tuple[str, ...] = ()
    """Names of the groups that are held out for the test: zoos, kinds of networks or data sets; of
    `zoo`, `architecture` and `data` alone, which need one."""

    def __post_init__(self):
        if self.val + self.test >= 1:
            raise ValueError(f"val + test = {self.val + self.test:g}: no network is left to learn")
        if (self.by in ("zoo", "architecture", "data")) != bool(self.held_out):
            raise ValueError(
                f"by = {self.by!r} with held_out = {list(self.held_out)}: zoo, architecture and "
                "data need the names of the groups that are held out, and no other takes them"
            )


@dataclass(frozen=True)
class ExperimentConfig:
    """Many predictors on the same networks and properties, side by side."""

    zoos: tuple[str, ...]
    """Zoos of the networks, or manifests of several, by name."""
    rows: Annotated[dict[str, PredictorConfig], tyro.conf.Fixed, tyro.conf.SuppressFixed]
    """Predictors by name."""
    properties: tuple[str, ...] = ("test_accuracy",)
    """Columns that are told: of the zoos, measured ones, or `generalisation_gap`."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(name="rows")] = ()
    """Rows that are fitted now, by name; default: all."""
    split: PartsConfig = field(default_factory=PartsConfig)
    """Networks to learn from, to choose by, and to be judged by."""
    epochs: Literal["last", "all"] = "last"
    """Rows of each network that count: its last, or all that the zoo has kept."""
    missing: Literal["refuse", "leave_out"] = "refuse"
    """Fate of networks of which a property was not measured."""
    resume_from: str | None = None
    """File predictor.pt whose weights rows of its kind that train begin from; fine-tuning."""
    seed: Whole = 0
    """Seed of drawn splits, and the first that rows are fitted under."""
    seeds: Count = 1
    """Number of seeds that each row is fitted under: `seed`, `seed` + 1, ..."""

    def __post_init__(self):
        for name in ("zoos", "properties"):
            values = vars(self)[name]
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} = {list(values)}: give each once, and at least one")
        if not self.rows:
            raise ValueError("rows = {}: an experiment needs one or more")
        for name in self.rows:
            if not _NAME.fullmatch(name) or name.startswith("."):
                raise ValueError(
                    f"rows.{name}: its name must be letters, digits, and any of _ . + -"
                )
        if unknown := [name for name in self.only if name not in self.rows]:
            raise ValueError(f"rows = {unknown}: the rows are {', '.join(self.rows)}")

    @property
    def chosen(self) -> tuple[str, ...]:
        """Rows that are fitted now, in the order of the file."""
        return tuple(name for name in self.rows if not self.only or name in self.only)

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """Seeds that each row is fitted under."""
        return tuple(range(self.seed, self.seed + self.seeds))
