"""Settings of the training loop."""

from dataclasses import dataclass
from typing import Literal

from dwf.settings import Count, Fraction, NonNegative, Positive, Whole


@dataclass(frozen=True)
class LoopConfig:
    """How something learns: optimiser, schedule, averaging, validation, saving."""

    steps: Count = 10_000
    """Updates of the weights."""
    batch_size: Count = 64
    """Examples an update is computed from."""
    learning_rate: Positive = 1e-3
    """AdamW's rate, the highest of the schedule."""
    weight_decay: NonNegative = 0.0
    """AdamW's decoupled weight decay."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """AdamW's decay rates of the two moments."""
    schedule: Literal["constant", "cosine", "one_cycle"] = "cosine"
    """`cosine` falls to `minimum_rate`; `one_cycle` first rises from a 25th of `learning_rate`."""
    minimum_rate: NonNegative = 0.0
    """Learning rate at the end of `cosine` and `one_cycle`."""
    warm_up: Whole = 0
    """Steps of a rising rate; 0: none, and for `one_cycle` 30 % of the steps."""
    clip_norm: Positive | None = None
    """Longest gradient; longer ones are shortened to it."""
    ema: Fraction | None = None
    """Decay of the exponential moving average of the weights, which is then what is kept."""
    validate_every: Count = 500
    """Steps between two validations, each a line of the metrics."""
    save_every_seconds: NonNegative = 300.0
    """Seconds between two checkpoints."""
    keep: Literal["last", "best"] = "last"
    """Which weights are the result: the last, or those of the lowest validation loss."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: a GPU where there is one."""
    threads: Count | None = None
    """Threads of one operation on the CPU; default: as many as torch chooses."""
    precision: Literal["float32", "bf16"] = "float32"
    """Precision of the arithmetic; weights are float32 in any case."""
    compile: bool = False
    """Compile the network first (costs 10 s or more)."""

    def __post_init__(self):
        if len(self.betas) != 2:
            raise ValueError(f"betas = {list(self.betas)}: two numbers are needed")
        if self.warm_up >= self.steps:
            raise ValueError(f"warm_up = {self.warm_up} must be below steps = {self.steps}")
