"""Gradients of images through a first convolution, against torch's own."""

import pytest
import torch
from torch import nn

from dwf.networks.few_channels import ImageGradients


def gradient(conv: nn.Conv2d, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    images = images.clone().requires_grad_()
    answer = conv(images)
    torch.manual_seed(1)
    (found,) = torch.autograd.grad(answer, images, torch.randn_like(answer))
    return answer.detach(), found


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 3},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": (5, 2), "stride": (1, 3), "padding": (2, 0), "bias": False},
        {"kernel_size": 3, "dilation": 2, "padding": 2},
    ],
    ids=["plain", "strides", "pairs", "dilation"],
)
def test_gradients_are_those_of_torch(channels, settings):
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, 4, **settings).requires_grad_(False).double()
    images = torch.randn(2, channels, 9, 8, dtype=torch.float64)
    wanted = gradient(conv, images)
    with ImageGradients():
        found = gradient(conv, images)
    assert torch.equal(found[0], wanted[0])
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("conv", "is_own"),
    [
        (nn.Conv2d(3, 4, 3).requires_grad_(False), True),
        (nn.Conv2d(3, 4, 3), False),
        (nn.Conv2d(4, 4, 3).requires_grad_(False), False),
        (nn.Conv2d(2, 4, 3, groups=2).requires_grad_(False), False),
        (nn.Conv2d(3, 4, 3, padding="same").requires_grad_(False), False),
    ],
    ids=["images", "learns", "channels", "groups", "same"],
)
def test_only_convolutions_of_images_with_fixed_weights_are_its_own(conv, is_own):
    images = torch.randn(2, conv.in_channels, 8, 8, requires_grad=True)
    with ImageGradients():
        answer = conv(images)
        plain = conv(images.detach())
    assert (answer.grad_fn.name() == "_ConvolutionBackward") == is_own
    assert plain.grad_fn is None or not is_own
    assert torch.equal(answer, plain)
