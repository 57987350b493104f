"""The kernel of linear maps in steps that are timed without a training: chosen as a run chooses."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from torch import nn

from dwf.backbones.linear import linear_maps, use_kernel
from dwf.networks.watched import watched
from dwf.training.kernel import Shapes, choose_kernel


def step_and_choose(module: nn.Module, step: Callable[[], object]) -> str:
    """Make one step and choose the kernel of a module's linear maps by it; return its name."""
    shapes = Shapes()
    with watched(linear_maps(module), shapes):
        step()
    with tempfile.TemporaryDirectory() as folder:
        kernel = choose_kernel(Path(folder), shapes)
    use_kernel(module, kernel)
    return kernel
