"""Evaluation: scoring 100 MLPs at once, against a DataLoader loop over each network.

The loop is what published weight generators ship: PIL images, `ToTensor`, batches of 32, a network
at a time. It is timed on fewer networks, and its seconds are scaled to 100: its cost is the same
for each.
"""

import torch
from harness import Result, interleave
from torch import nn
from torch.utils.data import DataLoader, Dataset

from dwf.datasets.config import DataConfig
from dwf.datasets.dataset import Part
from dwf.datasets.load import load_dataset
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network, score_networks
from dwf.zoo.layout import Layout

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
    return [result]
