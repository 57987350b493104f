"""Cohorts: networks that are trained together, step by step, and what they leave behind."""

from dwf.zoo.cohorts.cohort import Cohort
from dwf.zoo.cohorts.cost import describe_cost, measure_rate
from dwf.zoo.cohorts.method import choose_method, find_device
from dwf.zoo.cohorts.program import Method, dropout_layers, matching
from dwf.zoo.cohorts.rows import assemble, split_rule

__all__ = [
    "Cohort",
    "Method",
    "assemble",
    "choose_method",
    "describe_cost",
    "dropout_layers",
    "find_device",
    "matching",
    "measure_rate",
    "split_rule",
]
