"""Null arms that copy parts of training networks, or hide that they are copies: nothing is learnt.

    first layer of another   the first layer of one training network under the second of another,
                             which is solved anew by least squares, so that its units compute what
                             they did
    each unit of another     the same, each unit of the first layer from a network of its own
    shuffled copies          training networks whose units are shuffled and rescaled (or flipped),
                             and whose logits are shifted

The first two are made where the first layer reads the inputs and a linear layer alone takes its
units in. Every network is seeded by itself.

Shape suffixes: N training networks, B networks of a block, D numbers of one network, M images,
P samples of a layer's inputs, I its inputs, O its outputs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from dwf.align.groups import Group, permute, random_orders, scale_units
from dwf.evaluation.measure.novelty import Rows
from dwf.evaluation.measure.units import UnitReader
from dwf.networks.watched import watched
from dwf.randomness import numpy_stream, seed_of

_BLOCK = 64
_RIDGE = 1e-4  # of the mean energy of the inputs of the layer that is solved anew
_LARGEST_SCALE = 2.0


@dataclass(frozen=True)
class Arm:
    """Networks of a null arm as blocks, made while they are read."""

    title: str
    count: int
    make: Callable[[np.random.Generator, int], torch.Tensor]
    """Returns the row of a network from its own stream and seed, float32_D."""
    seed: int

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, self.count, _BLOCK):
            positions_B = np.arange(start, min(start + _BLOCK, self.count))
            rows = [
                self.make(
                    numpy_stream(self.seed, self.title, int(i)),
                    seed_of(self.seed, self.title, int(i)),
                )
                for i in positions_B
            ]
            yield positions_B, torch.stack(rows).numpy()


class Recombiner:
    """Makes the null arms of a zoo.

    Args:
        training: the training networks.
        network: their architecture, in evaluation mode.
        groups: groups of units.
        reader: knows which layers read the inputs, and has the images.
    """

    def __init__(
        self, training: Rows, network: nn.Module, *, groups: Sequence[Group], reader: UnitReader
    ):
        self.training, self.network, self.groups = training, network, groups
        self.layout, self.images_MX = training.zoo.layout, reader.images_MX
        self._modules = dict(network.named_modules())
        self._layers = self._first_and_second(reader.read_inputs)
        self._shifted = self._last_bias()

    def arms(self, count: int, *, seed: int) -> list[Arm]:
        """Return the arms that this architecture has, of so many networks each."""
        found = [Arm("shuffled copies", count, self._shuffled, seed)]
        if self._layers is not None:
            found.insert(0, Arm("each unit of another", count, self._of_many, seed))
            found.insert(0, Arm("first layer of another", count, self._of_two, seed))
        return found

    def _first_and_second(self, read_inputs: Sequence[str]) -> tuple[str, str] | None:
        """Return a layer that reads the inputs, and the linear layer that takes all its units."""
        for group in self.groups:
            names = {member.name.rpartition(".")[0] for member in group.members}
            for first in names & set(read_inputs):
                others = [m for m in group.members if m.name.rpartition(".")[0] != first]
                if len(others) != 1 or others[0].inner > 1 or others[0].outer > 1:
                    continue
                second, _, leaf = others[0].name.rpartition(".")
                module = self._modules[second]
                takes = leaf == "weight" and others[0].axis == 1 and isinstance(module, nn.Linear)
                if takes and module.in_features == group.size == len(self._weight(first)):
                    return first, second
        return None

    def _weight(self, name: str) -> torch.Tensor:
        return self.network.get_parameter(f"{name}.weight")

    def _read(self, positions: Sequence[int]) -> torch.Tensor:
        rows = self.training.rows[np.asarray(positions)]
        return torch.from_numpy(np.array(self.training.zoo.read(rows), np.float32))

    def _of_two(self, stream: np.random.Generator, _: int) -> torch.Tensor:
        above, below = stream.choice(len(self.training), 2, replace=False)
        return self._under(self._read([above])[0], self._read([below])[0])

    def _of_many(self, stream: np.random.Generator, _: int) -> torch.Tensor:
        first, _ = self._layers
        size = len(self._weight(first))
        above, *donors = stream.integers(len(self.training), size=size + 1)
        above_D = self._read([above])[0]
        numbers, inverse_U = np.unique(donors, return_inverse=True)
        state = self.layout.unflatten(self._read(numbers))
        below_D = above_D.clone()
        made = self.layout.unflatten(below_D)
        for leaf in ("weight", "bias"):
            name = f"{first}.{leaf}"
            if name in made:
                made[name].copy_(state[name][torch.from_numpy(inverse_U), torch.arange(size)])
        return self._under(above_D, below_D)

    def _under(self, above_D: torch.Tensor, below_D: torch.Tensor) -> torch.Tensor:
        """Return a network with one's first layer below the units that the other has above it."""
        first, second = self._layers
        made_D = above_D.clone()
        made, below = self.layout.unflatten(made_D), self.layout.unflatten(below_D)
        for leaf in ("weight", "bias"):
            if f"{first}.{leaf}" in made:
                made[f"{first}.{leaf}"].copy_(below[f"{first}.{leaf}"])
        _, wanted_PO = self._through(above_D, second)
        given_PI, _ = self._through(made_D, second)
        weight_OI, bias_O = _solved(given_PI, wanted_PO, f"{second}.bias" in made)
        made[f"{second}.weight"].copy_(weight_OI)
        if bias_O is not None:
            made[f"{second}.bias"].copy_(bias_O)
        return made_D

    @torch.no_grad()
    def _through(self, weights_D: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what a layer takes in and gives out on the images, [P, I] and [P, O]."""
        kept: list[tuple[torch.Tensor, torch.Tensor]] = []

        def keep(
            _: str, __: nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor
        ) -> None:
            kept.append((given[0].flatten(0, -2).double(), output.flatten(0, -2).double()))

        with watched({name: self._modules[name]}, keep):
            functional_call(self.network, self.layout.unflatten(weights_D), (self.images_MX,))
        return kept[0]

    def _shuffled(self, stream: np.random.Generator, seed: int) -> torch.Tensor:
        row_1D = self._read([stream.integers(len(self.training))])
        orders = random_orders(self.groups, 1, seed=seed)
        row_1D = permute(row_1D, self.layout, groups=self.groups, orders=orders)
        state = self.layout.unflatten(row_1D)
        for group in self.groups:
            factor_1U = np.ones((1, group.size))
            if group.scales:
                factor_1U *= _LARGEST_SCALE ** stream.uniform(-1, 1, (1, group.size))
            if group.signs:
                factor_1U *= stream.choice([-1.0, 1.0], (1, group.size))
            scale_units(state, group, factor_NU=torch.from_numpy(factor_1U).float())
        if self._shifted is not None:
            state[self._shifted].add_(float(stream.standard_normal()))
        return row_1D[0]

    @torch.no_grad()
    def _last_bias(self) -> str | None:
        """Return the bias that is added to the logits, if the network ends in a linear layer."""
        kept: dict[str, torch.Tensor] = {}

        def keep(name: str, _: nn.Module, __: object, output: torch.Tensor) -> None:
            kept[name] = output

        linear = {name: m for name, m in self._modules.items() if isinstance(m, nn.Linear)}
        with watched(linear, keep):
            logits = self.network(self.images_MX[:2])
        names = [f"{n}.bias" for n, output in kept.items() if output is logits]
        return next((name for name in names if name in self.layout.by_name), None)


def _solved(
    given_PI: torch.Tensor, wanted_PO: torch.Tensor, with_bias: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return weight_OI and bias_O of the linear layer that gives what is wanted, least squares."""
    mean_I, mean_O = given_PI.mean(0) * with_bias, wanted_PO.mean(0) * with_bias
    centred_PI = given_PI - mean_I
    gram_II = centred_PI.T @ centred_PI
    ridge = _RIDGE * gram_II.trace().clamp_min(1e-12) / len(gram_II)
    gram_II += ridge * torch.eye(len(gram_II), dtype=gram_II.dtype)
    weight_OI = torch.linalg.solve(gram_II, centred_PI.T @ (wanted_PO - mean_O)).T
    return weight_OI, (mean_O - weight_OI @ mean_I) if with_bias else None
