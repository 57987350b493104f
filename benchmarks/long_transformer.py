"""The long transformer: a training step against the number of tokens, and against full attention.

One thread, one sequence, a narrow backbone; the steps of all lengths are timed in turn within one
run. Linear is: a token of the longest sequence takes as long as one of the shortest.
"""

import statistics
from collections.abc import Callable

import torch
from harness import Result, interleave
from kernels import step_and_choose

from dwf.backbones.config import (
    BackboneConfig,
    LongTransformerConfig,
    TransformerConfig,
    build_backbone,
)
from dwf.backbones.shape import Shape

_TOKENS = (300, 1_200, 4_800, 19_500, 39_000)
_SIZE, _LAYERS, _AGAINST = 16, 6, 2_048
_LONG = LongTransformerConfig(width=32, heads=4, depth=2, window=75)


def run(quick: bool) -> list[Result]:
    """Return both benchmarks; `quick` takes shorter sequences and repeats less."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_linear(quick), _against_full(quick)]
    finally:
        torch.set_num_threads(before)


def _step(config: BackboneConfig, tokens: int, *, size: int = _SIZE) -> Callable[[], None]:
    """Return a forward and a backward pass over one sequence, split evenly into layers."""
    counts = [tokens * (i + 1) // _LAYERS - tokens * i // _LAYERS for i in range(_LAYERS)]
    shape = Shape(tokens * size, tuple((count, size) for count in counts))
    torch.manual_seed(0)
    module = build_backbone(config, shape)
    x_BK, t_B = torch.randn(1, shape.size), torch.rand(1)

    def step() -> None:
        module.zero_grad()
        module(x_BK, t_B).square().mean().backward()

    step_and_choose(module, step)
    return step


def _linear(quick: bool) -> Result:
    lengths = _TOKENS[:3] if quick else _TOKENS
    sides = {f"{tokens:,} tokens": _step(_LONG, tokens) for tokens in lengths}
    seconds = interleave(sides, 2 if quick else 5)
    medians = [statistics.median(times) for times in seconds.values()]
    figures = {
        f"microseconds a token, {tokens:,}": 1e6 * median / tokens
        for tokens, median in zip(lengths, medians, strict=True)
    }
    longest = medians[-1] / lengths[-1]
    shortest = medians[0] / lengths[0]
    name = f"time a token at {lengths[-1]:,} / at {lengths[0]:,}"
    figures[name] = longest / shortest
    return Result(
        "long transformer, a step against tokens",
        seconds,
        figures=figures,
        targets={name: ("<=", 1.2)},
    )


def _against_full(quick: bool) -> Result:
    """Both of one width and depth, with windows of 64 tokens."""
    long = LongTransformerConfig(width=32, heads=4, depth=2, window=64)
    full = TransformerConfig(width=32, heads=4, depth=2, positions=True)
    sides = {"long": _step(long, _AGAINST), "full attention": _step(full, _AGAINST)}
    return Result(
        f"long transformer against full attention, {_AGAINST:,} tokens",
        interleave(sides, 2 if quick else 5),
        targets={"full attention / long": (">=", 4.0)},
    )
