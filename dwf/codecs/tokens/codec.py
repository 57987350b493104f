"""Networks as sequences of tokens, standardised by layer: see `geometry.py`.

Shape suffixes: N networks, D numbers of a network, T tokens, C numbers of a token.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from dwf.codecs.codec import Codec
from dwf.codecs.codes import CodeShape
from dwf.codecs.config import TokensConfig
from dwf.codecs.tokens.geometry import Geometry
from dwf.codecs.tokens.scaling import TokenScaling
from dwf.run_folder import RunFolder
from dwf.zoo.layout import Layout, Span
from dwf.zoo.moments import Sources, common_layout, measure_moments


class TokensCodec(Codec):
    """Codes are tokens; exact both ways, up to float32 rounding where they are standardised."""

    @classmethod
    def planned_shape(
        cls, config: TokensConfig, layouts: Sequence[Layout], *, num_train: int
    ) -> CodeShape:
        """Return the sequence of one layout's tokens; see `Codec.planned_shape`."""
        (geometry,) = Geometry.common(layouts, config)
        return geometry.code_shape

    def fit(self, train: Sources, val: Sources, *, run: RunFolder, seed: int = 0) -> "TokensCodec":
        """Learn shift and scale from training networks; see `Codec.fit`.

        Raises:
            ConfigError: a token size below 1 or of no use, or nothing is covered.
        """
        self.layout = common_layout(train)
        (geometry,) = Geometry.common((self.layout,), self.config)
        moments = measure_moments(train)
        scaling = TokenScaling.fit(train, geometry, kind=self.config.standardise, moments=moments)
        self.arrays = {"template_D": moments.mean_D.astype(np.float32)} | scaling.to_arrays()
        self.facts = {
            "networks": moments.num_networks,
            "code_size": geometry.num_numbers,
            "tokens": geometry.num_tokens,
            "token_size": geometry.size,
            "used": geometry.used,
        }
        return self

    @property
    def geometry(self) -> Geometry:
        """Geometry of its tokens."""
        return Geometry.of(self.layout, replace(self.config, size=self.facts["token_size"]))

    @property
    def scaling(self) -> TokenScaling:
        """Scaling of its tokens."""
        return TokenScaling.from_arrays(self.arrays)

    def spans_of(self, layout: Layout) -> list[Span]:
        """Return the stretches of a row that it covers; see `Codec.spans_of`."""
        self._refuse_other(layout.digest)
        return self.geometry.spans

    @property
    def shape(self) -> CodeShape:
        """Sequences of its tokens."""
        return self.geometry.code_shape

    def _encode(self, weights_ND: torch.Tensor) -> torch.Tensor:
        geometry = self.geometry
        tokens_NTC = geometry.tokenise(weights_ND)
        return self.scaling.apply(tokens_NTC, geometry.layer_of_token_T, mask_TC=geometry.mask_TC)

    def _decode_into(self, values: torch.Tensor, weights_ND: torch.Tensor) -> None:
        geometry = self.geometry
        tokens_NTC = self.scaling.undo(values, geometry.layer_of_token_T, mask_TC=geometry.mask_TC)
        geometry.detokenise(tokens_NTC, weights_ND)
