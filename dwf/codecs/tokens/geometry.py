"""Geometry: which number of a network is in which slot of which token.

A layer is a weight, seen as a matrix with one row for each output channel, and its bias as one more
column. `rows` is the published packing (SANE, arXiv 2406.09997, section 3): each row is padded to a
multiple of the token size and cut, so a token never spans two channels. `dense` cuts the layer's
rows as one stream and pads its last token alone.

Shape suffixes: N networks, D numbers of a network, T tokens, C numbers of a token, W tokens of a
window, L layers, R rows of a layer.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import torch

from dwf.codecs.codes import CodeShape
from dwf.codecs.config import Packing, TokenSettings
from dwf.codecs.tokens.layers import TokenLayer, best_size, longest, matrices, matrix_shape
from dwf.errors import ConfigError, ShapeMismatch
from dwf.zoo.layout import Layout, Span, spans_of

_LEAST_USED = 0.5  # of the slots; below, a size is warned of
_SHRINK = 0.75  # a better size is told of where it takes at most this share of the slots
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Geometry:
    """Tokens of one architecture; use `of`, or `common` for several and with a user's size."""

    layout: Layout
    size: int
    """C."""
    packing: Packing
    layers: tuple[TokenLayer, ...]

    @classmethod
    def of(cls, layout: Layout, settings: TokenSettings) -> "Geometry":
        """Return the tokens of an architecture; kept, so that asking again costs nothing.

        Args:
            layout: of the networks.
            settings: of the tokens; a size of None takes `best_size`.

        Raises:
            ConfigError: a size below 1, or nothing of the layout is covered.
        """
        return _geometry(layout, settings)

    @classmethod
    def common(cls, layouts: Sequence[Layout], settings: TokenSettings) -> tuple["Geometry", ...]:
        """Return the tokens of several architectures, all of one size; warn of a wasteful one.

        Args:
            layouts: of the architectures, at least one.
            settings: of the tokens; a size of None takes the one that is best for all of them
                together.

        Raises:
            ConfigError: as `of`; or a size that is longer than the longest row.
        """
        if settings.size is None:
            best = replace(settings, size=best_size(layouts, settings))
            return tuple(cls.of(each, best) for each in layouts)
        found = tuple(cls.of(each, settings) for each in layouts)
        _check_size(tuple(layouts), settings)
        return found

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.layers[-1].stop

    @property
    def num_numbers(self) -> int:
        """How many numbers of a network it covers."""
        return sum(layer.numbers for layer in self.layers)

    @property
    def used(self) -> float:
        """Share of the slots that hold a number."""
        return self.num_numbers / (self.num_tokens * self.size)

    @property
    def longest_row(self) -> int:
        """The largest size of any use: that of the longest row, or dense, of the largest layer."""
        return max(
            longest(layer.rows, layer.columns, packing=self.packing) for layer in self.layers
        )

    @cached_property
    def spans(self) -> list[Span]:
        """The stretches of a row of weights that it covers."""
        pairs = [(layer.weight, layer.bias) for layer in self.layers]
        entries = (entry for pair in pairs for entry in pair if entry)
        return spans_of(sorted(entries, key=lambda entry: entry.offset))

    @cached_property
    def layer_of_token_T(self) -> torch.Tensor:  # noqa: N802  a shape, not a word
        """The layer of each token, int64."""
        counts = torch.tensor([layer.tokens for layer in self.layers])
        return torch.arange(len(self.layers)).repeat_interleave(counts)

    @cached_property
    def positions_T3(self) -> torch.Tensor:  # noqa: N802
        """(token, layer, unit) of each token, int64; the unit is its output channel.

        Dense, where a token may hold several channels, it is the number of the token in its layer.
        """
        layer_T, token_T = self.layer_of_token_T, torch.arange(self.num_tokens)
        unit_T = token_T - torch.tensor([layer.first for layer in self.layers])[layer_T]
        if self.packing == "rows":
            unit_T //= torch.tensor([layer.pitch // self.size for layer in self.layers])[layer_T]
        return torch.stack([token_T, layer_T, unit_T], 1)

    @cached_property
    def mask_TC(self) -> torch.Tensor:  # noqa: N802
        """Which slots hold a number, bool."""
        mask_NTC = torch.zeros(1, self.num_tokens, self.size, dtype=torch.bool)
        for layer in self.layers:
            self._rows_of(mask_NTC, layer)[..., : layer.columns] = True
        return mask_NTC[0]

    @cached_property
    def code_shape(self) -> CodeShape:
        """Shape of codes that are these tokens."""
        return CodeShape.sequences((self.layout.digest,), self.positions_T3, mask=self.mask_TC)

    def tokenise(self, weights_ND: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return the tokens of networks: copies of their numbers, and 0 where there is none.

        Args:
            weights_ND: networks of the layout.
            out: float32 of shape [N, T, C], contiguous, to fill.

        Returns:
            tokens_NTC, float32.

        Raises:
            ShapeMismatch: rows of another length, or `out` of another shape.
        """
        shape = (len(weights_ND), self.num_tokens, self.size)
        self._check_rows(weights_ND)
        tokens_NTC = torch.empty(shape) if out is None else out
        self._check_tokens(tokens_NTC, shape)
        for layer in self.layers:
            rows_NRP = self._rows_of(tokens_NTC, layer)
            weight, bias = layer.weight, layer.bias
            matrix = weights_ND[:, weight.offset : weight.stop]
            rows_NRP[..., : layer.inner] = matrix.unflatten(1, (layer.rows, layer.inner))
            if bias is not None:
                rows_NRP[..., layer.inner] = weights_ND[:, bias.offset : bias.stop]
            if layer.pitch > layer.columns:
                rows_NRP[..., layer.columns :] = 0
            self._tail_of(tokens_NTC, layer).zero_()
        return tokens_NTC

    def detokenise(self, tokens_NTC: torch.Tensor, weights_ND: torch.Tensor) -> None:
        """Put the numbers of tokens into rows of weights; what no token holds stays as it is.

        Args:
            tokens_NTC: as `tokenise` returns them; padding is not looked at.
            weights_ND: networks of the layout, changed in place.

        Raises:
            ShapeMismatch: rows or tokens of another shape.
        """
        self._check_rows(weights_ND)
        tokens_NTC = tokens_NTC.contiguous()
        self._check_tokens(tokens_NTC, (len(weights_ND), self.num_tokens, self.size))
        for layer in self.layers:
            rows_NRP = self._rows_of(tokens_NTC, layer)
            weight, bias = layer.weight, layer.bias
            matrix = weights_ND[:, weight.offset : weight.stop]
            matrix.unflatten(1, (layer.rows, layer.inner)).copy_(rows_NRP[..., : layer.inner])
            if bias is not None:
                weights_ND[:, bias.offset : bias.stop] = rows_NRP[..., layer.inner]

    def offsets(self, start: int, stop: int) -> torch.Tensor:
        """Return the place in a row of weights of each slot of some tokens; -1 for padding.

        Args:
            start: the first token.
            stop: the token behind the last.

        Returns:
            places_WC, int64.
        """
        places_WC = np.empty((stop - start, self.size), np.int64)
        for layer in self.layers:
            first, last = max(start, layer.first), min(stop, layer.stop)
            if first < last:
                slots = np.arange(
                    (first - layer.first) * self.size, (last - layer.first) * self.size
                )
                places = layer.places(slots)
                places_WC[first - start : last - start] = places.reshape(-1, self.size)
        return torch.from_numpy(places_WC)

    def _rows_of(self, tokens_NTC: torch.Tensor, layer: TokenLayer) -> torch.Tensor:
        """Return the view of a layer's rows, [N, R, pitch]."""
        slots = tokens_NTC.view(len(tokens_NTC), self.num_tokens * self.size)
        start = layer.first * self.size
        return slots[:, start : start + layer.rows * layer.pitch].unflatten(1, (layer.rows, -1))

    def _tail_of(self, tokens_NTC: torch.Tensor, layer: TokenLayer) -> torch.Tensor:
        """Return the view of the padding behind a layer's last row: none, unless dense."""
        start = layer.first * self.size + layer.rows * layer.pitch
        return tokens_NTC.view(len(tokens_NTC), self.num_tokens * self.size)[
            :, start : layer.stop * self.size
        ]

    def _check_rows(self, weights_ND: torch.Tensor) -> None:
        if weights_ND.dim() != 2 or weights_ND.shape[1] != self.layout.size:
            raise ShapeMismatch(
                f"weights of shape {list(weights_ND.shape)} are no networks of layout "
                f"{self.layout.digest}, rows of {self.layout.size} numbers: give the tokens' codec "
                "networks of its own architecture"
            )

    def _check_tokens(self, tokens_NTC: torch.Tensor, shape: tuple[int, ...]) -> None:
        if tuple(tokens_NTC.shape) != shape:
            raise ShapeMismatch(
                f"tokens of shape {list(tokens_NTC.shape)}, expected {list(shape)} ({shape[0]} "
                f"networks of {shape[1]} tokens of {shape[2]} numbers, {self.packing}): they are "
                "of another geometry"
            )


@lru_cache(maxsize=64)  # so that it warns once
def _check_size(layouts: tuple[Layout, ...], settings: TokenSettings) -> None:
    """Refuse a size longer than needed; warn of one that wastes more than half of its slots."""
    size, best, name = settings.size, best_size(layouts, settings), f"{settings.key}.size"
    found, better = (
        [Geometry.of(layout, each) for layout in layouts]
        for each in (settings, replace(settings, size=best))
    )
    longest = max(geometry.longest_row for geometry in found)
    if size > longest:
        what = "row" if settings.packing == "rows" else "layer"
        raise ConfigError(
            f"{name} = {size}: the longest {what} of these networks has {longest} numbers, so "
            f"no more are of use; set {name} to at most {longest}, or leave it out for {best}"
        )
    numbers = sum(geometry.num_numbers for geometry in found)
    slots, fewer = (
        sum(geometry.num_tokens * geometry.size for geometry in each) for each in (found, better)
    )
    if numbers < _LEAST_USED * slots and fewer <= _SHRINK * slots:
        logger.warning(
            "%s = %d: %.1f %% of the slots hold a weight, the others are padding; "
            "%s = %d fills %.1f %%, packing 'dense' nearly all",
            *(name, size, 100 * numbers / slots, name, best, 100 * numbers / fewer),
        )


@lru_cache(maxsize=64)
def _geometry(layout: Layout, settings: TokenSettings) -> Geometry:
    size, packing = settings.size, settings.packing
    if size is None:
        size = best_size((layout,), settings)
    layers: list[TokenLayer] = []
    for weight, bias, axis in matrices(layout, settings):
        rows, columns = matrix_shape(weight, bias, axis=axis)
        pitch = math.ceil(columns / size) * size if packing == "rows" else columns
        first, tokens = layers[-1].stop if layers else 0, math.ceil(rows * pitch / size)
        layer = TokenLayer(
            name=weight.name,
            weight=weight,
            bias=bias,
            axis=axis,
            rows=rows,
            columns=columns,
            first=first,
            tokens=tokens,
            pitch=pitch,
        )
        layers.append(layer)
    return Geometry(layout, size, packing=packing, layers=tuple(layers))
