"""DenseNet: torchvision's, in any size and with a stem for small images.

Source: Huang et al., Densely connected convolutional networks, CVPR 2017 (arXiv 1608.06993).
"""

from torch import nn
from torchvision.models import densenet

from dwf.networks.config import DenseNetConfig


class DenseNet(densenet.DenseNet):
    """torchvision's DenseNet with its names of tensors and its initialisation."""

    def __init__(self, config: DenseNetConfig):
        stem = 2 * config.growth
        super().__init__(config.growth, config.blocks, stem, num_classes=config.classes)
        size = {"kernel_size": 7, "stride": 2, "padding": 3}
        if config.stem == "cifar":
            size = {"kernel_size": 3, "stride": 1, "padding": 1}
            self.features.pool0 = nn.Identity()
        self.features.conv0 = nn.Conv2d(config.channels, stem, bias=False, **size)
        nn.init.kaiming_normal_(self.features.conv0.weight)
