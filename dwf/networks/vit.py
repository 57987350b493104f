"""Vision transformers: torchvision's, in any size.

Source: Dosovitskiy et al., An image is worth 16x16 words, ICLR 2021 (arXiv 2010.11929).
"""

import math

from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

from dwf.networks.config import ViTConfig


class ViT(VisionTransformer):
    """torchvision's VisionTransformer with its names of tensors and its initialisation."""

    def __init__(self, config: ViTConfig):
        super().__init__(
            image_size=config.image,
            patch_size=config.patch,
            num_layers=config.depth,
            num_heads=config.heads,
            hidden_dim=config.width,
            mlp_dim=round(config.mlp_ratio * config.width),
            dropout=config.dropout,
            attention_dropout=config.dropout,
            num_classes=config.classes,
        )
        if config.channels != 3:
            self.conv_proj = nn.Conv2d(config.channels, config.width, config.patch, config.patch)
            deviation = math.sqrt(1 / (config.channels * config.patch**2))
            nn.init.trunc_normal_(self.conv_proj.weight, std=deviation)
            nn.init.zeros_(self.conv_proj.bias)
