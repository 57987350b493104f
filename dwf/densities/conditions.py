"""Conditions of a density: a number of each network, by which samples may be asked for.

Shape suffix: N networks.
"""

import math
from dataclasses import dataclass

import torch

from dwf.errors import ConfigError

# A person reads the range with six digits, and a zoo may hold its accuracies as float32.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Conditions:
    """Shift, scale and range of the training networks' numbers."""

    name: str
    """The zoo's column, for a person."""
    mean: float
    deviation: float
    low: float
    high: float

    @classmethod
    def fit(cls, name: str, values_N: torch.Tensor | None) -> "Conditions":
        """Return those of training networks; numbers that are not finite stand for none.

        Raises:
            ConfigError: no network has one.
        """
        values_N = torch.empty(0) if values_N is None else torch.as_tensor(values_N).double()
        known_N = values_N[values_N.isfinite()]
        if not len(known_N):
            raise ConfigError(
                f"density.condition = '{name}': no training network has one: train the zoo with "
                "data.validation above 0, or set density.condition = none"
            )
        low, high = known_N.min().item(), known_N.max().item()
        # Of equal numbers rounding would be the deviation.
        deviation = known_N.std(correction=0).item() if low < high else 1.0
        return cls(name, known_N.mean().item(), deviation=deviation, low=low, high=high)

    def standardise(self, values_N: torch.Tensor) -> torch.Tensor:
        """Return numbers in standardised units, float32; NaN where there is none."""
        values_N = torch.as_tensor(values_N).double()
        values_N = torch.where(values_N.isfinite(), values_N, math.nan)
        return ((values_N - self.mean) / self.deviation).float()

    def ask(self, value: float) -> torch.Tensor:
        """Return the condition of all samples, standardised, shape [1].

        Raises:
            ConfigError: it lies outside the training networks' range.
        """
        if not self.low - _ROUNDING <= value <= self.high + _ROUNDING:
            raise ConfigError(
                f"condition = {value:g}: the {self.name} of the networks learnt from lies in "
                f"[{self.low:.6g}, {self.high:.6g}], and outside it nothing was learnt: choose a "
                "condition within"
            )
        return self.standardise(torch.tensor([value], dtype=torch.float64))
