"""The predictor that joins several readings of a network in one head."""

from dwf.predictors.config import CombinedConfig
from dwf.predictors.joined import Joined


class Combined(Joined):
    """Readings side by side; see `CombinedConfig`."""

    settings = CombinedConfig
