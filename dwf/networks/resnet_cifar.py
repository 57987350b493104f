"""ResNet of 6n+2 layers for small images, its shortcuts convolutions.

Source: He et al., Deep residual learning, CVPR 2016 (arXiv 1512.03385), section 4.2, with their
projection shortcuts (option B) where the shape changes, as in DeepWeightFlow (arXiv 2601.05052).

Shape suffixes: B images of a batch, K classes.
"""

import torch
from torch import nn
from torch.nn.functional import relu

from dwf.networks.config import CifarResNetConfig


class Block(nn.Module):
    """Two 3x3 convolutions with BatchNorm, added to their input."""

    def __init__(self, fan_in: int, width: int, *, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or fan_in != width:
            conv = nn.Conv2d(fan_in, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(width))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the map behind the block, [B, width, height / stride, width / stride]."""
        branch = self.bn2(self.conv2(relu(self.bn1(self.conv1(hidden)))))
        return relu(branch + self.shortcut(hidden))


class CifarResNet(nn.Module):
    """A 3x3 convolution, three stages of n blocks, the average over pixels, a linear layer."""

    def __init__(self, config: CifarResNetConfig):
        super().__init__()
        blocks, width = (config.depth - 2) // 6, config.width
        self.conv1 = nn.Conv2d(config.channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks, 1)
        self.layer2 = _stage(width, 2 * width, blocks, 2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, 2)
        self.linear = nn.Linear(4 * width, config.classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits_BK of images [B, channels, height, width]."""
        hidden = relu(self.bn1(self.conv1(images)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        return self.linear(hidden.mean((2, 3)))


def _stage(fan_in: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = Block(fan_in, width, stride=stride)
    return nn.Sequential(first, *(Block(width, width, stride=1) for _ in range(blocks - 1)))
