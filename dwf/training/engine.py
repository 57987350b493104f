"""How an update is made: by one process, or by ranks that each hold the whole module.

An engine owns module, optimiser and moving average, and writes and reads their checkpoints.
"""

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dwf.backbones.linear import use_kernel
from dwf.devices import multiplies_bf16
from dwf.errors import WrongLaunch
from dwf.plain import Json, State
from dwf.ranks import world
from dwf.run_folder import load_state
from dwf.settings import find
from dwf.training.checkpoint import load_newest, save_checkpoint, step_file
from dwf.training.config import ENGINES, LoopConfig
from dwf.training.optimizer import make_optimizer, set_rate


def make_engine(
    module: nn.Module, config: LoopConfig, *, device: torch.device, checkpoints: Path
) -> "Engine":
    """Return the engine that the settings ask for; see `Engine`."""
    return find(ENGINES, config.engine)(module, config, device=device, checkpoints=checkpoints)


class Engine:
    """One process: the engine `plain`, and base of the others.

    Args:
        module: what is trained; moved to the device.
        config: the loop's settings.
        device: of this rank.
        checkpoints: folder of the saved states; ranks share it.
    """

    def __init__(
        self, module: nn.Module, config: LoopConfig, *, device: torch.device, checkpoints: Path
    ):
        self.config, self.device, self.checkpoints, self.ours = config, device, checkpoints, world()
        self._refuse_ranks()
        self.module = module.to(device)
        self.parameters = list(self.module.parameters())
        self.num_parameters = sum(p.numel() for p in self.parameters)
        self.average = copy.deepcopy(self.module).requires_grad_(False) if config.ema else None
        self._begin()

    def _refuse_ranks(self) -> None:
        if self.ours.size > 1:
            raise WrongLaunch(
                f"engine = 'plain' trains in one process, and there are {self.ours.size}: set "
                "training.engine to ddp or deepspeed, or start one process"
            )

    def _begin(self) -> None:
        self.called = torch.compile(self.module) if self.config.compute.compile else self.module
        """Stand-in for the module in a loss: compiled, if the settings ask for it."""
        self.optimizer = make_optimizer(self.module, self.config)

    def facts(self) -> dict[str, Json]:
        """Return what a record of the run says of the engine."""
        return {"arithmetic": str(self.dtype).removeprefix("torch.")}

    @property
    def result(self) -> nn.Module:
        """Module that is validated and kept: the moving average, where there is one."""
        return self.module if self.average is None else self.average

    def use_kernel(self, kernel: str) -> None:
        """Let linear maps compute by a kernel, see `backbones.linear`."""
        use_kernel(self.module, kernel)
        if self.average is not None:
            use_kernel(self.average, kernel)

    def evaluate(self) -> nn.Module:
        """Return what is validated, in evaluation mode; `learn` ends it."""
        return self.result.eval()

    def learn(self) -> None:
        """Put the module into training mode."""
        self.called.train()

    def update(self, rate: float, loss: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Make one update and return this rank's mean loss, on the device.

        Args:
            rate: the learning rate.
            loss: gives the loss of the next micro-batch; called `accumulate` times.
        """
        set_rate(self.optimizer, rate)
        losses = [self._backward(loss, micro) for micro in range(self.config.accumulate)]
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        self.optimizer.step()
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()

    def _backward(self, loss: Callable[[], torch.Tensor], micro: int) -> torch.Tensor:
        with self._gradients_of(micro):
            with self.precision():
                value = loss()
            if micro == 0:
                for parameter in self.parameters:
                    parameter.grad = None
            num = self.config.accumulate
            (value if num == 1 else value / num).backward()
        return value.detach()

    def _gradients_of(self, micro: int) -> contextlib.AbstractContextManager:
        """The context of a micro-batch's forward and backward."""
        return contextlib.nullcontext()

    def precision(self) -> contextlib.AbstractContextManager:
        """The context of the arithmetic."""
        if not self._is_half:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    @property
    def dtype(self) -> torch.dtype:
        """Type in which the large products are computed."""
        return torch.bfloat16 if self._is_half else torch.float32

    @property
    def _is_half(self) -> bool:
        wanted = self.config.compute.precision
        return wanted == "bf16" or (wanted == "auto" and multiplies_bf16(self.device))

    @torch.no_grad()
    def move_average(self, step: int) -> None:
        """Take the weights after update number `step` + 1 into the moving average."""
        if self.average is None:
            return
        # A young average must forget its first weights faster than an old one.
        decay = min(self.config.ema, (1 + step) / (10 + step))
        means = list(self.average.parameters())
        news = [p.to(m.dtype) for p, m in zip(self.parameters, means, strict=True)]
        get_ema_multi_avg_fn(decay)(means, news, None)
        for mean, buffer in zip(self.average.buffers(), self.module.buffers(), strict=True):
            mean.copy_(buffer)

    @torch.no_grad()
    def is_finite(self) -> bool:
        """Whether all weights that this rank holds are finite."""
        return all(torch.stack([p.isfinite().all() for p in self._held()]).tolist())

    def _held(self) -> list[torch.Tensor]:
        return self.parameters

    def save(self, step: int, state: dict[str, State]) -> None:
        """Write a checkpoint; ranks call it together.

        Args:
            step: updates made.
            state: what is not the engine's; the first rank's is written.
        """
        whole = state | {
            "module": self.module.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        self.ours.on_first(lambda: save_checkpoint(self.checkpoints, step, state=whole))

    def restore(self) -> dict[str, State] | None:
        """Take the newest whole checkpoint; return what `save` was given, None without one.

        Raises:
            CorruptCheckpoint: there are checkpoints and all are damaged.
        """
        state = self._read()
        if state is not None:
            self.module.load_state_dict(state.pop("module"))
            average = state.pop("average")
            if self.average is not None:
                self.average.load_state_dict(average)
            self.optimizer.load_state_dict(state.pop("optimizer"))
        return state

    def _read(self) -> dict[str, State] | None:
        """The newest state: the first rank looks for damage, the others read what it found."""
        found = {}

        def read() -> int | None:
            found["state"] = load_newest(self.checkpoints, self.device)
            return found["state"] and found["state"]["step"]

        step = self.ours.on_first(read)
        if step is not None and not self.ours.is_first:
            found["state"] = load_state(step_file(self.checkpoints, step), self.device)
        return found.get("state")

    def whole_state(self) -> dict[str, torch.Tensor] | None:
        """Return what is kept, float32, on the first rank; ranks call it together."""
        return self.result.state_dict()

    def finish(self, state: dict[str, torch.Tensor] | None) -> nn.Module:
        """Return a plain module with these weights, in evaluation mode; use it on the first."""
        self.module.load_state_dict(state)
        return self.module.eval()


class DdpEngine(Engine):
    """Each rank holds the whole module and takes its share of the batch; gradients are averaged."""

    def _refuse_ranks(self) -> None:
        if self.ours.size > 1:
            refuse_strangers("ddp")

    def _begin(self) -> None:
        super()._begin()
        if self.ours.size > 1:
            # A loss may leave a part of the module out, as a head that only another loss needs. A
            # static graph finds that out once, but knows no micro-batches without a reduction.
            once = self.config.accumulate == 1
            self.called = nn.parallel.DistributedDataParallel(
                self.called,
                static_graph=once,
                find_unused_parameters=not once,
                gradient_as_bucket_view=True,
            )

    def _gradients_of(self, micro: int) -> contextlib.AbstractContextManager:
        if self.ours.size == 1 or micro == self.config.accumulate - 1:
            return contextlib.nullcontext()
        return self.called.no_sync()


def refuse_strangers(engine: str) -> None:
    """Refuse several ranks that have not met."""
    if not torch.distributed.is_initialized():
        raise WrongLaunch(
            f"engine = {engine!r}: these ranks did not meet: a program calls "
            "dwf.distributed.begin(folder) first, as dwf generator does"
        )
