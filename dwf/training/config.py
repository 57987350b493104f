"""Settings of the training loop."""

from dataclasses import dataclass, field, replace
from typing import Literal

from dwf.checked import Checked, refuse_idle
from dwf.compute import ComputeConfig
from dwf.settings import Count, Fraction, NonNegative, Positive, Rate, Whole

ENGINES = {
    "plain": "dwf.training.engine:Engine",
    "ddp": "dwf.training.engine:DdpEngine",
    "deepspeed": "dwf.training.deepspeed_engine:DeepSpeedEngine",
}


@dataclass(frozen=True)
class LoopComputeConfig(ComputeConfig):
    """Where and how something learns."""

    threads: Count | None = None
    """Threads of one operation on the CPU; default: as many as torch chooses."""
    precision: Literal["float32", "bf16", "auto"] = "float32"
    """Precision of the arithmetic; weights are float32 in any case. `auto`: bf16 on a GPU or CPU
    that has instructions for it, else float32."""
    kernel: Literal["auto", "torch", "onednn"] = "auto"
    """Kernels of linear maps in float32 on a CPU: torch's own, oneDNN's, or, `auto`,
    those that a trial after the first update finds faster, which the run then keeps."""
    keep_checkpoints: bool = False
    """Keep the saved states of the training when the run is finished; else they are removed."""


@dataclass(frozen=True)
class LoopConfig(Checked):
    """How something learns: optimiser, schedule, averaging, validation, saving."""

    steps: Count = 10_000
    """Updates of the weights."""
    batch_size: Count = 64
    """Examples an update is computed from, over all ranks and their micro-batches."""
    accumulate: Count = 1
    """Micro-batches that each rank takes its share of an update in, one after the other."""
    engine: Literal["plain", "ddp", "deepspeed"] = "plain"
    """`plain`: one process; `ddp`: a copy on each rank; `deepspeed`: ranks share what they hold."""
    deepspeed: str = "configs/deepspeed/zero2.json"
    """DeepSpeed's own settings: the ZeRO stage, offload, bf16."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon`: hidden matrices by Muon (as many steps go further), the rest by AdamW."""
    learning_rate: Rate = 1e-3
    """AdamW's rate, the highest of the schedule."""
    matrix_rate: Rate = 0.02
    """Muon's rate, the highest of the schedule; of `optimizer` muon alone."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """AdamW's decay rates of the two moments."""
    schedule: Literal["constant", "cosine", "one_cycle", "step"] = "cosine"
    """Course of the learning rate: `cosine` falls to `minimum_rate`, `one_cycle` first rises from a
    25th of `learning_rate`, `step` is multiplied by `gamma` every `step_size` steps."""
    minimum_rate: NonNegative = 0.0
    """Learning rate at the end of `cosine` and `one_cycle`."""
    step_size: Count | None = None
    """Steps between two falls of the schedule `step`, which needs it."""
    gamma: Fraction = 0.1
    """Factor of the learning rate at each fall of the schedule `step`."""
    warm_up: Whole = 0
    """Steps of a rising rate; 0: none, and for `one_cycle` 30 % of the steps."""
    clip_norm: Positive | None = None
    """Longest gradient; longer ones are shortened to it."""
    ema: Fraction | None = None
    """Decay of the exponential moving average of the weights, which is then what is kept."""
    validate_every: Count = 500
    """Steps between two validations, each a line of the metrics."""
    sample_every: Whole = 0
    """Steps between two looks at networks drawn from a density, or a VAE's prior, in training,
    scored on validation images: a multiple of `validate_every`; 0: none."""
    sample_count: Count = 16
    """Networks drawn at each such look."""
    keep: Literal["last", "best", "best_samples"] = "last"
    """Weights that are the result: the last, those of the lowest validation loss, or those whose
    samples had the highest mean accuracy on validation images (needs `sample_every`)."""
    compute: LoopComputeConfig = field(default_factory=LoopComputeConfig)
    """Device, arithmetic and saving."""

    def __post_init__(self):
        if len(self.betas) != 2:
            raise ValueError(f"betas = {list(self.betas)}: two numbers are needed")
        if self.warm_up >= self.steps:
            raise ValueError(f"warm_up = {self.warm_up} must be below steps = {self.steps}")
        if self.schedule == "step" and self.step_size is None:
            raise ValueError("schedule = step needs step_size: set that too, or another schedule")
        self._refuse_idle()
        if self.sample_every % self.validate_every:
            raise ValueError(
                f"sample_every = {self.sample_every} is not a multiple of validate_every = "
                f"{self.validate_every}, at which the metrics are written: set one, or 0"
            )
        if self.keep == "best_samples" and not self.sample_every:
            raise ValueError(
                "keep = 'best_samples' chooses by the samples of sample_every, which is 0: set "
                f"sample_every to a multiple of validate_every = {self.validate_every}"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size = {self.batch_size} is not a multiple of accumulate = "
                f"{self.accumulate}: an update's micro-batches are of one size"
            )
        if self.compute.precision == "auto" and self.engine == "deepspeed":
            raise ValueError("compute.precision = auto is for the engines plain and ddp: set bf16")
        if self.optimizer == "muon" and self.engine == "deepspeed":
            raise ValueError("optimizer = muon is for the engines plain and ddp: set adamw")
        if self.compute.compile and self.engine == "deepspeed":
            raise ValueError("compute.compile = true is for the engines plain and ddp: set false")

    def _refuse_idle(self) -> None:
        if self.optimizer != "muon":
            because = "it is of optimizer = muon: set that"
            refuse_idle(self, "matrix_rate", by=("optimizer",), because=because)
        if self.schedule not in ("cosine", "one_cycle"):
            refuse_idle(
                self,
                "minimum_rate",
                by=("schedule",),
                because=f"schedule = {self.schedule} never ends at it: set cosine or one_cycle",
            )
        if self.schedule != "step":
            because = "it is of schedule = step: set that"
            refuse_idle(self, "step_size", "gamma", by=("schedule",), because=because)
        if not self.sample_every:
            because = "sample_every = 0 looks at no samples: set that"
            refuse_idle(self, "sample_count", by=("sample_every",), because=because)

    def with_steps(self, steps: int) -> "LoopConfig":
        """Return it with so many steps; what counts in steps keeps its share of them.

        So the learning rate has run its whole course at the last step. Validations come as often,
        but a short training has five at most.
        """
        share = steps / self.steps
        every = max(round(share * self.validate_every), min(self.validate_every, -(-steps // 5)))
        step_size = self.step_size and max(1, round(share * self.step_size))
        looks = self.sample_every // self.validate_every
        return replace(
            self,
            steps=steps,
            warm_up=min(round(share * self.warm_up), steps - 1),
            step_size=step_size,
            validate_every=every,
            sample_every=every * looks,
        )

    @property
    def shared_engine(self) -> str:
        """The engine for several ranks: its own, or deepspeed, or ddp where that is not for it."""
        if self.engine != "plain":
            return self.engine
        refused = (
            self.optimizer == "muon" or self.compute.precision == "auto" or self.compute.compile
        )
        return "ddp" if refused else "deepspeed"
