"""Where the numbers of a layer come from when units are reordered, as index arithmetic.

Number (r, i) of a layer's matrix comes from (row of r, column of i): the two axes of a tensor move
by themselves. So the places of a window are an outer sum over its rows and columns, and no network
is copied. Only blocks of a grouped convolution, whose columns move otherwise in each, are indexed
as a whole, one layer at a time.

Shape suffixes: E orders, U units of a group, R rows of a layer, I numbers of a row without bias.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dwf.align.groups import Group, Member, indices, reorder
from dwf.codecs.tokens import TokenLayer
from dwf.zoo.layout import Entry

Step = tuple[int, Member]
"""A group and one of its members; taken in the order of groups, as `align.groups.permute` does."""


@dataclass(frozen=True)
class Places:
    """Places in a row of weights that the numbers of a layer come from, int64.

    A first axis of 1 holds for all orders.
    """

    inner: int
    """I."""
    rows_ER: np.ndarray
    columns_EI: np.ndarray | None
    """To be added to their row's."""
    whole_ERI: np.ndarray | None
    """Instead of these two, where the columns of one row move otherwise than those of another."""
    bias_ER: np.ndarray | None

    def index(self, orders: Sequence[int], rows: slice) -> np.ndarray:
        """Return the places of some rows with their biases, int64 of shape [orders or 1, K].

        Args:
            orders: which of the E.
            rows: of the layer.
        """
        parts = (self.rows_ER, self.columns_EI, self.whole_ERI, self.bias_ER)
        moving = any(each is not None and len(each) > 1 for each in parts)
        columns = self.inner + (self.bias_ER is not None)
        num = len(orders) if moving else 1
        index_ERK = np.empty((num, rows.stop - rows.start, columns), np.int64)
        if self.whole_ERI is not None:
            index_ERK[..., : self.inner] = _of(self.whole_ERI, orders)[:, rows]
        else:
            rows_ER1 = _of(self.rows_ER, orders)[:, rows, None]
            columns_E1I = _of(self.columns_EI, orders)[:, None]
            np.add(rows_ER1, columns_E1I, out=index_ERK[..., : self.inner])
        if self.bias_ER is not None:
            index_ERK[..., self.inner] = _of(self.bias_ER, orders)[:, rows]
        return index_ERK.reshape(num, -1)


class Moves:
    """How a layer follows the units of an architecture's groups.

    Args:
        layer: the layer.
        groups: the groups of the architecture, in their order.
    """

    def __init__(self, layer: TokenLayer, groups: Sequence[Group]):
        self._layer = layer
        self._steps = _steps_of(layer.weight, groups)
        self._bias_steps = _steps_of(layer.bias, groups) if layer.bias else []
        self.groups = tuple(sorted({group for group, _ in self._steps + self._bias_steps}))
        """Numbers of the groups that it takes orders of."""
        rows = self._on_axis(layer.axis)
        self._bias_follows = [(g, _reach(m)) for g, m in rows] == [
            (g, _reach(m)) for g, m in self._bias_steps
        ]
        self.by_blocks = any(member.rows is not None for _, member in self._steps)
        """Whether its columns move otherwise in each block of its rows: `places` are then whole."""

    def places(self, orders: Mapping[int, np.ndarray]) -> Places:
        """Return the places of the whole layer for E orders.

        Args:
            orders: number of a group -> order_EU, as in `align.groups.Orders`, without signs.
        """
        weight, bias, inner = self._layer.weight, self._layer.bias, self._layer.inner
        rows_ER = _axis_map(self._layer.rows, self._on_axis(self._layer.axis), orders)
        columns_EI, whole_ERI, bias_ER = None, None, None
        if self.by_blocks:
            whole_ERI = weight.offset + self._whole(orders)
        else:
            columns_EI = self._columns(orders)
        if bias is not None:
            follows = self._bias_follows
            own = rows_ER if follows else _axis_map(len(rows_ER[0]), self._bias_steps, orders)
            bias_ER = bias.offset + own
        return Places(
            inner,
            weight.offset + rows_ER * inner,
            columns_EI=columns_EI,
            whole_ERI=whole_ERI,
            bias_ER=bias_ER,
        )

    def _on_axis(self, axis: int) -> list[Step]:
        return [step for step in self._steps if step[1].axis == axis]

    def _columns(self, orders: Mapping[int, np.ndarray]) -> np.ndarray:
        """Return where the numbers of a row come from within their row, columns_EI."""
        shape, first = self._layer.weight.shape, self._layer.axis + 1
        columns_E = np.zeros((1, 1), np.int64)
        for axis in range(first, len(shape)):
            steps = self._on_axis(axis)
            if not steps and not any(self._on_axis(later) for later in range(axis, len(shape))):
                rest = np.arange(math.prod(shape[axis:]))  # none of the axes from here on moves
                return (columns_E[..., None] * len(rest) + rest).reshape(len(columns_E), -1)
            from_E = _axis_map(shape[axis], steps, orders)
            columns = columns_E[:, :, None] * shape[axis] + from_E[:, None]
            columns_E = columns.reshape(len(columns), -1)
        return columns_E

    def _whole(self, orders: Mapping[int, np.ndarray]) -> np.ndarray:
        """Return where each number comes from within its tensor, by moving their numbers."""
        shape = self._layer.weight.shape
        num_orders = max(len(orders[group]) for group in self.groups)
        # Places are moved as `permute` moves numbers, so they end where these do. It takes a whole
        # layer for each order, which is why `_bounded` gives few at a time.
        index = np.tile(np.arange(math.prod(shape)), (num_orders, 1)).reshape(-1, *shape)
        for group, member in self._steps:
            reorder(index, member, order_NU=orders[group])
        return index.reshape(num_orders, self._layer.rows, -1)


def _of(array_EX: np.ndarray, orders: Sequence[int]) -> np.ndarray:
    return array_EX if len(array_EX) in (1, len(orders)) else array_EX[orders]


def _steps_of(entry: Entry, groups: Sequence[Group]) -> list[Step]:
    return [
        (number, member)
        for number, group in enumerate(groups)
        for member in group.members
        if member.name == entry.name
    ]


def _reach(member: Member) -> tuple[int, int, int, tuple[int, ...] | None]:
    return member.start, member.outer, member.inner, member.places


def _axis_map(length: int, steps: Sequence[Step], orders: Mapping[int, np.ndarray]) -> np.ndarray:
    """Return where the indices of an axis come from, int64 of shape [E, length], or [1, length]."""
    if not steps:
        return np.arange(length)[None]
    if len(steps) == 1:
        group, member = steps[0]
        from_EI = indices(member, orders[group])
        if from_EI.shape[1] == length and member.places is None:
            return from_EI
    map_EI = np.tile(np.arange(length), (len(orders[steps[0][0]]), 1))
    # In the order of groups, each gathering from what those before it left: a head's units first,
    # then the head with them, as `permute` does.
    for group, member in steps:
        from_EI = indices(member, orders[group])
        at_I = member.start + np.arange(from_EI.shape[1])
        at_I = at_I if member.places is None else np.array(member.places)
        map_EI[:, at_I] = np.take_along_axis(map_EI[:, at_I], from_EI, 1)
    return map_EI
