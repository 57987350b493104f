"""Codes in and out of the units in which a density learns.

Shape suffixes: N codes, K numbers of a code.
"""

from dataclasses import dataclass

import torch

from dwf.codecs.codes import Codes
from dwf.errors import ShapeMismatch


def vectors(codes: Codes, like: Codes | None = None) -> torch.Tensor:
    """Return codes as vectors, sequences token after token, float32, shape [N, K].

    Args:
        codes: to take.
        like: codes that they must match in length and layout.

    Raises:
        ShapeMismatch: see `check_codes`.
    """
    check_codes(codes, like)
    return codes.flatten().float()


def check_codes(codes: Codes, like: Codes | None = None) -> None:
    """Refuse codes that are none, or not of the shape of others.

    Args:
        codes: to look at.
        like: codes that they must match in length and layout.

    Raises:
        ShapeMismatch: sequences without positions and mask, or codes of another length or layout.
    """
    shape = list(codes.values.shape)
    if len(shape) != (2 if codes.groups is None else 3):
        raise ShapeMismatch(
            f"codes of shape {shape} are not vectors [N, K], nor sequences [N, T, C] with "
            "positions and a mask: take codes as a codec makes them"
        )
    if like is not None and (codes.size, codes.layout) != (like.size, like.layout):
        raise ShapeMismatch(
            f"codes of {codes.size} numbers and layout {codes.layout} do not match codes of "
            f"{like.size} numbers and layout {like.layout}: take one codec for both"
        )


@dataclass(frozen=True)
class Scaling:
    """standardised = (code - mean) / deviation."""

    mean: torch.Tensor
    """float32, shape [K] or []."""
    deviation: torch.Tensor
    """float32, > 0, shape [K] or []."""

    @classmethod
    def fit(cls, codes_NK: torch.Tensor, kind: str) -> "Scaling":
        """Return the scaling of `per_dimension`, `global` or `none`."""
        if kind == "none":
            return cls(torch.zeros(()), torch.ones(()))
        codes_NK = codes_NK.double()
        mean_K = codes_NK.mean(0)
        variance_K = (codes_NK - mean_K).square().mean(0)
        if kind == "global":
            variance_K = variance_K.mean()
        # A number that never varies stays as it is.
        deviation_K = torch.where(variance_K > 0, variance_K.sqrt(), torch.ones_like(variance_K))
        return cls(mean_K.float(), deviation_K.float())

    def to(self, device: torch.device) -> "Scaling":
        """Return it on a device."""
        return Scaling(self.mean.to(device), self.deviation.to(device))

    def apply(self, codes_NK: torch.Tensor) -> torch.Tensor:
        """Return codes in standardised units."""
        return (codes_NK - self.mean) / self.deviation

    def undo(self, codes_NK: torch.Tensor) -> torch.Tensor:
        """Return codes in their own units."""
        return codes_NK * self.deviation + self.mean

    def log_volume(self, num_features: int) -> float:
        """Log determinant of `undo`."""
        return self.deviation.double().log().expand(num_features).sum().item()
