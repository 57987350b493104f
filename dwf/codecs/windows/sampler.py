"""Windows of tokens, cut straight from the memory maps of zoos' shards.

A step reads the numbers of its windows and no others. A permuted view is the window of an
equivalent network, its units in random order: the same tokens of another network, gathered by
index arithmetic (`moves.py`), bitwise those of the network permuted as a whole.

What is drawn is a pure function of (seed, step, number of the example in the global batch): any
number of ranks, and of processes that load for them, see one batch.

Shape suffixes: V views, B examples of a batch, W tokens of a window, C numbers of a token, D
numbers of a network, U units of a group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from dwf.align.groups import Group
from dwf.align.symmetry import zoo_symmetry
from dwf.codecs.tokens import Geometry, TokenScaling
from dwf.codecs.windows.cutter import Draw, WindowCutter
from dwf.errors import ConfigError, ShapeMismatch, TooFewNetworks
from dwf.randomness import numbers_at, numpy_stream, seed_of
from dwf.zoo.moments import Sources, count_networks
from dwf.zoo.store import Zoo

View = Literal["canonical", "permuted"]
_EXAMPLE_SHIFT = np.uint64(32)  # each example has so many bits of places in its step's stream


@dataclass
class WindowBatch:
    """Windows of a part of a batch, one of a network in each view."""

    tokens_VBWC: torch.Tensor
    """float32, standardised; padding is 0."""
    mask_BWC: torch.Tensor
    """Which slots hold a number, bool; of tokens behind a short network's last, none."""
    positions_BW3: torch.Tensor
    """int64, as in the geometry; behind a short network's last token, 0."""
    source_B: torch.Tensor
    """Number of the source of each example, int64."""
    row_B: torch.Tensor
    """Its row in that zoo, int64."""
    places_VBWC: torch.Tensor | None
    """Place of each slot in that row, int64, -1 for padding; only if asked for."""
    num_bytes: int
    """Bytes of weights that were requested."""


@dataclass(frozen=True)
class _Picks:
    """Which networks' windows a part of a batch is; all of shape [B]."""

    example_B: np.ndarray
    source_B: np.ndarray
    row_B: np.ndarray
    start_B: np.ndarray


class WindowSampler:
    """Cuts the windows of each step; each network is taken once before one is taken again.

    A window's middle is drawn uniformly and the window pushed inside the network: so tokens near
    the ends, the first layer's and the head's, are seen about half as often as others, where
    starts drawn uniformly would hardly ever show them.

    Args:
        sources: networks of zoos, whose layouts may differ.
        geometries: of each source's tokens, all of one token size.
        scalings: of each source's tokens.
        window: tokens of a window, at most.
        views: what is cut of each network: as it is, or its units in random order.
        seed: what is drawn follows from it.
        places: tell the place of each slot in its row too.

    Raises:
        TooFewNetworks: no network.
        ShapeMismatch: a geometry of another layout or of another token size.
        ConfigError: permuted views of networks whose symmetries cannot be traced.
    """

    def __init__(
        self,
        sources: Sources,
        geometries: Sequence[Geometry],
        *,
        scalings: Sequence[TokenScaling],
        window: int,
        views: Sequence[View] = ("canonical", "permuted"),
        seed: int = 0,
        places: bool = False,
    ):
        _check(sources, geometries)
        self._sources, self._seed, self._places = sources, seed, places
        self._views = tuple(views)
        still = [v for v, view in enumerate(views) if view == "canonical"]
        # Views that are the first canonical one again are copied from it, not read again.
        self._same_as, self._same = still[0] if still else None, still[1:]
        self._cut_apart = [v for v in range(len(views)) if v not in self._same]
        self.num_tokens = min(window, max(geometry.num_tokens for geometry in geometries))
        """W: tokens of each window."""
        self.token_size = geometries[0].size
        """C."""
        self._cutters = [
            WindowCutter(geometry, scaling, window=self.num_tokens, groups=self._groups(zoo))
            for (zoo, _), geometry, scaling in zip(sources, geometries, scalings, strict=True)
        ]
        self._starts = np.cumsum([0, *(len(rows) for _, rows in sources)])
        self._orders: dict[int, np.ndarray] = {}

    def batch(self, step: int, batch_size: int, *, start: int, stop: int) -> WindowBatch:
        """Return examples of a step's global batch.

        Args:
            step: of training.
            batch_size: examples of the global batch.
            start: the first example wanted.
            stop: the one behind the last.
        """
        key = seed_of(self._seed, "windows", step)
        return self._cut(key, self._pick(key, step * batch_size, np.arange(start, stop)))

    def validation(self, count: int, batch_size: int = 64) -> list[WindowBatch]:
        """Return windows that are always the same, in batches of at most `batch_size`.

        Their networks are spread evenly, and they are drawn apart from those of training.
        """
        key = seed_of(self._seed, "validation windows")
        numbers = np.arange(count)
        parts = [numbers[at : at + batch_size] for at in range(0, count, batch_size)]
        return [self._cut(key, self._pick(key, 0, part)) for part in parts]

    def describe(self, step: int, batch_size: int) -> str:
        """Return which rows of which shards a batch is of, those that are not finite first."""
        key = seed_of(self._seed, "windows", step)
        picks = self._pick(key, step * batch_size, np.arange(batch_size))
        bad: dict[str, list[int]] = {}
        rows: dict[str, list[int]] = {}
        found = sorted(set(zip(picks.source_B.tolist(), picks.row_B.tolist(), strict=True)))
        for source, row in found:
            zoo, _ = self._sources[source]
            shard, local = zoo.locate(row)
            file = str(zoo.shards[shard].path)
            finite = np.isfinite(zoo.map_row(row)).all()
            (rows if finite else bad).setdefault(file, []).append(local)
        texts = [f"{file}: rows {_list(some)} are not finite" for file, some in bad.items()]
        return "; ".join(texts + [f"{file}: rows {_list(some)}" for file, some in rows.items()])

    def _groups(self, zoo: Zoo) -> Sequence[Group]:
        if "permuted" not in self._views:
            return ()
        try:
            return zoo_symmetry(zoo)
        except ConfigError as error:
            raise ConfigError(
                f"{zoo.path}: {error}; views of its networks in other orders need their "
                "symmetries: else set codec.views to [canonical, canonical]"
            ) from None

    def _order(self, epoch: int) -> np.ndarray:
        """Return the order in which an epoch takes the networks of all sources."""
        if epoch not in self._orders:
            self._orders = {e: order for e, order in self._orders.items() if e == epoch - 1}
            stream = numpy_stream(self._seed, "networks", epoch)
            self._orders[epoch] = stream.permutation(self._starts[-1])
        return self._orders[epoch]

    def _pick(self, key: int, offset: int, example_B: np.ndarray) -> _Picks:
        """Return what the examples are of: network number `offset + example` of the stream."""
        epoch_B, place_B = np.divmod(offset + example_B, self._starts[-1])
        network_B = np.empty(len(example_B), np.int64)
        for epoch in np.unique(epoch_B):
            here = epoch_B == epoch
            network_B[here] = self._order(int(epoch))[place_B[here]]
        source_B = np.searchsorted(self._starts, network_B, side="right") - 1
        local_B = network_B - self._starts[source_B]
        row_B = np.array(
            [self._sources[s][1][i] for s, i in zip(source_B, local_B, strict=True)], np.int64
        )
        share_B = numbers_at(key, example_B.astype(np.uint64) << _EXAMPLE_SHIFT) / 2.0**64
        tokens_B = np.array([cutter.geometry.num_tokens for cutter in self._cutters])[source_B]
        middle_B = (share_B * tokens_B).astype(np.int64)
        last_B = np.maximum(tokens_B - self.num_tokens, 0)
        start_B = np.clip(middle_B - self.num_tokens // 2, 0, last_B)
        return _Picks(example_B, source_B, row_B=row_B, start_B=start_B)

    def _cut(self, key: int, picks: _Picks) -> WindowBatch:
        shape = (len(picks.row_B), self.num_tokens, self.token_size)
        tokens_VBWC = np.zeros((len(self._views), *shape), np.float32)
        mask_BWC = np.empty(shape, bool)
        positions_BW3 = np.empty((*shape[:2], 3), np.int64)
        places_VBWC = np.full(tokens_VBWC.shape, -1) if self._places else None
        arrays = [tokens_VBWC] if places_VBWC is None else [tokens_VBWC, places_VBWC]
        num_bytes = 0
        for source in np.unique(picks.source_B):
            cutter, here_B = self._cutters[source], np.flatnonzero(picks.source_B == source)
            for b in here_B:
                cutter.tell(picks.start_B[b], mask_BWC[b], positions_W3=positions_BW3[b])
                num_bytes += len(self._cut_apart) * cutter.num_bytes(picks.start_B[b])
            self._cut_source(source, key, picks, here_B, tokens_VBWC, places_VBWC)
        for view in self._same:
            for array in arrays:
                array[view] = array[self._same_as]
        return WindowBatch(
            tokens_VBWC=torch.from_numpy(tokens_VBWC),
            mask_BWC=torch.from_numpy(mask_BWC),
            positions_BW3=torch.from_numpy(positions_BW3),
            source_B=torch.from_numpy(picks.source_B),
            row_B=torch.from_numpy(picks.row_B),
            places_VBWC=None if places_VBWC is None else torch.from_numpy(places_VBWC),
            num_bytes=num_bytes,
        )

    def _cut_source(
        self,
        source: int,
        key: int,
        picks: _Picks,
        here_B: np.ndarray,
        tokens_VBWC: np.ndarray,
        places_VBWC: np.ndarray | None,
    ) -> None:
        """Cut the views of the examples that are of one source."""
        cutter, zoo = self._cutters[source], self._sources[source][0]
        start_B, example_B = picks.start_B[here_B].tolist(), picks.example_B[here_B]
        rows_BD = [zoo.map_row(row) for row in picks.row_B[here_B].tolist()]
        for view in self._cut_apart:
            draw = None
            if self._views[view] == "permuted":
                # Behind the window's middle, the units of one view after those of another.
                first = np.uint64(1 + view * cutter.num_units)
                draw = Draw(key, (example_B.astype(np.uint64) << _EXAMPLE_SHIFT) + first)
            out_BWC = [tokens_VBWC[view, b] for b in here_B]
            places_BWC = None
            if places_VBWC is not None:
                places_BWC = [places_VBWC[view, b] for b in here_B]
            cutter.cut(rows_BD, start_B, draw=draw, out_PWC=out_BWC, places_PWC=places_BWC)


def _check(sources: Sources, geometries: Sequence[Geometry]) -> None:
    if not count_networks(sources):
        names = ", ".join(str(zoo.path) for zoo, _ in sources) or "no zoo"
        raise TooFewNetworks(
            f"{names}: 0 networks to cut windows of, at least 1 expected: train a zoo with more "
            "networks, or hold fewer of them out"
        )
    for (zoo, _), geometry in zip(sources, geometries, strict=True):
        if zoo.layout.digest != geometry.layout.digest:
            raise ShapeMismatch(
                f"{zoo.path} has layout {zoo.layout.digest}, its tokens are of layout "
                f"{geometry.layout.digest}: each zoo takes tokens of its own architecture"
            )
        if geometry.size != geometries[0].size:
            raise ShapeMismatch(
                f"{zoo.path}: tokens of {geometry.size} numbers beside tokens of "
                f"{geometries[0].size}: one run has tokens of one size; set codec.tokens.size"
            )


def _list(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
