"""Prune by magnitude, and hold what is pruned at 0.

Shape suffixes: N networks of a cohort.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from dwf.zoo.config import PruneConfig
from dwf.zoo.layout import Layout
from dwf.zoo.zeros import prunable

Masks = dict[str, torch.Tensor]
"""Tensor's name -> what its weights are multiplied with: 1, or 0 where pruned; [N, *shape]."""


def rounds_done(config: PruneConfig, epoch: int) -> int:
    """Return how many prunings have been when an epoch begins, counted from 0, its own with it."""
    if epoch + 1 < config.from_epoch:
        return 0
    return min(config.rounds, (epoch + 1 - config.from_epoch) // config.every + 1)


def is_due(config: PruneConfig, epoch: int) -> bool:
    """Whether an epoch, counted from 0, begins with a pruning."""
    return rounds_done(config, epoch) > (rounds_done(config, epoch - 1) if epoch else 0)


@torch.no_grad()
def masks_of(
    state: Mapping[str, torch.Tensor], layout: Layout, *, shares_N: Iterable[float]
) -> Masks:
    """Return masks that prune the smallest weights of each tensor.

    What is 0 already is smallest, so what was pruned stays so.

    Args:
        state: name -> tensor of shape [N, *shape].
        layout: which tensors are pruned.
        shares_N: of each network, rounded down to whole weights.
    """
    masks = {}
    for entry in prunable(layout):
        tensor = state[entry.name]
        mask = torch.ones_like(tensor)  # of the same order in memory
        for one, weights, share in zip(mask, tensor, shares_N, strict=True):
            count = int(share * entry.size)
            flat = torch.ones(entry.size, device=tensor.device)
            flat[weights.abs().flatten().argsort(stable=True)[:count]] = 0
            one.copy_(flat.view(entry.shape))
        masks[entry.name] = mask
    return masks


@torch.no_grad()
def enforce(state: Mapping[str, torch.Tensor], masks: Masks) -> None:
    """Set what is pruned to 0, in place."""
    if masks:
        torch._foreach_mul_([state[name] for name in masks], list(masks.values()))


def pruned_counts(masks: Masks, num_networks: int) -> np.ndarray:
    """Return how many weights of each network are pruned, int64 of shape [N]."""
    counts_N = np.zeros(num_networks, np.int64)
    for mask in masks.values():
        counts_N += (mask == 0).flatten(1).sum(1).cpu().numpy()
    return counts_N
