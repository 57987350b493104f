"""Heads and what lies within them, matched at once: which head is which, and each one's units.

A head of the reference and a head of the network go together as well as the best orders of the
units within allow; these are found for every pair, and then the pairs. That is exact where the
groups within a head do not meet in one tensor, as queries with keys and values with output do not
(Source: Rinaldi et al., TransFusion, arXiv:2505.22697, which matches heads by invariants). Blocks
of a grouped convolution do meet, so their orders are improved in turn for each pair.

Shape suffixes: N networks, H heads or blocks, S units within one, U = H * S, R rows of a block,
C columns of a block, F other numbers.
"""

from collections.abc import Mapping

import torch

from dwf.align.matching.assignment import assign, total
from dwf.align.matching.steps import Coupled, Step

_MAX_TURNS = 6
Solution = tuple[torch.Tensor, list[torch.Tensor]]
"""The order of heads, [H], and for each stack the orders within each of the network's heads,
[H, S]."""


class Blocks:
    """A grouped convolution's weight as [N, H, R, C, F], block by block."""

    def __init__(self, pair: Coupled, weights: Mapping[str, torch.Tensor]):
        self.row_stack, self.column_stack = pair.row_stack, pair.column_stack
        self._pair = pair
        self.weights = self._cut(weights[pair.name])

    def of(self, reference: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the reference's, [H, R, C, F]."""
        return self._cut(reference[self._pair.name][None])[0]

    def _cut(self, tensor: torch.Tensor) -> torch.Tensor:
        pair = self._pair
        places, num_rows, per_row = pair.rows.shape
        num_columns, per_column = pair.columns.shape
        tensor = tensor.index_select(1, torch.from_numpy(pair.rows.reshape(-1)))
        tensor = tensor.index_select(
            pair.column_axis + 1, torch.from_numpy(pair.columns.reshape(-1))
        )
        tensor = tensor.movedim(pair.column_axis + 1, 2)
        tensor = tensor.reshape(len(tensor), places, num_rows, per_row, num_columns, per_column, -1)
        return tensor.movedim(3, 5).flatten(4)


def solve_heads(
    step: Step,
    likeness: list[torch.Tensor],
    *,
    own_HH: torch.Tensor,
    blocks: list[tuple[Blocks, torch.Tensor, torch.Tensor]],
    current: Solution | None,
) -> tuple[Solution, float, float]:
    """Find the orders of heads and of units within them for one network.

    Args:
        step: the heads and what lies within.
        likeness: for each stack [U, U], of tensors in which only it and other steps take part.
        own_HH: likeness of heads as a whole.
        blocks: (which stacks, the reference's [H, R, C, F], the network's) of grouped convolutions.
        current: the orders as they are now, which the result is no worse than; None: unknown.

    Returns:
        The orders, their sum of likeness, and that of `current` (0 if unknown).
    """
    places = step.places
    of_pairs = [
        matrix.unflatten(0, (places, -1)).unflatten(2, (places, -1)).transpose(1, 2)
        for matrix in likeness
    ]
    within, value_HH = _solve_pairs(of_pairs, blocks)
    now = 0.0
    if current is not None:
        head_H, orders = current
        rows_H = torch.arange(places)
        as_now = [order_HS[head_H] for order_HS in orders]
        values_H = _values(
            [pairs[rows_H, head_H] for pairs in of_pairs],
            [(of, ref, net[head_H]) for of, ref, net in blocks],
            as_now,
        )
        now = float((values_H + own_HH[rows_H, head_H]).sum())
        if blocks:
            # Orders of blocks found in turn may be worse than those at hand: these are kept then.
            better_H = values_H > value_HH[rows_H, head_H]
            for found, kept in zip(within, as_now, strict=True):
                found[rows_H[better_H], head_H[better_H]] = kept[better_H]
            value_HH[rows_H[better_H], head_H[better_H]] = values_H[better_H]
    value_HH = value_HH + own_HH
    head_H = assign(value_HH[None])[0]
    found = float(value_HH[torch.arange(places), head_H].sum())
    of_heads = []
    for orders_HHS in within:
        order_HS = torch.empty_like(orders_HHS[0])
        order_HS[head_H] = orders_HHS[torch.arange(places), head_H]
        of_heads.append(order_HS)
    return (head_H, of_heads), found, now


def _solve_pairs(
    of_pairs: list[torch.Tensor],
    blocks: list[tuple[Blocks, torch.Tensor, torch.Tensor]],
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Orders of every stack for every pair of heads, [H, H, S], and the pairs' likeness, [H, H]."""
    places = len(of_pairs[0])
    # What a pair of heads can reach does not depend on how the others are paired: H * H small
    # assignments and one of heads are as good as all H! * S!^H orders tried (but for `blocks`).
    flat = [pairs.flatten(0, 1) for pairs in of_pairs]
    if not blocks:
        orders = [assign(matrices) for matrices in flat]
    else:
        spread = [
            # In the order of `flat`: the reference's head is the slow one, the network's the fast
            # one.
            (of, ref.repeat_interleave(places, 0), net.repeat(places, 1, 1, 1))
            for of, ref, net in blocks
        ]
        orders = _in_turn(flat, spread)
        values = _values(flat, spread, orders)
        shaped = [order.unflatten(0, (places, places)) for order in orders]
        return shaped, values.unflatten(0, (places, places))
    value_HH = sum(
        total(matrices, order) for matrices, order in zip(flat, orders, strict=True)
    ).unflatten(0, (places, places))
    return [order.unflatten(0, (places, places)) for order in orders], value_HH


def _in_turn(
    flat: list[torch.Tensor], blocks: list[tuple[Blocks, torch.Tensor, torch.Tensor]]
) -> list[torch.Tensor]:
    """Improve the stacks' orders in turn, each pair by itself, until none gains."""
    orders: list[torch.Tensor | None] = [None] * len(flat)
    # The stack that other tensors tell most about comes first.
    first = sorted(range(len(flat)), key=lambda k: -float(flat[k].double().var(1).sum()))
    for turn in range(_MAX_TURNS):
        changed = False
        for k in first:
            likeness = flat[k].clone()
            for of, reference, network in blocks:
                if k not in (of.row_stack, of.column_stack):
                    continue
                other = of.column_stack if k == of.row_stack else of.row_stack
                if other is not None and orders[other] is None:
                    continue
                likeness += _of_blocks(of, k, reference, network, orders)
            found = assign(likeness)
            changed = changed or orders[k] is None or not torch.equal(found, orders[k])
            orders[k] = found
        if not changed and turn:
            break
    return orders


def _of_blocks(
    of: Blocks,
    k: int,
    reference: torch.Tensor,
    network: torch.Tensor,
    orders: list[torch.Tensor | None],
) -> torch.Tensor:
    """Likeness of rows (columns) of blocks, their columns (rows) as ordered now."""
    if k == of.row_stack:
        order = orders[of.column_stack]
        moved = network.gather(2, order[:, None, :, None].expand(network.shape))
        return torch.einsum("prcf,pscf->prs", reference, moved)
    if of.row_stack is not None:
        order = orders[of.row_stack]
        network = network.gather(1, order[:, :, None, None].expand(network.shape))
    return torch.einsum("prcf,prdf->pcd", reference, network)


def _values(
    flat: list[torch.Tensor],
    blocks: list[tuple[Blocks, torch.Tensor, torch.Tensor]],
    orders: list[torch.Tensor],
) -> torch.Tensor:
    """The likeness of pairs under these orders, float64."""
    values = sum(total(matrices, order) for matrices, order in zip(flat, orders, strict=True))
    for of, reference, network in blocks:
        rows = None if of.row_stack is None else orders[of.row_stack]
        if rows is not None:
            network = network.gather(1, rows[:, :, None, None].expand(network.shape))
        columns = orders[of.column_stack]
        network = network.gather(2, columns[:, None, :, None].expand(network.shape))
        values = values + (reference.double() * network).sum((1, 2, 3))
    return values
