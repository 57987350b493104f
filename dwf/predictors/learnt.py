"""The base of predictors that train a module on networks: units, batches, validation, the file.

A kind gives its module, and what the module takes of some networks. A batch may be of several
zoos, so of several layouts: the kind's `inputs` says how they lie side by side.

Shape suffixes: N networks, B networks of a batch, P properties.
"""

from collections.abc import Iterator
from typing import Generic

import numpy as np
import torch
from torch import nn

from dwf.devices import find_device
from dwf.errors import ConfigError, ShapeMismatch
from dwf.plain import Json, State
from dwf.predictors.config import LearntPredictorSettings
from dwf.predictors.examples import Examples
from dwf.predictors.predictor import Predictor
from dwf.predictors.regression import Inputs, Regression, Trained
from dwf.predictors.targets import TARGETS, Shares, Targets
from dwf.randomness import seeded
from dwf.run_folder import RunPart
from dwf.same_settings import differences
from dwf.settings import to_dict
from dwf.training.task import refuse_few
from dwf.zoo.moments import Source, Sources


class LearntPredictor(Trained, Predictor, Generic[Inputs]):
    """Base of predictors that train; a kind gives `_prepare`, `_new_module`, `inputs`, and states.

    Args:
        config: its settings.
    """

    config: LearntPredictorSettings
    module: nn.Module
    """Called as `module(inputs)`, returns [B, P], targets in the order of the networks."""
    targets: Targets
    """Map from values to what it learns; known once it is fitted."""
    start: "LearntPredictor[Inputs] | None" = None
    """A fitted one, at whose weights, inputs and targets `fit` begins."""

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
        return self._fitting_module()

    def inputs(self, sources: Sources) -> Inputs:
        """Return what the module takes of some networks, on the device, in their order.

        Raises:
            ShapeMismatch: networks of a layout that it does not know.
        """
        raise NotImplementedError

    def fit(self, train: Examples, val: Examples, *, run: RunPart, seed: int) -> dict[str, Json]:
        """Train the module, or go on where the run stopped; see the base."""
        refuse_few(len(train), self.config.training.batch_size)
        self.properties = train.properties
        try:
            self.targets = self._targets().of(train.values_NP)
        except ConfigError as error:
            raise ConfigError(f"{', '.join(train.properties)}: {error}") from None
        if self.start is None:
            self._prepare(train)
        else:
            self._take_start(self.start)
        with seeded(seed, "initialisation"):
            self.module = self._fitting_module().to(self.device)
        if self.start is not None:
            self._take_weights(self.start)
        task = PredictionTask(self, train=train, val=val)
        return self._learn(task, self.config.training, run=run, seed=seed, what=self.config.kind)

    def start_from(self, fitted: "LearntPredictor[Inputs]") -> None:
        """Begin the next `fit` at what another has learnt; see the base."""
        self.start = fitted

    def _take_start(self, start: "LearntPredictor[Inputs]") -> None:
        if start.properties != self.properties:
            raise ConfigError(
                f"it would begin at weights that tell {', '.join(start.properties)}, and is to "
                f"tell {', '.join(self.properties)}: set the same properties"
            )
        if start._targets() is not self._targets():
            raise ConfigError(
                f"it would begin at weights that tell {_learns(start.config)}, and is to tell "
                f"{_learns(self.config)}: set the same"
            )
        self.targets = start.targets
        self._take_own(start._own())

    def _take_weights(self, start: "LearntPredictor[Inputs]") -> None:
        try:
            self.module.load_state_dict(start.module.state_dict())
        except RuntimeError as error:
            told = (to_dict(start.config), to_dict(self.config))
            differ = [
                f"{key} = {there!r}, this one has {here!r}"
                for key, there, here in differences(*told)
                if not key.startswith("training.")
            ]
            raise ShapeMismatch(
                f"{self.config.kind}: it would begin at weights of another module: "
                + ("; ".join(differ) or str(error))
            ) from None

    def _targets(self) -> type[Targets]:
        return Shares if self.config.loss == "bce" else TARGETS[self.config.targets]

    def wanted(self, some: Examples) -> torch.Tensor:
        """Return the targets of some networks, float32, on the CPU: [N, P]."""
        return torch.from_numpy(self.targets.apply(some.values_NP)).float()

    def predict(self, sources: Sources) -> np.ndarray:
        """Return what the module says; see the base."""
        return self._predict(self.module, sources)

    def predict_last(self, sources: Sources) -> np.ndarray:
        """Return what the module of the last step says; see the base."""
        return self._predict(self.last_module or self.module, sources)

    @torch.no_grad()
    def _predict(self, module: nn.Module, sources: Sources) -> np.ndarray:
        parts = [module(self.inputs([one])).double().cpu() for one in self.chunks(sources)]
        said_NP = torch.cat(parts) if parts else torch.zeros(0, len(self.properties))
        return self.targets.undo(said_NP.double().numpy())

    def chunks(self, sources: Sources) -> Iterator[Source]:
        """Yield networks in order, of one zoo and as many as are looked at at once."""
        size = self.config.training.batch_size
        for zoo, rows in sources:
            for rows_B in np.split(rows, range(size, len(rows), size)):
                yield zoo, rows_B

    def _state(self) -> State:
        return super()._state() | {"targets": self.targets.state()} | self._modules()

    def _restore(self, state: State) -> None:
        self.targets = self._targets().restore(state["targets"])
        super()._restore(state)
        self._take_modules(state)


def _learns(config: LearntPredictorSettings) -> str:
    return "loss = bce" if config.loss == "bce" else f"targets = {config.targets}"


class PredictionTask(Regression[Inputs]):
    """The regression of properties on networks drawn at random.

    Args:
        predictor: whose module learns.
        train: networks to learn from.
        val: held-out networks; may be none.
    """

    def __init__(self, predictor: LearntPredictor[Inputs], *, train: Examples, val: Examples):
        super().__init__(
            predictor.module,
            loss=predictor.config.loss,
            wanted_NP=predictor.wanted(train),
            val_wanted_NP=predictor.wanted(val),
        )
        self.predictor, self.train, self.val = predictor, train, val
        self.starts = np.cumsum([0] + [len(rows) for _, rows in train.sources])

    def inputs(self, places_B: np.ndarray) -> Inputs:
        """Return what the predictor makes of training networks, zoo by zoo; see the base."""
        cuts = np.searchsorted(places_B, self.starts)
        sources = [
            (zoo, rows[places_B[a:b] - start])
            for (zoo, rows), start, a, b in zip(
                self.train.sources, self.starts[:-1], cuts[:-1], cuts[1:], strict=True
            )
            if b > a
        ]
        return self.predictor.inputs(sources)

    def held_out(self) -> Iterator[tuple[slice, Inputs]]:
        """Yield what the predictor makes of held-out networks, some of a zoo; see the base."""
        first = 0
        for source in self.predictor.chunks(self.val.sources):
            stop = first + len(source[1])
            yield slice(first, stop), self.predictor.inputs([source])
            first = stop
