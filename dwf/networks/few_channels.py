"""Convolutions of images on a CPU, where the gradient of the images is asked for.

oneDNN's gradient of an input of few channels takes 5 to 10 times as long as the convolution itself.
As a matrix product whose columns are added up where they overlap, it takes 2 to 3 times as long.

Shape suffixes: B images of a batch, C channels, H, W pixels; O filters, K columns of the unfolded
images, P places.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.nn import functional
from torch.nn.modules.utils import _pair
from torch.overrides import TorchFunctionMode

_FEW = 3
"""Channels up to which the matrix product is faster."""


class ImageGradients(TorchFunctionMode):
    """Within it, convolutions of at most three channels have the faster gradient of their input."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run what torch calls; of its convolutions, those of images by `_Convolution`."""
        if function is torch.conv2d and not kwargs and _is_of_images(*args):
            return _Convolution.apply(*args)
        return function(*args, **(kwargs or {}))


def _is_of_images(
    x_BCHW: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    learns = weight.requires_grad or (bias is not None and bias.requires_grad)
    plain = groups == 1 and not isinstance(padding, str) and x_BCHW.dim() == 4
    return plain and not learns and x_BCHW.requires_grad and weight.shape[1] <= _FEW


class _Convolution(torch.autograd.Function):
    """A convolution whose gradient of the input is a matrix product; of the weights it has none."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BCHW: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        *where: Any,
    ) -> torch.Tensor:
        ctx.save_for_backward(weight)
        ctx.size = x_BCHW.shape[2:]
        ctx.where = [_pair(each) for each in (*where, *(1, 0, 1)[len(where) :])][:3]
        return torch.conv2d(x_BCHW, weight, bias, *where)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        stride, padding, dilation = ctx.where
        columns_BKP = weight.flatten(1).T @ gradient.flatten(2)
        x_BCHW = functional.fold(
            columns_BKP,
            ctx.size,
            weight.shape[2:],
            stride=stride,
            padding=padding,
            dilation=dilation,
        )
        return (x_BCHW, *[None] * (len(ctx.needs_input_grad) - 1))
