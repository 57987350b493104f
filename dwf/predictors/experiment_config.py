"""Settings of an experiment: many predictors on the same networks."""

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

from dwf.checked import Checked, refuse_idle
from dwf.predictors.config import PredictorConfig
from dwf.settings import Count, FlagName, Fraction, Name, Whole

SplitRule = Literal["own", "network", "draw", "zoo", "architecture", "data"]
_BY_GROUP = ("zoo", "architecture", "data")
_NAME = re.compile(r"[\w.+-]+")


@dataclass(frozen=True)
class PartsConfig(Checked):
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
        if self.by not in ("network", "draw"):
            refuse_idle(
                self,
                "val",
                "test",
                by=("by",),
                because=f"by = {self.by} takes networks as zoos were split: set network or draw",
            )
        if self.by not in _BY_GROUP:
            because = f"by = {self.by} holds out no groups: set {', '.join(_BY_GROUP)}"
            refuse_idle(self, "held_out", by=("by",), because=because)
        elif not self.held_out:
            raise ValueError(
                f"by = {self.by!r} needs held_out, the names of the groups that are held out"
            )


@dataclass(frozen=True)
class ExperimentConfig(Checked):
    """Many predictors on the same networks and properties, side by side."""

    zoos: tuple[Name, ...]
    """Zoos of the networks, or manifests of several, by name."""
    rows: dict[str, PredictorConfig]
    """Predictors by name."""
    properties: tuple[str, ...] = ("test_accuracy",)
    """Columns that are told: of the zoos, measured ones, or `generalisation_gap`."""
    only: Annotated[tuple[str, ...], FlagName("rows")] = ()
    """Rows that are fitted now, by name; default: all."""
    split: PartsConfig = field(default_factory=PartsConfig)
    """Networks to learn from, to choose by, and to be judged by."""
    epochs: Literal["last", "all", "learn_all"] = "last"
    """Rows of each network that count: its last; all that the zoo has kept; or `learn_all`: all of
    those to learn from, and the last of those to choose and to be judged by."""
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
