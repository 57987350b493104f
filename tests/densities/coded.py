"""Codes made of plain numbers."""

import torch

from dwf.codecs.codes import Codes, CodeShape


def vector_codes(values_NK: torch.Tensor, layout: str = "layout") -> Codes:
    """Vectors of the last axis's length, whatever the other axes."""
    return Codes(values_NK, CodeShape.vectors(layout, values_NK.shape[-1]))
