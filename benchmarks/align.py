"""Alignment: weight matching of a zoo at once against a plain loop over its networks.

Networks of 784-32-32-10 (26,506 weights), one thread. They are randomly initialised: matching has
the most to do where networks begin no closer to the reference than chance.

Shape suffixes: N networks, D numbers of one network, U units of a group, F numbers of one unit.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from harness import Result, interleave
from scipy.optimize import linear_sum_assignment

from dwf.align.matching import match_networks
from dwf.align.symmetry import Group, permute, symmetry_of
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.randomness import numpy_stream, seeded
from dwf.zoo.layout import Layout

_COUNT = 100
_NETWORK = MLPConfig((784, 32, 32, 10))


def run(quick: bool) -> list[Result]:
    """Time matching and permuting 100 networks; `quick` changes nothing, it takes seconds."""
    layout = Layout.of(build_network(_NETWORK))
    groups = symmetry_of(build_network(_NETWORK), layout)
    weights_ND = _random_networks(layout)

    def aligned_by(match: Callable[..., list[torch.Tensor]]) -> Callable[[], torch.Tensor]:
        return lambda: permute(
            weights_ND, layout, groups, match(weights_ND, weights_ND[0], layout, groups)
        )

    sides = {
        "batched": aligned_by(match_networks),
        "loop": aligned_by(match_as_published),
        "batches of one": aligned_by(_match_in_batches_of_one),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = interleave(sides, repeats=9)
        ours, theirs = ((sides[name]() @ weights_ND[0]).sum() for name in ("batched", "loop"))
    finally:
        torch.set_num_threads(threads)
    return [
        Result(
            f"align {_COUNT} MLPs of {layout.size:,} weights",
            seconds,
            figures={"objective / loop's": float(ours / theirs)},
            targets={
                "batched (s)": ("<=", 0.2),
                "loop / batched": (">=", 2.5),
                "objective / loop's": (">=", 1 - 1e-6),
            },
        )
    ]


def match_as_published(
    weights_ND: torch.Tensor, reference_D: torch.Tensor, layout: Layout, groups: Sequence[Group]
) -> list[torch.Tensor]:
    """A loop over networks that does what the authors' `weight_matching` does, in NumPy, float32.

    Every product is computed at every visit, and the objective with dense permutation matrices.
    """
    reference = {name: tensor.numpy() for name, tensor in layout.unflatten(reference_D).items()}
    orders = []
    for weights_D in weights_ND:
        network = {name: tensor.numpy() for name, tensor in layout.unflatten(weights_D).items()}
        orders.append(_match_one(network, reference, groups))
    return [torch.from_numpy(np.stack([o[g] for o in orders])) for g in range(len(groups))]


def _match_one(
    network: dict[str, np.ndarray], reference: dict[str, np.ndarray], groups: Sequence[Group]
) -> list[np.ndarray]:
    orders = [np.arange(group.size) for group in groups]
    visits = numpy_stream(0, "weight matching")
    for _ in range(100):
        progress = False
        for g in visits.permutation(len(groups)):
            size = groups[g].size
            similarity_UU = np.zeros((size, size), np.float32)
            for name, axis in groups[g].members:
                permuted = _permute_other_axes(name, axis, network[name], groups, orders)
                reference_UF = np.moveaxis(reference[name], axis, 0).reshape(size, -1)
                similarity_UU += reference_UF @ np.moveaxis(permuted, axis, 0).reshape(size, -1).T
            _, found_U = linear_sum_assignment(similarity_UU, maximize=True)
            old = np.vdot(similarity_UU, np.eye(size, dtype=np.float32)[orders[g]])
            new = np.vdot(similarity_UU, np.eye(size, dtype=np.float32)[found_U])
            progress = progress or new > old + 1e-12
            orders[g] = found_U
        if not progress:
            break
    return orders


def _permute_other_axes(
    name: str, axis: int, tensor: np.ndarray, groups: Sequence[Group], orders: list[np.ndarray]
) -> np.ndarray:
    for group, order_U in zip(groups, orders, strict=True):
        for member, other_axis in group.members:
            if member == name and other_axis != axis:
                tensor = np.take(tensor, order_U, other_axis)
    return tensor


def _match_in_batches_of_one(
    weights_ND: torch.Tensor, reference_D: torch.Tensor, layout: Layout, groups: Sequence[Group]
) -> list[torch.Tensor]:
    """What our own code costs when each network comes alone."""
    found = [match_networks(w_D[None], reference_D, layout, groups) for w_D in weights_ND]
    return [torch.cat([orders[g] for orders in found]) for g in range(len(groups))]


def _random_networks(layout: Layout) -> torch.Tensor:
    rows = []
    for index in range(_COUNT):
        with seeded(0, "align", index):
            rows.append(layout.flatten(build_network(_NETWORK).state_dict()))
    return torch.stack(rows)
