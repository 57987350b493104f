"""How networks of a zoo come into one symmetry frame, as the settings of an alignment say.

Shape suffixes: N networks, D numbers of one network.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from dwf.align.activation import Activations, sources_of, training_images
from dwf.align.canonical import norm_orders, transport_orders
from dwf.align.config import WITH_IMAGES, AlignConfig, Scale
from dwf.align.groups import Group, Orders
from dwf.align.matching import Matcher
from dwf.align.symmetry import zoo_symmetry
from dwf.align.verify import verify_symmetry
from dwf.errors import ConfigError
from dwf.zoo.store import Zoo

Match = Callable[[torch.Tensor, torch.Tensor], Orders]
"""(weights_ND, reference_D) -> orders."""


def groups_of(zoo: Zoo, scale: Scale = "none", *, signs: bool = False) -> tuple[Group, ...]:
    """Return the groups of a zoo's architecture, with only those symmetries that are asked for.

    Args:
        zoo: the zoo.
        scale: `balanced`: units that can be scaled are to be.
        signs: units whose sign can be flipped are to be.

    Raises:
        ConfigError: the symmetry of the architecture cannot be found, or it has none of a kind
            that is asked for.
    """
    groups = zoo_symmetry(zoo, scale)
    # Within a head, signs are left as they are.
    flips = [signs and group.signs and group.parent is None for group in groups]
    if signs and not any(flips):
        raise ConfigError(
            f"signs = true: {zoo.path} has no units whose sign can be flipped, only those with an "
            "odd activation such as tanh have; set signs to false"
        )
    return tuple(
        replace(group, scales=group.scales and scale == "balanced", signs=flip)
        for group, flip in zip(groups, flips, strict=True)
    )


def verified_groups(zoo: Zoo, config: AlignConfig) -> tuple[tuple[Group, ...], float | None]:
    """Return the groups that an alignment needs, and how far they change the function at most.

    That is the next power of ten above what rounding did: the same on any machine. It is None of
    networks that nobody can run, whose groups were given.

    Raises:
        ConfigError: as for `groups_of`; or the groups change the function.
    """
    groups = groups_of(zoo, config.scale, signs=config.signs)
    if not zoo.facts.network.is_known and config.method not in WITH_IMAGES:
        return groups, None
    network = zoo.build_network()
    if config.method in WITH_IMAGES:
        sources_of(network, groups)
    deviation = verify_symmetry(network, groups, input_shape=zoo.input_shape)
    return groups, 10.0 ** math.ceil(math.log10(max(deviation, 1e-16)))


def matcher_of(zoo: Zoo, groups: Sequence[Group], *, config: AlignConfig) -> Match:
    """Return what finds the orders of networks; canonical orders ask no reference."""
    layout = zoo.layout
    if config.method in WITH_IMAGES:
        images_BX = training_images(zoo.load_data(), config.activation_images, seed=config.seed)
        activations = Activations(zoo.build_network(), layout, groups=groups, images_BX=images_BX)
        if config.method == "activations":
            return activations.match
        return lambda weights_ND, _: activations.sort(weights_ND)
    if config.method == "norm_sort":
        return lambda weights_ND, _: norm_orders(weights_ND, layout, groups=groups)
    if config.method == "optimal_transport":
        carry = partial(transport_orders, layout=layout, groups=groups, seed=config.seed)
        return lambda weights_ND, _: carry(weights_ND)
    again = config.method == "transfusion"
    return Matcher(
        layout,
        groups,
        max_sweeps=config.max_sweeps,
        seed=config.seed,
        start=config.start,
        signs=config.signs,
        heads_again=again,
    )
