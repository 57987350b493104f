"""Behaviour: what a network answers, whatever the order and scale of its units.

Shape suffixes: N networks, M images, C classes, F = M C numbers of a network's behaviour.
"""

import torch

from dwf.datasets.dataset import Dataset
from dwf.randomness import numpy_stream

MOST_IMAGES = 1000
"""Images on which behaviour is compared, at most: on more it says hardly anything else."""
FEWEST_IMAGES = 32
_BYTES = 512 * 2**20  # of all training networks' behaviour, which is kept


def behaviour(logits_NMC: torch.Tensor) -> torch.Tensor:
    """Return what networks answer, up to a shift of each image's logits and the scale of all.

    The mean over the classes is taken away from each image's logits, and the whole vector has norm
    1. So two networks' distance is 0 where one's logits are the other's, shifted image by image
    and scaled; it is 1.41 where they have nothing to do with each other.

    Args:
        logits_NMC: any floating type.

    Returns:
        float32_NF; 0 for a network that tells no classes apart, NaN for one whose logits are not
        finite.
    """
    logits_NMC = logits_NMC.double()
    flat_NF = (logits_NMC - logits_NMC.mean(2, keepdim=True)).flatten(1)
    norm_N1 = torch.linalg.vector_norm(flat_NF, dim=1, keepdim=True)
    # Where all logits are alike, what the mean leaves is rounding.
    alike_N1 = norm_N1 <= 1e-12 * torch.linalg.vector_norm(logits_NMC.flatten(1), dim=1)[:, None]
    return torch.where(alike_N1, torch.zeros(()), flat_NF / norm_N1).float()


def behaviour_images(data: Dataset, *, num_networks: int) -> torch.Tensor:
    """Return the prepared images on which networks are compared, [M, *shape].

    These are validation images, or training images where a zoo has none of validation; a random
    thousand where there are more, fewer where the behaviour of all networks would not fit 512 MiB.

    Args:
        data: of the zoo.
        num_networks: how many networks' behaviour is kept.
    """
    part = data.val if len(data.val) else data.train
    fitting = _BYTES // (4 * data.num_classes * max(num_networks, 1))
    count = min(len(part), MOST_IMAGES, max(FEWEST_IMAGES, fitting))
    chosen = numpy_stream(0, "behaviour images").permutation(len(part))[:count]
    images, _ = part.batch(torch.from_numpy(chosen).sort().values)
    return data.prepare(images)
