"""How fast training is, what it waits for and how much of the hardware it uses."""

import time
from typing import TypeVar

import torch
from torch.nn.utils import skip_init

from dwf.backbones.linear import KERNELS, TORCH, Linear
from dwf.ranks import World
from dwf.systems import memory_mib
from dwf.training.task import Share, Task

T = TypeVar("T")


_GIB = 2**30
# Numbers of a square matrix that keeps a GPU busy, and one that a core multiplies in 0.1 s.
_SIDE = {"cuda": 8192, "cpu": 1024}
_TRIALS = 4


class Meter:
    """Rates between two validations, for the metrics.

    Args:
        task: says what it waited for, and what an example costs.
        share: this rank's part of each batch.
        ours: the ranks.
        device: of this rank.
        peak: floating-point operations a second that a rank can do; None: not measured.
    """

    def __init__(
        self, task: Task, share: Share, *, ours: World, device: torch.device, peak: float | None
    ):
        self.task, self.share, self.ours, self.device, self.peak = task, share, ours, device, peak
        self._memory = 0.0

    def start(self, step: int) -> None:
        """Begin to count after `step` updates."""
        self._since = (time.perf_counter(), step)
        self.task.seconds_waited = 0.0

    def look(self) -> None:
        """Take note of the memory in use."""
        self._memory = max(self._memory, memory_gib(self.device))

    def read(self, step: int) -> dict[str, float]:
        """Return rates since `start`, those of the slowest or largest rank; ranks call it together.

        `data_wait` and `mfu` are shares of 1: of the time, and of what the hardware could do.
        """
        self.look()
        seconds = time.perf_counter() - self._since[0]
        own = (seconds, self.task.seconds_waited / seconds, self._memory)
        seconds, waited, memory = map(max, zip(*self.all_ranks(own), strict=True))
        steps = (step - self._since[1]) / seconds
        samples = steps * self.share.batch_size
        rates = {"steps/s": steps, "samples/s": samples}
        if self.task.tokens_per_example:
            rates["tokens/s"] = samples * self.task.tokens_per_example
        rates |= {"data_wait": waited, "memory_GiB": memory}
        if self.task.flops_per_example and self.peak:
            used = samples * self.task.flops_per_example
            rates["mfu"] = used / (self.peak * self.ours.size)
        return rates

    def all_ranks(self, value: T) -> list[T]:
        """Return every rank's value, on all."""
        return list(self.ours.in_order(self.ours.size, lambda _: value))


def memory_gib(device: torch.device) -> float:
    """Return the most memory a GPU has held, or what `memory_mib` says of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / _GIB
    return memory_mib() / 2**10


@torch.no_grad()
def measure_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return floating-point operations a second of a large matrix product, on these threads.

    The best of a few, which take about half a second: what a step can be held against.
    """
    side = _SIDE[device.type]
    generator = torch.Generator(device).manual_seed(0)
    a = torch.randn(side, side, generator=generator, device=device).to(dtype)
    # Without drawing weights: dropout draws from the same stream.
    layer = skip_init(Linear, side, side, bias=False, device=device, dtype=dtype)
    layer.weight.copy_(a)
    # A GPU takes torch's own, whatever a layer is told.
    kernels = KERNELS if device.type == "cpu" else (TORCH,)
    best = float("inf")
    for layer.kernel in kernels:
        for _ in range(_TRIALS + 1):  # the first warms up
            began = time.perf_counter()
            b = layer(a)
            if device.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - began)
    if device.type == "cuda":  # the memory it took is not training's
        del a, b, layer
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return 2 * side**3 / best
