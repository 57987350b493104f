"""DeepSpeed's own settings: a JSON file for what is its, the loop's settings for the rest."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from dwf.errors import ConfigError
from dwf.files import read_json
from dwf.plain import Json
from dwf.shipped import CONFIGS, ROOT, here_or_shipped
from dwf.training.config import LoopConfig

logger = logging.getLogger(__name__)

# What the loop decides -> the setting that does.
_OWNED = {
    "optimizer": "training.learning_rate, weight_decay and betas",
    "scheduler": "training.schedule",
    "train_batch_size": "training.batch_size",
    "train_micro_batch_size_per_gpu": "training.batch_size and accumulate",
    "gradient_accumulation_steps": "training.accumulate",
    "gradient_clipping": "training.clip_norm",
    "torch_autocast": "training.compute.precision",
    "checkpoint": "the run folder",
}
_SECTIONS = ("zero_optimization", "bf16", "fp16")
_QUIET = 2**62


@dataclass(frozen=True)
class DeepSpeedSettings:
    """A DeepSpeed file, understood."""

    path: Path
    data: dict[str, Json]
    """Contents of the file."""
    bf16: bool
    """Whether weights are bf16 on the ranks, with float32 ones for the optimiser."""

    @property
    def stage(self) -> int:
        """Stage of ZeRO: 1 shares the optimiser's state, 2 gradients too, 3 weights too."""
        return self.data["zero_optimization"]["stage"]

    @property
    def offload(self) -> str:
        """Part that lies in the machine's memory: `none`, `optimizer` or `parameters` (both)."""
        for key, word in (("offload_param", "parameters"), ("offload_optimizer", "optimizer")):
            if (self.data["zero_optimization"].get(key) or {}).get("device", "none") != "none":
                return word
        return "none"

    @property
    def needs(self) -> dict[str, Json]:
        """Settings that a checkpoint must agree on: those that decide which numbers lie where."""
        zero = self.data["zero_optimization"]
        order = {key: zero.get(key) for key in ("round_robin_gradients", "sub_group_size")}
        return {"stage": self.stage, "bf16": self.bf16} | order

    def filled(self, config: LoopConfig, world: int, *, universal: bool) -> dict[str, Json]:
        """Return what DeepSpeed is given: the file and what the loop's settings say."""
        autocast = config.compute.precision == "bf16" and not self.bf16
        return self.data | {
            "train_batch_size": config.batch_size,
            "train_micro_batch_size_per_gpu": config.batch_size // (world * config.accumulate),
            "gradient_accumulation_steps": config.accumulate,
            "gradient_clipping": config.clip_norm or 0.0,
            "bf16": self.data.get("bf16", {}) | {"enabled": self.bf16},
            "torch_autocast": {"enabled": autocast, "dtype": "bfloat16"},
            "checkpoint": {"load_universal": universal},
            "zero_allow_untested_optimizer": True,  # torch's AdamW, which needs no compiler
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": _QUIET,
        }


def read_settings(config: LoopConfig) -> DeepSpeedSettings:
    """Read the DeepSpeed file that the loop's settings name.

    Raises:
        ConfigError: no such file, not JSON, a ZeRO stage that is none, or a key that the loop owns.
    """
    path = here_or_shipped(config.deepspeed)
    if not path.is_file():
        raise ConfigError(
            f"training.deepspeed = {config.deepspeed!r}: no such file; shipped are "
            f"{', '.join(sorted(_shipped()))}"
        )
    data = read_json(path, cure="write it as DeepSpeed's own", error=ConfigError)
    _refuse_other_kinds(path, data)
    _refuse_owned(path, data)
    stage = data.get("zero_optimization", {}).get("stage", 0)
    if stage not in (1, 2, 3):
        raise ConfigError(
            f"{path}: zero_optimization.stage = {stage!r}: allowed is 1, 2 or 3; "
            "where every rank may hold all, take training.engine = ddp"
        )
    if stage == 3 and config.ema:
        raise ConfigError(
            f"training.ema = {config.ema} needs whole weights on each rank, and {path} says ZeRO "
            "stage 3: set ema to null, or take a file of stage 1 or 2"
        )
    bf16 = data.get("bf16", {}).get("enabled", False)
    return DeepSpeedSettings(
        path, data, bf16=config.compute.precision == "bf16" if bf16 == "auto" else bf16
    )


def _shipped() -> list[str]:
    return [str(file.relative_to(ROOT)) for file in (CONFIGS / "deepspeed").glob("*.json")]


def _refuse_other_kinds(path: Path, data: Json) -> None:
    parts = {"the file": data}
    if isinstance(data, dict):
        parts |= {key: data[key] for key in _SECTIONS if key in data}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise ConfigError(f"{path}: {name} is {json.dumps(part)}: expected {{...}}")


def _refuse_owned(path: Path, data: dict[str, Json]) -> None:
    for key, setting in _OWNED.items():
        if data.get(key, "auto") != "auto":
            raise ConfigError(
                f"{path}: {key} = {data[key]!r}: the training loop decides this; remove the key "
                f'or set it to "auto", and set {setting}'
            )
        data.pop(key, None)
    if data.get("fp16", {}).get("enabled", False):
        raise ConfigError(f"{path}: fp16.enabled = true: take bf16, or float32")
