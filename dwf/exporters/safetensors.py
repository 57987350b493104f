"""Safetensors: a file for each network, by its own names; metadata tell the architecture."""

from collections.abc import Sequence
from pathlib import Path

from dwf.exporters.exporter import Member, OneByOne


class SafetensorsExporter(OneByOne):
    """Writes `row-0000003.safetensors`."""

    suffix = ".safetensors"

    def save(self, member: Member, paths: Sequence[Path]) -> None:
        """Write a network's file."""
        paths[0].write_bytes(self.safetensors(member))
