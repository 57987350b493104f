"""The engine `deepspeed`: ranks share the optimiser's state, gradients and weights (ZeRO 1 to 3).

A checkpoint is a folder, in which each rank writes its part:

    step-00001000/loop.pt       the loop's own state; written last
    step-00001000/state/        DeepSpeed's files
    step-00001000/universal/    the same for any number of ranks: see `convert.py`
"""

import copy
import logging
import os
import warnings
from collections.abc import Callable
from types import ModuleType

import torch
from torch import nn

from dwf import distributed
from dwf.errors import ConfigError, RunConflict, WrongLaunch
from dwf.extras import require
from dwf.plain import Json, State
from dwf.training.deepspeed_config import read_settings
from dwf.training.engine import Engine, refuse_strangers
from dwf.training.folders import (
    NATIVE,
    UNIVERSAL,
    newest_folder,
    replacing_folder,
    sign,
    write_loop,
)
from dwf.training.optimizer import make_optimizer, set_rate

logger = logging.getLogger(__name__)


def import_deepspeed(device: torch.device) -> ModuleType:
    """Import DeepSpeed for a device, without its compilers and most of its words."""
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    require("deepspeed", who="training.engine = 'deepspeed'")
    import deepspeed

    # On CPUs it would compile C++ for a minute to add up through shared memory.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.utils.logging.logger.setLevel(logging.ERROR)
    # It calls functions that newer versions of torch have other names for.
    warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)
    return deepspeed


class DeepSpeedEngine(Engine):
    """Ranks share what they hold, as a DeepSpeed file says; see `Engine`."""

    def _refuse_ranks(self) -> None:
        self.settings = read_settings(self.config)
        if self.ours.size > 1:
            refuse_strangers("deepspeed")
        else:
            distributed.begin_alone()
        if self.ours.size != torch.distributed.get_world_size():
            raise WrongLaunch(
                "engine = 'deepspeed': the first rank trains this alone while the others wait, and "
                "DeepSpeed would wait for them: set its training.engine to plain"
            )
        if self.settings.bf16 and self.device.type == "cpu" and self.ours.is_first:
            logger.warning("%s: bf16 is slow on a CPU: only to try it out", self.settings.path)

    def _begin(self) -> None:
        self._plain = _without_weights(self.module)  # DeepSpeed changes the module for good
        self._saved = newest_folder(self.checkpoints, self.ours, needs=self.settings.needs)
        deepspeed = import_deepspeed(self.device)
        from pydantic import ValidationError

        deepspeed.init_distributed(
            dist_backend=torch.distributed.get_backend(), dist_init_required=False, verbose=False
        )
        is_universal = self._saved is not None and self._saved.part == UNIVERSAL
        if self.settings.bf16:
            _add_casts(self.module)
        try:
            self.called, self.optimizer, *_ = deepspeed.initialize(
                model=self.module,
                model_parameters=self.parameters,
                optimizer=make_optimizer(self.module, self.config),
                config=self.settings.filled(self.config, self.ours.size, universal=is_universal),
                dist_init_required=False,
            )
        except ValidationError as error:  # of pydantic, which DeepSpeed reads its settings with
            (first, *_), path = error.errors(), self.settings.path
            key = ".".join(map(str, first["loc"]))
            raise ConfigError(f"{path}: DeepSpeed refuses {key}: {first['msg']}") from None

    def facts(self) -> dict[str, Json]:
        """Return what a record of the run says of the engine."""
        settings = {"deepspeed_settings": self.settings.data, "zero_stage": self.settings.stage}
        return super().facts() | settings

    @property
    def dtype(self) -> torch.dtype:
        """Type in which the large products are computed."""
        return torch.bfloat16 if self.settings.bf16 else super().dtype

    @property
    def result(self) -> nn.Module:
        """Module that is validated and kept: the moving average, where there is one."""
        return self.called if self.average is None else self.average

    def evaluate(self) -> nn.Module:
        """Return what is validated; see `Engine.evaluate`."""
        self._set_mode(False)
        return self.result

    def learn(self) -> None:
        """Put the module into training mode."""
        self._set_mode(True)

    def _set_mode(self, training: bool) -> None:
        self.called.train(training)  # which leaves DeepSpeed's own flag as it is
        self.called.training = training
        if self.average is not None:
            self.average.eval()

    def update(self, rate: float, loss: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Make one update; see `Engine.update`."""
        set_rate(self.optimizer, rate)
        losses = []
        for _ in range(self.config.accumulate):
            with self.precision():
                value = loss()
            self.called.backward(value)
            self.called.step()  # acts after the last micro-batch alone
            losses.append(value.detach())
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()

    def _held(self) -> list[torch.Tensor]:
        is_cut = self.settings.stage == 3  # each rank holds its part of every parameter
        return [p.ds_tensor if is_cut else p for p in self.parameters]

    def save(self, step: int, state: dict[str, State]) -> None:
        """Write a checkpoint's folder; see `Engine.save`."""
        average = None if self.average is None else self.average.state_dict()
        whole = state | self.settings.needs | {"average": average, "world": self.ours.size}
        with replacing_folder(self.checkpoints, step, ours=self.ours) as folder:
            self.called.save_checkpoint(str(folder), tag=NATIVE, save_latest=False)
            self.ours.barrier()  # all parts are there
            sign(folder / NATIVE, self.ours)
            self.ours.on_first(lambda: write_loop(folder, whole))

    def restore(self) -> dict[str, State] | None:
        """Take the newest whole checkpoint; see `Engine.restore`."""
        if self._saved is None:
            return None
        saved, self._saved = self._saved, None
        path, _ = self.called.load_checkpoint(str(saved.path), tag=saved.part)
        if path is None:
            raise RunConflict(f"DeepSpeed cannot read {saved.path / saved.part}: remove the folder")
        average = saved.state.pop("average")
        if self.average is not None:
            self.average.load_state_dict(average)
        return saved.state

    @torch.no_grad()
    def whole_state(self) -> dict[str, torch.Tensor] | None:
        """Return what is kept, float32, on the first rank; ranks call it together."""
        if self.average is not None:
            return self.average.state_dict()
        from deepspeed.utils import safe_get_full_fp32_param

        state = {}
        for name, parameter in self.module.named_parameters():
            whole = safe_get_full_fp32_param(parameter)  # all ranks take part
            if self.ours.is_first:
                whole = parameter.detach() if whole is None else whole
                state[name] = whole.to("cpu", torch.float32, copy=True)
        return state | self._buffers() if self.ours.is_first else None

    def _buffers(self) -> dict[str, torch.Tensor]:
        """Those that are saved; float32 as they were, where training has not changed them."""
        found, before = {}, dict(self._plain.named_buffers())
        for name in self._plain.state_dict().keys() & before.keys():
            now, old = self.module.get_buffer(name).detach(), before[name]
            found[name] = old if torch.equal(old.to(now.dtype), now) else now.to(old.dtype)
        return found

    def finish(self, state: dict[str, torch.Tensor] | None) -> nn.Module:
        """Return a plain module with these weights; see `Engine.finish`."""
        self.called.destroy()
        if self.ours.is_first:
            self._plain.load_state_dict(state, assign=True)
            self._plain.to(self.device)
        return self._plain.eval()


def _without_weights(module: nn.Module) -> nn.Module:
    """Return a copy whose parameters take no memory; buffers are copied."""
    memo = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
        for p in module.parameters()
    }
    return copy.deepcopy(module, memo)


def _add_casts(module: nn.Module) -> None:
    """Let a bf16 module be called with, and give, float32."""

    def cast(values: object, dtype: torch.dtype) -> object:
        if isinstance(values, (tuple, list)):
            return type(values)(cast(value, dtype) for value in values)
        if isinstance(values, dict):
            return {key: cast(value, dtype) for key, value in values.items()}
        is_float = isinstance(values, torch.Tensor) and values.is_floating_point()
        return values.to(dtype) if is_float else values

    def before(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return cast(args, torch.bfloat16), cast(kwargs, torch.bfloat16)

    module.register_forward_pre_hook(before, with_kwargs=True)
    module.register_forward_hook(lambda _, args, made: cast(made, torch.float32))
