"""Losses and views of the token autoencoder.

Shape suffixes: B windows of a batch (of all views), W tokens of a window, C numbers of a token,
P numbers of a projection.
"""

import math

import torch
from torch.nn import functional

# Ratio of an erased rectangle's sides (Zhong et al., arXiv 1708.04896, section 3).
_WIDEST = 3.3
_LEAST_VARIANCE = 1e-12


def nt_xent(projections_BP: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the contrastive loss of two views, NT-Xent (Chen et al., arXiv 2002.05709, Eq. 1).

    Negatives are the other windows of this micro-batch: under several ranks, each rank's own.

    Args:
        projections_BP: the first views of all windows, then the second ones in the same order.
        temperature: of the softmax over cosine similarities.
    """
    unit_BP = functional.normalize(projections_BP.float(), dim=1)
    with torch.autocast(unit_BP.device.type, enabled=False):  # a temperature magnifies rounding
        similarity_BB = unit_BP @ unit_BP.T / temperature
    similarity_BB.fill_diagonal_(-math.inf)
    num = len(projections_BP)
    partner_B = torch.arange(num, device=unit_BP.device).roll(num // 2)
    return functional.cross_entropy(similarity_BB, partner_B)


def squared_error(
    predicted_BWC: torch.Tensor, target_BWC: torch.Tensor, *, counted_BWC: torch.Tensor
) -> torch.Tensor:
    """Return the sum of squared errors of slots that are counted."""
    return ((predicted_BWC.float() - target_BWC) * counted_BWC).square().sum()


def masked_variance(values_BWC: torch.Tensor, counted_BWC: torch.Tensor) -> torch.Tensor:
    """Return the variance of the slots that are counted; never 0, as it is divided by."""
    count = counted_BWC.sum()
    mean = (values_BWC * counted_BWC).sum() / count
    variance = ((values_BWC - mean) * counted_BWC).square().sum() / count
    return variance.clamp(min=_LEAST_VARIANCE)


def add_noise(
    tokens_BWC: torch.Tensor,
    mask_BWC: torch.Tensor,
    *,
    deviation: float,
    multiplicative: bool,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return tokens with Gaussian noise on every number; padding stays 0."""
    noise_BWC = torch.empty_like(tokens_BWC).normal_(0, deviation, generator=generator)
    if multiplicative:
        return torch.addcmul(tokens_BWC, tokens_BWC, noise_BWC)
    return torch.addcmul(tokens_BWC, noise_BWC, mask_BWC.to(noise_BWC.dtype))


def erase(
    tokens_BWC: torch.Tensor,
    share: float,
    *,
    area: tuple[float, float],
    generator: torch.Generator,
) -> torch.Tensor:
    """Return tokens with a rectangle of 0 in some windows (Zhong et al., arXiv 1708.04896).

    Args:
        tokens_BWC: windows.
        share: of them that lose a rectangle.
        area: least and largest share of a window's slots that it covers.
        generator: of all draws, on the tokens' device.
    """
    num, height, width = tokens_BWC.shape
    draws_5B = torch.rand(5, num, generator=generator, device=tokens_BWC.device)
    chosen_B, area_B, ratio_B, top_B, left_B = draws_5B
    covered_B = area[0] + (area[1] - area[0]) * area_B
    # Sides as shares of the window's; where one would not fit, the other takes the area.
    aspect_B = torch.exp((2 * ratio_B - 1) * math.log(_WIDEST))
    tall_B = (covered_B * aspect_B).sqrt().clamp(max=1).maximum(covered_B)
    wide_B = covered_B / tall_B
    rows_BW = _stretch(top_B, tall_B * (chosen_B < share), height)
    columns_BC = _stretch(left_B, wide_B, width)
    return tokens_BWC.masked_fill(rows_BW.unsqueeze(2) & columns_BC.unsqueeze(1), 0)


def _stretch(where_B: torch.Tensor, share_B: torch.Tensor, length: int) -> torch.Tensor:
    """Return which of `length` places lie in a stretch of a share of them, bool, [B, length]."""
    size_B = (share_B * length).round()
    start_B = (where_B * (length - size_B + 1)).floor()
    place = torch.arange(length, device=where_B.device)
    return (place >= start_B[:, None]) & (place < (start_B + size_B)[:, None])
