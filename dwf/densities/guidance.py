"""Classifier-free guidance: conditions that count more than they were learnt to.

Shape suffixes: B samples, K numbers of a code, P numbers of all conditions.
"""

import math
from collections.abc import Callable, Sequence

import torch

Answer = Callable[[torch.Tensor | None], torch.Tensor]
"""Returns what the network answers under conditions, [B or 1, P], or under none."""


def guided(
    answer: Answer,
    condition_BP: torch.Tensor | None,
    *,
    guidance: float | Sequence[float],
    sizes: Sequence[int] = (),
) -> torch.Tensor:
    """Return an answer under guidance, [B, K].

    One number w counts all conditions together: none + w (all - none). Several count each by
    itself, given the others: all + sum over i of (w_i - 1) (all - all but i). Of one condition the
    two are the same; w = 1 is as learnt.

    Source: Ho and Salimans, arXiv 2207.12598, eq. 6, whose w is w - 1 here.

    Args:
        answer: what the network says.
        condition_BP: conditions; None: none.
        guidance: w, or w of each condition.
        sizes: numbers of each condition.
    """
    told_BK = answer(condition_BP)
    if condition_BP is None:
        return told_BK
    if not isinstance(guidance, Sequence):
        return told_BK if guidance == 1 else torch.lerp(answer(None), told_BK, guidance)
    found_BK, at = told_BK, 0
    for weight, size in zip(guidance, sizes, strict=True):
        if weight != 1:
            without_BP = condition_BP.clone()
            without_BP[:, at : at + size] = math.nan
            found_BK = found_BK + (weight - 1) * (told_BK - answer(without_BP))
        at += size
    return found_BK
