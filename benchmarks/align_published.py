"""What alignment is timed against: the published loops, written from their description.

Shape suffixes: N networks, D numbers of one network, U units of a group, F numbers of one unit,
S units of a head.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from dwf.align.groups import Group, Member, identity_orders
from dwf.randomness import numpy_stream
from dwf.zoo.layout import Layout


def match_as_published(
    weights_ND: torch.Tensor, reference_D: torch.Tensor, *, layout: Layout, groups: Sequence[Group]
) -> list[torch.Tensor]:
    """A loop over networks that does what the authors' `weight_matching` does, in NumPy, float32.

    Every product is computed at every visit, and the objective with dense permutation matrices.
    (Ainsworth et al., Git Re-Basin, arXiv:2209.04836, Algorithm 1.) Running statistics take no
    part.
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
            for member in groups[g].members:
                if not member.cost:
                    continue
                permuted = _permute_other_axes(member, network[member.name], groups, orders)
                reference_UF = _units(reference[member.name], member, size)
                similarity_UU += reference_UF @ _units(permuted, member, size).T
            _, found_U = linear_sum_assignment(similarity_UU, maximize=True)
            old = np.vdot(similarity_UU, np.eye(size, dtype=np.float32)[orders[g]])
            new = np.vdot(similarity_UU, np.eye(size, dtype=np.float32)[found_U])
            progress = progress or new > old + 1e-12
            orders[g] = found_U
        if not progress:
            break
    return orders


def _units(tensor: np.ndarray, member: Member, size: int) -> np.ndarray:
    moved = np.moveaxis(tensor, member.axis, 0)
    return moved.reshape(size, -1)


def _permute_other_axes(
    own: Member, tensor: np.ndarray, groups: Sequence[Group], orders: list[np.ndarray]
) -> np.ndarray:
    for group, order_U in zip(groups, orders, strict=True):
        for member in group.members:
            if member.name == own.name and member.axis != own.axis:
                each = np.arange(member.inner)
                tensor = np.take(
                    tensor, (order_U[:, None] * member.inner + each).ravel(), member.axis
                )
    return tensor


def match_vit_as_published(
    weights_ND: torch.Tensor, reference_D: torch.Tensor, *, layout: Layout, groups: Sequence[Group]
) -> list[torch.Tensor]:
    """TransFusion as it was released for ViTs: ten rounds over the blocks, the stream left alone.

    Heads by the distance of singular values, from full decompositions of both heads of each pair;
    within a head one order for queries, keys and values; hidden units by the first layer's weight;
    the orders applied as dense matrices.
    """
    orders = identity_orders(groups, len(weights_ND))
    for n, weights_D in enumerate(weights_ND):
        state = {name: tensor.clone() for name, tensor in layout.unflatten(weights_D).items()}
        reference = layout.unflatten(reference_D)
        for _ in range(10):
            for g, group in enumerate(groups):
                if group.kind == "heads":
                    _match_heads(state, reference, groups, g, orders, n)
                elif group.is_hidden:
                    _match_hidden(state, reference, group, orders[g][n])
    return orders


def _match_heads(
    state: dict[str, torch.Tensor],
    reference: dict[str, torch.Tensor],
    groups: Sequence[Group],
    g: int,
    orders: list[torch.Tensor],
    n: int,
) -> None:
    places, packed, biases, out = _attention_of(groups[g])
    width = state[packed].shape[1]
    size = width // places
    ours, theirs = (each[packed].reshape(3, places, size, width) for each in (reference, state))
    distance = np.zeros((places, places))
    for i in range(places):
        for j in range(places):
            for part in range(3):
                apart = torch.linalg.svd(ours[part, i])[1] - torch.linalg.svd(theirs[part, j])[1]
                distance[i, j] += float(apart.norm())
    head_of = linear_sum_assignment(distance)[1]
    matrix_UU = torch.zeros(width, width)
    within = {}
    for i, j in enumerate(head_of):
        likeness_SS = sum(ours[part, i] @ theirs[part, j].T for part in range(3))
        order_S = linear_sum_assignment(likeness_SS.numpy(), maximize=True)[1]
        within[j] = torch.from_numpy(order_S)
        matrix_UU[i * size + torch.arange(size), j * size + within[j]] = 1.0
    stacked = torch.block_diag(matrix_UU, matrix_UU, matrix_UU)
    state[packed] = stacked @ state[packed]
    state[biases] = stacked @ state[biases]
    state[out] = state[out] @ matrix_UU.T
    for h, group in enumerate(groups):
        if group.parent == g:
            orders[h][n] = _compose(orders, groups, g, h, n, within)
    orders[g][n] = orders[g][n][torch.from_numpy(head_of)]


def _compose(
    orders: list[torch.Tensor],
    groups: Sequence[Group],
    g: int,
    h: int,
    n: int,
    within: dict[int, torch.Tensor],
) -> torch.Tensor:
    """A head's own order, after the one it was found in has been applied."""
    now = orders[g][n].tolist().index(groups[h].place)  # where the head lies by now
    return orders[h][n][within[now]]


def _attention_of(group: Group) -> tuple[int, str, str, str]:
    names = list(dict.fromkeys(member.name for member in group.members))
    packed = next(name for name in names if name.endswith("in_proj_weight"))
    biases = next(name for name in names if name.endswith("in_proj_bias"))
    return group.size, packed, biases, next(n for n in names if n.endswith("out_proj.weight"))


def _match_hidden(
    state: dict[str, torch.Tensor],
    reference: dict[str, torch.Tensor],
    group: Group,
    order_U: torch.Tensor,
) -> None:
    makers = [m.name for m in group.members if m.axis == 0]
    weight = next(name for name in makers if name.endswith("weight"))
    likeness_UU = reference[weight] @ state[weight].T
    found_U = torch.from_numpy(linear_sum_assignment(likeness_UU.numpy(), maximize=True)[1])
    for member in group.members:
        state[member.name] = state[member.name].index_select(member.axis, found_U)
    order_U.copy_(order_U[found_U])
