"""N networks computed layer by layer on the same inputs, each layer by who asks for it.

What a layer takes in is kept as [N, M, L, I]: M inputs, L places of each (1 of a linear layer, the
pixels of its map of a convolution), I what a unit weighs there, in the order of its row of weights.
What it gives is [N, M, L, U]. Where all networks take in the same, as the first layer does, N is 1.

What is between the layers, sums of skips too, is computed by the architecture's own module, in
which others stand where its layers were, and nothing where its norms were.

Shape suffixes: N networks, M inputs, L places, I weights of a unit, U units, P read places of all
inputs, B: N networks of M inputs, one after the other.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from dwf.codecs.functions.folding import Folding, refuse_unfoldable
from dwf.codecs.functions.wiring import INSTEAD, read_wiring
from dwf.codecs.neurons import NeuronLayer
from dwf.errors import ConfigError
from dwf.networks.architecture import Architecture
from dwf.networks.functional import build_network
from dwf.networks.watched import watched
from dwf.randomness import torch_stream
from dwf.zoo.layout import Layout

# Bytes of activations that are held at once: a network's largest layer, some copies of it.
_BLOCK_BYTES, _LIVE_TENSORS = 2**27, 4

Visit = Callable[[int, torch.Tensor], torch.Tensor]
"""Function that returns given_NMLU of a layer, of its number and hidden_BX, what comes in."""


def refuse_unreadable(network: Architecture, layout: Layout) -> None:
    """Refuse networks whose units cannot be read and solved for layer by layer.

    Raises:
        ConfigError: names the setting or tensor.
    """
    if not network.is_layered:
        raise ConfigError(
            f"{network.named}: codec.kind = 'functions' takes MLPs, CNNs and ResNets (mlp, cnn, "
            f"resnet_cifar, resnet), without norms or with BatchNorm; {INSTEAD}"
        )
    for layer in read_wiring(layout).layers:
        refuse_unfoldable(layer, layout, instead=INSTEAD)


@dataclass(frozen=True)
class Step:
    """Inputs and outputs of a layer, of N networks."""

    hidden_BX: torch.Tensor
    """Inputs, as the network computes them."""
    given_NMLU: torch.Tensor


class _Stand(nn.Module):
    """A module that stands where a layer was: it gives what is said of what comes in."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number
        self.say: Visit | None = None

    def forward(self, hidden_BX: torch.Tensor) -> torch.Tensor:
        """Return a layer's outputs."""
        return self.say(self.number, hidden_BX)


class Chain:
    """Networks of one architecture on M inputs.

    Args:
        config: the architecture, which `refuse_unreadable` does not refuse.
        layout: of the networks.
        inputs_MX: prepared inputs, [M, *shape].
    """

    def __init__(self, config: Architecture, layout: Layout, *, inputs_MX: torch.Tensor):
        self.wiring = read_wiring(layout)
        self.layers: tuple[NeuronLayer, ...] = self.wiring.layers
        self.inputs_MX, self.num_inputs = inputs_MX, len(inputs_MX)
        self._network = build_network(config)
        names = [_owner(layer.weight.name) for layer in self.layers]
        self._modules = [self._network.get_submodule(name) for name in names]
        self._maps = self._map_sizes(names)
        self._folds = [Folding.of(each, layout, network=self._network) for each in self.layers]
        # What adds layers up may do so in place.
        self._copies = any(len(layers) > 1 for layers in self.wiring.writers)
        self._stands = [_Stand(number) for number in range(len(names))]
        for name, stand in zip(names, self._stands, strict=True):
            self._network.set_submodule(name, stand)
        for name in {_owner(e.name) for each in self.layers for e in each.own if e.role == "norm"}:
            self._network.set_submodule(name, nn.Identity())

    @torch.no_grad()
    def _map_sizes(self, names: list[str]) -> list[tuple[int, ...]]:
        """Return height and width of each layer's map; () of a linear layer."""
        sizes: dict[str, tuple[int, ...]] = {}

        def note(name: str, _: nn.Module, __: object, output: torch.Tensor) -> None:
            sizes[name] = tuple(output.shape[2:])

        with watched(dict(zip(names, self._modules, strict=True)), note):
            self._network(self.inputs_MX[:1])
        return [sizes[name] for name in names]

    def num_places(self, number: int) -> int:
        """Return L of a layer."""
        return torch.Size(self._maps[number]).numel()

    @property
    def block_size(self) -> int:
        """How many networks are computed at once in bounded memory."""
        numbers = max(
            self.num_places(number) * max(fold.places_UI.shape)
            for number, fold in enumerate(self._folds)
        )
        return max(1, _BLOCK_BYTES // (4 * _LIVE_TENSORS * self.num_inputs * numbers))

    def taken(self, number: int, hidden_BX: torch.Tensor) -> torch.Tensor:
        """Return what a layer takes in, [N, M, L, I], of what comes in."""
        module = self._modules[number]
        if isinstance(module, nn.Conv2d):
            options = (module.dilation, module.padding, module.stride)
            unfolded = nn.functional.unfold(hidden_BX, module.kernel_size, *options)
            taken_BLI = unfolded.transpose(1, 2)
        else:
            taken_BLI = hidden_BX.flatten(1).unsqueeze(1)
        return taken_BLI.unflatten(0, (-1, self.num_inputs))

    def give(
        self, taken_NMLI: torch.Tensor, *, weight_NUI: torch.Tensor, bias_NU: torch.Tensor
    ) -> torch.Tensor:
        """Return what a layer gives, [N, M, L, U]."""
        shape, (num, units, _) = taken_NMLI.shape[1:3], weight_NUI.shape
        if len(taken_NMLI) == 1:  # one wide product for all networks
            wide = taken_NMLI[0].flatten(0, 1) @ weight_NUI.flatten(0, 1).T
            given = wide.view(-1, num, units).transpose(0, 1) + bias_NU.unsqueeze(1)
        else:
            given = torch.baddbmm(
                bias_NU.unsqueeze(1), taken_NMLI.flatten(1, 2), weight_NUI.transpose(1, 2)
            )
        return given.unflatten(1, shape)

    def weights(self, number: int, weights_ND: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return a layer's weight_NUI and bias_NU, with the norm behind it."""
        return self._folds[number].get(weights_ND)

    def put(
        self,
        number: int,
        weights_ND: torch.Tensor,
        *,
        weight_NUI: torch.Tensor,
        bias_NU: torch.Tensor,
        given_NMLU: torch.Tensor,
    ) -> None:
        """Write a layer's weights into networks; see `Folding.put`."""
        found = {"weight_NUI": weight_NUI, "bias_NU": bias_NU}
        self._folds[number].put(weights_ND, **found, given_NMLU=given_NMLU)

    def run(self, visit: Visit) -> None:
        """Compute networks on the inputs, what each layer gives as `visit` says."""
        asked = 0

        def say(number: int, hidden_BX: torch.Tensor) -> torch.Tensor:
            nonlocal asked
            assert number == asked, "layers come in the order of the wiring"
            asked += 1
            given_BUL = visit(number, hidden_BX).flatten(0, 1).transpose(1, 2)
            given = given_BUL.reshape(*given_BUL.shape[:2], *self._maps[number])
            return given.clone() if self._copies else given

        try:
            for stand in self._stands:
                stand.say = say
            self._network(self.inputs_MX)
        finally:
            for stand in self._stands:
                stand.say = None

    def walk(self, weights_ND: torch.Tensor, note: Callable[[int, Step], None]) -> None:
        """Compute networks on the inputs, and tell `note` of each layer; the last gives logits."""

        def visit(number: int, hidden_BX: torch.Tensor) -> torch.Tensor:
            taken_NMLI = self.taken(number, hidden_BX)
            given_NMLU = self.give(taken_NMLI, **self.weights(number, weights_ND))
            note(number, Step(hidden_BX, given_NMLU))
            return given_NMLU

        self.run(visit)

    def is_constant(self, number: int, hidden_BX: torch.Tensor) -> torch.Tensor:
        """Return which units come into a layer the same whatever the input, bool_NU."""
        units = self.layers[number].units_before
        hidden = hidden_BX.reshape(-1, self.num_inputs, units, hidden_BX[0].numel() // units)
        return (hidden == hidden[:, :1]).all(3).all(1)

    def choose_places(self, number: int, places: int, *, seed: int) -> torch.Tensor:
        """Return where a layer is read, int64_P, among the places of all inputs: some of each."""
        count = self.num_places(number)
        generator = torch_stream(seed, "places", number)
        keys = torch.rand(self.num_inputs, count, generator=generator)
        chosen = keys.argsort(1)[:, :places].sort(1).values
        return (chosen + count * torch.arange(self.num_inputs)[:, None]).flatten()


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def read(values_NMLC: torch.Tensor, rows_P: torch.Tensor) -> torch.Tensor:
    """Return values at the places where a layer is read, [N, P, C]."""
    values = values_NMLC.flatten(1, 2)
    return values if len(rows_P) == values.shape[1] else values[:, rows_P]
