"""Flow matching on PCA codes: training throughput against a textbook loop, and drawing samples.

The textbook loop is what most published code does: two `DataLoader`s of batch 8 (codes, sources),
`.item()` and a progress line every step, AdamW unfused, the scheduler stepped every step.

Both sides train DeepWeightFlow's network (0.40 M parameters) on one thread; codes are 100 vectors
of 99 numbers with a decaying spectrum, as PCA makes of 100 networks.
"""

import copy
import itertools
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from harness import Result, interleave
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dwf.backbones.config import PublishedMLPConfig
from dwf.codecs.codes import Codes, CodeShape
from dwf.densities.config import FlowConfig, SolverConfig
from dwf.densities.flow import Flow
from dwf.densities.solver import draw_noise, solve
from dwf.run_folder import RunFolder
from dwf.training.config import LoopComputeConfig, LoopConfig

NUM_CODES, NUM_FEATURES, OUR_BATCH, PUBLISHED_BATCH = 100, 99, 100, 8


def run(quick: bool) -> list[Result]:
    """Return the benchmarks of training and of sampling."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return [_training(quick, Path(folder)), _sampling(quick, Path(folder))]
    finally:
        torch.set_num_threads(before)


def _codes() -> Codes:
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.linspace(3, 0.7, NUM_FEATURES)
    values = torch.randn(NUM_CODES, NUM_FEATURES, generator=generator) * spectrum
    return Codes(values, CodeShape.vectors("benchmark", NUM_FEATURES))


def _published(steps: int, batch_size: int) -> FlowConfig:
    """The published preset, with the source vectors and the settings of DeepWeightFlow."""
    training = LoopConfig(
        steps=steps,
        batch_size=batch_size,
        learning_rate=5e-4,
        weight_decay=1e-5,
        betas=(0.9, 0.95),
        minimum_rate=1e-6,
        validate_every=steps,
        compute=LoopComputeConfig(device="cpu"),
    )
    return FlowConfig(
        PublishedMLPConfig(),
        training,
        standardise="none",
        source="fixed",
        source_std=0.01,
        sigma=0.001,
    )


def _fit(config: FlowConfig, run: RunFolder) -> Flow:
    """Train from the first step on."""
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    codes, flow = _codes(), Flow(config)
    flow.fit(codes, codes.take(slice(10)), run=run)
    return flow


class _TextbookNetwork(nn.Module):
    """The published network, as one would write it down."""

    def __init__(self, hidden: int = 512, num_time: int = 64):
        super().__init__()
        self.embed_time = nn.Sequential(
            nn.Linear(1, num_time), nn.GELU(), nn.Linear(num_time, num_time)
        )
        widths = [NUM_FEATURES + num_time, hidden, hidden // 2, hidden]
        layers = []
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
            dropout = [nn.Dropout(0.1)] if i < 2 else []
            layers += [nn.Linear(fan_in, fan_out), nn.LayerNorm(fan_out), nn.GELU(), *dropout]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, NUM_FEATURES))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.cat([x, self.embed_time(t[:, None])], dim=1))


def _textbook(steps: int) -> None:
    codes = _codes().values
    sources = 0.01 * torch.randn_like(codes)
    code_loader = DataLoader(TensorDataset(codes), PUBLISHED_BATCH, shuffle=True, drop_last=True)
    source_loader = DataLoader(
        TensorDataset(sources), PUBLISHED_BATCH, shuffle=True, drop_last=True
    )
    network = _TextbookNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), 5e-4, (0.9, 0.95), weight_decay=1e-5)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, 1e-6)
    losses, step = [], 0
    while step < steps:
        for (x1,), (x0,) in zip(code_loader, source_loader, strict=True):
            t = torch.rand(len(x1))
            x_t = (1 - t[:, None]) * x0 + t[:, None] * x1 + 0.001 * torch.randn_like(x1)
            loss = ((network(x_t, t) - (x1 - x0)) ** 2).mean()
            if torch.isnan(loss) or torch.isinf(loss):
                continue
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
            step += 1
            if step == steps:
                break


def _training(quick: bool, folder: Path) -> Result:
    """Samples a second; each side's time is for its own number of steps."""
    steps = 300 if quick else 1500
    few = steps // 3
    ours, equal = f"ours, batch {OUR_BATCH}", f"ours, batch {PUBLISHED_BATCH}"
    textbook = f"textbook, batch {PUBLISHED_BATCH}"
    at_ours, at_equal = _published(few, OUR_BATCH), _published(steps, PUBLISHED_BATCH)
    run_ours, run_equal = RunFolder(folder / "ours", at_ours), RunFolder(folder / "equal", at_equal)
    seconds = interleave(
        {
            ours: lambda: _fit(at_ours, run_ours),
            equal: lambda: _fit(at_equal, run_equal),
            textbook: lambda: _textbook(steps),
        }
    )
    samples = {ours: few * OUR_BATCH, equal: steps * PUBLISHED_BATCH}
    samples[textbook] = samples[equal]
    rates = {side: samples[side] / statistics.median(times) for side, times in seconds.items()}
    gain, equal_gain = "samples/s / textbook's, our batch", "samples/s / textbook's, equal batch"
    return Result(
        "flow training on PCA codes",
        seconds,
        figures={f"{side} (samples/s)": rate for side, rate in rates.items()}
        | {gain: rates[ours] / rates[textbook], equal_gain: rates[equal] / rates[textbook]},
        targets={gain: (">=", 6), equal_gain: (">=", 1.5)},
    )


def _deviation(flow: Flow, exact: torch.Tensor, **solver: object) -> float:
    drawn = flow.sample(100, seed=1, **solver).values.double()
    return ((drawn - exact).norm() / exact.norm()).item()


def _exact(flow: Flow) -> torch.Tensor:
    """The same 100 samples solved in float64 to a relative error of 1e-9."""
    double = copy.deepcopy(flow)
    double.module.double()
    start = draw_noise(100, NUM_FEATURES, seed=1).double() * flow.config.source_std
    tight = SolverConfig(method="dopri5", rtol=1e-9, atol=1e-11)
    with torch.no_grad():
        return solve(lambda t, x: double.velocity(x, t), start, config=tight)


def _sampling(quick: bool, folder: Path) -> Result:
    """100 samples by our default solver and by 396 evaluations of RK4 (99 intervals)."""
    config = _published(1000 if quick else 5000, PUBLISHED_BATCH)
    flow = _fit(config, RunFolder(folder / "sampling", config))
    published = {"method": "rk4", "steps": 99}
    ours, theirs = "default solver", "RK4, 396 evaluations"
    seconds = interleave(
        {ours: lambda: flow.sample(100, 1), theirs: lambda: flow.sample(100, 1, **published)}
    )
    exact, evaluations = _exact(flow), []
    flow.module.register_forward_hook(lambda *_: evaluations.append(1))
    deviation = _deviation(flow, exact)
    num_evaluations = len(evaluations)
    theirs_deviation = _deviation(flow, exact, **published)
    return Result(
        "100 samples on PCA codes",
        seconds,
        figures={
            "default solver: 100 samples (s)": statistics.median(seconds[ours]),
            "default solver: evaluations": num_evaluations,
            "default solver: relative deviation from the exact solution": deviation,
            "RK4, 396 evaluations: relative deviation": theirs_deviation,
            "deviation over RK4's": deviation / theirs_deviation,
        },
        targets={
            "default solver: 100 samples (s)": ("<=", 0.2),
            "deviation over RK4's": ("<=", 1.0),
        },
    )


if __name__ == "__main__":
    start = time.perf_counter()
    for result in run(quick=False):
        print(result.name, *(f"  {k}: {v:.4g}" for k, v in result.values().items()), sep="\n")
    print(f"{time.perf_counter() - start:.0f} s")
