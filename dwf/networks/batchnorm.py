"""BatchNorm's running statistics of N networks, re-estimated on training images.

A generated, averaged or reordered network has weights its stored statistics were not measured
with. They are measured anew as `torch.optim.swa_utils.update_bn` does: a pass over images in
training mode whose batches' means and variances are averaged (Izmailov et al., Averaging weights,
UAI 2018, section 3.2).

Shape suffixes: N networks, B images of a batch.
"""

import copy
from collections.abc import Mapping

import torch
from torch import nn

from dwf.datasets.dataset import Dataset
from dwf.errors import ConfigError
from dwf.networks.checks import check_state
from dwf.networks.functional import batchnorm_buffers, batchnorm_layers, portion, run_networks
from dwf.randomness import torch_stream


def fresh_statistics(
    network: nn.Module, state: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the state with running means 0 and variances 1; other tensors are the same objects.

    Args:
        network: the architecture.
        state: name -> tensor of shape [N, *shape], with or without running statistics.
    """
    first = next(iter(state.values()))
    fresh = dict(state)
    for name, layer in batchnorm_layers(network).items():
        prefix = f"{name}." if name else ""
        shape = (len(first), layer.num_features)
        fresh[f"{prefix}running_mean"] = first.new_zeros(shape)
        fresh[f"{prefix}running_var"] = first.new_ones(shape)
    return fresh


@torch.no_grad()
def recalibrate(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    *,
    data: Dataset,
    num_images: int,
    device: str = "cpu",
    batch: int = 250,
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """Return the state with running statistics measured on training images.

    All networks see the same images, the first `num_images` of a seeded order, in batches of
    equal size to within one. Dropout is off. Batched over networks on a GPU.

    Args:
        network: the architecture, on `device`.
        state: name -> tensor of shape [N, *shape], with or without running statistics.
        data: prepares the images as the zoo's recipe says.
        num_images: of `data.train`, at least 2.
        device: where to compute; the result lies where `state` does.
        batch: images of a batch, at most; fewer where memory asks for it on a GPU.
        seed: of the order of the images.

    Raises:
        ConfigError: a network without BatchNorm, fewer than 2 images or more than there are.
        ShapeMismatch: the state is not of this network.
    """
    if not batchnorm_layers(network):
        raise ConfigError(
            f"{type(network).__name__} has no BatchNorm, so no statistics to re-estimate: "
            "leave its statistics as they are (`none`)"
        )
    if not 2 <= num_images <= len(data.train):
        raise ConfigError(
            f"re-estimating BatchNorm on {num_images} images: expected at least 2, as one has no "
            f"variance, and at most the {len(data.train)} training images"
        )
    fresh = fresh_statistics(network, state)
    check_state(network, fresh)
    scratch = copy.deepcopy(network).eval()
    layers = list(batchnorm_layers(scratch).values())
    for layer in layers:
        layer.train()
    order = torch.randperm(len(data.train), generator=torch_stream(seed, "recalibrate"))
    at_once = portion(network, state, shape=data.shape, device=device)
    batch = batch if device == "cpu" else min(batch, at_once.images)
    batches = order[:num_images].tensor_split(_num_batches(num_images, batch))
    names = batchnorm_buffers(network)
    for first in range(0, len(fresh[names[0]]), at_once.networks):
        rows = slice(first, first + at_once.networks)
        some = {name: tensor[rows].to(device) for name, tensor in fresh.items()}
        for i, positions in enumerate(batches):
            for layer in layers:
                layer.momentum = 1 / (i + 1)  # the average over the batches so far
            images, _ = data.train.batch(positions)
            run_networks(scratch, some, inputs=data.prepare(images.to(device)))
        for name in names:
            fresh[name][rows] = some[name].to(fresh[name].device)
    return fresh


def _num_batches(num_images: int, batch: int) -> int:
    """Batches of at most `batch` images, none with a single one."""
    return max(1, min(-(-num_images // batch), num_images // 2))
