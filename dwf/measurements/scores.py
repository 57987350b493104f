"""Scores of plain images: accuracy and loss, gap, accuracy by class, calibration.

Shape suffixes: N networks, M images, K classes, J bins.
"""

import numpy as np

from dwf.measurements.config import (
    AccuracyConfig,
    CalibrationConfig,
    ClassesConfig,
    GapConfig,
)
from dwf.measurements.folder import Column
from dwf.measurements.measure import Block, Measure
from dwf.measurements.pictures import Pictures
from dwf.zoo.facts import Facts


class Accuracy(Measure):
    """Accuracy and mean cross-entropy."""

    config: AccuracyConfig

    def columns(self, pictures: Pictures, facts: Facts) -> dict[str, Column]:
        """Return `NAME_accuracy` and `NAME_loss`."""
        images = len(pictures.part(self.part, self.config.images))
        return {
            f"{self.prefix}_accuracy": Column(self.name, self.part, images=images, is_share=True),
            f"{self.prefix}_loss": Column(self.name, self.part, images=images),
        }

    def values(self, block: Block) -> dict[str, np.ndarray]:
        """Return accuracy and loss in nats."""
        found = block.answers(self.part, self.config.images)
        return {f"{self.prefix}_accuracy": found.accuracy_N, f"{self.prefix}_loss": found.loss_N}


class Gap(Measure):
    """Generalisation gap."""

    config: GapConfig

    def columns(self, pictures: Pictures, facts: Facts) -> dict[str, Column]:
        """Return `NAME`, whose images are those that networks did not learn from."""
        pictures.part("train", self.config.train_images)
        images = len(pictures.part(self.part, self.config.images))
        return {self.prefix: Column(self.name, self.part, images=images)}

    def values(self, block: Block) -> dict[str, np.ndarray]:
        """Return accuracy on training images minus that on the others."""
        learnt = block.answers("train", self.config.train_images).accuracy_N
        new = block.answers(self.part, self.config.images).accuracy_N
        return {self.prefix: learnt - new}


class Classes(Measure):
    """Accuracy by class."""

    config: ClassesConfig

    def columns(self, pictures: Pictures, facts: Facts) -> dict[str, Column]:
        """Return `NAME_0_accuracy`, `NAME_1_accuracy`, ..., each with its class's images."""
        counts_K = np.bincount(self._labels(pictures), minlength=pictures.data.num_classes)
        return {
            self._column(k): Column(self.name, self.part, images=int(count), is_share=True)
            for k, count in enumerate(counts_K)
        }

    def values(self, block: Block) -> dict[str, np.ndarray]:
        """Return accuracy on the images of each class; NaN of a class without images."""
        right_NM = block.answers(self.part, self.config.images).right_NM
        labels_M, num = self._labels(block.pictures), block.pictures.data.num_classes
        nothing_N = np.full(len(right_NM), np.nan)
        return {
            self._column(k): right_NM[:, labels_M == k].mean(1)
            if (labels_M == k).any()
            else nothing_N
            for k in range(num)
        }

    def _labels(self, pictures: Pictures) -> np.ndarray:
        part = pictures.part(self.part, self.config.images)
        return part.labels[part.index].numpy()

    def _column(self, k: int) -> str:
        return f"{self.prefix}_{k}_accuracy"


class Calibration(Measure):
    """Expected calibration error."""

    config: CalibrationConfig

    def columns(self, pictures: Pictures, facts: Facts) -> dict[str, Column]:
        """Return `NAME_error`."""
        images = len(pictures.part(self.part, self.config.images))
        return {f"{self.prefix}_error": Column(self.name, self.part, images=images)}

    def values(self, block: Block) -> dict[str, np.ndarray]:
        """Return the error of each network."""
        found = block.answers(self.part, self.config.images)
        error_N = calibration_error(found.right_NM, found.confidence_NM, bins=self.config.bins)
        return {f"{self.prefix}_error": error_N}


def calibration_error(
    right_NM: np.ndarray, confidence_NM: np.ndarray, *, bins: int = 15
) -> np.ndarray:
    """Return the expected calibration error of N networks, float64_N.

    The mean over images of |accuracy - mean confidence| in the image's bin; bins of equal width,
    each with its upper edge. Source: Guo et al. 2017 (arXiv 1706.04599), Eq. 3.

    Args:
        right_NM: which images each network gets right, bool.
        confidence_NM: probability of the class that it answers.
        bins: J.
    """
    num, num_images = right_NM.shape
    bin_NM = np.clip(np.ceil(confidence_NM.astype(np.float64) * bins).astype(int) - 1, 0, bins - 1)
    place_NM = bin_NM + bins * np.arange(num)[:, None]
    surplus_NM = right_NM - confidence_NM.astype(np.float64)
    sums = np.bincount(place_NM.ravel(), surplus_NM.ravel(), minlength=num * bins)
    return np.abs(sums.reshape(num, bins)).sum(1) / num_images
