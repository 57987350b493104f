"""The kernel of a training's linear maps on a CPU: tried once, recorded in its folder, then kept.

Which is faster depends on processor, threads and shapes, and each makes last bits of its own. So a
run has one, whoever goes on with it. Its first update is by torch's own, and shows the shapes.
"""

import time
from collections import Counter
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import skip_init

from dwf.backbones.linear import KERNELS, TORCH, Linear, is_plain
from dwf.files import read_json
from dwf.run_folder import write_json

FILE = "kernel.json"
AUTO = "auto"
FEWEST_PRODUCTS = 2**24
"""Multiplications of an update's forward, about 1 ms of a core, from which on kernels are tried."""
# What a trial multiplies of one shape at most; forward and backward are some 20 ms of a core.
# On fewer rows than training has oneDNN gains less, so a lower bound would mislead.
_MOST_PRODUCTS = 2**28
_FEWEST_ROWS = 64
_TRIALS = 2
_WORTH_A_CHANGE = 0.95  # of the seconds of torch's own: less is noise
Shape = tuple[int, int, int]
"""Rows, numbers that enter, numbers that leave."""


class Shapes(Counter[Shape]):
    """How often linear maps ran on each shape; a note for `networks.watched`."""

    def __call__(
        self, name: str, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: object
    ) -> None:
        """Count one map that has run."""
        x = inputs[0]
        if is_plain(x):
            shape = x.shape[:-1].numel(), module.in_features, module.out_features
            self[shape] += 1


def recorded_kernel(folder: Path) -> str | None:
    """Return what `choose_kernel` recorded in a run's folder; None where it did not.

    Raises:
        CorruptCheckpoint: the record is damaged.
    """
    file = folder / FILE
    return str(read_json(file, keys=("kernel",))["kernel"]) if file.exists() else None


def choose_kernel(folder: Path, shapes: Shapes) -> str:
    """Return the kernel for such linear maps and record it in a run's folder.

    What is recorded there already stays. Too little work is left to torch's own, without a trial.
    """
    recorded = recorded_kernel(folder)
    if recorded is not None:
        return recorded
    products = sum(count * _products(shape) for shape, count in shapes.items())
    if len(KERNELS) == 1 or products < FEWEST_PRODUCTS:
        return TORCH
    seconds = time_kernels(shapes)
    fastest = min(seconds, key=seconds.get)
    kernel = fastest if seconds[fastest] < _WORTH_A_CHANGE * seconds[TORCH] else TORCH
    tried = {f"{name}_ms": round(1e3 * value, 3) for name, value in seconds.items()}
    write_json(folder / FILE, {"kernel": kernel, "threads": torch.get_num_threads(), **tried})
    return kernel


def time_kernels(shapes: Shapes) -> dict[str, float]:
    """Return the seconds of all these maps, forward and backward, by each kernel: the best of 2."""
    seconds = dict.fromkeys(KERNELS, 0.0)
    for shape, count in shapes.items():
        for name, value in _time_shape(shape).items():
            seconds[name] += count * value
    return seconds


def _time_shape(shape: Shape) -> dict[str, float]:
    """Seconds of one map by each kernel; of many rows some are tried."""
    all_rows, entering, leaving = shape
    rows = min(all_rows, max(_FEWEST_ROWS, _MOST_PRODUCTS // (entering * leaving)))
    generator = torch.Generator().manual_seed(0)
    layer = skip_init(Linear, entering, leaving)  # dropout draws from the stream of initial weights
    nn.init.normal_(layer.weight, generator=generator)
    nn.init.zeros_(layer.bias)
    x_I = torch.randn(rows, entering, generator=generator, requires_grad=True)
    gradient_O = torch.randn(rows, leaving, generator=generator)
    # What other processes take of its core is not a thread's; of several, idle ones count too.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    best = dict.fromkeys(KERNELS, float("inf"))
    for _ in range(_TRIALS + 1):  # the first warms up
        for name in KERNELS:
            layer.kernel = name
            began = clock()
            layer(x_I).backward(gradient_O)
            best[name] = min(best[name], clock() - began)
    return {name: value * all_rows / rows for name, value in best.items()}


def _products(shape: Shape) -> int:
    rows, entering, leaving = shape
    return rows * entering * leaving
