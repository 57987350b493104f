"""Groups of a permutation specification, for imported networks whose `forward` nobody has."""

from collections import defaultdict
from collections.abc import Mapping

from dwf.align.groups import Group, Member
from dwf.zoo.layout import Layout


def given_groups(
    permutations: Mapping[str, tuple[str | None, ...]], layout: Layout
) -> tuple[Group, ...]:
    """Return the groups that a specification names, in the order in which the layout uses them.

    They are taken at their word: without a network nothing can check them.

    Args:
        permutations: tensor -> group of each axis, or None; see `importers.permutations`.
        layout: of the networks, which the specification fits.
    """
    members: dict[str, list[Member]] = defaultdict(list)
    sizes: dict[str, int] = {}
    for entry in layout.entries:
        for axis, name in enumerate(permutations.get(entry.name, ())):
            if name is not None:
                members[name].append(Member(entry.name, axis, cost=entry.is_learnt))
                sizes[name] = entry.shape[axis]
    return tuple(Group(sizes[name], tuple(found)) for name, found in members.items())
