"""Learnt probes: inputs that are trained with the head that judges the networks' responses.

A probe is made of a latent code of its own by a generator that all share, linear maps one after the
other without a non-linearity between them. Each network is run on all probes, those of one
architecture as one program where it has one (`run_networks`); gradients flow through the networks,
whose weights do not learn, into the probes. So nothing but a network's function is seen, and any
architecture can be judged that takes such inputs and answers such classes.

Source: Kahana et al., Deep Linear Probe Generators for Weight Space Learning (ProbeGen),
arXiv 2410.10811, section 4. Theirs makes images by transposed convolutions, here by linear maps.

Shape suffixes: N networks, B networks of a batch, Q probes, K classes, L numbers of a latent code,
V numbers of a vector.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from dwf.errors import ConfigError, ShapeMismatch
from dwf.networks.functional import run_networks
from dwf.plain import State
from dwf.predictors.config import ProbesConfig
from dwf.predictors.examples import Examples
from dwf.predictors.joined import Joined, Reader, Reading
from dwf.predictors.reading_config import ProbingConfig
from dwf.zoo.moments import Sources
from dwf.zoo.store import Zoo

LARGE = 8.0
"""Logits are bent so that the largest come to this: those of networks that nearly diverged too."""


@dataclass(frozen=True)
class Runnable:
    """Networks of one architecture, ready to be run."""

    network: nn.Module
    """The architecture, in evaluation mode; its own weights take no part."""
    state: Mapping[str, torch.Tensor]
    """Name -> tensor of N networks, [N, *shape]."""


class Probing(Reading):
    """Probes from a linear generator, and the networks' responses to them.

    Args:
        config: its settings.
        shape: of one input of the networks.
        classes: K.
    """

    def __init__(self, config: ProbingConfig, shape: tuple[int, ...], *, classes: int):
        super().__init__()
        self.shape, self.responses = shape, config.responses
        sizes = [config.latent, *[config.width] * (config.depth - 1), math.prod(shape)]
        self.codes_QL = nn.Parameter(torch.randn(config.count, config.latent))
        self.generator = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))
        for layer in self.generator:  # codes of deviation 1 make inputs of deviation 1
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)
        self.size = config.count * classes * (2 if config.responses == "both" else 1)

    def probes(self) -> torch.Tensor:
        """Return the inputs, [Q, *shape]."""
        return self.generator(self.codes_QL).unflatten(1, self.shape)

    def forward(self, parts: list[Runnable]) -> torch.Tensor:
        """Return the responses of all networks, one part after the other, [B, V]."""
        probes = self.probes().float()
        with torch.autocast(probes.device.type, enabled=False):
            answers = [
                run_networks(part.network, part.state, inputs=probes)  # NQK
                for part in parts
            ]
        return torch.cat([self._vectors(logits_NQK) for logits_NQK in answers])

    def _vectors(self, logits_NQK: torch.Tensor) -> torch.Tensor:
        found, logits_NKQ = [], logits_NQK.transpose(1, 2)  # as stacked MLPs leave them in memory
        if self.responses != "probabilities":
            found.append((logits_NKQ / (1 + logits_NKQ.abs() / LARGE)).flatten(1))
        if self.responses != "logits":
            found.append(logits_NKQ.softmax(1).flatten(1))
        return torch.cat(found, 1)


class ProbesReader(Reader[ProbingConfig, list[Runnable]]):
    """Runs networks on probes.

    Args:
        config: its settings.
        device: where networks run.
    """

    shape: tuple[int, ...]
    classes: int

    def __init__(self, config: ProbingConfig, device: torch.device):
        super().__init__(config, device)
        self._networks: dict[Zoo, nn.Module] = {}

    def prepare(self, train: Examples) -> None:
        """Take inputs and classes from the networks; see the base."""
        first = train.sources[0][0]
        self.shape, self.classes = first.input_shape, _classes(first, _build(first))
        for zoo, _ in train.sources:
            self._network(zoo)

    def new_module(self) -> Probing:
        """Return new probes; see the base."""
        return Probing(self.config, self.shape, classes=self.classes)

    def inputs(self, sources: Sources) -> list[Runnable]:
        """Return the networks of each source, ready to be run; see the base."""
        return [
            Runnable(
                self._network(zoo),
                zoo.layout.unflatten(torch.from_numpy(zoo.read(rows)).to(self.device)),
            )
            for zoo, rows in sources
        ]

    def _network(self, zoo: Zoo) -> nn.Module:
        if zoo not in self._networks:
            network = _build(zoo)
            self._refuse_other(zoo, _classes(zoo, network))
            self._networks[zoo] = network.to(self.device)
        return self._networks[zoo]

    def _refuse_other(self, zoo: Zoo, classes: int) -> None:
        if (zoo.input_shape, classes) != (self.shape, self.classes):
            raise ShapeMismatch(
                f"networks of {zoo.path} take inputs of shape {list(zoo.input_shape)} and answer "
                f"{classes} classes, those that the probes are learnt on {list(self.shape)} and "
                f"{self.classes}: give zoos that agree in both, or fit another predictor"
            )

    def own(self) -> State:
        """Return shapes; see the base."""
        return {"shape": list(self.shape), "classes": self.classes}

    def take_own(self, own: State) -> None:
        """Take shapes; see the base."""
        self.shape, self.classes = tuple(own["shape"]), own["classes"]


def _build(zoo: Zoo) -> nn.Module:
    if not zoo.facts.network.is_known:
        raise ConfigError(
            f"{zoo.path} was imported without its network, and probes run the networks: choose a "
            "predictor that reads weights alone, as statistics"
        )
    return zoo.build_network()


@torch.no_grad()
def _classes(zoo: Zoo, network: nn.Module) -> int:
    return network(torch.zeros(1, *zoo.input_shape)).shape[1]


class Probes(Joined):
    """A perceptron over the responses to learnt probes; see `ProbesConfig`."""

    settings = ProbesConfig
