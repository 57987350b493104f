"""VGG networks: torchvision's features in any width, with a head for small images.

Source: Simonyan & Zisserman, Very deep convolutional networks, ICLR 2015 (arXiv 1409.1556).
"""

from itertools import pairwise

from torch import nn
from torchvision.models import vgg

from dwf.networks.config import VGGConfig

_STAGES = {11: "A", 13: "B", 16: "D", 19: "E"}
_PUBLISHED_WIDTH = 64


class VGG(vgg.VGG):
    """torchvision's VGG with its names of tensors and its initialisation."""

    def __init__(self, config: VGGConfig):
        nn.Module.__init__(self)  # torchvision's would first draw 120 million weights of a head
        stages = [
            step if step == "M" else step * config.width // _PUBLISHED_WIDTH
            for step in vgg.cfgs[_STAGES[config.depth]]
        ]
        self.features = vgg.make_layers(stages, batch_norm=config.norm == "batch")
        self.features[0] = nn.Conv2d(config.channels, config.width, 3, padding=1)
        self.avgpool = nn.AdaptiveAvgPool2d((config.pooled, config.pooled))
        widths = (8 * config.width * config.pooled**2, *config.hidden, config.classes)
        layers: list[nn.Module] = [nn.Linear(widths[0], widths[1])]
        for fan_in, fan_out in pairwise(widths[1:]):
            layers += [nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(fan_in, fan_out)]
        self.classifier = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)
