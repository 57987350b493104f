"""Orders by what units do on training images: how they correlate with a reference's, or vary.

Source: Ainsworth et al., Git Re-Basin, ICLR 2023, section 3.1 (arXiv:2209.04836), after Li et al.,
Convergent Learning, ICLR 2016 (arXiv:1511.07543).

Shape suffixes: N networks, D numbers of one network, U units of a group, I samples (images, or
places in them), B images of a batch.
"""

from collections.abc import Sequence

import torch
from torch import nn

from dwf.align.groups import Group, Orders, refuse_not_finite
from dwf.align.matching import assign
from dwf.datasets.dataset import Dataset
from dwf.errors import ConfigError
from dwf.networks.watched import watched
from dwf.randomness import numpy_stream
from dwf.zoo.layout import Layout

# At most so many places of an image (pixels, tokens) are samples.
_MOST_PLACES = 16
_BATCH = 128
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm)
_CHANNELS_FIRST = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_NORMS)
Sources = list[list[tuple[str, int]]]
"""For each group (module whose output has its units, index of the first of them)."""


class Activations:
    """Reads off what the units of each group do on some training images.

    Args:
        network: a network of the architecture; its weights take no part.
        layout: the layout of the rows.
        groups: the groups of the architecture.
        images_BX: prepared inputs.

    Raises:
        ConfigError: a group's units are not all of one module's output, so they cannot be seen.
    """

    def __init__(
        self,
        network: nn.Module,
        layout: Layout,
        *,
        groups: Sequence[Group],
        images_BX: torch.Tensor,
    ):
        self._network, self._layout, self._groups = network, layout, groups
        self._images_BX = images_BX
        self._sources = sources_of(network, groups)
        self._reference: tuple[torch.Tensor, list[list[torch.Tensor]]] | None = None

    def match(self, weights_ND: torch.Tensor, reference_D: torch.Tensor) -> Orders:
        """Return the orders whose units correlate best with the reference's, [N, U] each.

        The correlations over all samples of a group's modules are added up; one assignment for
        each group finds the best order, whatever the other groups' are.
        """
        if self._reference is None or self._reference[0] is not reference_D:
            self._reference = (reference_D, self._standardised(reference_D.float()))
        orders: list[list[torch.Tensor]] = [[] for _ in self._groups]
        for weights_D in weights_ND:
            theirs = self._standardised(weights_D)
            for g, (ours_IU, theirs_IU) in enumerate(zip(self._reference[1], theirs, strict=True)):
                pairs = zip(ours_IU, theirs_IU, strict=True)
                orders[g].append(assign(sum(ours.T @ his for ours, his in pairs)[None])[0])
        return [torch.stack(of_group) for of_group in orders]

    def sort(self, weights_ND: torch.Tensor) -> Orders:
        """Return the orders that sort each group's units by how much they vary, most first."""
        orders: list[list[torch.Tensor]] = [[] for _ in self._groups]
        for weights_D in weights_ND:
            for g, seen in enumerate(self._seen(weights_D)):
                variance_U = sum(seen_IU.double().var(0, correction=0) for seen_IU in seen)
                orders[g].append(variance_U.argsort(descending=True, stable=True))
        return [torch.stack(of_group) for of_group in orders]

    def _standardised(self, weights_D: torch.Tensor) -> list[list[torch.Tensor]]:
        """Return what units do, mean 0, norm 1 over the samples; 0 where a unit never changes."""

        def standardise(seen_IU: torch.Tensor) -> torch.Tensor:
            centred_IU = seen_IU - seen_IU.mean(0)
            return nn.functional.normalize(centred_IU, dim=0)

        return [[standardise(seen_IU) for seen_IU in seen] for seen in self._seen(weights_D)]

    def _seen(self, weights_D: torch.Tensor) -> list[list[torch.Tensor]]:
        """Return what the units of each group do, for each of its modules [I, U].

        Raises:
            ConfigError: the network is not finite, or what a unit does is not.
        """
        refuse_not_finite(weights_D[None])
        outputs: dict[str, list[torch.Tensor]] = {}

        def keep(name: str, module: nn.Module, _: object, output: torch.Tensor) -> None:
            output = channels_last(module, output)
            places_BPC = output.reshape(len(output), -1, output.shape[-1])
            step = -(-places_BPC.shape[1] // _MOST_PLACES)
            outputs.setdefault(name, []).append(places_BPC[:, ::step].flatten(0, 1))

        modules = dict(self._network.named_modules())
        names = {name for sources in self._sources for name, _ in sources}
        state = self._layout.unflatten(weights_D)
        with torch.no_grad(), watched({name: modules[name] for name in names}, keep):
            for images_BX in self._images_BX.split(_BATCH):
                torch.func.functional_call(self._network, state, (images_BX,))
        found = []
        for group, sources in zip(self._groups, self._sources, strict=True):
            seen = [
                torch.cat(outputs[name])[:, start : start + group.size]
                for name, start in sources
                if name in outputs
            ]
            if not seen:
                _refuse(group, "no module that ran gives them out")
            # Sums of squares over the samples have to fit, too.
            if not all(seen_IU.square().sum().isfinite() for seen_IU in seen):
                _refuse(group, "a network's are not finite, or too large, on training images")
            found.append(seen)
        return found


def sources_of(network: nn.Module, groups: Sequence[Group]) -> Sources:
    """Return the modules whose outputs have each group's units as channels; norms if there are.

    Raises:
        ConfigError: a group has none.
    """
    modules = dict(network.named_modules())
    found = []
    for group in groups:
        if group.parent is not None or group.holds_others:
            _refuse(group, "they are parts of a layer's output")
        makers = []
        for member in group.members:
            name, _, leaf = member.name.rpartition(".")
            plain = member.axis == 0 and member.inner == member.outer == 1 and member.rows is None
            plain = plain and member.places is None
            known = isinstance(modules.get(name), (nn.Linear, *_CHANNELS_FIRST))
            if leaf == "weight" and plain and known:
                makers.append((name, member.start))
        norms = [maker for maker in makers if isinstance(modules[maker[0]], _NORMS)]
        if not makers:
            _refuse(group, "no layer has them as its channels")
        found.append(norms or makers)
    return found


def training_images(data: Dataset, count: int, *, seed: int) -> torch.Tensor:
    """Return that many prepared training images, or all there are, drawn with the seed."""
    order = numpy_stream(seed, "activations").permutation(len(data.train))[:count]
    images_BX, _ = data.train.batch(torch.from_numpy(order))
    return data.prepare(images_BX)


def channels_last(module: nn.Module, output: torch.Tensor) -> torch.Tensor:
    """Return a module's output with its channels on the last axis."""
    return output.movedim(1, -1) if isinstance(module, _CHANNELS_FIRST) else output


def _refuse(group: Group, why: str) -> None:
    first = group.members[0]
    raise ConfigError(
        f"the activations of the {group.size} {group.kind} of {first.name}[{first.axis}] cannot be "
        f"seen: {why}; set method to git_rebasin, transfusion, norm_sort or optimal_transport"
    )
