"""Baselines: what anyone gets from the training networks without learning a generator.

All have one form, a mixture of training networks plus noise on each weight:

    weights_SD = mixture_SN @ training_ND + noise * deviation_D * normal_SD

Seeded network by network, so that a network does not depend on how many are drawn with it.

BatchNorm's running statistics are not mixed: the D numbers of a network here are those that are
learnt.

Shape suffixes: N training networks, T of one block of them; S networks drawn, B of one block;
D numbers of one network.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from dwf.evaluation.config import EvaluateConfig
from dwf.evaluation.measure.novelty import FEWEST_ROWS, Blocks
from dwf.randomness import numpy_stream

_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Baseline:
    """A way to make networks, decided but not yet carried out."""

    title: str
    mixture_SN: np.ndarray
    """Share of each training network in each network, float64."""
    noise: float = 0.0
    """Noise on each weight, in its standard deviations over the training networks."""


@dataclass(frozen=True)
class Drawn:
    """The networks of a baseline as blocks (see `novelty`), made while they are read."""

    baseline: Baseline
    training: Blocks
    deviation_D: np.ndarray
    """Standard deviation of each weight over the training networks."""
    seed: int

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        num = len(self.baseline.mixture_SN)
        step = max(FEWEST_ROWS, _BLOCK_BYTES // (8 * len(self.deviation_D)))
        for start in range(0, num, step):
            positions_B = np.arange(start, min(start + step, num))
            yield positions_B, self._block(positions_B)

    def _block(self, positions_B: np.ndarray) -> np.ndarray:
        mixture_BN = self.baseline.mixture_SN[positions_B]
        weights_BD = np.zeros((len(positions_B), len(self.deviation_D)))
        for positions_T, training_TD in self.training:
            mixture_BT = mixture_BN[:, positions_T]
            if mixture_BT.any():
                weights_BD += mixture_BT @ training_TD.astype(np.float64)
        if self.baseline.noise:
            for row_D, position in zip(weights_BD, positions_B, strict=True):
                stream = numpy_stream(self.seed, self.baseline.title, "noise", int(position))
                normal_D = stream.standard_normal(len(row_D))
                row_D += self.baseline.noise * self.deviation_D * normal_D
        return weights_BD.astype(np.float32)


def noise_around(config: EvaluateConfig, num_training: int) -> list[Baseline]:
    """A random training network plus noise, at each scale."""
    found = []
    for scale in config.noise:
        title = f"a network + noise of {scale:g} std"
        picked_S = numpy_stream(config.seed, title).integers(num_training, size=config.count)
        mixture_SN = np.zeros((config.count, num_training))
        mixture_SN[np.arange(config.count), picked_S] = 1
        found.append(Baseline(title, mixture_SN, noise=scale))
    return found


def average_of(config: EvaluateConfig, num_training: int) -> list[Baseline]:
    """The average of k random training networks, for each k that they suffice for."""
    found = []
    for k in config.averages:
        if k == "all":
            everyone_1N = np.full((1, num_training), 1 / num_training)
            found.append(Baseline(f"average of all {num_training}", everyone_1N))
        elif k <= num_training:
            title = f"average of {k}"
            stream = numpy_stream(config.seed, title)
            mixture_SN = np.zeros((config.count, num_training))
            for row_N in mixture_SN:
                row_N[stream.choice(num_training, k, replace=False)] = 1 / k
            found.append(Baseline(title, mixture_SN))
    return found


def interpolation_of(config: EvaluateConfig, num_training: int) -> list[Baseline]:
    """Two random training networks, interpolated at a random place of the line between them."""
    title = "interpolation of two"
    stream = numpy_stream(config.seed, title)
    mixture_SN = np.zeros((config.count, num_training))
    for row_N in mixture_SN:
        place = stream.uniform()
        row_N[stream.choice(num_training, 2, replace=False)] = place, 1 - place
    return [Baseline(title, mixture_SN)]


def per_weight_gaussian(config: EvaluateConfig, num_training: int) -> list[Baseline]:
    """Each weight drawn by itself, with its mean and standard deviation."""
    mean_SN = np.full((config.count, num_training), 1 / num_training)
    return [Baseline("per-weight Gaussian", mean_SN, noise=1.0)]


def pca_gaussian(config: EvaluateConfig, num_training: int) -> list[Baseline]:
    """Each PCA code drawn by itself, in all N - 1 components.

    With centred networks X = sqrt(N - 1) U diag(std) V, the codes have covariance diag(std^2),
    so a sample is mean + (std * normal) V = mean + normal U^T X / sqrt(N - 1). U^T only rotates
    the normal numbers: neither U nor the components need to be known.
    """
    stream = numpy_stream(config.seed, "PCA + Gaussian")
    normal_SN = stream.standard_normal((config.count, num_training))
    centred_SN = normal_SN - normal_SN.mean(1, keepdims=True)
    mixture_SN = 1 / num_training + centred_SN / np.sqrt(max(num_training - 1, 1))
    return [Baseline("PCA + Gaussian", mixture_SN)]


Draw = Callable[[EvaluateConfig, int], list[Baseline]]
"""Returns baselines, given how many training networks there are."""


@dataclass(frozen=True)
class Family:
    """Baselines that a reader sees as one kind, and how figures show them."""

    label: str
    colour: str
    marker: str
    draws: tuple[Draw, ...] = ()
    """Functions that make them; empty where a report makes them of its samples."""
    is_far: bool = False
    """Whether it is held against networks at any distance: no marks without it."""
    is_disguised: bool = False
    """Whether its networks hide how near they are by weights: no set is held against that."""
    is_compared: bool = False
    """Whether it is scored with other running statistics of BatchNorm, too."""


FAMILIES = {
    "noise": Family("noise around a network", "#56B4E9", marker="v", draws=(noise_around,)),
    "average": Family(
        "average of k networks", "#009E73", marker="s", draws=(average_of,), is_compared=True
    ),
    "interpolation": Family(
        "interpolation of two", "#882255", marker="<", draws=(interpolation_of,)
    ),
    "gaussian": Family(
        "Gaussians", "#CC79A7", marker="D", draws=(per_weight_gaussian, pca_gaussian), is_far=True
    ),
    "parts": Family("parts and copies of networks", "#009E73", marker="P", is_disguised=True),
    "nearest": Family("nearest originals", "#7A5FC0", marker="x"),
    "retrieval": Family("originals nearest to what was asked for", "#555555", marker="+"),
}
"""The baselines of every report, in order: a new one is a function and its name here.

`parts`: the null arms of `recombined`. `nearest`: for each zoo of samples the training networks
that are nearest to them. `retrieval`: for each that was drawn on conditions those that are nearest
to what was asked for.
"""
