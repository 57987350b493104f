"""Flows over neuron tokens: a training step against a plain one, 512 samples, pairings.

The plain step is the same network as one would write it down: torch's linear maps and attention
modules, AdamW unfused, a moving average in a loop, and a look at every block's gradient by
`.item()` each step. It begins with the same weights and draws the same numbers, so its losses are
ours. Both train the backbone of configs/generator/digits_neurons.yaml: 16 tokens of 75 numbers and
one of 10.
"""

import copy
import tempfile
import time
from pathlib import Path

import torch
from harness import Result, interleave
from kernels import step_and_choose
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from dwf.backbones.config import TransformerConfig
from dwf.backbones.embedding import FourierTime
from dwf.backbones.shape import Shape
from dwf.backbones.transformer import Transformer
from dwf.codecs.codes import Codes, CodeShape
from dwf.densities.config import FlowConfig, SolverConfig
from dwf.densities.examples import Examples
from dwf.densities.flow import Flow
from dwf.densities.flow_matching import FlowMatching
from dwf.densities.pairing import pair
from dwf.run_folder import RunFolder
from dwf.training.config import LoopComputeConfig, LoopConfig
from dwf.training.engine import make_engine
from dwf.training.throughput import measure_peak

SECTIONS = ((16, 75), (1, 10))
NUM_TOKENS, NUM_FEATURES = 17, 16 * 75 + 10
BATCH, WIDTH, HEADS, RATE, CLIP, EMA = 128, 128, 4, 2e-3, 1.0, 0.999
CPU = torch.device("cpu")
CONFIG = FlowConfig(
    backbone=TransformerConfig(width=WIDTH, heads=HEADS, depth=6),
    training=LoopConfig(
        steps=1,
        batch_size=BATCH,
        clip_norm=CLIP,
        ema=EMA,
        validate_every=1,
        compute=LoopComputeConfig(device="cpu"),
    ),
    solver=SolverConfig(method="rk4", steps=8),
    standardise="none",
)


def run(quick: bool) -> list[Result]:
    """Return the benchmarks of the step, of samples and of pairings."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        step = _step(5 if quick else 40)
        torch.set_num_threads(before)
        return [step, _samples(1 if quick else 3), _pairings(2 if quick else 9)]
    finally:
        torch.set_num_threads(before)


def _step(n: int) -> Result:
    """One update of both, on one thread; figures say whether the losses agree."""
    torch.manual_seed(0)
    ours = Transformer(CONFIG.backbone, Shape(NUM_FEATURES, SECTIONS))
    for parameter in ours.parameters():  # it begins at zero: nothing could differ
        nn.init.normal_(parameter, std=0.05)
    plain = _Plain(ours)
    flops = _count_flops(plain)
    codes = torch.randn(1024, NUM_FEATURES)
    losses: dict[str, list[float]] = {"ours": [], "plain": []}
    with tempfile.TemporaryDirectory() as folder:
        step = _our_step(ours, codes, losses["ours"], Path(folder))
        other = _plain_step(plain, codes, losses["plain"])
        step_and_choose(ours, step)
        other()  # as often
        seconds = interleave({"ours": step, "plain": other}, n)
    found, wanted = (torch.tensor([float(one) for one in losses[side]]) for side in losses)
    peak = max(measure_peak(CPU, torch.float32) for _ in range(3))
    best = min(seconds["ours"])
    numbers = sum(parameter.numel() for parameter in ours.parameters())
    difference = "largest relative difference of losses"
    figures = {
        difference: ((found - wanted).abs() / wanted).max().item(),
        "matrix arithmetic of a step (GFLOP)": flops / 1e9,
        "peak of a matrix product (GFLOP/s)": peak / 1e9,
        "share of that peak, best step": flops / best / peak,
        "share of that peak, best plain step": flops / min(seconds["plain"]) / peak,
    }
    return Result(
        f"flow step on neuron tokens: {numbers:,} parameters, {NUM_TOKENS} tokens, batch {BATCH}",
        seconds,
        figures=figures,
        targets={"plain / ours": (">=", 1.3), difference: ("<=", 1e-3)},
    )


def _our_step(module: Transformer, codes: torch.Tensor, losses: list, folder: Path):
    engine = make_engine(module, CONFIG.training, device=CPU, checkpoints=folder)
    task = FlowMatching(CONFIG, module, train=Examples(codes), val=Examples(codes[:0]), seed=0)
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        losses.append(engine.update(RATE, lambda: task.loss(module, BATCH, generator=generator)))
        engine.move_average(len(losses))

    return step


def _plain_step(module: "_Plain", codes: torch.Tensor, losses: list):
    optimizer = torch.optim.AdamW(
        module.parameters(), RATE, weight_decay=0.0, foreach=False, fused=False
    )
    average = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(0)
    norms: list[float] = []

    def step() -> None:
        x1 = codes[torch.randint(len(codes), (BATCH,), generator=generator)]
        x0 = torch.empty_like(x1).normal_(0, 1, generator=generator)
        t = torch.rand(BATCH, generator=generator)
        x_t = (1 - t[:, None]) * x0 + t[:, None] * x1
        loss = ((module(x_t, t) - (x1 - x0)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        for block in module.blocks:
            norms.append(sum(p.grad.norm() ** 2 for p in block.parameters()).sqrt().item())
        torch.nn.utils.clip_grad_norm_(module.parameters(), CLIP)
        optimizer.step()
        with torch.no_grad():
            for mean, new in zip(average.parameters(), module.parameters(), strict=True):
                mean.mul_(EMA).add_(new, alpha=1 - EMA)
        losses.append(loss.item())

    return step


class _PlainBlock(nn.Module):
    """A block of DiT (arXiv 2212.09748), as one would write it down, with the weights of ours."""

    def __init__(self, ours: nn.Module):
        super().__init__()
        self.modulate = _plain(ours.modulate)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, elementwise_affine=False) for _ in range(2))
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.attention.in_proj_weight.data = ours.project.weight.data.clone()
        self.attention.in_proj_bias.data = ours.project.bias.data.clone()
        self.attention.out_proj.load_state_dict(ours.join.state_dict())
        widen, _, narrow = ours.perceptron
        self.perceptron = nn.Sequential(_plain(widen), nn.GELU(approximate="tanh"), _plain(narrow))

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        parts = self.modulate(time)[:, None].chunk(6, dim=2)
        h = self.norms[0](x) * (1 + parts[1]) + parts[0]
        x = x + parts[2] * self.attention(h, h, h, need_weights=False)[0]
        h = self.norms[1](x) * (1 + parts[4]) + parts[3]
        return x + parts[5] * self.perceptron(h)


class _Plain(nn.Module):
    """The whole network, as one would write it down, with the weights of ours."""

    def __init__(self, ours: Transformer):
        super().__init__()
        _, first, _, second, _ = ours.embed_time
        self.embed_time = nn.Sequential(
            FourierTime(WIDTH), _plain(first), nn.SiLU(), _plain(second), nn.SiLU()
        )
        self.enter = nn.ModuleList(_plain(layer) for layer in ours.enter)
        self.blocks = nn.ModuleList(_PlainBlock(block) for block in ours.blocks)
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.modulate = _plain(ours.modulate)
        self.leave = nn.ModuleList(_plain(layer) for layer in ours.leave)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        time = self.embed_time(t)
        hidden, bias = x[:, :1200].reshape(-1, 16, 75), x[:, 1200:].reshape(-1, 1, 10)
        x = torch.cat([self.enter[0](hidden), self.enter[1](bias)], dim=1)
        for block in self.blocks:
            x = block(x, time)
        shift, scale = self.modulate(time)[:, None].chunk(2, dim=2)
        x = self.norm(x) * (1 + scale) + shift
        hidden, bias = self.leave[0](x[:, :16]), self.leave[1](x[:, 16:])
        return torch.cat([hidden.flatten(1), bias.flatten(1)], dim=1)


def _plain(layer: nn.Linear) -> nn.Linear:
    """Return torch's own linear map, with the same parameters."""
    plain = nn.Linear(layer.in_features, layer.out_features)
    plain.load_state_dict(layer.state_dict())
    return plain


def _count_flops(module: _Plain) -> float:
    """Return the arithmetic of forward and backward of a batch, as torch counts it."""
    with FlopCounterMode(display=False) as counter:
        out = module(torch.randn(BATCH, NUM_FEATURES), torch.rand(BATCH))
        functional.mse_loss(out, torch.zeros_like(out)).backward()
    module.zero_grad()
    return counter.get_total_flops()


def _codes(count: int) -> Codes:
    """Random codes of digits MLPs 64-16-10."""
    width_T = torch.tensor([75] * 16 + [10])
    positions = torch.tensor([(t, int(t == 16), t % 16) for t in range(NUM_TOKENS)])
    mask = torch.arange(75) < width_T[:, None]
    shape = CodeShape.sequences(["benchmark"], positions, mask=mask)
    return shape.fill(torch.randn(count, NUM_FEATURES))


def _samples(n: int) -> Result:
    """512 samples, as the preset draws them and at a higher cost; as many threads as torch has."""
    with tempfile.TemporaryDirectory() as folder:
        flow = Flow(CONFIG)
        flow.fit(_codes(BATCH), _codes(0), run=RunFolder(Path(folder), CONFIG))
    sides = {
        "RK4, 8 steps": lambda: flow.sample(512, 0),
        "Heun, 50 steps": lambda: flow.sample(512, 0, method="heun2", steps=50),
    }
    return Result(
        f"512 samples of digits MLPs, {torch.get_num_threads()} threads",
        interleave(sides, n),
        targets={name + " (s)": ("<=", 20) for name in sides},
    )


def _pairings(n: int) -> Result:
    """What the pairings cost a step, and how much shorter they make its paths."""
    x0, x1 = torch.randn(BATCH, NUM_FEATURES), torch.randn(BATCH, NUM_FEATURES)
    sections = [(*SECTIONS[0], True), (*SECTIONS[1], False)]
    kinds = ("independent", "optimal_transport", "tokens", "equivariant")
    figures = {}
    for kind in kinds:
        times = []
        for _ in range(n):
            start = time.perf_counter()
            paired = pair(kind, x0, x1_BK=x1, sections=sections)
            times.append(time.perf_counter() - start)
        figures[f"{kind} (ms)"] = 1e3 * min(times)
        figures[f"{kind}: squared length of paths"] = (x1 - paired).square().mean().item()
    return Result(f"pairings of noise and Gaussian codes, batch {BATCH}", figures=figures)
