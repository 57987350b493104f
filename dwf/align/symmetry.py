"""Which axes of a network's tensors can be permuted together without changing its function.

The groups are traced from the module: see `trace/`. Whether they are right is checked on numbers
by `verify.py`.

dwf symmetry configs/zoo/mnist_mlp.yaml
"""

import math
from collections.abc import Sequence

from torch import nn

from dwf.align.config import Scale
from dwf.align.given import given_groups
from dwf.align.groups import Group, identity_orders, permute
from dwf.align.trace import trace_groups
from dwf.errors import ConfigError, ShapeMismatch
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo

__all__ = [
    "Group",
    "describe",
    "identity_orders",
    "log_size",
    "permute",
    "symmetry_of",
    "zoo_symmetry",
]


def zoo_symmetry(zoo: Zoo, scale: Scale = "none") -> tuple[Group, ...]:
    """Return the groups of a zoo's networks: traced, or as given where nobody can run them.

    Args:
        zoo: the zoo.
        scale: as for `symmetry_of`.

    Raises:
        ConfigError: as for `symmetry_of`; or the networks are not known and no groups were given.
    """
    if zoo.facts.network.is_known:
        network = zoo.build_network()
        return symmetry_of(network, zoo.layout, input_shape=zoo.input_shape, scale=scale)
    if zoo.facts.permutations is None:
        raise ConfigError(
            f"{zoo.path} was imported with `network: {{kind: none}}` and without permutations, so "
            "what can be reordered is not known: import it again with --permutations FILE"
        )
    if scale != "none":
        raise ConfigError(
            f"scale = {scale!r}: {zoo.path} was imported without its network, so whether its units "
            "can be rescaled is not known; set scale to none"
        )
    return given_groups(zoo.facts.permutations, zoo.layout)


def symmetry_of(
    network: nn.Module,
    layout: Layout,
    *,
    input_shape: Sequence[int],
    scale: Scale = "none",
) -> tuple[Group, ...]:
    """Return the groups of a network's architecture.

    Args:
        network: a network of the architecture; its weights take no part, and it is left as it was.
        layout: the layout of the zoo's rows.
        input_shape: of one input: [C, H, W] of an image.
        scale: `balanced` if units are to be rescaled too, which takes a group that `scales`.

    Returns:
        Groups in the order in which the layout uses them; those within a head or a block come
        before it. Of one block, the groups of each place come in the same order.

    Raises:
        ConfigError: the module cannot be traced, and where; or its units cannot be rescaled.
        ShapeMismatch: the layout is of another architecture.
    """
    found = Layout.of(network)
    if found.digest != layout.digest:
        raise ShapeMismatch(
            f"the layout {layout.digest} is not of this network, which has {found.digest}: take "
            "both from one zoo"
        )
    groups = trace_groups(network, layout, input_shape=tuple(input_shape))
    if scale == "balanced" and not any(group.scales for group in groups):
        raise ConfigError(
            f"scale = 'balanced': no unit of this {type(network).__name__} can be scaled without "
            "changing the function, only those with relu and the like between their weights can; "
            "set scale to none"
        )
    return groups


def describe(groups: Sequence[Group]) -> str:
    """Return what groups there are, in one line: `3 groups: 1 stream (64), 2 units (64 to 128)`."""
    sizes: dict[str, list[int]] = {}
    for group in groups:
        sizes.setdefault(group.kind, []).append(group.size)
    parts = []
    for kind, found in sizes.items():
        most, least = max(found), min(found)
        parts.append(f"{len(found)} {kind} ({least if least == most else f'{least} to {most}'})")
    return f"{len(groups)} group{'s' * (len(groups) != 1)}" + ": " * bool(parts) + ", ".join(parts)


def log_size(groups: Sequence[Group]) -> float:
    """Return the natural logarithm of how many orders of all units there are."""
    return sum(math.lgamma(group.size + 1) for group in groups)
