"""Settings of a zoo member, and the table of architectures."""

from dataclasses import dataclass
from typing import Literal

from dwf.settings import Count

NETWORKS = {
    "mlp": "dwf.networks.mlp:MLP",
}


@dataclass(frozen=True)
class MLPConfig:
    """A multi-layer perceptron."""

    widths: tuple[Count, ...]
    """Inputs, hidden units of each layer, classes: `[784, 32, 32, 10]`."""
    activation: Literal["relu", "gelu", "tanh"] = "relu"
    """Non-linearity after each hidden layer."""
    kind: Literal["mlp"] = "mlp"
    """The architecture."""

    def __post_init__(self):
        if len(self.widths) < 2:
            raise ValueError(
                f"widths = {list(self.widths)}: at least inputs and classes are needed"
            )


NetworkConfig = MLPConfig
"""Union of all architectures' settings."""
