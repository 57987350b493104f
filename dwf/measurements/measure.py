"""Measure: its columns, known before any network is run, and their values for some networks.

Shape suffixes: N networks of a block, M images, K classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from dwf.datasets.dataset import Dataset, Part
from dwf.measurements.config import AnyMeasureConfig, PartName, column_prefix
from dwf.measurements.folder import Column
from dwf.measurements.pictures import Pictures
from dwf.networks.functional import network_logits
from dwf.zoo.facts import Facts

_IMAGES_AT_ONCE = 1000


@dataclass(frozen=True)
class Answers:
    """Answers of N networks to the M images of a part."""

    right_NM: np.ndarray
    """Which images each network gets right, bool; none where its logits are not finite."""
    confidence_NM: np.ndarray
    """Probability of the class that it answers, float32; 0 where its logits are not finite."""
    loss_N: np.ndarray
    """Mean cross-entropy in nats, float64."""

    @property
    def accuracy_N(self) -> np.ndarray:  # noqa: N802  a shape, not a word
        """Share of the images that each network gets right, float64."""
        return self.right_NM.mean(1)


@torch.no_grad()
def answers_to(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    *,
    data: Dataset,
    part: Part,
    device: str = "cpu",
) -> Answers:
    """Return what N networks answer to every image of a part, in evaluation mode.

    Args:
        network: the architecture, on `device`.
        state: name -> tensor of shape [N, *shape], there too.
        data: prepares the images.
        part: images.
        device: where to compute.
    """
    right, confidence, losses = [], [], []
    for places in torch.arange(len(part)).split(_IMAGES_AT_ONCE):
        stored, labels_M = part.batch(places)
        images_MX, labels_M = data.prepare(stored.to(device)), labels_M.to(device)
        logits_NMK = network_logits(network, state, images_MX=images_MX)
        labels_NM = labels_M.expand(len(logits_NMK), -1)
        loss_NM = cross_entropy(logits_NMK.transpose(1, 2), labels_NM, reduction="none")
        best_NM = logits_NMK.softmax(2).max(2).values
        right_NM = (logits_NMK.argmax(2) == labels_NM) & logits_NMK.isfinite().all(2)
        right.append(right_NM.cpu().numpy())
        confidence.append(best_NM.nan_to_num(0.0).cpu().numpy())
        losses.append(loss_NM.double().sum(1).cpu().numpy())
    return Answers(
        np.concatenate(right, 1), np.concatenate(confidence, 1), np.sum(losses, 0) / len(part)
    )


@dataclass(frozen=True)
class Block:
    """Some networks of a zoo, and the images that measures are taken on."""

    facts: Facts
    """Facts of their zoo."""
    network: nn.Module
    """The architecture, on the device."""
    state: Mapping[str, torch.Tensor]
    """Weights: name -> tensor of shape [N, *shape], on the device."""
    pictures: Pictures
    """Images by part and number."""
    device: str = "cpu"
    """Where to compute."""
    _answers: dict[tuple[str, int | None], Answers] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.state.values())))

    def answers(self, part: str, images: int | None) -> Answers:
        """Return what the networks answer to images of a part; run once, whoever asks."""
        if (part, images) not in self._answers:
            self._answers[part, images] = self.answers_to(self.pictures.part(part, images))
        return self._answers[part, images]

    def answers_to(self, part: Part) -> Answers:
        """Return what the networks answer to given images."""
        return answers_to(
            self.network, self.state, data=self.pictures.data, part=part, device=self.device
        )


class Measure(ABC):
    """A measure of networks.

    Args:
        config: its settings.
        name: with which its columns begin, behind `train_` or `test_`.
        part: images that it is taken on; None where no image tells.
    """

    def __init__(self, config: AnyMeasureConfig, name: str, *, part: PartName | None):
        self.config, self.name, self.part = config, name, part
        self.prefix = column_prefix(part, name)

    @abstractmethod
    def columns(self, pictures: Pictures, facts: Facts) -> dict[str, Column]:
        """Return its columns, by name.

        Raises:
            ConfigError: it cannot be taken of these networks or images.
        """

    @abstractmethod
    def values(self, block: Block) -> dict[str, np.ndarray]:
        """Return the numbers of each column, float64_N."""

    def prepare(self, pictures: Pictures) -> dict[str, np.ndarray]:
        """Return arrays that all blocks read, made once; default: none."""
        return {}
