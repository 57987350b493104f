"""A perceptron as head: it trains as all else that learns, and resumes to the same bytes.

Shape suffixes: N networks, B networks of a batch, F features, P properties.
"""

import numpy as np
import torch
from torch import nn

from dwf.devices import find_device
from dwf.errors import TooFewNetworks
from dwf.plain import Json, State
from dwf.predictors.head_config import PerceptronConfig
from dwf.predictors.heads import Head, Labelled, Scaling
from dwf.predictors.learnt import LOSSES
from dwf.randomness import seeded
from dwf.run_folder import RunPart
from dwf.training.loop import train as train_module
from dwf.training.task import Share, Task

_FARTHEST = 10.0  # deviations, beyond which a feature says no more: one odd network moves no other


class Perceptron(Head):
    """Hidden layers of rectified units; all properties at once."""

    settings = PerceptronConfig
    config: PerceptronConfig
    scaling: Scaling
    module: nn.Module
    last_module: nn.Module | None = None
    """The module after the last step, where that of another was kept."""

    def __init__(self, config: PerceptronConfig):
        super().__init__(config)
        self.device = find_device(config.training.compute.device)

    def _fit(self, train: Labelled, val: Labelled, *, run: RunPart, seed: int) -> dict[str, Json]:
        config = self.config.training
        if len(train) < config.batch_size:
            raise TooFewNetworks(
                f"{len(train)} training networks are fewer than batch_size = {config.batch_size}: "
                f"lower head.training.batch_size to at most {len(train)}, or train a larger zoo"
            )
        self.scaling = Scaling.of(train.features)
        with seeded(seed, "initialisation"):
            self.module = self._new_module()
        task = HeadTask(self, train=train, val=val)
        outcome = train_module(task, config, seed=seed, run=run, what="perceptron")
        self.module = task.module.to(self.device).eval()
        self.last_module = None if task.last is None else self._with_weights(task.last)
        return {"parameters": sum(p.numel() for p in self.module.parameters()), **vars(outcome)}

    def _new_module(self) -> nn.Module:
        config, size, layers = self.config, self.num_features, []
        for _ in range(config.depth):
            layers += [nn.Linear(size, config.width), nn.ReLU(), nn.Dropout(config.dropout)]
            size = config.width
        return nn.Sequential(*layers, nn.Linear(size, len(self.mean_P))).to(self.device)

    def inputs(self, features_BF: np.ndarray) -> torch.Tensor:
        """Return what the module takes, float32, on the device."""
        scaled_BF = self.scaling.apply(features_BF).clip(-_FARTHEST, _FARTHEST)
        return torch.from_numpy(scaled_BF.astype(np.float32)).to(self.device)

    @torch.no_grad()
    def _units(self, features_BF: np.ndarray, last: bool) -> np.ndarray:
        module = self.last_module if last and self.last_module else self.module
        return module(self.inputs(features_BF)).double().cpu().numpy()

    def _with_weights(self, state: dict[str, torch.Tensor]) -> nn.Module:
        with seeded(0, "restored"):  # its numbers are replaced
            module = self._new_module()
        module.load_state_dict(state)
        return module.eval()

    def _own(self) -> State:
        last = self.last_module
        return {
            "scaling": self.scaling.state(),
            "module": self.module.state_dict(),
            "last_module": last and last.state_dict(),
        }

    def _take_own(self, own: State) -> None:
        self.scaling = Scaling.restore(own["scaling"])
        self.module, last = self._with_weights(own["module"]), own["last_module"]
        self.last_module = last and self._with_weights(last)


class HeadTask(Task):
    """The regression of properties on features of networks drawn at random.

    Args:
        head: whose module learns.
        train: networks to learn from.
        val: held-out networks; may be none.
    """

    draws_whole_rounds = True

    def __init__(self, head: Perceptron, *, train: Labelled, val: Labelled):
        self.head, self.module, self.train, self.val = head, head.module, train, val
        self.wanted_NP = torch.from_numpy(head.units(train.values_NP)).float()
        self.val_wanted_NP = torch.from_numpy(head.units(val.values_NP)).float()
        self.share = Share()

    def start(self, step: int, share: Share) -> None:
        """Take note of which examples of a batch are this rank's; see `Task.start`."""
        self.share = share

    def loss(
        self, module: nn.Module, batch_size: int, *, generator: torch.Generator
    ) -> torch.Tensor:
        """Return the loss of networks drawn with replacement."""
        count = batch_size * self.share.world
        drawn = torch.randint(
            len(self.train), (count,), generator=generator, device=generator.device
        )
        places_B = np.sort(drawn[self.share.of_round(batch_size)].cpu().numpy())
        said_BP = module(self.head.inputs(self.train.features.rows(places_B)))
        return self._error(said_BP, self.wanted_NP[places_B])

    def _error(self, said_BP: torch.Tensor, wanted_BP: torch.Tensor) -> torch.Tensor:
        return LOSSES[self.head.config.loss](said_BP.float(), wanted_BP.to(said_BP.device))

    def validate(self, module: nn.Module) -> float | None:
        """Return the loss over held-out networks; None without any."""
        if not len(self.val):
            return None
        total = 0.0
        for places_B in self.val.features.blocks():
            said_BP = module(self.head.inputs(self.val.features.rows(places_B)))
            total += self._error(said_BP, self.val_wanted_NP[places_B]).item() * len(places_B)
        return total / len(self.val)
