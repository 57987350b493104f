"""Which layers a network computes one after the other, and which of them write the same units.

In a chain each layer writes units of its own. In a residual network the layers that are added up
write the same ones: those of a stream are written by the stem, or by the projection that begins it,
and by the last layer of each block.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from dwf.codecs.neurons import NeuronLayer, own_tensors, read_layers
from dwf.errors import ConfigError
from dwf.zoo.layout import Entry, Layout

INSTEAD = "choose the codec neurons, or one that takes any network (tokens, sane, flat, pca)"
# Names of residual blocks, and of what projects a stream within one: of both kinds of ResNets.
_BLOCK = re.compile(r"layer\d+\.\d+(?=\.)")
_PROJECTION = re.compile(r"layer\d+\.\d+\.(shortcut|downsample)\.")


@dataclass(frozen=True)
class Wiring:
    """Layers of a network, and the sets of hidden units that they write and take in."""

    layers: tuple[NeuronLayer, ...]
    """Layers in the order of computation; the last is the output."""
    writers: tuple[tuple[int, ...], ...]
    """Numbers of the layers that write each set of hidden units."""
    taken: tuple[int, ...]
    """Numbers of the sets that the layers take in, from the second layer on."""

    @property
    def hidden(self) -> tuple[NeuronLayer, ...]:
        """All layers but the output."""
        return self.layers[:-1]

    @property
    def output(self) -> NeuronLayer:
        """The last layer."""
        return self.layers[-1]

    @property
    def last(self) -> int:
        """Number of the set that the output takes in."""
        return self.taken[-1]

    def units(self, number: int) -> int:
        """Return how many units a set has."""
        return self.layers[self.writers[number][0]].units

    @property
    def num_units(self) -> int:
        """Hidden units of all sets."""
        return sum(self.units(number) for number in range(len(self.writers)))

    def sections(self, sizes: Sequence[int]) -> list[tuple[int, int]]:
        """Return (units, numbers of a token) of each set, and of the output.

        Args:
            sizes: in how many directions or functions each hidden layer is coded.
        """
        found = [
            (self.units(number), sum(sizes[layer] + 1 for layer in layers))
            for number, layers in enumerate(self.writers)
        ]
        units, size = found[self.last]  # which has the weights by which it is taken in, too
        found[self.last] = (units, size + self.output.taken().shape[1])
        return [*found, (1, self.output.units)]

    def describe(self) -> Iterator[str]:
        """Yield how many sets of units there are and which are streams; nothing of a chain."""
        streams = [len(layers) for layers in self.writers if len(layers) > 1]
        if streams:
            yield (
                f"functions: {len(self.writers)} sets of units; {len(streams)} of them are "
                f"streams, whose units are written by {min(streams)} to {max(streams)} layers each"
            )

    def columns(self, sizes: Sequence[int]) -> list[tuple[int, slice]]:
        """Return of each hidden layer its set, and which numbers of a token are the layer's.

        Args:
            sizes: as for `sections`.
        """
        found = {}
        for number, layers in enumerate(self.writers):
            stops = list(itertools.accumulate(sizes[layer] + 1 for layer in layers))
            for layer, stop in zip(layers, stops, strict=True):
                found[layer] = (number, slice(stop - sizes[layer] - 1, stop))
        return [found[layer] for layer in range(len(self.hidden))]


@lru_cache(maxsize=64)
def read_wiring(layout: Layout) -> Wiring:
    """Return the layers of networks that are a chain, or residual blocks between stem and head.

    Raises:
        ConfigError: they are neither; names the tensor.
    """
    if any(_BLOCK.match(entry.name) for entry in layout.entries):
        return _residual(layout)
    layers = read_layers(layout)
    sets = range(len(layers) - 1)
    return Wiring(layers, tuple((number,) for number in sets), taken=tuple(sets))


def _residual(layout: Layout) -> Wiring:
    found, stream = _Sets(), 0
    stem, blocks, head = _parts(layout)
    found.add(stem, takes=None, gives=0)
    for inner, writer, projections in map(_roles, blocks):
        before, at = stream, stream
        for tensors in inner:
            at = found.add(tensors, takes=at, gives=found.count)
        stream = found.add(writer, takes=at, gives=found.count if projections else stream)
        for tensors in projections:
            found.add(tensors, takes=before, gives=stream)
    found.add(head, takes=stream, gives=found.count)
    *writers, _ = found.writers
    return Wiring(tuple(found.layers), tuple(map(tuple, writers)), taken=tuple(found.taken))


Weight = list[Entry]
"""A tensor of weights, and what its units have beside it."""


def _parts(layout: Layout) -> tuple[Weight, list[list[Weight]], Weight]:
    """Return the stem, the blocks, and the head."""

    def block(tensors: Weight) -> str:
        named = _BLOCK.match(tensors[0].name)
        return named[0] if named else ""

    weights = own_tensors(layout)
    parts = [(name, list(each)) for name, each in itertools.groupby(weights, block)]
    for number, (name, each) in enumerate(parts):
        is_end = number in (0, len(parts) - 1)
        if is_end == bool(name) or (is_end and len(each) > 1):
            raise _refusal(each[-1][0])
    (_, [stem]), *blocks, (_, [head]) = parts
    return stem, [each for _, each in blocks], head


def _roles(block: list[Weight]) -> tuple[list[Weight], Weight, list[Weight]]:
    """Return the inner layers of a block, the one that is added up, and its projection, if any."""
    projections = [tensors for tensors in block if _PROJECTION.match(tensors[0].name)]
    first = len(block) - len(projections)
    if not first or len(projections) > 1 or block[first:] != projections:
        raise _refusal(block[-1][0])
    *inner, writer = block[:first]
    return inner, writer, projections


class _Sets:
    """Layers and sets of units that have been read so far."""

    def __init__(self) -> None:
        self.layers: list[NeuronLayer] = []
        self.writers: list[list[int]] = []
        self.taken: list[int] = []

    @property
    def count(self) -> int:
        return len(self.writers)

    def add(self, tensors: Sequence[Entry], *, takes: int | None, gives: int) -> int:
        """Take down a layer, and return the set that it writes: a new one, or one that there is."""
        weight, *own = tensors
        before = 1 if takes is None else self._units(takes)
        is_known = gives < self.count
        if (takes is not None and weight.shape[1] != before) or (
            is_known and weight.shape[0] != self._units(gives)
        ):
            raise _refusal(weight)
        if not is_known:
            self.writers.append([])
        self.writers[gives].append(len(self.layers))
        self.layers.append(NeuronLayer(weight, tuple(own), units_before=before))
        if takes is not None:
            self.taken.append(takes)
        return gives

    def _units(self, number: int) -> int:
        return self.layers[self.writers[number][0]].units


def _refusal(entry: Entry) -> ConfigError:
    return ConfigError(
        f"codec.kind = 'functions' cannot take {entry.name} (shape {list(entry.shape)}): it takes "
        "residual networks of a stem of one layer, blocks whose last layer is added to what the "
        "block takes in or to its projection by another layer, and a head of one layer behind the "
        f"average over places; {INSTEAD}"
    )
