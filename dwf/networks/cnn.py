"""Convolutional networks: convolutions, then linear layers.

Shape suffixes: B images of a batch, K classes.
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import max_pool2d

from dwf.networks.activations import ACTIVATIONS
from dwf.networks.config import CNNConfig


class CNN(nn.Module):
    """Convolutions `convs.0`, ..., with `norms.0`, ... if asked for, and `linears.0`, ...

    Covers the zoos of Unterthiner et al. (arXiv 2002.11448), SANE (arXiv 2406.09997) and others.
    """

    def __init__(self, config: CNNConfig):
        super().__init__()
        options = map(config.per_layer, ("kernels", "strides", "paddings", "groups"))
        pairs = pairwise((config.input[0], *config.channels))
        self.convs = nn.ModuleList(
            nn.Conv2d(fan_in, fan_out, kernel, stride, padding, groups=groups, bias=config.bias)
            for (fan_in, fan_out), kernel, stride, padding, groups in zip(
                pairs, *options, strict=True
            )
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(channels) for channels in config.channels if config.norm == "batch"
        )
        height, width = config.map_size()
        pixels = 1 if config.head == "average" else height * width
        widths = (config.channels[-1] * pixels, *config.hidden, config.classes)
        self.linears = nn.ModuleList(
            nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise(widths)
        )
        self.drops_maps = config.dropout_behind == "all"
        drops = self.drops_maps or config.hidden
        self.dropout = nn.Dropout(config.dropout) if drops else nn.Identity()
        self.activation = ACTIVATIONS[config.activation]
        self.pools = config.per_layer("pools")
        self.pool_first, self.average = config.pool_first, config.head == "average"

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits_BK of images [B, channels, height, width]."""
        hidden = images
        for number, layer in enumerate((*self.convs, *self.linears[:-1])):
            hidden = self._pass_on(number, layer(hidden))
        return self.linears[-1](hidden)

    def _pass_on(self, layer: int, given: torch.Tensor) -> torch.Tensor:
        """Return what the next layer takes in, of what a layer gives before its norm."""
        if layer >= len(self.convs):
            return self.dropout(self.activation(given))
        hidden = self.norms[layer](given) if self.norms else given
        pool = self.pools[layer]
        if pool and self.pool_first:
            hidden = self.activation(max_pool2d(hidden, pool))
        else:
            hidden = self.activation(hidden)
            hidden = max_pool2d(hidden, pool) if pool else hidden
        hidden = self.dropout(hidden) if self.drops_maps else hidden
        if layer < len(self.convs) - 1:
            return hidden
        return hidden.mean((2, 3)) if self.average else hidden.flatten(1)
