"""The contract between the training loop and something that learns."""

from dataclasses import dataclass

import torch
from torch import nn

from dwf.errors import ConfigError, TooFewNetworks
from dwf.training.config import LoopConfig


@dataclass(frozen=True)
class Share:
    """Which examples of each update's batch are this rank's.

    A batch is cut into `accumulate` rounds of one micro-batch for each rank; what an example is
    follows from the step and its place in the batch alone, so any number of ranks sees one batch.
    """

    rank: int = 0
    world: int = 1
    batch_size: int = 1
    """Examples of an update, over all ranks and micro-batches."""
    accumulate: int = 1
    """Micro-batches of an update on each rank."""

    @classmethod
    def of_first(cls, config: LoopConfig, ranks: int) -> "Share":
        """Return the first rank's of a training; that of the engine `plain` is of one rank.

        Raises:
            ConfigError: the batch cannot be shared by so many ranks.
        """
        world = 1 if config.engine == "plain" else ranks
        return cls(0, world, batch_size=config.batch_size, accumulate=config.accumulate)

    def __post_init__(self):
        if self.batch_size % (self.world * self.accumulate):
            raise ConfigError(
                f"training.batch_size = {self.batch_size} cannot be shared by {self.world} ranks "
                f"in {self.accumulate} micro-batches each: set a multiple of "
                f"{self.world * self.accumulate}, or another training.accumulate"
            )

    @property
    def micro(self) -> int:
        """Examples of one micro-batch."""
        return self.batch_size // (self.world * self.accumulate)

    def examples(self, micro_step: int) -> tuple[int, int]:
        """Return the places [start, stop) in the batch of micro-batch `micro_step` of an update."""
        start = (micro_step * self.world + self.rank) * self.micro
        return start, start + self.micro

    def of_round(self, micro: int) -> slice:
        """Return the places of a micro-batch of `micro` examples among those of all ranks."""
        return slice(self.rank * micro, (self.rank + 1) * micro)


class Task:
    """Something that learns; base of what is given to `train`."""

    module: nn.Module
    """The module to train; after training, on the first rank, a plain float32 module."""
    seconds_waited: float = 0.0
    """Time that `loss` waited for data since the loop last set this to 0."""
    tokens_per_example: int | None = None
    """Tokens that the module sees of an example, for the rate in the metrics."""
    flops_per_example: float | None = None
    """Floating-point operations of forward and backward for an example, counted from shapes."""
    last: dict[str, torch.Tensor] | None = None
    """Weights after the last step, where training kept those of another; on the first rank."""
    early_share: float | None = None
    """Share of the steps after which the weights that would be kept then are kept too, as `early`;
    None: none."""
    early: dict[str, torch.Tensor] | None = None
    """Those weights, once it has learnt; on the first rank."""
    draws_whole_rounds: bool = False
    """Whether each rank draws the micro-batches of all ranks, from one stream, and takes its own:
    so any number of ranks learns from one batch, where examples are drawn and not numbered."""

    def start(self, step: int, share: Share) -> None:
        """Be told of the first update that this process makes, before it.

        Args:
            step: updates made before; above 0 after a resume.
            share: which examples of each batch `loss` is asked for, in order.
        """

    def loss(
        self, module: nn.Module, batch_size: int, *, generator: torch.Generator
    ) -> torch.Tensor:
        """Return the scalar loss of a fresh batch.

        Args:
            module: stands for `self.module`, possibly compiled or spread over ranks: only its
                forward may be called, and once, and the same of its parameters take part in each
                step's loss.
            batch_size: examples to draw, of this rank's micro-batch.
            generator: the only source of chance besides dropout, on the device; each rank has
                its own, or, of a task that `draws_whole_rounds`, one in the same state.
        """
        raise NotImplementedError

    def validate(self, module: nn.Module) -> float | None:
        """Return the loss on what is held out, the same chance each time; None without any.

        All ranks call it together on equal data; the first's answer counts.

        Args:
            module: `self.module` or its moving average, in evaluation mode.
        """
        raise NotImplementedError

    def describe(self, step: int) -> str | None:
        """Return where the batch of a step came from, for an error about it."""
        return None


def refuse_few(count: int, batch_size: int, *, key: str = "training") -> None:
    """Refuse fewer training networks than a batch has; raises `TooFewNetworks`.

    Args:
        count: training networks.
        batch_size: of an update.
        key: where these settings stand, for the error.
    """
    if count < batch_size:
        raise TooFewNetworks(
            f"{count} training networks are fewer than batch_size = {batch_size}: lower "
            f"{key}.batch_size to at most {count}, or train a larger zoo"
        )
