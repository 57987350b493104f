"""Networks with what is to be told of them.

Shape suffixes: N networks, P properties.
"""

from dataclasses import dataclass

import numpy as np

from dwf.errors import ConfigError
from dwf.zoo.moments import Sources


@dataclass(frozen=True)
class Examples:
    """Networks of one or more zoos with values of their properties."""

    sources: Sources
    """Networks: (zoo, rows) one zoo after the other."""
    properties: tuple[str, ...]
    """Names of the properties, P of them."""
    values_NP: np.ndarray
    """Values, float64, finite, in the order of the networks."""

    def __post_init__(self):
        count = sum(len(rows) for _, rows in self.sources)
        if self.values_NP.shape != (count, len(self.properties)):
            raise ConfigError(
                f"values of shape {self.values_NP.shape} for {count} networks and the properties "
                f"{', '.join(self.properties)}"
            )
        for name, values_N in zip(self.properties, self.values_NP.T, strict=True):
            if num_bad := int((~np.isfinite(values_N)).sum()):
                raise ConfigError(
                    f"{name} of {num_bad} of {count} networks is no number: leave these networks "
                    "out, or measure it again with dwf measure"
                )

    def __len__(self) -> int:
        return len(self.values_NP)
