"""Layers of tokens: the matrices that an architecture's tensors are, and the size that suits them.

Shape suffixes: L layers, R rows of a layer, S sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dwf.codecs.config import Packing, TokenSettings
from dwf.errors import ConfigError
from dwf.zoo.layout import Entry, Layout

_LARGEST_SIZE = 288  # published; a latent of one size has ever more to tell of larger tokens
_SLOTS_OF_A_TOKEN = 32  # what a token costs by itself, in slots, when a size is chosen


@dataclass(frozen=True)
class TokenLayer:
    """A weight with its bias, as a matrix cut into tokens."""

    name: str
    """Name of the weight."""
    weight: Entry
    bias: Entry | None
    axis: int
    """Axis of the weight's shape whose indices are its rows."""
    rows: int
    """R: output channels."""
    columns: int
    """Numbers of a row, the bias included."""
    first: int
    """Its first token."""
    tokens: int
    """How many it has."""
    pitch: int
    """Slots from one row's first number to the next row's."""

    @property
    def inner(self) -> int:
        """Numbers of a row, the bias left out."""
        return self.columns - (self.bias is not None)

    @property
    def stop(self) -> int:
        """The token behind its last."""
        return self.first + self.tokens

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return self.rows * self.columns

    def places(self, slots: np.ndarray) -> np.ndarray:
        """Return the places in a row of weights of slots counted from its first; -1 for padding."""
        row, column = slots // self.pitch, slots % self.pitch
        places = self.weight.offset + row * self.inner + column
        if self.bias is not None:
            places = np.where(column == self.inner, self.bias.offset + row, places)
        return np.where((column < self.columns) & (row < self.rows), places, -1)


def matrices(layout: Layout, settings: TokenSettings) -> list[tuple[Entry, Entry | None, int]]:
    """Return (weight, bias, axis of its rows) of each layer, in the layout's order."""
    norms, buffers = settings.norms, settings.buffers
    covered = {
        entry.name: entry
        for entry in layout.entries
        if entry.size
        and (entry.is_learnt or (buffers and entry.role == "buffer"))
        and (entry.role != "norm" or norms)
    }
    biases = {
        name: covered[other]
        for name, entry in covered.items()
        if (other := _bias_name(name)) in covered and covered[other].shape == entry.shape[:1]
    }
    taken = {bias.name for bias in biases.values()}
    parts = [
        (entry, biases.get(name), _row_axis(entry))
        for name, entry in covered.items()
        if name not in taken
    ]
    if not parts:
        raise ConfigError(
            f"the layout {layout.digest} has no number to make tokens of, of {layout.size} with "
            f"norms {norms} and buffers {buffers}: set {settings.key}.norms to true, or take "
            "networks with weights"
        )
    return parts


def _bias_name(name: str) -> str | None:
    """Return the name that the bias of a weight would have; None of what is no weight."""
    owner, dot, leaf = name.rpartition(".")
    return f"{owner}{dot}{leaf.replace('weight', 'bias')}" if "weight" in leaf else None


def _row_axis(entry: Entry) -> int:
    """Return the axis of a tensor whose indices are its rows.

    A weight's is its first, be that of size 1. Of other tensors such axes say nothing: a position
    embedding [1, places, channels] has a row for each place, a class token [1, 1, channels] is one.
    """
    if _bias_name(entry.name) is not None:
        return 0
    last = max(len(entry.shape) - 2, 0)
    return next((axis for axis in range(last) if entry.shape[axis] > 1), last)


def matrix_shape(weight: Entry, bias: Entry | None, *, axis: int) -> tuple[int, int]:
    """Return (rows, numbers of a row) of a layer, its bias included."""
    rows = weight.shape[axis] if weight.shape else 1
    return rows, weight.size // rows + (bias is not None)


def best_size(layouts: Sequence[Layout], settings: TokenSettings) -> int:
    """Return the token size that costs least for these architectures together.

    The cost is the number of slots, padding included, and 32 more for each token; sizes up to that
    of the published ResNets, 288, are looked at.

    Raises:
        ConfigError: nothing of a layout is covered.
    """
    parts = [part for layout in layouts for part in matrices(layout, settings)]
    shapes = np.array([matrix_shape(weight, bias, axis=axis) for weight, bias, axis in parts])
    rows_L, columns_L = shapes.T
    packing = settings.packing
    largest = max(longest(rows, columns, packing=packing) for rows, columns in shapes.tolist())
    sizes_S1 = np.arange(1, min(largest, _LARGEST_SIZE) + 1)[:, None]
    if packing == "rows":
        tokens_S = (rows_L * -(-columns_L // sizes_S1)).sum(1)
    else:
        tokens_S = (-(-(rows_L * columns_L) // sizes_S1)).sum(1)
    return int(np.argmin(tokens_S * (sizes_S1[:, 0] + _SLOTS_OF_A_TOKEN))) + 1


def longest(rows: int, columns: int, *, packing: Packing) -> int:
    """Return the largest size of any use to a layer."""
    return columns if packing == "rows" else rows * columns
