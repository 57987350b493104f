"""The weights that networks of an arm begin from.

Shape suffixes: N networks asked for, D numbers of one network, E those of one with its new head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from dwf.datasets.dataset import Dataset
from dwf.evaluation.measure import Rows, moments
from dwf.files import read_json
from dwf.networks.batchnorm import recalibrate
from dwf.networks.functional import batchnorm_buffers, build_network
from dwf.networks.initialisation import initialise
from dwf.randomness import numpy_stream, seed_of
from dwf.settings import build
from dwf.transfer.arms import Arm
from dwf.transfer.config import FinetuneConfig
from dwf.transfer.target import Target
from dwf.zoo import roster
from dwf.zoo.config import ZooConfig
from dwf.zoo.facts import Method
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo

FILE = "starts.json"


@dataclass(frozen=True)
class Unit:
    """Networks of an arm that are one unit of work."""

    arm: int
    """Place of the arm among all."""
    first: int
    """Number of the first network."""
    stop: int
    """Number behind the last."""

    @property
    def networks(self) -> range:
        """The networks' numbers in their arm."""
        return range(self.first, self.stop)


@dataclass(frozen=True)
class Starts:
    """Decisions made before the first network is trained: the folder's `starts.json`."""

    method: Method
    """How networks are computed."""
    fingerprints: dict[str, str]
    """Zoo -> fingerprint of its weights."""
    arms: tuple[Arm, ...]
    """The arms, in order."""
    units: tuple[Unit, ...]
    """The units of work; they follow from the settings, never from the machine."""

    @classmethod
    def read(cls, folder: Path) -> "Starts":
        """Return what the folder of a fine-tuning says.

        Raises:
            CorruptCheckpoint: the file is damaged.
            ConfigError: it is not as this dwf writes it.
        """
        file = folder / FILE
        cure = f"it says which networks were begun: remove {folder} and give the command again"
        return build(cls, read_json(file, cure=cure), source=str(file))

    @property
    def num_networks(self) -> int:
        """Networks of all arms."""
        return sum(arm.count for arm in self.arms)


def units_of(config: ZooConfig, arms: Sequence[Arm]) -> tuple[Unit, ...]:
    """Return the units of work of all arms: the shards of a zoo of `count` networks, of each."""
    shards = [roster.networks_of_shard(config, index) for index in range(config.num_shards)]
    return tuple(
        Unit(place, shard.start, min(shard.stop, arm.count))
        for place, arm in enumerate(arms)
        for shard in shards
        if shard.start < arm.count
    )


def noise_unit(zoo: Zoo) -> np.ndarray:
    """Return the standard deviation of each weight over training networks, float64_D.

    It is 0 for entries that are not learnt.
    """
    measured_D = moments(Rows(zoo, zoo.rows("train", "last"))).deviation_D
    unit_D = np.zeros(zoo.layout.size)
    for start, stop in zoo.layout.spans():
        unit_D[start:stop] = measured_D[start:stop]
    return unit_D


@dataclass(frozen=True)
class StartReader:
    """Reads, mixes and initialises the networks of arms."""

    config: FinetuneConfig
    """Settings of the fine-tuning."""
    root: Path
    """Folder that holds zoos/."""
    target: Target
    """The task."""
    unit_D: np.ndarray | None
    """Unit of the noise, see `noise_unit`; None where no arm has noise."""

    def read(self, arm: Arm, networks: Sequence[int]) -> torch.Tensor:
        """Return the weights that some networks of an arm begin from, float32_NE.

        BatchNorm's statistics of averages, and of networks with noise, are measured on training
        images of the zoo, as a report measures them.
        """
        if arm.zoo is None:
            return self._initial(networks)
        zoo = Zoo.open(self.root / "zoos" / arm.zoo)
        rows = [np.array(arm.rows[i]) for i in networks]
        weights_ND = np.stack([zoo.read(each).mean(0, dtype=np.float64) for each in rows])
        if arm.noise:
            for row_D, i in zip(weights_ND, networks, strict=True):
                stream = numpy_stream(self.config.seed, "noise", int(i))
                row_D += arm.noise * self.unit_D * stream.standard_normal(len(row_D))
        given_ND = torch.from_numpy(weights_ND.astype(np.float32))
        if arm.noise or any(len(each) > 1 for each in rows):
            given_ND = self._with_statistics(zoo, given_ND)
        head = self.target.head
        return given_ND if head is None else head.reset(given_ND, np.array(networks))

    def _initial(self, networks: Sequence[int]) -> torch.Tensor:
        config = self.target.config.network
        module, rows = build_network(config), []
        layout, kind = Layout.of(module), self.config.recipe.initialisation
        for i in networks:
            initialise(module, config, kind=kind, seed=seed_of(self.config.seed, "random", int(i)))
            rows.append(layout.flatten(module.state_dict()))
        return torch.stack(rows)

    def _with_statistics(self, zoo: Zoo, weights_ND: torch.Tensor) -> torch.Tensor:
        network = zoo.build_network()
        if not batchnorm_buffers(network):
            return weights_ND
        state = zoo.layout.unflatten(weights_ND)
        num = min(self.config.batchnorm_images, len(self._source.train))
        return zoo.layout.flatten(recalibrate(network, state, data=self._source, num_images=num))

    @cached_property
    def _source(self) -> Dataset:
        """Images that the originals were trained on."""
        return Zoo.open(self.root / "zoos" / self.config.zoo).load_data()
