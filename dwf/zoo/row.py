"""A row of a zoo: one network at one epoch.

Shape suffixes: D numbers of one network.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dwf.notebooks import facts_html
from dwf.plain import Json

if TYPE_CHECKING:
    from torch import nn

    from dwf.zoo.store import Zoo


@dataclass(frozen=True, repr=False)
class Row:
    """One network of a zoo at one epoch: `zoo[3]`."""

    zoo: "Zoo"
    """The zoo that it is in."""
    index: int
    """Its place there, from 0."""

    @property
    def columns(self) -> dict[str, Json]:
        """Columns of the zoo's table for it: name -> value."""
        return {name: values[self.index].item() for name, values in self.zoo.columns.items()}

    @property
    def weights(self) -> np.ndarray:
        """Its weights_D, float32, in the order of `zoo.layout`; read anew each time.

        Raises:
            CorruptShard: they do not match their checksum.
        """
        return self.zoo.read(np.array([self.index]))[0]

    def network(self) -> "nn.Module":
        """Return it as a network of its own, in evaluation mode; see `Zoo.network`."""
        return self.zoo.network(self.index)

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={_short(value)}" for name, value in self.columns.items())
        return f"Row({self.index} of {str(self.zoo.path)!r}: {told})"

    def _repr_html_(self) -> str:
        told = {name: _short(value) for name, value in self.columns.items()}
        return facts_html(f"row {self.index} of zoo {self.zoo.path}", told)


def _short(value: Json) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
