"""Check symmetry groups on numbers: random orders of all units must not change the function.

Shape suffixes: D numbers of one network, N networks, B images, K logits.
"""

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from dwf.align.constants import constants_of, draw_like, with_constants_drawn
from dwf.align.groups import (
    Group,
    Orders,
    identity_orders,
    permute,
    random_orders,
    scale_units,
)
from dwf.errors import ConfigError
from dwf.zoo.layout import Layout

_LARGE = 10**6
_NARROWER = (torch.float32, torch.float16, torch.bfloat16)
TOLERANCE = 1e-9
"""Largest deviation of a logit that float64's rounding explains in any network, relative to the
logit's own size."""
# Rounding differs from one order of sums to another; more than so many times what was measured is
# no rounding. What is above the second number is too coarse to tell right from wrong.
_MARGIN = 100.0
_COARSEST = 1e-2
_NOISE = 2.0**-52


@torch.no_grad()
def verify_symmetry(
    network: nn.Module, groups: Sequence[Group], *, input_shape: Sequence[int], seed: int = 0
) -> float:
    """Return by how much random orders of all groups change what a network computes.

    In float64 and evaluation mode, with random weights, running statistics and constants: nothing
    is at a value, as 0 or 1, that would hide a mistake; a constant's equal entries stay equal
    unless a group moves them. Each logit is compared by itself. How far rounding alone changes it
    is measured: every weight and image is changed in its last digit.

    All groups are reordered together, in two ways between which no symmetry of less than all
    orders, as of turns alone, stays unseen: first every unit moves, then by an order of the other
    parity. Where units may be scaled or change sign, that is done, too, in a third check.

    Args:
        network: a network of the architecture; it is left as it was.
        groups: those to check.
        input_shape: of one image.
        seed: of weights, images and orders.

    Returns:
        The largest absolute difference of a logit, over the largest absolute value that this
        logit has on any image.

    Raises:
        ConfigError: it is above 1e-9 and above what rounding explains, or not finite; the message
            names the group. Or the network cannot be checked: it is not finite, not the same twice
            or the same on all images, or its rounding is as large as a mistake.
    """
    random = torch.Generator().manual_seed(seed)
    layout = Layout.of(network)
    constants = constants_of(network, layout)
    network = with_constants_drawn(network, layout, random=random).double().eval()
    # Few units of a small network may all be dead on two images.
    count = 2 if layout.size > _LARGE else 16
    images = torch.randn(count, *input_shape, generator=random, dtype=torch.float64)
    moved = {member.name for group in groups for member in group.members}
    fixed = {name: values for name, values in constants.items() if name not in moved}
    row_D = _random_row(network, layout, random, fixed)
    logits = _Logits(network, layout, images=images, row_D=row_D, random=random)
    ways = _every_unit_moved(groups, seed)
    changed_D = functools.partial(_changed, layout, row_D)
    found = 0.0
    for orders in ways:
        found = max(found, logits.deviation(changed_D(groups, orders, None)))
        if not found <= logits.tolerance:
            _refuse(
                groups,
                lambda some, orders=orders: logits.deviation(
                    changed_D(groups, _only(groups, orders, some), None)
                ),
            )
    if any(group.scales or group.signs for group in groups):
        scaled = logits.deviation(changed_D(groups, ways[0], random))
        if not scaled <= logits.tolerance:
            raise ConfigError(
                f"scaling units changes the logits by {scaled:.1e} of their size: this is an error "
                "of dwf, please report the architecture; align with scale = none"
            )
        found = max(found, scaled)
    return found


def _every_unit_moved(groups: Sequence[Group], seed: int) -> list[Orders]:
    """Return one random cycle through all units of each group, and the same with two exchanged."""
    cycles = []
    for draw_1U in random_orders(groups, 1, seed=seed):
        cycle_1U = torch.empty_like(draw_1U)
        cycle_1U[0, draw_1U[0]] = draw_1U[0].roll(1)
        cycles.append(cycle_1U)
    exchanged = [cycle_1U.clone() for cycle_1U in cycles]
    for order_1U in exchanged:
        order_1U[0, :2] = order_1U[0, :2].flip(0)
    return [cycles, exchanged]


def _random_row(
    network: nn.Module,
    layout: Layout,
    random: torch.Generator,
    fixed: Mapping[str, torch.Tensor],
) -> torch.Tensor:
    """Return random weights, running statistics and constants; these, equal where they were."""
    state = network.state_dict()
    for entry in layout.entries:
        leaf = entry.name.rpartition(".")[2]
        drawn = torch.randn(entry.shape, generator=random, dtype=torch.float64)
        if entry.name in fixed:
            drawn = draw_like(fixed[entry.name], random)
        elif not entry.is_learnt and leaf != "running_mean":
            drawn = 0.5 + drawn.abs()
        elif entry.role == "norm":
            drawn = 1 + 0.3 * drawn if "weight" in leaf else 0.3 * drawn
        elif len(entry.shape) > 1:
            fan_in = max(1, entry.size // entry.shape[0])
            drawn = drawn * (2 / fan_in) ** 0.5
        else:
            drawn = 0.3 * drawn
        state[entry.name].copy_(drawn)
    return torch.cat([state[entry.name].reshape(-1) for entry in layout.entries])


def _run(
    network: nn.Module, layout: Layout, row_D: torch.Tensor, images: torch.Tensor
) -> torch.Tensor:
    try:
        with _InFloat64(), torch.compiler.set_stance("force_eager"):
            return torch.func.functional_call(network, layout.unflatten(row_D), (images,))
    except RuntimeError as error:
        raise ConfigError(
            f"this {type(network).__name__} cannot be run in float64, in which its symmetry is "
            f"checked ({error}); write it for inputs of any type and shape"
        ) from error


class _InFloat64(TorchFunctionMode):
    """Whatever a forward converts to another floating type stays float64."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16):
            return args[0].double()
        args, kwargs = tree_map(_as_float64, (args, kwargs or {}))
        return tree_map(_as_float64, func(*args, **kwargs))


def _as_float64(value: object) -> object:
    if isinstance(value, torch.dtype) and value.is_floating_point:
        return torch.float64
    if isinstance(value, torch.Tensor) and value.dtype in _NARROWER:
        return value.double()
    return value


class _Logits:
    """Logits of a network, and how far another row changes each of them.

    Raises:
        ConfigError: nothing can be told from this network's logits.
    """

    def __init__(
        self,
        network: nn.Module,
        layout: Layout,
        *,
        images: torch.Tensor,
        row_D: torch.Tensor,
        random: torch.Generator,
    ):
        self._network, self._layout, self._images = network, layout, images
        self._kind = type(network).__name__
        self._before_BK = _run(network, layout, row_D, images)
        if not self._before_BK.isfinite().all():
            self._refuse("gives logits that are not finite for random weights and images")
        self._size_K = self._before_BK.abs().amax(0)
        if not torch.equal(_run(network, layout, row_D, images), self._before_BK):
            self._refuse("gives other logits when it is run again: it must not be random")
        apart_K = (self._before_BK[0] - self._before_BK[1]).abs()
        if not apart_K.max() > 1e-6 * self._size_K.max():
            self._refuse("gives two random images the same logits: it must depend on its images")
        self.tolerance = max(TOLERANCE, _MARGIN * self._rounding(row_D, random))
        if not self.tolerance <= _COARSEST:
            self._refuse(
                f"changes its logits by {self.tolerance / _MARGIN:.0e} of their size where its "
                "weights change in float64's last digit, so that no mistake could be told from "
                "rounding"
            )

    def deviation(self, row_D: torch.Tensor) -> float:
        """Return by how much a row changes a logit at most, as a share of that logit's size."""
        return self._apart(_run(self._network, self._layout, row_D, self._images))

    def _apart(self, after_BK: torch.Tensor) -> float:
        apart_K = (after_BK - self._before_BK).abs().amax(0)
        # A logit that is 0 on all images stays 0.
        share_K = torch.where(apart_K == 0, 0.0, apart_K / self._size_K)
        return float(share_K.max())

    def _rounding(self, row_D: torch.Tensor, random: torch.Generator) -> float:
        """Return how far changes in the last digit of all weights and images change a logit."""

        def nudged(numbers: torch.Tensor) -> torch.Tensor:
            noise = torch.randn(numbers.shape, generator=random, dtype=torch.float64)
            return numbers * (1 + _NOISE * noise)

        after_BK = _run(self._network, self._layout, nudged(row_D), nudged(self._images))
        return self._apart(after_BK)

    def _refuse(self, why: str) -> None:
        raise ConfigError(f"this {self._kind} {why}; so its symmetry cannot be checked")


def _only(groups: Sequence[Group], orders: Orders, some: Sequence[int]) -> Orders:
    still = identity_orders(groups, 1)
    return [orders[g] if g in some else still[g] for g in range(len(groups))]


def _changed(
    layout: Layout,
    row_D: torch.Tensor,
    groups: Sequence[Group],
    orders: Orders,
    random: torch.Generator | None,
) -> torch.Tensor:
    """Return the network with its units reordered and, given a generator, scaled."""
    row_1D = row_D.clone()[None]
    if random is not None:
        tensors = layout.unflatten(row_1D)
        for group in groups:
            factor_U = torch.ones(group.size, dtype=torch.float64)
            if group.scales:
                factor_U *= torch.rand(group.size, generator=random, dtype=torch.float64) + 0.5
            if group.signs:
                factor_U *= torch.randint(2, (group.size,), generator=random) * 2 - 1
            scale_units(tensors, group, factor_NU=factor_U[None])
    return permute(row_1D, layout, groups=groups, orders=orders)[0]


def _refuse(groups: Sequence[Group], deviation) -> None:
    """Find out which group, with those that lie in it, is wrong, and say so."""
    worst = defaultdict(float)
    for g in range(len(groups)):
        worst[g] = deviation([g])
    g = max(worst, key=lambda g: (worst[g] != worst[g], worst[g]))
    members = ", ".join(f"{m.name}[{m.axis}]" for m in groups[g].members[:4])
    raise ConfigError(
        f"group {g} ({groups[g].kind} of {groups[g].size}: {members}): another order changes the "
        f"logits by {worst[g]:.1e} of their size, so this network's symmetry was not understood; "
        "learn from the zoo as it is, and report the architecture"
    )
