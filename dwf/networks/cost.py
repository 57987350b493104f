"""The cost of running a network, told from shapes alone: nothing is computed."""

from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from dwf.networks.config import NetworkConfig
from dwf.networks.functional import build_network, plain_attention

MISFITS = (RuntimeError, ValueError, IndexError, AssertionError)
"""Errors that a module raises on an input that it does not take."""


@lru_cache(maxsize=256)
@torch.no_grad()
def count_multiplications(config: NetworkConfig, shape: tuple[int, ...]) -> int | None:
    """Return how many numbers a network multiplies to answer one input of shape [*shape].

    None where it does not take such an input.
    """
    with torch.device("meta"):  # tensors without numbers
        network, inputs = build_network(config), torch.empty(1, *shape)
        with plain_attention(on_gpu=True), FlopCounterMode(display=False) as counter:
            try:
                network(inputs)
            except MISFITS:
                return None
    return counter.get_total_flops() // 2  # it counts an addition with each
