"""Tokens of a network for a predictor: one for each unit or filter, chunk of weights, or tensor.

A unit's token holds its incoming weights, then what is its own: bias, weight and bias of a norm,
running statistics. Columns are `ordered`, as they lie, or `sorted`: weights that another order of
other units may exchange are a set, of which so many quantiles are taken, so that any order and any
width give a token of one size. Incoming weights are multiplied by the square root of their number,
as their spread at initialisation falls with it.

Numbers of a batch are gathered by one index array of the layout.

Shape suffixes: N networks, D numbers of one network, U tokens of a layer, C numbers gathered for a
token, W numbers of a token, M numbers gathered for a network, T tokens, Q quantiles, I indices of
an axis.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch.nn import functional

from dwf.align.groups import Group, Member
from dwf.errors import ConfigError
from dwf.predictors.config import Columns, Tokenisation
from dwf.zoo.layout import Entry, Layout

CHUNK = 64
"""Numbers of a token of the tokenisation `global`, and of `layer`."""
STATISTICS = 4
"""Numbers at the start of a tensor's token: mean, standard deviation, least and greatest."""
Axis0 = frozenset[tuple[int, Member]]


@dataclass(frozen=True, eq=False)
class TokenLayer:
    """Tokens that are a set: the units of a layer."""

    name: str
    """Module, or tensor, that they are of."""
    key: str
    """Its embedding: layers of one key, in any layout, share a linear map."""
    index_UC: np.ndarray
    """Where each number of a token lies in a row, int64; D: nowhere, it is 0."""
    fixed: int
    """First numbers of a token that are taken as they are; shorter ones of a key are padded."""
    sets: tuple[tuple[int, int], ...] = ()
    """Sets of numbers behind these: (how many sets, numbers of each)."""
    own: int = 0
    """Last numbers, the unit's own."""
    quantiles: int = 0
    """Quantiles that stand for a set."""
    is_tensor: bool = False
    """Whether a token is of a whole tensor: statistics of the gathered numbers, then values."""

    @property
    def gain(self) -> float:
        """Factor of incoming weights."""
        return math.sqrt(max(1, self.index_UC.shape[1] - self.own))

    @property
    def width(self) -> int:
        """W: numbers of a token, before padding."""
        if self.is_tensor:
            return CHUNK
        return self.fixed + self.quantiles * sum(num for num, _ in self.sets) + self.own

    def values(self, gathered_NUC: torch.Tensor) -> torch.Tensor:
        """Return tokens_NUW of gathered numbers."""
        if self.is_tensor:
            return _of_tensor(gathered_NUC, is_sorted=bool(self.quantiles))
        if not self.sets:
            own_NUC = gathered_NUC[..., self.fixed :]
            return torch.cat([gathered_NUC[..., : self.fixed] * self.gain, own_NUC], dim=-1)
        sizes = [self.fixed, *(num * size for num, size in self.sets), self.own]
        first, *sets, own = gathered_NUC.split(sizes, dim=-1)
        parts = [first * self.gain]
        for part, (num, size) in zip(sets, self.sets, strict=True):
            sorted_NUSC = part.unflatten(-1, (num, size)).sort(-1).values
            parts.append(quantiles_of(sorted_NUSC, self.quantiles).flatten(-2) * self.gain)
        return torch.cat([*parts, own], dim=-1)


def quantiles_of(sorted_C: torch.Tensor, num: int) -> torch.Tensor:
    """Return quantiles of numbers that lie sorted on the last axis, evenly from least to greatest.

    Between two numbers they are interpolated, as by `torch.quantile`; as many as there are numbers
    are these numbers. One quantile is the median.
    """
    size = sorted_C.shape[-1]
    place_Q = np.linspace(0, size - 1, num) if num > 1 else np.array([(size - 1) / 2])
    low_Q = np.minimum(np.floor(place_Q).astype(np.int64), max(size - 2, 0))
    share_Q = torch.from_numpy(place_Q - low_Q).to(sorted_C)
    low = sorted_C[..., torch.from_numpy(low_Q)]
    high = sorted_C[..., torch.from_numpy(np.minimum(low_Q + 1, size - 1))]
    return torch.lerp(low, high, share_Q)


def _of_tensor(values_NUC: torch.Tensor, is_sorted: bool) -> torch.Tensor:
    """Return statistics of a tensor and values of it: quantiles, or evenly spaced as they lie."""
    num = CHUNK - STATISTICS
    sorted_NUC = values_NUC.sort(-1).values
    mean_NU, std_NU = sorted_NUC.mean(-1), sorted_NUC.std(-1, correction=0)
    statistics = torch.stack([mean_NU, std_NU, sorted_NUC[..., 0], sorted_NUC[..., -1]], dim=-1)
    if is_sorted:
        return torch.cat([statistics, quantiles_of(sorted_NUC, num)], dim=-1)
    places_Q = np.linspace(0, values_NUC.shape[-1] - 1, num).round().astype(np.int64)
    return torch.cat([statistics, values_NUC[..., torch.from_numpy(places_Q)]], dim=-1)


@dataclass(frozen=True, eq=False)
class NetworkTokens:
    """Tokens of networks of one layout, layer after layer."""

    layout: Layout
    layers: tuple[TokenLayer, ...]

    @property
    def num_tokens(self) -> int:
        """T."""
        return sum(len(layer.index_UC) for layer in self.layers)

    def is_like(self, other: "NetworkTokens") -> bool:
        """Whether another's tokens are these: zoos of one layout may tie their units otherwise."""
        if self.layout.digest != other.layout.digest or len(self.layers) != len(other.layers):
            return False
        pairs = zip(self.layers, other.layers, strict=True)
        return all(
            (a.key, a.sets) == (b.key, b.sets) and np.array_equal(a.index_UC, b.index_UC)
            for a, b in pairs
        )

    @cached_property
    def _index_M(self) -> torch.Tensor:  # noqa: N802  a shape, not a word
        parts = [layer.index_UC.reshape(-1) for layer in self.layers]
        return torch.from_numpy(np.concatenate(parts))

    @cached_property
    def _has_nowhere(self) -> bool:
        return bool((self._index_M == self.layout.size).any())

    def values(self, weights_ND: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield tokens_NUW of each layer."""
        if self._has_nowhere:
            weights_ND = functional.pad(weights_ND, (0, 1))
        gathered_NM = weights_ND.index_select(1, self._index_M)
        sizes = [layer.index_UC.size for layer in self.layers]
        for layer, part in zip(self.layers, gathered_NM.split(sizes, dim=1), strict=True):
            yield layer.values(part.unflatten(1, layer.index_UC.shape))


def tokenise(
    layout: Layout,
    groups: Sequence[Group] | None,
    *,
    kind: Tokenisation,
    columns: Columns,
    quantiles: int,
    max_tokens: int,
) -> NetworkTokens:
    """Return the tokens of networks of a layout.

    Args:
        layout: the layout; its constants, which are no network's own, are of no token.
        groups: groups of the architecture, which say what may be exchanged; None: not known.
        kind: a token for each unit, chunk of 64 numbers, or tensor.
        columns: whether incoming weights that may be exchanged come as they lie, or as quantiles.
        quantiles: quantiles of each set.
        max_tokens: longest sequence.

    Raises:
        ConfigError: there are more tokens than that, or none.
    """
    is_sorted = columns == "sorted"
    if kind == "global":
        layers = [_chunks(layout)]
    elif kind == "layer":
        layers = [_tensor(entry, is_sorted) for entry in _entries(layout)]
    else:
        gathered = _gather_units(layout, groups)
        layers = [
            _units(own, number, groups=groups if is_sorted else None, quantiles=quantiles)
            for number, own in enumerate(gathered)
        ]
    found = NetworkTokens(layout, tuple(layers))
    if not 0 < found.num_tokens <= max_tokens:
        raise ConfigError(
            f"networks of layout {layout.digest} ({layout.size:,} numbers) are {found.num_tokens} "
            f"tokens in the tokenisation {kind!r}, and max_tokens = {max_tokens}: raise "
            "max_tokens, or set tokens to layer, which makes one of each tensor"
        )
    return found


def _entries(layout: Layout) -> list[Entry]:
    return [entry for entry in layout.entries if entry.role != "constant" and entry.size]


def _chunks(layout: Layout) -> TokenLayer:
    """The whole network as one stream, cut into chunks; the last is filled up with zeros."""
    places = [np.arange(entry.offset, entry.stop) for entry in _entries(layout)]
    place_M = np.concatenate(places) if places else np.zeros(0, np.int64)
    padded_M = np.full(-(-len(place_M) // CHUNK) * CHUNK, layout.size)
    padded_M[: len(place_M)] = place_M
    return TokenLayer("network", "chunk", padded_M.reshape(-1, CHUNK), fixed=0, own=CHUNK)


def _tensor(entry: Entry, is_sorted: bool) -> TokenLayer:
    index_UC = np.arange(entry.offset, entry.stop)[None]
    key = "tensor " + entry.name.replace(".", "_")
    return TokenLayer(entry.name, key, index_UC, fixed=0, quantiles=int(is_sorted), is_tensor=True)


def _gather_units(layout: Layout, groups: Sequence[Group] | None) -> list[list[Entry]]:
    """Return the tensors of each layer: one with several axes first, then those of its units.

    A tensor of one axis belongs to the nearest layer before it with as many units, reordered with
    it, that has no such tensor yet; or it begins a layer.
    """
    layers: list[list[Entry]] = []
    orders: list[Axis0 | None] = []
    for entry in _entries(layout):
        moves = _moves(entry, groups)
        home = None if len(entry.shape) > 1 else _home(entry, moves, layers, orders)
        if home is None:
            layers.append([entry])
            orders.append(moves)
        else:
            layers[home].append(entry)
    return layers


def _home(
    entry: Entry,
    moves: Axis0 | None,
    layers: Sequence[Sequence[Entry]],
    orders: Sequence[Axis0 | None],
) -> int | None:
    """Return the number of the layer whose units a tensor of one axis is of; None: of no one."""
    last = len(layers) - 1
    for number in range(last, -1 if moves is not None else max(last - 1, -1), -1):
        first = layers[number][0]
        fits = first.shape and first.shape[:1] == entry.shape and orders[number] == moves
        if fits and _leaf(entry) not in map(_leaf, layers[number]):
            return number
    return None


def _leaf(entry: Entry) -> str:
    """Name of what a tensor of one axis is to a unit."""
    leaf = entry.name.rpartition(".")[2]
    return f"norm_{leaf}" if entry.role == "norm" else leaf


def _moves(entry: Entry, groups: Sequence[Group] | None) -> Axis0 | None:
    """Return what reorders a tensor's first axis."""
    if groups is None:
        return None
    return frozenset(
        (g, Member("", 0, start=m.start, outer=m.outer, inner=m.inner, places=m.places))
        for g, group in enumerate(groups)
        for m in group.members
        if m.name == entry.name and m.axis == 0
    )


def _units(
    tensors: Sequence[Entry], number: int, *, groups: Sequence[Group] | None, quantiles: int
) -> TokenLayer:
    """Return a layer's tokens; without groups its columns lie as they are."""
    first, *own = tensors
    if len(first.shape) < 2:  # a norm, say, beside no weights of its own
        own, incoming_UC, sets, fixed = list(tensors), None, (), 0
    else:
        columns_C, sets, fixed = _arrange(first, groups)
        rows_UC = np.arange(first.offset, first.stop).reshape(first.shape[0], -1)
        incoming_UC = rows_UC[:, columns_C]
    own_UC = [np.arange(entry.offset, entry.stop).reshape(-1, 1) for entry in own]
    index_UC = np.hstack(([] if incoming_UC is None else [incoming_UC]) + own_UC)
    kernel = "x".join(map(str, first.shape[2:]))
    shape = f"{fixed}_{sum(num for num, _ in sets)}" if sets else kernel
    key = " ".join([f"{number} {shape}", *map(_leaf, own)])
    name = first.name.rpartition(".")[0] or first.name
    return TokenLayer(
        name, key, index_UC, fixed=fixed, sets=sets, own=len(own), quantiles=quantiles
    )


def _arrange(
    entry: Entry, groups: Sequence[Group] | None
) -> tuple[np.ndarray, tuple[tuple[int, int], ...], int]:
    """Return an order of a unit's incoming weights: those that stay, then sets of the others.

    Returns:
        The order, int64; (how many sets, numbers of each), one after the other; how many stay.
    """
    shape = entry.shape[1:]
    num = math.prod(shape)
    if groups is None:
        return np.arange(num), (), num
    labels = [_orbits(entry, axis, groups) for axis in range(1, len(entry.shape))]
    of_all = np.ravel_multi_index(np.meshgrid(*labels, indexing="ij"), shape).reshape(-1)
    _, set_C, size_S = np.unique(of_all, return_inverse=True, return_counts=True)
    order_C = np.lexsort((np.arange(num), set_C, size_S[set_C] > 1))
    fixed = int((size_S == 1).sum())
    sets: list[tuple[int, int]] = []
    for size in size_S[size_S > 1].tolist():
        before = sets.pop()[0] if sets and sets[-1][1] == size else 0
        sets.append((before + 1, size))
    return order_C, tuple(sets), fixed


def _orbits(entry: Entry, axis: int, groups: Sequence[Group]) -> np.ndarray:
    """Return for each index of an axis the least of those that orders of units exchange it with."""
    num = entry.shape[axis]
    ends: list[np.ndarray] = []
    for group in groups:
        for member in group.members:
            if member.name == entry.name and member.axis == axis and group.size > 1:
                stop = member.start + member.outer * group.size * member.inner
                place_I = np.array(member.places or range(member.start, stop))
                stack = place_I.reshape(member.outer, group.size, member.inner)
                moved = np.broadcast_to(stack[:, :1], stack.shape)
                ends.append(np.stack([moved.reshape(-1), stack.reshape(-1)]))
    if not ends:
        return np.arange(num)
    from_to = np.concatenate(ends, axis=1)
    edges = coo_array((np.ones(from_to.shape[1]), tuple(from_to)), shape=(num, num))
    _, label_I = connected_components(edges, directed=False)
    least_L = np.full(label_I.max() + 1, num)
    np.minimum.at(least_L, label_I, np.arange(num))
    return least_L[label_I]
