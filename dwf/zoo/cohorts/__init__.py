"""Cohorts: networks that are trained together, step by step, and what they leave behind."""

from dwf.zoo.cohorts.cohort import Cohort
from dwf.zoo.cohorts.cost import describe_cost, measure_rate
from dwf.zoo.cohorts.method import Choice, choose_method, refuse_unbatched
from dwf.zoo.cohorts.program import Start, dropout_layers, learnable, names_found
from dwf.zoo.cohorts.rows import assemble

__all__ = [
    "Choice",
    "Cohort",
    "Start",
    "assemble",
    "choose_method",
    "describe_cost",
    "dropout_layers",
    "learnable",
    "measure_rate",
    "names_found",
    "refuse_unbatched",
]
