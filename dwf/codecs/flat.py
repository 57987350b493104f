"""The weights themselves as a code, shifted and scaled by what the training networks show.

Shape suffixes: N networks, D numbers of a network, K numbers that the codec covers.
"""

from collections.abc import Sequence

import numpy as np
import torch

from dwf.codecs.codec import Codec, count_covered
from dwf.codecs.codes import CodeShape
from dwf.codecs.config import FlatConfig
from dwf.codecs.standardise import floored, standardisation
from dwf.run_folder import RunFolder
from dwf.zoo.layout import Layout
from dwf.zoo.moments import Sources, common_layout, measure_moments


class FlatCodec(Codec):
    """Codes are weights: `(weight - shift) / scale`, exact both ways up to float32 rounding."""

    @classmethod
    def planned_shape(
        cls, config: FlatConfig, layouts: Sequence[Layout], *, num_train: int
    ) -> CodeShape:
        """Return vectors of all that is covered; see `Codec.planned_shape`."""
        (layout,) = layouts
        return CodeShape.vectors(layout.digest, count_covered(layout, config.buffers))

    @property
    def shape(self) -> CodeShape:
        """Vectors of all that is covered."""
        return CodeShape.vectors(self.layout.digest, self.num_covered)

    def fit(self, train: Sources, val: Sources, *, run: RunFolder, seed: int = 0) -> "FlatCodec":
        """Learn shift and scale from training networks; see `Codec.fit`."""
        self.layout = common_layout(train)
        moments = measure_moments(train)
        shift_D, scale_D = standardisation(
            moments, self.layout, standardise=self.config.standardise
        )
        covered = np.concatenate([np.arange(*span) for span in self.spans])
        self.arrays = {
            "template_D": moments.mean_D.astype(np.float32),
            "shift_K": shift_D[covered].astype(np.float32),
            "scale_K": floored(scale_D[covered]).astype(np.float32),
        }
        self.facts = {"networks": moments.num_networks, "code_size": self.num_covered}
        return self

    def log_volume(self, layout: Layout) -> float:
        """Return the sum of the logarithms of the scales; see `Codec.log_volume`."""
        if self.config.standardise == "none":
            return 0.0
        return float(np.log(self.arrays["scale_K"].astype(np.float64)).sum())

    def _encode(self, weights_ND: torch.Tensor) -> torch.Tensor:
        values_NK = torch.cat([weights_ND[:, start:stop] for start, stop in self.spans], 1)
        if self.config.standardise == "none":
            return values_NK
        return values_NK.sub_(self._array("shift_K")).div_(self._array("scale_K"))

    def _decode_into(self, values_NK: torch.Tensor, weights_ND: torch.Tensor) -> None:
        if self.config.standardise != "none":
            values_NK = values_NK * self._array("scale_K") + self._array("shift_K")
        at = 0
        for start, stop in self.spans:
            weights_ND[:, start:stop] = values_NK[:, at : at + stop - start]
            at += stop - start

    def _array(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name])
