"""Tiling: networks of an architecture that a codec was not fitted to, made of tokens that it knows.

Each layer of the new architecture is mapped to a layer of the known one, and is tiled with copies
of it: as many along each axis of its weight as it needs, cut at the edges. A copy is the whole
sequence of the known layer's tokens, each of which is drawn by itself. So a slot of a token always
has the meaning and the place that it was learnt with, in networks of any depth and width.

Layers are mapped to layers of the same kind: name of the tensor within its module, role, kernel and
whether there is a bias. Among these the order is kept, the first and the last are mapped to the
first and the last, and the sum of costs is the least that there is. The cost of a pair is how far
the logarithms of their sides differ, in units of each network's widest layer of the kind, and how
far their relative depths do, among all layers of the kind and in a run of layers of one shape.

Source: Schuerholt et al., SANE (arXiv 2406.09997), section 4.4, which draws for the tokens of
another architecture from those of the known one, at positions that tables must have rows for.

Shape suffixes: N networks, D numbers of a network, S tokens of the copies, C numbers of a token,
I known layers of a kind, J new layers of a kind.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from dwf.codecs.tokens.geometry import Geometry
from dwf.codecs.tokens.layers import TokenLayer
from dwf.errors import ConfigError

Kind = tuple[str, str, int, tuple[int, ...], bool]


@dataclass(frozen=True)
class Copy:
    """A copy of a known layer within a new one."""

    source: TokenLayer
    target: TokenLayer
    first: int
    """Its first token among those of all copies."""
    corner: tuple[int, ...]
    """Place of its first number in the new layer's weight, one index for each axis."""


@dataclass(frozen=True)
class Tiling:
    """A new architecture as copies of a known one's layers; use `of`."""

    known: Geometry
    new: Geometry
    mapped: tuple[int, ...]
    """Number of the known layer that each new layer is mapped to."""
    copies: tuple[Copy, ...]

    @classmethod
    def of(cls, known: Geometry, new: Geometry) -> "Tiling":
        """Return the tiling of one architecture with the layers of another.

        Args:
            known: tokens of the architecture that was learnt.
            new: tokens of the other, by the same settings.

        Raises:
            ConfigError: a new layer is of a kind that no known one is of.
        """
        mapped, copies, first = _map(known.layers, new.layers), [], 0
        for target, number in zip(new.layers, mapped, strict=True):
            source = known.layers[number]
            sides = zip(target.weight.shape, source.weight.shape, strict=True)
            starts = [range(0, wanted, given) for wanted, given in sides]
            for corner in itertools.product(*starts):
                copies.append(Copy(source, target, first, corner))
                first += source.tokens
        return cls(known, new, tuple(mapped), tuple(copies))

    @cached_property
    def tokens_S(self) -> torch.Tensor:  # noqa: N802  a shape, not a word
        """The known token that each token of the copies is, int64."""
        ranges = [torch.arange(copy.source.first, copy.source.stop) for copy in self.copies]
        return torch.cat(ranges)

    @property
    def names(self) -> dict[str, str]:
        """Weight of a new layer -> weight of the known layer that it is mapped to."""
        known, new = self.known.layers, self.new.layers
        return {one.name: known[i].name for one, i in zip(new, self.mapped, strict=True)}

    def lay(self, tokens_NSC: torch.Tensor, weights_ND: torch.Tensor) -> None:
        """Put the copies' numbers into networks; what no layer covers stays as it is.

        Args:
            tokens_NSC: of all copies, as weights are; padding is not looked at.
            weights_ND: networks of the new layout, changed in place.
        """
        state = self.new.layout.unflatten(weights_ND)  # views
        for copy in self.copies:
            source, target = copy.source, copy.target
            slots = tokens_NSC[:, copy.first : copy.first + source.tokens].flatten(1)
            rows_NRP = slots[:, : source.rows * source.pitch].unflatten(1, (source.rows, -1))
            block = rows_NRP[..., : source.inner].reshape(len(slots), *source.weight.shape)
            _put(block, state[target.name], copy.corner)
            if target.bias is not None and not any(copy.corner[1:]):
                bias_NR = rows_NRP[..., source.inner]
                _put(bias_NR, state[target.bias.name], copy.corner[:1])


def _put(block: torch.Tensor, whole: torch.Tensor, corner: tuple[int, ...]) -> None:
    """Copy as much of a block as there is room for behind a corner; the first axis is networks."""
    room = whole[(slice(None), *(slice(start, None) for start in corner))]
    sides = (slice(min(a, b)) for a, b in zip(block.shape, room.shape, strict=True))
    part = tuple(sides)
    room[part] = block[part]


def _map(known: Sequence[TokenLayer], new: Sequence[TokenLayer]) -> list[int]:
    """Return the number of the known layer of each new one."""
    known_of, new_of = _by_kind(known), _by_kind(new)
    mapped = [0] * len(new)
    for kind, numbers in new_of.items():
        if kind not in known_of:
            layer = new[numbers[0]]
            raise ConfigError(
                f"network: its {layer.name} of shape {list(layer.weight.shape)}, with"
                f"{'' if layer.bias else 'out'} a bias, is like no layer that the generator knows "
                f"({', '.join(f'{one.name} {list(one.weight.shape)}' for one in known)}): give an "
                "architecture of the same kinds of layers (kernels, biases, norms)"
            )
        shapes = (
            np.array([layers[i].weight.shape for i in some], np.float64)
            for layers, some in ((new, numbers), (known, known_of[kind]))
        )
        for number, place in zip(numbers, _in_order(*shapes), strict=True):
            mapped[number] = known_of[kind][place]
    return mapped


def _by_kind(layers: Sequence[TokenLayer]) -> dict[Kind, list[int]]:
    found: dict[Kind, list[int]] = {}
    for number, layer in enumerate(layers):
        shape = layer.weight.shape
        kernel = shape[2:] if layer.axis == 0 else ()
        leaf = layer.name.rpartition(".")[2]
        kind = (leaf, layer.weight.role, len(shape), kernel, layer.bias is not None)
        found.setdefault(kind, []).append(number)
    return found


def _in_order(new: np.ndarray, known: np.ndarray) -> list[int]:
    """Return a known layer for each new one, none before its predecessor's, at the least cost.

    Args:
        new: sides of the new layers' weights, shape [J, axes].
        known: sides of the known layers' weights, shape [I, axes].
    """
    sides_J, sides_I = (np.log(sides / _width(sides)) for sides in (new, known))
    cost_JI = np.abs(sides_J[:, None] - sides_I).sum(2)
    for place in (_depths, _places_in_run):
        cost_JI += np.abs(place(new)[:, None] - place(known))
    if len(new) > 1:  # ends meet ends
        cost_JI[0, 1:] = cost_JI[-1, :-1] = np.inf
    total_I, steps = np.zeros(len(known)), []
    for cost_I in cost_JI:
        best_I = [int(np.argmin(total_I[: i + 1])) for i in range(len(known))]
        steps.append(best_I)
        total_I = total_I[best_I] + cost_I
    place, path = int(np.argmin(total_I)), []
    for best_I in reversed(steps):
        path.append(place)
        place = best_I[place]
    return path[::-1]


def _width(sides: np.ndarray) -> float:
    """Return the most rows of a layer: in its units wider and narrower networks are alike."""
    return sides[:, 0].max() if sides.shape[1] else 1.0


def _depths(sides: np.ndarray) -> np.ndarray:
    """Return the place of each layer among all, from 0 to 1; alone, 0.5."""
    return np.linspace(0, 1, len(sides)) if len(sides) > 1 else np.array([0.5])


def _places_in_run(sides: np.ndarray) -> np.ndarray:
    """Return the place of each layer in its run of layers of one shape, from 0 to 1; alone, 0.5."""
    changes = np.flatnonzero((sides[1:] != sides[:-1]).any(1)) + 1
    return np.concatenate([_depths(run) for run in np.split(sides, changes)])
