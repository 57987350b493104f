"""Shift and scale of each layer's tokens, learnt from training networks alone.

A layer's weight and its bias share them: a token holds numbers of both.

Shape suffixes: N networks, B networks of a block, D numbers of a network, T tokens, C numbers of a
token, L layers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from dwf.codecs.tokens.geometry import Geometry
from dwf.errors import ShapeMismatch
from dwf.ranks import world
from dwf.zoo.moments import Moments, Sources, common_layout, measure_moments, parts_of

Standardise = Literal["none", "per_layer", "min_max", "run_time"]
# As for flat codes: what hardly varies over a layer and the training networks is scaled as if it
# varied by this share of what all layers do.
_LEAST_SCALE = 1e-3


@dataclass(frozen=True)
class TokenScaling:
    """`(number - shift) / scale`, one shift and one scale for each layer."""

    shift_L: np.ndarray
    """float32."""
    scale_L: np.ndarray
    """float32, above 0."""

    @classmethod
    def fit(
        cls,
        sources: Sources,
        geometry: Geometry,
        *,
        kind: Standardise,
        moments: Moments | None = None,
    ) -> "TokenScaling":
        """Learn from training networks, streamed; ranks call it together.

        Args:
            sources: training networks, all of the geometry's layout.
            geometry: of their tokens.
            kind: `per_layer`: mean 0 and deviation 1 over all numbers of a layer and all networks;
                `min_max`: -1 to 1; `none`, and `run_time`, where the loss does it: as they are.
            moments: of these networks, where they are known.

        Raises:
            TooFewNetworks: no network.
            ShapeMismatch: networks of another layout.
            CorruptShard: a row does not match its checksum.
        """
        if kind in ("none", "run_time"):
            num_layers = len(geometry.layers)
            return cls(np.zeros(num_layers, np.float32), np.ones(num_layers, np.float32))
        layout = common_layout(sources)
        if layout.digest != geometry.layout.digest:
            raise ShapeMismatch(
                f"{sources[0][0].path} has layout {layout.digest}, the tokens are of "
                f"{geometry.layout.digest}: scale each architecture by networks of its own"
            )
        if kind == "per_layer":
            return cls.of_moments(moments or measure_moments(sources), geometry)
        least_L, most_L = _measure_range(sources, geometry)
        return cls._floored((most_L + least_L) / 2, (most_L - least_L) / 2)

    @classmethod
    def of_moments(cls, moments: Moments, geometry: Geometry) -> "TokenScaling":
        """Return the scaling `per_layer` that moments of the training networks mean.

        The variance of a layer's numbers over all networks is the mean of each number's own, and
        the variance of their means.
        """
        mean_D, variance_D = moments.mean_D, moments.variance_D
        shift_L, scale_L = [], []
        for spans in _spans(geometry):
            mean = np.concatenate([mean_D[span] for span in spans])
            own = np.concatenate([variance_D[span] for span in spans])
            shift_L.append(mean.mean())
            scale_L.append(np.sqrt(own.mean() + mean.var()))
        return cls._floored(np.array(shift_L), np.array(scale_L))

    @classmethod
    def _floored(cls, shift_L: np.ndarray, scale_L: np.ndarray) -> "TokenScaling":
        """Keep layers that no training network varies near their value; never divide by 0."""
        spread = np.sqrt(np.mean(scale_L**2))
        scale_L = np.maximum(scale_L, _LEAST_SCALE * spread) if spread else np.ones_like(scale_L)
        return cls(shift_L.astype(np.float32), scale_L.astype(np.float32))

    @property
    def changes(self) -> bool:
        """Whether it does anything."""
        return bool(self.shift_L.any() or (self.scale_L != 1).any())

    def apply(
        self, tokens: torch.Tensor, layer_T: torch.Tensor, *, mask_TC: torch.Tensor
    ) -> torch.Tensor:
        """Return tokens scaled; padding stays 0.

        Args:
            tokens: float32, shape [..., T, C].
            layer_T: the layer of each token, int64.
            mask_TC: which slots hold a number, bool.
        """
        if not self.changes:
            return tokens
        shift_T1, scale_T1 = self._of_tokens(layer_T)
        return (tokens - shift_T1).div_(scale_T1).mul_(mask_TC)

    def undo(
        self, tokens: torch.Tensor, layer_T: torch.Tensor, *, mask_TC: torch.Tensor
    ) -> torch.Tensor:
        """Return tokens as they were before `apply`; padding says nothing."""
        if not self.changes:
            return tokens
        shift_T1, scale_T1 = self._of_tokens(layer_T)
        return (tokens * scale_T1).add_(shift_T1).mul_(mask_TC)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return it as named arrays; `from_arrays` is the inverse."""
        return {"shift_L": self.shift_L, "scale_L": self.scale_L}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "TokenScaling":
        """Return the scaling whose arrays are these, or among these."""
        return cls(arrays["shift_L"], arrays["scale_L"])

    def _of_tokens(self, layer_T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        both_2L = torch.from_numpy(np.stack([self.shift_L, self.scale_L])).to(layer_T.device)
        return tuple(both_2L[:, layer_T].unsqueeze(2))


def _spans(geometry: Geometry) -> list[list[slice]]:
    """Return the stretches of a row of weights that each layer is."""
    return [
        [slice(entry.offset, entry.stop) for entry in (layer.weight, layer.bias) if entry]
        for layer in geometry.layers
    ]


def _measure_range(sources: Sources, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the greatest number of each layer, float64."""
    parts, layers = parts_of(sources), _spans(geometry)

    def gather(part: int) -> np.ndarray:
        ranges_2L = np.full((2, len(layers)), [[np.inf], [-np.inf]])
        for zoo, rows_B in parts[part]:
            weights_BD = zoo.read(rows_B)
            for layer, spans in enumerate(layers):
                for span in spans:
                    found = weights_BD[:, span]
                    ranges_2L[0, layer] = min(ranges_2L[0, layer], found.min())
                    ranges_2L[1, layer] = max(ranges_2L[1, layer], found.max())
        return ranges_2L

    every = np.stack(list(world().in_order(len(parts), gather)))
    for zoo, rows in sources:
        zoo.note_checked(rows)
    return every[:, 0].min(0), every[:, 1].max(0)
