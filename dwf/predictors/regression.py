"""Regression of properties: the task, and what trains a module by it, keeps it and its last step.

Predictors that train and heads that do share it; what their modules take differs.

Shape suffixes: B networks of a batch, P properties.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, huber_loss, l1_loss, mse_loss

from dwf.backbones.linear import kernel_of, use_kernel
from dwf.plain import Json, State
from dwf.predictors.config import LearntPredictorSettings
from dwf.predictors.head_config import HeadSettings
from dwf.randomness import seeded
from dwf.room import within_memory
from dwf.run_folder import RunPart
from dwf.training.config import LoopConfig
from dwf.training.loop import train
from dwf.training.task import Share, Task

Inputs = TypeVar("Inputs")
LOSSES = {
    "mse": mse_loss,
    "mae": l1_loss,
    "huber": huber_loss,
    "bce": binary_cross_entropy_with_logits,
}


class Regression(Task, Generic[Inputs]):
    """Base of regressions on networks drawn at random; a kind gives `inputs` and `held_out`.

    Args:
        module: called as `module(inputs)`, returns [B, P].
        loss: name of the loss.
        wanted_NP: what it should say of the training networks, float32, on the CPU.
        val_wanted_NP: the same of held-out networks; may be of none.
    """

    draws_whole_rounds = True

    def __init__(
        self,
        module: nn.Module,
        *,
        loss: str,
        wanted_NP: torch.Tensor,
        val_wanted_NP: torch.Tensor,
    ):
        self.module, self._loss, self.share = module, LOSSES[loss], Share()
        self.wanted_NP, self.val_wanted_NP = wanted_NP, val_wanted_NP

    def inputs(self, places_B: np.ndarray) -> Inputs:
        """Return what the module takes of training networks, by their places in order."""
        raise NotImplementedError

    def held_out(self) -> Iterator[tuple[slice, Inputs]]:
        """Yield places of held-out networks, in order, and what the module takes of them."""
        raise NotImplementedError

    def start(self, step: int, share: Share) -> None:
        """Take note of which examples of a batch are this rank's; see `Task.start`."""
        self.share = share

    def loss(
        self, module: nn.Module, batch_size: int, *, generator: torch.Generator
    ) -> torch.Tensor:
        """Return the loss of networks drawn with replacement."""
        count = batch_size * self.share.world
        drawn = torch.randint(
            len(self.wanted_NP), (count,), generator=generator, device=generator.device
        )
        places_B = np.sort(drawn[self.share.of_round(batch_size)].cpu().numpy())
        return self._error(module(self.inputs(places_B)), self.wanted_NP[places_B])

    def validate(self, module: nn.Module) -> float | None:
        """Return the loss over held-out networks; None without any."""
        if not len(self.val_wanted_NP):
            return None
        total = 0.0
        for places, inputs in self.held_out():
            wanted_BP = self.val_wanted_NP[places]
            total += self._error(module(inputs), wanted_BP).item() * len(wanted_BP)
        return total / len(self.val_wanted_NP)

    def _error(self, said_BP: torch.Tensor, wanted_BP: torch.Tensor) -> torch.Tensor:
        return self._loss(said_BP.float(), wanted_BP.to(said_BP.device))


class Trained:
    """A base of predictors that train a module, and keep that of the last step beside it.

    A kind gives `_new_module`.
    """

    config: LearntPredictorSettings | HeadSettings
    device: torch.device
    module: nn.Module
    last_module: nn.Module | None = None
    """The module after the last step, where that of another was kept."""

    def _new_module(self) -> nn.Module:
        """Return the module with initial weights."""
        raise NotImplementedError

    def _fitting_module(self) -> nn.Module:
        """Return it, after its size was held to this machine's memory."""
        return within_memory(self._new_module, self.config, key=self.config.kind)

    def _learn(
        self, task: Regression, training: LoopConfig, *, run: RunPart, seed: int, what: str
    ) -> dict[str, Json]:
        """Train `module`, or go on where the run stopped; return what was measured."""
        outcome = train(task, training, seed=seed, run=run, what=what)
        self.module = task.module.to(self.device).eval()
        kernel = kernel_of(self.module)
        self.last_module = None if task.last is None else self._with_weights(task.last, kernel)
        return {"parameters": sum(p.numel() for p in self.module.parameters()), **vars(outcome)}

    def _with_weights(self, state: dict[str, torch.Tensor], kernel: str) -> nn.Module:
        with seeded(0, "restored"):  # its numbers are replaced
            module = self._fitting_module()
        module.load_state_dict(state)
        use_kernel(module, kernel)
        return module.to(self.device).eval()

    def _modules(self) -> State:
        """Return both modules' weights, and what computes them."""
        last = self.last_module
        return {
            "module": self.module.state_dict(),
            "last_module": last and last.state_dict(),
            "kernel": kernel_of(self.module),
        }

    def _take_modules(self, state: State) -> None:
        """Take what `_modules` returned."""
        kernel, last = state["kernel"], state["last_module"]
        self.module = self._with_weights(state["module"], kernel)
        self.last_module = last and self._with_weights(last, kernel)
