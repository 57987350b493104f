"""State dicts: a file of `torch.save` for each network, which `weights_only=True` reads."""

from collections.abc import Sequence
from pathlib import Path

import torch

from dwf.exporters.exporter import Member, OneByOne


class StateDictExporter(OneByOne):
    """Writes `row-0000003.pt`: name -> tensor, as the network's own `state_dict` has them."""

    suffix = ".pt"

    def save(self, member: Member, paths: Sequence[Path]) -> None:
        """Write a network's file."""
        # Each tensor with memory of its own: views would be saved with the whole row.
        state = {name: torch.from_numpy(array.copy()) for name, array in member.state.items()}
        with open(paths[0], "wb") as file:  # by its name torch would write that into the file
            torch.save(state, file)
