"""Spectra of weight matrices as features.

Shape suffixes: B networks of a block, D numbers of a network, F features.
"""

import numpy as np

from dwf.plain import State
from dwf.predictors.config import SpectraConfig
from dwf.predictors.examples import Examples
from dwf.predictors.features import Columns, Place, stream_features, tensors_of
from dwf.predictors.headed import HeadedPredictor
from dwf.predictors.heads import Table
from dwf.predictors.spectra import FEATURES, matrices_of, spectral_features
from dwf.run_folder import RunPart
from dwf.zoo.layout import Layout
from dwf.zoo.moments import Sources


class Spectral(HeadedPredictor):
    """Tail exponent, norms, stable rank and entropy of each weight matrix, see `spectra`."""

    settings = SpectraConfig
    columns: Columns

    def _prepare(self, train: Examples, run: RunPart) -> None:
        layouts = [places_of(zoo.layout) for zoo, rows in train.sources if len(rows)]
        self.columns = Columns(layouts, len(FEATURES))

    def features(self, sources: Sources) -> Table:
        """Return spectral features of the networks' matrices; see the base."""
        return Table(stream_features(sources, _features, columns=self.columns, places_of=places_of))

    def _own(self) -> State:
        return self.columns.to_json()

    def _take_own(self, own: State) -> None:
        self.columns = Columns.from_json(own)


def places_of(layout: Layout) -> list[Place]:
    """Return the place of each matrix, in the order of `spectral_features`."""
    place_of = {entry.name: place for place, (entry,) in tensors_of(layout).items()}
    return [place_of[entry.name] for entry in matrices_of(layout)]


def _features(weights_BD: np.ndarray, layout: Layout) -> np.ndarray:
    return spectral_features(weights_BD, layout).reshape(len(weights_BD), -1)
