"""Weight matching: bring a network's units into the order of a reference's (Git Re-Basin)."""

from dwf.align.matching.ascent import Ascent, Target
from dwf.align.matching.assignment import assign
from dwf.align.matching.matcher import Matcher, match_networks
from dwf.align.matching.steps import count_disjoint

__all__ = ["Ascent", "Matcher", "Target", "assign", "count_disjoint", "match_networks"]
