"""Standardised codes as a learnt density trains on them.

Shape suffixes: N codes, K numbers of a code, P numbers of all conditions, A architectures.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Examples:
    """Standardised codes, and what is known of each; all on the device."""

    codes_NK: torch.Tensor
    """float32; of several architectures, 0 where a network has no number."""
    condition_NP: torch.Tensor | None = None
    """Standardised conditions, NaN for none; None where the density is told nothing."""
    kind_N: torch.Tensor | None = None
    """int64, of several architectures: which each is of."""
    present_AK: torch.Tensor | None = None
    """bool, of several architectures: which numbers each has."""
    sizes: tuple[int, ...] = ()
    """Numbers of each condition, P in all."""

    def __len__(self) -> int:
        return len(self.codes_NK)

    def take(self, rows: torch.Tensor) -> "Examples":
        """Return those of some rows, which may repeat."""

        def of_rows(part: torch.Tensor | None) -> torch.Tensor | None:
            return None if part is None else part.index_select(0, rows)

        return Examples(
            codes_NK=self.codes_NK.index_select(0, rows),
            condition_NP=of_rows(self.condition_NP),
            kind_N=of_rows(self.kind_N),
            present_AK=self.present_AK,
            sizes=self.sizes,
        )

    @property
    def present_NK(self) -> torch.Tensor | None:  # noqa: N802
        """Which numbers each has; None: all."""
        return None if self.kind_N is None else self.present_AK[self.kind_N]
