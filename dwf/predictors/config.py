"""Settings of the predictors, and the table of them."""

from dataclasses import dataclass
from typing import ClassVar, Literal

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
