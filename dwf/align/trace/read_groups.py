"""Read a network's symmetry groups off what a trace found out.

Two units can change places if everything treats them alike. So atoms are coloured by how they are
used, and blocks by what lies in them, until the colours split no further (colour refinement). Atoms
of one colour and one block are a group; blocks of one colour are one too, whose units are moved
with all they hold.

Shape suffixes: U units (nodes) of a group, K indices of one unit, G row blocks, I indices.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from dwf.align.groups import Group, Kind, Member
from dwf.align.trace.colours import forest, refine, untied
from dwf.align.trace.labels import Binding, Structure, constant_labels, mix
from dwf.align.trace.tracer import Tracer
from dwf.errors import ConfigError
from dwf.metrics import logger
from dwf.zoo.layout import Layout

_MOST_NAMED = 8


def read_groups(tracer: Tracer, layout: Layout) -> tuple[Group, ...]:
    """Return all groups of two units and more; children before the block they lie in.

    Raises:
        ConfigError: a parameter's axes are tied to each other.
    """
    coloured = _Coloured(tracer, layout)
    drafts: list[_Draft] = []
    tops = sorted(coloured.top_classes(), key=coloured.first_place)
    for nodes in tops:
        coloured.draft(nodes, drafts)
    coloured.draft_tied(drafts)
    fixed = coloured.fixed_axes()
    if fixed:
        logger.warning(
            "hidden units stay where they are, as no order of them was found to be free: %s%s",
            ", ".join(fixed[:_MOST_NAMED]),
            f" and {len(fixed) - _MOST_NAMED} more" if len(fixed) > _MOST_NAMED else "",
        )
    number = {id(draft): g for g, draft in enumerate(drafts)}
    return tuple(
        draft.group
        if draft.parent is None
        else replace(draft.group, parent=number[id(draft.parent)], place=draft.place)
        for draft in drafts
    )


@dataclass(eq=False)
class _Draft:
    """A group before all are numbered."""

    group: Group
    parent: "_Draft | None" = None
    place: int = 0


class _Places:
    """Where units are on one axis of a tensor."""

    def __init__(self, binding: Binding, root: np.ndarray, *, num_rows: int):
        self.binding = binding
        unit_GI = root[binding.unit.numpy()]
        slot_GI = np.broadcast_to(binding.slot.numpy(), unit_GI.shape)
        self.num_blocks = len(unit_GI)
        self.rows_per_block = num_rows // self.num_blocks
        self._sorted = []
        for unit_I, slot_I in zip(unit_GI, slot_GI, strict=True):
            index_I = np.lexsort((slot_I, unit_I))  # stable: equal slots stay in their order
            units, starts, counts = np.unique(
                unit_I[index_I], return_index=True, return_counts=True
            )
            self._sorted.append((units, starts, counts, index_I))
        self._blocks: dict[int, list[int]] = defaultdict(list)
        for g, (units, *_) in enumerate(self._sorted):
            for unit in units.tolist():
                self._blocks[unit].append(g)

    def units(self) -> np.ndarray:
        """Return all units that are here."""
        return np.array([unit for unit in self._blocks if unit], dtype=np.int64)

    def blocks_of(self, leaf_UL: np.ndarray) -> list[int]:
        """Return the row blocks that hold any of these units."""
        if self.num_blocks == 1:
            return [0]
        return sorted({g for leaf in leaf_UL.reshape(-1).tolist() for g in self._blocks[leaf]})

    def find(self, block: int, leaf_UL: np.ndarray) -> list[np.ndarray]:
        """Return for each node the indices of its leaves in a row block, in the leaves' order."""
        units, starts, counts, index_I = self._sorted[block]
        at_UL = np.minimum(np.searchsorted(units, leaf_UL), len(units) - 1)
        count_UL = np.where(units[at_UL] == leaf_UL, counts[at_UL], 0)
        if (count_UL == count_UL[0]).all():
            columns = [
                starts[at_U][:, None] + np.arange(count_U[0])
                for at_U, count_U in zip(at_UL.T, count_UL.T, strict=True)
                if count_U[0]
            ]
            nothing = np.empty((len(leaf_UL), 0), dtype=np.int64)
            return list(index_I[np.concatenate([nothing, *columns], axis=1).astype(np.int64)])
        return [
            np.concatenate(
                [index_I[starts[a] : starts[a] + c] for a, c in zip(at_L, count_L, strict=True)]
            )
            for at_L, count_L in zip(at_UL, count_UL, strict=True)
        ]

    def first(self, unit: int) -> int:
        """Return the first index of a unit, in whichever row block."""
        leaf = np.array([[unit]])
        return min(int(f.min()) for g in self.blocks_of(leaf) for f in self.find(g, leaf))


class _Coloured:
    """Atoms by colour and by block."""

    def __init__(self, tracer: Tracer, layout: Layout):
        structure = tracer.structure
        self._offsets = {entry.name: entry.offset for entry in layout.entries}
        buffers = {entry.name for entry in layout.entries if not entry.is_learnt}
        bindings = structure.bindings + _element_bindings(tracer, buffers)
        bindings.sort(key=lambda b: (self._offsets[b.name], b.axis))
        _use_constants(tracer, bindings)
        self.parent, self.children = forest(structure)
        root = structure.atoms.roots()
        self.colour = refine(structure, bindings, root=root, parent=self.parent)
        self._tied = _tied_classes(structure, bindings) if structure.tied else []
        self._marks = {
            kind: set(root[np.concatenate(found)].tolist())
            for kind, found in structure.marks.items()
        }
        # A row block with one column, as of a depthwise convolution, has nothing to reorder.
        kept = [b for b in bindings if len(b.unit) == 1 or b.unit.shape[1] > 1]
        self._places = [_Places(b, root, num_rows=tracer.sizes[b.name][0]) for b in kept]
        self._bindings = [b for b in bindings if b.cost]
        self._root, self._moved = root, set()
        still = dict(zip(("scale", "sign"), structure.still_wires(), strict=True))
        wire_root = structure.wires.roots()
        shared = _shared_wires(kept, wire_root, root)
        for still_W in still.values():  # units of one scale would have to be scaled together
            still_W[shared] = True

        def free(binding: Binding) -> dict[str, np.ndarray]:
            return {how: ~still[how][wire_root[binding.wire.numpy()]] for how in still}

        self._free = [free(b) for b in kept]
        self._taken = {
            (b.name, 0): free(b)
            for b in bindings
            if b.unit.shape[1] == 1 < len(b.unit) == tracer.sizes[b.name][0]
        }
        self._uses: dict[int, list[int]] = defaultdict(list)
        for p, places in enumerate(self._places):
            for unit in places.units().tolist():
                self._uses[unit].append(p)

    def top_classes(self) -> list[list[int]]:
        """Return the atoms and blocks that lie in no block, by colour."""
        nodes = set(self._uses) | set(self.children)
        return self._classes([n for n in sorted(nodes) if n not in self.parent])

    def _classes(self, nodes: list[int]) -> list[list[int]]:
        classes = defaultdict(list)
        for node in nodes:
            classes[int(self.colour[node])].append(node)
        return list(classes.values())

    def first_place(self, nodes: list[int]) -> tuple[int, int]:
        """Return where a class is first used, to sort by."""
        uses = [(self._uses[leaf][0], leaf) for leaf in self.leaves(nodes[0]) if self._uses[leaf]]
        p, leaf = min(uses, default=(len(self._places), 0))
        return (p, self._places[p].first(leaf)) if uses else (p, nodes[0])

    def fixed_axes(self) -> list[str]:
        """Return the axes of weights that run over hidden units which are in no drafted group.

        Units that are one with the outputs are classes, which nobody asks to reorder.
        """
        known = np.zeros(len(self._root), dtype=bool)
        known[list(self._moved | self._marks.get("output", set()) | {0})] = True
        found = {}
        for binding in self._bindings:
            units = binding.unit.numpy()
            left = ~known[self._root[units]]
            if len(np.unique(units[left])) > 1:
                found[f"{binding.name}[{binding.axis}]"] = None
        return list(found)

    def leaves(self, node: int) -> list[int]:
        """Return the atoms within a node, in an order that its siblings share."""
        if node not in self.children:
            return [node]
        classes = defaultdict(list)
        for child in sorted(self.children[node]):
            classes[int(self.colour[child])].append(child)
        # A block may be used by itself, too: one number of a head.
        own = [node] if self._uses.get(node) else []
        # By colour, which siblings share; by number only within one, where any order is as good.
        ordered = [child for colour in sorted(classes) for child in classes[colour]]
        return own + [leaf for child in ordered for leaf in self.leaves(child)]

    def draft(self, nodes: list[int], drafts: list[_Draft]) -> list[tuple[int, _Draft]]:
        """Append the groups of sibling nodes and of all within them.

        Returns:
            Those that lie directly within these nodes' block: (place among nodes, draft).
        """
        inside: list[tuple[int, _Draft]] = []
        by_place = [self._classes(sorted(self.children.get(node, ()))) for node in nodes]
        for classes in by_place:
            classes.sort(key=lambda members: int(self.colour[members[0]]))
        for alike in zip(*by_place, strict=True):
            for place, members in enumerate(alike):
                inside += [(place, draft) for _, draft in self.draft(members, drafts)]
        group = self._group(nodes) if len(nodes) > 1 else None
        if group is None:
            return inside
        made = _Draft(group)
        for place, draft in inside:
            draft.parent, draft.place = made, place
        # Behind what lies within: `permute` goes through groups in this order, and the units of a
        # head are ordered where the head stood before it is moved.
        drafts.append(made)
        return [(0, made)]

    def draft_tied(self, drafts: list[_Draft]) -> None:
        """Append the groups of units that several blocks order alike; blocks move with them."""
        for tied in self._tied:
            # In each block the units of one colour are alike; so they come in the blocks' order.
            block_of = np.vectorize(lambda unit: self.parent.get(unit, 0))
            units = [self._root[units] for _, units in tied]
            units = [one[np.argsort(block_of(one), kind="stable")] for one in units]
            leaf_UL = np.array(
                [[self._root[b], *one] for (b, _), one in zip(tied, units, strict=True)]
            )
            members = self._all_members(leaf_UL)
            if members:
                self._moved |= set(leaf_UL.reshape(-1).tolist())
                kind = self._kind(int(leaf_UL[0, 1]))
                drafts.append(_Draft(Group(len(tied), tuple(m for _, m in members), kind=kind)))

    def _all_members(self, leaf_UL: np.ndarray) -> list[tuple[int, Member]] | None:
        """Return (number of the places, member) of units on all axes, None if there can be none."""
        members: list[tuple[int, Member]] = []
        for p in sorted({p for leaf in leaf_UL[0].tolist() for p in self._uses[leaf]}):
            found = _members(self._places[p], leaf_UL)
            # One axis on which not all have as many indices is enough: the units stay everywhere
            # (`fixed_axes` tells the user).
            if found is None:
                return None
            members += [(p, member) for member in found]
        return members

    def _group(self, nodes: list[int]) -> Group | None:
        leaf_UL = np.array([self.leaves(node) for node in nodes])
        members = self._all_members(leaf_UL)
        if not members:
            return None
        used = {p for leaf in leaf_UL[0].tolist() for p in self._uses[leaf]}
        unmoved = used - {p for p, _ in members}
        self._moved |= set(leaf_UL.reshape(-1).tolist())
        group = Group(len(nodes), tuple(m for _, m in members), kind=self._kind(nodes[0]))
        if nodes[0] in self.children or any(self._power(p, nodes, "scale") for p in unmoved):
            return group
        return self._scaled(group, nodes, [p for p, _ in members])

    def _kind(self, node: int) -> Kind:
        if node in self.children:
            in_heads = self._marks.get("query_key", set()) | self._marks.get("value_output", set())
            return "heads" if in_heads & set(self.leaves(node)) else "blocks"
        for kind in ("stream", "query_key", "value_output"):
            if node in self._marks.get(kind, ()):
                return kind
        return "units"

    def _scaled(self, group: Group, nodes: list[int], where: list[int]) -> Group:
        """Say which members a unit's scale or sign is on."""
        powers = {how: [self._power(p, nodes, how) for p in where] for how in ("scale", "sign")}
        possible = {
            how: None not in found and any(p is not None and p for p in found)
            for how, found in powers.items()
        }
        if not any(possible.values()):
            return group
        found = powers["scale" if possible["scale"] else "sign"]
        members = tuple(
            replace(member, power=power) for member, power in zip(group.members, found, strict=True)
        )
        # What does not change sign with its unit, as before a norm, would have to be left out.
        whole = all(member.power or not member.cost for member in members)
        signs = possible["sign"] and powers["sign"] == found and whole
        return replace(group, members=members, scales=possible["scale"], signs=signs)

    def _power(self, p: int, nodes: list[int], how: str) -> int | None:
        """Return a member's power; None where some units' scale is free and some is not."""
        binding = self._places[p].binding
        made = self._is_free(p, self._free[p][how], nodes)
        taken = self._taken.get((binding.name, binding.axis))
        also = False if taken is None else self._is_free(p, taken[how].reshape(1, -1), nodes)
        if made is None or also is None:
            return None
        # A depthwise filter makes the scaled unit (s) and takes it in (1 / s): nothing is left to
        # do.
        return binding.power * made - also

    def _is_free(self, p: int, free_GI: np.ndarray, nodes: list[int]) -> bool | None:
        leaf_UL = np.array(nodes)[:, None]
        found = np.concatenate(
            [
                free_GI[g][i]
                for g in self._places[p].blocks_of(leaf_UL)
                for i in self._places[p].find(g, leaf_UL)
            ]
        )
        return bool(found.any()) if found.all() == found.any() else None


def _tied_classes(
    structure: Structure, bindings: list[Binding]
) -> list[list[tuple[int, np.ndarray]]]:
    """Return what is tied by colour: what may change places with one another, two and more each."""
    united = untied(structure)
    parent, _ = forest(united)
    root = united.atoms.roots()
    colour = refine(united, bindings, root=root, parent=parent)
    classes = defaultdict(list)
    for block, units in structure.tied:
        classes[int(colour[root[block]])].append((block, units))
    return [tied for tied in classes.values() if len(tied) > 1]


def _shared_wires(bindings: list[Binding], wire_root: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Return the wires that several units have."""
    pairs_P2 = np.concatenate(
        [
            np.stack([wire_root[b.wire.numpy()], root[b.unit.numpy()]], -1).reshape(-1, 2)
            for b in bindings
        ]
        or [np.zeros((0, 2), np.int64)]
    )
    pairs_P2 = np.unique(pairs_P2[(pairs_P2 > 0).all(1)], axis=0)
    wires, counts = np.unique(pairs_P2[:, 0], return_counts=True)
    return wires[counts > 1]


def _element_bindings(tracer: Tracer, buffers: set[str]) -> list[Binding]:
    """Return the uses of parameters that were followed number by number, one axis each."""
    made = []
    for name, labels in tracer.single_numbers.items():
        unit = torch.from_numpy(tracer.structure.atoms.find(labels.unit)).view(labels.shape)
        axes = [a for a in range(unit.dim()) if not (unit == unit.narrow(a, 0, 1)).all()]
        if len(axes) > 1 and name in tracer.constants:
            tracer.structure.pinned.append(unit.reshape(-1).numpy())
            continue
        if len(axes) > 1:
            raise ConfigError(
                f"{name} (a parameter of shape {list(unit.shape)}): its axes {axes} run over units "
                "together, which is not followed; make it one parameter for each"
            )
        axis = axes[0] if axes else max(range(unit.dim()), key=lambda a: unit.shape[a], default=0)
        if not unit.dim():
            continue
        unit_I = unit.movedim(axis, -1).reshape(-1, unit.shape[axis])[0]
        wire = labels.wire.movedim(axis, -1).reshape(-1, unit.shape[axis])
        tracer.structure.wires.unite(wire, wire[:1])
        slot = torch.zeros_like(unit_I)[None]
        power, cost = (0, False) if name in buffers else (1, True)
        made.append(
            Binding(
                name,
                axis,
                start=0,
                unit=unit_I[None],
                slot=slot,
                wire=wire[:1],
                power=power,
                cost=cost,
            )
        )
    return made


def _use_constants(tracer: Tracer, bindings: Sequence[Binding]) -> None:
    """Tell units apart that meet unequal parts of a constant, and pin the scale of all of them."""
    for binding in bindings:
        if binding.name not in tracer.constants:
            continue
        values = tracer.constants[binding.name]
        slot = constant_labels(values).slot
        # Equal slices can change places: the tensor stays as it is, whatever its other axes do.
        blocks, size = binding.unit.shape
        slot = slot.unflatten(0, (blocks, -1)) if blocks > 1 else slot[None]
        slot_GIX = slot.movedim(binding.axis + 1, 1).reshape(blocks, size, -1)
        place_X = torch.arange(slot_GIX.shape[2])
        seen_GI = mix(slot_GIX, place_X).sum(2)
        number = tracer.number(binding.name)
        tracer.structure.use(binding.unit, mix(seen_GI, number, binding.axis))
        tracer.structure.pin_wires(binding.wire)


def _members(places: _Places, leaf_UL: np.ndarray) -> list[Member] | None:
    """Return the members on one axis, none if nothing moves there, None if there can be none."""
    binding, made = places.binding, []
    touched = places.blocks_of(leaf_UL)
    by_row = {g: places.find(g, leaf_UL) for g in touched}
    if places.num_blocks > 1 and not all(len(f) for g in touched for f in by_row[g]):
        together = [np.concatenate([by_row[g][u] for g in touched]) for u in range(len(leaf_UL))]
        alike = all(np.array_equal(together[0], one) for one in together)
        return [] if alike else None  # whole row blocks move, and their columns with them
    for g in touched:
        if len({len(f) for f in by_row[g]}) > 1:
            return None
        index_UK = np.stack(by_row[g])
        grids, named = _grids(index_UK), None
        if grids is None:
            grids = [(int(index_UK.min()), index_UK.shape[1], 1)]
            named = tuple(index_UK.T.reshape(-1).tolist())
        rows = None
        if places.num_blocks > 1:
            rows = (g * places.rows_per_block, (g + 1) * places.rows_per_block)
        for start, outer, inner in grids:
            made.append(
                Member(
                    binding.name,
                    binding.axis,
                    start=start,
                    outer=outer,
                    inner=inner,
                    rows=rows,
                    power=0,
                    cost=binding.cost,
                    places=named,
                )
            )
    return made


def _grids(index_UK: np.ndarray) -> list[tuple[int, int, int]] | None:
    """Return (start, outer, inner) of the grids that units' indices are, None if they are none."""
    index_UK = index_UK[:, np.argsort(index_UK[0], kind="stable")]
    size, num = index_UK.shape
    start, inner = int(index_UK[0, 0]), int(index_UK[1, 0] - index_UK[0, 0])
    if inner > 0 and num % inner == 0:
        outer = np.arange(num // inner)[:, None] * size * inner
        grid_K = (outer + np.arange(inner)).reshape(-1)
        grid_UK = start + np.arange(size)[:, None] * inner + grid_K
        if np.array_equal(grid_UK, index_UK):
            return [(start, num // inner, inner)]
    # No single grid: units that a concatenation holds twice, around others, are one on each side of
    # the gap in the first unit's indices.
    cuts = np.flatnonzero(np.diff(index_UK[0]) != 1) + 1
    if not len(cuts):
        return None
    parts = [_grids(part) for part in np.split(index_UK, cuts, axis=1)]
    return None if None in parts else [grid for part in parts for grid in part]
