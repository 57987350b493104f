"""Shape of what a backbone takes and gives back."""

from dataclasses import dataclass

Groups = tuple[tuple[int, int], ...]
"""(tokens, numbers of each) of each group of a sequence's like tokens, in order."""


@dataclass(frozen=True)
class Shape:
    """How many numbers a vector has, and which of them make up tokens."""

    size: int
    """K: numbers of a vector; of a sequence those of all its tokens."""
    groups: Groups | None = None
    """Groups of a sequence, which is a vector of token after token; None: there are no tokens."""

    @property
    def num_tokens(self) -> int:
        """T; 0 without tokens."""
        return sum(count for count, _ in self.groups or ())
