"""Tokens: making them against copying the same memory, and cutting windows from a zoo's shards.

Published on a machine of this kind, for what it is worth: tokenise a ResNet-18 96 ms and back 59, a
CNN of 10,853 weights 0.72 and 1.16; 519 windows a second with two of five stored permutations.

One thread. Shape suffixes: N networks, T tokens, C numbers of a token, D numbers of a network.
"""

import statistics
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from harness import Result, interleave

from dwf.align.groups import permute, random_orders
from dwf.align.symmetry import symmetry_of
from dwf.codecs.config import TokenSettings
from dwf.codecs.tokens import Geometry, TokenScaling
from dwf.codecs.windows import View, WindowSampler
from dwf.datasets.config import DataConfig
from dwf.networks.config import CNNConfig, NetworkConfig, ResNetConfig
from dwf.networks.functional import build_network
from dwf.zoo.facts import Facts
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo, write_zoo

_CNN3 = CNNConfig(
    (16, 32, 15), (3, 32, 32), pools=2, pool_first=True, activation="gelu", hidden=(20,)
)
_BATCH, _STEPS = 32, 10
_PERMUTED: tuple[View, ...] = ("permuted", "permuted")


def run(quick: bool) -> list[Result]:
    """Time tokens and windows; `quick` repeats less."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    repeats = 3 if quick else 15
    try:
        return [
            *_both_ways("a ResNet-18", ResNetConfig(), 288, 1, repeats, 16e-3),
            *_both_ways("100 CNN3s", _CNN3, 289, 100, repeats, 100 * 0.05e-3),
            _windows("CNN3", _CNN3, 289, 64, 500, repeats, {"windows a second": (">=", 5_000)}),
            _windows("a ResNet-18 of width 16", ResNetConfig(width=16), 288, 256, 50, repeats, {}),
        ]
    finally:
        torch.set_num_threads(threads)


def _both_ways(
    what: str, config: NetworkConfig, size: int, num: int, repeats: int, target: float
) -> list[Result]:
    """Tokens of networks without norms, and back, against copies and a gather of the same bytes."""
    with torch.device("meta"):
        layout = Layout.of(build_network(config))
    geometry = Geometry.of(layout, TokenSettings(size, norms=False))
    weights_ND = torch.randn(num, layout.size)
    tokens_NTC = geometry.tokenise(weights_ND)
    copied_NTC, back_ND = tokens_NTC.clone(), weights_ND.clone()
    index_TC = geometry.offsets(0, geometry.num_tokens).clamp(min=0).view(-1)
    there = {
        "strided copies": lambda: geometry.tokenise(weights_ND, tokens_NTC),
        "memory copy": lambda: copied_NTC.copy_(tokens_NTC),
        "one gather": lambda: torch.index_select(
            weights_ND, 1, index_TC, out=copied_NTC.view(num, -1)
        ),
    }
    back = {
        "strided copies": lambda: geometry.detokenise(tokens_NTC, back_ND),
        "memory copy": lambda: back_ND.copy_(weights_ND),
    }
    name = f"tokenise {what}: {geometry.num_tokens:,} tokens of {size}"
    targets = {"strided copies (s)": ("<=", target)}
    results = [
        Result(name, interleave(there, repeats), targets=targets),
        Result(f"{name}, back", interleave(back, repeats), targets=targets),
    ]
    for result in results:
        median = statistics.median(result.seconds["strided copies"])
        result.figures["milliseconds a network"] = 1e3 * median / num
    return results


def _windows(
    what: str,
    config: NetworkConfig,
    size: int,
    window: int,
    count: int,
    repeats: int,
    targets: dict[str, tuple[str, float]],
) -> Result:
    """Windows of two permuted views, and of two that are as they are; the bytes they ask for."""
    with TemporaryDirectory() as folder:
        zoo = _random_zoo(Path(folder) / "zoo", config, count)
        samplers = {
            "two permuted views": _sampler(zoo, size, window, _PERMUTED),
            "two canonical views": _sampler(zoo, size, window, ("canonical", "canonical")),
        }
        loops = {name: _Loop(sampler) for name, sampler in samplers.items()}
        sides = loops | {"whole networks permuted": _whole_networks(zoo, size, window)}
        seconds = interleave(sides, repeats)
    figures = {}
    for name, loop in loops.items():
        per_step = {step.num_bytes / (4 * int(step.mask_BWC.sum())) for step in loop.steps}
        figures[f"bytes requested / bytes of a window, {name}"] = max(per_step)
    num = _BATCH * _STEPS
    figures["windows a second"] = num / statistics.median(seconds["two permuted views"])
    bounds = {"two canonical views": 1.2, "two permuted views": 3.0}
    targets = targets | {
        f"bytes requested / bytes of a window, {name}": ("<=", most)
        for name, most in bounds.items()
    }
    return Result(
        f"{num} windows of {window} tokens of {what}", seconds, figures=figures, targets=targets
    )


class _Loop:
    """Cuts the batches of some steps; new ones each time, so that nothing is warm but the file."""

    def __init__(self, sampler: WindowSampler):
        self._sampler, self._step = sampler, 0
        self.steps = [sampler.batch(step, _BATCH, start=0, stop=_BATCH) for step in range(_STEPS)]

    def __call__(self) -> None:
        for _ in range(_STEPS):
            self._step += 1
            self._sampler.batch(self._step, _BATCH, start=0, stop=_BATCH)


def _tokens(zoo: Zoo, size: int) -> tuple[Geometry, TokenScaling]:
    geometry = Geometry.of(zoo.layout, TokenSettings(size, norms=False))
    return geometry, TokenScaling.fit([(zoo, np.arange(len(zoo)))], geometry, kind="per_layer")


def _sampler(zoo: Zoo, size: int, window: int, views: tuple[View, ...]) -> WindowSampler:
    geometry, scaling = _tokens(zoo, size)
    return WindowSampler(
        [(zoo, np.arange(len(zoo)))], [geometry], scalings=[scaling], window=window, views=views
    )


def _whole_networks(zoo: Zoo, size: int, window: int) -> Callable[[], None]:
    """The straightforward way: permute whole networks twice, make all tokens, then cut."""
    geometry, scaling = _tokens(zoo, size)
    groups = symmetry_of(zoo.build_network(), zoo.layout, input_shape=zoo.input_shape)
    layer_T, mask_TC = geometry.layer_of_token_T, geometry.mask_TC
    stream = np.random.default_rng(0)

    def one_batch() -> torch.Tensor:
        rows_B = stream.choice(len(zoo), _BATCH, replace=False)
        start_B = stream.integers(0, geometry.num_tokens - window + 1, _BATCH)
        weights_ND = torch.from_numpy(zoo.read(rows_B))
        views = []
        for _ in range(2):
            orders = random_orders(groups, _BATCH, seed=int(stream.integers(2**31)))
            tokens_NTC = geometry.tokenise(
                permute(weights_ND, zoo.layout, groups=groups, orders=orders)
            )
            tokens_NTC = scaling.apply(tokens_NTC, layer_T, mask_TC=mask_TC)
            cut = [tokens_NTC[b, start : start + window] for b, start in enumerate(start_B)]
            views.append(torch.stack(cut))
        return torch.stack(views)

    return lambda: [one_batch() for _ in range(_STEPS)]


def _random_zoo(path: Path, config: NetworkConfig, count: int) -> Zoo:
    layout = Layout.of(build_network(config))
    weights = np.random.default_rng(0).standard_normal((count, layout.size), dtype=np.float32)
    columns = {"network": np.arange(count), "epoch": np.ones(count, np.int32)}
    said = {"network": config, "data": DataConfig("cifar10"), "input_shape": (3, 32, 32), "seed": 0}
    facts = Facts(layout=layout, num_shards=1, **said)
    return write_zoo(path, facts, num_rows=count, blocks=[(columns, weights)])
