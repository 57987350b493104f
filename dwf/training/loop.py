"""One training loop for everything that learns.

Nothing is read back from the device within a step: losses stay there until the next validation,
checkpoint or look at the progress. A resumed run is bitwise equal to an uninterrupted one.

Ranks make the same steps together. What only one of them sees, a signal, a bad loss, a time to
save, they agree on at the end of a step.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from torch import nn

from dwf import preemption
from dwf.backbones.linear import TORCH, kernel_of, linear_maps, use_kernel
from dwf.devices import find_device
from dwf.errors import ConfigError, TrainingDiverged
from dwf.metrics import Progress
from dwf.networks.watched import watched
from dwf.plain import State
from dwf.randomness import seeded, threads, torch_stream
from dwf.ranks import world
from dwf.run_folder import RunPart, write_json
from dwf.training.config import LoopConfig
from dwf.training.engine import make_engine
from dwf.training.kernel import AUTO, Shapes, choose_kernel, recorded_kernel
from dwf.training.schedule import rate_at
from dwf.training.task import Share, Task
from dwf.training.throughput import Meter, measure_peak

__all__ = ["SAMPLE_ACCURACY", "Look", "Outcome", "Share", "Task", "heard_by", "train"]

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 1.0
_listeners: list[Callable[[int, float | None], None]] = []


@dataclass(frozen=True)
class Outcome:
    """Result of a training."""

    steps: int
    """Updates made."""
    kept_step: int
    """The step whose weights were kept."""
    val_loss: float | None
    """Their validation loss."""
    device: str
    """Where it ran."""


@contextlib.contextmanager
def heard_by(listener: Callable[[int, float | None], None]) -> Iterator[None]:
    """Call `listener(step, validation loss)` after each validation of what is trained within."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


Look = Callable[[nn.Module], dict[str, float]]
"""Measurement made now and then: takes what would be kept now, in evaluation mode, and returns
numbers by name; ranks call it together."""
SAMPLE_ACCURACY = "sample_accuracy"
"""The number of a `Look` that `keep: best_samples` chooses by."""


def train(
    task: Task, config: LoopConfig, *, seed: int, run: RunPart, what: str, look: Look | None = None
) -> Outcome:
    """Train `task.module`, or go on from the newest checkpoint of the run; ranks call it together.

    Afterwards `task.module` is, on the first rank, a plain float32 module with the kept weights
    (the moving average where there is one), in evaluation mode.

    Args:
        task: what learns.
        config: how.
        seed: of every draw: batches, noise, dropout.
        run: takes checkpoints, `metrics.jsonl` and `training.json` (device, threads, size); of
            this task alone.
        what: the task's name, for a person.
        look: measures what is trained every `sample_every` steps; its numbers go to the metrics.

    Raises:
        TrainingDiverged: a loss is not finite.
        ConfigError: the batch cannot be shared by these ranks, or `sample_every` has nothing to
            look at.
        WrongLaunch: the engine is not for several ranks.
        CorruptCheckpoint: all checkpoints are damaged.
        Preempted: a signal asked to stop; the state is saved.
    """
    if config.sample_every and look is None:
        raise ConfigError(
            f"training.sample_every = {config.sample_every}: {what} draws no networks while it "
            "learns: set 0 here, and sample_every of the density's training"
        )
    with threads(config.compute.threads), seeded(seed, *_of_rank("dropout")):
        return _Loop(task, config, seed=seed, run=run, what=what, look=look).train()


def _of_rank(*words: str | int) -> tuple[str | int, ...]:
    """The name of a random stream that each rank has its own of; the first's is that of one."""
    rank = world().rank
    return (*words, "rank", rank) if rank else words


class _Loop:
    def __init__(
        self,
        task: Task,
        config: LoopConfig,
        *,
        seed: int,
        run: RunPart,
        what: str,
        look: Look | None,
    ):
        self.task, self.config, self.seed, self.run, self.what = task, config, seed, run, what
        self.look = look
        self.ours = world()
        self.share = Share(
            self.ours.rank,
            self.ours.size,
            batch_size=config.batch_size,
            accumulate=config.accumulate,
        )
        self.device = find_device(config.compute.device)
        self.engine = make_engine(
            task.module, config, device=self.device, checkpoints=run.checkpoints
        )
        own = ("training",) if task.draws_whole_rounds else _of_rank("training")
        self.generator = torch_stream(seed, *own, device=self.device.type)
        self.step = 0
        self.best: dict[str, State] | None = None
        self.early: dict[str, torch.Tensor] | None = None
        share = task.early_share
        self.early_step = None if share is None else max(1, round(share * config.steps))
        self.val_loss: float | None = None
        # Losses since the last validation, by step, so that a bad one can be named.
        self.losses = torch.zeros(config.validate_every, device=self.device)
        self.problem: tuple[int, str] | None = None

    def train(self) -> Outcome:
        saved = self.engine.restore()
        if saved is not None:
            self._restore(saved)
        self.engine.use_kernel(self._begun_kernel())
        self.meter = self._record()
        is_first = self.ours.is_first
        self.log = self.run.log(self.step) if is_first else None
        try:
            with contextlib.ExitStack() as stack:
                progress = Progress(self.what, self.config.steps, unit="steps", done=self.step)
                self.progress = stack.enter_context(progress) if is_first else None
                self._all_steps()
        finally:
            if self.log:
                self.log.close()
        return self._keep()

    def _all_steps(self) -> None:
        if self.step < self.config.steps:
            self.task.start(self.step, self.share)
        self.engine.learn()
        self.meter.start(self.step)
        saved = looked = time.monotonic()
        while self.step < self.config.steps:
            if self.step == 0 and self._tries_kernels:
                self._update_and_choose()
            else:
                self._update()
            last = self.step == self.config.steps
            if last or self.step % self.config.validate_every == 0:
                self._validate()
            now = time.monotonic()
            if now - looked >= SECONDS_BETWEEN_LOOKS or last:
                looked = now
                self._tell_progress()
            due = last or now - saved >= self.config.compute.save_seconds
            if self.ours.any(due or preemption.is_asked() or self.problem is not None):
                self._save()
                saved = time.monotonic()
                if preemption.agreed() and not last:
                    preemption.stop()

    def _update(self) -> None:
        def loss() -> torch.Tensor:
            return self.task.loss(self.engine.called, self.share.micro, generator=self.generator)

        mean = self.engine.update(rate_at(self.step, self.config), loss)
        self.losses[self.step % self.config.validate_every] = mean
        self.engine.move_average(self.step)
        self.step += 1
        if self.step == self.early_step:
            self.early = _copy(self.engine.whole_state())

    # --- the kernel of linear maps ---------------------------------------------------------

    @property
    def _tries_kernels(self) -> bool:
        compute = self.config.compute
        return compute.kernel == AUTO and not compute.compile

    def _begun_kernel(self) -> str:
        """The kernel that this process begins with: as the settings or an attempt before chose."""
        if self.config.compute.kernel != AUTO:
            return self.config.compute.kernel
        recorded = self.ours.on_first(recorded_kernel, self.run.path) if self.step else None
        return recorded or TORCH

    def _update_and_choose(self) -> None:
        """Make the first update by torch's own kernel, and choose that of the others."""
        shapes = Shapes()
        with watched(linear_maps(self.engine.module), shapes):
            self._update()
        self.engine.use_kernel(self.ours.on_first(choose_kernel, self.run.path, shapes))

    def _tell_progress(self) -> None:
        self.meter.look()
        mean = self._mean_loss()
        if self.ours.size == 1:
            self._refuse_problem()
        if self.progress:
            self.progress.update(self.step, loss=f"{mean:.4g}")

    @torch.no_grad()
    def _validate(self) -> None:
        values = self.meter.read(self.step)
        values = {
            "train_loss": self._check_losses(),
            "learning_rate": rate_at(self.step - 1, self.config),
            **values,
        }
        with self.engine.precision():
            val_loss = self.task.validate(self.engine.evaluate())
        self.engine.learn()
        self.val_loss = self.meter.all_ranks(val_loss)[0]
        if self.val_loss is not None:
            if not abs(self.val_loss) < float("inf"):
                self.problem = self._tell(self.step, self.val_loss, "validation loss")
            self._refuse_problem()
            values["val_loss"] = self.val_loss
            if self.config.keep == "best":
                self._note_best(-self.val_loss)
        elif self.config.keep == "best":
            raise ConfigError("keep = 'best' needs held-out networks, and there are none: set last")
        values |= self._look_at_samples()
        if self.log:
            self.log.write(self.step, **values)
        for listener in _listeners:
            listener(self.step, self.val_loss)
        self.meter.start(self.step)

    def _look_at_samples(self) -> dict[str, float]:
        """Return what `look` finds, where it is due."""
        every, is_last = self.config.sample_every, self.step == self.config.steps
        if not every or (self.step % every and not is_last):
            return {}
        with seeded(self.seed, "look", self.step):  # dropout goes on as without a look
            found = self.look(self.engine.evaluate())
        self.engine.learn()
        if self.config.keep == "best_samples":
            self._note_best(found[SAMPLE_ACCURACY])
        return found

    def _note_best(self, score: float) -> None:
        """Keep the weights of now if no others had as high a score."""
        if self.best is not None and not score > self.best["score"]:
            return
        state = _copy(self.engine.whole_state())
        found = {"val_loss": self.val_loss, "step": self.step, "state": state}
        self.best = found | {"score": score}

    # --- losses that are not finite --------------------------------------------------------

    def _mean_loss(self) -> float:
        """This rank's mean loss since the last validation; takes note of one that is not finite."""
        every = self.config.validate_every
        first = (self.step - 1) // every * every
        losses = self.losses[: self.step - first].tolist()
        for i, loss in enumerate(losses):
            if self.problem is None and not abs(loss) < float("inf"):
                self.problem = self._tell(first + i + 1, loss, "loss")
        return sum(losses) / len(losses)

    def _check_losses(self) -> float:
        """Return the mean loss since the last validation over all ranks; refuse a bad one."""
        means = self.meter.all_ranks(self._mean_loss())
        self._refuse_problem()
        return sum(means) / len(means)

    def _refuse_problem(self) -> None:
        """Raise the earliest problem of any rank, on all."""
        problems = [p for p in self.meter.all_ranks(self.problem) if p is not None]
        if problems:
            self.ours.on_all(lambda: _raise(TrainingDiverged(min(problems)[1])))

    def _tell(self, step: int, loss: float, name: str) -> tuple[int, str]:
        source = self.task.describe(step) if name == "loss" else None
        return step, (
            f"{self.what}: the {name} is {loss} at step {step} of {self.config.steps}, learning "
            f"rate {rate_at(step - 1, self.config):.3g}{f', from {source}' if source else ''}: "
            f"lower learning_rate, or set clip_norm (now {self.config.clip_norm}) or warm_up "
            f"(now {self.config.warm_up})"
        )

    # --- what a resumed run needs ----------------------------------------------------------

    def _save(self) -> None:
        self._mean_loss()
        self._refuse_problem()
        if not self.engine.is_finite():
            self.problem = self._tell(self.step, float("nan"), "largest weight")
        self._refuse_problem()
        own = {
            "generator": self.generator.get_state(),
            "global_generator": self._global_generator().get_state(),
            "losses": self.losses.cpu(),
        }
        state = {
            "step": self.step,
            "val_loss": self.val_loss,
            "best": self.best,
            "early": self.early,
            "ranks": list(self.ours.to_first(self.ours.size, lambda _: own)),
        }
        self.engine.save(self.step, state)

    def _restore(self, saved: dict[str, State]) -> None:
        self.step, self.val_loss, self.best = saved["step"], saved["val_loss"], saved["best"]
        self.early = saved["early"]
        ranks = saved["ranks"]
        own = ranks[min(self.ours.rank, len(ranks) - 1)]
        is_same_kind = own["generator"].shape == self.generator.get_state().shape
        if len(ranks) == self.ours.size and is_same_kind:
            self.generator.set_state(own["generator"].cpu())
            self._global_generator().set_state(own["global_generator"].cpu())
            self.losses.copy_(own["losses"])
            how = ""
        else:
            self.losses.copy_(torch.stack([rank["losses"] for rank in ranks]).mean(0))
            self._reseed()
            if self.task.draws_whole_rounds and is_same_kind:
                self.generator.set_state(own["generator"].cpu())  # one stream, whoever is there
            change = f"{len(ranks)} ranks became {self.ours.size}"
            how = f", with new random streams: {change if is_same_kind else 'another device'}"
        logger.info("%s: goes on after step %d%s", self.what, self.step, how)

    def _reseed(self) -> None:
        """Streams of ranks that were not there before follow from seed, rank and step."""
        device, rank = self.device.type, self.ours.rank
        for generator, word in (
            (self.generator, "training"),
            (self._global_generator(), "dropout"),
        ):
            fresh = torch_stream(self.seed, word, "resumed", rank, self.step, device=device)
            generator.set_state(fresh.get_state())

    def _global_generator(self) -> torch.Generator:
        """Torch's own generator of the device, which dropout draws from."""
        if self.device.type == "cuda":
            return torch.cuda.default_generators[torch.cuda.current_device()]
        return torch.default_generator

    def _record(self) -> Meter:
        """Write what this attempt runs on; return the meter."""
        facts = {
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "ranks": self.ours.size,
            "parameters": self.engine.num_parameters,
        }
        peak = None
        if self.task.flops_per_example:
            peak = measure_peak(self.device, self.engine.dtype)
            facts["peak_GFLOP/s"] = round(peak / 1e9, 1)
        if self.device.type == "cuda":
            facts["gpu"] = torch.cuda.get_device_name()
        if self.ours.is_first:
            record = facts | self.engine.facts() | asdict(self.config)
            write_json(self.run.path / "training.json", record)
            logger.info("%s: %s", self.what, ", ".join(f"{k} {v}" for k, v in facts.items()))
        return Meter(self.task, self.share, ours=self.ours, device=self.device, peak=peak)

    def _keep(self) -> Outcome:
        kept = self.best
        if self.config.keep == "last":
            state = self.engine.whole_state()
            kept = {"val_loss": self.val_loss, "step": self.step, "state": state}
        else:
            self.task.last = _copy(self.engine.whole_state())  # which `finish` writes over
        self.task.early = self.early
        kernel = kernel_of(self.engine.module)
        self.task.module = self.engine.finish(kept["state"])
        use_kernel(self.task.module, kernel)  # an engine may have made another module
        return Outcome(self.step, kept["step"], val_loss=kept["val_loss"], device=str(self.device))


def _copy(state: dict[str, torch.Tensor] | None) -> dict[str, torch.Tensor] | None:
    return state and {name: value.clone() for name, value in state.items()}


def _raise(error: Exception) -> None:
    raise error
