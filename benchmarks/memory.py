"""Memory of generators against the size of a network: fitted and drawn from, or planned.

Each row is codec and density with the sizes that were published, on networks of 10^4 to 10^7
weights (MLPs of the digits). What fits 16 GB by its plan is fitted, two steps of each part, and
draws a network, in a process of its own whose anonymous memory is watched.

The plan has parameters, gradients, moments, what the backward keeps of a batch, codes and the
codec's arrays: the least that is needed. Kernels' workspaces, validation and libraries that are
loaded on the way come on top, so the ratio of both is recorded. Where a row does not fit, the plan
is its figure, and is marked so. Published: p-diff's autoencoder takes 44.9 GB at 3 x 10^5 weights.

python benchmarks/run.py memory     results/memory.json, results/memory.png
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from harness import Result
from matplotlib.figure import Figure
from torch import nn

from dwf.backbones.config import (
    Conv1dConfig,
    PublishedMLPConfig,
    ResidualMLPConfig,
    TransformerConfig,
)
from dwf.cluster.local import KEEP_FREED_MEMORY
from dwf.codecs.config import (
    CODECS,
    CodecSettings,
    ConvAutoencoderConfig,
    FlatConfig,
    NeuronsConfig,
    PcaConfig,
    SaneConfig,
    SaneLoopConfig,
    StridedAutoencoderConfig,
    VaeConfig,
)
from dwf.datasets.config import DataConfig
from dwf.densities.config import (
    DensitySettings,
    DiffusionConfig,
    DiffusionSolverConfig,
    FlowConfig,
    KdeConfig,
    SolverConfig,
)
from dwf.generators.config import GeneratorConfig
from dwf.generators.generator import Generator
from dwf.generators.stage import fit_generator
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.settings import find
from dwf.training.config import LoopComputeConfig, LoopConfig
from dwf.training.memory import activation_bytes, memory_of_training
from dwf.training.task import Share
from dwf.training.throughput import memory_gib
from dwf.zoo.facts import Facts
from dwf.zoo.layout import Layout
from dwf.zoo.store import write_zoo

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
QUICK_SIZES = (4_000, 10_000_000)
NETWORKS, TRAINING = 70, 60
MOST_GIB, QUICK_GIB = 16e9 / 2**30, 1.0
_HERE = Path(__file__).parent


def _loop(batch: int) -> LoopConfig:
    compute = LoopComputeConfig(device="cpu", threads=1)
    return LoopConfig(steps=2, batch_size=batch, validate_every=2, compute=compute)


@dataclass(frozen=True)
class Row:
    """A generator whose memory is of interest."""

    codec: CodecSettings
    density: DensitySettings


_FLOW = SolverConfig("euler", steps=2)
_DIFFUSION = DiffusionSolverConfig("ddim", steps=2)
ROWS = {
    "DeepWeightFlow, PCA": Row(PcaConfig(), FlowConfig(PublishedMLPConfig(), _loop(8), _FLOW)),
    "DeepWeightFlow, whole": Row(FlatConfig(), FlowConfig(PublishedMLPConfig(), _loop(8), _FLOW)),
    "p-diff": Row(
        ConvAutoencoderConfig(training=_loop(50)),
        DiffusionConfig(Conv1dConfig(), _loop(50), _DIFFUSION),
    ),
    "p-diff, in chunks": Row(
        ConvAutoencoderConfig(
            backbone=StridedAutoencoderConfig(latent=128),
            training=_loop(64),
            chunk=16_384,
            codes="tokens",
        ),
        DiffusionConfig(
            TransformerConfig(width=256, heads=8, depth=6, positions=True), _loop(16), _DIFFUSION
        ),
    ),
    "VAE-Diffusion": Row(
        VaeConfig(training=_loop(32)),
        DiffusionConfig(ResidualMLPConfig(width=256, depth=3), _loop(8), _DIFFUSION),
    ),
    "SANE": Row(
        SaneConfig(training=SaneLoopConfig(steps=2, batch_size=32, validate_every=2)),
        KdeConfig(mode="joint"),
    ),
    "neuron flow": Row(
        NeuronsConfig(),
        FlowConfig(TransformerConfig(width=128, heads=4, depth=6), _loop(8), _FLOW),
    ),
}


def run(quick: bool) -> list[Result]:
    """Return memory of each row at each size; `quick` measures one small size and plans another."""
    sizes, rows = QUICK_SIZES if quick else SIZES, {}
    most = QUICK_GIB if quick else MOST_GIB
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            layout = _layout(size)
            planned = {name: _planned(row, layout) / 2**30 for name, row in ROWS.items()}
            fitting = [name for name, gib in planned.items() if gib <= most]
            found = _measure(Path(folder) / str(size), size, fitting) if fitting else {}
            for name, gib in planned.items():
                point = {"weights": layout.size, "planned": gib, "measured": found.get(name)}
                rows.setdefault(name, []).append(point)
        target = Path(folder) if quick else _HERE / "results"
        _draw(rows).savefig(target / "memory.png", dpi=130, bbox_inches="tight")
    return [_result(name, points) for name, points in rows.items()]


def _result(name: str, points: list[dict]) -> Result:
    figures = {}
    for point in points:
        how = "planned" if point["measured"] is None else "measured"
        figures[f"{point['weights']:,} weights, {how} (GiB)"] = point[how]
        if how == "measured":
            figures[f"{point['weights']:,} weights, planned / measured"] = (
                point["planned"] / point["measured"]
            )
    return Result(f"memory of {name}", figures=figures)


# --- the plan -------------------------------------------------------------------------------------


def _planned(row: Row, layout: Layout) -> float:
    """Return bytes of the larger of the two fits, with the arrays that are held meanwhile."""
    kind = find(CODECS, row.codec.kind)
    shape = kind.planned_shape(row.codec, [layout], num_train=TRAINING)
    codes = 4 * NETWORKS * shape.size
    # Of PCA the components; of all codecs template, shift and scale.
    held = 4 * layout.size * (3 + (TRAINING if isinstance(row.codec, PcaConfig) else 0))
    of_codec = of_density = 0
    if row.codec.training is not None:
        module, training = kind.planned_module(row.codec, [layout]), row.codec.training
        share = Share(0, 1, batch_size=training.batch_size)
        kept = kind.activation_bytes(row.codec, module, share=share)
        if not kept:
            kept = _kept(module, lambda: module(_meta(training.batch_size, layout.size)))
        of_codec = _of_training(module, training, kept)
    if row.density.backbone is not None:
        of_density = _of_density(row.density, shape)
    return held + max(of_codec + 4 * NETWORKS * layout.size, of_density + codes)


def _of_density(density: DensitySettings, shape: object) -> int:
    with torch.device("meta"):
        module = density.build_network(shape)
    batch = density.training.batch_size
    if shape.sections is None:
        inputs = _meta(batch, shape.size), torch.rand(batch, device="meta")
        return _of_training(module, density.training, _kept(module, lambda: module(*inputs)))
    # Attention as the CPU computes it, which no tensor without memory would tell.
    tokens = batch * sum(count for count, _ in shape.sections)
    backbone = density.backbone
    kept = activation_bytes(
        tokens, backbone.width, depth=backbone.depth, expansion=backbone.expansion
    )
    return _of_training(module, density.training, kept)


def _meta(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, device="meta")


def _of_training(module: nn.Module, training: LoopConfig, kept: int) -> int:
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return memory_of_training(training, parameters, world=1, activations=kept)["total"]


def _kept(module: nn.Module, forward: Callable[[], object]) -> int:
    """Return bytes that the backward keeps, without its parameters, of a module without memory."""
    own = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
    sizes: dict[int, int] = {}
    alive = []  # so that no other memory gets the same number

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:  # views of one tensor count once
            alive.append(tensor)
            sizes[storage._cdata] = storage.nbytes()
        return tensor

    module.train()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = forward()
    del out
    return sum(sizes.values())


# --- the measurement ------------------------------------------------------------------------------


def _layout(size: int) -> Layout:
    """Return that of an MLP 64-w-w-10 of about so many weights."""
    with torch.device("meta"):
        return Layout.of(build_network(_network(size)))


def _network(size: int) -> MLPConfig:
    width = round((38**2 + size) ** 0.5 - 38)  # w^2 + 76 w + 10 weights
    return MLPConfig((64, width, width, 10))


def _measure(folder: Path, size: int, names: list[str]) -> dict[str, float]:
    """Return GiB of each row, fitted to random networks of this size."""
    _write_zoo(folder, size)
    # As generators are fitted, and unlike the other benchmarks: freed memory is given back.
    environment = {name: v for name, v in os.environ.items() if name not in KEEP_FREED_MEMORY}
    found = {}
    for name in names:
        command = [sys.executable, __file__, name, str(folder)]
        said = subprocess.run(
            command, check=True, capture_output=True, text=True, encoding="utf-8", env=environment
        ).stdout
        found[name] = json.loads(said.splitlines()[-1])
    return found


def _write_zoo(folder: Path, size: int) -> None:
    layout = _layout(size)
    split = np.where(np.arange(NETWORKS) < TRAINING, "train", "val")

    def blocks():
        for row in range(NETWORKS):
            stream = np.random.default_rng(row)
            columns = {
                "network": np.array([row]),
                "epoch": np.zeros(1, np.int64),
                "split": split[row : row + 1],
            }
            yield columns, 0.1 * stream.standard_normal((1, layout.size), dtype=np.float32)

    facts = Facts(
        layout=layout,
        num_shards=1,
        network=_network(size),
        data=DataConfig("digits"),
        seed=0,
        input_shape=(64,),
    )
    write_zoo(folder / "zoos" / "zoo", facts, num_rows=NETWORKS, blocks=blocks())


def _fit_watched(name: str, root: str) -> None:
    """Print the most anonymous memory (GiB) above that of the libraries, looked at every 5 ms."""
    row, cpu = ROWS[name], torch.device("cpu")
    torch.set_num_threads(1)
    begun, peak, done = memory_gib(cpu), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], memory_gib(cpu))

    watcher = threading.Thread(target=watch)
    watcher.start()
    run_name = name.replace(" ", "_").replace(",", "")
    config = GeneratorConfig(zoo="zoo", codec=row.codec, density=row.density)
    fit_generator(config, Path(root), name=run_name)
    Generator.load(Path(root) / "runs" / run_name).sample(1, 0)
    done.set()
    watcher.join()
    print(json.dumps(peak[0] - begun))


# --- the figure -----------------------------------------------------------------------------------


def _draw(rows: dict[str, list[dict]]) -> Figure:
    """Return one plot of all rows: lines are plans, full dots were measured."""
    figure = Figure(figsize=(7, 4.6))
    axes = figure.subplots()
    for number, (name, points) in enumerate(rows.items()):
        colour = f"C{number}"
        at = [point["weights"] for point in points]
        axes.plot(
            at, [point["planned"] for point in points], ":", color=colour, marker="o", mfc="none"
        )
        there = [point for point in points if point["measured"] is not None]
        axes.plot(
            [point["weights"] for point in there],
            [point["measured"] for point in there],
            color=colour,
            marker="o",
            label=name,
        )
    axes.axhline(MOST_GIB, color="#999999", linewidth=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("weights of a network")
    axes.set_ylabel("memory (GiB); dotted: planned, grey: 16 GB")
    axes.legend(frameon=False, fontsize=9)
    return figure


if __name__ == "__main__":
    _fit_watched(*sys.argv[1:])
