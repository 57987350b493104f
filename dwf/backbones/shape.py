"""Shape of what a backbone takes and gives back."""

from dataclasses import dataclass

Sections = tuple[tuple[int, int], ...]
"""(tokens, numbers of each) of each section of a sequence, in order: tokens of a layer that have as
many numbers stand together in one."""


@dataclass(frozen=True)
class Shape:
    """How many numbers a vector has, and which of them make up tokens."""

    size: int
    """K: numbers of a vector; of a sequence those of all its tokens."""
    sections: Sections | None = None
    """Sections of a sequence, which is a vector of token after token; None: there are no tokens."""

    @property
    def num_tokens(self) -> int:
        """T; 0 without tokens."""
        return sum(count for count, _ in self.sections or ())

    @property
    def widest_token(self) -> int:
        """Numbers of the largest token; 0 without tokens."""
        return max((size for _, size in self.sections or ()), default=0)

    def places(self) -> list[tuple[int, int, int]]:
        """Return (layer, unit, place) of each token, in the order of the sections.

        All count from 0; the place is the token's number among those of one unit. Where nothing
        more is known, each section is a layer and each of its tokens a unit.
        """
        return [
            (layer, unit, 0)
            for layer, (count, _) in enumerate(self.sections or ())
            for unit in range(count)
        ]

    @property
    def num_layers(self) -> int:
        """Layers of the coded network that have tokens; 0 without tokens."""
        return len(self.sections or ())
