"""N networks that are chains of layers, computed layer by layer on the same inputs.

What a layer takes in is kept as [N, M, L, I]: M inputs, L places of each (1 of a linear layer, the
pixels of its map of a convolution), I what a unit weighs there, in the order of its row of weights.
What it gives is [N, M, L, U]. Where all networks take in the same, as the first layer does, N is 1.

Shape suffixes: N networks, M inputs, L places, I weights of a unit, U units, P read places of all
inputs, B: N networks of M inputs, one after the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from dwf.codecs.functions.folding import Folding, refuse_unfoldable
from dwf.codecs.neurons import NeuronLayer, read_layers
from dwf.errors import ConfigError
from dwf.networks.architecture import Architecture
from dwf.networks.functional import build_network
from dwf.networks.watched import watched
from dwf.randomness import torch_stream
from dwf.zoo.layout import Layout

_INSTEAD = "choose the codec neurons, or one that takes any network (tokens, sane, flat, pca)"
# Bytes of activations that are held at once: a network's largest layer, some copies of it.
_BLOCK_BYTES, _LIVE_TENSORS = 2**27, 4


def refuse_unreadable(network: Architecture, layout: Layout) -> None:
    """Refuse networks whose units cannot be read and solved for layer by layer.

    Raises:
        ConfigError: names the setting or tensor.
    """
    if not network.folded().is_layered:
        raise ConfigError(
            f"{network.named}: codec.kind = 'functions' takes MLPs and CNNs, whose layers follow "
            f"one another, without norms or with BatchNorm; {_INSTEAD}"
        )
    for layer in read_layers(layout):
        refuse_unfoldable(layer, layout, instead=_INSTEAD)


@dataclass(frozen=True)
class Step:
    """Inputs and outputs of a layer, of N networks."""

    taken_NMLI: torch.Tensor
    given_NMLU: torch.Tensor


class Chain:
    """Networks of one architecture on M inputs.

    Args:
        config: the architecture, which `refuse_unreadable` does not refuse.
        layout: of the networks.
        inputs_MX: prepared inputs, [M, *shape].
    """

    def __init__(self, config: Architecture, layout: Layout, *, inputs_MX: torch.Tensor):
        self.layers: tuple[NeuronLayer, ...] = read_layers(layout)
        self.inputs_MX, self.num_inputs = inputs_MX, len(inputs_MX)
        self._network = build_network(config.folded()).eval()
        names = [layer.weight.name.rpartition(".")[0] for layer in self.layers]
        self._modules = [self._network.get_submodule(name) for name in names]
        self._maps = self._map_sizes(names)
        whole = build_network(config)
        self._folds = [Folding.of(each, layout, network=whole) for each in self.layers]

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
        """Return what a layer takes in, [N, M, L, I], of the inputs or of what was passed on."""
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

    def pass_on(self, number: int, given_NMLU: torch.Tensor) -> torch.Tensor:
        """Return what is passed on to the next layer, [B, ...]."""
        given_BUL = given_NMLU.flatten(0, 1).transpose(1, 2)
        given = given_BUL.reshape(*given_BUL.shape[:2], *self._maps[number])
        return self._network.pass_on(number, given)

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
        given_NMLU: torch.Tensor | None = None,
    ) -> None:
        """Write a layer's weights into networks; see `Folding.put`."""
        found = {"weight_NUI": weight_NUI, "bias_NU": bias_NU}
        self._folds[number].put(weights_ND, **found, given_NMLU=given_NMLU)

    def walk(self, weights_ND: torch.Tensor) -> Iterator[Step]:
        """Yield what each layer takes in and gives, the last gives logits."""
        hidden_BX = self.inputs_MX
        for number in range(len(self.layers)):
            taken_NMLI = self.taken(number, hidden_BX)
            step = Step(taken_NMLI, self.give(taken_NMLI, **self.weights(number, weights_ND)))
            yield step
            if number + 1 < len(self.layers):
                hidden_BX = self.pass_on(number, step.given_NMLU)

    def is_constant(self, number: int, step: Step) -> torch.Tensor:
        """Return which units pass the same on whatever the input, bool_NU: they are dead."""
        hidden_BX = self.pass_on(number, step.given_NMLU)
        num, units = len(step.given_NMLU), step.given_NMLU.shape[-1]
        hidden = hidden_BX.reshape(num, self.num_inputs, units, -1)
        return (hidden == hidden[:, :1]).all(3).all(1)

    def choose_places(self, number: int, places: int, *, seed: int) -> torch.Tensor:
        """Return where a layer is read, int64_P, among the places of all inputs: some of each."""
        count = self.num_places(number)
        generator = torch_stream(seed, "places", number)
        keys = torch.rand(self.num_inputs, count, generator=generator)
        chosen = keys.argsort(1)[:, :places].sort(1).values
        return (chosen + count * torch.arange(self.num_inputs)[:, None]).flatten()


def read(values_NMLC: torch.Tensor, rows_P: torch.Tensor) -> torch.Tensor:
    """Return values at the places where a layer is read, [N, P, C]."""
    values = values_NMLC.flatten(1, 2)
    return values if len(rows_P) == values.shape[1] else values[:, rows_P]
