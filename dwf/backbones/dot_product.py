"""Scaled dot-product attention, by torch's kernel or, in bf16 on a CPU, by products of matrices.

There torch's kernel is fifteen times slower than in float32. Up to some hundred tokens products in
bf16 are 1.6 to 3 times as fast as that kernel in float32 (an AMD EPYC with AVX-512 BF16, one
thread, forward and back: 33 tokens 3.3 ms against 7.4, 129 tokens 6.4 against 15); of more tokens
the scores leave the processor's caches.

Shape suffixes: B sequences of a batch, Q tokens that hear, T tokens that are heard, H heads, D
width of a head.
"""

import torch
from torch.nn import functional

_MOST_HEARD = 256
"""Tokens up to which bf16 on a CPU takes products."""


def attend(
    query_BQHD: torch.Tensor,
    key_BTHD: torch.Tensor,
    *,
    value_BTHD: torch.Tensor,
    heard: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return what each token hears, [B, Q, H, D].

    Args:
        query_BQHD: what it asks for.
        key_BTHD: what it is matched with.
        value_BTHD: what it hears.
        heard: bool, which tokens are heard, [B or 1, 1, 1 or Q, T]; None: all.
    """
    if not (query_BQHD.device.type == "cpu" and query_BQHD.dtype == torch.bfloat16):
        return _by_kernel((query_BQHD, key_BTHD, value_BTHD), heard)
    with torch.autocast("cpu", enabled=False):
        if key_BTHD.shape[1] <= _MOST_HEARD:
            return _by_products((query_BQHD, key_BTHD, value_BTHD), heard)
        parts = tuple(part.float() for part in (query_BQHD, key_BTHD, value_BTHD))
        return _by_kernel(parts, heard)


def _by_kernel(parts: tuple[torch.Tensor, ...], heard: torch.Tensor | None) -> torch.Tensor:
    query, key, value = (part.transpose(1, 2) for part in parts)
    return functional.scaled_dot_product_attention(query, key, value, heard).transpose(1, 2)


def _by_products(parts: tuple[torch.Tensor, ...], heard: torch.Tensor | None) -> torch.Tensor:
    batch, _, heads, width = parts[0].shape
    query, key, value = (part.transpose(1, 2).flatten(0, 1) for part in parts)  # [B H, tokens, D]
    # `beta = 0` ignores what is added, and the products are scaled before they are rounded.
    scores = torch.baddbmm(
        query.new_zeros(1, 1, 1), query, key.transpose(1, 2), beta=0, alpha=width**-0.5
    )
    if heard is not None:
        scores = scores.unflatten(0, (batch, heads)).masked_fill(~heard, -torch.inf).flatten(0, 1)
    said = torch.bmm(scores.softmax(dim=2), value)
    return said.unflatten(0, (batch, heads)).transpose(1, 2)
