"""A linear map for float32 on a CPU, by torch's own kernel or by oneDNN's.

Measured on an AMD EPYC with AVX-512, one thread: oneDNN's make 140 to 230 GFLOP/s where torch's own
reach 100, as MKL leaves half of that processor's vectors unused. On an Intel Xeon torch's own are
1.2 to 1.4 times as fast. So a training tries both (`training/kernel.py`), and a map that nobody
tells otherwise takes torch's own, as all do elsewhere (GPU, bf16, float64, compiled, under
`torch.func`, a torch without this kernel). Equal up to the order of summation. By oneDNN there are
no second derivatives.

Shape suffixes: I numbers that enter, O that leave.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

TORCH, ONEDNN = "torch", "onednn"


class Linear(nn.Linear):
    """`nn.Linear` with a choice of the kernel; the parameters are the same."""

    kernel: str = TORCH
    """Name of what computes it, of `KERNELS`; torch's own where it has no such."""

    def forward(self, x_I: torch.Tensor) -> torch.Tensor:
        """Return x_I mapped, shape [..., O]."""
        if self.kernel not in KERNELS or not (is_plain(x_I) and is_plain(self.weight)):
            return functional.linear(x_I, self.weight, self.bias)
        return KERNELS[self.kernel](x_I, self.weight, self.bias)


def use_kernel(module: nn.Module, kernel: str) -> None:
    """Let each `Linear` of a module compute by a kernel; by torch's own where there is no such."""
    for layer in linear_maps(module).values():
        layer.kernel = kernel if kernel in (TORCH, ONEDNN) else TORCH


def kernel_of(module: nn.Module) -> str:
    """Return what `use_kernel` was given; torch's own where it was not called."""
    return next((layer.kernel for layer in linear_maps(module).values()), TORCH)


def linear_maps(module: nn.Module) -> dict[str, Linear]:
    """Return each `Linear` of a module by its name."""
    return {name: each for name, each in module.named_modules() if isinstance(each, Linear)}


def is_plain(x: torch.Tensor) -> bool:
    """Whether a tensor is float32 on a CPU, and nothing but autograd follows its operations."""
    is_float32 = x.device.type == "cpu" and x.dtype == torch.float32
    if not (is_float32 and x.dim() > 1 and x.numel() > 0):
        return False
    return not (is_traced() or torch.is_autocast_enabled("cpu"))


def is_traced() -> bool:
    """Whether more than autograd follows operations: a compiler, or `torch.func`."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x_I: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(x_I, weight_OI)
        return _product(x_I, weight_OI, bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient_O: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_I, weight_OI = ctx.saved_tensors
        wanted_x, wanted_weight, wanted_bias = ctx.needs_input_grad
        x_gradient = _product(gradient_O, weight_OI.T) if wanted_x else None
        rows_O, rows_I = gradient_O.flatten(0, -2), x_I.flatten(0, -2)
        weight_gradient = _transposed_product(rows_O, rows_I) if wanted_weight else None
        return x_gradient, weight_gradient, rows_O.sum(0) if wanted_bias else None


def _transposed_product(rows_O: torch.Tensor, rows_I: torch.Tensor) -> torch.Tensor:
    """Return `rows_O.T @ rows_I`: one side has to lie transposed in memory, the narrower does."""
    # A slice of columns, which has gaps in memory, would be a thousand times as slow.
    rows_O, rows_I = rows_O.contiguous(), rows_I.contiguous()
    if rows_I.shape[1] < rows_O.shape[1]:
        return _product(rows_I.T.contiguous(), rows_O.T).T
    return _product(rows_O.T.contiguous(), rows_I.T)


def _product(
    x_I: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None = None
) -> torch.Tensor:
    """Return `x @ weight.T + bias`."""
    return torch.ops.mkldnn._linear_pointwise(x_I, weight_OI, bias_O, "none", [], "")


def _has_onednn() -> bool:
    """Whether this torch has the kernel: it is private, so another may lack it or call it so."""
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        # On the CPU, though this module may be imported where a network is planned without memory.
        ones = torch.ones(1, 2, device="cpu")
        return _product(ones, ones).tolist() == [[2.0]]
    except (AttributeError, RuntimeError, TypeError):
        return False


KERNELS: dict[str, Callable[..., torch.Tensor]] = {TORCH: functional.linear}
"""Name -> what computes a linear map, of x, weight and bias; those that this torch has."""
if _has_onednn():
    KERNELS[ONEDNN] = _OneDnnLinear.apply
