"""Settings of measurements, and the table of measures."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from dwf.checked import Checked
from dwf.compute import ComputeConfig
from dwf.settings import Bounds, Count, Name, NonNegative, Positive, Whole
from dwf.trust import Code

MEASURES = {
    "accuracy": "dwf.measurements.scores:Accuracy",
    "calibration": "dwf.measurements.scores:Calibration",
    "classes": "dwf.measurements.scores:Classes",
    "corruption": "dwf.measurements.corruption:Corruption",
    "cost": "dwf.measurements.cost:Cost",
    "fgsm": "dwf.measurements.attacks:Fgsm",
    "gap": "dwf.measurements.scores:Gap",
    "pgd": "dwf.measurements.attacks:Pgd",
    "python": "dwf.measurements.own:Own",
}

PartName = Literal["train", "val", "test"]
Transform = Literal[
    "noise",
    "blur",
    "jpeg",
    "brightness",
    "contrast",
    "saturation",
    "posterize",
    "solarize",
    "rotate",
]
_STRENGTHS = {
    "noise": Bounds(0, open=True),
    "blur": Bounds(0, open=True),
    "jpeg": Bounds(1, 100),
    "brightness": Bounds(0),
    "contrast": Bounds(0),
    "saturation": Bounds(0),
    "posterize": Bounds(1, 8),
    "solarize": Bounds(0, 1),
    "rotate": Bounds(-180, 180),
}


@dataclass(frozen=True, kw_only=True)
class OnImages(Checked):
    """Base of the settings of a measure on images."""

    parts: tuple[PartName, ...] = ("val",)
    """Images that are measured on, with columns for each part."""
    images: Count | None = None
    """How many of each part, drawn by the seed; default: all."""


@dataclass(frozen=True, kw_only=True)
class AccuracyConfig(OnImages):
    """Accuracy and mean cross-entropy of each network on images of a part."""

    kind: Literal["accuracy"] = "accuracy"
    """The measure."""


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig(OnImages):
    """Expected calibration error: how far confidence is from accuracy (Guo et al. 2017)."""

    bins: Count = 15
    """Bins of equal width of the confidence."""
    kind: Literal["calibration"] = "calibration"
    """The measure."""


@dataclass(frozen=True, kw_only=True)
class ClassesConfig(OnImages):
    """Accuracy on the images of each class, a column each."""

    kind: Literal["classes"] = "classes"
    """The measure."""


@dataclass(frozen=True, kw_only=True)
class CorruptionConfig(OnImages):
    """Accuracy on images that are changed, all networks on the same ones."""

    transform: Transform
    """Change of an image."""
    strength: float
    """How strong: standard deviation of noise (a pixel is from 0 to 1), of blur in pixels; quality
    of a JPEG from 1 to 100; factor of brightness, contrast or saturation; bits that posterize
    leaves; value above which solarize inverts; degrees."""
    kind: Literal["corruption"] = "corruption"
    """The measure."""

    def __post_init__(self):
        bounds = _STRENGTHS[self.transform]
        whole = self.transform in ("jpeg", "posterize")
        if self.strength not in bounds or (whole and not float(self.strength).is_integer()):
            kind = "a whole number, " if whole else ""
            raise ValueError(
                f"strength = {self.strength:g} of {self.transform}: allowed is {kind}{bounds}"
            )


@dataclass(frozen=True)
class CostConfig(Checked):
    """Parameters, and operations that an answer takes (two for each multiplication); computed."""

    parts: ClassVar[tuple[None]] = (None,)

    kind: Literal["cost"] = "cost"
    """The measure."""


@dataclass(frozen=True, kw_only=True)
class FgsmConfig(OnImages):
    """Accuracy under one step along the sign of the gradient (Goodfellow et al. 2015)."""

    epsilon: NonNegative = 8 / 255
    """Largest change of a pixel, which is from 0 to 1."""
    kind: Literal["fgsm"] = "fgsm"
    """The measure."""


@dataclass(frozen=True)
class GapConfig(Checked):
    """Generalisation gap: accuracy on training images minus that on images of another part."""

    parts: tuple[Literal["val", "test"], ...] = ("val",)
    """Images that networks did not learn from, with a column for each part."""
    images: Count | None = None
    """How many of each part, drawn by the seed; default: all."""
    train_images: Count | None = None
    """How many training images, drawn by the seed; default: all."""
    kind: Literal["gap"] = "gap"
    """The measure."""


@dataclass(frozen=True, kw_only=True)
class PgdConfig(OnImages):
    """Accuracy under projected gradient ascent from a random start (Madry et al. 2018)."""

    epsilon: Positive = 8 / 255
    """Radius of the ball that a changed image stays in; a pixel is from 0 to 1."""
    norm: Literal["linf", "l2"] = "linf"
    """Norm of the ball."""
    steps: Count = 10
    """Steps of the ascent."""
    step_size: Positive = 0.25
    """Length of a step, as a share of epsilon."""
    random_start: bool = True
    """Whether it begins at a random place of the ball, one for each image; else at the image."""
    kind: Literal["pgd"] = "pgd"
    """The measure."""


@dataclass(frozen=True, kw_only=True)
class OwnConfig(OnImages):
    """Measure of the user's own: what a function of theirs returns of networks and images.

    It is called as `function(network, state, images_MX, labels_M, **arguments)`: the architecture,
    name -> tensor [N, *shape] of N networks, prepared images and their labels; it returns column ->
    N numbers. `dwf.networks.functional.network_logits` runs the networks.
    """

    target: Code
    """`package.module:function`."""
    columns: tuple[str, ...] = ("value",)
    """Names of the columns that it returns."""
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)
    """Keyword arguments of the function."""
    share: bool = False
    """Whether the columns are shares of images, whose noise is that of counting."""
    kind: Literal["python"] = "python"
    """The measure."""

    def __post_init__(self):
        module, _, name = self.target.partition(":")
        if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
            raise ValueError(f"target = {self.target!r}: expected package.module:function")
        bad = [column for column in self.columns if not column.isidentifier()]
        if bad or not self.columns or len(set(self.columns)) < len(self.columns):
            raise ValueError(f"columns = {list(self.columns)}: expected names, each once")


AnyMeasureConfig = (
    AccuracyConfig
    | CalibrationConfig
    | ClassesConfig
    | CorruptionConfig
    | CostConfig
    | FgsmConfig
    | GapConfig
    | PgdConfig
    | OwnConfig
)


@dataclass(frozen=True)
class MeasureConfig(Checked):
    """Measures of every network of a zoo, each a column or more beside its table."""

    zoo: Name
    """Zoo whose networks are measured, or the manifest of several."""
    measures: dict[str, AnyMeasureConfig]
    """Measures by name, with which their columns begin; on training images behind `train_`, on test
    images behind `test_`."""
    epochs: Literal["all", "last"] = "all"
    """Which rows of a network are measured."""
    block: Count | None = None
    """Networks that are one unit of work; default: 64 that run as one program, else 16."""
    seed: Whole = 0
    """Seed of the choice of images, of noise and of random starts."""
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    """Device; the arithmetic is float32."""

    def __post_init__(self):
        if not self.measures:
            raise ValueError("measures: none is named, give one or more")
        for name in self.measures:
            if not name.isidentifier() or "test" in name.split("_"):
                raise ValueError(
                    f"measures.{name}: its name begins a column's: give a word of letters, digits "
                    "and underscores, without `test`, which test images add"
                )
        for name, one in self.measures.items():
            if not one.parts or len(set(one.parts)) < len(one.parts):
                raise ValueError(f"measures.{name}.parts = {list(one.parts)}: give each part once")
        if self.compute.precision != "float32" or self.compute.compile:
            raise ValueError(
                "compute: measurements are in float32 and not compiled: leave precision and "
                "compile out"
            )


def column_prefix(part: PartName | None, name: str) -> str:
    """Return what a column of a measure begins with, which tells its images."""
    return name if part in ("val", None) else f"{part}_{name}"


def block_size(given: int | None, is_stacked: bool, *, num_weights: int) -> int:
    """Return how many networks are a unit: as given, else by what runs together and fits."""
    if given is not None:
        return given
    fitting = math.floor(32 * 2**20 / (4 * max(num_weights, 1)))
    return max(1, min(64 if is_stacked else 16, fitting))
