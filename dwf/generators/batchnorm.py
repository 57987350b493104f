"""Running statistics of BatchNorm in networks that were drawn, not trained.

A codec leaves them to its template unless told otherwise: the mean over the training networks,
which fits none of the drawn ones. They can be re-estimated on training images before the networks
are written; an evaluation does so in any case.

Shape suffixes: B networks of a block, D numbers of a network.
"""

from collections.abc import Callable

import torch
from torch import nn

from dwf.datasets.dataset import Dataset
from dwf.devices import find_device
from dwf.errors import ConfigError
from dwf.generators.config import SampleConfig
from dwf.networks.batchnorm import recalibrate
from dwf.zoo.layout import Layout, Span


def has_statistics(layout: Layout) -> bool:
    """Whether a network's numbers include BatchNorm's running statistics."""
    return any(e.role == "buffer" and e.name.endswith("running_var") for e in layout.entries)


def source_of_statistics(config: SampleConfig, layout: Layout, *, spans: list[Span]) -> str:
    """Return what the column `batchnorm` of a zoo of samples says.

    Args:
        config: what was asked for.
        layout: of the networks.
        spans: the stretches of a row that are drawn.

    Returns:
        `none` (no BatchNorm), `template` (the training networks' mean), `generated` (the codec
        covers them, so they were drawn with the weights) or `recalibrated`.

    Raises:
        ConfigError: statistics are to be re-estimated where there are none.
    """
    if not has_statistics(layout):
        if config.batchnorm == "recalibrated":
            raise ConfigError(
                f"batchnorm = 'recalibrated': the networks of {config.generator} have no running "
                "statistics of BatchNorm; leave out --batchnorm"
            )
        return "none"
    if config.batchnorm == "recalibrated":
        return "recalibrated"
    buffers = (entry for entry in layout.entries if entry.role == "buffer")
    if all(any(a <= e.offset and e.stop <= b for a, b in spans) for e in buffers):
        return "generated"
    # Of a new architecture the template has the values of a network that never saw an image.
    return "template" if config.network is None else "recalibrated"


def has_negative_variance(layout: Layout, weights_BD: torch.Tensor) -> torch.Tensor:
    """Return which networks have a running variance below zero, bool_B."""
    negative_B = torch.zeros(len(weights_BD), dtype=torch.bool)
    for entry in layout.entries:
        if entry.role == "buffer" and entry.name.endswith("running_var"):
            negative_B |= (weights_BD[:, entry.offset : entry.stop] < 0).any(1)
    return negative_B


def recalibration(
    num_images: int, layout: Layout, *, network: nn.Module, data: Dataset
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that gives networks statistics of their own: weights_BD -> weights_BD.

    Args:
        num_images: on how many training images; on all, where there are fewer.
        layout: the networks' layout.
        network: their architecture.
        data: whose training images.
    """
    device = find_device("auto").type
    network = network.to(device)
    num_images = min(num_images, len(data.train))

    def recalibrated(weights_BD: torch.Tensor) -> torch.Tensor:
        state = layout.unflatten(weights_BD.to(device))
        return layout.flatten(
            recalibrate(network, state, data=data, num_images=num_images, device=device)
        ).cpu()

    return recalibrated
