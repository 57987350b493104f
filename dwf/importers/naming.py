"""Which tensor of a file is which of the network's: by name, else by the order of like layers.

Networks of one architecture are written with other names by everybody: `fc1.weight`,
`layers.0.weight`. Modules are matched by their tensors' last names and shapes; of like ones the
first is the first. What was matched so is told, since two like layers could be exchanged in it.
"""

from collections import defaultdict
from collections.abc import Mapping

from dwf.importers.importer import Unusable, natural
from dwf.zoo.layout import Layout

Shapes = Mapping[str, tuple[int, ...]]
"""Name -> shape of the floating-point tensors of a network."""
Leaves = dict[str, tuple[int, ...]]
"""Last name -> shape of the tensors of a module."""
MOST_NAMED = 3
"""Most tensors, modules or values that a sentence names."""


def match_names(found: Shapes, layout: Layout, *, order_is_known: bool = True) -> dict[str, str]:
    """Return the name in the file of each tensor of the layout.

    Args:
        found: name in the file -> shape; in the order of layers, or `order_is_known` is false.
        layout: the network's.
        order_is_known: else names are put into their natural order first.

    Raises:
        Unusable: tensors are missing, too many, or of another shape; names them.
    """
    wanted = {entry.name: entry.shape for entry in layout.entries}
    if found.keys() == wanted.keys():
        other = [name for name in wanted if found[name] != wanted[name]]
        if other:
            name = other[0]
            raise Unusable(f"{name} has shape {list(found[name])}, expected {list(wanted[name])}")
        return {name: name for name in wanted}
    names = list(found) if order_is_known else sorted(found, key=natural)
    ours, theirs = _modules(wanted, list(wanted)), _modules(found, names)
    queues: dict[object, list[str]] = defaultdict(list)
    for owner, leaves in theirs.items():
        queues[_alike(leaves)].append(owner)
    matched: dict[str, str] = {}
    missing: dict[str, Leaves] = {}
    for owner, leaves in ours.items():
        waiting = queues[_alike(leaves)]
        if not waiting:
            missing[owner] = leaves
            continue
        other = waiting.pop(0)
        matched |= {_join(owner, leaf): _join(other, leaf) for leaf in leaves}
    extra = {owner: theirs[owner] for waiting in queues.values() for owner in waiting}
    if missing or extra:
        raise Unusable(_difference(missing, extra))
    return matched


def _modules(shapes: Shapes, names: list[str]) -> dict[str, Leaves]:
    modules: dict[str, Leaves] = defaultdict(dict)
    for name in names:
        owner, _, leaf = name.rpartition(".")
        modules[owner][leaf] = shapes[name]
    return modules


def _alike(leaves: Leaves) -> object:
    return frozenset(leaves.items())


def _join(owner: str, leaf: str) -> str:
    return f"{owner}.{leaf}" if owner else leaf


def _difference(missing: Mapping[str, Leaves], extra: Mapping[str, Leaves]) -> str:
    """In words: which modules are missing, and which are too much."""
    has = f"it has {_named(extra)}"
    if not missing:
        return f"{has}, which the network has not"
    return f"it lacks {_named(missing)}" + (f"; {has}" if extra else "")


def _named(modules: Mapping[str, Leaves]) -> str:
    """Name modules with their tensors: `fc2 (weight [10, 16], bias [10])`."""
    named = []
    for owner, leaves in list(modules.items())[:MOST_NAMED]:
        inner = ", ".join(f"{leaf} {list(shape)}" for leaf, shape in leaves.items())
        named.append(f"{owner} ({inner})" if owner else inner)
    more = len(modules) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
