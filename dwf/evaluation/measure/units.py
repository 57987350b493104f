"""Units as what they compute: how near a network's units are to units of training networks.

A unit is what it computes on training images, up to its scale:

    what reads the input   its weights in the eigenbasis of the inputs (pixels, or patches of a
                           filter) weighted by their energy, so that weights on dead inputs count
                           nothing, and its mean, both in deviations of what it computes
    deeper                 its pre-activation without the mean, in the leading principal functions
                           of the training networks' units of that layer, of norm 1

Filters are taken at sampled places. Both say nothing of the order of units, here or a layer before.

Shape suffixes: B networks, M images, P samples (images, or places in them), U units of a layer,
I inputs of a unit, K numbers of a unit's code, L layers, T training networks.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, vmap

from dwf.align.activation import channels_last, sources_of
from dwf.align.groups import Group
from dwf.errors import ConfigError
from dwf.evaluation.measure.neighbours import nearest_rows
from dwf.networks.functional import is_stacked
from dwf.networks.watched import watched
from dwf.zoo.layout import Layout

ENERGY = 0.99
"""Share of the energy that the leading directions of a code hold."""
MOST_NUMBERS = 128
"""Numbers of a unit's code, at most."""
MOST_SAMPLES = 1000
_LOOKED_AT = 8  # images on which it is seen what a layer reads
_LARGEST_MEAN = 10.0  # deviations from 0 at which a unit is always on or always off
_BYTES = 64 * 2**20  # of activations at once


@dataclass(frozen=True)
class UnitLayer:
    """Units of one hidden layer, and where they can be seen."""

    name: str
    """Module whose output they are."""
    start: int
    """Index of the first of them."""
    size: int
    signs: bool
    """Whether their sign can be flipped."""


@dataclass(frozen=True)
class _Basis:
    """Directions in which the units of a layer are coded."""

    directions_XK: torch.Tensor
    """Directions of inputs, times the root of their energy, or of samples, orthonormal."""
    mean_I: torch.Tensor | None = None
    """Mean of the inputs; None for deeper layers."""
    covariance_II: torch.Tensor | None = None


def layers_of(
    network: nn.Module, groups: Sequence[Group], *, images_MX: torch.Tensor
) -> tuple[tuple[UnitLayer, ...], tuple[Group, ...]]:
    """Return the layers whose units can be seen, and the groups whose units cannot.

    Args:
        network: the architecture.
        groups: its groups: hidden units and filters can be seen; residual streams, heads, blocks
            and what lies within these cannot, nor can units of modules that never run.
        images_MX: prepared images; a few are looked at.
    """
    layers, others, ran = [], [], _outputs_of(network, images_MX)
    for group in groups:
        try:
            found = sources_of(network, [group])[0] if group.is_hidden else []
            sources = [(name, start) for name, start in found if name in ran]
        except ConfigError:
            sources = []
        if sources:
            name, start = sources[0]
            layers.append(UnitLayer(name, start, size=group.size, signs=group.signs))
        else:
            others.append(group)
    return tuple(layers), tuple(others)


class UnitReader:
    """Codes of networks' units.

    Args:
        network: the architecture, in evaluation mode; its weights take no part.
        layout: of the rows.
        layers: see `layers_of`.
        images_MX: prepared training images.
        some_BD: training networks whose units give the principal functions, float32.
    """

    def __init__(
        self,
        network: nn.Module,
        layout: Layout,
        *,
        layers: Sequence[UnitLayer],
        images_MX: torch.Tensor,
        some_BD: np.ndarray,
    ):
        self.network, self.layout, self.layers = network, layout, tuple(layers)
        self.images_MX = images_MX
        self._modules = dict(network.named_modules())
        inputs = _inputs(network, images_MX)
        self._bases: dict[str, _Basis] = {}
        for layer in layers:
            module = self._modules[layer.name]
            samples_PI = _read_samples(module, inputs.get(layer.name), images_MX)
            if samples_PI is not None and layer.name not in self._bases:
                self._bases[layer.name] = _input_basis(samples_PI)
        self._seen = [layer for layer in layers if layer.name not in self._bases]
        self._functions: list[torch.Tensor] = []
        if self._seen:
            functions = self._centred(some_BD)
            self._functions = [_principal(functions[each].flatten(0, 1)) for each in self._seen]

    @property
    def read_inputs(self) -> tuple[str, ...]:
        """Names of the layers that read the inputs."""
        return tuple(self._bases)

    def split(self, weights_BD: np.ndarray) -> Iterator[np.ndarray]:
        """Yield networks in parts whose activations fit 64 MiB."""
        widest = sum(layer.size for layer in self.layers)
        step = max(1, _BYTES // (4 * MOST_SAMPLES * max(widest, 1)))
        for start in range(0, len(weights_BD), step):
            yield weights_BD[start : start + step]

    def codes(self, weights_BD: np.ndarray) -> list[torch.Tensor]:
        """Return the codes of all units, [B, U, K] float32 for each layer.

        Units of networks whose weights are not finite have codes that are not finite either.
        """
        seen = self._centred(weights_BD)
        principal = dict(zip(self._seen, self._functions, strict=True))
        found = []
        for layer in self.layers:
            if layer in principal:
                found.append(_unit_norm(seen[layer] @ principal[layer]))
            else:
                found.append(self._of_input(weights_BD, layer))
        return found

    def _of_input(self, weights_BD: np.ndarray, layer: UnitLayer) -> torch.Tensor:
        basis = self._bases[layer.name]
        state = self.layout.unflatten(torch.from_numpy(np.ascontiguousarray(weights_BD)))
        part = slice(layer.start, layer.start + layer.size)
        rows_BUI = state[f"{layer.name}.weight"][:, part].flatten(2).double()
        mean_BU = rows_BUI @ basis.mean_I
        bias = state.get(f"{layer.name}.bias")
        if bias is not None:
            mean_BU = mean_BU + bias[:, part].double()
        deviation_BU = ((rows_BUI @ basis.covariance_II) * rows_BUI).sum(2).clamp_min(0).sqrt()
        still_BU = deviation_BU <= 1e-6 * mean_BU.abs()
        scale_BU = torch.where(still_BU, torch.inf, deviation_BU)
        coded_BUK = (rows_BUI @ basis.directions_XK) / scale_BU.unsqueeze(2)
        means_BU = torch.where(
            still_BU, _LARGEST_MEAN * mean_BU.sign(), mean_BU / deviation_BU
        ).clamp(-_LARGEST_MEAN, _LARGEST_MEAN)
        return torch.cat([coded_BUK, means_BU.unsqueeze(2)], 2).float()

    def _centred(self, weights_BD: np.ndarray) -> dict[UnitLayer, torch.Tensor]:
        """Return what the units of deeper layers compute without their mean, [B, U, P] each."""
        outputs, found = self._outputs(weights_BD) if self._seen else {}, {}
        for layer in self._seen:
            part = slice(layer.start, layer.start + layer.size)
            functions_BUP = outputs[layer.name][:, :, part].transpose(1, 2)
            found[layer] = functions_BUP - functions_BUP.mean(2, keepdim=True)
        return found

    @torch.no_grad()
    def _outputs(self, weights_BD: np.ndarray) -> dict[str, torch.Tensor]:
        """Return what the modules of deeper layers give out at the samples, [B, P, C]."""
        state = self.layout.unflatten(torch.from_numpy(np.ascontiguousarray(weights_BD)))
        names = {layer.name for layer in self._seen}
        modules = {name: self._modules[name] for name in names}

        def run(one: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            kept: dict[str, torch.Tensor] = {}

            def keep(name: str, module: nn.Module, _: object, output: torch.Tensor) -> None:
                output = channels_last(module, output)
                samples_PC = output.reshape(-1, output.shape[-1])
                kept.setdefault(name, samples_PC[:: -(-len(samples_PC) // MOST_SAMPLES)])

            with watched(modules, keep):
                functional_call(self.network, one, (self.images_MX,))
            return kept

        if is_stacked(self.network):
            return vmap(run)(dict(state))
        each = [run({n: t[i] for n, t in state.items()}) for i in range(len(weights_BD))]
        return {name: torch.stack([one[name] for one in each]) for name in names}


class UnitDistance:
    """Distances of networks' units to the units of training networks.

    Args:
        reader: codes units.
        blocks: weights of the training networks that units are held against, float32_BD each.
        own_T: a label of each of these networks, int64.
    """

    def __init__(self, reader: UnitReader, blocks: Iterable[np.ndarray], *, own_T: np.ndarray):
        self.reader = reader
        parts = [reader.codes(part_BD) for block_BD in blocks for part_BD in reader.split(block_BD)]
        self._codes = [torch.cat(each).flatten(0, 1) for each in zip(*parts, strict=True)]
        self._own_T = torch.from_numpy(own_T)

    def __call__(self, weights_BD: np.ndarray, own_B: np.ndarray | None = None) -> np.ndarray:
        """Return the median over a layer's units of the distance to the nearest, float64_BL.

        Args:
            weights_BD: float32, whole rows.
            own_B: a label of each network: units of training networks with the same label do not
                count for it.
        """
        found = [self._of_some(part_BD, own) for part_BD, own in self._parts(weights_BD, own_B)]
        return np.concatenate(found)

    def _parts(
        self, weights_BD: np.ndarray, own_B: np.ndarray | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        at = 0
        for part_BD in self.reader.split(weights_BD):
            own = None if own_B is None else own_B[at : at + len(part_BD)]
            yield part_BD, own
            at += len(part_BD)

    def _of_some(self, weights_BD: np.ndarray, own_B: np.ndarray | None) -> np.ndarray:
        medians = np.empty((len(weights_BD), len(self.reader.layers)))
        coded = self.reader.codes(weights_BD)
        for i, (layer, mine_BUK) in enumerate(zip(self.reader.layers, coded, strict=True)):
            of_S = of_T = None
            if own_B is not None:
                of_S = torch.from_numpy(own_B).repeat_interleave(layer.size)
                of_T = self._own_T.repeat_interleave(layer.size)
            distance_S, _ = nearest_rows(
                mine_BUK.flatten(0, 1), self._codes[i], own_S=of_S, of_T=of_T, signs=layer.signs
            )
            medians[:, i] = np.median(distance_S.view(-1, layer.size).numpy(), axis=1)
        return medians


def _outputs_of(network: nn.Module, images_MX: torch.Tensor) -> set[str]:
    """Return the names of modules that run and give out a tensor."""
    ran: set[str] = set()

    def note(name: str, _: nn.Module, __: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            ran.add(name)

    with torch.no_grad(), watched(dict(network.named_modules()), note):
        network(images_MX[:2])
    return ran


def _inputs(network: nn.Module, images_MX: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what each linear layer and convolution takes in, in one run."""
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str, _: nn.Module, given: tuple[torch.Tensor, ...], __: object) -> None:
        kept.setdefault(name, given[0])

    modules = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    }
    with torch.no_grad(), watched(modules, keep):
        network(images_MX[:_LOOKED_AT])
    return kept


def _read_samples(
    module: nn.Module, taken: torch.Tensor | None, images_MX: torch.Tensor
) -> torch.Tensor | None:
    """Return the samples_PI that a module's units weigh, if it reads the network's inputs."""
    first_MX = images_MX[:_LOOKED_AT]
    if isinstance(module, nn.Linear) and taken is not None and taken.dim() == 2:
        flat_MI = first_MX.flatten(1)
        reads = taken.shape == flat_MI.shape and torch.equal(taken, flat_MI)
        return images_MX.flatten(1) if reads else None
    if not isinstance(module, nn.Conv2d) or taken is None or isinstance(module.padding, str):
        return None
    if module.groups > 1 or module.padding_mode != "zeros" or not _equal(taken, first_MX):
        return None
    patches_MIL = nn.functional.unfold(
        images_MX,
        module.kernel_size,
        dilation=module.dilation,
        padding=module.padding,
        stride=module.stride,
    )
    return patches_MIL.transpose(1, 2).flatten(0, 1)


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _input_basis(samples_PI: torch.Tensor) -> _Basis:
    samples_PI = samples_PI.double()
    mean_I = samples_PI.mean(0)
    centred_PI = samples_PI - mean_I
    covariance_II = centred_PI.T @ centred_PI / len(centred_PI)
    energy_I, vectors_II = torch.linalg.eigh(covariance_II)
    num = _leading(energy_I.flip(0))
    energy_K = energy_I.flip(0)[:num].clamp_min(0)
    return _Basis(vectors_II.flip(1)[:, :num] * energy_K.sqrt(), mean_I, covariance_II)


def _principal(functions_FP: torch.Tensor) -> torch.Tensor:
    """Return the leading principal functions [P, K] of units, each of norm 1 whatever its scale."""
    functions_FP = _unit_norm(functions_FP.double())
    functions_FP = functions_FP[functions_FP.isfinite().all(1)]
    energy_P, vectors_PP = torch.linalg.eigh(functions_FP.T @ functions_FP)
    return vectors_PP.flip(1)[:, : _leading(energy_P.flip(0))].float()


def _leading(energy_I: torch.Tensor) -> int:
    """Return how many directions, most energy first, hold most of it."""
    share_I = energy_I.clamp_min(0).cumsum(0) / energy_I.clamp_min(0).sum().clamp_min(1e-300)
    return min(int((share_I < ENERGY).sum()) + 1, MOST_NUMBERS, len(energy_I))


def _unit_norm(vectors: torch.Tensor) -> torch.Tensor:
    """Return vectors of norm 1 along the last axis; those of 0 stay."""
    norm = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return torch.where(norm == 0, vectors, vectors / norm)
