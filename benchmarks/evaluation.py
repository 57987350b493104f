"""Evaluation: scoring 100 MLPs at once, and how near samples are to a large zoo.

Scoring stands against a DataLoader loop over each network. Nearness is timed on random networks:
500 samples against 65,536 training networks, in behaviour, weights and units, in seconds of one
core; scoring is not counted. The limits (1,000 of the training networks against all) are timed
beside it.

The loop is what published weight generators ship: PIL images, `ToTensor`, batches of 32, a network
at a time. It is timed on fewer networks, and its seconds are scaled to 100: its cost is the same
for each.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from harness import Result, interleave
from torch import nn
from torch.utils.data import DataLoader, Dataset

from dwf.datasets.config import DataConfig
from dwf.datasets.dataset import Part
from dwf.datasets.load import load_dataset
from dwf.evaluation.measure import Nearness, Rows
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network, score_networks
from dwf.zoo.facts import Facts
from dwf.zoo.layout import Layout
from dwf.zoo.store import write_zoo

NUM_NETWORKS, NUM_THREADS, BATCH = 100, 2, 32


class PlainImages(Dataset):
    """Images of a part, decoded and converted one at a time."""

    def __init__(self, part: Part):
        from PIL import Image
        from torchvision.transforms import ToTensor

        self.part, self.decode, self.convert = part, Image.fromarray, ToTensor()

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        row = self.part.index[position]
        image = self.decode(self.part.images[row].squeeze().numpy())
        return self.convert(image), int(self.part.labels[row])


@torch.no_grad()
def score_plainly(network: nn.Module, images: PlainImages) -> float:
    """Return one network's accuracy, batch by batch."""
    right = 0
    for inputs, labels in DataLoader(images, batch_size=BATCH):
        right += (network(inputs).argmax(1) == labels).sum().item()
    return right / len(images)


def run(quick: bool) -> list[Result]:
    """Time 100 MLPs 784-32-32-10 on 10,000 MNIST images (quick: 2,000), on two threads."""
    data = load_dataset(DataConfig(kind="mnist"))
    part = data.test
    if quick:
        part = Part(part.images, part.labels, index=part.index[:2000])
    config = MLPConfig((784, 32, 32, 10))
    networks = [build_network(config) for _ in range(NUM_NETWORKS)]
    layout = Layout.of(networks[0])
    weights_ND = torch.stack([layout.flatten(network.state_dict()) for network in networks])
    few, images = 1 if quick else 2, PlainImages(part)

    def stacked() -> None:
        score_networks(
            networks[0], layout.unflatten(weights_ND), data=data, part=part, keep_wrong=True
        )

    def plain() -> None:
        for network in networks[:few]:
            score_plainly(network, images)

    threads = torch.get_num_threads()
    torch.set_num_threads(NUM_THREADS)
    try:
        seconds = interleave({"stacked": stacked, "plain": plain})
    finally:
        torch.set_num_threads(threads)
    scaled = [each * NUM_NETWORKS / few for each in seconds["plain"]]
    loop = f"DataLoader loop, scaled from {few}"
    result = Result(
        f"evaluation of {NUM_NETWORKS} MLPs on {len(part)} images",
        seconds={"stacked": seconds["stacked"], loop: scaled},
        figures={"networks": NUM_NETWORKS, "images": len(part), "threads": NUM_THREADS},
    )
    if not quick:
        result.targets["stacked (s)"] = ("<=", 1.0)
    return [result, time_nearness(quick)]


def time_nearness(quick: bool) -> Result:
    """Time samples against 65,536 digits MLPs 64-16-16-10 (quick: 2,048), on one thread."""
    count, samples = (2048, 50) if quick else (65_536, 500)
    data, network_config = load_dataset(DataConfig(kind="digits")), MLPConfig((64, 16, 16, 10))
    network = build_network(network_config)
    layout, stream = Layout.of(network), np.random.default_rng(0)
    columns = {
        "network": np.arange(count),
        "epoch": np.zeros(count, np.int64),
        "split": np.full(count, "train"),
    }
    weights_ND = 0.3 * stream.standard_normal((count, layout.size), dtype=np.float32)
    behaviour_NF = stream.standard_normal((count, 2150), dtype=np.float32)
    behaviour_NF /= np.linalg.norm(behaviour_NF, axis=1, keepdims=True)
    subject = {"network": network_config, "data": DataConfig("digits"), "seed": 0}
    facts = Facts(layout=layout, num_shards=1, input_shape=data.shape, **subject)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "zoo"
            zoo = write_zoo(path, facts, num_rows=count, blocks=[(columns, weights_ND)])
            start = time.process_time()
            held = Nearness(Rows(zoo, np.arange(count)), network, data=data, device="cpu")
            coded = time.process_time()
            held.learn(behaviour_NF)
            learnt = time.process_time()
            mine_BD = weights_ND[:samples] + np.float32(0.01)
            held.measure(mine_BD, behaviour_NF[:samples])
            measured = time.process_time()
    finally:
        torch.set_num_threads(threads)
    result = Result(
        f"nearness of {samples} samples to {count} MLPs",
        seconds={"samples": [measured - learnt]},
        figures={
            "units of the training networks (s)": coded - start,
            "limits (s)": learnt - coded,
            "threads": 1,
        },
    )
    if not quick:
        result.targets["samples (s)"] = ("<=", 60.0)
    return result
