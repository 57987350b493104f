"""Zoo training on MNIST against the loops people write, and its share of the processor's peak.

Shape suffixes: N networks, B images of a batch, M training images.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

import convolutions
import torch
from harness import Result, interleave, with_data
from torch.nn.functional import cross_entropy

from dwf.datasets.dataset import Dataset
from dwf.datasets.load import load_dataset
from dwf.networks.functional import build_network
from dwf.settings import load
from dwf.zoo.cohorts import Cohort
from dwf.zoo.config import ZooConfig
from dwf.zoo.roster import cohort_size

BATCH = 64


def run(quick: bool) -> list[Result]:
    """One thread throughout: a step of a cohort against a step of each loop, per network."""
    torch.set_num_threads(1)
    config = load(ZooConfig, "configs/zoo/mnist_mlp.yaml")
    stacked = [
        with_data(f"zoo training, MNIST, cohort of {size}", partial(_training, config, size, quick))
        for size in (_cache_sized(config), 64)
    ]
    return stacked + convolutions.run(quick)


def _cache_sized(config: ZooConfig) -> int:
    return cohort_size(config, 26_506, num_inputs=784)


def _training(config: ZooConfig, size: int, quick: bool) -> Result:
    data = load_dataset(config.data)
    steps = 20 if quick else 100
    result = Result(f"zoo training, MNIST 784-32-32-10, batch 64, own shuffles, cohort of {size}")
    cohort = Cohort(config, range(size), data=data, folder=Path(mkdtemp()))
    cohort._begin()
    order_NM = cohort._shuffle()

    def ours() -> None:
        for step in range(steps):
            cohort._step(order_NM[:, step * BATCH : (step + 1) * BATCH])

    alone = in_memory_loop(config, data, steps=steps)
    loader = data_loader_loop(config, data, steps=steps)
    times = interleave({"ours": ours, "in memory": alone, "DataLoader": loader}, 5)
    times["ours"] = [seconds / size for seconds in times["ours"]]
    result.seconds = {f"{side}, {steps} steps a network": t for side, t in times.items()}
    rate = _flops_per_step() * steps / statistics.median(times["ours"])
    peak = _peak()
    result.figures = {
        "GFLOP/s": rate / 1e9,
        "peak (GFLOP/s)": peak / 1e9,
        "share of peak": rate / peak,
    }
    epoch = statistics.median(times["ours"]) / steps * cohort.steps_per_epoch
    result.figures["epoch of a network (s)"] = epoch
    ours_name, memory, plain = result.seconds
    result.targets = {
        f"{plain} / {ours_name}": (">=", 30),
        f"{memory} / {ours_name}": (">=", 3),
        "share of peak": (">=", 0.4),
    }
    return result


def _flops_per_step() -> float:
    """Forward and both gradients, without the gradient of the images."""
    sizes = (784 * 32, 32 * 32, 32 * 10)
    return 2 * BATCH * (3 * sum(sizes) - sizes[0])


def _peak() -> float:
    """Best of several square products that fit the cache: what this core can do."""
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    best = float("inf")
    for _ in range(12):
        start = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - start)
    return 2 * 1024**3 / best


def in_memory_loop(config: ZooConfig, data: Dataset, *, steps: int) -> Callable[[], None]:
    """Return a loop over steps of one network: float images in memory, fused Adam."""
    network = build_network(config.network)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    images = data.prepare(data.train.images)
    order = data.train.index[torch.randperm(len(data.train))]

    def loop() -> None:
        for step in range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            optimizer.zero_grad()
            cross_entropy(network(images[rows]), data.train.labels[rows]).backward()
            optimizer.step()

    return loop


def data_loader_loop(config: ZooConfig, data: Dataset, *, steps: int) -> Callable[[], None]:
    """Return a loop over steps of one network as tutorials train it.

    Images are decoded one by one, and each step asks for `.item()`.
    """
    from torchvision.transforms.functional import to_pil_image, to_tensor

    class Images(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(data.train)

        def __getitem__(self, place: int):
            row = data.train.index[place]
            return to_tensor(to_pil_image(data.train.images[row])), int(data.train.labels[row])

    network = build_network(config.network)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    def loop() -> None:
        loader = torch.utils.data.DataLoader(Images(), batch_size=BATCH, shuffle=True)
        total = 0.0
        for images, labels in itertools.islice(loader, steps):
            optimizer.zero_grad()
            loss = cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item()

    return loop
