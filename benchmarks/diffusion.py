"""Diffusion over latents: p-diff's training step, and what drawing a network costs at its quality.

The plain step is the same network as one would write it down: torch's convolutions, AdamW unfused,
`.item()` each step. It begins with the same weights and draws the same numbers, so its losses are
ours. The published step (p-diff, arXiv 2402.13144) is the plain one that encodes its batch by the
frozen autoencoder first, at every step; here the latents of all networks are encoded once. Both are
at the published size: 2,048 numbers, 128 latents, batch 50, 200 networks. Published code on a
machine of this kind: 1.73 s a step on one thread and 1.05 s on two, for what it is worth.

Drawing: a small generator is fitted to Gaussian codes, whose distribution is known, and samplers
are held against each other by the Frechet distance of their samples to it, and by the time of one
network.
"""

import itertools
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from harness import Result, interleave
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from dwf.backbones.autoencoder_config import StridedAutoencoderConfig
from dwf.backbones.config import Conv1dConfig, ResidualMLPConfig
from dwf.backbones.conv1d import Conv1d
from dwf.backbones.embedding import FourierTime
from dwf.backbones.shape import Shape
from dwf.backbones.vector_autoencoder import build_autoencoder
from dwf.codecs.codes import Codes, CodeShape
from dwf.densities.config import DiffusionConfig, DiffusionSolverConfig
from dwf.densities.denoising import Denoising
from dwf.densities.diffusion import Diffusion
from dwf.densities.examples import Examples
from dwf.run_folder import RunFolder
from dwf.training.config import LoopComputeConfig, LoopConfig
from dwf.training.engine import make_engine
from dwf.training.throughput import measure_peak

NETWORKS, NUMBERS, LATENTS, BATCH, RATE = 200, 2048, 128, 50, 1e-4
PUBLISHED_STEP = 1.73  # seconds, one thread
CPU = torch.device("cpu")
CONFIG = DiffusionConfig(
    backbone=Conv1dConfig(),
    training=LoopConfig(
        steps=1, batch_size=BATCH, validate_every=1, compute=LoopComputeConfig(device="cpu")
    ),
    standardise="none",
)
SIZE = 16
"""Numbers of a Gaussian code."""
SAMPLERS = {
    "DDPM, 1,000 steps": DiffusionSolverConfig("ddpm", steps=1000),
    "DDIM, 50 steps": DiffusionSolverConfig("ddim", steps=50),
    "DPM-Solver++, 32 steps": DiffusionSolverConfig("dpm_solver", steps=32),
    "DPM-Solver++, 16 steps": DiffusionSolverConfig("dpm_solver", steps=16),
}
OURS, THEIRS = "DPM-Solver++, 32 steps", "DDPM, 1,000 steps"


def run(quick: bool) -> list[Result]:
    """Return the benchmarks of the step and of drawing, on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_step(2 if quick else 9), _drawing(quick)]
    finally:
        torch.set_num_threads(before)


# --- a training step ------------------------------------------------------------------------------


def _step(n: int) -> Result:
    """One update of each side; figures say whether the losses agree."""
    torch.manual_seed(0)
    ours = Conv1d(CONFIG.backbone, Shape(LATENTS))
    plain, published = _Plain(ours), _Plain(ours)
    autoencoder = build_autoencoder(StridedAutoencoderConfig(), NUMBERS, variational=False).eval()
    networks = torch.randn(NETWORKS, NUMBERS)
    with torch.no_grad():
        latents = autoencoder.encode(networks)
    encode = torch.no_grad()(lambda rows: autoencoder.encode(networks[rows]))
    losses: dict[str, list] = {"ours": [], "plain": [], "encoding each batch, as published": []}
    flops = _count_flops(plain)
    with tempfile.TemporaryDirectory() as folder:
        steps = (
            _our_step(ours, latents, losses["ours"], Path(folder)),
            _plain_step(plain, lambda rows: latents[rows], losses["plain"]),
            _plain_step(published, encode, losses["encoding each batch, as published"]),
        )
        seconds = interleave(dict(zip(losses, steps, strict=True)), n)
    layers = interleave(_passes(ours, plain), n)
    once = interleave({"all": lambda: encode(slice(None))}, n)["all"]
    peak = max(measure_peak(CPU, torch.float32) for _ in range(3))
    found, *others = (torch.tensor([float(one) for one in each]) for each in losses.values())
    difference, by_layer = "largest relative difference of losses", "layers alone, plain / ours"
    figures = {
        difference: max(((found - one).abs() / one).max().item() for one in others),
        by_layer: _median(layers["plain"]) / _median(layers["ours"]),
        "arithmetic of a step (GFLOP)": flops / 1e9,
        "peak of a matrix product (GFLOP/s)": peak / 1e9,
        "share of that peak, best step": flops / min(seconds["ours"]) / peak,
        "share of that peak, best plain step": flops / min(seconds["plain"]) / peak,
        "encoding all networks once (s)": _median(once),
        "published code's step elsewhere (s)": PUBLISHED_STEP,
    }
    targets = {
        difference: ("<=", 1e-5),
        by_layer: (">=", 0.97),  # equal but for the noise of these machines
        "plain / ours": (">=", 0.97),
        "encoding each batch, as published / ours": (">=", 1.1),
    }
    numbers = sum(parameter.numel() for parameter in ours.parameters())
    title = f"p-diff's diffusion step: {numbers:,} parameters, {LATENTS} latents, batch {BATCH}"
    return Result(title, seconds, figures=figures, targets=targets)


def _our_step(module: Conv1d, latents: torch.Tensor, losses: list, folder: Path):
    engine = make_engine(module, CONFIG.training, device=CPU, checkpoints=folder)
    task = Denoising(CONFIG, module, train=Examples(latents), val=Examples(latents[:0]), seed=0)
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        losses.append(engine.update(RATE, lambda: task.loss(module, BATCH, generator=generator)))

    return step


def _plain_step(module: "_Plain", code: Callable, losses: list):
    """A step over the codes of rows, as `code` gives them."""
    optimizer = torch.optim.AdamW(
        module.parameters(), RATE, weight_decay=0.0, foreach=False, fused=False
    )
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        x0 = code(torch.randint(NETWORKS, (BATCH,), generator=generator))
        place = torch.randint(1000, (BATCH,), generator=generator)
        noise = torch.empty_like(x0).normal_(0, 1, generator=generator)
        signal, spread = kept[place].sqrt().float(), (1 - kept[place]).sqrt().float()
        x_s = signal[:, None] * x0 + spread[:, None] * noise
        loss = ((module(x_s, (place + 1) / 1000) - noise) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    return step


class _Plain(nn.Module):
    """The network as one would write it down, with the weights of ours."""

    def __init__(self, ours: Conv1d):
        super().__init__()
        _, first, (_, second) = ours.embed_time
        self.embed_time = nn.Sequential(
            FourierTime(256), nn.Linear(256, 128), nn.SiLU(), nn.Linear(128, LATENTS)
        )
        self.embed_time[1].load_state_dict(first.state_dict())
        self.embed_time[3].load_state_dict(second.state_dict())
        widths = (1, 64, 128, 256, 512, 256, 128, 64, 1)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(enter, leave, 7, padding=3) for enter, leave in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(leave) for leave in widths[1:-1])
        for i, stage in enumerate(ours.stages):
            self.convolutions[i].load_state_dict(stage[0].state_dict())
            if i < len(self.norms):
                self.norms[i].load_state_dict(stage[1].state_dict())

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        time = self.embed_time(t)[:, None]
        x, kept = x[:, None], []
        for i, (convolve, norm) in enumerate(
            zip(self.convolutions, (*self.norms, None), strict=True)
        ):
            if i > 4:
                x = x + kept.pop()
            x = convolve(x + time)
            if norm is not None:
                x = functional.elu(norm(x))
            if i < 3:
                kept.append(x)
        return x[:, 0]


def _passes(ours: nn.Module, plain: nn.Module) -> dict[str, Callable[[], None]]:
    """Forward and backward of the layers alone."""
    x, t = torch.randn(BATCH, LATENTS), torch.rand(BATCH)

    def passing(module: nn.Module) -> Callable[[], None]:
        return lambda: module(x, t).square().mean().backward()

    return {"ours": passing(ours.train()), "plain": passing(plain.train())}


def _count_flops(module: nn.Module) -> float:
    """Return the arithmetic of forward and backward of a batch, as torch counts it."""
    with FlopCounterMode(display=False) as counter:
        module(torch.randn(BATCH, LATENTS), torch.rand(BATCH)).square().mean().backward()
    module.zero_grad()
    return counter.get_total_flops()


def _median(times: list[float]) -> float:
    return torch.tensor(times).median().item()


# --- drawing --------------------------------------------------------------------------------------


def _drawing(quick: bool) -> Result:
    """One network by each sampler, and how far many are from the distribution learnt."""
    count = 2000 if quick else 20_000
    codes, mean, covariance = _gaussian_codes(4000)
    training = LoopConfig(
        steps=800 if quick else 6000,
        batch_size=256,
        learning_rate=2e-3,
        ema=0.99,
        validate_every=400,
        compute=LoopComputeConfig(device="cpu", threads=1),
    )
    config = DiffusionConfig(
        ResidualMLPConfig(width=64, depth=2),
        training,
        schedule="cosine",
        prediction="velocity",
        standardise="none",
    )
    density = Diffusion(config)
    with tempfile.TemporaryDirectory() as folder:
        density.fit(codes, codes.take(slice(100)), run=RunFolder(Path(folder), config))
    away, sides = {}, {}
    for name, solver in SAMPLERS.items():
        how = {"method": solver.method, "steps": solver.steps}
        drawn = density.sample(count, 1, **how).values
        away[name] = _frechet(drawn, mean, covariance)
        sides[name] = lambda how=how: density.sample(1, 2, **how)
    sides = {OURS: sides.pop(OURS)} | sides
    seconds = interleave(sides, 2 if quick else 9)
    truth = torch.Generator().manual_seed(5)
    exact = mean + torch.randn(count, SIZE, generator=truth) @ torch.linalg.cholesky(covariance).T
    quality = "Frechet distance / DDPM's, of DPM-Solver++ with 32 steps"
    share = "time of one network / DDPM's, of DPM-Solver++ with 32 steps"
    figures = {f"{name}: Frechet distance": value for name, value in away.items()}
    figures["as many of the distribution itself: Frechet distance"] = _frechet(
        exact, mean, covariance
    )
    figures[quality] = away[OURS] / away[THEIRS]
    figures[share] = _median(seconds[OURS]) / _median(seconds[THEIRS])
    result = Result(
        f"one network of a diffusion of 1,000 steps, fitted to {SIZE} Gaussian numbers",
        seconds,
        figures=figures,
        targets={share: ("<=", 0.1)},
    )
    if not quick:  # of few samples, of a network that has hardly learnt, it is chance
        result.targets[quality] = ("<=", 1.1)
    return result


def _gaussian_codes(count: int) -> tuple[Codes, torch.Tensor, torch.Tensor]:
    """Return codes of a normal distribution, its mean and covariance."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(SIZE, SIZE, generator=generator) / math.sqrt(SIZE)
    mean = torch.randn(SIZE, generator=generator)
    covariance = mix @ mix.T + 0.1 * torch.eye(SIZE)
    normal = torch.randn(count, SIZE, generator=generator)
    values = mean + normal @ torch.linalg.cholesky(covariance).T
    return Codes(values, CodeShape.vectors("benchmark", SIZE)), mean, covariance


def _frechet(drawn: torch.Tensor, mean: torch.Tensor, covariance: torch.Tensor) -> float:
    """Return the Frechet distance of samples' moments to a normal distribution's."""
    drawn, mean, covariance = drawn.double(), mean.double(), covariance.double()
    found = torch.cov(drawn.T)
    values = torch.linalg.eigvals(found @ covariance).real.clamp(min=0)
    squared = (drawn.mean(0) - mean).square().sum() + found.trace() + covariance.trace()
    return (squared - 2 * values.sqrt().sum()).clamp(min=0).sqrt().item()
