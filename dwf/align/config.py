"""Settings of an alignment."""

from dataclasses import dataclass
from typing import Literal

from dwf.checked import Checked, refuse_idle
from dwf.settings import Count, Name, Whole

Scale = Literal["none", "balanced"]
Method = Literal[
    "git_rebasin",
    "transfusion",
    "activations",
    "norm_sort",
    "activation_sort",
    "optimal_transport",
]
MATCHING: tuple[Method, ...] = ("git_rebasin", "transfusion")
"""Methods that improve orders until none gains."""
WITH_IMAGES: tuple[Method, ...] = ("activations", "activation_sort")
"""Methods that look at what units do on training images."""
WITHOUT_REFERENCE: tuple[Method, ...] = ("norm_sort", "activation_sort", "optimal_transport")
"""Methods that give each network an order of its own; the reference is for the report alone."""


@dataclass(frozen=True)
class AlignConfig(Checked):
    """Bring the networks of a zoo into one symmetry frame."""

    zoo: Name
    """Name of the zoo to align; it lies in zoos/ under the root."""
    method: Method = "git_rebasin"
    """How units are ordered. Matched to a reference: `git_rebasin`, Git Re-Basin's weight matching,
    heads and all; `transfusion`, the same, but where nothing ties a residual stream to the inputs
    or outputs also from heads matched by singular values; `activations`, by how units correlate on
    training images. Each network by itself: `norm_sort`, by the norms of units; `activation_sort`,
    by how much they vary on training images; `optimal_transport`, layer by layer onto points drawn
    once."""
    scale: Scale = "none"
    """Rescaling before units are matched: none, or (ReLU alone) every hidden unit until the norm of
    its incoming weights and bias is the norm of its outgoing weights."""
    signs: bool = False
    """Whether signs of units are flipped too (tanh alone), with `git_rebasin` or `transfusion`."""
    start: Literal["ties", "identity"] = "ties"
    """Where weight matching begins: `ties`, orders found from the inputs and outputs inwards, or
    `identity`, the orders as they are, as Git Re-Basin was published."""
    reference: Literal["network", "iterated_mean"] = "network"
    """Reference of the matching: one training network, or the mean of the aligned training
    networks, found in rounds that begin with that network."""
    reference_network: Whole | None = None
    """Number in its zoo of the network to match to; default: the first training network."""
    reference_zoo: Name | None = None
    """Name of another zoo to take the reference network from, of the same architecture."""
    activation_images: Count = 512
    """Training images that `activations` and `activation_sort` look at."""
    max_sweeps: Count = 100
    """Most sweeps over the layers of a network; matching stops once a sweep brings nothing."""
    max_rounds: Count = 20
    """Most references that `iterated_mean` tries; it stops once the training networks come no
    closer to each other."""
    num_pairs: Whole = 64
    """Pairs of networks that the report measures distances and loss barriers on; 0: none."""
    seed: Whole = 0
    """Seed of the order in which a sweep visits the layers, of the points of `optimal_transport`,
    of the images that are looked at, and of the pairs."""

    def __post_init__(self):
        if self.method not in WITH_IMAGES:
            told = " or ".join(WITH_IMAGES)
            because = f"method = {self.method} looks at no images: set {told}"
            refuse_idle(self, "activation_images", by=("method",), because=because)
        if self.method not in MATCHING:
            because = f"method = {self.method} improves no orders: set {' or '.join(MATCHING)}"
            refuse_idle(self, "start", "max_sweeps", "signs", by=("method",), because=because)
        if self.reference != "iterated_mean":
            because = "reference = network is no mean: set iterated_mean"
            refuse_idle(self, "max_rounds", by=("reference",), because=because)
