"""Learnt probes: forward and backward over a batch of networks, against one network at a time.

All sides run the same networks on 128 probes from the same generator and take the gradient of the
sum of squared responses to its parameters; the figures say whether the gradients agree. One at a
time is a step for each network as it is trained with: its weights are loaded into the module, the
probes are made, it is run, and the gradient taken. `one at a time, probes made once` spares all but
running and gradient, in one graph. CNNs, which nothing batches on a CPU, are as measured.
"""

from collections.abc import Callable

import torch
from harness import Result, interleave
from torch.nn.functional import softmax

from dwf.networks.config import CNNConfig, MLPConfig, NetworkConfig
from dwf.networks.functional import build_network, run_one_by_one
from dwf.predictors.probes import LARGE, Probing, Runnable
from dwf.predictors.reading_config import ProbingConfig
from dwf.zoo.layout import Layout

SHAPE, CLASSES = (1, 14, 14), 10
MLP = MLPConfig((196, 16, 10))
CNN = CNNConfig(channels=(16, 16, 16), input=SHAPE, paddings=1, strides=2, head="average")


def run(quick: bool) -> list[Result]:
    """Return the benchmarks of MLPs and of CNNs, on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        mlps = _measure("MLPs 196-16-10", MLP, networks=64, repeats=3 if quick else 20)
        cnns = _measure("CNNs", CNN, networks=4 if quick else 64, repeats=1 if quick else 5)
    finally:
        torch.set_num_threads(before)
    mlps.targets = {"one at a time / ours": (">=", 10.0)}
    return [mlps, cnns]


def _measure(name: str, config: NetworkConfig, *, networks: int, repeats: int) -> Result:
    torch.manual_seed(0)
    network = build_network(config)
    layout = Layout.of(network)
    weights_ND = 0.1 * torch.randn(networks, layout.size)
    probing = Probing(ProbingConfig(), SHAPE, classes=CLASSES)
    state = layout.unflatten(weights_ND)

    def ours() -> None:
        _loss(probing([Runnable(network, state)])).backward()

    def one_at_a_time() -> None:
        alone = build_network(config).requires_grad_(False)
        for weights_D in weights_ND:
            alone.load_state_dict(layout.unflatten(weights_D), strict=False)
            _loss(_responses(alone(probing.probes()))).backward()

    def made_once() -> None:
        logits_NQK = run_one_by_one(network, state, inputs=probing.probes())
        _loss(torch.stack([_responses(logits_QK) for logits_QK in logits_NQK])).backward()

    sides = {
        "ours": _step(probing, ours),
        "one at a time": _step(probing, one_at_a_time),
        "one at a time, probes made once": _step(probing, made_once),
    }
    found = [side() for side in sides.values()]
    apart = max((other - found[0]).abs().max() / found[0].abs().max() for other in found[1:])
    return Result(
        f"{networks} {name} on {len(probing.codes_QL)} probes, forward and backward",
        interleave(sides, repeats),
        figures={"largest difference of a gradient (share of the largest)": float(apart)},
    )


def _step(probing: Probing, backward: Callable[[], None]) -> Callable[[], torch.Tensor]:
    def step() -> torch.Tensor:
        probing.zero_grad()
        backward()
        return torch.cat([p.grad.flatten() for p in probing.parameters()])

    return step


def _loss(responses: torch.Tensor) -> torch.Tensor:
    return responses.square().sum()


def _responses(logits_QK: torch.Tensor) -> torch.Tensor:
    bent_QK = logits_QK / (1 + logits_QK.abs() / LARGE)
    return torch.cat([bent_QK.flatten(), softmax(logits_QK, 1).flatten()])
