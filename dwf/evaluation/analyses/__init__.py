"""Analyses of a report's networks: what they answer, how they came about, how alike they are."""

from dwf.evaluation.analyses.material import Material
from dwf.evaluation.analyses.table import analyse, chosen

__all__ = ["Material", "analyse", "chosen"]
