"""The weights themselves as features, read from the zoos as a head asks for them.

Shape suffixes: N networks, B networks of a block, D numbers of a network, W numbers of a window.
"""

import numpy as np

from dwf.errors import ShapeMismatch
from dwf.plain import State
from dwf.predictors.config import FlatConfig
from dwf.predictors.examples import Examples
from dwf.predictors.headed import HeadedPredictor
from dwf.predictors.heads import Table
from dwf.run_folder import RunPart
from dwf.zoo.moments import Sources, count_networks


class WeightTable(Table):
    """Networks of one layout as rows of their weights, never all of which are held.

    Args:
        sources: the networks.
        size: D.
    """

    def __init__(self, sources: Sources, size: int):
        self.sources = [(zoo, rows) for zoo, rows in sources if len(rows)]
        self.shape = (count_networks(sources), size)
        self._starts = np.cumsum([0] + [len(rows) for _, rows in self.sources])

    def rows(self, places_B: np.ndarray) -> np.ndarray:
        """Return weights_BD of some networks, float32."""
        out_BD = np.empty((len(places_B), self.shape[1]), np.float32)
        owner_B = np.searchsorted(self._starts, places_B, side="right") - 1
        for index in np.unique(owner_B):
            zoo, rows = self.sources[index]
            mine_B = owner_B == index
            out_BD[mine_B] = zoo.read(rows[places_B[mine_B] - self._starts[index]])
        return out_BD

    def window(self, start: int, stop: int) -> np.ndarray:
        """Return weights_NW: those from `start` to before `stop` of all networks, float32."""
        parts = [zoo.read(rows, start, stop=stop) for zoo, rows in self.sources]
        return np.concatenate([np.zeros((0, stop - start), np.float32), *parts])


class Flat(HeadedPredictor):
    """Weights in the order of a row; those that are the same in all networks take no part."""

    settings = FlatConfig
    digest: str
    size: int

    def _prepare(self, train: Examples, run: RunPart) -> None:
        layout = next(zoo.layout for zoo, rows in train.sources if len(rows))
        self.digest, self.size = layout.digest, layout.size

    def features(self, sources: Sources) -> Table:
        """Return the weights, which are read when they are asked for; see the base."""
        for zoo, _ in sources:
            if zoo.layout.digest != self.digest:
                raise ShapeMismatch(
                    f"{zoo.path} has layout {zoo.layout.digest}, and flat learns from and tells "
                    f"networks of one layout, {self.digest}: leave the other zoos out, or take the "
                    "kind statistics"
                )
        return WeightTable(sources, self.size)

    def _own(self) -> State:
        return {"digest": self.digest, "size": self.size}

    def _take_own(self, own: State) -> None:
        self.digest, self.size = own["digest"], own["size"]
