"""Rows of the first layer along directions that are not coded: drawn around what the codes say.

Training leaves the leading directions of a row to say something of the others: where neighbouring
inputs vary together, so do their weights. So the rest of a unit's row is drawn around what the
coded part of it says by linear regression over the zoo's units, with the deviation that remains.
Both are relative to the norm of the coded part, as the scale of a unit is that of its whole row.

Shape suffixes: N networks, U units of the first layer, C coded directions and the mean
pre-activation, R the other directions, Z both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dwf.codecs.functions.units import UnitCoder
from dwf.ranks import world
from dwf.zoo.moments import Sources, count_networks, parts_of

_LEAST = 1e-6  # a smaller norm is none
_UNITS_EACH = 4
"""Units for each coded direction, of fewer of which nothing is regressed."""


@dataclass(frozen=True, eq=False)
class Rest:
    """Distribution of the rest of a unit's row, given its token."""

    slope_CR: torch.Tensor
    """Coefficients of the regression of the rest on the coded part."""
    deviation_R: torch.Tensor
    """Deviation that remains, relative to the norm of the coded part."""

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return named arrays, from which `of` makes it again."""
        named = {"rest_slope_CR": self.slope_CR, "rest_deviation_R": self.deviation_R}
        return {name: tensor.numpy() for name, tensor in named.items()}

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray]) -> "Rest":
        """Return what `to_arrays` made arrays of."""
        names = ("rest_slope_CR", "rest_deviation_R")
        return cls(*(torch.from_numpy(arrays[name]) for name in names))

    @classmethod
    def fit(cls, learnt: Sequence[tuple[UnitCoder, Sources]]) -> "Rest":
        """Measure it over the units of networks. Ranks call it together and share them.

        Args:
            learnt: the coder and the networks of each architecture.
        """
        first, _ = learnt[0]
        total_ZZ, units = 0.0, 0
        for coder, sources in learnt:
            total_ZZ = total_ZZ + _sum_products(coder, sources)
            units += count_networks(sources) * coder.sections[0][0]
        return cls._solve(total_ZZ, first.components + 1, units=units)

    @classmethod
    def _solve(cls, total_ZZ: np.ndarray, coded: int, *, units: int) -> "Rest":
        among_CC, between_CR = total_ZZ[:coded, :coded], total_ZZ[:coded, coded:]
        slope_CR, free = np.zeros_like(between_CR), units
        if units >= _UNITS_EACH * coded:
            slope_CR, free = np.linalg.lstsq(among_CC, between_CR)[0], units - coded
        left_R = total_ZZ.diagonal()[coded:] - (slope_CR * between_CR).sum(0)
        deviation_R = np.sqrt(left_R.clip(min=0) / free)
        return cls(*(torch.from_numpy(each).float() for each in (slope_CR, deviation_R)))

    def around(self, token_NUC: torch.Tensor, normal_NUR: torch.Tensor) -> torch.Tensor:
        """Return the rest of rows, rest_NUR, drawn around what is expected of it.

        Args:
            token_NUC: tokens of the first layer, before standardising.
            normal_NUR: numbers from a standard normal.
        """
        coded_NUC = token_NUC[..., : len(self.slope_CR)]
        expected_NUR = coded_NUC @ self.slope_CR
        return expected_NUR + _norm(coded_NUC) * self.deviation_R * normal_NUR


def _norm(coded_NUC: torch.Tensor) -> torch.Tensor:
    """Return the norm of the coded directions, [N, U, 1], the mean pre-activation apart."""
    return coded_NUC[..., :-1].norm(dim=2, keepdim=True)


def _sum_products(coder: UnitCoder, sources: Sources) -> np.ndarray:
    """Return the sum over units of z z^T, z its whole row by the norm of the coded part."""
    parts, coded = parts_of(sources), coder.components + 1
    size = len(coder.bases.energy_I) + 1

    def gather(part: int) -> np.ndarray:
        total_ZZ = np.zeros((size, size))
        for zoo, rows_B in parts[part]:
            for some_BD in torch.from_numpy(zoo.read(rows_B)).split(coder.chain.block_size):
                units = coder.read(some_BD)
                coded_NUC = units.tokens[0][..., :coded]
                norm_NU1 = _norm(coded_NUC)
                whole_NUZ = torch.cat([coded_NUC, units.rest_NUR], 2)
                relative_NUZ = (whole_NUZ / norm_NU1.clamp_min(_LEAST)) * (norm_NU1 > _LEAST)
                flat = relative_NUZ.flatten(0, 1).double().numpy()
                total_ZZ += flat.T @ flat
        return total_ZZ

    return sum(world().in_order(len(parts), gather), np.zeros((size, size)))
