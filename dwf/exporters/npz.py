"""NumPy archives: a file for each network, an array for each tensor."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dwf.exporters.exporter import Member, OneByOne


class NpzExporter(OneByOne):
    """Writes `row-0000003.npz`, arrays by the names of the network's tensors."""

    suffix = ".npz"

    def save(self, member: Member, paths: Sequence[Path]) -> None:
        """Write a network's file."""
        with open(paths[0], "wb") as file:  # to a name NumPy would add an ending
            np.savez(file, allow_pickle=False, **member.state)
