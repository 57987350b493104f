"""Fine-tuning: 100 MLPs in batches against loops over each, 32 small CNNs by two processes.

The MLPs go on from given weights on Fashion-MNIST, on one thread; a loop's seconds are those of one
network, its cost is the same for each. The CNNs are a whole fine-tuning by the stage, with its
scores and its report, by two worker processes, which are started anew, and one after the other
in this process.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from harness import Result, interleave
from zoo import BATCH, data_loader_loop, in_memory_loop

from dwf.cluster import local
from dwf.datasets.config import DataConfig
from dwf.datasets.load import load_dataset
from dwf.networks.config import CNNConfig, MLPConfig
from dwf.networks.functional import build_network
from dwf.stages import Runner, run_here
from dwf.transfer.config import FinetuneConfig
from dwf.transfer.stage import finetune
from dwf.transfer.target import find_target
from dwf.zoo.cohorts import Cohort, Start, choose_method
from dwf.zoo.config import RecipeConfig, ZooConfig
from dwf.zoo.facts import Facts
from dwf.zoo.layout import Layout
from dwf.zoo.store import write_zoo

NUM_MLPS, NUM_CNNS = 100, 32
MLP = MLPConfig((784, 32, 32, 10))
CNN = CNNConfig(channels=(8, 12, 12), pools=(2, 2, 0), pool_first=True, hidden=(20,))
DATA = DataConfig("fashion_mnist")


def run(quick: bool) -> list[Result]:
    """MLPs on one thread, then CNNs by processes of one thread each."""
    torch.set_num_threads(1)
    return [_mlps(quick), _cnns(quick)]


def _mlps(quick: bool) -> Result:
    steps = 10 if quick else 100
    settings = FinetuneConfig(
        "mlps", DATA, count=NUM_MLPS, recipe=RecipeConfig(epochs=25, batch_size=BATCH)
    )
    target = find_target(settings, _facts(MLP))
    config, data = target.config, target.data
    cohorts = list(_cohorts(config, choose_method(config, data).method.cohort))

    def ours() -> None:
        for cohort, order_NM in cohorts:
            for step in range(steps):
                cohort._step(order_NM[:, step * BATCH : (step + 1) * BATCH])

    alone, loader = (
        in_memory_loop(config, data, steps=steps),
        data_loader_loop(config, data, steps=steps),
    )
    sides = {"batched": ours, "in memory": alone, "DataLoader": loader}
    times = interleave(sides, 1 if quick else 5)
    times["batched"] = [seconds / NUM_MLPS for seconds in times["batched"]]
    result = Result(f"fine-tuning, {NUM_MLPS} MLPs 784-32-32-10, batch 64, own shuffles")
    result.seconds = {f"{side}, {steps} steps a network": t for side, t in times.items()}
    ours_name, memory, plain = result.seconds
    result.targets = {
        f"{memory} / {ours_name}": (">=", 3.5),
        f"{plain} / {ours_name}": (">=", 10),
    }
    return result


def _cohorts(config: ZooConfig, size: int) -> Iterator[tuple[Cohort, torch.Tensor]]:
    """Yield each cohort of networks that go on, and its shuffle."""
    data, weights_ND = load_dataset(config.data), torch.from_numpy(_weights(MLP, config.count))
    for first in range(0, config.count, size):
        networks = range(first, min(first + size, config.count))
        start = Start(weights_ND[networks.start : networks.stop])
        cohort = Cohort(config, networks, data=data, folder=Path("/none"), start=start)
        cohort._begin()
        yield cohort, cohort._shuffle()


def _weights(network: MLPConfig | CNNConfig, count: int) -> np.ndarray:
    built = [build_network(network) for _ in range(count)]
    layout = Layout.of(built[0])
    return torch.stack([layout.flatten(one.state_dict()) for one in built]).numpy()


def _cnns(quick: bool) -> Result:
    result = Result(f"fine-tuning, {NUM_CNNS} CNNs of 4,654 parameters, by the stage")
    with tempfile.TemporaryDirectory() as folder:
        root, numbers = Path(folder), iter(range(100))
        _write_cnns(root)
        recipe = RecipeConfig(epochs=1 if quick else 5, batch_size=64)
        config = FinetuneConfig(
            "cnns", DATA, arms=("originals",), count=NUM_CNNS, recipe=recipe, epochs=(0,)
        )
        few = FinetuneConfig(**vars(config) | {"images_per_class": 20 if quick else 500})

        def by(run_units: Runner) -> None:
            finetune(few, root, name=f"run-{next(numbers)}", run=run_units)

        two = local.runner(2)
        sides = {"two processes": lambda: by(two), "one at a time": lambda: by(run_here)}
        result.seconds = interleave(sides, 1 if quick else 3)
    result.targets = {"one at a time / two processes": (">=", 1.6)}
    return result


def _facts(network: MLPConfig | CNNConfig) -> Facts:
    layout, shape = Layout.of(build_network(network)), (1, 28, 28)
    return Facts(layout=layout, num_shards=1, network=network, data=DATA, input_shape=shape, seed=0)


def _write_cnns(root: Path) -> None:
    weights_ND, facts = _weights(CNN, NUM_CNNS), _facts(CNN)
    columns = {"network": np.arange(NUM_CNNS), "epoch": np.zeros(NUM_CNNS, np.int32)}
    columns |= {"split": np.full(NUM_CNNS, "train")}
    write_zoo(root / "zoos" / "cnns", facts, num_rows=NUM_CNNS, blocks=[(columns, weights_ND)])
