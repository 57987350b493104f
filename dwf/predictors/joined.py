"""Predictors that read vectors off a network, each in its way, and join them in one head.

Shape suffixes: B networks of a batch, V numbers of a vector, P properties.
"""

from typing import Generic, TypeVar

import torch
from torch import nn

from dwf.plain import State
from dwf.predictors.config import READERS, JoinedSettings
from dwf.predictors.examples import Examples
from dwf.predictors.learnt import LearntPredictor
from dwf.settings import find
from dwf.zoo.moments import Sources

Taken = TypeVar("Taken")
Settings = TypeVar("Settings")


class Reading(nn.Module):
    """Base of the modules that read vectors: called with what `Reader.inputs` gives, [B, V]."""

    size: int
    """V: how many numbers a vector has."""


class Reader(Generic[Settings, Taken]):
    """Base of what reads vectors off networks.

    Args:
        config: its settings.
        device: where it computes.
    """

    def __init__(self, config: Settings, device: torch.device):
        self.config, self.device = config, device

    def prepare(self, train: Examples) -> None:
        """Learn what is needed before the module is built.

        Raises:
            ConfigError, ShapeMismatch: the networks are not for this reader.
        """
        raise NotImplementedError

    def new_module(self) -> Reading:
        """Return the module with initial weights; called after `prepare` or `take_own`."""
        raise NotImplementedError

    def inputs(self, sources: Sources) -> Taken:
        """Return what the module takes of some networks, on the device, in their order.

        Raises:
            ShapeMismatch: networks that it cannot read.
        """
        raise NotImplementedError

    def own(self) -> State:
        """Return what `prepare` learnt."""
        raise NotImplementedError

    def take_own(self, own: State) -> None:
        """Take what `own` returned."""
        raise NotImplementedError


class JoinedModule(nn.Module):
    """Vectors side by side, then a perceptron.

    Args:
        readings: name -> module of a reader.
        config: settings of the head.
        num_properties: P.
    """

    def __init__(
        self, readings: dict[str, Reading], config: JoinedSettings, *, num_properties: int
    ):
        super().__init__()
        self.readings = nn.ModuleDict(readings)
        layers, size = [], sum(reading.size for reading in readings.values())
        for width in config.hidden:
            layers += [nn.Linear(size, width), nn.SiLU(), nn.Dropout(config.dropout)]
            size = width
        self.head = nn.Sequential(*layers, nn.Linear(size, num_properties))

    def forward(self, inputs: dict[str, Taken]) -> torch.Tensor:
        """Return [B, P] of what each reader takes of the networks."""
        vectors = [reading(inputs[name]) for name, reading in self.readings.items()]
        return self.head(torch.cat(vectors, 1))


class Joined(LearntPredictor[dict[str, object]]):
    """Base of the predictors that are readers and a head.

    Args:
        config: its settings.
    """

    config: JoinedSettings

    def __init__(self, config: JoinedSettings):
        super().__init__(config)
        self.readers: dict[str, Reader] = {
            name: find(READERS, name)(settings, self.device)
            for name, settings in config.readers.items()
        }

    def _prepare(self, train: Examples) -> None:
        for reader in self.readers.values():
            reader.prepare(train)

    def _new_module(self) -> nn.Module:
        readings = {name: reader.new_module() for name, reader in self.readers.items()}
        return JoinedModule(readings, self.config, num_properties=len(self.properties))

    def inputs(self, sources: Sources) -> dict[str, object]:
        """Return what each reader takes of some networks, by its name; see the base."""
        return {name: reader.inputs(sources) for name, reader in self.readers.items()}

    def _own(self) -> State:
        return {name: reader.own() for name, reader in self.readers.items()}

    def _take_own(self, own: State) -> None:
        for name, reader in self.readers.items():
            reader.take_own(own[name])
