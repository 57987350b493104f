"""What one GPU does: networks an hour, the share of its peak that trainings use, samples a second.

python benchmarks/gpu.py [--rehearse]

Networks are trained on noise of the size of MNIST's and CIFAR-10's images, so that nothing is
fetched. Recorded in benchmarks/results/gpu.json; takes at most three minutes. Without a GPU there
is no result. `--rehearse` does little of each on the CPU, to see that it runs, and records nothing.
"""

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from run import conditions

from dwf.backbones.config import TokenAutoencoderConfig, TransformerConfig
from dwf.codecs.config import (
    SaneComputeConfig,
    SaneConfig,
    SaneLoopConfig,
    SaneTokensConfig,
    TokensConfig,
)
from dwf.codecs.sane import SaneCodec
from dwf.datasets.config import DataConfig
from dwf.datasets.dataset import Dataset, Part
from dwf.densities.config import FlowConfig, SolverConfig
from dwf.errors import ConfigError
from dwf.generators.config import GeneratorConfig
from dwf.generators.stage import fit_generator
from dwf.metrics import print_table, read_metrics
from dwf.networks.config import CifarResNetConfig
from dwf.networks.functional import build_network
from dwf.plain import Json
from dwf.run_folder import RunFolder, write_json
from dwf.settings import load
from dwf.shipped import CONFIGS
from dwf.training.config import LoopComputeConfig, LoopConfig
from dwf.training.throughput import measure_peak
from dwf.zoo.cohorts import Cohort, choose_method
from dwf.zoo.config import ZooComputeConfig, ZooConfig
from dwf.zoo.facts import Facts
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo, split_networks, write_zoo

HERE = Path(__file__).parent
ZOOS = {"MLP, MNIST": "mnist_mlp", "CNN, MNIST": "sane_cnn_mnist", "ResNet-20": "resnet20_cifar10"}
_REPEATS = 5


@dataclass(frozen=True)
class Scale:
    """How much is done of each."""

    images: int
    """Training images."""
    seconds: float
    """Seconds of a repeat of the training of a zoo."""
    cohort: int | None
    """Networks trained together; None: as many as the memory holds."""
    width: int
    """Width of SANE's and of the flow's backbone."""
    depth: int
    """Blocks of each."""
    resnet: int
    """Width of the ResNet-20s that these learn from."""
    steps: int
    """Steps of a repeat of a training."""
    batch: int
    """Examples of an update."""
    precision: str


FULL = Scale(50_000, 2.0, None, 512, 12, 16, 20, 32, "bf16")
SMALL = Scale(256, 0.0, 2, 32, 1, 2, 2, 2, "float32")


@dataclass(frozen=True)
class Figure:
    """One number, measured several times."""

    name: str
    values: list[float]

    def row(self) -> list[str]:
        """Name, median and quartiles, for a table."""
        quartiles = statistics.quantiles(self.values, n=4) if len(self.values) > 1 else self.values
        spread = f"{quartiles[0]:.4g} to {quartiles[-1]:.4g}"
        return [self.name, f"{statistics.median(self.values):.4g}", spread, str(len(self.values))]

    def to_json(self) -> dict[str, Json]:
        """Name, median and all values."""
        median = statistics.median(self.values)
        return {"name": self.name, "median": median, "values": self.values}


def main() -> None:
    """Measure, print a table and record it; without a GPU say so."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rehearse", action="store_true")
    rehearses = parser.parse_args().rehearse
    if not rehearses and not torch.cuda.is_available():
        sys.exit("torch finds no GPU here: nothing was measured, and there is no result")
    began = time.perf_counter()
    figures = measure("cpu", SMALL) if rehearses else measure("cuda", FULL)
    print_table(["figure", "median", "quartiles", "n"], [one.row() for one in figures])
    seconds = time.perf_counter() - began
    print(f"{seconds:.0f} s")
    if not rehearses:
        record = conditions("gpu") | {"command": "python benchmarks/gpu.py", "seconds": seconds}
        record |= {"gpu": torch.cuda.get_device_name(), "scale": dataclasses.asdict(FULL)}
        write_json(
            HERE / "results" / "gpu.json", record | {"results": [f.to_json() for f in figures]}
        )


def measure(device: str, scale: Scale) -> list[Figure]:
    """Return all figures, measured on a device."""
    dtype = torch.bfloat16 if scale.precision == "bf16" else torch.float32
    peak = measure_peak(torch.device(device), dtype)
    figures = [Figure(f"peak of a product in {scale.precision} (TFLOP/s)", [peak / 1e12])]
    for name, preset in ZOOS.items():
        figures += _zoo(name, preset, device=device, scale=scale)
    with tempfile.TemporaryDirectory() as folder:
        zoo = _networks(Path(folder), scale)
        figures.append(_sane(zoo, Path(folder), device=device, scale=scale))
        figures += _flow(Path(folder), device=device, scale=scale, peak=peak)
    return figures


# --- zoos ----------------------------------------------------------------------------------


def _zoo(name: str, preset: str, *, device: str, scale: Scale) -> list[Figure]:
    """Networks an hour, of a preset's recipe, images of noise."""
    config = load(ZooConfig, CONFIGS / "zoo" / f"{preset}.yaml")
    compute = ZooComputeConfig(device=device)
    config = dataclasses.replace(config, compute=compute, shard=None, cohort=scale.cohort)
    data = noise((1, 28, 28) if "MNIST" in name else (3, 32, 32), scale.images)
    method = choose_method(config, data).method
    folder = Path("/nonexistent")  # a cohort writes at the end of an epoch alone
    cohort = Cohort(config, range(method.cohort), data=data, folder=folder, method=method)
    seconds = [cohort.time_steps(scale.seconds, 1) for _ in range(_REPEATS)]
    steps = config.recipe.epochs * cohort.steps_per_epoch
    rates = [3600 * method.cohort / (steps * each) for each in seconds]
    return [
        Figure(f"{name}: networks trained together", [float(method.cohort)]),
        Figure(f"{name}: networks an hour, {config.recipe.epochs} epochs", rates),
    ]


def noise(shape: tuple[int, ...], count: int) -> Dataset:
    """Images of noise in ten classes; an eighth as many for validation, and for tests."""
    generator = torch.Generator().manual_seed(0)
    held = max(count // 8, 10)
    total = count + 2 * held
    images = torch.randint(0, 256, (total, *shape), dtype=torch.uint8, generator=generator)
    labels, index = torch.arange(total) % 10, torch.arange(total)
    parts = [Part(images, labels, index=rows) for rows in index.split([count, held, held])]
    return Dataset(*parts, 10, torch.tensor(1 / 255), None)


# --- generators ----------------------------------------------------------------------------


def _networks(root: Path, scale: Scale) -> Zoo:
    """A zoo of ResNet-20s of random weights."""
    network = CifarResNetConfig(width=scale.resnet)
    layout, count = Layout.of(build_network(network)), max(4 * scale.batch, 24)
    rng = np.random.default_rng(0)
    weights_ND = rng.standard_normal((count, layout.size), dtype=np.float32)
    columns = {"network": np.arange(count), "epoch": np.ones(count, np.int32)}
    columns["split"] = split_networks(count, 0.1, test=0.1, seed=0)
    told = {"network": network, "data": DataConfig("cifar10"), "input_shape": (3, 32, 32)}
    facts = Facts(layout=layout, num_shards=1, seed=0, **told)
    return write_zoo(
        root / "zoos" / "random", facts, num_rows=count, blocks=[(columns, weights_ND)]
    )


def _sane(zoo: Zoo, root: Path, *, device: str, scale: Scale) -> Figure:
    """Share of the peak that SANE's training uses."""
    loop = SaneLoopConfig(
        steps=(_REPEATS + 1) * scale.steps,
        batch_size=4 * scale.batch,
        validate_every=scale.steps,
        warm_up=1,
        compute=SaneComputeConfig(device=device, precision=scale.precision),
    )
    backbone = TokenAutoencoderConfig(width=scale.width, heads=4, depth=scale.depth, latent=16)
    tokens = SaneTokensConfig(norms=False)
    config = SaneConfig(tokens=tokens, backbone=backbone, training=loop, window=64, halo=8)
    run = RunFolder(root / "runs" / "sane", config)
    rows, held = zoo.rows("train"), zoo.rows("val")
    SaneCodec(config).fit([(zoo, rows)], [(zoo, held)], run=run)
    lines = read_metrics(run.path / "codec" / "metrics.jsonl")
    return Figure("SANE: MFU", _later(lines, "mfu"))


def _flow(root: Path, *, device: str, scale: Scale, peak: float) -> list[Figure]:
    """Share of the peak that a flow over the tokens of whole networks uses, and its samples."""
    compute = LoopComputeConfig(device=device, precision=scale.precision)
    loop = LoopConfig(
        steps=(_REPEATS + 1) * scale.steps,
        batch_size=scale.batch,
        validate_every=scale.steps,
        warm_up=1,
        compute=compute,
    )
    backbone = TransformerConfig(scale.width, 4, scale.depth, positions=True)
    density = FlowConfig(
        backbone=backbone, training=loop, solver=SolverConfig(method="euler", steps=10)
    )
    config = GeneratorConfig(zoo="random", codec=TokensConfig(), density=density)
    generator = fit_generator(config, root, name="flow")
    rates = _later(read_metrics(root / "runs" / "flow" / "metrics.jsonl"), "samples/s")
    # A product counts twice, and thrice for forward and both gradients.
    flops = 6 * backbone.multiplications(generator.density.shape)
    drawn = []
    for number in range(_REPEATS):
        began = time.perf_counter()
        generator.density.sample(scale.batch, number)  # ends on the CPU, so all is done
        drawn.append(scale.batch / (time.perf_counter() - began))
    return [
        Figure("token flow: MFU", [rate * flops / peak for rate in rates]),
        Figure("token flow: samples a second of training", rates),
        Figure("token flow: samples drawn a second, 10 steps of Euler", drawn),
    ]


def _later(lines: Sequence[dict[str, float]], name: str) -> list[float]:
    """A number of each validation but the first, which warms up."""
    found = [line[name] for line in lines if name in line][1:]
    if not found:
        raise ConfigError(f"the metrics have no {name!r} beyond the first validation")
    return found


if __name__ == "__main__":
    main()
