"""One token per hidden unit: networks as sets of neurons.

A token is a hidden unit's incoming weights (a filter's kernel) and what is its own, as its bias; of
the last hidden layer also its outgoing weights. One more token is the output layer's bias: see
`layers.py`. Every weight is in one token, so the way back is exact: a weight between two
hidden layers belongs to the later one's unit. Running statistics are left to the template.

What is equivariant: reordering the units of the last hidden layer reorders their tokens and changes
nothing else, as long as the numbers are standardised alike for all units (`per_feature`, `none`).
What relies on alignment: the order of the units of an earlier hidden layer is also that of the
numbers within the next layer's tokens. With one hidden layer nothing relies on it.

Scales are left alone (`kept`): the zoo's alignment fixes them (`scale: balanced`), for a
generator's samples and for the networks they are compared with alike. Else units are balanced
before tokens are made (see `align/canonical.py`). That keeps the function, and it is the point of
least squared norm among all scales of a network, so it is one point for each function's scales.
`balanced` leaves it at that. `logarithm` remembers the factor: of a unit whose incoming weights
were f times those of the token, log f. A unit without incoming or without outgoing weights is dead;
it has no such scale and keeps its own, with f = 1.

Several architectures, of other widths, share one sequence with a mask for each; the same feature
of the same layer is standardised alike for all of them.

Shape suffixes: N networks, B networks of a block, D numbers of a network, E numbers of a network
and logarithms of its hidden units, T tokens, C numbers of the longest token, K numbers of all
tokens, S slots of all tokens, U units of all hidden layers, A architectures.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dwf.codecs.codes import Codes, CodeShape
from dwf.codecs.config import NeuronsConfig
from dwf.codecs.neurons.layers import NeuronTokens, check_units, token_sequence
from dwf.codecs.neurons.scaling import Measured, balanced, measure, scale_back, standardisation
from dwf.codecs.several import SeveralLayouts, refuse_other_kind
from dwf.metrics import logger
from dwf.ranks import world
from dwf.run_folder import RunFolder
from dwf.zoo.layout import Layout
from dwf.zoo.moments import Source, Sources, refuse_none

# A zoo whose units' logarithms are larger than this was not balanced. Float32 leaves about 1e-7.
_BALANCED = 1e-3


class NeuronsCodec(SeveralLayouts):
    """Codes are sequences of neurons, standardised; exact both ways up to float32 rounding."""

    cure = (
        "give it networks of the zoo's architecture, or fit another with their zoo among more_zoos"
    )

    @classmethod
    def planned_shape(
        cls, config: NeuronsConfig, layouts: Sequence[Layout], *, num_train: int
    ) -> CodeShape:
        """Return sequences of every number but running statistics, and of the logarithms."""
        return _sequence(config, tuple(layouts)).code_shape

    @property
    def shape(self) -> CodeShape:
        """Sequences of neurons, which networks of all its layouts share."""
        return self._tokens.code_shape

    def fit(self, train: Sources, val: Sources, *, run: RunFolder, seed: int = 0) -> "NeuronsCodec":
        """Learn shift and scale from training networks; see `Codec.fit`.

        The zoos may differ in the widths of hidden layers; `self.layout` is the first's.

        Raises:
            TooFewNetworks: there is no network.
            ConfigError: a layer has no tokens, or units cannot be scaled; the zoos differ in more
                than widths; or a unit is zero in all networks.
        """
        refuse_none(train)
        train = [source for source in train if len(source[1])]
        self._take(list({zoo.layout.digest: zoo.layout for zoo, _ in train}.values()))
        for zoo, _ in train:
            check_units(zoo, scaled=self.config.scale != "kept")
        measured = []
        for digest, layout in self.layouts.items():
            of_layout = [source for source in train if source[0].layout.digest == digest]
            measured.append(measure(layout, of_layout, scale=self.config.scale))
        scalings = standardisation(measured, self._tokens, standardise=self.config.standardise)
        for layout, one, scaling in zip(self.layouts.values(), measured, scalings, strict=True):
            named = dict(zip(("shift_D", "scale_D"), scaling, strict=True))
            for name, array in ({"template_D": one.mean_E[: layout.size]} | named).items():
                self.arrays[self._name(name, layout.digest)] = array.astype(np.float32)
        self.facts = self._describe(measured)
        self._warn(measured, train)
        return self

    def _take(self, layouts: Sequence[Layout]) -> None:
        """Learn the shapes of the architectures; the first is the codec's own."""
        self.layout = layouts[0]
        self.layouts = {layout.digest: layout for layout in layouts}
        self._tokens = _sequence(self.config, tuple(layouts))

    def _describe(self, measured: Sequence[Measured]) -> dict:
        facts = {
            "networks": sum(one.num_networks for one in measured),
            "code_size": self.shape.size,
            "tokens": self.shape.num_tokens,
            "sections": [list(section) for section in self.shape.sections],
        }
        if len(measured) > 1:
            facts["architectures"] = len(measured)
        if self.config.scale != "kept":
            facts["log_scale"] = max(one.log_scale for one in measured)
            facts["dead_units"] = sum(one.num_dead for one in measured)
        return facts

    def _warn(self, measured: Sequence[Measured], train: Sequence[Source]) -> None:
        if self.config.scale == "kept" or not world().is_first:
            return
        names = ", ".join(str(zoo.path) for zoo, _ in train)
        if num_dead := self.facts["dead_units"]:
            num = sum(len(rows) for _, rows in train)
            logger.warning(
                "codec.scale = %s: %d units of %d networks of %s have no incoming or no outgoing "
                "weights, and keep their scale",
                *(self.config.scale, num_dead, num, names),
            )
        if self.config.scale == "balanced" and self.facts["log_scale"] > _BALANCED:
            logger.warning(
                "codec.scale = balanced, but units of %s are not balanced (scaled by a factor of "
                "e^%.2g): samples will stand in another scale than the zoo, and the distances of a "
                "report count it; align the zoo with scale: balanced, as "
                "configs/align/balanced.yaml does, and learn from that",
                *(names, self.facts["log_scale"]),
            )

    def log_volume(self, layout: Layout) -> float | None:
        """Return the sum of the logarithms of the scales, if weights are `kept`; see the base."""
        if self.config.scale != "kept":
            return None
        self._refuse_other(layout.digest)
        order_K, _ = self._slots(layout)
        scale_D = self._array("scale_D", layout).double()
        return scale_D[order_K].log().sum().item()

    def encode(self, weights_ND: torch.Tensor, layout: Layout) -> Codes:
        """Return the codes of networks of any layout that it was fitted to; see `Codec.encode`."""
        self._refuse_other(layout.digest)
        rows_NE = self._rows(weights_ND, layout)
        shift_E, scale_E = (self._array(name, layout) for name in ("shift_D", "scale_D"))
        standardised_NE = (rows_NE - shift_E).div_(scale_E)
        order_K, slots_K = self._slots(layout)
        values = torch.zeros(len(weights_ND), *self.shape.of_code)
        values.flatten(1)[:, slots_K] = standardised_NE[:, order_K]
        kind_N = None
        if self.shape.is_mixed:
            kind_N = torch.full((len(values),), self.shape.layouts.index(layout.digest))
        return Codes(values, self.shape, kind_N=kind_N)

    def decode(self, codes: Codes, layout: Layout) -> torch.Tensor:
        """Return weights_ND of codes, uncovered numbers from the template; see `Codec.decode`.

        Raises:
            ShapeMismatch: the codes are of another layout, or not all of this one.
        """
        self._refuse_other(codes.shape.layout)
        self._refuse_other(layout.digest)
        refuse_other_kind(codes, layout)
        order_K, slots_K = self._slots(layout)
        shift_E, scale_E = (self._array(name, layout) for name in ("shift_D", "scale_D"))
        template_D = self._array("template_D", layout)
        rows_NE = torch.zeros(len(codes), len(shift_E))
        rows_NE[:, : layout.size] = template_D
        rows_NE[:, order_K] = codes.values.flatten(1)[:, slots_K]
        rows_NE.mul_(scale_E).add_(shift_E)
        if self.config.scale == "logarithm":
            scale_back(rows_NE, layout)
        return rows_NE[:, : layout.size].contiguous()

    def _rows(self, weights_ND: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Return rows_NE: weights in the scale of codes, and, if they are covered, logarithms."""
        if self.config.scale == "kept":
            return weights_ND
        balanced_ND, log_NU = balanced(weights_ND, layout)
        if self.config.scale == "balanced":
            return balanced_ND
        return torch.cat([balanced_ND, log_NU.float()], 1)

    def _slots(self, layout: Layout) -> tuple[torch.Tensor, torch.Tensor]:
        """Return where in a row each number of its tokens lies, and in which slot it stands."""
        place_S = self._tokens.place_ATC[self._tokens.layouts.index(layout)].ravel()
        slots_K = np.flatnonzero(place_S >= 0)
        return torch.from_numpy(place_S[slots_K]), torch.from_numpy(slots_K)

    def _array(self, name: str, layout: Layout) -> torch.Tensor:
        return torch.from_numpy(self.arrays[self._name(name, layout.digest)])

    def save(self, folder: Path) -> None:
        """Write it to a folder; `Codec.load` reads it."""
        self._keep_layouts()
        super().save(folder)

    def _open(self, folder: Path) -> None:
        self._take(self._kept_layouts())


def _sequence(config: NeuronsConfig, layouts: tuple[Layout, ...]) -> NeuronTokens:
    return token_sequence(layouts, config.scale == "logarithm")
