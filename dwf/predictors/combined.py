"""The predictor that joins several readings of a network in one head.

Shape suffixes: N networks, B networks of a batch, F features.
"""

import numpy as np
import torch
from torch import nn

from dwf.plain import State
from dwf.predictors.config import CombinedConfig
from dwf.predictors.examples import Examples
from dwf.predictors.features import (
    STATISTICS,
    Columns,
    statistics,
    stream_features,
    tensors_of,
)
from dwf.predictors.joined import Joined, Reader, Reading
from dwf.zoo.moments import Sources


class AsTheyAre(Reading):
    """Features themselves.

    Args:
        size: F.
    """

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, features_BF: torch.Tensor) -> torch.Tensor:
        """Return the features."""
        return features_BF


class StatisticsReader(Reader[None, torch.Tensor]):
    """Statistics of tensors, in units of the training networks; what a layout lacks is 0."""

    columns: Columns
    mean_F: torch.Tensor
    std_F: torch.Tensor

    def prepare(self, train: Examples) -> None:
        """Learn the places of tensors, and mean and deviation of their statistics; see the base."""
        sources = [source for source in train.sources if len(source[1])]
        self.columns = Columns(
            [list(tensors_of(zoo.layout)) for zoo, _ in sources], len(STATISTICS)
        )
        features_NF = self._features(sources)
        mean_F, std_F = np.nanmean(features_NF, 0), np.nanstd(features_NF, 0)
        self.mean_F = torch.from_numpy(mean_F)
        self.std_F = torch.from_numpy(np.where(std_F > 0, std_F, 1.0))

    def new_module(self) -> nn.Module:
        """Return what hands them on; see the base."""
        return AsTheyAre(self.columns.size)

    def inputs(self, sources: Sources) -> torch.Tensor:
        """Return them, each drawn together by asinh, as a few are very large; see the base."""
        features_BF = torch.from_numpy(self._features(sources))
        return (
            ((features_BF - self.mean_F) / self.std_F).asinh().nan_to_num().float().to(self.device)
        )

    def _features(self, sources: Sources) -> np.ndarray:
        return stream_features(sources, statistics, columns=self.columns, places_of=tensors_of)

    def own(self) -> State:
        """Return places and units; see the base."""
        return {"columns": self.columns.to_json(), "mean_F": self.mean_F, "std_F": self.std_F}

    def take_own(self, own: State) -> None:
        """Take places and units; see the base."""
        self.columns = Columns.from_json(own["columns"])
        self.mean_F, self.std_F = own["mean_F"], own["std_F"]


class Combined(Joined):
    """Readings side by side; see `CombinedConfig`."""

    settings = CombinedConfig
