"""Small networks with convolutions, dropout and BatchNorm on few small images, for tests."""

from pathlib import Path

import numpy as np
import torch

from dwf.datasets.config import DataConfig
from dwf.datasets.dataset import Dataset, Part
from dwf.networks.config import CNNConfig
from dwf.zoo.cohorts.cohort import Cohort
from dwf.zoo.cohorts.program import Method
from dwf.zoo.config import RecipeConfig, ZooConfig

PLAIN = CNNConfig((4, 5), (3, 8, 8), paddings=1, pools=2, hidden=(6,), classes=3)
NORMED = CNNConfig((4, 5), (3, 8, 8), paddings=1, pools=2, norm="batch", hidden=(6,), classes=3)
DROPPED = CNNConfig(
    (4, 5), (3, 8, 8), paddings=1, pools=2, norm="batch", hidden=(6,), classes=3, dropout=0.3
)


def images(num: int = 100) -> Dataset:
    """Three kinds of colourful noise, 3 x 8 x 8."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (num,), generator=rng)
    centres = torch.randint(60, 190, (3, 3, 8, 8), generator=rng)
    noise = torch.randint(-60, 60, (num, 3, 8, 8), generator=rng)
    stored = (centres[labels] + noise).to(torch.uint8)
    index = torch.arange(num)
    cut = [Part(stored, labels, index=index[i:j]) for i, j in ((0, 60), (60, 80), (80, num))]
    return Dataset(*cut, 3, torch.tensor(1 / 255), torch.tensor(-0.5))


def config(network=NORMED, **changes) -> ZooConfig:
    """A zoo of such networks; a recipe of two epochs of four steps unless given."""
    recipe = changes.pop("recipe", RecipeConfig(epochs=2, batch_size=16, learning_rate=0.01))
    given = {"network": network, "data": DataConfig("cifar10"), "count": 4, "recipe": recipe}
    return ZooConfig(**(given | changes))


def trained(zoo: ZooConfig, networks: range, folder: Path, **method) -> Cohort:
    """Train a cohort on `images()`."""
    cohort = Cohort(
        zoo, networks, data=images(), folder=folder, method=Method(len(networks), **method)
    )
    cohort.train()
    return cohort


def weights_of(cohort: Cohort, epoch: int) -> np.ndarray:
    """The rows of an epoch, weights_ND."""
    return np.load(cohort.snapshot_path(epoch))["weights"]
