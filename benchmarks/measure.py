"""Robustness of 1,000 small CNNs against plain evaluation of the same networks on the same images.

A forward pass is one pass, a backward pass two. FGSM then takes four (forward, backward, and a
forward on what came of it), PGD of S steps 3 S + 1. What is reported is the rate of passes, that of
plain evaluation being 1. Networks are taken in blocks as the stage takes them, on one thread.
"""

import numpy as np
import torch
from harness import Result, interleave

from dwf.datasets.config import DataConfig
from dwf.measurements.attacks import Fgsm, Pgd
from dwf.measurements.config import FgsmConfig, PgdConfig, block_size
from dwf.measurements.measure import Block
from dwf.measurements.pictures import Pictures
from dwf.networks.config import CNNConfig, MLPConfig, NetworkConfig
from dwf.networks.functional import build_network, is_stacked, score_networks
from dwf.zoo.facts import Facts
from dwf.zoo.layout import Layout

DATA = DataConfig("mnist", size=14, validation=0.1)
CNN = CNNConfig(channels=(16, 16, 16), input=(1, 14, 14), paddings=1)
MLP = MLPConfig((196, 16, 10))
STEPS = 3


def run(quick: bool) -> list[Result]:
    """Time 1,000 CNNs (quick: 16) on 100 images, and MLPs 196-16-10 on as many."""
    torch.set_num_threads(1)
    repeats = 1 if quick else 5
    cnns = _time("small CNNs", CNN, 16 if quick else 1000, repeats)
    if not quick:
        for name in ("FGSM", "PGD"):
            cnns.targets[f"{name}: rate of passes, plain evaluation = 1"] = (">=", 0.7)
    return [cnns, _time("MLPs 196-16-10", MLP, 64 if quick else 1000, repeats)]


def _time(what: str, config: NetworkConfig, count: int, repeats: int) -> Result:
    """Time one plain evaluation and both attacks of all networks."""
    images = 100
    blocks = _blocks(config, count)
    measures = {
        "FGSM": Fgsm(FgsmConfig(images=images), "fgsm", part="val"),
        "PGD": Pgd(PgdConfig(images=images, steps=STEPS), "pgd", part="val"),
    }
    passes = {"FGSM": 4, "PGD": 3 * STEPS + 1}

    def plain() -> None:
        for block in blocks:
            part = block.pictures.part("val", images)
            score_networks(block.network, block.state, data=block.pictures.data, part=part)

    def attack(name: str) -> None:
        for block in blocks:
            measures[name].values(block)

    sides = {"plain": plain} | {name: lambda name=name: attack(name) for name in measures}
    seconds = interleave(sides, repeats)
    result = Result(f"robustness of {count} {what} on {images} images", seconds=seconds)
    for name, num in passes.items():
        rate = num * np.median(seconds["plain"]) / np.median(seconds[name])
        result.figures[f"{name}: rate of passes, plain evaluation = 1"] = float(rate)
    return result


def _blocks(config: NetworkConfig, count: int) -> list[Block]:
    """Networks of initial weights, in the stage's blocks."""
    network = build_network(config)
    layout = Layout.of(network)
    weights = [layout.flatten(build_network(config).state_dict()) for _ in range(count)]
    size = block_size(None, is_stacked(network), num_weights=layout.size)
    subject = {"network": config, "data": DATA, "seed": 0, "input_shape": (1, 14, 14)}
    facts = Facts(layout=layout, num_shards=1, **subject)
    pictures = Pictures.of(facts, 0)
    return [
        Block(
            facts, network, layout.unflatten(torch.stack(weights[start : start + size])), pictures
        )
        for start in range(0, count, size)
    ]
