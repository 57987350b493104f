"""SANE: a training step against a straightforward one, the data path within a fit, and memory.

The straightforward step is the same network as one would write it down: torch's linear maps, a
forward for each view, `.item()` each step, AdamW unfused. It begins with the same weights and sees
the same windows, so its losses are ours. Published: 1.62 s a step of that shape on one thread of a
machine of this kind, for what it is worth.
"""

import copy
import json
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from harness import Result, interleave
from kernels import step_and_choose
from torch import nn
from torch.nn import functional

from dwf.backbones.config import TokenAutoencoderConfig
from dwf.backbones.token_autoencoder import TokenAutoencoder
from dwf.codecs.config import SaneComputeConfig, SaneConfig, SaneLoopConfig, SaneTokensConfig
from dwf.codecs.sane import SaneCodec, nt_xent, squared_error
from dwf.datasets.config import DataConfig
from dwf.networks.config import NetworkConfig, ResNetConfig
from dwf.networks.functional import build_network
from dwf.run_folder import RunFolder
from dwf.zoo.facts import Facts
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo, write_zoo

_PUBLISHED_STEP = 1.62  # seconds: d 256, 4 + 4 blocks, window 64, batch 16, one thread
_TORCH = "ours by torch's own kernels"
_MIB = 2**20


def run(quick: bool) -> list[Result]:
    """Return the benchmarks of the step, of the data path and of memory."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return [
                _step(_AS_PUBLISHED, 289, 64, 16, 3 if quick else 9),
                _step(_SMALL, 41, 72, 32, 3 if quick else 9),
                _data_path(quick, Path(folder)),
                _memory(4 if quick else 100, Path(folder)),
            ]
    finally:
        torch.set_num_threads(before)


_AS_PUBLISHED = TokenAutoencoderConfig(
    width=256, heads=8, depth=4, latent=128, max_positions=(100, 10, 40)
)
_SMALL = TokenAutoencoderConfig(width=128, heads=4, depth=2, latent=32, max_positions=(100, 10, 40))


def _step(config: TokenAutoencoderConfig, size: int, window: int, batch: int, n: int) -> Result:
    """One update of all; figures say whether the losses agree, the name which kernel is ours."""
    torch.manual_seed(0)
    ours = TokenAutoencoder(config, size, window=window)
    theirs = TokenAutoencoder(config, size, window=window)
    theirs.load_state_dict(ours.state_dict())
    for module in [*theirs.modules()]:
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, _plain(child))
    views = torch.randn(2, batch, window, size)
    mask = torch.rand(batch, window, size) < 0.4
    views *= mask
    positions = torch.stack([torch.randint(n, (batch, window)) for n in config.max_positions], 2)
    unfused = torch.optim.AdamW(theirs.parameters(), 1e-4, foreach=False, fused=False)
    losses: dict[str, list[float]] = {"ours": [], "straightforward": []}

    def stepper(module: TokenAutoencoder, losses: list) -> Callable[[], None]:
        fused = torch.optim.AdamW(module.parameters(), 1e-4, fused=True)

        def step() -> None:
            made, projections = module(views.flatten(0, 1), positions.repeat(2, 1, 1))
            both = mask.repeat(2, 1, 1)
            loss = 0.95 * squared_error(made, views.flatten(0, 1), counted_BWC=both) / both.sum()
            loss = loss + 0.05 * nt_xent(projections, 0.1)
            for parameter in module.parameters():
                parameter.grad = None
            loss.backward()
            fused.step()
            losses.append(loss.detach())

        return step

    def straightforward() -> None:
        unfused.zero_grad()
        errors, projections = [], []
        for view in views:
            latents = theirs.encode(view, positions)
            made = theirs.decode(latents, positions)
            errors.append(((made - view)[mask] ** 2).mean())
            projections.append(theirs.project(latents))
        loss = 0.95 * (errors[0] + errors[1]) / 2 + 0.05 * _textbook_nt_xent(*projections)
        loss.backward()
        unfused.step()
        losses["straightforward"].append(loss.item())

    sides = {"ours": stepper(ours, losses["ours"]), _TORCH: stepper(copy.deepcopy(ours), [])}
    sides["straightforward"] = straightforward
    kernel = step_and_choose(ours, sides["ours"])
    straightforward()  # as often
    seconds = interleave(sides, n)
    found, wanted = (torch.tensor([float(one) for one in losses[side]]) for side in losses)
    deviation = ((found - wanted).abs() / wanted).max().item()
    numbers = sum(parameter.numel() for parameter in ours.parameters())
    figures = {"largest relative difference of losses": deviation}
    # A tenth is these machines' noise.
    targets = {"straightforward / ours": (">=", 1.3), f"{_TORCH} / ours": (">=", 0.9)}
    targets["largest relative difference of losses"] = ("<=", 1e-4)
    if config == _AS_PUBLISHED:
        figures["published / ours"] = _PUBLISHED_STEP / statistics.median(seconds["ours"])
    name = f"SANE step: {numbers:,} parameters, window {window} x {size}, batch {batch}"
    name += f", kernels of {kernel}"
    return Result(name, seconds, figures=figures, targets=targets)


def _plain(layer: nn.Linear) -> nn.Linear:
    """Return torch's own linear map, with the same parameters."""
    plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
    plain.load_state_dict(layer.state_dict())
    return plain


def _textbook_nt_xent(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    every = torch.cat([first, second])
    similarity = functional.cosine_similarity(every[:, None], every[None], dim=2) / 0.1
    num = len(every)
    others = similarity[~torch.eye(num, dtype=torch.bool)].view(num, num - 1)
    positive = similarity[torch.arange(num), torch.arange(num).roll(num // 2)]
    return (torch.logsumexp(others, 1) - positive).mean()


def _fit(zoo: Zoo, config: SaneConfig, folder: Path) -> list[dict]:
    """Fit a codec and return the lines of its metrics."""
    shutil.rmtree(folder, ignore_errors=True)
    rows = np.arange(len(zoo))
    SaneCodec(config).fit([(zoo, rows)], [], run=RunFolder(folder, config))
    lines = (folder / "codec" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _zoo(config: NetworkConfig, num: int, folder: Path) -> Zoo:
    """Write a zoo of random networks, one at a time."""
    layout = Layout.of(build_network(config))
    rng = np.random.default_rng(0)

    def blocks():
        for i in range(num):
            weights = rng.standard_normal((1, layout.size), dtype=np.float32)
            columns = {"network": np.array([i]), "epoch": np.ones(1, np.int32)}
            yield columns | {"split": np.array(["train"])}, weights

    said = {"network": config, "data": DataConfig("cifar10"), "input_shape": (3, 32, 32), "seed": 0}
    return write_zoo(
        folder, Facts(layout=layout, num_shards=1, **said), num_rows=num, blocks=blocks()
    )


def _preset(size: int, window: int, batch: int, steps: int) -> SaneConfig:
    return SaneConfig(
        tokens=SaneTokensConfig(size, norms=False),
        backbone=TokenAutoencoderConfig(width=256, heads=4, depth=4, latent=64),
        training=SaneLoopConfig(
            steps=steps,
            batch_size=batch,
            validate_every=max(1, steps // 3),
            compute=SaneComputeConfig(threads=1),
        ),
        window=window,
        halo=window // 8,
        views=("permuted", "permuted"),
    )


def _data_path(quick: bool, folder: Path) -> Result:
    """Share of a fit's time that it waits for windows of a ResNet-18 of width 16."""
    zoo = _zoo(ResNetConfig(width=16), 20, folder / "narrow")
    metrics = _fit(zoo, _preset(144, 128, 8, 3 if quick else 15), folder / "run")
    waits = [line["data_wait"] for line in metrics]
    figure = "share of the time waiting for windows"
    return Result(
        "data path of a fit: ResNet-18 of width 16, two permuted views, no process beside",
        figures={figure: statistics.median(waits)},
        targets={figure: ("<=", 0.1)},
    )


def _memory(num: int, folder: Path) -> Result:
    """Anonymous memory of a fit to ResNet-18s beyond parameters, gradients and optimiser."""
    zoo = _zoo(ResNetConfig(), num, folder / "large")
    config = _preset(288, 128, 8, 3)
    numbers = sum(p.numel() for p in SaneCodec.planned_module(config, [zoo.layout]).parameters())
    peak = [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], _anonymous_bytes())

    begun = _anonymous_bytes()
    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    try:
        _fit(zoo, config, folder / "run")
    finally:
        done.set()
        watcher.join()
    own = 4 * 4 * numbers  # weights, gradients, two moments
    figure = "memory above the codec's own (MiB)"
    return Result(
        f"memory of a fit to {num} ResNet-18s, {num * 4 * zoo.layout.size / _MIB:,.0f} MiB on disk",
        figures={
            figure: (peak[0] - begun - own) / _MIB,
            "the codec's own (MiB)": own / _MIB,
            "seconds, statistics of the zoo included": time.perf_counter() - start,
        },
        targets={figure: ("<=", 2048)},
    )


def _anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
