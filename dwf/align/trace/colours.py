"""Which units everything treats alike: blocks put in order, then colours (see `read_groups.py`).

Source: colour refinement is the one-dimensional Weisfeiler-Leman algorithm (1968).
"""

import copy
from collections import defaultdict

import numpy as np
import torch

from dwf.align.trace.labels import Binding, Structure, mix


def forest(structure: Structure) -> tuple[dict[int, int], dict[int, set[int]]]:
    """Return each atom's block, and each block's atoms, blocks made one where they are."""
    # Making two blocks one may make others equal, nested or crossing, so every turn mends one kind
    # of thing and looks again; each one unites, nests or pins, so the turns end.
    while True:
        sets = _sets(structure)
        if _merge_equal(structure, sets) or _merge_single(structure, sets):
            continue
        holders = defaultdict(list)
        for block, children in sets:
            for child in children:
                if block not in holders[child]:
                    holders[child].append(block)
        crossing = [blocks for blocks in holders.values() if len(blocks) > 1]
        if not crossing:
            break
        if not _resolve(structure, crossing, sets):
            break
    parent = {child: block for block, children in sets for child in children}
    children = defaultdict(set)
    for child, block in parent.items():
        children[block].add(child)
    return parent, children


def _sets(structure: Structure) -> list[tuple[int, frozenset[int]]]:
    """Return (block, what lies in it), as known by now; a block may have several."""
    root = structure.atoms.roots()
    made = {}
    for children, blocks in structure.within:
        block = int(root[blocks[0]])
        inside = frozenset(root[children].tolist()) - {block}
        if inside:
            made[block, inside] = None
    return list(made)


def _unite(structure: Structure, left: int, right: int) -> None:
    structure.atoms.unite(torch.tensor([left]), torch.tensor([right]))


def _merge_equal(structure: Structure, sets: list[tuple[int, frozenset[int]]]) -> bool:
    """Make blocks that hold the same one."""
    first, merged = {}, False
    for block, inside in sets:
        if first.setdefault(inside, block) != block:
            _unite(structure, first[inside], block)
            merged = True
    return merged


def _merge_single(structure: Structure, sets: list[tuple[int, frozenset[int]]]) -> bool:
    """Make a block that holds one atom alone that atom."""
    inside = defaultdict(set)
    for block, children in sets:
        inside[block] |= children
    merged = False
    for block, children in inside.items():
        if len(children) == 1:
            _unite(structure, block, next(iter(children)))
            merged = True
    return merged


def _resolve(
    structure: Structure, crossing: list[list[int]], sets: list[tuple[int, frozenset[int]]]
) -> bool:
    """Bring order into atoms that lie in several blocks; whether anything changed.

    Numbers that several units share make those units one, unless each block has just one of them:
    then the units stay apart and are tied. A block within another lies in it directly. What
    remains crosses: these units stay where they are.
    """
    root = structure.atoms.roots()
    inside = defaultdict(set)
    for block, children in sets:
        inside[block] |= children
    loose = {int(root[b]) for found in structure.loose_blocks for b in found}
    crossed = sorted({b for blocks in crossing for b in blocks if b in loose})
    if crossed:
        if not _tie(structure, crossed, crossing, inside):
            units = torch.tensor(sorted(inside[crossed[0]]))
            structure.atoms.unite(units, units[:1])
        return True
    for small, large in {(a, b) for blocks in crossing for a in blocks for b in blocks if a != b}:
        if inside[small] < inside[large]:
            _nest(structure, small, large, inside[small])
            return True
    stuck = {b for blocks in crossing for b in blocks}
    for block in stuck:
        structure.pinned.append(np.array([block, *inside[block]]))
    structure.within = [
        (children, blocks)
        for children, blocks in structure.within
        if int(root[blocks[0]]) not in stuck
    ]
    return True


def _tie(
    structure: Structure,
    crossed: list[int],
    crossing: list[list[int]],
    inside: dict[int, set[int]],
) -> bool:
    """Tie units that share numbers across blocks, in all blocks alike; whether they do."""
    holders = {block: set() for block in crossed}
    for blocks in crossing:
        for block in set(blocks) & set(crossed):
            holders[block] |= set(blocks) - set(crossed)
    for block, others in holders.items():
        one_each = all(len(inside[block] & inside[other]) == 1 for other in others)
        if not one_each or len(others) != len(inside[block]):
            return False
    for block in crossed:
        structure.tied.append((block, np.array(sorted(inside[block]))))
    root = structure.atoms.roots()
    structure.within = [
        (children, blocks)
        for children, blocks in structure.within
        if int(root[blocks[0]]) not in holders
    ]
    return True


def untied(structure: Structure) -> Structure:
    """Return a copy in which what is tied is one: its colours tell what can change places."""
    united = copy.deepcopy(structure)
    united.tied = []
    for block, units in structure.tied:
        united.atoms.unite(torch.from_numpy(units), torch.tensor(block))
    return united


def _nest(structure: Structure, small: int, large: int, inside: set[int]) -> None:
    """Move what lies in both blocks to the smaller, and that into the larger."""
    root = structure.atoms.roots()
    kept = []
    for children, blocks in structure.within:
        if int(root[blocks[0]]) == large:
            children = children[~np.isin(root[children], list(inside))]
        if len(children):
            kept.append((children, blocks[: len(children)]))
    structure.within = [*kept, (np.array([small]), np.array([large]))]


def refine(
    structure: Structure, bindings: list[Binding], *, root: np.ndarray, parent: dict[int, int]
) -> np.ndarray:
    """Return a colour for each atom and block: equal where everything treats them alike."""
    colour = np.zeros(len(root), dtype=np.int64)
    # Added up, as a chain of hashes would depend on the order in which the trace met the uses.
    for b, binding in enumerate(bindings):
        unit = binding.unit.reshape(-1).numpy()
        slot = binding.slot.expand(binding.unit.shape).reshape(-1)
        np.add.at(colour, root[unit], mix(b + 1, binding.axis, slot).numpy())
    for unit, how in structure.uses:
        np.add.at(colour, root[unit], mix(torch.from_numpy(how), 3).numpy())
    for block, units in structure.tied:
        roots = np.unique(root[[block, *units]])
        colour[roots] += mix(torch.tensor(block), 17).numpy()
    for pinned in structure.pinned:
        roots = np.unique(root[pinned])
        colour[roots] += mix(torch.from_numpy(roots), 7).numpy()
    child = np.array(list(parent), dtype=np.int64)
    block = np.array(list(parent.values()), dtype=np.int64)
    while True:
        before = len(np.unique(colour))
        hashed = mix(torch.from_numpy(colour), 11).numpy()
        below = np.zeros_like(colour)
        np.add.at(below, block, hashed[child])
        above = np.zeros_like(colour)
        above[child] = mix(torch.from_numpy(hashed[block]), 13).numpy()
        colour = mix(torch.from_numpy(colour), torch.from_numpy(below), torch.from_numpy(above))
        colour = colour.numpy()
        # The new colour holds the old one, so colours only ever split, and the same number of them
        # means that none did. Equal colours are needed for a symmetry but do not prove one (they do
        # not see every difference of structure): `verify.py` tries the groups on numbers.
        if len(np.unique(colour)) == before:
            return colour
