"""Which numbers of a network make which token: the layers of units that a layout is a chain of.

The numbers of a unit's token, in this order: its row of weights (of a filter, its kernel), its
bias, weight and bias of its norm, and, of the last hidden layer, the weights that take the unit
into the output layer (behind a flatten, all of its places). One more token is the output layer's
bias.

Networks of several widths share one sequence: token t is unit u of layer l of the widest of them. A
narrower one has the first units of each layer, and in a token the weights from the first units of
the layer before.

Shape suffixes: A architectures, T tokens, C numbers of the longest token, U units of a layer, I
weights from the layer before.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch

from dwf.align.groups import Group, Member
from dwf.align.symmetry import zoo_symmetry
from dwf.codecs.codes import CodeShape
from dwf.errors import ConfigError
from dwf.zoo.layout import Entry, Layout
from dwf.zoo.store import Zoo

_INSTEAD = "choose the codec tokens or sane, which take any network, or flat or pca"


@dataclass(frozen=True)
class NeuronLayer:
    """A linear layer or a convolution, with what each of its units has beside its weights."""

    weight: Entry
    own: tuple[Entry, ...]
    """Tensors of one number for each unit: the bias, weight and bias of a norm."""
    units_before: int
    """Units of the layer before; of the first layer 1, which is the input."""

    @property
    def units(self) -> int:
        """How many units, or filters, it has."""
        return self.weight.shape[0]

    @property
    def shape_of_unit(self) -> tuple[int, ...]:
        """All but widths: weights for a unit before it, sides of a kernel, tensors of its own."""
        _, before, *kernel = self.weight.shape
        return (before // self.units_before, *kernel, len(self.own))

    def incoming(self) -> np.ndarray:
        """Return where the rows of weights are, int64, shape [U, I]."""
        return _places(self.weight).reshape(self.units, -1)

    def rest(self) -> np.ndarray:
        """Return where what is own is, int64, shape [U, tensors]."""
        none = np.empty((self.units, 0), np.int64)
        return np.hstack([none, *(_places(entry)[:, None] for entry in self.own)])

    def taken(self) -> np.ndarray:
        """Return where what takes in each unit of the layer before is, int64 [units before, I]."""
        places = _places(self.weight).reshape(self.units, self.units_before, -1)
        return places.transpose(1, 0, 2).reshape(self.units_before, -1)


def _places(entry: Entry) -> np.ndarray:
    return np.arange(entry.offset, entry.stop).reshape(entry.shape)


@lru_cache(maxsize=64)
def read_layers(layout: Layout) -> tuple[NeuronLayer, ...]:
    """Return the layers of a network that is a chain of them.

    Norms belong to the weight before them, or, as many as there were weights in a row, to these in
    turn. Running statistics are of no token.

    Raises:
        ConfigError: the layout is no such chain, or has no hidden layer; names the tensor.
    """
    layers: list[NeuronLayer] = []
    for weight, *own in own_tensors(layout):
        misfit = next((entry for entry in own if entry.shape != weight.shape[:1]), None)
        if misfit is not None:
            raise _refusal(misfit)
        before = layers[-1] if layers else None
        if before is not None and not _follows(weight, before):
            raise _refusal(weight)
        layers.append(NeuronLayer(weight, tuple(own), units_before=before.units if before else 1))
    norm = next((entry for entry in layers[-1].own if entry.role == "norm"), None)
    if len(layers) < 2 or norm:
        raise _refusal(norm or layout.entries[-1])
    return tuple(layers)


def own_tensors(layout: Layout) -> list[list[Entry]]:
    """Return each weight with what its units have beside it; what is neither is refused."""
    found: list[list[Entry]] = []
    norms: list[list[Entry]] = []  # since the last weight
    first = 0  # of the weights that no norm was behind yet
    for entry in layout.entries:
        if not entry.is_learnt:
            continue
        if entry.role == "norm":
            if not norms or _owner(norms[-1][0]) != _owner(entry):
                norms.append([])
            norms[-1].append(entry)
        elif entry.role == "weight" and len(entry.shape) > 1:
            if norms:
                _give(norms, found[first:])
                norms, first = [], len(found)
            found.append([entry])
        elif entry.role == "bias" and found and len(found[-1]) == 1 and not norms:
            found[-1].append(entry)
        else:
            raise _refusal(entry)
    _give(norms, found[first:])
    if not found:
        raise _refusal(layout.entries[-1])
    return found


def _owner(entry: Entry) -> str:
    return entry.name.rpartition(".")[0]


def _give(norms: list[list[Entry]], weights: list[list[Entry]]) -> None:
    """Give norms to the weights that come before them."""
    if norms and len(norms) not in (1, len(weights)):
        raise _refusal(norms[0][0])
    if norms and not weights:
        raise _refusal(norms[0][0])
    for tensors, norm in zip(weights[-len(norms) :], norms, strict=False):
        tensors += norm


def _follows(weight: Entry, before: NeuronLayer) -> bool:
    """Whether a weight can take in the units before it, behind a flatten all places of each."""
    flattens = len(weight.shape) == 2 and len(before.weight.shape) > 2
    if flattens:
        return weight.shape[1] % before.units == 0
    return weight.shape[1] == before.units and len(weight.shape) == len(before.weight.shape)


def _refusal(entry: Entry) -> ConfigError:
    return ConfigError(
        f"codec.kind = 'neurons' cannot make tokens of {entry.name} ({entry.role}, shape "
        f"{list(entry.shape)}): it takes chains of linear layers and convolutions, each with a "
        "weight [units, units of the layer before, ...] and, if any, a bias and a norm [units], "
        f"and at least one hidden layer; {_INSTEAD}"
    )


@lru_cache(maxsize=64)
def unit_groups(layout: Layout) -> tuple[Group, ...]:
    """Return what touches the units of each hidden layer, as alignment knows it."""
    groups = []
    for layer, after in itertools.pairwise(read_layers(layout)):
        # Behind a norm what came before it has no scale.
        made_by_norm = any(entry.role == "norm" for entry in layer.own)
        members = [
            Member(entry.name, 0, power=int((entry.role == "norm") == made_by_norm))
            for entry in (layer.weight, *layer.own)
        ]
        inner = after.weight.shape[1] // layer.units
        members.append(Member(after.weight.name, 1, inner=inner, power=-1))
        groups.append(Group(layer.units, tuple(members), scales=True))
    return tuple(groups)


def check_units(zoo: Zoo, scaled: bool) -> None:
    """Refuse networks whose units are not free: to be reordered, or, if asked, to be scaled.

    What a layout is a chain of, its network may use otherwise: add to what it was, say. The network
    is traced for it, unless it is a chain by construction.

    Args:
        zoo: of these networks.
        scaled: whether units are to be scaled.

    Raises:
        ConfigError: see above; names the tensor.
    """
    if zoo.facts.network.is_chain and not scaled:
        return
    traced = zoo_symmetry(zoo)
    for group in unit_groups(zoo.layout):
        first = group.members[0].name
        found = next((other for other in traced if (first, 0) in _axes(other)), None)
        if group.size > 1:  # of one unit there is no order to trace
            _refuse_tied(group, found)
        if scaled and not (found and found.scales and _powers(found) == _powers(group)):
            raise ConfigError(
                f"codec.scale: the units of {first} cannot be scaled without changing what a "
                f"network of {zoo.path} computes, only those with relu and the like between their "
                "weights can, where there are several; set codec.scale to kept"
            )


def _refuse_tied(group: Group, found: Group | None) -> None:
    """Refuse units that are reordered with others, or otherwise than as a layer's."""
    ours, theirs = _axes(group), _axes(found) if found else {}
    others = [axis[0] for axis in (*theirs, *ours) if theirs.get(axis) != ours.get(axis)]
    if others or not found.is_hidden:
        raise ConfigError(
            f"codec.kind = 'neurons' cannot make tokens of {group.members[0].name}: its units "
            f"cannot be reordered by themselves (see {others[0] if others else found.kind}), as "
            f"those of a residual stream, of attention heads or of groups cannot; {_INSTEAD}"
        )


def _axes(group: Group) -> dict[tuple[str, int], tuple[int | tuple[int, ...] | None, ...]]:
    """Return the axes of a group's learnt tensors, and where on each its units are."""
    members = [member for member in group.members if member.cost]
    whole = [member for member in members if member.rows is None]
    return {(m.name, m.axis): (m.start, m.outer, m.inner, m.places) for m in whole}


def _powers(group: Group) -> dict[tuple[str, int], int]:
    """Return how a unit's scale comes to each axis of a group's learnt tensors."""
    return {(m.name, m.axis): m.power for m in group.members if m.cost}


@dataclass(frozen=True, eq=False)
class NeuronTokens:
    """One sequence of tokens for networks of one architecture or several."""

    layouts: tuple[Layout, ...]
    places: tuple[tuple[np.ndarray, ...], ...]
    """Places of the numbers of tokens, for each architecture and layer, int64 [U, numbers]: in a
    row of weights, and behind its end, where there are logarithms: one of each hidden unit."""
    columns: tuple[tuple[np.ndarray, ...], ...]
    """Likewise: in which slots of a token they are, int64 [numbers]."""

    @cached_property
    def place_ATC(self) -> np.ndarray:  # noqa: N802  a shape, not a word
        """Where the number of each slot lies, int64; -1 where there is none."""
        widest = max(int(columns[-1]) for each in self.columns for columns in each if len(columns))
        parts = []
        for places, columns in zip(self.places, self.columns, strict=True):
            rows = []
            for num, place, column in zip(self.num_units, places, columns, strict=True):
                part = np.full((num, widest + 1), -1)
                part[: len(place), column] = place
                rows.append(part)
            parts.append(np.concatenate(rows))
        return np.stack(parts)

    @cached_property
    def num_units(self) -> list[int]:
        """Tokens of each layer."""
        return [max(map(len, places)) for places in zip(*self.places, strict=True)]

    @cached_property
    def positions_T3(self) -> np.ndarray:  # noqa: N802
        """(token, layer, unit) of each token, int64."""
        units = [(layer, u) for layer, num in enumerate(self.num_units) for u in range(num)]
        return np.array([(t, *unit) for t, unit in enumerate(units)])

    @cached_property
    def code_shape(self) -> CodeShape:
        """Shape of codes that are these tokens; mixed where there are several layouts."""
        mask_ATC, positions_T3 = self.place_ATC >= 0, torch.from_numpy(self.positions_T3)
        mask = torch.from_numpy(mask_ATC if len(self.layouts) > 1 else mask_ATC[0])
        return CodeShape.sequences([each.digest for each in self.layouts], positions_T3, mask=mask)


@lru_cache(maxsize=64)
def token_sequence(layouts: tuple[Layout, ...], logarithm: bool = False) -> NeuronTokens:
    """Return the sequence that networks of these layouts have together.

    Args:
        layouts: at least one.
        logarithm: each hidden unit has one more number, the last of its token.

    Raises:
        ConfigError: a layout is no chain of layers; or they differ in more than in the widths of
            hidden layers. Names the tensor.
    """
    chains = [read_layers(layout) for layout in layouts]
    for layout, chain in zip(layouts, chains, strict=True):
        _refuse_unlike(layouts[0], chains[0], layout, chain)
    parts = [
        _tokens(chain, layout.size if logarithm else None)
        for layout, chain in zip(layouts, chains, strict=True)
    ]
    most = [max(incoming.shape[1] for incoming, _ in each) for each in zip(*parts, strict=True)]
    places = [tuple(np.hstack(pair) for pair in each) for each in parts]
    columns = [
        tuple(
            np.r_[: incoming.shape[1], start : start + rest.shape[1]]
            for (incoming, rest), start in zip(each, most, strict=True)
        )
        for each in parts
    ]
    return NeuronTokens(tuple(layouts), tuple(places), columns=tuple(columns))


def _tokens(
    chain: Sequence[NeuronLayer], first_logarithm: int | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return of each layer's tokens where the incoming weights lie, [U, I], and all the rest."""
    *hidden, output = chain
    parts = [(layer.incoming(), [layer.rest()]) for layer in hidden]
    parts[-1][1].append(output.taken())
    if first_logarithm is not None:
        at = first_logarithm
        for layer, (_, rest) in zip(hidden, parts, strict=True):
            rest.append(np.arange(at, at + layer.units)[:, None])
            at += layer.units
    if output.own:
        parts.append((np.empty((1, 0), np.int64), [output.rest().T]))
    return [(incoming, np.hstack(rest)) for incoming, rest in parts]


def _refuse_unlike(
    first: Layout, chain: Sequence[NeuronLayer], layout: Layout, other: Sequence[NeuronLayer]
) -> None:
    """Refuse two architectures that differ in more than in the widths of hidden layers."""
    if len(chain) != len(other):
        what = f"{len(chain) - 1} and {len(other) - 1} hidden layers"
    elif chain[-1].units != other[-1].units:
        what = f"{chain[-1].units} and {other[-1].units} classes"
    else:
        pairs = zip(chain, other, strict=True)
        unlike = [(a, b) for a, b in pairs if a.shape_of_unit != b.shape_of_unit]
        if not unlike:
            return
        tensors = [
            f"{each.weight.name} {list(each.weight.shape)} with {len(each.own)} tensors beside it"
            for each in unlike[0]
        ]
        what = f"inputs, kernels or norms that differ: {' and '.join(tensors)}"
    raise ConfigError(
        f"codec.kind = 'neurons' cannot take networks of layouts {first.digest} and "
        f"{layout.digest} together: they have {what}; it takes several architectures of one input, "
        "one depth, the same kinds of layers and the same classes, whose hidden layers differ in "
        "width: learn from the others apart, or choose the codec sane"
    )
