"""Networks whose architecture nobody told: tensors without a forward."""

from typing import NoReturn

from dwf.errors import ConfigError
from dwf.networks.config import UnknownConfig


def refuse_to_build(config: UnknownConfig) -> NoReturn:
    """Refuse to build a network of which only the tensors are known.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        "these networks were imported with `network: {kind: none}`, so they cannot be run or "
        "scored; import them again with their network"
    )
