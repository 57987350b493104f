"""Settings of an alignment."""

from dataclasses import dataclass
from typing import Literal

from dwf.settings import Count, Whole

Scale = Literal["none", "balanced"]


@dataclass(frozen=True)
class AlignConfig:
    """Bring the networks of a zoo into one symmetry frame."""

    zoo: str
    """Name of the zoo to align; it lies in zoos/ under the root."""
    method: Literal["git_rebasin"] = "git_rebasin"
    """How units are matched: Git Re-Basin's weight matching."""
    scale: Scale = "none"
    """What is done before units are matched: nothing, or (ReLU alone) every hidden unit is rescaled
    until the norm of its incoming weights and bias is the norm of its outgoing weights."""
    reference: Literal["network", "iterated_mean"] = "network"
    """What they are matched to: one training network, or the mean of the aligned training networks,
    found in rounds that begin with that network."""
    reference_network: Whole | None = None
    """That network's number in the zoo; default: the first training network."""
    max_sweeps: Count = 100
    """A network is matched for at most so many sweeps over its layers; it stops once a sweep
    brings nothing."""
    max_rounds: Count = 20
    """With `iterated_mean`: at most so many references are tried; it stops once the training
    networks come no closer to each other."""
    num_pairs: Whole = 64
    """Pairs of networks that the report measures distances and loss barriers on; 0: none."""
    seed: Whole = 0
    """Seed of the order in which a sweep visits the layers, and of the pairs."""
