"""WeightNet: a training step without masks against one whose attention is of all tokens to all.

The dense side is the same module with the same weights as it is usually written: the tokens of a
batch are padded to the longest sequence, and a mask of T x T says which of them hear each other,
layer by layer in the first blocks; torch's fused attention is given that mask. So its losses are
ours. Both learn the properties of random tokens of real layouts, with AdamW.

Further the rate at which CNNs of 4,970 weights become tokens, in norm order.
"""

import copy
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from harness import Result, interleave
from kernels import step_and_choose
from torch import nn
from torch.nn import functional

from dwf.align.symmetry import symmetry_of
from dwf.datasets.config import DataConfig
from dwf.networks.config import CifarResNetConfig, CNNConfig, MLPConfig, NetworkConfig
from dwf.networks.functional import build_network
from dwf.predictors.attention import Part, UnitAttention
from dwf.predictors.config import WeightNetConfig
from dwf.predictors.frames import Frames
from dwf.predictors.unit_tokens import NetworkTokens
from dwf.predictors.weightnet import sizes_of, tokens_of
from dwf.zoo.facts import Facts
from dwf.zoo.layout import Layout
from dwf.zoo.store import write_zoo

CONFIG = WeightNetConfig(dropout=0.0)
MLP = MLPConfig((196, 16, 10))
CNN = CNNConfig(channels=(16, 16, 16), input=(1, 14, 14), paddings=1, strides=2, head="average")
RESNET = CifarResNetConfig(depth=20, width=8)
BATCHES = {
    "64 MLPs 196-16-10": ((MLP, 64),),
    "64 CNNs of 4,970 weights": ((CNN, 64),),
    "16 ResNet-20 of width 8": ((RESNET, 16),),
    "16 ResNet-20 of width 8 and 48 CNNs": ((RESNET, 16), (CNN, 48)),
}
RATE, PROPERTIES = 1e-3, 3
DIFFERENCE = "largest relative difference of losses"


def run(quick: bool) -> list[Result]:
    """Return the benchmarks of the step, on one thread, and of tokens."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        steps = [_step(name, batch, 2 if quick else 15) for name, batch in BATCHES.items()]
        return [*steps, _tokens(200 if quick else 10_000)]
    finally:
        torch.set_num_threads(before)


def _step(name: str, batch: tuple[tuple[NetworkConfig, int], ...], n: int) -> Result:
    random = torch.Generator().manual_seed(0)
    tokens = [_tokens_of(network) for network, _ in batch]
    parts = [_part(each, num, random) for each, (_, num) in zip(tokens, batch, strict=True)]
    wanted_BP = torch.randn(sum(num for _, num in batch), PROPERTIES, generator=random)
    torch.manual_seed(0)
    widths = {key: width for key, (_, width) in sizes_of(tokens).items()}
    num_layers = max(len(each.layers) for each in tokens)
    ours = UnitAttention(CONFIG, widths, num_layers=num_layers, num_properties=PROPERTIES)
    sides = {"ours": ours, "dense mask": _Dense(copy.deepcopy(ours))}
    losses: dict[str, list[float]] = {side: [] for side in sides}
    steps = {
        side: _stepper(module, parts, wanted_BP, losses[side]) for side, module in sides.items()
    }
    seconds = interleave(steps, n)
    found, wanted = (torch.tensor(losses[side]) for side in sides)
    longest = max(each.num_tokens for each in tokens)
    return Result(
        f"WeightNet's step, d {CONFIG.width}, {name} ({longest} tokens)",
        seconds,
        figures={DIFFERENCE: ((found - wanted).abs() / wanted).max().item()},
        targets={"dense mask / ours": (">=", 1.5), DIFFERENCE: ("<=", 1e-3)},
    )


def _tokens_of(network: NetworkConfig) -> NetworkTokens:
    module = build_network(network)
    layout = Layout.of(module)
    groups = symmetry_of(module, layout, input_shape=_input(network))
    return tokens_of(CONFIG, layout, groups=groups)


def _input(network: NetworkConfig) -> tuple[int, ...]:
    return (3, 32, 32) if isinstance(network, CifarResNetConfig) else tuple(network.input_shape)


def _part(tokens: NetworkTokens, num: int, random: torch.Generator) -> Part:
    drawn = [
        torch.randn(num, len(layer.index_UC), layer.width, generator=random)
        for layer in tokens.layers
    ]
    return Part(tuple(layer.key for layer in tokens.layers), tuple(drawn))


def _stepper(module: nn.Module, parts: list[Part], wanted_BP: torch.Tensor, losses: list[float]):
    optimizer = torch.optim.AdamW(module.parameters(), RATE, fused=True)

    def step() -> None:
        loss = functional.mse_loss(module(parts), wanted_BP)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    step_and_choose(module, step)
    return step


class _Dense(nn.Module):
    """The same with one mask for all tokens of a padded batch."""

    def __init__(self, ours: UnitAttention):
        super().__init__()
        self.ours = ours

    def forward(self, parts: list[Part]) -> torch.Tensor:
        ours = self.ours
        longest = max(sum(t.shape[1] for t in part.tokens) for part in parts)
        features, layers = [], []
        for part in parts:
            x_NTE = torch.cat(ours._embed(part), dim=1)
            numbers = torch.tensor([t.shape[1] for t in part.tokens])
            layer_T = torch.repeat_interleave(torch.arange(len(numbers)), numbers)
            rest = longest - len(layer_T)
            features.append(functional.pad(x_NTE, (0, 0, 0, rest)))
            layers.append(functional.pad(layer_T, (0, rest), value=-1).expand(len(x_NTE), -1))
        x_BTE, layer_BT = torch.cat(features), torch.cat(layers)
        there_BT = layer_BT >= 0
        same_BTT = layer_BT[:, None, :, None] == layer_BT[:, None, None, :]
        both_BTT = there_BT[:, None, :, None] == there_BT[:, None, None, :]
        for block in ours.within:
            x_BTE = _masked(block, x_BTE, same_BTT)
        for block in ours.across:
            x_BTE = _masked(block, x_BTE, both_BTT)
        return ours._tell(self._pool(x_BTE, there_BT))

    def _pool(self, x_BTE: torch.Tensor, there_BT: torch.Tensor) -> torch.Tensor:
        pooling, num = self.ours.pooling, len(x_BTE)
        key, value = pooling._heads(x_BTE.flatten(0, 1), num)
        joined = functional.scaled_dot_product_attention(
            pooling._query(num), key, value, there_BT[:, None, None]
        )
        return pooling.join(joined.flatten(1))


def _masked(block: nn.Module, x_BTE: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
    projected = block.project(block.norms[0](x_BTE))
    query, key, value = projected.unflatten(2, (3, block.heads, -1)).permute(2, 0, 3, 1, 4)
    joined = functional.scaled_dot_product_attention(query, key, value, heard)
    x_BTE = x_BTE + block.join(joined.transpose(1, 2).flatten(2))
    return x_BTE + block.perceptron(block.norms[1](x_BTE))


def _tokens(count: int) -> Result:
    """Rows of a zoo to tokens in norm order, blocks of 64; the order of each is found once."""
    layout = Layout.of(build_network(CNN))
    random = np.random.default_rng(0)
    facts = Facts(
        layout=layout,
        num_shards=1,
        network=CNN,
        data=DataConfig("mnist"),
        input_shape=(1, 14, 14),
        seed=0,
    )

    def blocks():
        for start in range(0, count, 500):
            num = min(500, count - start)
            columns = {"network": np.arange(start, start + num), "epoch": np.zeros(num, int)}
            yield columns, random.normal(size=(num, layout.size)).astype(np.float32)

    with tempfile.TemporaryDirectory() as folder:
        zoo = write_zoo(Path(folder), facts, num_rows=count, blocks=blocks())
        frames, tokens = Frames(zoo, CONFIG), _tokens_of(CNN)
        times = []
        for _ in range(2):
            start = time.perf_counter()
            for rows_B in np.split(np.arange(count), range(64, count, 64)):
                list(tokens.values(frames.read(rows_B)))
            times.append(time.perf_counter() - start)
    first = f"{count} CNNs of {layout.size} weights to tokens, first time (s)"
    again = "... orders known (s)"
    return Result(
        "tokens of units, norm order, one thread",
        figures={first: times[0], again: times[1]},
        targets={first: ("<=", 30)} if count >= 10_000 else {},
    )
