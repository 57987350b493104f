"""Settings of the transformer over long sequences; the table of backbones is in `config.py`."""

from dataclasses import dataclass
from typing import Literal

from dwf.backbones.settings import TokenBackboneSettings
from dwf.backbones.shape import Shape
from dwf.errors import ConfigError
from dwf.settings import Count, Whole


@dataclass(frozen=True)
class LongTransformerConfig(TokenBackboneSettings):
    """Attention in windows of neighbouring tokens, and global tokens: cost linear in tokens."""

    width: Count = 128
    """Width of the residual stream."""
    heads: Count = 4
    """Attention heads; they share the width."""
    depth: Count = 3
    """Blocks of attention and a two-layer perceptron."""
    expansion: Count = 4
    """Hidden units of a block's perceptron, as a multiple of `width`."""
    window: Count = 256
    """Neighbouring tokens that hear each other; at most as many as the sequence has. Every second
    block moves its windows on by half of one."""
    global_tokens: Whole = 1
    """Learned tokens for each layer of the coded network that hear all tokens and that all hear; 0:
    none, so that windows alone carry what one token says to another."""
    checkpointing: bool = False
    """Compute each block again in the backward pass: less memory, a third more arithmetic."""
    kind: Literal["long_transformer"] = "long_transformer"
    """The architecture."""

    def __post_init__(self):
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width = {self.width} must be a multiple of 2 x heads = {2 * self.heads}"
            )

    @property
    def saves_memory(self) -> tuple[str, ...]:
        """Names of flags that would lower `kept_numbers`."""
        return () if self.checkpointing else ("checkpointing",)

    def check_window(self, shape: Shape) -> None:
        """Raise ConfigError where a window is longer than the sequence."""
        if self.window > shape.num_tokens:
            raise ConfigError(
                f"backbone.window = {self.window}, and the codes are sequences of "
                f"{shape.num_tokens} tokens: set it to at most {shape.num_tokens}, which lets all "
                "tokens hear each other"
            )

    def num_global(self, shape: Shape) -> int:
        """Return how many global tokens there are beside a sequence."""
        return self.global_tokens * shape.num_layers

    def widest(self, shape: Shape) -> int:
        """Return how many numbers its largest layer has for one sequence."""
        tokens = shape.num_tokens + self.num_global(shape)
        return max(shape.size, tokens * self.width * self.expansion)

    def multiplications(self, shape: Shape) -> float:
        """Return the multiplications of one evaluation for one sequence."""
        tokens, others, width = shape.num_tokens, self.num_global(shape), self.width
        # Maps of each token, and modulation by time.
        in_a_block = (tokens + others) * (4 + 2 * self.expansion) + 6
        padded = -(-tokens // self.window) * self.window
        pairs = padded * (self.window + others) + others * (tokens + others)
        return 2 * shape.size * width + self.depth * (in_a_block * width**2 + 2 * pairs * width)

    def kept_numbers(self, shape: Shape) -> float:
        """Return how many numbers the backward needs for one sequence; see the base."""
        num, others = shape.num_tokens, self.num_global(shape)
        # Of each branch what enters and leaves its norm, enters and leaves its maps; queries, keys,
        # values and what is heard; the hidden layer, its slope and what leaves it.
        block = (num + others) * self.width * (12 + 3 * self.expansion)
        if others:  # windows' queries, keys and values with the global tokens behind, and a join
            block += num * self.width * (5 + 2 * others / self.window)
        ends = shape.size + 3 * num * self.width
        if self.checkpointing:
            return ends + block + self.depth * (num + others) * self.width
        return ends + self.depth * block
