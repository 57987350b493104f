"""MobileNet-V2: torchvision's, in any width and with strides for small images.

Source: Sandler et al., MobileNetV2, CVPR 2018 (arXiv 1801.04381), table 2.
"""

from torch import nn
from torchvision.models import mobilenetv2

from dwf.networks.config import MobileNetV2Config

# Expansion, channels, blocks and stride of each stage; the stride of the second is the stem's.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STEM_CHANNELS, _LAST_CHANNELS = 32, 1280


class MobileNetV2(mobilenetv2.MobileNetV2):
    """torchvision's MobileNetV2 with its names of tensors and its initialisation."""

    def __init__(self, config: MobileNetV2Config):
        small = config.stem == "cifar"
        stages = [list(stage) for stage in _STAGES]
        stages[1][3] = 1 if small else 2
        super().__init__(
            config.classes, config.width, stages, config.divisor, dropout=config.dropout
        )
        stem = self.features[0][0]
        stride = 1 if small else 2
        self.features[0][0] = nn.Conv2d(
            config.channels, stem.out_channels, 3, stride, 1, bias=False
        )
        nn.init.kaiming_normal_(self.features[0][0].weight, mode="fan_out")
