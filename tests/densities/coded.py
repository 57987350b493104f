"""Codes made of plain numbers, and a count of what is made of them."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dwf.codecs.codes import Codes, CodeShape


def vector_codes(values_NK: torch.Tensor, layout: str = "layout") -> Codes:
    """Vectors of the last axis's length, whatever the other axes."""
    return Codes(values_NK, CodeShape.vectors(layout, values_NK.shape[-1]))


class Largest(TorchDispatchMode):
    """Takes note of the bytes of the largest tensor that is made, of any type."""

    num_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if not func.is_view:
            for one in made if isinstance(made, (tuple, list)) else (made,):
                if isinstance(one, torch.Tensor):
                    self.num_bytes = max(self.num_bytes, one.numel() * one.element_size())
        return made
