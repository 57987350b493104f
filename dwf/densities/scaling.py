"""Codes in and out of the units in which a density learns.

Shape suffixes: N codes, K numbers of a code.
"""

from dataclasses import dataclass

import torch

from dwf.codecs.codes import Codes, CodeShape
from dwf.errors import ShapeMismatch

_BLOCK_NUMBERS = 2**22


def vectors(codes: Codes, shape: CodeShape | None = None) -> torch.Tensor:
    """Return codes as vectors, sequences token after token, float32, shape [N, K].

    Args:
        codes: to take.
        shape: that they must have; default: any.

    Raises:
        ShapeMismatch: see `check_codes`.
    """
    if shape is not None:
        check_codes(codes, shape)
    return codes.flatten().float()


def check_codes(codes: Codes, shape: CodeShape) -> None:
    """Refuse codes that differ from a shape in length or layouts.

    Raises:
        ShapeMismatch: so it is.
    """
    found, wanted = codes.shape, shape
    if (found.size, found.layouts, found.is_mixed) != (
        wanted.size,
        wanted.layouts,
        wanted.is_mixed,
    ):
        raise ShapeMismatch(
            f"codes of {found.size} numbers and layout {found.layout} do not match codes of "
            f"{wanted.size} numbers and layout {wanted.layout}: take one codec for both"
        )


@dataclass(frozen=True)
class Scaling:
    """standardised = (code - mean) / deviation."""

    mean: torch.Tensor
    """float32, shape [K] or []."""
    deviation: torch.Tensor
    """float32, > 0, shape [K] or []."""

    @classmethod
    def fit(cls, codes: Codes, kind: str) -> "Scaling":
        """Return the scaling of `per_dimension`, `global` or `none`.

        A block of columns is held at a time, whatever the codes take. Of codes of several
        architectures, only numbers that a network has count.

        Args:
            codes: to learn it from.
            kind: of scaling.
        """
        if kind == "none":
            return cls(torch.zeros(()), torch.ones(()))
        width = max(1, _BLOCK_NUMBERS // len(codes))
        present_AK, kind_N = codes.shape.present_AK, codes.kind_N
        if present_AK is None:
            pairs = [_moments(columns.double()) for columns in codes.columns(width)]
            mean_K, variance_K = map(torch.cat, zip(*pairs, strict=True))
            mean_variance = variance_K.mean()
        else:
            parts = zip(codes.columns(width), present_AK.split(width, dim=1), strict=True)
            triples = [_moments_of_present(part.double(), has[kind_N]) for part, has in parts]
            mean_K, squares_K, count_K = map(torch.cat, zip(*triples, strict=True))
            variance_K = squares_K / count_K.clamp(min=1)
            mean_variance = squares_K.sum() / count_K.sum()
        if kind == "global":
            variance_K = mean_variance
        # A number that never varies stays as it is.
        deviation_K = torch.where(variance_K > 0, variance_K.sqrt(), torch.ones_like(variance_K))
        return cls(mean_K.float(), deviation_K.float())

    def to(self, device: torch.device) -> "Scaling":
        """Return it on a device."""
        return Scaling(self.mean.to(device), self.deviation.to(device))

    def apply(self, codes_NK: torch.Tensor, present_NK: torch.Tensor | None = None) -> torch.Tensor:
        """Return codes in standardised units; 0 where `present_NK` says that a code has none."""
        standardised_NK = (codes_NK - self.mean) / self.deviation
        return standardised_NK if present_NK is None else standardised_NK * present_NK

    def undo(self, codes_NK: torch.Tensor) -> torch.Tensor:
        """Return codes in their own units."""
        return codes_NK * self.deviation + self.mean

    def log_volume(self, num_features: int, present_NK: torch.Tensor | None = None) -> torch.Tensor:
        """Return the log determinant of `undo`, float64: a scalar, or [N] of what each code has."""
        logs_K = self.deviation.double().log().expand(num_features)
        return logs_K.sum() if present_NK is None else (logs_K * present_NK).sum(1)


def _moments(codes_NK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (mean_K, variance_K)."""
    mean_K = codes_NK.mean(0)
    return mean_K, (codes_NK - mean_K).square().mean(0)


def _moments_of_present(
    codes_NK: torch.Tensor, present_NK: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (mean_K, sum of squared differences from it, count_K) of what is present."""
    count_K = present_NK.sum(0)
    mean_K = (codes_NK * present_NK).sum(0) / count_K.clamp(min=1)
    return mean_K, ((codes_NK - mean_K).square() * present_NK).sum(0), count_K
