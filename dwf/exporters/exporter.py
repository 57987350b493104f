"""The contract of exporters: which files an export consists of, and how they are written.

Shape suffixes: R rows that are exported, B rows of a block, D numbers of one network.
"""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from dwf.exporters.alike import Alike
from dwf.exporters.config import ExportConfig
from dwf.extras import require
from dwf.plain import Json
from dwf.run_folder import replacing_all
from dwf.settings import to_dict
from dwf.zoo.network_files import METADATA
from dwf.zoo.store import Zoo

_BLOCK = 4096  # networks whose files are flushed to disk together


class Exporter(ABC):
    """Writes networks of a zoo in one format.

    Args:
        config: settings of the export.
        zoo: where the networks are.
        rows_R: which of its rows, int64, in the order in which they are written.

    Raises:
        ConfigError: the format does not take these networks, lacks a setting, or a library.
    """

    imports: ClassVar[tuple[str, ...]] = ()
    """Libraries of dwf's extras that the format needs, see `dwf.extras`."""

    def __init__(self, config: ExportConfig, zoo: Zoo, *, rows_R: np.ndarray):
        require(*self.imports, who=f"format = {config.format!r}")
        self.config, self.zoo, self.rows_R = config, zoo, rows_R

    @property
    @abstractmethod
    def files(self) -> list[str]:
        """All files of a whole export, by their names in its folder."""

    @abstractmethod
    def write(self, folder: Path) -> Iterator[int]:
        """Write the files that are missing; yield the number of networks that are there so far."""

    @cached_property
    def told(self) -> dict[str, Json]:
        """Description of the networks, from which `load_network` builds them; plain data."""
        facts = self.zoo.facts
        return {"network": to_dict(facts.network), "input_shape": list(facts.input_shape)}


@dataclass(frozen=True)
class Member:
    """A network on its way into a file."""

    row: int
    """Index of its row in the zoo."""
    state: dict[str, np.ndarray]
    """Tensors by the network's own names, in the order of its `state_dict`, contiguous."""


class OneByOne(Exporter):
    """Base of exporters that write files for each network."""

    suffix: str
    """Ending of a network's file."""

    def __init__(self, config: ExportConfig, zoo: Zoo, *, rows_R: np.ndarray):
        super().__init__(config, zoo, rows_R=rows_R)
        self.network = zoo.build_network()
        self._built = {name: tensor.numpy() for name, tensor in self.network.state_dict().items()}

    @abstractmethod
    def save(self, member: Member, paths: Sequence[Path]) -> None:
        """Write a network's files; `paths` are temporary names of those of `files_of`."""

    def safetensors(self, member: Member) -> bytes:
        """Return the bytes of a safetensors file of a network, whose metadata tell what it is."""
        # One key: the library writes several in an order that differs from run to run.
        told = f'{self._told_of_all}, "row": {member.row}}}'
        return self._alike.bytes_of(member.state, {METADATA: told})

    @cached_property
    def _told_of_all(self) -> str:
        return json.dumps(self.told | {"zoo": self.zoo.name}).removesuffix("}")

    @cached_property
    def _alike(self) -> Alike:
        return Alike({name: np.ascontiguousarray(built) for name, built in self._built.items()})

    def files_of(self, row: int) -> tuple[str, ...]:
        """Return the names of a network's files."""
        return (f"row-{row:07d}{self.suffix}",)

    @property
    def files(self) -> list[str]:
        """All files of a whole export, by their names in its folder."""
        return [name for row in self.rows_R.tolist() for name in self.files_of(row)]

    def write(self, folder: Path) -> Iterator[int]:
        """Write the files that are missing; yield the number of networks that are there so far."""
        missing = [row for row in self.rows_R.tolist() if not self._is_there(folder, row)]
        done = len(self.rows_R) - len(missing)
        for start in range(0, len(missing), _BLOCK):
            rows = np.array(missing[start : start + _BLOCK])
            for rows_B, weights_BD in self.zoo.stream(rows):
                self._write_block(folder, rows_B.tolist(), weights_BD)
                done += len(rows_B)
                yield done

    def _is_there(self, folder: Path, row: int) -> bool:
        return all(os.path.exists(f"{folder}/{name}") for name in self.files_of(row))

    def _write_block(self, folder: Path, rows: list[int], weights_BD: np.ndarray) -> None:
        paths = [folder / name for row in rows for name in self.files_of(row)]
        with replacing_all(paths) as partials:
            each = len(paths) // len(rows)
            for i, row in enumerate(rows):
                self.save(self._member(row, weights_BD[i]), partials[i * each : (i + 1) * each])

    def _member(self, row: int, weights_D: np.ndarray) -> Member:
        """Return a row by the names of its tensors; integer buffers are those of a new network."""
        return Member(row, self._built | self.zoo.layout.unflatten(weights_D))
