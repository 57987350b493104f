"""The base of predictors that train a module on networks: units, batches, validation, the file.

A kind gives its module, and what the module takes of some networks. A batch may be of several
zoos, so of several layouts: the kind's `inputs` says how they lie side by side.

Shape suffixes: N networks, B networks of a batch, P properties.
"""

from typing import Generic, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, huber_loss, l1_loss, mse_loss

from dwf.devices import find_device
from dwf.errors import ConfigError, ShapeMismatch, TooFewNetworks
from dwf.plain import Json, State
from dwf.predictors.config import LearntPredictorSettings
from dwf.predictors.examples import Examples
from dwf.predictors.predictor import Predictor
from dwf.randomness import seeded
from dwf.run_folder import RunPart
from dwf.training.loop import train as train_module
from dwf.training.task import Share, Task
from dwf.zoo.moments import Sources

Inputs = TypeVar("Inputs")
LOSSES = {
    "mse": mse_loss,
    "mae": l1_loss,
    "huber": huber_loss,
    "bce": binary_cross_entropy_with_logits,
}


class LearntPredictor(Predictor, Generic[Inputs]):
    """Base of predictors that train; a kind gives `_prepare`, `_new_module`, `inputs`, and states.

    Args:
        config: its settings.
    """

    config: LearntPredictorSettings
    module: nn.Module
    """Called as `module(inputs)`, returns [B, P], in the order of the networks: units of `mean_P`
    and `std_P`, or logits under the loss `bce`."""
    last_module: nn.Module | None = None
    """The module after the last step, where that of another was kept."""
    start: "LearntPredictor[Inputs] | None" = None
    """A fitted one, at whose weights, inputs and units `fit` begins."""
    mean_P: torch.Tensor
    std_P: torch.Tensor

    def __init__(self, config: LearntPredictorSettings):
        super().__init__(config)
        self.device = find_device(config.training.compute.device)

    def _prepare(self, train: Examples) -> None:
        """Learn what is needed before the module is built: layouts, scalings of inputs."""
        raise NotImplementedError

    def planned_module(self, few: Examples) -> nn.Module:
        """Return the module that would learn, for its sizes; called on the device `meta`.

        Args:
            few: some networks of each zoo that it would learn from.
        """
        self.properties = few.properties
        with torch.device("cpu"):
            self._prepare(few)
        return self._new_module()

    def _new_module(self) -> nn.Module:
        """Return the module with initial weights; called after `_prepare` or `_take_own`."""
        raise NotImplementedError

    def inputs(self, sources: Sources) -> Inputs:
        """Return what the module takes of some networks, on the device, in their order.

        Raises:
            ShapeMismatch: networks of a layout that it does not know.
        """
        raise NotImplementedError

    def _own(self) -> State:
        """Return what `_prepare` learnt."""
        raise NotImplementedError

    def _take_own(self, own: State) -> None:
        """Take what `_own` returned."""
        raise NotImplementedError

    def fit(self, train: Examples, val: Examples, *, run: RunPart, seed: int) -> dict[str, Json]:
        """Train the module, or go on where the run stopped; see the base."""
        config = self.config.training
        if len(train) < config.batch_size:
            raise TooFewNetworks(
                f"{len(train)} training networks are fewer than batch_size = {config.batch_size}: "
                f"lower training.batch_size to at most {len(train)}, or train a larger zoo"
            )
        self.properties = train.properties
        self._fit_units(train)
        if self.start is None:
            self._prepare(train)
        else:
            self._take_start(self.start)
        with seeded(seed, "initialisation"):
            self.module = self._new_module().to(self.device)
        if self.start is not None:
            self._take_weights(self.start)
        task = PredictionTask(self, train=train, val=val)
        outcome = train_module(task, config, seed=seed, run=run, what=self.config.kind)
        self.module = task.module.to(self.device).eval()
        if task.last is not None:
            self.last_module = self._with_weights(task.last)
        return {"parameters": sum(p.numel() for p in self.module.parameters()), **vars(outcome)}

    def start_from(self, fitted: "LearntPredictor[Inputs]") -> None:
        """Begin the next `fit` at what another has learnt; see the base."""
        self.start = fitted

    def _take_start(self, start: "LearntPredictor[Inputs]") -> None:
        if start.properties != self.properties:
            raise ConfigError(
                f"it would begin at weights that tell {', '.join(start.properties)}, and is to "
                f"tell {', '.join(self.properties)}: set the same properties"
            )
        self.mean_P, self.std_P = start.mean_P, start.std_P
        self._take_own(start._own())

    def _take_weights(self, start: "LearntPredictor[Inputs]") -> None:
        try:
            self.module.load_state_dict(start.module.state_dict())
        except RuntimeError as error:
            raise ShapeMismatch(
                f"{self.config.kind}: it would begin at weights of another module: {error}"
            ) from None

    def _fit_units(self, train: Examples) -> None:
        values_NP = train.values_NP
        if self.config.loss == "bce":
            if values_NP.min() < 0 or values_NP.max() > 1:
                raise ConfigError(
                    f"loss = 'bce' is for values from 0 to 1, and {', '.join(train.properties)} "
                    f"reach from {values_NP.min():.3g} to {values_NP.max():.3g}: set mse"
                )
            mean_P, std_P = np.zeros(values_NP.shape[1]), np.ones(values_NP.shape[1])
        else:
            mean_P, std_P = values_NP.mean(0), values_NP.std(0)
            std_P = np.where(std_P > 0, std_P, 1.0)  # a constant is told by its mean
        self.mean_P, self.std_P = torch.from_numpy(mean_P), torch.from_numpy(std_P)

    def units(self, values_NP: np.ndarray) -> torch.Tensor:
        """Return values in the units that the module learns, float32, on the CPU."""
        return ((torch.from_numpy(values_NP) - self.mean_P) / self.std_P).float()

    def predict(self, sources: Sources) -> np.ndarray:
        """Return what the module says; see the base."""
        return self._predict(self.module, sources)

    def predict_last(self, sources: Sources) -> np.ndarray:
        """Return what the module of the last step says; see the base."""
        return self._predict(self.last_module or self.module, sources)

    @torch.no_grad()
    def _predict(self, module: nn.Module, sources: Sources) -> np.ndarray:
        parts = []
        for zoo, rows in sources:
            for rows_B in np.split(rows, range(self.chunk, len(rows), self.chunk)):
                said_BP = module(self.inputs([(zoo, rows_B)]))
                parts.append(said_BP.double().cpu())
        said_NP = torch.cat(parts) if parts else torch.zeros(0, len(self.properties))
        if self.config.loss == "bce":
            return said_NP.double().sigmoid().numpy()
        return (said_NP.double() * self.std_P + self.mean_P).numpy()

    @property
    def chunk(self) -> int:
        """Networks that are looked at at once outside training."""
        return self.config.training.batch_size

    def _with_weights(self, state: dict[str, torch.Tensor]) -> nn.Module:
        with seeded(0, "restored"):  # its numbers are replaced
            module = self._new_module()
        module.load_state_dict(state)
        return module.to(self.device).eval()

    def _state(self) -> State:
        last = self.last_module
        return {
            "own": self._own(),
            "mean_P": self.mean_P,
            "std_P": self.std_P,
            "module": self.module.state_dict(),
            "last_module": last and last.state_dict(),
        }

    def _restore(self, state: State) -> None:
        self.mean_P, self.std_P = state["mean_P"], state["std_P"]
        self._take_own(state["own"])
        self.module = self._with_weights(state["module"])
        last = state["last_module"]
        self.last_module = last and self._with_weights(last)


class PredictionTask(Task):
    """The regression of properties on networks drawn at random.

    Args:
        predictor: whose module learns.
        train: networks to learn from.
        val: held-out networks; may be none.
    """

    draws_whole_rounds = True

    def __init__(self, predictor: LearntPredictor, *, train: Examples, val: Examples):
        self.predictor, self.module = predictor, predictor.module
        self.train, self.val = train, val
        self.wanted_NP = predictor.units(train.values_NP)
        self.val_wanted_NP = predictor.units(val.values_NP)
        self.starts = np.cumsum([0] + [len(rows) for _, rows in train.sources])
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
        said_BP = module(self.predictor.inputs(self._sources_of(places_B)))
        return self._error(said_BP, self.wanted_NP[places_B])

    def _sources_of(self, places_B: np.ndarray) -> Sources:
        """Return networks by their places among all, in order."""
        cuts = np.searchsorted(places_B, self.starts)
        return [
            (zoo, rows[places_B[a:b] - start])
            for (zoo, rows), start, a, b in zip(
                self.train.sources, self.starts[:-1], cuts[:-1], cuts[1:], strict=True
            )
            if b > a
        ]

    def _error(self, said_BP: torch.Tensor, wanted_BP: torch.Tensor) -> torch.Tensor:
        return LOSSES[self.predictor.config.loss](said_BP.float(), wanted_BP.to(said_BP.device))

    def validate(self, module: nn.Module) -> float | None:
        """Return the loss over held-out networks."""
        if not len(self.val):
            return None
        total, first, chunk = 0.0, 0, self.predictor.chunk
        for zoo, rows in self.val.sources:
            for rows_B in np.split(rows, range(chunk, len(rows), chunk)):
                said_BP = module(self.predictor.inputs([(zoo, rows_B)]))
                wanted_BP = self.val_wanted_NP[first : first + len(rows_B)]
                total += self._error(said_BP, wanted_BP).item() * len(rows_B)
                first += len(rows_B)
        return total / len(self.val)
