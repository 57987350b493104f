"""A unit of work: a block of a zoo's rows, measured.

Shape suffixes: N networks of the block, D numbers of one network.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dwf.devices import find_device
from dwf.files import read_array
from dwf.measurements.config import MEASURES, MeasureConfig
from dwf.measurements.folder import (
    Measured,
    block_file,
    finished_blocks,
    root_of,
)
from dwf.measurements.measure import Block, Measure
from dwf.measurements.pictures import Pictures
from dwf.randomness import threads
from dwf.run_folder import replacing
from dwf.settings import build, find
from dwf.yaml_files import read_mapping
from dwf.zoo.store import Zoo


@dataclass(frozen=True)
class Job:
    """A measurement in work, as its folder tells."""

    config: MeasureConfig
    """Its settings."""
    told: Measured
    """Columns that it writes, and how they are computed."""
    zoo: Zoo
    """Networks."""
    pictures: Pictures
    """Images."""
    measures: list[Measure]
    """Measures, in order."""

    @classmethod
    def read(cls, folder: Path) -> "Job":
        """Return what the folder of a measurement says."""
        file = folder / "run" / "config.yaml"
        config = build(MeasureConfig, read_mapping(file), source=str(file))
        zoo = Zoo.open(root_of(folder) / "zoos" / config.zoo)
        made = {one.stem: read_array(one, "c") for one in sorted(made_folder(folder).glob("*.npy"))}
        pictures = Pictures.of(zoo.facts, config.seed, made=made)
        return cls(config, Measured.read(folder), zoo, pictures, measures_of(config))

    def rows(self, index: int) -> np.ndarray:
        """Return the rows of a block."""
        start = index * self.told.block
        return measured_rows(self.config, self.zoo)[start : start + self.told.block]

    def values(self, rows_N: np.ndarray) -> dict[str, np.ndarray]:
        """Return the numbers of each column, float64_N."""
        device = str(find_device(self.told.device))
        weights_ND = torch.from_numpy(self.zoo.read(rows_N)).to(device)
        network = self.zoo.build_network().to(device)
        state = self.zoo.layout.unflatten(weights_ND)
        block = Block(self.zoo.facts, network, state, self.pictures, device)
        found: dict[str, np.ndarray] = {}
        for measure in self.measures:
            found |= measure.values(block)
        return {name: found[name].astype(np.float64) for name in self.told.columns}


def measures_of(config: MeasureConfig) -> list[Measure]:
    """Return the measures that settings name, one for each part; their modules are imported."""
    return [
        find(MEASURES, one.kind)(one, name, part=part)
        for name, one in config.measures.items()
        for part in one.parts
    ]


def measured_rows(config: MeasureConfig, zoo: Zoo) -> np.ndarray:
    """Return the rows that are measured, in order."""
    return zoo.rows(epoch="last" if config.epochs == "last" else None)


def made_folder(folder: Path) -> Path:
    """Return where arrays lie, while a measurement is in work, that all blocks read."""
    return folder / "run" / "work"


def measure_unit(folder: Path, index: int) -> None:
    """Measure one block of the measurement in `folder`; idempotent."""
    file = block_file(folder, index)
    if file.exists():
        return
    job = Job.read(folder)
    rows_N = job.rows(index)
    with threads(1):  # the bytes depend on it
        found = job.values(rows_N)
    keys = {"row": rows_N, "checksum": job.zoo.columns["checksum"][rows_N]}
    with replacing(file) as partial, open(partial, "wb") as opened:
        np.savez(opened, **keys, **found)


def progress(folder: Path) -> tuple[float, str]:
    """Return the share of the rows that are measured."""
    return len(finished_blocks(folder)) / max(1, Measured.read(folder).num_blocks), ""
