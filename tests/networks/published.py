"""Published networks with their published sizes, and narrow ones of every architecture."""

from dwf.networks.config import (
    CifarResNetConfig,
    CNNConfig,
    ConvNeXtConfig,
    DenseNetConfig,
    MLPConfig,
    MobileNetV2Config,
    ResNetConfig,
    VGGConfig,
    ViTConfig,
)

CIFAR = (3, 32, 32)
PUBLISHED = {
    # DeepWeightFlow (arXiv 2601.05052)
    "MLP 784-32-32-10": (MLPConfig((784, 32, 32, 10)), 26_506),
    "MLP 784-128-128-10": (MLPConfig((784, 128, 128, 10)), 118_282),
    "Iris MLP": (MLPConfig((4, 16, 3)), 131),
    "ResNet-20": (CifarResNetConfig(), 272_474),
    "ResNet-18": (ResNetConfig(), 11_173_962),
    "ViT-Small-192": (ViTConfig(), 2_693_578),
    "SmallCNN": (
        CNNConfig(
            (16, 24, 24), CIFAR, paddings=1, pools=2, norm="batch", hidden=(32,), dropout=0.3
        ),
        21_914,
    ),
    # Unterthiner et al. (arXiv 2002.11448)
    "Unterthiner CNN": (CNNConfig(strides=2, head="average"), 4_970),
    # SANE (arXiv 2406.09997)
    "SANE small CNN": (
        CNNConfig(
            (8, 6, 4),
            kernels=(5, 5, 2),
            pools=(2, 2, 0),
            pool_first=True,
            activation="tanh",
            hidden=(20,),
        ),
        2_464,
    ),
    "SANE large CNN": (
        CNNConfig((16, 32, 15), CIFAR, pools=2, pool_first=True, activation="gelu", hidden=(20,)),
        10_853,
    ),
    # VAE-Diffusion's classifier of CIFAR-10
    "TinyCNN": (CNNConfig((16, 32), CIFAR, paddings=1, pools=2, hidden=(100,)), 210_998),
}
"""Name -> (configuration, number of trainable parameters)."""

SIMILAR = {
    # p-diff (arXiv 2402.13144) publishes the sizes of its small networks, not their architecture.
    "p-diff ConvNet": (CNNConfig((16, 32, 64), CIFAR, pools=2, head="average"), 24_234, 24_262),
    "p-diff MLP": (MLPConfig((3072, 16, 96, 96, 64, 10)), 66_970, 66_970),
    "p-diff ResNet": (CifarResNetConfig(8, width=9), 25_129, 25_138),
    "p-diff ViT": (ViTConfig(width=32, heads=4), 80_298, 80_714),
    "p-diff ConvNeXt": (ConvNeXtConfig((16, 32, 32, 32), (1, 2, 2, 2), patch=4), 74_970, 74_970),
}
"""Name -> (a network of our own, its parameters, those of the published one)."""

TORCHVISION = {
    "resnet18": (ResNetConfig(18, classes=1000, stem="imagenet"), 11_689_512),
    "resnet34": (ResNetConfig(34, classes=1000, stem="imagenet"), 21_797_672),
    "resnet50": (ResNetConfig(50, classes=1000, stem="imagenet"), 25_557_032),
    "vgg11": (
        VGGConfig(11, norm="none", pooled=7, hidden=(4096, 4096), classes=1000),
        132_863_336,
    ),
    "vgg16_bn": (VGGConfig(16, pooled=7, hidden=(4096, 4096), classes=1000), 138_365_992),
    "mobilenet_v2": (MobileNetV2Config(classes=1000, stem="imagenet"), 3_504_872),
    "densenet121": (DenseNetConfig(classes=1000, stem="imagenet"), 7_978_856),
    "convnext_tiny": (
        ConvNeXtConfig((96, 192, 384, 768), (3, 3, 9, 3), patch=4, classes=1000),
        28_589_128,
    ),
    "vit_b_16": (ViTConfig(224, 16, width=768, depth=12, heads=12, classes=1000), 86_567_656),
}
"""torchvision's function -> (the same network here, parameters that torchvision publishes)."""

NARROW = {
    "cnn": CNNConfig((4, 6, 5), (3, 16, 16), paddings=1, pools=(2, 2, 0), hidden=(12,)),
    "cnn_batchnorm": CNNConfig((4, 6), (3, 16, 16), norm="batch", pools=2, head="average"),
    "cnn_grouped": CNNConfig((4, 8, 8), (3, 16, 16), strides=2, paddings=1, groups=(1, 2, 8)),
    "cnn_dropout": CNNConfig((4, 6), (3, 16, 16), strides=2, hidden=(20, 12), dropout=0.5),
    "resnet": ResNetConfig(18, width=4),
    "resnet50": ResNetConfig(50, width=2),
    "resnet_imagenet": ResNetConfig(18, width=4, stem="imagenet"),
    "resnet_cifar": CifarResNetConfig(8, width=4),
    "vit": ViTConfig(image=16, patch=4, width=12, depth=2, heads=3, mlp_ratio=2),
    "vit_dropout": ViTConfig(image=16, patch=8, width=12, depth=1, heads=2, dropout=0.2),
    "vgg": VGGConfig(width=2, norm="none", hidden=(8,)),
    "vgg_batchnorm": VGGConfig(16, width=2),
    "mobilenet_v2": MobileNetV2Config(width=0.1, divisor=2),
    "densenet": DenseNetConfig((2, 3), growth=4),
    "convnext": ConvNeXtConfig((6, 8), (1, 2), layer_scale=0.5),
}
"""Each architecture in a size that a test can train, for 3 x 16 x 16 (`SIZES`) and 10 classes."""

SIZES = {"vgg": 32, "vgg_batchnorm": 32, "resnet_imagenet": 32}
"""Height and width of a narrow network's images where it is not 16."""


def shape_of(name: str) -> tuple[int, int, int]:
    """Return the shape of one input of a narrow network."""
    return (3, SIZES.get(name, 16), SIZES.get(name, 16))
