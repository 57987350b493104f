"""Whole sequences through a module that sees one window at a time, for sequences of any length.

Windows overlap: of each only the tokens are kept that have at least `halo` neighbours on both
sides, or that lie at an end of the sequence. No window is shorter than the others, as a module
does worse at lengths that it was not trained on; the last one is moved back to fit.

Source: Schuerholt et al., SANE (arXiv 2406.09997), Algorithm 2 (halo); unlike the published code,
for every length.

Shape suffixes: N networks, T tokens of a network, C numbers of a token in, L out, B windows of a
batch, W tokens of a window.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch


class Cover(NamedTuple):
    """A window and what is kept of it."""

    start: int
    """Its first token."""
    first: int
    """The first token that is kept."""
    stop: int
    """The one behind the last that is kept."""


def cover(num_tokens: int, window: int, *, halo: int) -> list[Cover]:
    """Return windows that keep each of T tokens once, in order.

    Args:
        num_tokens: T, at least 1.
        window: tokens of a window; sequences up to that long are one window of their own length.
        halo: neighbours on each side of what is kept, below half of `window`.
    """
    if num_tokens <= window:
        return [Cover(0, 0, stop=num_tokens)]
    windows: list[Cover] = []
    last_start, stop = num_tokens - window, 0
    while stop < num_tokens:
        start = min(max(stop - halo, 0), last_start)
        first, stop = stop, num_tokens if start == last_start else start + window - halo
        windows.append(Cover(start, first, stop=stop))
    return windows


def through_windows(
    run: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    tokens_NTC: torch.Tensor,
    *,
    positions_T3: torch.Tensor,
    out_NTL: torch.Tensor,
    window: int,
    halo: int,
    batch_size: int,
) -> torch.Tensor:
    """Fill in and return what a module makes of whole sequences, `out_NTL`.

    Args:
        run: (tokens_BWC, positions_BW3) -> [B, W, L]; may answer on another device.
        tokens_NTC: sequences of one length.
        positions_T3: of their tokens.
        out_NTL: where it goes.
        window: tokens of a window.
        halo: see `cover`.
        batch_size: windows given to `run` at once, of one network or of several.
    """
    num, num_tokens, _ = tokens_NTC.shape
    width = min(window, num_tokens)
    parts = [(n, part) for n in range(num) for part in cover(num_tokens, window, halo=halo)]
    for at in range(0, len(parts), batch_size):
        batch = parts[at : at + batch_size]
        tokens = [tokens_NTC[n, part.start : part.start + width] for n, part in batch]
        positions = [positions_T3[part.start : part.start + width] for _, part in batch]
        done_BWL = run(torch.stack(tokens), torch.stack(positions))
        for (n, part), done_WL in zip(batch, done_BWL, strict=True):
            kept = slice(part.first - part.start, part.stop - part.start)
            out_NTL[n, part.first : part.stop] = done_WL[kept]
    return out_NTL
