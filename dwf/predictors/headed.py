"""The base of predictors that make features of networks, from which a head tells the properties.

Shape suffixes: N networks, F features, P properties.
"""

import numpy as np

from dwf.plain import Json, State
from dwf.predictors.config import HeadedSettings
from dwf.predictors.examples import Examples
from dwf.predictors.heads import Labelled, Table, make_head
from dwf.predictors.predictor import Predictor
from dwf.run_folder import RunPart
from dwf.zoo.moments import Sources


class HeadedPredictor(Predictor):
    """Base of predictors of two parts; a kind gives `features`, and what it needs for them.

    Args:
        config: its settings.
    """

    config: HeadedSettings

    def __init__(self, config: HeadedSettings):
        super().__init__(config)
        self.head = make_head(config.head)

    def _prepare(self, train: Examples, run: RunPart) -> None:
        """Learn what features need: layouts, categories, a codec."""
        raise NotImplementedError

    def features(self, sources: Sources) -> Table:
        """Return features of networks, in their order.

        Raises:
            ShapeMismatch: networks of a layout that it does not know.
        """
        raise NotImplementedError

    def fit(self, train: Examples, val: Examples, *, run: RunPart, seed: int) -> dict[str, Json]:
        """Make features of the networks, and fit the head to them; see the base."""
        self._refuse_empty(train)
        self.properties = train.properties
        self._prepare(train, run)
        told, held_out = (
            Labelled(self.features(some.sources), some.values_NP) for some in (train, val)
        )
        found = self.head.fit(told, held_out, run=run, seed=seed)
        return {"num_features": told.features.shape[1], **found}

    def predict(self, sources: Sources) -> np.ndarray:
        """Return what the head says; see the base."""
        return self.head.predict(self.features(sources))

    def predict_last(self, sources: Sources) -> np.ndarray:
        """Return what the head of the last step says; see the base."""
        return self.head.predict_last(self.features(sources))

    def _state(self) -> State:
        return super()._state() | {"head": self.head.state()}

    def _restore(self, state: State) -> None:
        super()._restore(state)
        self.head.restore(state["head"])
