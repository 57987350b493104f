"""Training networks with convolutions: two processes, the bare convolutions, networks an hour."""

import dataclasses
import multiprocessing
import statistics
import time
from functools import partial
from pathlib import Path

import torch
from harness import Result, interleave, with_data
from torch import nn

from dwf.datasets.load import load_dataset
from dwf.networks.functional import build_network
from dwf.settings import load
from dwf.zoo.cohorts import Cohort, choose_method, measure_rate
from dwf.zoo.config import AugmentConfig, VaryConfig, ZooConfig
from dwf.zoo.facts import Method

TINY = "configs/zoo/tiny_cnn_cifar10.yaml"
NARROW = ("resnet18_narrow_cifar10", "resnet20_narrow_cifar10", "cnn_fashion_mnist")


def run(quick: bool) -> list[Result]:
    """Steps on one thread each, as the workers of a zoo take them."""
    torch.set_num_threads(1)
    parts = {"two processes": partial(_processes, quick), "ways to batch": partial(_ways, quick)}
    parts |= {f"networks an hour: {name}": partial(_an_hour, name) for name in (TINY, *_narrow())}
    return [with_data(name, measure) for name, measure in parts.items()]


def _narrow() -> list[str]:
    return [f"configs/zoo/{name}.yaml" for name in NARROW]


def _tiny() -> ZooConfig:
    """TinyCNN with crops and flips alone, as most recipes have them."""
    config = load(ZooConfig, TINY)
    recipe = dataclasses.replace(config.recipe, augment=AugmentConfig(flip=0.5, pad=4))
    return dataclasses.replace(config, recipe=recipe, vary=VaryConfig(), count=1)


def _cohort(config: ZooConfig, method: Method) -> tuple[Cohort, torch.Tensor]:
    cohort = Cohort(
        config,
        range(method.cohort),
        data=load_dataset(config.data),
        folder=Path("/none"),
        method=method,
    )
    cohort._begin()
    return cohort, cohort._shuffle()[:, : config.recipe.batch_size]


def _processes(quick: bool) -> Result:
    """Steps in a window of time: of one process, of two at once; and of the bare convolutions."""
    load_dataset(_tiny().data)  # fetched here, not by two processes at once
    seconds, rounds = (2.0, 1) if quick else (6.0, 5)
    result = Result("zoo training, TinyCNN on CIFAR-10, crop and flip, channels last, batch 128")
    sides: dict[str, list[float]] = {"two processes": [], "one process": [], "convolutions": []}
    with multiprocessing.get_context("spawn").Pool(2, torch.set_num_threads, (1,)) as pool:
        pool.map(_steps_in, [1.0, 1.0])  # both have started
        for _ in range(rounds):
            sides["two processes"].append(1 / sum(pool.map(_steps_in, [seconds] * 2, 1)))
            sides["one process"].append(1 / pool.apply(_steps_in, (seconds,)))
            sides["convolutions"].append(1 / pool.apply(_bare_steps_in, (seconds,)))
    result.seconds = {f"{side}, a step": times for side, times in sides.items()}
    two, bare = (statistics.median(sides[s]) for s in ("two processes", "convolutions"))
    result.figures = {"two processes / convolutions on two cores": two / (bare / 2)}
    result.targets = {
        "one process, a step / two processes, a step": (">=", 1.5),
        "two processes / convolutions on two cores": ("<=", 1.5),
    }
    return result


def _steps_in(seconds: float) -> float:
    """Return steps a second of a TinyCNN in training."""
    cohort, positions = _cohort(_tiny(), Method(1, channels_last=True))
    return _rate_of(lambda: cohort._step(positions), seconds)


def _bare_steps_in(seconds: float) -> float:
    """Return steps a second of nothing but its convolutions and linear layers, both ways."""
    cohort, positions = _cohort(_tiny(), Method(1, channels_last=True))
    images, _ = cohort._take(positions)
    layers = _layers(cohort.program.network, cohort.data.prepare(images))

    def step() -> None:
        for layer, inputs, gradient in layers:
            layer(inputs).backward(gradient)

    return _rate_of(step, seconds)


def _layers(network: nn.Module, images: torch.Tensor) -> list[tuple]:
    """Each layer with weights, its inputs and a gradient of its outputs, as a step meets them."""
    found: list[tuple] = []

    def note(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        found.append((layer, inputs[0].detach().clone(), torch.randn_like(output)))

    kinds = (nn.Conv2d, nn.Linear)
    hooks = [m.register_forward_hook(note) for m in network.modules() if isinstance(m, kinds)]
    network(images)
    for hook in hooks:
        hook.remove()
    for _, inputs, _ in found[1:]:  # nobody asks for the gradient of the images
        inputs.requires_grad_()
    return found


def _rate_of(step, seconds: float) -> float:
    for _ in range(3):
        step()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step()
        done += 1
    return done / (time.perf_counter() - began)


def _ways(quick: bool) -> Result:
    """What the timing before training chooses between, on a larger batch than it takes."""
    config = load(ZooConfig, _narrow()[1])
    sides = {}
    for name, method in {
        "one by one, channels last": Method(1, channels_last=True),
        "one by one": Method(1),
        "batched by four": Method(4),
    }.items():
        cohort, positions = _cohort(config, method)
        sides[name] = lambda cohort=cohort, positions=positions: cohort._step(positions)
    times = interleave(sides, 2 if quick else 15)
    times["batched by four"] = [seconds / 4 for seconds in times["batched by four"]]
    result = Result("zoo training, ResNet-20 of width 4 on CIFAR-10, a step of a network")
    result.seconds = times
    began = time.perf_counter()
    chosen = choose_method(config, load_dataset(config.data)).method
    result.figures = {"timing (s)": time.perf_counter() - began}
    result.figures["timing takes channels last"] = float(chosen.channels_last)
    return result


def _an_hour(name: str) -> Result:
    """Networks an hour of one core, scores aside, and what a worker holds."""
    config = load(ZooConfig, name)
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # a worker's memory is its own
        measured = pool.apply(measure_rate, (config,))
    result = Result(f"zoo training, {Path(name).stem}, {config.recipe.epochs} epochs")
    weights = sum(p.numel() for p in build_network(config.network).parameters())
    epoch = measured.seconds
    result.figures = {
        "weights": float(weights),
        "epoch of a network (s)": epoch,
        "networks an hour and core": 3600 / (epoch * config.recipe.epochs),
        "memory of a worker (MiB)": measured.memory_mib,
    }
    return result
