"""One sequence of units for networks of several widths, each with a mask of its own.

The sections of a network are (units, numbers of a token) of each hidden layer, and of the output.
Networks that share a sequence differ in the units alone: the first of a layer's tokens are theirs.

Shape suffixes: A architectures, T tokens, C numbers of the longest token.
"""

from collections.abc import Collection, Iterator, Sequence

import torch

from dwf.codecs.codes import CodeShape
from dwf.errors import ConfigError
from dwf.zoo.layout import Layout
from dwf.zoo.moments import Source, Sources

Sections = Sequence[tuple[int, int]]


def widest(sections_A: Sequence[Sections]) -> list[tuple[int, int]]:
    """Return the sections of the sequence that all have room in.

    Raises:
        ConfigError: they differ in more than numbers of units.
    """
    sizes = {tuple(size for _, size in sections) for sections in sections_A}
    if len(sizes) > 1:
        raise ConfigError(
            "codec.kind = 'functions' takes networks of several widths together, and these differ "
            "in more than the units of hidden layers (numbers of their tokens: "
            f"{', '.join(str(list(each)) for each in sizes)}): learn from zoos of one depth and "
            "kind, or choose the codec sane"
        )
    return [max(same) for same in zip(*sections_A, strict=True)]


def code_shape(digests: Sequence[str], sections_A: Sequence[Sections]) -> CodeShape:
    """Return the shape of codes; of several architectures they are mixed.

    Args:
        digests: of the architectures' layouts.
        sections_A: their sections.
    """
    whole = widest(sections_A)
    columns = torch.arange(max(size for _, size in whole))
    masks = [
        torch.cat(
            [
                (torch.arange(room) < units)[:, None] & (columns < size)
                for (room, size), (units, _) in zip(whole, sections, strict=True)
            ]
        )
        for sections in sections_A
    ]
    places = [(layer, unit) for layer, (room, _) in enumerate(whole) for unit in range(room)]
    positions = torch.tensor([(token, *place) for token, place in enumerate(places)])
    mask = torch.stack(masks) if len(masks) > 1 else masks[0]
    return CodeShape.sequences(digests, positions, mask=mask)


def slots(whole: Sections, sections: Sections) -> Iterator[tuple[slice, slice]]:
    """Yield which tokens, and which of their numbers, each section of a network has."""
    first = 0
    for (room, size), (units, _) in zip(whole, sections, strict=True):
        yield slice(first, first + units), slice(size)
        first += room


def refuse_same(known: Collection[str], new: Layout, *, units: Sequence[int]) -> None:
    """Refuse room for widths that there are; raises `ConfigError`."""
    if new.digest in known:
        raise ConfigError(
            f"codec.unseen_widths: a zoo that is learnt from, or another of these, has {units} "
            "hidden units: leave them out"
        )


def refuse_other_depth(units: Sequence[int], depth: int) -> None:
    """Refuse room for another number of hidden layers; raises `ConfigError`."""
    if len(units) != depth:
        raise ConfigError(
            f"codec.unseen_widths: {units} hidden units, and the networks have {depth} hidden "
            "layers: give as many numbers"
        )


def by_layout(sources: Sources) -> dict[str, Sources]:
    """Return digest -> sources of networks of that layout, in order."""
    found: dict[str, list[Source]] = {}
    for zoo, rows in sources:
        found.setdefault(zoo.layout.digest, []).append((zoo, rows))
    return found
