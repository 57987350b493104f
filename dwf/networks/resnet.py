"""ResNet-18, -34 and -50: torchvision's, in any width and with a stem for small images.

Source: He et al., Deep residual learning, CVPR 2016 (arXiv 1512.03385), table 1.
"""

from torch import nn
from torchvision.models import resnet

from dwf.networks.config import ResNetConfig

_BLOCKS = {
    18: (resnet.BasicBlock, [2, 2, 2, 2]),
    34: (resnet.BasicBlock, [3, 4, 6, 3]),
    50: (resnet.Bottleneck, [3, 4, 6, 3]),
}
_PUBLISHED_WIDTH = 64


class ResNet(resnet.ResNet):
    """torchvision's ResNet with its names of tensors and its initialisation."""

    def __init__(self, config: ResNetConfig):
        self._width = config.width
        block, layers = _BLOCKS[config.depth]
        super().__init__(block, layers, config.classes)
        size = {"kernel_size": 7, "stride": 2, "padding": 3}
        if config.stem == "cifar":
            size = {"kernel_size": 3, "stride": 1, "padding": 1}
            self.maxpool = nn.Identity()
        self.conv1 = nn.Conv2d(config.channels, config.width, bias=False, **size)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.bn1 = nn.BatchNorm2d(config.width)
        self.fc = nn.Linear(8 * config.width * block.expansion, config.classes)

    def _make_layer(
        self, block: type, planes: int, blocks: int, stride: int = 1, dilate: bool = False
    ) -> nn.Sequential:
        if planes == _PUBLISHED_WIDTH:  # the first stage: what the stem hands on
            self.inplanes = self._width
        width = planes * self._width // _PUBLISHED_WIDTH
        return super()._make_layer(block, width, blocks, stride, dilate)
