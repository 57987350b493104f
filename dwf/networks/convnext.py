"""ConvNeXt: torchvision's blocks, in any number of stages and any width.

Source: Liu et al., A ConvNet for the 2020s, CVPR 2022 (arXiv 2201.03545), section 3.
"""

from torch import nn
from torchvision.models import convnext

from dwf.networks.config import ConvNeXtConfig


class ConvNeXt(convnext.ConvNeXt):
    """torchvision's ConvNeXt with its names of tensors and its initialisation."""

    def __init__(self, config: ConvNeXtConfig):
        stages = zip(config.widths, (*config.widths[1:], None), config.depths, strict=True)
        settings = [convnext.CNBlockConfig(*stage) for stage in stages]
        super().__init__(settings, layer_scale=config.layer_scale, num_classes=config.classes)
        stem = nn.Conv2d(config.channels, config.widths[0], config.patch, config.patch)
        nn.init.trunc_normal_(stem.weight, std=0.02)
        nn.init.zeros_(stem.bias)
        self.features[0][0] = stem
