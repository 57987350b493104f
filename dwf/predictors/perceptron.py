"""A perceptron as head: it trains as all else that learns, and resumes to the same bytes.

Shape suffixes: N networks, B networks of a batch, F features, P properties.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from dwf.devices import find_device
from dwf.plain import Json, State
from dwf.predictors.head_config import PerceptronConfig
from dwf.predictors.heads import Head, Labelled, Scaling
from dwf.predictors.regression import Regression, Trained
from dwf.randomness import seeded
from dwf.run_folder import RunPart
from dwf.training.task import refuse_few

_FARTHEST = 10.0  # deviations, beyond which a feature says no more: one odd network moves no other


class Perceptron(Trained, Head):
    """Hidden layers of rectified units; all properties at once."""

    settings = PerceptronConfig
    config: PerceptronConfig
    scaling: Scaling

    def __init__(self, config: PerceptronConfig):
        super().__init__(config)
        self.device = find_device(config.training.compute.device)

    def _fit(self, train: Labelled, val: Labelled, *, run: RunPart, seed: int) -> dict[str, Json]:
        training = self.config.training
        refuse_few(len(train), training.batch_size, key="head.training")
        self.scaling = Scaling.of(train.features)
        with seeded(seed, "initialisation"):
            self.module = self._fitting_module().to(self.device)
        task = HeadTask(self, train=train, val=val)
        return self._learn(task, training, run=run, seed=seed, what="perceptron")

    def _new_module(self) -> nn.Module:
        config, size, layers = self.config, self.num_features, []
        for _ in range(config.depth):
            layers += [nn.Linear(size, config.width), nn.ReLU(), nn.Dropout(config.dropout)]
            size = config.width
        return nn.Sequential(*layers, nn.Linear(size, self.targets.num_properties))

    def inputs(self, features_BF: np.ndarray) -> torch.Tensor:
        """Return what the module takes, float32, on the device."""
        scaled_BF = self.scaling.apply(features_BF).clip(-_FARTHEST, _FARTHEST)
        return torch.from_numpy(scaled_BF.astype(np.float32)).to(self.device)

    @torch.no_grad()
    def _tell(self, features_BF: np.ndarray, last: bool) -> np.ndarray:
        module = self.last_module if last and self.last_module else self.module
        return module(self.inputs(features_BF)).double().cpu().numpy()

    def _own(self) -> State:
        return {"scaling": self.scaling.state(), **self._modules()}

    def _take_own(self, own: State) -> None:
        self.scaling = Scaling.restore(own["scaling"])
        self._take_modules(own)


class HeadTask(Regression[torch.Tensor]):
    """The regression of properties on features of networks drawn at random.

    Args:
        head: whose module learns.
        train: networks to learn from.
        val: held-out networks; may be none.
    """

    def __init__(self, head: Perceptron, *, train: Labelled, val: Labelled):
        wanted_NP, val_wanted_NP = (
            torch.from_numpy(head.targets.apply(some.values_NP)).float() for some in (train, val)
        )
        super().__init__(
            head.module, loss=head.config.loss, wanted_NP=wanted_NP, val_wanted_NP=val_wanted_NP
        )
        self.head, self.train, self.val = head, train, val

    def inputs(self, places_B: np.ndarray) -> torch.Tensor:
        """Return features of training networks, scaled; see the base."""
        return self.head.inputs(self.train.features.rows(places_B))

    def held_out(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield features of held-out networks, a block at a time; see the base."""
        for places_B in self.val.features.blocks():
            inputs_BF = self.head.inputs(self.val.features.rows(places_B))
            yield slice(places_B[0], places_B[-1] + 1), inputs_BF
