"""Settings of what reads vectors off networks: probes, and messages between units."""

from dataclasses import dataclass
from typing import Literal

from dwf.checked import Checked
from dwf.settings import Count


@dataclass(frozen=True)
class ProbingConfig(Checked):
    """Learnt inputs on which every network is run."""

    count: Count = 128
    """Probes."""
    latent: Count = 32
    """Numbers of the latent code that a probe is made of."""
    depth: Count = 3
    """Linear maps, one after the other, of the generator that makes probes of codes."""
    width: Count = 128
    """Numbers between two maps of the generator."""
    responses: Literal["logits", "probabilities", "both"] = "both"
    """Responses that the head is given of each network on each probe; logits x as
    x / (1 + |x| / 8)."""


@dataclass(frozen=True)
class MessagesConfig(Checked):
    """Messages between the units of a network along its weights."""

    width: Count = 64
    """Numbers that describe a unit, and a weight or a filter's kernel."""
    rounds: Count = 3
    """Rounds of messages."""
    vector: Count = 128
    """Numbers that the head is given of a network."""
    gauge: Literal["fixed", "kept"] = "fixed"
    """Scales and signs of units: `fixed`, units of ReLU balanced and those of tanh turned so that
    what makes them sums to no less than 0; `kept`, as they are."""
