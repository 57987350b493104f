"""One training loop for everything that learns.

Nothing is read back from the device within a step: losses stay there until the next validation,
checkpoint or look at the progress. A resumed run is bitwise equal to an uninterrupted one.
"""

import contextlib
import copy
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dwf import preemption
from dwf.errors import ConfigError, TrainingDiverged
from dwf.metrics import MetricsLog, Progress
from dwf.randomness import seeded, threads, torch_stream
from dwf.run_folder import RunFolder, write_json
from dwf.training.checkpoint import load_newest, save_checkpoint
from dwf.training.config import LoopConfig
from dwf.training.schedule import rate_at

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 1.0
_listeners: list[Callable[[int, float | None], None]] = []


class Task(Protocol):
    """Something that learns."""

    module: nn.Module
    """What is trained; the loop moves it to the device."""

    def loss(self, module: nn.Module, batch_size: int, generator: torch.Generator) -> torch.Tensor:
        """Return the scalar loss of a fresh batch.

        Args:
            module: stands for `self.module`, possibly compiled.
            batch_size: examples to draw.
            generator: the only source of chance besides dropout, on the device.
        """
        ...

    def validate(self, module: nn.Module) -> float | None:
        """Return the loss on what is held out, the same chance each time; None without any.

        Args:
            module: `self.module` or its moving average, in evaluation mode.
        """
        ...


@dataclass(frozen=True)
class Outcome:
    """What training came to."""

    steps: int
    """Updates made."""
    kept_step: int
    """The step whose weights were kept."""
    val_loss: float | None
    """Their validation loss."""
    device: str
    """Where it ran."""


def find_device(choice: str) -> torch.device:
    """Return the device of `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: `cuda` without a usable GPU.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda': torch finds no GPU here; set auto or cpu")
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(choice)


@contextlib.contextmanager
def heard_by(listener: Callable[[int, float | None], None]) -> Iterator[None]:
    """Call `listener(step, validation loss)` after each validation of what is trained within."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def train(task: Task, config: LoopConfig, seed: int, run: RunFolder, what: str) -> Outcome:
    """Train `task.module`, or go on from the newest checkpoint of the run.

    Afterwards `task.module` holds the kept weights (the moving average where there is one), in
    evaluation mode.

    Args:
        task: what learns.
        config: how.
        seed: of every draw: batches, noise, dropout.
        run: takes checkpoints, `metrics.jsonl` and `training.json` (device, threads, size); of
            this task alone.
        what: the task's name, for a person.

    Raises:
        TrainingDiverged: a loss is not finite.
        CorruptCheckpoint: all checkpoints are damaged.
        Preempted: a signal asked to stop; the state is saved.
    """
    with threads(config.threads), seeded(seed, "dropout"):
        return _Loop(task, config, seed, run, what).train()


class _Loop:
    def __init__(self, task: Task, config: LoopConfig, seed: int, run: RunFolder, what: str):
        self.task, self.config, self.run, self.what = task, config, run, what
        self.device = find_device(config.device)
        self.module = task.module.to(self.device)
        self.average = copy.deepcopy(self.module).requires_grad_(False) if config.ema else None
        self.called = torch.compile(self.module) if config.compile else self.module
        self.parameters = list(self.module.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=config.learning_rate,
            betas=tuple(config.betas),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.generator = torch_stream(seed, "training", device=self.device.type)
        self.step = 0
        self.best: dict[str, Any] | None = None
        self.val_loss: float | None = None
        # Losses since the last validation, by step, so that a bad one can be named.
        self.losses = torch.zeros(config.validate_every, device=self.device)

    def train(self) -> Outcome:
        saved = load_newest(self.run.checkpoints, self.device)
        if saved is not None:
            self._restore(saved)
        self._record()
        self.log = MetricsLog(self.run.metrics_path, self.step)
        try:
            with Progress(self.what, self.config.steps, "steps", self.step) as progress:
                self._all_steps(progress)
        finally:
            self.log.close()
        return self._keep()

    def _all_steps(self, progress: Progress) -> None:
        self.module.train()
        self.since = (time.perf_counter(), self.step)
        saved = looked = time.monotonic()
        while self.step < self.config.steps:
            self._update()
            last = self.step == self.config.steps
            if last or self.step % self.config.validate_every == 0:
                self._validate()
            now = time.monotonic()
            if now - looked >= SECONDS_BETWEEN_LOOKS or last:
                looked = now
                progress.update(self.step, loss=f"{self._check_losses():.4g}")
            asked = preemption.is_asked()
            if asked or last or now - saved >= self.config.save_every_seconds:
                self._save()
                saved = time.monotonic()
            if asked and not last:
                preemption.stop()

    def _update(self) -> None:
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.step, config)
        with self._precision():
            loss = self.task.loss(self.called, config.batch_size, self.generator)
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward()
        if config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, config.clip_norm)
        self.optimizer.step()
        self.losses[self.step % config.validate_every] = loss.detach()
        if self.average is not None:
            self._move_average()
        self.step += 1

    @torch.no_grad()
    def _move_average(self) -> None:
        # A young average must forget its first weights faster than an old one.
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        get_ema_multi_avg_fn(decay)(list(self.average.parameters()), self.parameters, None)
        for mean, buffer in zip(self.average.buffers(), self.module.buffers(), strict=True):
            mean.copy_(buffer)

    @property
    def _result(self) -> nn.Module:
        return self.module if self.average is None else self.average

    @torch.no_grad()
    def _validate(self) -> None:
        seconds = time.perf_counter() - self.since[0]
        steps_per_second = (self.step - self.since[1]) / seconds
        values = {
            "train_loss": self._check_losses(),
            "learning_rate": rate_at(self.step - 1, self.config),
            "steps/s": steps_per_second,
            "samples/s": steps_per_second * self.config.batch_size,
        }
        with self._precision():
            self.val_loss = self.task.validate(self._result.eval())
        self.module.train()
        if self.val_loss is not None:
            self._refuse(self.step, self.val_loss, "validation loss")
            values["val_loss"] = self.val_loss
            self._note_best()
        elif self.config.keep == "best":
            raise ConfigError("keep = 'best' needs held-out networks, and there are none: set last")
        self.log.write(self.step, **values)
        for listener in _listeners:
            listener(self.step, self.val_loss)
        self.since = (time.perf_counter(), self.step)

    def _note_best(self) -> None:
        better = self.best is None or self.val_loss < self.best["val_loss"]
        if self.config.keep == "best" and better:
            state = {name: value.clone() for name, value in self._result.state_dict().items()}
            self.best = {"val_loss": self.val_loss, "step": self.step, "state": state}

    def _check_losses(self) -> float:
        """Return the mean loss since the last validation; refuse one that is not finite."""
        every = self.config.validate_every
        first = (self.step - 1) // every * every
        losses = self.losses[: self.step - first].tolist()
        for i, loss in enumerate(losses):
            self._refuse(first + i + 1, loss, "loss")
        return sum(losses) / len(losses)

    def _refuse(self, step: int, loss: float, name: str) -> None:
        if abs(loss) < float("inf"):
            return
        raise TrainingDiverged(
            f"{self.what}: the {name} is {loss} at step {step} of {self.config.steps}, learning "
            f"rate {rate_at(step - 1, self.config):.3g}: lower learning_rate, or set clip_norm "
            f"(now {self.config.clip_norm}) or warm_up (now {self.config.warm_up})"
        )

    def _precision(self) -> contextlib.AbstractContextManager:
        if self.config.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    # --- what a resumed run needs ----------------------------------------------------------

    def _save(self) -> None:
        self._check_losses()
        state = {
            "step": self.step,
            "module": self.module.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "global_generator": self._global_generator().get_state(),
            "losses": self.losses,
            "val_loss": self.val_loss,
            "best": self.best,
        }
        save_checkpoint(self.run.checkpoints, self.step, state)

    def _restore(self, saved: dict[str, Any]) -> None:
        self.step, self.val_loss, self.best = saved["step"], saved["val_loss"], saved["best"]
        self.module.load_state_dict(saved["module"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.generator.set_state(saved["generator"].cpu())
        self._global_generator().set_state(saved["global_generator"].cpu())
        self.losses.copy_(saved["losses"])
        logger.info("%s: goes on after step %d", self.what, self.step)

    def _global_generator(self) -> torch.Generator:
        """Torch's own generator of the device, which dropout draws from."""
        if self.device.type == "cuda":
            return torch.cuda.default_generators[torch.cuda.current_device()]
        return torch.default_generator

    def _record(self) -> None:
        facts = {
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "parameters": sum(p.numel() for p in self.parameters),
        }
        if self.device.type == "cuda":
            facts["gpu"] = torch.cuda.get_device_name()
        write_json(self.run.path / "training.json", facts | asdict(self.config))
        logger.info("%s: %s", self.what, ", ".join(f"{k} {v}" for k, v in facts.items()))

    def _keep(self) -> Outcome:
        kept = {"val_loss": self.val_loss, "step": self.step, "state": self._result.state_dict()}
        if self.config.keep == "best":
            kept = self.best
        self.module.load_state_dict(kept["state"])
        self.module.eval()
        return Outcome(self.step, kept["step"], kept["val_loss"], str(self.device))
