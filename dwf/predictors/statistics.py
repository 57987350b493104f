"""Statistics of tensors, and norms of layers, as features.

They know networks of any width: what counts is which tensors a network has. A layout with tensors
that no layout had which they learnt from is refused.

Shape suffixes: N networks, F features.
"""

import numpy as np

from dwf.plain import State
from dwf.predictors.config import NormsConfig, StatisticsConfig
from dwf.predictors.examples import Examples
from dwf.predictors.features import (
    STATISTICS,
    WHOLE,
    Columns,
    Place,
    layers_of,
    norms,
    statistics,
    stream_features,
    tensors_of,
)
from dwf.predictors.headed import HeadedPredictor
from dwf.predictors.heads import Table
from dwf.run_folder import RunPart
from dwf.zoo.layout import Layout
from dwf.zoo.moments import Sources


class Statistics(HeadedPredictor):
    """StatNN (Unterthiner et al., arXiv 2002.11448): mean, variance, quantiles of each tensor."""

    settings = StatisticsConfig
    columns: Columns

    def _prepare(self, train: Examples, run: RunPart) -> None:
        layouts = [list(tensors_of(zoo.layout)) for zoo, rows in train.sources if len(rows)]
        self.columns = Columns(layouts, len(STATISTICS))

    def features(self, sources: Sources) -> Table:
        """Return statistics of the networks' tensors; see the base."""
        return Table(
            stream_features(sources, statistics, columns=self.columns, places_of=tensors_of)
        )

    def _own(self) -> State:
        return self.columns.to_json()

    def _take_own(self, own: State) -> None:
        self.columns = Columns.from_json(own)


class Norms(HeadedPredictor):
    """Norms of layers, and of the whole network."""

    settings = NormsConfig
    config: NormsConfig
    columns: Columns

    def _prepare(self, train: Examples, run: RunPart) -> None:
        layouts = [self._places(zoo.layout) for zoo, rows in train.sources if len(rows)]
        self.columns = Columns(layouts, num_each=1)

    def _places(self, layout: Layout) -> list[Place]:
        return [*layers_of(layout), WHOLE] if self.config.layers else [WHOLE]

    def features(self, sources: Sources) -> Table:
        """Return norms of the networks' layers, as far as asked for; see the base."""
        return Table(
            stream_features(sources, self._norms, columns=self.columns, places_of=self._places)
        )

    def _norms(self, weights_ND: np.ndarray, layout: Layout) -> np.ndarray:
        features_NF = norms(weights_ND, layout)
        return features_NF if self.config.layers else features_NF[:, -1:]

    def _own(self) -> State:
        return self.columns.to_json()

    def _take_own(self, own: State) -> None:
        self.columns = Columns.from_json(own)
