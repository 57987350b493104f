"""Measurements of a set of networks: accuracy, novelty, baselines."""

from dwf.evaluation.measure.baselines import FAMILIES, Baseline, Drawn, average_of
from dwf.evaluation.measure.behaviour import behaviour_images
from dwf.evaluation.measure.coherence import measure_coherence
from dwf.evaluation.measure.ensembles import ensemble_size, vote_accuracy
from dwf.evaluation.measure.limits import DRAWN_IN, HALF_WAY, NEAR_COPY, Limits
from dwf.evaluation.measure.nearness import Nearness
from dwf.evaluation.measure.novelty import (
    CONFIDENCE,
    Blocks,
    Rows,
    moments,
    nearest,
    overlap,
    overlaps,
)
from dwf.evaluation.measure.profile import DEVIATIONS, RATIOS
from dwf.evaluation.measure.recombined import Arm
from dwf.evaluation.measure.retrieval import retrieved
from dwf.evaluation.measure.scoring import (
    Scorer,
    Source,
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
    "Source",
    "Yardstick",
    "average_of",
    "behaviour_images",
    "check_accuracy",
    "ensemble_size",
    "measure_coherence",
    "moments",
    "nearest",
    "overlap",
    "overlaps",
    "refuse_broken_statistics",
    "refuse_without_statistics",
    "retrieved",
    "vote_accuracy",
]
