"""Scores of drawn networks on validation images; test images are never read.

Shape suffixes: B networks of a block, D numbers of a network.
"""

import numpy as np
import torch

from dwf.devices import find_device
from dwf.errors import ConfigError
from dwf.generators.batchnorm import has_statistics, recalibration
from dwf.networks.functional import Scores, score_networks
from dwf.training.loop import SAMPLE_ACCURACY
from dwf.zoo.facts import Subject
from dwf.zoo.layout import Layout


class Examiner:
    """Scores networks on validation images, with BatchNorm re-estimated for each.

    Args:
        subject: the networks' architecture and data.
        layout: their layout.
        batchnorm_images: on how many training images BatchNorm is re-estimated.
        wanted_by: what needs the scores, for an error: its words go before "validation images".

    Raises:
        ConfigError: no validation images are held out.
    """

    def __init__(self, subject: Subject, layout: Layout, *, batchnorm_images: int, wanted_by: str):
        self.layout, self.device = layout, find_device("auto").type
        self.network = subject.build_network().to(self.device)
        self.data = subject.load_data()
        if not len(self.data.val):
            raise ConfigError(
                f"{wanted_by} validation images, and the zoo holds none out (data.validation = 0): "
                "go on without, or train a zoo with data.validation above 0"
            )
        self.recalibrate = None
        if has_statistics(layout):
            self.recalibrate = recalibration(
                batchnorm_images, layout, network=self.network, data=self.data
            )

    def score(self, weights_BD: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return (accuracy_B, loss_B), float64; see `score_networks`."""
        scores = self.scores(weights_BD)
        return scores.accuracy_N, scores.loss_N

    def scores(self, weights_BD: torch.Tensor, *, keep_answers: bool = False) -> Scores:
        """Return all that `score_networks` finds, with the answers if they are asked for."""
        if self.recalibrate is not None:
            weights_BD = self.recalibrate(weights_BD)
        return score_networks(
            self.network,
            self.layout.unflatten(weights_BD),
            data=self.data,
            part=self.data.val,
            device=self.device,
            keep_answers=keep_answers,
        )

    def summary(self, weights_BD: torch.Tensor) -> dict[str, float]:
        """Return mean and deviation of the accuracies of networks drawn in training.

        Networks that are not finite, as an unfinished density may draw, count as 0 right answers.
        Running variances below zero are no harm, since all are re-estimated.
        """
        accuracy_B = np.zeros(len(weights_BD))
        usable_B = weights_BD.isfinite().all(1)
        if usable_B.any():
            accuracy_B[usable_B.numpy()] = self.score(weights_BD[usable_B])[0]
        mean, std = float(accuracy_B.mean()), float(accuracy_B.std())
        return {SAMPLE_ACCURACY: mean, f"{SAMPLE_ACCURACY}_std": std}
