"""Networks that cannot be computed together, side by side on the cores of this machine."""

import copy
import queue
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from dwf.networks.functional import is_stacked
from dwf.randomness import thread_pool

T = TypeVar("T")


def computed_together(network: nn.Module, device: str = "cpu") -> bool:
    """Whether networks of this architecture are computed as one program on a device."""
    return device != "cpu" or is_stacked(network)


def side_by_side(
    network: nn.Module,
    count: int,
    *,
    compute: Callable[[nn.Module, int], T],
    workers: int | None = None,
) -> list[T]:
    """Return compute(network, 0), compute(network, 1), ... up to `count`, computed in threads.

    As long as there are as many networks as threads, each has one thread: what it gives does not
    depend on how many there are.

    Args:
        network: each thread gets a copy: `functional_call` puts a network's state into the module.
        count: how many networks.
        compute: is called with a copy of the module, and the number of the network.
        workers: networks at once; default: torch's threads.
    """
    num_threads = torch.get_num_threads()
    at_once = max(1, min(workers or num_threads, count))
    each = max(1, num_threads // at_once)
    free: queue.SimpleQueue[nn.Module] = queue.SimpleQueue()
    for _ in range(at_once):
        free.put(copy.deepcopy(network))

    def compute_one(index: int) -> T:
        own = free.get()
        try:
            return compute(own, index)
        finally:
            free.put(own)

    with thread_pool(at_once, each) as pool:
        return list(pool.map(compute_one, range(count)))
