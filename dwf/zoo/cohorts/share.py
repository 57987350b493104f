"""Training images of a network's own: a share of them, drawn by its seed.

Shape suffixes: M training images, S of them that are a network's own.
"""

import torch

from dwf.randomness import torch_stream


def own_images(seed: int, network: int, *, num: int, share: float) -> torch.Tensor:
    """Return which training images a network sees, int64_S, in order; at least one.

    Args:
        seed: the zoo's.
        network: its index in the zoo.
        num: M.
        share: of them, above 0; all at 1.
    """
    count = max(1, round(share * num))
    order_M = torch.randperm(num, generator=torch_stream(seed, "share", network))
    return order_M[:count].sort().values


def shuffled(own_S: torch.Tensor, num: int, *, generator: torch.Generator) -> torch.Tensor:
    """Return an epoch's order of the images, int64_M: shuffles of its own, one after the other.

    Each image is seen as often as any other, or once more. Of all M images it is the shuffle that
    a network without a share has.

    Args:
        own_S: see `own_images`.
        num: M, what an epoch takes.
        generator: of this network and epoch.
    """
    rounds = -(-num // len(own_S))
    orders = [torch.randperm(len(own_S), generator=generator) for _ in range(rounds)]
    return own_S[torch.cat(orders)[:num]]
