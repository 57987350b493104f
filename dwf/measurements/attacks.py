"""Attacks: accuracy on images that are changed against each network, by Foolbox.

Foolbox attacks one model on a batch. Here that model is N networks at once, and its batch is the
images of all of them, network by network: the loss is a sum over images, so each image's gradient
is that of its own network.

Shape suffixes: N networks, B images of a batch, X pixels of a stored image, K classes.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import nullcontext

import eagerpy
import foolbox
import numpy as np
import torch
from foolbox.attacks import (
    L2ProjectedGradientDescentAttack,
    LinfFastGradientAttack,
    LinfProjectedGradientDescentAttack,
)
from foolbox.attacks.gradient_descent_base import BaseGradientDescent as _Ascent
from torch import nn

from dwf.datasets.dataset import Dataset
from dwf.measurements.config import FgsmConfig, PgdConfig
from dwf.measurements.folder import Column
from dwf.measurements.measure import Block, Measure
from dwf.measurements.pictures import Pictures
from dwf.networks.checks import evaluating
from dwf.networks.few_channels import ImageGradients
from dwf.networks.functional import activation_bytes, is_stacked, portion, run_networks
from dwf.randomness import torch_stream
from dwf.zoo.facts import Facts

_INPUT_BYTES = 8 * 2**20  # of the images of all networks at once: past the cache all is slower
_FEWEST_IMAGES, _MOST_IMAGES = 16, 256


class Crowd(nn.Module):
    """N networks as one model, whose batch is that of all networks, one after the other.

    Args:
        network: the architecture.
        state: name -> tensor of shape [N, *shape].
        data: prepares the images.
        largest: stored value of a pixel that is 1 here.
    """

    def __init__(
        self,
        network: nn.Module,
        state: Mapping[str, torch.Tensor],
        *,
        data: Dataset,
        largest: float,
    ):
        super().__init__()
        self._run, self._state, self._data, self._largest = network, state, data, largest
        self.num = len(next(iter(state.values())))
        self.eval()

    def forward(self, pixels_QX: torch.Tensor) -> torch.Tensor:
        """Return logits [N B, K] of images [N B, *stored shape] from 0 to 1."""
        prepared = self._data.prepare(pixels_QX * self._largest)
        own_NBX = prepared.unflatten(0, (self.num, -1))
        with nullcontext() if prepared.is_cuda else ImageGradients():
            logits_NBK = run_networks(self._run, self._state, inputs=own_NBX, own_inputs=True)
        return logits_NBK.flatten(0, 1)


class Attack(Measure):
    """Accuracy on images that are changed against each network."""

    config: FgsmConfig | PgdConfig

    @abstractmethod
    def _attack(self, pixels_BX: torch.Tensor, num: int, *, generator: torch.Generator) -> _Ascent:
        """Return Foolbox's attack on some images of N networks; the generator is of its chance."""

    def columns(self, pictures: Pictures, facts: Facts) -> dict[str, Column]:
        """Return `NAME_accuracy`."""
        pictures.refuse_table(self.name)
        images = len(pictures.part(self.part, self.config.images))
        return {self._column: Column(self.name, self.part, images=images, is_share=True)}

    def values(self, block: Block) -> dict[str, np.ndarray]:
        """Return the accuracy of each network on its own changed images."""
        right_N = torch.zeros(len(block), dtype=torch.float64)
        num_images = len(block.pictures.part(self.part, self.config.images))
        with evaluating(block.network):
            for rows, changed_NBX, labels_B, crowd in self.attacked(block):
                with torch.no_grad():
                    logits_NBK = crowd(changed_NBX.flatten(0, 1)).unflatten(0, (crowd.num, -1))
                right_NB = (logits_NBK.argmax(2) == labels_B) & logits_NBK.isfinite().all(2)
                right_N[rows] += right_NB.double().sum(1).cpu()
        return {self._column: (right_N / num_images).numpy()}

    def attacked(self, block: Block) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor, Crowd]]:
        """Yield (networks, their changed images [N, B, *stored shape] from 0 to 1, labels, model).

        Batches are cut by the architecture and the block alone.
        """
        pictures, device = block.pictures, block.device
        part = pictures.part(self.part, self.config.images)
        networks, images = _at_once(block)
        for first in range(0, len(block), networks):
            rows = slice(first, min(first + networks, len(block)))
            some = {name: tensor[rows] for name, tensor in block.state.items()}
            crowd = Crowd(block.network, some, data=pictures.data, largest=pictures.largest)
            model = foolbox.PyTorchModel(crowd, bounds=(0, 1), device=device)
            for number, places in enumerate(torch.arange(len(part)).split(images)):
                stored, labels_B = part.batch(places)
                labels_B = labels_B.to(device)
                pixels_BX = (stored.to(device).float() / pictures.largest).clamp(0, 1)
                stream = torch_stream(pictures.seed, "attack", self.prefix, number)
                attack = self._attack(pixels_BX, crowd.num, generator=stream)
                changed_QX = attack.run(
                    model,
                    _for_all(pixels_BX, crowd.num),
                    labels_B.repeat(crowd.num),
                    epsilon=self.config.epsilon,
                )
                yield rows, changed_QX.unflatten(0, (crowd.num, -1)), labels_B, crowd

    @property
    def _column(self) -> str:
        return f"{self.prefix}_accuracy"


class Fgsm(Attack):
    """Fast gradient sign method: Goodfellow et al. 2015 (arXiv 1412.6572), section 4."""

    config: FgsmConfig

    def _attack(self, pixels_BX: torch.Tensor, num: int, *, generator: torch.Generator) -> _Ascent:
        return LinfFastGradientAttack()


class Pgd(Attack):
    """Projected gradient ascent: Madry et al. 2018 (arXiv 1706.06083), section 2.1."""

    config: PgdConfig

    def _attack(self, pixels_BX: torch.Tensor, num: int, *, generator: torch.Generator) -> _Ascent:
        start_BX = STARTS[self.config.norm](pixels_BX.shape, generator)
        return {"linf": _LinfPgd, "l2": _L2Pgd}[self.config.norm](
            rel_stepsize=self.config.step_size,
            steps=self.config.steps,
            random_start=self.config.random_start,
            start_QX=_for_all(start_BX.to(pixels_BX.device), num),
        )


class _FromStart:
    """Mixed into Foolbox's attacks: they begin at given places of the ball of radius 1."""

    def __init__(self, *, start_QX: torch.Tensor, **settings: float):
        super().__init__(**settings)
        self.start_QX = start_QX

    def get_random_start(self, x0: eagerpy.Tensor, epsilon: float) -> eagerpy.Tensor:
        """Return the places; a method of Foolbox's, which draws them from global state."""
        return x0 + epsilon * eagerpy.astensor(self.start_QX)


class _LinfPgd(_FromStart, LinfProjectedGradientDescentAttack):
    pass


class _L2Pgd(_FromStart, L2ProjectedGradientDescentAttack):
    pass


def _in_cube(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    return 2 * torch.rand(shape, generator=generator) - 1


def _in_sphere(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """A direction, and a radius whose power of the dimension is uniform."""
    way_BX = torch.randn(shape, generator=generator).flatten(1)
    radius_B1 = torch.rand(len(way_BX), 1, generator=generator) ** (1 / way_BX.shape[1])
    return (way_BX / way_BX.norm(dim=1, keepdim=True) * radius_B1).view(shape)


STARTS = {"linf": _in_cube, "l2": _in_sphere}
"""Norm -> a uniform draw of a place in its ball of radius 1 for each image."""


def _for_all(images_BX: torch.Tensor, num: int) -> torch.Tensor:
    """Return the images of a batch for each of N networks, one after the other."""
    return images_BX.repeat(num, *[1] * (images_BX.dim() - 1))


def _at_once(block: Block) -> tuple[int, int]:
    """Return how many networks are attacked together, and on how many images."""
    shape, num = block.pictures.data.shape, len(block)
    if is_stacked(block.network):
        images = _INPUT_BYTES // (4 * math.prod(shape) * num)
        return num, max(_FEWEST_IMAGES, min(_MOST_IMAGES, images))
    found = portion(block.network, block.state, shape=shape, device=block.device)
    if block.device == "cpu":
        # They run one by one, and their graphs are held. Yet Foolbox's own work for a batch takes
        # as long as a small network's, so some share it: those whose largest three tensors the
        # cache holds.
        largest = found.images * activation_bytes(block.network, shape)
        return max(1, min(num, _INPUT_BYTES // (3 * largest))), found.images
    return max(1, found.networks // 2), max(1, found.images // 2)  # activations are held
