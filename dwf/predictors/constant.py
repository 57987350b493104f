"""The predictor that does not look: the training networks' mean.

Shape suffixes: N networks, P properties.
"""

import numpy as np
import torch

from dwf.plain import Json, State
from dwf.predictors.config import ConstantConfig
from dwf.predictors.examples import Examples
from dwf.predictors.predictor import Predictor
from dwf.run_folder import RunPart
from dwf.zoo.moments import Sources


class Constant(Predictor):
    """The mean of each property."""

    settings = ConstantConfig
    mean_P: np.ndarray

    def fit(self, train: Examples, val: Examples, *, run: RunPart, seed: int) -> dict[str, Json]:
        """Take the mean; see the base."""
        self._refuse_empty(train)
        self.properties, self.mean_P = train.properties, train.values_NP.mean(0)
        return {}

    def predict(self, sources: Sources) -> np.ndarray:
        """Return the means; see the base."""
        count = sum(len(rows) for _, rows in sources)
        return np.tile(self.mean_P, (count, 1))

    def _own(self) -> State:
        return {"mean_P": torch.from_numpy(self.mean_P)}

    def _take_own(self, own: State) -> None:
        self.mean_P = own["mean_P"].numpy()
