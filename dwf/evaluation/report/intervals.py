"""Intervals of shares: how far the draw of n networks alone may have moved them."""

import math

from dwf.evaluation.measure import CONFIDENCE


def share_interval(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of n (Wilson 1927): of finite width at 0 and 1, too.

    It lies within 0 to 1, and tells of the draw of n networks alone, not of another seed of the
    training.
    """
    z2 = CONFIDENCE**2 / n
    centre = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(share * (1 - share) * z2 + z2**2 / 4) / (1 + z2)
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def share_with_interval(share: float | None, n: int) -> str:
    """Return a share in percent with its interval in brackets: `56.3 % [49.4, 63.0]`."""
    if share is None:
        return "-"
    low, high = share_interval(share, n)
    return f"{100 * share:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
