"""Cuts windows of tokens out of networks of one architecture, as they are or reordered.

All windows of a batch that touch the same rows of a layer are dealt with together: their indices
are one sum, and their numbers are scaled at once.

Shape suffixes: P windows, E of them that touch the same rows, W tokens of a window, C numbers of a
token, D numbers of a network, U units of a group, K numbers that a window has of some rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dwf.align.groups import Group
from dwf.codecs.tokens import Geometry, TokenLayer, TokenScaling
from dwf.codecs.windows.moves import Moves, Places
from dwf.randomness import numbers_at

_MOST_EXTENTS = 4096  # kept: all windows of a small network
_MOST_AT_ONCE = 2**17  # numbers, so that their indices stay in cache


@dataclass(frozen=True)
class _Segment:
    """A window's part of a layer: some rows, the first and the last perhaps in part."""

    layer: int
    rows: slice
    numbers: slice
    """Those of these rows' numbers that lie in the window."""
    slots: slice
    """Those of the window's slots that they fill."""
    skipped: int
    """Slots of the first row that lie before the window."""


_Touch = tuple[int, _Segment]
"""A window, by its number, and what it covers of a layer."""


@dataclass(frozen=True)
class _Extent:
    """Everything that a window covers."""

    tokens: slice
    segments: tuple[_Segment, ...]
    groups: tuple[int, ...]
    """Whose units it touches."""
    num_numbers: int


@dataclass(frozen=True)
class Draw:
    """Where the orders of windows' units are drawn from."""

    key: int
    """Key of a stream; see `randomness.numbers_at`."""
    place_P: np.ndarray
    """Place in the stream of each window's first unit, uint64."""


class WindowCutter:
    """Cuts windows of one architecture.

    Args:
        geometry: of its tokens.
        scaling: of its tokens.
        window: W; a shorter network leaves the last tokens of its window empty.
        groups: of its units, for windows whose units are reordered.
    """

    def __init__(
        self,
        geometry: Geometry,
        scaling: TokenScaling,
        *,
        window: int,
        groups: Sequence[Group] = (),
    ):
        self.geometry, self._scaling, self._window = geometry, scaling, window
        self._still = [Moves(layer, ()) for layer in geometry.layers]
        self._moving = [Moves(layer, groups) for layer in geometry.layers]
        self._first_unit = np.cumsum([0, *(group.size for group in groups)]).tolist()
        self._mask_TC = geometry.mask_TC.numpy()
        self._positions_T3 = geometry.positions_T3.numpy()
        self._extents: dict[int, _Extent] = {}

    @property
    def num_units(self) -> int:
        """Units of all groups together."""
        return self._first_unit[-1]

    def num_bytes(self, start: int) -> int:
        """Return how many bytes of weights the window that begins with this token asks for."""
        return 4 * self._extent(start).num_numbers

    def tell(self, start: int, mask_WC: np.ndarray, *, positions_W3: np.ndarray) -> None:
        """Write which slots hold a number, and the tokens' positions; 0 behind the last token."""
        tokens = self._extent(start).tokens
        count = tokens.stop - tokens.start
        mask_WC[:count], mask_WC[count:] = self._mask_TC[tokens], False
        positions_W3[:count], positions_W3[count:] = self._positions_T3[tokens], 0

    def cut(
        self,
        rows_PD: Sequence[np.ndarray],
        start_P: Sequence[int],
        *,
        draw: Draw | None,
        out_PWC: Sequence[np.ndarray],
        places_PWC: Sequence[np.ndarray] | None = None,
    ) -> None:
        """Write windows, scaled.

        Args:
            rows_PD: the network of each window as it is, float32.
            start_P: the first token of each.
            draw: reorder their units; None leaves them as they are.
            out_PWC: float32, contiguous, all 0.
            places_PWC: int64, contiguous, all -1: takes the place in its row of each slot.
        """
        extents = [self._extent(start) for start in start_P]
        orders = self._draw(draw, extents) if draw else {}
        touching: dict[int, list[_Touch]] = {}
        for p, extent in enumerate(extents):
            for segment in extent.segments:
                touching.setdefault(segment.layer, []).append((p, segment))
        for number, windows in touching.items():
            moves = (self._moving if draw else self._still)[number]
            for part in _bounded(windows, moves, self.geometry.layers[number]):
                own = {group: orders[group].of([p for p, _ in part]) for group in moves.groups}
                self._cut_layer(part, moves.places(own), rows_PD, out_PWC, places_PWC)

    def _cut_layer(
        self,
        windows: list[_Touch],
        places: Places,
        rows_PD: Sequence[np.ndarray],
        out_PWC: Sequence[np.ndarray],
        places_PWC: Sequence[np.ndarray] | None,
    ) -> None:
        """Write what windows cover of one layer."""
        layer = self.geometry.layers[windows[0][1].layer]
        for some in _alike(windows, layer.columns):
            index_EK = places.index([e for e, _, _ in some], some[0][2].rows)
            pieces = [(p, segment) for _, p, segment in some]
            self._copy(pieces, index_EK, rows_PD, out_PWC)
            if places_PWC is not None:
                for e, (p, segment) in enumerate(pieces):
                    self._put(segment, index_EK[e % len(index_EK)], places_PWC[p], -1)

    def _copy(
        self,
        pieces: Sequence[tuple[int, _Segment]],
        index_EK: np.ndarray,
        rows_PD: Sequence[np.ndarray],
        out_PWC: Sequence[np.ndarray],
    ) -> None:
        """Take the numbers of the same rows of some windows, scale them and put them in place."""
        # Whole rows, of which a window may have only a part: the rest is never read, is scaled like
        # the others, and is cut off by `_put`.
        numbers_EK = np.zeros((len(pieces), index_EK.shape[1]), np.float32)
        for e, (p, segment) in enumerate(pieces):
            mine, index_K = segment.numbers, index_EK[e % len(index_EK)]
            # No index is out of range: to wrap it costs least.
            rows_PD[p].take(index_K[mine], out=numbers_EK[e, mine], mode="wrap")
        if self._scaling.changes:
            numbers_EK -= self._scaling.shift_L[pieces[0][1].layer]
            numbers_EK /= self._scaling.scale_L[pieces[0][1].layer]
        for e, (p, segment) in enumerate(pieces):
            self._put(segment, numbers_EK[e], out_PWC[p], 0)

    def _put(
        self, segment: _Segment, numbers_K: np.ndarray, out_WC: np.ndarray, padding: int
    ) -> None:
        layer = self.geometry.layers[segment.layer]
        slots, rows_RK = out_WC.reshape(-1)[segment.slots], numbers_K.reshape(-1, layer.columns)
        if len(slots) == len(rows_RK) * layer.pitch:
            slots.reshape(-1, layer.pitch)[:, : layer.columns] = rows_RK
            return
        whole = np.full((len(rows_RK), layer.pitch), padding, out_WC.dtype)
        whole[:, : layer.columns] = rows_RK
        slots[:] = whole.reshape(-1)[segment.skipped : segment.skipped + len(slots)]

    def _draw(self, draw: Draw, extents: Sequence[_Extent]) -> "dict[int, _Orders]":
        """Return orders of the groups that windows touch: those that sort random numbers."""
        touching: dict[int, list[int]] = {}
        for p, extent in enumerate(extents):
            for group in extent.groups:
                touching.setdefault(group, []).append(p)
        found = {}
        for group, windows in touching.items():
            # Every unit has its own place in the stream, so a window draws the orders of its own
            # groups alone, and they are those that a window elsewhere in the network would draw.
            units_U = np.arange(*self._first_unit[group : group + 2], dtype=np.uint64)
            keys_PU = numbers_at(draw.key, draw.place_P[windows][:, None] + units_U)
            found[group] = _Orders(windows, keys_PU.argsort(1))
        return found

    def _extent(self, start: int) -> _Extent:
        if start not in self._extents:
            if len(self._extents) >= _MOST_EXTENTS:
                self._extents.clear()
            self._extents[start] = self._find_extent(start)
        return self._extents[start]

    def _find_extent(self, start: int) -> _Extent:
        stop = min(start + self._window, self.geometry.num_tokens)
        segments = tuple(
            _segment(number, layer, (start, stop), self.geometry.size)
            for number, layer in enumerate(self.geometry.layers)
            if max(start, layer.first) < min(stop, layer.stop)
        )
        groups = {group for segment in segments for group in self._moving[segment.layer].groups}
        numbers = sum(segment.numbers.stop - segment.numbers.start for segment in segments)
        return _Extent(
            slice(start, stop), segments, groups=tuple(sorted(groups)), num_numbers=numbers
        )


@dataclass(frozen=True)
class _Orders:
    """Orders of a group's units, for the windows that touch it."""

    windows: list[int]
    order_PU: np.ndarray

    def of(self, some: list[int]) -> np.ndarray:
        """Return the orders of some of these windows."""
        if len(some) == len(self.windows):
            return self.order_PU
        return self.order_PU[np.searchsorted(self.windows, some)]


def _bounded(windows: list[_Touch], moves: Moves, layer: TokenLayer) -> list[list[_Touch]]:
    """Cut windows into parts that are indexed at once: few, where indices are of whole layers."""
    step = max(1, _MOST_AT_ONCE // layer.numbers) if moves.by_blocks else len(windows)
    return [windows[at : at + step] for at in range(0, len(windows), step)]


def _alike(windows: Sequence[_Touch], columns: int) -> list[list[tuple[int, int, _Segment]]]:
    """Return (place among the windows, window, segment) of those that touch the same rows."""
    found: dict[tuple[int, int], list[tuple[int, int, _Segment]]] = {}
    for e, (p, segment) in enumerate(windows):
        found.setdefault((segment.rows.start, segment.rows.stop), []).append((e, p, segment))
    parts = []
    for (start, stop), some in found.items():
        step = max(1, _MOST_AT_ONCE // ((stop - start) * columns))
        parts += [some[at : at + step] for at in range(0, len(some), step)]
    return parts


def _segment(number: int, layer: TokenLayer, window: tuple[int, int], size: int) -> _Segment:
    """Return what a window of tokens covers of a layer that it touches."""
    first, last = max(window[0], layer.first), min(window[1], layer.stop)
    begin, end = (first - layer.first) * size, (last - layer.first) * size
    # Packed densely, a layer's last token reaches beyond its last row.
    end = min(end, layer.rows * layer.pitch)
    low, high = begin // layer.pitch, -(-end // layer.pitch)
    skipped, at = begin - low * layer.pitch, (first - window[0]) * size
    left = end - (high - 1) * layer.pitch
    taken = (high - low - 1) * layer.columns + min(left, layer.columns)
    numbers = slice(min(skipped, layer.columns), taken)
    return _Segment(
        number,
        slice(low, high),
        numbers=numbers,
        slots=slice(at, at + end - begin),
        skipped=skipped,
    )
