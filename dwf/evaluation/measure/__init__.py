"""Measurements of a set of networks: accuracy, novelty, baselines."""

from dwf.evaluation.measure.baselines import FAMILIES, Baseline, Drawn, average_of
from dwf.evaluation.measure.ensembles import ensemble_size, vote_accuracy
from dwf.evaluation.measure.limits import DRAWN_IN, HALF_WAY, NEAR_COPY, Limits
from dwf.evaluation.measure.nearness import Nearness
from dwf.evaluation.measure.novelty import CONFIDENCE, Blocks, Rows, moments, nearest, overlap
from dwf.evaluation.measure.profile import DEVIATIONS, RATIOS
from dwf.evaluation.measure.recombined import Arm
from dwf.evaluation.measure.scoring import (
    Scorer,
    check_accuracy,
    refuse_broken_statistics,
    refuse_without_statistics,
)
from dwf.evaluation.measure.yardstick import Measured, Yardstick

__all__ = [
    "CONFIDENCE",
    "DEVIATIONS",
    "DRAWN_IN",
    "FAMILIES",
    "HALF_WAY",
    "NEAR_COPY",
    "RATIOS",
    "Arm",
    "Baseline",
    "Blocks",
    "Drawn",
    "Limits",
    "Measured",
    "Nearness",
    "Rows",
    "Scorer",
    "Yardstick",
    "average_of",
    "check_accuracy",
    "ensemble_size",
    "moments",
    "nearest",
    "overlap",
    "refuse_broken_statistics",
    "refuse_without_statistics",
    "vote_accuracy",
]
