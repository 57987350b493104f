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
CNN = CNNConfig(channels=(16, 16, 16), input=(1, 14, 14), strides=2, paddings=1, head="average")
"""4,970 weights."""
MLP = MLPConfig((196, 16, 10))
IMAGES, STEPS, REPEATS = 200, 3, 3
RATE = "rate of passes, plain evaluation = 1"
PASSES = {"FGSM": 4, "PGD": 3 * STEPS + 1}


def run(quick: bool) -> list[Result]:
    """Time FGSM of 1,000 CNNs and MLPs (quick: 16 and 64), PGD of 160 and 1,000."""
    torch.set_num_threads(1)
    cases = [("FGSM", CNN, 1000), ("PGD", CNN, 160), ("FGSM", MLP, 1000), ("PGD", MLP, 1000)]
    fewest = {CNN: 16, MLP: 64}
    return [
        _time(name, config, fewest[config] if quick else count, quick=quick)
        for name, config, count in cases
    ]


def _time(name: str, config: NetworkConfig, count: int, *, quick: bool) -> Result:
    """Time one plain evaluation and one attack of all networks."""
    blocks = _blocks(config, count)
    attack = {
        "FGSM": Fgsm(FgsmConfig(images=IMAGES), "fgsm", part="val"),
        "PGD": Pgd(PgdConfig(images=IMAGES, steps=STEPS), "pgd", part="val"),
    }[name]

    def attacked() -> None:
        for block in blocks:
            attack.values(block)

    def plain() -> None:
        for block in blocks:
            part = block.pictures.part("val", IMAGES)
            score_networks(block.network, block.state, data=block.pictures.data, part=part)

    seconds = interleave({name: attacked, "plain": plain}, 1 if quick else REPEATS)
    rate = PASSES[name] * np.median(seconds["plain"]) / np.median(seconds[name])
    what = "CNNs of 4,970 weights" if config == CNN else "MLPs 196-16-10"
    result = Result(f"{name} of {count:,} {what} on {IMAGES} images", seconds=seconds)
    result.figures[RATE] = float(rate)
    if not quick and config == CNN:
        result.targets[RATE] = (">=", 0.7)
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
