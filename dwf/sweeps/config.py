"""Settings of a sweep: the stages, what is tried of them, by what a trial is judged, and where."""

import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from dwf.checked import Checked
from dwf.plain import Json
from dwf.settings import (
    Bounds,
    Count,
    Launch,
    NonNegative,
    Positive,
    Preset,
    PresetsByKey,
    Repeated,
    Whole,
)

if TYPE_CHECKING:
    import numpy as np

_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_WIDE = 6  # listed numbers that span this factor are meant as steps of a factor
LOWER_IS_BETTER = ("overlap", "val_loss")
"""Metrics of which the lowest value is best; of the others it is the highest."""


def as_number(value: Json) -> Json:
    """Return a number that YAML takes for words, as `1e-3`, which it wants to be `1.0e-3`."""
    is_number = isinstance(value, str) and _EXPONENT.fullmatch(value)
    return float(value) if is_number else value


@dataclass(frozen=True)
class AxisConfig(Checked):
    """Values to try of one setting: exactly one of these."""

    grid: tuple[Any, ...] | None = None
    """Every value, with every value of the other grids."""
    choice: tuple[Any, ...] | None = None
    """One of these values, each as likely."""
    uniform: tuple[Annotated[float, Bounds(-1e9)], ...] | None = None
    """A number between low and high."""
    log_uniform: tuple[Positive, ...] | None = None
    """A number between low and high, its logarithm uniform."""
    integer: tuple[Whole, ...] | None = None
    """A whole number from low to high, both included."""

    def __post_init__(self):
        given = {name: values for name, values in vars(self).items() if values is not None}
        if len(given) != 1:
            raise ValueError(
                f"{', '.join(given) or 'nothing'}: give one of {', '.join(vars(self))}"
            )
        ((kind, values),) = given.items()
        if kind in ("grid", "choice"):
            values = tuple(map(as_number, values))
            object.__setattr__(self, kind, values)
        if kind in ("grid", "choice"):
            if not values or any(value in values[:i] for i, value in enumerate(values)):
                raise ValueError(f"{kind} = {list(values)}: a list of values that differ")
        elif len(values) != 2 or not values[0] < values[1]:
            raise ValueError(f"{kind} = {list(values)}: two numbers, low < high")

    @property
    def kind(self) -> str:
        """Which of them is given."""
        return next(name for name, values in vars(self).items() if values is not None)

    @property
    def values(self) -> tuple[Json, ...]:
        """The listed values, or low and high."""
        return getattr(self, self.kind)

    @property
    def is_list(self) -> bool:
        """Whether its values are listed."""
        return self.is_grid or self.choice is not None

    @property
    def is_grid(self) -> bool:
        """Whether every value is tried with every value of the other grids."""
        return self.grid is not None

    @property
    def is_logarithmic(self) -> bool:
        """Whether its values are as far apart in their logarithm: so it is drawn."""
        if self.log_uniform is not None:
            return True
        are_numbers = all(type(value) in (int, float) for value in self.values)
        if not self.is_list or not are_numbers or min(self.values) <= 0:
            return False
        return max(self.values) >= _WIDE * min(self.values)

    def draw(self, stream: "np.random.Generator") -> Json:
        """Return a random value, of an axis that is no grid."""
        if self.choice is not None:
            return self.choice[int(stream.integers(len(self.choice)))]
        if self.integer is not None:
            return int(stream.integers(*self.integer, endpoint=True))
        if self.uniform is not None:
            return float(stream.uniform(*self.uniform))
        return float(math.exp(stream.uniform(*map(math.log, self.log_uniform))))


@dataclass(frozen=True)
class AshaConfig(Checked):
    """Asynchronous successive halving (arXiv 1810.05934) on the generators' validation loss.

    At grace, grace x factor, grace x factor^2, ... training steps a generator goes on if its loss
    is among the best 1/factor of those that came there.
    """

    grace: Count = 1000
    """Training steps before any generator is stopped."""
    factor: Annotated[float, Bounds(1, open=True)] = 3.0
    """One in so many goes on."""


@dataclass(frozen=True)
class SweepConfig(Checked):
    """Trials of the whole way, each from zoo to samples, judged on validation data."""

    zoo: Annotated[str, Preset("zoo")]
    """Settings file of the zoo."""
    generator: Annotated[str, Preset("generator")]
    """Settings file of the generator."""
    sample: Annotated[str, Preset("sample")]
    """Settings file of drawing networks."""
    evaluate: Annotated[str, Preset("evaluate")]
    """Settings file of the report on test images; trials take its device alone."""
    space: Annotated[dict[str, AxisConfig], PresetsByKey()]
    """Settings to try: `STAGE.SETTING` (as `generator.density.backbone.hidden`), or `STAGE` alone
    for whole settings files; `align` alone also takes true and false: with and without it."""
    set: Annotated[tuple[str, ...], Repeated()] = ()
    """Settings of stages in place of their files': `STAGE.SETTING=VALUE`."""
    leave_out: tuple[str, ...] = ()
    """Listed values of the space that are not tried, as `AXIS=VALUE`: so that one file serves a
    laptop and a cluster."""
    align: Annotated[str, Preset("align")] | None = None
    """Settings file of the alignment; default: the zoo's own frame."""
    search: Literal["grid", "random", "optuna"] = "grid"
    """`grid` tries all; `random` draws, and tries each draw with every value of the grids;
    `optuna` proposes what promises most."""
    trials: Count = 16
    """Draws of `random`, of which equal ones are one trial; trials of `optuna`."""
    scheduler: Literal["none", "asha"] = "none"
    """Whether generators that fall behind are stopped while they train."""
    asha: AshaConfig = field(default_factory=AshaConfig)
    """Settings of the scheduler `asha`."""
    metric: Literal[
        "val_accuracy",
        "good_and_novel",
        "accurate",
        "distance_ratio",
        "dispersion",
        "overlap",
        "val_loss",
    ] = "val_accuracy"
    """Metric that chooses the best trial, on validation networks and images: the highest mean over
    its samples, as reports have it (`distance_ratio`: median), the lowest `overlap`, or the lowest
    loss of its generator."""
    cpus: Positive = 1.0
    """CPUs of a trial; as many trials run at once as there are CPUs and GPUs for."""
    gpus: NonNegative = 0.0
    """GPUs of a trial; 0.5: two trials share one."""
    concurrent: Count | None = None
    """At most so many trials at once; default: as many as fit."""
    retries: Whole = 3
    """How often a trial goes on elsewhere after its node or process died."""
    seed: Whole = 0
    """Seed of `random` and `optuna`."""

    def __post_init__(self):
        if not self.space:
            raise ValueError("space is empty: name at least one setting to try")
        for key, axis in self.axes.items():
            if self.search == "grid" and not axis.is_grid:
                raise ValueError(
                    f"space.{key} is {axis.kind}, search is grid: list its values as `grid`, or "
                    "set search to random or optuna"
                )
            if self.search == "optuna" and axis.is_grid:
                raise ValueError(f"space.{key} is grid, search is optuna: list it as `choice`")

    @property
    def axes(self) -> dict[str, AxisConfig]:
        """The space without what is left out."""
        axes = dict(self.space)
        for entry in self.leave_out:
            key, _, text = entry.partition("=")
            if key not in axes or not axes[key].is_list:
                lists = ", ".join(name for name, axis in self.space.items() if axis.is_list)
                raise ValueError(f"leave_out: {entry!r} is of none of the lists of space: {lists}")
            axis = axes[key]
            named = as_number(text)
            kept = tuple(
                value
                for value in axis.values
                if text not in (str(value), in_yaml(value)) and named != value
            )
            if len(kept) == len(axis.values):
                listed = ", ".join(map(in_yaml, self.space[key].values))
                raise ValueError(f"leave_out: {entry!r}: {key} has {listed}")
            if not kept:
                raise ValueError(f"leave_out: nothing is left of {key}")
            axes[key] = replace(axis, **{axis.kind: kept})
        return axes

    @property
    def widened_by(self) -> list[str]:
        """Settings that may change between two calls of a sweep: its trials are kept."""
        if self.search != "grid":
            return ["trials"]
        return ["leave_out", *(f"space.{key}.grid" for key in self.space)]

    @property
    def sign(self) -> int:
        """1 where a high metric is best, -1 where a low one is."""
        return -1 if self.metric in LOWER_IS_BETTER else 1


@dataclass(frozen=True)
class SweepLaunch(Launch):
    """Where the trials run."""

    workers: Count | None = None
    """CPUs of the Ray that is started here; default: all. One that is joined has its own."""


def in_yaml(value: Json) -> str:
    """A value as settings files have it: `true`, not `True`."""
    return str(value).lower() if isinstance(value, bool) else str(value)
